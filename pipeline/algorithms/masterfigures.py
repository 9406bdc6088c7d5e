"""What a master dark or flat is like, in a few numbers that can be held against those of other nights.

    figures = of_darks(planes, masks, seconds)      # {name: Measured(value, error)}
    figures = of_flats(on, off, masks, seconds)
    figures = of_mask(mask) | against(mask, before)

All are of the frames that the master is made of, so that noise is seen by itself: two frames of one thing
differ by their noise alone. Quadrants are named q1 (lower left), q2 (lower right), q3, q4 (upper).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.algorithms.background import MAD_TO_SIGMA

FloatImage = NDArray[np.float32]
MaskImage = NDArray[np.uint16]

BLOCK = 64  # pixels: the side of a piece of the array whose median stands for light, not for pixels
ROUNDS = 3  # after which neither middle nor spread moves by more than a part in a thousand of the noise
# Of a large array every so-manieth row and column is looked at, about so many: an eighth of the time.
LOOKED_AT = (256, 512)
MOST = 1 << 16  # values that are looked at: a spread to 0.3 %, a middle to 0.5 % of the noise
START = 1 << 12  # values for the median that a middle or a spread begins with: 2 % of the noise off
PAIRS = 1 << 14  # values of a quadrant of each pair of frames: with 9 pairs its noise to 0.2 %
SHARED = 1.3  # errors of pairs that share their frames are larger by that
FAR = 5.0  # sigma from which a pixel counts as hot or cold
EVEN = (0.8, 1.25)  # of the level of a flat: pixels beyond it count as outside


class Measured(NamedTuple):
    """A figure and its own error, one standard deviation, in the same unit."""

    value: float
    error: float


Figures = dict[str, Measured]


def of_darks(planes: Sequence[FloatImage], masks: Sequence[MaskImage], seconds: float) -> Figures:
    """Figures of a dark: {name: (value, error)}.

    planes : (ny, nx) electrons of each dark; masks : (ny, nx), other than 0 where a pixel is not good;
    seconds : exposure of one of them, greater than 0
    rate, rate_q1..q4 : median, e-/s; high, low : extremes of the medians of 64 x 64 blocks from it, e-/s
    read_noise, read_noise_q1..q4 : of one frame, from differences of successive frames, electrons; 2 or more
    rows, columns : standard deviation of the medians of rows and of columns, electrons
    sigma : robust, of pixel to pixel in the mean, electrons
    hot, cold : pixels more than 5 sigma from the median; hot_both : hot in each half of the frames alone
    """
    steps, planes, masks = _thinned(planes, masks)
    mean, good = _mean(planes, masks)
    sigma = _sigma(mean[good])
    made: Figures = {"sigma": Measured(sigma, sigma / math.sqrt(2.0 * max(1, good.sum())))}
    for name, level in _by_part(mean, good):
        made[f"rate{name}"] = Measured(level.value / seconds, level.error / seconds)
    middle = made["rate"].value * seconds
    made |= _blocks(mean - middle, good, 1.0 / seconds, steps)
    made |= _stripes(mean, good)
    made |= _far(mean - middle, good, sigma, math.prod(steps))
    halves = [_mean(planes[k::2], masks[k::2]) for k in (0, 1)] if len(planes) > 1 else []
    if halves:  # the lower of the two: a cosmic ray is in one half only
        made["hot_both"] = _counted(
            np.minimum(*((half - _middle(half[ok])) / (_sigma(half[ok]) or 1.0) for half, ok in halves))[
                good
            ],
            math.prod(steps),
        )
    for name, noise in _noise_by_part(planes, masks):
        made[f"read_noise{name}"] = noise
    return made


def of_flats(
    on: Sequence[FloatImage], off: Sequence[FloatImage], masks: Sequence[MaskImage], seconds: float
) -> Figures:
    """Figures of a flat: {name: (value, error)}.

    on, off : (ny, nx) electrons of the frames with the lamp on and off; off may be empty
    masks : of the lamp-on frames; seconds : exposure of one frame, greater than 0
    lamp : median of on less off, e-/s; level_q1..q4, high, low : medians of quadrants, and extremes of the
        medians of 64 x 64 blocks less 1, of the flat whose level is 1
    outside : fraction of the pixels outside 0.8 to 1.25; rows, columns : as of a dark, of the level
    gain, gain_q1..q4 : light over the variance it brings, 1 where the gain of the header is right
        (photon transfer: Janesick 2007, "Photon Transfer", chapter 5); only with two frames of each kind
    """
    steps, on, masks = _thinned(on, masks)
    _, off, _ = _thinned(off, masks)
    mean, good = _mean(on, masks)
    empty = [np.zeros_like(m) for m in masks[:1]] * len(off)
    if off:
        mean = mean - _mean(off, empty)[0]
    level = _middle(mean[good])
    made: Figures = {"lamp": Measured(level / seconds, abs(level) / seconds * 1e-4)}
    if not level > 0:
        return made
    flat = mean / level
    made |= {f"level{n}": found for n, found in _by_part(flat, good) if n}
    made |= _blocks(flat - 1.0, good, 1.0, steps) | _stripes(flat, good)
    share = float(np.mean((flat[good] < EVEN[0]) | (flat[good] > EVEN[1])))
    made["outside"] = Measured(share, math.sqrt(max(share, 1.0 / good.sum()) / good.sum()))
    if len(on) > 1 and len(off) > 1:
        lit, dark = dict(_noise_by_part(on, masks)), dict(_noise_by_part(off, empty))
        for name, light in _by_part(mean, good):
            brought = lit[name].value ** 2 - dark[name].value ** 2
            if brought > 0:
                gain = light.value / brought
                made[f"gain{name}"] = Measured(gain, gain * 2.0 * lit[name].error / lit[name].value)
    return made


def of_mask(mask: MaskImage) -> Figures:
    """Figures of a bad-pixel mask, (ny, nx), other than 0 where a pixel is bad: {name: (value, error)}.

    bad, bad_q1..q4 : fraction of the pixels; the errors are the counts' own
    """
    made: Figures = {}
    for name, place in _parts(mask.shape):
        part = mask[place]
        number = int(np.count_nonzero(part))
        made[f"bad{name}"] = Measured(number / part.size, math.sqrt(number + 1.0) / part.size)
    return made


def against(mask: MaskImage, before: MaskImage) -> Figures:
    """What a mask has that another had not: {name: (value, error)}; {} where they are of other shapes.

    mask, before : (ny, nx), other than 0 where a pixel is bad
    new : bad, and not in `before`, of all; more : these less the ones that were bad only in `before`: pixels
    near a limit come and go alike, so that only `new` has them.
    """
    if mask.shape != before.shape:
        return {}
    new, gone = (
        int(np.count_nonzero(a & ~b)) for a, b in ((mask != 0, before != 0), (before != 0, mask != 0))
    )
    return {
        "new": Measured(new / mask.size, math.sqrt(new + 1.0) / mask.size),
        "more": Measured((new - gone) / mask.size, math.sqrt(new + gone + 1.0) / mask.size),
    }


def _thinned(
    planes: Sequence[FloatImage], masks: Sequence[MaskImage]
) -> tuple[tuple[int, int], list[FloatImage], list[MaskImage]]:
    """(steps in y and x, the planes with every so-manieth row and column, the masks)."""
    if not planes:
        return (1, 1), [], []
    steps = [max(1, side // most) for side, most in zip(planes[0].shape, LOOKED_AT, strict=True)]
    some = tuple(slice(step // 2, None, step) for step in steps)
    return (steps[0], steps[1]), [p[some] for p in planes], [m[some] for m in masks]


def _mean(planes: Sequence[FloatImage], masks: Sequence[MaskImage]) -> tuple[FloatImage, NDArray[np.bool_]]:
    """(mean without the highest value of four and more, where a cosmic ray may be; pixels good in all)."""
    good = np.logical_and.reduce([(m == 0) & np.isfinite(p) for p, m in zip(planes, masks, strict=True)])
    total, highest, n = np.zeros(planes[0].shape), np.full(planes[0].shape, -np.inf), len(planes)
    for plane in planes:
        total += plane
        np.maximum(highest, plane, out=highest)
    mean = (total - highest) / (n - 1) if n > 3 else total / n
    return mean.astype(np.float32), good


def _parts(shape: tuple[int, ...]) -> Iterator[tuple[str, tuple[slice, slice]]]:
    """The whole ("") and its quadrants."""
    y, x = shape[0] // 2, shape[1] // 2
    yield "", (slice(None), slice(None))
    for number, place in enumerate(
        ((slice(0, y), slice(0, x)), (slice(0, y), slice(x, None)),
         (slice(y, None), slice(0, x)), (slice(y, None), slice(x, None))), 1,
    ):  # fmt: skip
        yield f"_q{number}", place


def _by_part(plane: FloatImage, good: NDArray[np.bool_]) -> Iterator[tuple[str, Measured]]:
    for name, place in _parts(plane.shape):
        values = plane[place][good[place]]
        if values.size:
            yield name, Measured(_middle(values), 1.25 * _sigma(values) / math.sqrt(min(values.size, MOST)))


def _noise_by_part(
    planes: Sequence[FloatImage], masks: Sequence[MaskImage]
) -> Iterator[tuple[str, Measured]]:
    """Noise of one frame, from pairs of successive frames: of the quadrants, and of all as their mean."""
    noises, used = [], 0
    for _, place in list(_parts(planes[0].shape))[1:] if len(planes) > 1 else ():
        rows, columns = place
        thin = max(1, planes[0][place].size // PAIRS)  # every so-manieth row is enough
        place = slice(rows.start, rows.stop, thin), columns
        squares = []
        for a, b, m, n in zip(planes, planes[1:], masks, masks[1:], strict=False):
            steps = (b[place] - a[place])[(m[place] == 0) & (n[place] == 0)]
            if steps.size > 1:
                squares.append(_sigma(steps) ** 2 / 2.0)
                used = min(steps.size, MOST)
        noises.append(math.sqrt(math.fsum(squares) / len(squares)) if squares else math.nan)
    known = [n for n in noises if math.isfinite(n)]
    if not known:
        return
    part = SHARED / math.sqrt(2.0 * used * (len(planes) - 1))  # of a quadrant, relative
    whole = math.sqrt(math.fsum(n * n for n in known) / len(known))
    yield "", Measured(whole, whole * part / math.sqrt(len(known)))
    for number, noise in enumerate(noises, 1):
        if math.isfinite(noise):
            yield f"_q{number}", Measured(noise, noise * part)


def _blocks(plane: FloatImage, good: NDArray[np.bool_], scale: float, steps: tuple[int, int]) -> Figures:
    """high, low : the extremes of the medians of blocks, which a few bad pixels do not move."""
    tall, wide = (min(BLOCK // step, side) for step, side in zip(steps, plane.shape, strict=True))
    found = [
        _middle(values)
        for y in range(0, plane.shape[0] - tall + 1, tall)
        for x in range(0, plane.shape[1] - wide + 1, wide)
        if (values := plane[y : y + tall, x : x + wide][good[y : y + tall, x : x + wide]]).size > wide
    ]
    error = 1.25 * _sigma(plane[good]) / math.sqrt(wide * tall) * scale
    return {
        "high": Measured(max(found, default=0.0) * scale, error),
        "low": Measured(min(found, default=0.0) * scale, error),
    }


def _stripes(plane: FloatImage, good: NDArray[np.bool_]) -> Figures:
    """rows, columns : how far their levels scatter; values far off count as 3 sigma."""
    middle, spread = _middle(plane[good]), _sigma(plane[good])
    near = np.where(good, np.clip(plane, middle - 3.0 * spread, middle + 3.0 * spread), np.float32(0))
    made = {}
    for name, axis in (("rows", 1), ("columns", 0)):
        number = good.sum(axis=axis)
        levels = near.sum(axis=axis, dtype=np.float64)[number > 0] / number[number > 0]
        found = _sigma(levels)
        made[name] = Measured(found, found / math.sqrt(2.0 * max(1, levels.size)))
    return made


def _far(plane: FloatImage, good: NDArray[np.bool_], sigma: float, step: int) -> Figures:
    if not sigma:
        return {}
    sigmas = plane[good] / sigma
    return {"hot": _counted(sigmas, step), "cold": _counted(-sigmas, step)}


def _counted(sigmas: NDArray[Any], step: int) -> Measured:
    """Pixels beyond 5 sigma, of the whole array by those that are looked at, one in `step`.

    Those within half a sigma of the limit may be on either side: they are the error, with that of the sample.
    """
    number, near = (int(np.count_nonzero(sigmas > limit)) for limit in (FAR, FAR - 0.5))
    doubt = near - int(np.count_nonzero(sigmas > FAR + 0.5)) + 1.0 + number * (1 - 1 / step)
    return Measured(float(number * step), step * math.sqrt(doubt))


def _sigma(values: NDArray[Any]) -> float:
    """Standard deviation of what is not far off.

    The detector counts in steps of 12 electrons, as large as its noise: a median of distances would be one of
    those steps, so it only says what is far off.
    """
    if not values.size:
        return 0.0
    values = _some(values)
    far = np.abs(values - _middle(values))
    spread = MAD_TO_SIGMA * float(np.median(_some(far, START))) or float(np.mean(far))
    for _ in range(ROUNDS):
        near = values[far <= FAR * spread]
        spread = float(np.std(near, dtype=np.float64)) if near.size else spread
    return spread


def _middle(values: NDArray[Any]) -> float:
    """The median, made finer than a step of the counts: what is far off pulls no more than what is near."""
    values = _some(values)
    middle = float(np.median(_some(values, START)))
    step = float(np.mean(np.abs(values - middle)))
    for _ in range(ROUNDS):
        middle += float(np.mean(np.clip(values - middle, -step, step), dtype=np.float64))
    return middle


def _some(values: NDArray[Any], most: int = MOST) -> NDArray[Any]:
    """Evenly spread ones of them, when they are more."""
    return values[:: -(-values.size // most)] if values.size > most else values
