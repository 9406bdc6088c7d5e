"""The plain statement of `pipeline.algorithms.flagging`, in numpy and scipy."""

from __future__ import annotations

import math

import numpy as np
from scipy import ndimage

from pipeline.algorithms.flagging import HIDDEN_AREA, NO_DATA, NON_LINEAR, SATURATED
from pipeline.algorithms.planes import BoolImage, FloatImage, MaskImage


def level_flags_plain(
    sci: FloatImage, dq: MaskImage, non_linear: float, saturation: float
) -> tuple[MaskImage, int]:
    """The plain statement of `level_flags`."""
    bits = np.where(sci >= saturation, SATURATED, np.where(sci >= non_linear, NON_LINEAR, 0))
    bits = np.where(np.isfinite(sci), bits, NO_DATA)
    return dq | bits.astype(np.uint16), int(np.count_nonzero(sci >= non_linear))


def hidden_saturation_plain(sci: FloatImage, non_linear: float, largest: int = HIDDEN_AREA) -> BoolImage:
    """The plain statement of `hidden_saturation`."""
    regions, number = ndimage.label(sci < non_linear)
    small = np.bincount(regions.ravel(), minlength=number + 1) <= min(largest, sci.size // 4)
    small[0] = False
    hidden: BoolImage = small[regions]
    return hidden


def dilate_plain(mask: BoolImage, radius: float) -> BoolImage:
    """The plain statement of `dilate`."""
    reach = math.floor(radius)
    dy, dx = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    grown: BoolImage = ndimage.binary_dilation(mask, dx**2 + dy**2 <= radius**2)
    return grown
