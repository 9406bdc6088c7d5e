"""How `Reduce` runs: what goes in, which calibrations are chosen for it, and the plan that is carried out."""
