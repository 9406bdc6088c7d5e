"""The frame that all others of a group are registered to: the best, not the first."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pipeline.frame import NO_DATA, Frame
from pipeline.headers.values import number
from pipeline.steps import pointing
from pipeline.steps.limits import LIMITS

REFERENCE = "reference"  # REGMETH of the frame itself

# A frame is odd, and no reference, beyond these: all relative to the group's median. Stars widen by a tenth
# from frame to frame in steady seeing; a double image has twice the sources, a clouded one lacks them.
WIDER, ROUNDER, FEWER, MORE = 1.25, 0.12, 0.7, 1.35
BRIGHTER = 40  # sources of a frame that are asked whether they repeat
SURE = 20.0  # signal to noise of a source whose width counts, where none is surely a star
FEW_STARS, BESIDE = 3, 0.3  # as bright as this part of the brightest: a second image of it is not overlooked
TRAILED = 0.2  # ellipticity beyond the usual one, of a frame whose header tells no place
# Frames whose scores differ by less are alike: the noise of a width.
ALIKE = 0.06
# What a reference in a corner of the pointings costs: as much as stars wider by this, for a whole field.
OFF_MIDDLE = 0.2
LEAST_PIXELS = 0.9  # with data, of those of the fullest frame


def reference_of(frames: Sequence[Frame]) -> Frame:
    """The frame whose pixels are the grid of the stack: the one that registration chose, else the first."""
    for frame in frames:
        if frame.header.get("REGMETH") == REFERENCE:
            return frame
    return frames[0]


def candidates(frames: Sequence[Frame]) -> list[int]:
    """Places of the frames in the order in which they are fit to be the reference.

    Sharp and round stars, a usual number of sources, the whole footprint, a pointing near the middle of all;
    among equals the earliest. Frames without a source come last.
    """
    data = np.array([np.count_nonzero((f.dq & NO_DATA) == 0) for f in frames], float)
    relative, flat, count = _looks(frames)
    few, many = _unusual(count)
    odd = (relative > WIDER) | (flat > ROUNDER) | (data < LEAST_PIXELS * data.max()) | few | many
    odd |= doubles(frames) | _second_star(frames)
    score = relative + np.maximum(flat, 0) + OFF_MIDDLE * _off_middle(frames)
    rank = np.floor((score - score.min()) / ALIKE)
    return sorted(range(len(frames)), key=lambda k: (count[k] == 0, bool(odd[k]), rank[k], k))


def smeared(frames: Sequence[Frame]) -> NDArray[np.bool_]:
    """(n,) frames whose own place is uncertain: trailed, blurred, or with twice the others' sources."""
    relative, flat, count = _looks(frames)
    known = np.array([np.isfinite(_of_stars(f, "FWHMPIX", "FWHM_FIT")) for f in frames])
    blurred = known & (relative > LIMITS["too_blurred"].value)
    return blurred | (known & (flat > TRAILED)) | _unusual(count)[1] | doubles(frames)


def companions(frames: Sequence[Frame]) -> NDArray[np.float64]:
    """(n,) the part of each frame's brighter sources that have a companion at one and the same distance."""
    from pipeline.algorithms import meanstar

    tables = [f.catalog[:BRIGHTER] if f.catalog is not None else None for f in frames]
    columns = ("X_IMAGE", "Y_IMAGE", "FLUX_AUTO")
    return np.array(
        [
            0.0 if t is None else meanstar.repeated(*(t[name].astype(float) for name in columns))
            for t in tables
        ]
    )


def doubles(frames: Sequence[Frame]) -> NDArray[np.bool_]:
    """(n,) frames whose sources repeat as those of most do not."""
    share = companions(frames)
    return np.asarray(share > LIMITS["repeated"].value + float(np.median(share)))


def _second_star(frames: Sequence[Frame]) -> NDArray[np.bool_]:
    """(n,) frames of a field of few stars that show more bright ones than the others do."""
    number = np.array(
        [
            0 if t is None or not t.size else np.count_nonzero(t["FLUX_AUTO"] > BESIDE * t["FLUX_AUTO"].max())
            for t in (f.catalog for f in frames)
        ]
    )
    usual = _median(np.where(number > 0, number, np.nan))
    return (number > MORE * usual) & (usual <= FEW_STARS)


def _looks(frames: Sequence[Frame]) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """(width over the usual one, ellipticity beyond the usual one, number of sources), (n,) each."""
    width = np.array([_of_stars(f, "FWHMPIX", "FWHM_FIT") for f in frames])
    shape = np.array([_of_stars(f, "ELLIPTIC", "ELLIP_FIT") for f in frames])
    count = np.array([0 if f.catalog is None else f.catalog.size for f in frames], float)
    relative = np.where(np.isfinite(width), width / _median(width), 2.0)
    return relative, np.where(np.isfinite(shape), shape - _median(shape), 0.5), count


def _unusual(count: NDArray[np.float64]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """(too few, too many) sources; of a handful of them one more or less says nothing."""
    usual = _median(np.where(count > 0, count, np.nan))
    spread = 2 * np.sqrt(max(usual, 1.0))
    return count < min(FEWER * usual, usual - spread), count > max(MORE * usual, usual + spread)


def _value(frame: Frame, card: str) -> float:
    value = number(frame.header, card)
    return float("nan") if value is None else value


def _of_stars(frame: Frame, card: str, column: str) -> float:
    """What the header says of the frame's stars; where no source is surely one, as a lone star with a bad
    pixel is not, the median of those that a profile was fitted to."""
    value, t = _value(frame, card), frame.catalog
    if np.isfinite(value) or t is None:
        return value
    with np.errstate(all="ignore"):
        sure = (t["FWHM_FIT"] > 0) & (t["FLUX_AUTO"] > SURE * t["FLUXERR_AUTO"])
    return _median(t[column][sure].astype(float), float("nan"))


def _median(values: NDArray[np.float64], none: float = 1.0) -> float:
    known = values[np.isfinite(values)]
    return float(np.median(known)) if known.size else none


def _off_middle(frames: Sequence[Frame]) -> NDArray[np.float64]:
    """Distance of each frame's centre from the median of all, in fields; odd headers do not draw it."""
    apart = pointing.offsets(frames)[0]
    apart = apart - np.median(apart, axis=0)
    side = float(max(frames[0].shape))
    return np.asarray(
        np.minimum(np.nan_to_num(np.hypot(apart[:, 0], apart[:, 1]) / side, nan=1.0, posinf=1.0), 1.0)
    )
