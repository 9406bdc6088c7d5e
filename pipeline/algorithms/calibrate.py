"""Arithmetic of calibration, each in one pass over the pixels: noise, linearity, dark and flat.

`tests/plain/calibrate.py` says the same in plain numpy; the tests hold the two together.
Planes are (ny, nx): sci and var float32, dq uint16 with DQ bits. Inputs are never modified; inside a
pass a pixel is float64.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from pipeline.algorithms.planes import FloatImage, MaskImage, fixed

Planes = tuple[FloatImage, FloatImage | None, MaskImage]

BAD_PIXEL = 1
_NONE = np.zeros((1, 1), np.float32)


# ---- noise -----------------------------------------------------------------------------------------------


def noise(sci: FloatImage, read_noise: float, gain: float, pedestal: float) -> FloatImage:
    """Variance of raw pixels: (read_noise / gain)² + max(sci - pedestal, 0) / gain.

    sci, pedestal : in units of `gain` electrons (gain 1: electrons); pedestal is the part of the signal that
        is no charge and so has no Poisson noise; infinity leaves the Poisson term out
    read_noise : electrons
    """
    return _noise(fixed(sci), float(read_noise), float(gain), float(pedestal))


@njit(cache=True, nogil=True)
def _noise(sci: FloatImage, read_noise: float, gain: float, pedestal: float) -> FloatImage:
    out = np.empty(sci.shape, np.float32)
    floor = (read_noise / gain) ** 2
    for y in range(sci.shape[0]):
        for x in range(sci.shape[1]):
            out[y, x] = floor + max(sci[y, x] - pedestal, 0.0) / gain
    return out


# ---- linearity -------------------------------------------------------------------------------------------


def linearized(counts: float, gamma: float, eta: float) -> float:
    """Electrons of one coadd that the detector would have shown were it linear: c (1 + gamma c + eta c²)."""
    return counts * (1 + gamma * counts + eta * counts * counts)


def linearize(
    sci: FloatImage,
    var: FloatImage | None,
    gain: float,
    coadds: int,
    gamma: float,
    eta: float,
    time_factor: float,
) -> tuple[FloatImage, FloatImage | None]:
    """Correct for the detector's non-linearity (NIRI's nirlin; coefficients in `pipeline.niri`).

    sci, var : in units of `gain` electrons, sums of `coadds`
    time_factor : t / (t + delta), for the array integrates delta longer than a coadd's exposure time t

    The electrons that the correction adds count as detected ones: VAR += (sci' - sci) / gain. After that
    sci is multiplied by time_factor, var by its square.
    """
    planes = fixed(sci), fixed(_NONE if var is None else var)
    constants = np.array([gain, coadds, gamma, eta, time_factor], np.float64)
    out, out_var = _linearize(planes[0], planes[1], var is not None, constants)
    return out, None if var is None else out_var


@njit(cache=True, nogil=True)
def _linearize(
    sci: FloatImage, var: FloatImage, has_var: bool, constants: NDArray[np.float64]
) -> tuple[FloatImage, FloatImage]:
    ny, nx = sci.shape
    gain, coadds, gamma, eta, factor = constants
    out, out_var = np.empty((ny, nx), np.float32), np.empty(var.shape, np.float32)
    for y in range(ny):
        for x in range(nx):
            v = np.float64(sci[y, x])
            c = v * gain / coadds
            added = v * c * (gamma + eta * c)
            out[y, x] = (v + added) * factor
            if has_var:
                out_var[y, x] = (var[y, x] + added / gain) * factor * factor
    return out, out_var


# ---- dark and flat ---------------------------------------------------------------------------------------


def subtract(
    sci: FloatImage,
    var: FloatImage | None,
    dq: MaskImage,
    other: FloatImage,
    other_var: FloatImage | None,
    other_dq: MaskImage,
) -> Planes:
    """sci - other: variances add (a missing one counts as 0, both missing stay missing), masks are ORed."""
    out, out_dq = _subtract(fixed(sci), fixed(dq), fixed(other), fixed(other_dq))
    if var is None:
        return out, other_var, out_dq
    return out, var if other_var is None else var + other_var, out_dq


@njit(cache=True, nogil=True)
def _subtract(a: FloatImage, a_dq: MaskImage, b: FloatImage, b_dq: MaskImage) -> tuple[FloatImage, MaskImage]:
    out, dq = np.empty(a.shape, np.float32), np.empty(a.shape, np.uint16)
    for y in range(a.shape[0]):
        for x in range(a.shape[1]):
            out[y, x] = a[y, x] - b[y, x]
            dq[y, x] = a_dq[y, x] | b_dq[y, x]
    return out, dq


def divide(
    sci: FloatImage,
    var: FloatImage | None,
    dq: MaskImage,
    flat: FloatImage,
    flat_var: FloatImage | None,
    flat_dq: MaskImage,
) -> Planes:
    """sci / flat: var / flat² + sci² flat_var / flat⁴ (a missing variance counts as 0), masks are ORed.

    Where the flat is zero or not finite the result is 0 and bad.
    """
    has_var = var is not None or flat_var is not None
    a_var, f_var = _NONE if var is None else var, _NONE if flat_var is None else flat_var
    out, out_var, out_dq = _divide(
        fixed(sci), fixed(a_var), fixed(dq), fixed(flat), fixed(f_var), fixed(flat_dq),
        var is not None, flat_var is not None,
    )  # fmt: skip
    return out, out_var if has_var else None, out_dq


@njit(cache=True, nogil=True)
def _divide(
    a: FloatImage, a_var: FloatImage, a_dq: MaskImage, f: FloatImage, f_var: FloatImage, f_dq: MaskImage,
    has_a: bool, has_f: bool,
) -> tuple[FloatImage, FloatImage, MaskImage]:  # fmt: skip
    ny, nx = a.shape
    out, dq = np.empty((ny, nx), np.float32), np.empty((ny, nx), np.uint16)
    var = np.empty((ny, nx) if has_a or has_f else (1, 1), np.float32)
    for y in range(ny):
        for x in range(nx):
            flat = np.float64(f[y, x])
            usable = flat != 0.0 and flat - flat == 0.0
            inverse = 1.0 / flat if usable else 0.0
            ratio = a[y, x] * inverse
            out[y, x] = ratio
            dq[y, x] = a_dq[y, x] | f_dq[y, x] | np.uint16(0 if usable else BAD_PIXEL)
            if has_a or has_f:
                total = np.float64(a_var[y, x]) if has_a else 0.0
                if has_f:
                    total += ratio * ratio * f_var[y, x]
                var[y, x] = total * inverse * inverse
    return out, var, dq
