"""Files on disk: what is in them, frames read from them, products and pictures written to them."""
