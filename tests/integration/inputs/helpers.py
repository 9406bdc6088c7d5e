"""Copies of frames with other cards."""

import shutil
from pathlib import Path

import numpy as np
from astropy.io import fits

DARK, FLAT, BPM = "N20160102S0423_dark.fits", "N20160102S0366_flat.fits", "N20160102S0366_bpm.fits"


def raw(top, numbers):
    return [str(next((top / "raw").glob(f"N*S{number:04d}.fits"))) for number in numbers]


def science(top):
    return raw(top, range(270, 278))


def copy(source, target, **cards):
    target = Path(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(source, target)
    if cards:
        with fits.open(target, mode="update") as file:
            file[0].header.update(cards)
    return str(target)


def history(path):
    return "".join(str(line).ljust(72) for line in fits.getheader(path)["HISTORY"])


def patch(kind, value, size=256):
    values = np.zeros((size, size), kind)
    values[60:90, 60:90] = value
    return values
