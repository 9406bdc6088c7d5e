"""Frames from files and back, for scripts: what `docs/tutorial.ipynb` imports. Our own code uses `files`."""

from pipeline.files.read import read_frame, read_provenance
from pipeline.files.write import verify_product, write_product

__all__ = ["read_frame", "read_provenance", "verify_product", "write_product"]
