"""Fitting the profiles of stars."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

FloatImage = NDArray[np.float32]
BoolImage = NDArray[np.bool_]
LabelImage = NDArray[np.int32]
Floats = NDArray[np.float64]


class StarFits(NamedTuple):
    """Elliptical Moffat profiles, one entry a star; pixels count from 0; nan where a fit failed.

    error is that of each coordinate, from the variances and the curvature at the minimum.
    """

    x: Floats
    y: Floats
    error: Floats
    fwhm: Floats  # pixels, geometric mean of the axes; of the profile as the pixels see it
    ellipticity: Floats
    theta: Floats  # radians, of the long axis from +x
    beta: Floats
    flux: Floats
    peak: Floats


def fit_stars(
    sci: FloatImage,
    var: FloatImage,
    bad: BoolImage,
    x: Floats,
    y: Floats,
    fwhm: Floats,
    *,
    labels: LabelImage | None = None,
    number: NDArray[np.int32] | None = None,
) -> StarFits:
    """Fit an elliptical Moffat profile on a constant background to each star, by least squares.

    sci, var : (ny, nx) float32, any unit and its square
    bad : (ny, nx) bool, pixels left out
    x, y, fwhm : (n,) first guesses, pixels from 0
    labels, number : pixels labelled neither 0 nor the star's own number are left out

    A (1 + r²)^-beta + B with r² a quadratic form: eight parameters, Levenberg-Marquardt, over the pixels
    within 2.5 FWHM (at least 4 pixels; every second or third row and column where that is many).
    """
    n = len(x)
    if labels is None or number is None:
        labels, number = np.zeros(sci.shape, np.int32), np.zeros(n, np.int32)
    out = np.full((n, 9), np.nan)
    px, py, width = (np.ascontiguousarray(v, np.float64) for v in (x, y, fwhm))
    _fit_all(sci, var, bad, labels, np.ascontiguousarray(number, np.int32), px, py, width, out)
    return _describe(out)


def _describe(out: Floats) -> StarFits:
    """Axes and flux from the raw parameters A, x, y, cxx, cxy, cyy, 1/beta, B, error."""
    peak, x, y, cxx, cxy, cyy, u, _, error = out.T
    with np.errstate(all="ignore"):
        beta = 1 / u
        middle, half = 0.5 * (cxx + cyy), np.hypot(0.5 * (cxx - cyy), cxy)
        small, large = middle - half, middle + half  # eigenvalues: long axis, short axis
        at_half = np.sqrt(2.0**u - 1)
        fwhm = 2 * at_half * (small * large) ** -0.25
        ellipticity = 1 - np.sqrt(small / large)
        theta = 0.5 * np.arctan2(-2 * cxy, cyy - cxx)
        flux = peak * np.pi / ((beta - 1) * np.sqrt(small * large))
    return StarFits(x, y, error, fwhm, ellipticity, theta, beta, flux, peak)


def moffat(p: Floats, x: Floats, y: Floats) -> Floats:
    """The profile that `fit_stars` fits, at x, y; p = A, x0, y0, cxx, cxy, cyy, 1/beta, B."""
    dx, dy = x - p[1], y - p[2]
    return np.asarray(p[0] * (1 + p[3] * dx * dx + 2 * p[4] * dx * dy + p[5] * dy * dy) ** (-1 / p[6]) + p[7])


@njit(cache=True, nogil=True)
def _fit_all(
    sci: Any, var: Any, bad: Any, labels: Any, number: Any, x: Any, y: Any, fwhm: Any, out: Any
) -> None:  # pragma: no cover - compiled
    ny, nx = sci.shape
    for i in range(x.size):
        width = min(max(fwhm[i], 1.5), 40.0)
        r = max(2.5 * width, 4.0)
        x0, x1 = max(0, int(x[i] - r)), min(nx, int(x[i] + r) + 2)
        y0, y1 = max(0, int(y[i] - r)), min(ny, int(y[i] + r) + 2)
        size = max(0, (x1 - x0) * (y1 - y0))
        stride = max(1, int(r / 14))  # a wide profile is as well fitted to one pixel in four
        px, py, pv, pw = np.empty(size), np.empty(size), np.empty(size), np.empty(size)
        n, top, bottom = 0, -1e30, 1e30
        for yy in range(y0, y1, stride):
            for xx in range(x0, x1, stride):
                label = labels[yy, xx]
                if bad[yy, xx] or (label != 0 and label != number[i]) or not var[yy, xx] > 0:
                    continue
                if (xx - x[i]) ** 2 + (yy - y[i]) ** 2 > r * r:
                    continue
                px[n], py[n], pv[n], pw[n] = xx, yy, sci[yy, xx], 1.0 / var[yy, xx]
                top, bottom = max(top, pv[n]), min(bottom, pv[n])
                n += 1
        if n < 16 or top <= bottom:
            continue
        p = np.empty(8)
        p[0], p[1], p[2], p[6] = top - np.median(pv[:n]), x[i], y[i], 0.33
        p[3] = p[5] = (2.0 ** p[6] - 1) / (0.5 * width) ** 2
        p[4], p[7] = 0.0, np.median(pv[:n])
        if p[0] <= 0:
            continue
        error = _levenberg_marquardt(px[:n], py[:n], pv[:n], pw[:n], p)
        at = (p[1] - x[i]) ** 2 + (p[2] - y[i]) ** 2
        if error > 0 and p[0] > 0 and at < (width + 1) ** 2 and p[3] * p[5] > p[4] * p[4] and p[3] > 0:
            out[i, :8] = p
            out[i, 8] = error


@njit(cache=True, nogil=True)
def _chi2(px: Any, py: Any, pv: Any, pw: Any, p: Any) -> float:  # pragma: no cover - compiled
    total = 0.0
    for k in range(px.size):
        dx, dy = px[k] - p[1], py[k] - p[2]
        q = 1 + p[3] * dx * dx + 2 * p[4] * dx * dy + p[5] * dy * dy
        if q <= 0:
            return 1e300
        d = pv[k] - p[0] * q ** (-1 / p[6]) - p[7]
        total += pw[k] * d * d
    return total


@njit(cache=True, nogil=True)
def _levenberg_marquardt(px: Any, py: Any, pv: Any, pw: Any, p: Any) -> float:  # pragma: no cover - compiled
    """Fit in place; returns the error of the position in pixels, -1 on failure."""
    m = 8
    normal, gradient, j = np.zeros((m, m)), np.zeros(m), np.empty(m)
    damping, best = 1e-3, _chi2(px, py, pv, pw, p)
    for _ in range(25):
        normal[:], gradient[:] = 0.0, 0.0
        for k in range(px.size):
            dx, dy = px[k] - p[1], py[k] - p[2]
            q = max(1 + p[3] * dx * dx + 2 * p[4] * dx * dy + p[5] * dy * dy, 1e-9)
            shape = q ** (-1 / p[6])
            slope = -p[0] * shape / (q * p[6])  # d model / d q
            j[0] = shape
            j[1] = -2 * slope * (p[3] * dx + p[4] * dy)
            j[2] = -2 * slope * (p[4] * dx + p[5] * dy)
            j[3], j[4], j[5] = slope * dx * dx, 2 * slope * dx * dy, slope * dy * dy
            j[6] = p[0] * shape * np.log(q) / (p[6] * p[6])
            j[7] = 1.0
            d = pv[k] - p[0] * shape - p[7]
            for a in range(m):
                gradient[a] += pw[k] * j[a] * d
                for b in range(a + 1):
                    normal[a, b] += pw[k] * j[a] * j[b]
        improved = False
        for _ in range(8):
            step = _solve(normal, gradient, damping)
            if not np.isfinite(step[0]):
                return -1.0
            trial = p + step
            trial[6] = min(max(trial[6], 0.04), 0.8)  # beta between 1.25 and 25 (a Gaussian)
            chi2 = _chi2(px, py, pv, pw, trial)
            if chi2 <= best:
                improved = True
                break
            damping *= 10
        if not improved:
            break
        small = abs(step[1]) < 1e-5 and abs(step[2]) < 1e-5 and best - chi2 < 1e-7 * best
        p[:], best, damping = trial, chi2, damping * 0.1
        if small:
            break
    unit = np.zeros(m)
    unit[1] = 1.0
    in_x = _solve(normal, unit, 0.0)[1]
    unit[1], unit[2] = 0.0, 1.0
    in_y = _solve(normal, unit, 0.0)[2]
    if not (in_x > 0 and in_y > 0):
        return -1.0
    # A profile that does not fit (chi² above its degrees of freedom) has larger errors.
    return np.sqrt(0.5 * (in_x + in_y) * max(1.0, best / max(px.size - m, 1)))  # type: ignore[no-any-return]


@njit(cache=True, nogil=True)
def _solve(lower: Any, right: Any, damping: float) -> Any:  # pragma: no cover - compiled
    """Solve the symmetric system given by its lower triangle, its diagonal times 1 + damping (Cholesky)."""
    m = right.size
    c, z = np.zeros((m, m)), np.zeros(m)
    for a in range(m):
        for b in range(a + 1):
            s = lower[a, b] * (1 + damping if a == b else 1.0)
            for k in range(b):
                s -= c[a, k] * c[b, k]
            if a == b:
                if not s > 0:
                    z[:] = np.nan
                    return z
                c[a, a] = np.sqrt(s)
            else:
                c[a, b] = s / c[b, b]
    for a in range(m):
        s = right[a]
        for k in range(a):
            s -= c[a, k] * z[k]
        z[a] = s / c[a, a]
    for a in range(m - 1, -1, -1):
        s = z[a]
        for k in range(a + 1, m):
            s -= c[k, a] * z[k]
        z[a] = s / c[a, a]
    return z
