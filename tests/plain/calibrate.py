"""The plain statement of `pipeline.algorithms.calibrate`, in numpy."""

from __future__ import annotations

import numpy as np

from pipeline.algorithms.calibrate import BAD_PIXEL, Planes
from pipeline.algorithms.planes import FloatImage, MaskImage


def noise_plain(sci: FloatImage, read_noise: float, gain: float, pedestal: float) -> FloatImage:
    """The plain statement of `noise`."""
    poisson = np.maximum(sci.astype(np.float64) - pedestal, 0.0) / gain
    return ((read_noise / gain) ** 2 + poisson).astype(np.float32)


def linearize_plain(
    sci: FloatImage,
    var: FloatImage | None,
    gain: float,
    coadds: int,
    gamma: float,
    eta: float,
    time_factor: float,
) -> tuple[FloatImage, FloatImage | None]:
    """The plain statement of `linearize`."""
    before = sci.astype(np.float64)
    counts = before * gain / coadds
    after = counts * (1 + gamma * counts + eta * counts**2) * coadds / gain
    out: FloatImage = (after * time_factor).astype(np.float32)
    if var is None:
        return out, None
    return out, ((var + (after - before) / gain) * time_factor**2).astype(np.float32)


def divide_plain(
    sci: FloatImage,
    var: FloatImage | None,
    dq: MaskImage,
    flat: FloatImage,
    flat_var: FloatImage | None,
    flat_dq: MaskImage,
) -> Planes:
    """The plain statement of `divide`."""
    usable = np.isfinite(flat) & (flat != 0)
    f = np.where(usable, flat, 1).astype(np.float64)
    a = sci.astype(np.float64)
    out_dq = dq | flat_dq | np.where(usable, 0, BAD_PIXEL).astype(np.uint16)
    out = np.where(usable, a / f, 0).astype(np.float32)
    if var is None and flat_var is None:
        return out, None, out_dq
    total = (0 if var is None else var / f**2) + (0 if flat_var is None else a**2 * flat_var / f**4)
    return out, np.where(usable, total, 0).astype(np.float32), out_dq
