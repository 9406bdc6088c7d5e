"""From a plan to a product on disk: rounds of planning, workers, publication, previews."""
