"""Sky level and noise of an image, robust against the objects in it.

Two estimators of the same thing, the centre of the Gaussian that the empty pixels make:

* `ogive_level`: Gemini's B(frame). Thins the pixels and fits the cumulative curve.
* `sky_level`: every pixel, by the moments of the truncated Gaussian. Its error is that of the mean
  of all pixels, where a thinning of one in a hundred costs a factor of ten. Its histogram in plain numpy:
  `tests/plain/background.py`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

FloatImage = NDArray[np.float32]
BoolImage = NDArray[np.bool_]
Floats = NDArray[np.float64]

MAD_TO_SIGMA = 1.482602218505602  # 1 / Phi^-1(3/4)
BINS_PER_SIGMA = 32
REACH = 5.0  # histogram half-width, sigma
LOW = 3.0  # sigma below the centre that `sky_level` keeps


class Level(NamedTuple):
    """Sky level and noise of one pixel, in the unit of the image; `number` pixels were used.

    `level` is nan when no pixel is usable.
    """

    level: float
    sigma: float
    number: int

    @property
    def error(self) -> float:
        """Standard error of the level, for independent pixels cut at 3 sigma."""
        return 1.03 * self.sigma / math.sqrt(self.number) if self.number else math.nan


NOTHING = Level(math.nan, math.nan, 0)


def robust_start(values: NDArray[Any]) -> tuple[float, float]:
    """Median and 1.4826 x MAD of a one-dimensional sample."""
    middle = float(np.median(values))
    return middle, MAD_TO_SIGMA * float(np.median(np.abs(values - middle)))


def truncated_moments(low: float, high: float) -> tuple[float, float]:
    """Mean and variance of a unit Gaussian cut at `low` and `high`."""
    density_low, density_high = (math.exp(-0.5 * x * x) / math.sqrt(2 * math.pi) for x in (low, high))
    inside = 0.5 * (math.erf(high / math.sqrt(2)) - math.erf(low / math.sqrt(2)))
    mean = (density_low - density_high) / inside
    return mean, 1 + (low * density_low - high * density_high) / inside - mean * mean


def sky_level(
    sci: FloatImage,
    bad: BoolImage | None = None,
    *,
    sky: FloatImage | None = None,
    factor: float = 0.0,
    high: float = 3.0,
) -> Level:
    """Level and noise of the empty pixels of `sci`, or of `sci - factor * sky`.

    sci, sky : (ny, nx) float32
    bad : (ny, nx) bool, True where a pixel is an object or otherwise not sky

    high : cut above the centre, sigma. 3 where objects are masked: the level is then the mean that stacks
    keep,
        to 0.04 of third moment over variance (an electron, for photons). 1.5 keeps out unmasked objects,
        but lies 0.26 of that below the mean.

    The pixels between -3 and +high sigma are taken for a truncated Gaussian; its mean and variance give
    centre and sigma, to a fixed point.
    """
    mask = np.zeros(sci.shape, np.bool_) if bad is None else bad
    thin = max(1, sci.size // 20000)
    difference = sci.ravel()[::thin].astype(np.float64)
    if sky is not None:
        difference -= factor * sky.ravel()[::thin]
    sample = difference[~mask.ravel()[::thin]]
    sample = sample[np.isfinite(sample)]
    if sample.size < 10:
        values = (sci if sky is None else sci - factor * sky)[~mask]
        values = values[np.isfinite(values)]
        return Level(float(np.median(values)), float(np.std(values)), values.size) if values.size else NOTHING
    centre, sigma = robust_start(sample)
    if sigma <= 0:
        return Level(centre, 0.0, sample.size)
    counts, sums = _histogram(
        sci, sci if sky is None else sky, factor if sky is not None else 0.0, mask,
        centre - REACH * sigma, BINS_PER_SIGMA / sigma, round(2 * REACH * BINS_PER_SIGMA),
    )  # fmt: skip
    return _fit_histogram(
        counts, sums, centre - REACH * sigma, sigma / BINS_PER_SIGMA, centre, sigma, LOW, high
    )


@njit(cache=True, nogil=True)
def _histogram(
    sci: FloatImage, sky: FloatImage, factor: float, bad: BoolImage, start: float, per_unit: float, bins: int
) -> tuple[Floats, Floats]:  # pragma: no cover - compiled
    """Number and sum of the good values of `sci - factor * sky` per bin."""
    ny, nx = sci.shape
    table = np.zeros((bins + 1, 2))  # the last is for what does not count
    place, above = np.empty(nx, np.int64), np.empty(nx)
    for y in range(ny):
        for x in range(nx):  # without a branch: many pixels at once
            above[x] = sci[y, x] - factor * sky[y, x] - start
            where = above[x] * per_unit
            inside = (where >= 0) & (where < bins) & (not bad[y, x])
            place[x] = int(min(max(where, 0.0), bins)) if inside else bins
        for x in range(nx):
            table[place[x], 0] += 1
            table[place[x], 1] += above[x]
    return table[:bins, 0].copy(), table[:bins, 1].copy()


def _fit_histogram(
    counts: Floats,
    sums: Floats,
    start: float,
    width: float,
    centre: float,
    sigma: float,
    low: float,
    high: float,
) -> Level:
    """Fixed point of the truncated Gaussian's moments over whole bins.

    A sample that is far from a Gaussian, as of a slope, may have none. Then it stays with where it began.
    """
    begun, most = Level(centre, sigma, int(counts.sum())), counts.size * width
    middles = (np.arange(counts.size) + 0.5) * width
    n0, n1 = np.concatenate([[0], np.cumsum(counts)]), np.concatenate([[0], np.cumsum(sums)])
    n2 = np.concatenate([[0], np.cumsum(counts * middles**2 + 2 * middles * (sums - counts * middles))])
    n = 0.0
    for _ in range(60):
        first = int(np.clip(round((centre - low * sigma - start) / width), 0, counts.size - 1))
        last = int(np.clip(round((centre + high * sigma - start) / width), first + 1, counts.size))
        n = n0[last] - n0[first]
        if n < 3:
            return Level(centre, sigma, int(n))
        mean = (n1[last] - n1[first]) / n
        spread = max((n2[last] - n2[first]) / n - mean * mean, 1e-30)
        # The cuts that were made, on whole bins, in units of the present Gaussian.
        cut_mean, cut_variance = truncated_moments(
            (start + first * width - centre) / sigma, (start + last * width - centre) / sigma
        )
        new_sigma = math.sqrt(spread / cut_variance)
        new_centre = start + mean - new_sigma * cut_mean
        if not (width < new_sigma < most and start <= new_centre <= start + most):
            return begun
        moved = abs(new_centre - centre) + abs(new_sigma - sigma)
        centre, sigma = new_centre, new_sigma
        if moved < 1e-5 * sigma:
            break
    return Level(float(centre), float(sigma), int(n))


def ogive_level(sci: FloatImage, bad: BoolImage | None = None, *, sampling: int = 10) -> Level:
    """Gemini's B(frame): the cumulative curve of a truncated Gaussian, fitted to thinned pixels.

    Every `sampling`-th pixel that is not `bad`; start at median and sigma of a 5 sigma clip; keep -3 to
    +1 sigma, again every `sampling`-th, and fit the curve, until the level moves by less than 0.001 sigma or
    12 fits are made. Few pixels or a fit that fails: every sampling-th again, 2 sigma clip twice, median.
    """
    good = (sci if bad is None else sci[~bad]).ravel()[::sampling].astype(np.float64)
    if good.size < 2:
        return NOTHING
    start = clip(good, 5.0, 5)
    level, sigma = float(np.median(start)), float(np.std(start))
    for _ in range(12):
        inside = np.sort(good[(good > level - 3 * sigma) & (good < level + sigma)][::sampling])
        fitted = _fit_ogive(inside, level, sigma) if inside.size > 10 else None
        if fitted is None:
            rest = clip(good[::sampling], 2.0, 2)
            return Level(float(np.median(rest)), float(np.std(rest)), good.size)
        previous, (level, sigma) = level, fitted
        if abs(level - previous) < 0.001 * sigma:
            break
    return Level(level, sigma, good.size)


def _fit_ogive(ordered: Floats, level: float, sigma: float) -> tuple[float, float] | None:
    """Least squares of the truncated Gaussian's cumulative curve; None when there is no solution."""
    from scipy.optimize import least_squares
    from scipy.special import ndtr

    if sigma <= 0:
        return None
    below, inside = ndtr(-3.0), ndtr(1.0) - ndtr(-3.0)
    rank = np.linspace(0.0, 1.0, ordered.size + 1)[1:]
    scaled = (ordered - level) / sigma

    def residuals(p: Floats) -> Floats:
        return np.asarray((ndtr((scaled - p[0]) / p[1]) - below) / inside - rank)

    fit = least_squares(residuals, [0.0, 1.0], method="lm")
    shift, stretch = float(fit.x[0]), abs(float(fit.x[1]))
    if not fit.success or not math.isfinite(shift) or not 0.01 < stretch < 100 or abs(shift) > 10:
        return None
    return level + shift * sigma, stretch * sigma


def clip(values: Floats, limit: float, rounds: int) -> Floats:
    """The values left by `rounds` of clipping at `limit` standard deviations about the median."""
    for _ in range(rounds):
        kept = values[np.abs(values - np.median(values)) <= limit * np.std(values)]
        if kept.size == values.size:
            break
        values = kept
    return values


def sky_factor(
    level: Callable[[float], float], sky_level: float, threshold: float = 0.001, rounds: int = 100
) -> float:
    """The number f for which `level(f)`, the level of object - f * sky, is zero.

    level : the level of the object frame after subtraction of f times the sky
    sky_level : the level of the sky itself

    Repeats f += step with step = level(f) / sky_level, as Gemini does, until a step is below `threshold`;
    a level that jumps, for want of pixels, so that no step is: the f of the smallest step.
    Raises ValueError when a level is not a number: there is no usable sky pixel.
    """
    total, best = 0.0, (math.inf, 0.0)
    for _ in range(rounds):
        step = level(total) / sky_level
        if not math.isfinite(step):
            raise ValueError("the sky level is not a number: no usable sky pixel")
        best = min(best, (abs(step), total + step))
        total += step
        if abs(step) <= threshold:
            break
    return best[1]


class Subtracted(NamedTuple):
    """sci, var : the object less its sky; sky_var : typical variance that the sky has brought."""

    sci: FloatImage
    var: FloatImage
    sky_var: float


def subtract_sky(
    sci: FloatImage,
    var: FloatImage,
    sky: FloatImage,
    sky_var: FloatImage,
    factor: float,
    *,
    share: float = 0.0,
    flat: FloatImage | None = None,
    flat_var: FloatImage | None = None,
    dark_var: FloatImage | None = None,
) -> Subtracted:
    """sci - factor * sky, and the variance of that.

    All planes (ny, nx); var and sky_var hold the noise of flat and dark, if these are given, as if each
    frame had noise of its own. But object and sky were divided by one flat and had one dark taken off,
    whose errors cancel:

        taken off:  q (sci² + share (factor sky)² - (sci - factor sky)²),    q = flat_var / flat²
                    (1 + share factor²) dark_var / flat²

    share : variance of the sky over that of one of its frames (0.29 for a median of 5)
    A pixel keeps at least a quarter of the variance that plain addition gives.
    """
    none = np.zeros((1, 1), np.float32)
    has_flat, has_dark = flat is not None and flat_var is not None, dark_var is not None
    flat, flat_var, dark_var = (none if plane is None else plane for plane in (flat, flat_var, dark_var))
    out, out_var, brought = _subtract_sky(
        sci, var, sky, sky_var, float(factor), float(share), flat, flat_var, dark_var, has_flat, has_dark
    )
    positive = brought[brought > 0]
    return Subtracted(out, out_var, float(np.median(positive)) if positive.size else 0.0)


@njit(cache=True, nogil=True)
def _subtract_sky(
    sci: Any, var: Any, sky: Any, sky_var: Any, factor: float, share: float,
    flat: Any, flat_var: Any, dark_var: Any, has_flat: bool, has_dark: bool,
) -> Any:  # fmt: skip  # pragma: no cover - compiled
    ny, nx = sci.shape
    out, out_var = np.empty((ny, nx), np.float32), np.empty((ny, nx), np.float32)
    brought = np.empty(((ny + 7) // 8, (nx + 7) // 8), np.float32)  # one pixel in 64 will do for its median
    for y in range(ny):
        for x in range(nx):
            shown, level = np.float64(sci[y, x]), factor * sky[y, x]
            left = shown - level
            from_sky = factor * factor * np.float64(sky_var[y, x])
            total = var[y, x] + from_sky
            common, of_sky = 0.0, 0.0
            f = np.float64(flat[y, x]) if has_flat else 1.0
            if has_flat and f > 0:
                q = flat_var[y, x] / (f * f)
                common = q * (shown * shown + share * level * level - left * left)
                of_sky = q * share * level * level
            if has_dark and f > 0:
                d = dark_var[y, x] / (f * f)
                common += (1 + share * factor * factor) * d
                of_sky += share * factor * factor * d
            out[y, x] = left
            out_var[y, x] = max(total - common, 0.25 * total)
            if y % 8 == 0 and x % 8 == 0:
                brought[y // 8, x // 8] = max(from_sky - of_sky, 0.25 * from_sky)
    return out, out_var, brought


def lower_of_two(
    sci: tuple[FloatImage, FloatImage], var: tuple[FloatImage, FloatImage], limit: float = 5.0
) -> BoolImage:
    """True where two images of one sky differ by more than `limit` sigma and the first is the higher.

    Of two samples no median can tell which is wrong; but cosmic rays and unmasked stars only ever add light.
    """
    return np.asarray(sci[0] - sci[1] > limit * np.sqrt(var[0] + var[1]))
