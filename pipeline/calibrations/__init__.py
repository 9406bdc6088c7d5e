"""Processed calibrations: the store that holds them, and asking one or more stores for them."""
