"""Where frames point relative to one another: groups of pointings, and what lies apart from what."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import BadFrame
from pipeline.frame import Frame
from pipeline.headers.tangent import Tangent, separation

Floats = NDArray[np.float64]
CLOSE_ENOUGH = 0.9  # of the field: pointings farther apart than this share hardly any sky


def projection(frame: Frame) -> Tangent:
    """The frame's world coordinates. Raises BadFrame without usable ones."""
    found = frame.tangent
    if found is None:
        raise BadFrame(frame.name, "it has no WCS, or none that a NIRI camera can have")
    return found


def centres(frames: Sequence[Frame]) -> tuple[Floats, Floats]:
    """(ra, dec) degrees of the middle of each frame."""
    places = [projection(f).to_sky((f.shape[1] - 1) / 2, (f.shape[0] - 1) / 2) for f in frames]
    return np.array([p[0] for p in places]), np.array([p[1] for p in places])


def offsets(frames: Sequence[Frame]) -> Floats:
    """(n, n, 2): x and y of the centre of frame j in pixels of frame i, from the centre of frame i.

    A direction that has no place in a frame's plane is infinitely far.
    """
    ra, dec = centres(frames)
    out = np.empty((len(frames), len(frames), 2))
    for i, frame in enumerate(frames):
        x, y = projection(frame).to_pixel(ra, dec)
        out[i, :, 0], out[i, :, 1] = x - (frame.shape[1] - 1) / 2, y - (frame.shape[0] - 1) / 2
    return np.where(np.isfinite(out), out, np.inf)


def distances(frames: Sequence[Frame]) -> Floats:
    """(n, n) arcsec between the centres of frames."""
    ra, dec = centres(frames)
    found: Any = separation(ra[:, None], dec[:, None], ra[None, :], dec[None, :])
    return np.asarray(found, float)


def turn(first: Frame, second: Frame) -> float:
    """Degrees by which the second frame is turned against the first, -180 to 180."""
    a, b = (projection(f).cd for f in (first, second))
    between = np.linalg.solve(a, b)
    return float(np.degrees(np.arctan2(between[1, 0], between[0, 0])))


def groups(frames: Sequence[Frame], fraction: float = CLOSE_ENOUGH) -> list[int]:
    """Number of the group of each frame, from 0 in order of appearance.

    Frames belong together when one's centre lies within `fraction` of the field of the other's, on both
    axes; groups that share a member are one.
    """
    apart = offsets(frames)
    number = list(range(len(frames)))
    for i, frame in enumerate(frames):
        for j in range(i):
            if _near(apart[j, i], frame.shape, fraction) and number[i] != number[j]:
                old, new = max(number[i], number[j]), min(number[i], number[j])
                number = [new if k == old else k for k in number]
    order = {old: new for new, old in enumerate(dict.fromkeys(number))}
    return [order[k] for k in number]


def all_apart(first: Sequence[Frame], second: Sequence[Frame], fraction: float = CLOSE_ENOUGH) -> bool:
    """True when every one of `second` is at least `fraction` of the field from every one of `first`."""
    frames = [*first, *second]
    apart = offsets(frames)
    return not any(
        _near(apart[i, len(first) + j], frame.shape, fraction)
        for i, frame in enumerate(first)
        for j in range(len(second))
    )


def _near(apart: Floats, shape: tuple[int, int], fraction: float) -> bool:
    return bool(abs(apart[0]) < fraction * shape[1] and abs(apart[1]) < fraction * shape[0])
