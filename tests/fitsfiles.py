"""FITS files for tests, put together by hand, so that neither our reader nor our writer is its own judge."""

from __future__ import annotations

import numpy as np
from astropy.io import fits

BLOCK = 2880

# Cards of a raw dark: what a frame needs to be classified.
DARK = {
    "INSTRUME": "NIRI", "OBSERVAT": "Gemini-North", "TELESCOP": "Gemini-North", "OBSTYPE": "DARK",
    "OBSCLASS": "dayCal", "OBJECT": "Dark", "GEMPRGID": "GN-2015B-Q-31", "OBSID": "GN-2015B-Q-31-1",
    "DATALAB": "GN-2015B-Q-31-1-001",
    "DATE-OBS": "2016-01-02", "UT": "06:02:45.0", "EXPTIME": 20.002, "COADDS": 1, "LNRS": 1, "NDAVGS": 16,
    "A_VDDUC": -3.4065, "A_VDET": -2.8072, "CAMERA": "f6", "FPMASK": "f6-cam_G5208",
    "FILTER1": "open", "FILTER2": "open", "FILTER3": "blank", "RAWPIREQ": "YES", "RAWGEMQA": "USABLE",
}  # fmt: skip


def header_bytes(cards: dict, *, end: bool = True) -> bytes:
    """Cards as they are given: a value of bytes is put into the file as the whole card."""
    out = b""
    for key, value in cards.items():
        if isinstance(value, bytes):
            card = value
        elif isinstance(value, bool):
            card = f"{key:<8}= {'T' if value else 'F':>20}".encode()
        elif isinstance(value, str):
            card = f"{key:<8}= '{value:<8}'".encode()
        else:
            card = f"{key:<8}= {value!r:>20}".encode()
        out += card.ljust(80)[:80]
    if end:
        out += b"END".ljust(80)
    return out + b" " * (-len(out) % BLOCK)


def padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % BLOCK)


def image_bytes(pixels: np.ndarray, cards: dict | None = None) -> bytes:
    """An image extension."""
    bitpix = {"f4": -32, "f8": -64, "i2": 16, "i4": 32, "u1": 8}[pixels.dtype.str[1:]]
    ny, nx = pixels.shape
    head = {
        "XTENSION": "IMAGE",
        "BITPIX": bitpix,
        "NAXIS": 2,
        "NAXIS1": nx,
        "NAXIS2": ny,
        "PCOUNT": 0,
        "GCOUNT": 1,
    }
    return header_bytes({**head, **(cards or {})}) + padded(
        pixels.astype(pixels.dtype.newbyteorder(">")).tobytes()
    )


def frame_bytes(
    cards: dict | None = None, pixels: np.ndarray | None = None, ext: dict | None = None
) -> bytes:
    """A raw NIRI frame: a primary header, one unnamed extension of 64 x 64 pixels unless others are given."""
    head = {"SIMPLE": True, "BITPIX": 8, "NAXIS": 0, "EXTEND": True, **(DARK if cards is None else cards)}
    return header_bytes(head) + image_bytes(noise() if pixels is None else pixels, ext)


def noise(ny: int = 64, nx: int = 64, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(1000.0, 30.0, (ny, nx)).astype("f4")


def real_file(text: str, *, seed: int = 0) -> bytes:
    """A file with the headers of a text from `realdata/headers`, with noise for pixels.

    The cards are copied as they are: what is odd in them stays odd.
    """
    parts: list[list[bytes]] = []
    for line in text.splitlines():
        if line.startswith(("SIMPLE  =", "XTENSION=")):
            parts.append([])
        if parts and line.strip() and not line.startswith("---") and line[:8].rstrip() != "END":
            parts[-1].append(line.encode("latin-1", "replace").ljust(80)[:80])
    rng = np.random.default_rng(seed)
    out = b""
    for cards in parts:
        head = b"".join(cards) + b"END".ljust(80)
        out += head + b" " * (-len(head) % BLOCK)
        found = fits.Header.fromstring(b"".join(cards).decode("latin-1"))
        if found["NAXIS"] == 2 and found["XTENSION"].strip() == "IMAGE":
            kind = {-32: ">f4", 32: ">i4", 16: ">i2", -64: ">f8"}[found["BITPIX"]]
            pixels = np.resize(rng.normal(1000, 30, 65536), found["NAXIS2"] * found["NAXIS1"])
            out += padded(pixels.astype(kind).tobytes())
        elif found["NAXIS"] == 2:
            out += padded(bytes(found["NAXIS1"] * found["NAXIS2"]))
    return out
