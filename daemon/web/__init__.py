"""The page: the night in a browser, from a process of its own that only reads, and reduces nothing."""
