"""Frames of a rough night."""

import numpy as np

from pipeline.headers.tangent import tangent
from tests.skyframes import FIVE, TARGET, calibrated

JITTER = ((0.0, 0.0), (1.6, -1.2), (-1.1, 0.7), (0.4, 1.5), (-0.3, -0.4))


CLEAR = np.zeros((256, 256), bool)


def left(out, errors=JITTER, size=256):
    """(n, 2) pixels by which each WCS is off the truth; alike where the frames agree."""
    rows = []
    for frame in out:
        number = int(frame.name[10:14])
        home = tangent(calibrated(number, FIVE[number - 1], sky=0.0, size=size).header)
        truth = np.array(home.to_pixel(*TARGET)) + errors[number - 1]
        rows.append(np.array(tangent(frame.header).to_pixel(*TARGET)) - truth)
    return np.array(rows)


def agreement(out, errors=JITTER, size=256):
    off = left(out, errors, size)
    return np.hypot(*(off - np.median(off, axis=0)).T)


def said(out, *words):
    return [text for text in out[0].notes if all(word in text for word in words)]
