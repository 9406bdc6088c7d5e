"""The steps of the recipes, each a function of frames with its parameters beside it."""
