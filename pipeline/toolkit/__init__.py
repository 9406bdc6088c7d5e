"""`pipeline.open` and what can be asked of a file: tags, descriptors as methods, expressions."""
