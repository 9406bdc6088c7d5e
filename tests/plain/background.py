"""The plain statement of the histogram in `pipeline.algorithms.background`, in numpy."""

from __future__ import annotations

import numpy as np

from pipeline.algorithms.background import Floats
from pipeline.algorithms.planes import BoolImage, FloatImage


def histogram_plain(
    sci: FloatImage, sky: FloatImage, factor: float, bad: BoolImage, start: float, per_unit: float, bins: int
) -> tuple[Floats, Floats]:
    """The plain statement of `_histogram`."""
    values = (sci.astype(np.float64) - factor * sky)[~bad] - start
    place = values * per_unit
    inside = (place >= 0) & (place < bins)
    index = place[inside].astype(int)
    counts = np.bincount(index, minlength=bins).astype(np.float64)
    return counts, np.asarray(np.bincount(index, values[inside], bins), np.float64)
