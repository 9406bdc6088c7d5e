"""Patterns that the read-out electronics add: a box of 16 x 4 pixels repeated, and 8-column stripes.

NIRI's four quadrants of half the array each are read at once, from the outer rows in. Two cleaners:

* `clean_boxes`: Gemini's cleanReadout. The mean box of a quadrant is its pattern; rows on which it is
there are
  found by its strength; it is taken off those and the level steps that come with it are healed.
* `clean_stripes`: in Fourier space. In each row the frequencies of 1/8 and its harmonics are measured, and
what
  stands above the noise beside them is taken off.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

FloatImage = NDArray[np.float32]
BoolImage = NDArray[np.bool_]
Floats = NDArray[np.float64]

PERIOD = 8  # columns


@dataclass(frozen=True)
class Boxes:
    """How `clean_boxes` works; values of Gemini's cleanReadout for NIRI."""

    width: int = 16
    height: int = 4
    lsigma: float = 3.0
    hsigma: float = 3.0
    subtract_background: bool = True  # take each box's mean off before the boxes are compared
    strength: float = 15.0  # electrons; a weaker pattern is left alone unless forced
    least_range: float = 0.6  # of the pattern's strength between rows with and without it
    edge_sigma: float = 3.0  # rows, of the Gaussian before edges are looked for
    level: bool = True
    seam: int = 5  # pixels beside a seam between quadrants that are compared
    inner_seam: int = 50  # rows beside a step inside a quadrant


def clean_boxes(
    sci: FloatImage, bad: BoolImage, objects: BoolImage | None, how: Boxes, force: bool = False
) -> tuple[FloatImage, int]:
    """The image without its box pattern, and how many of the four quadrants had one.

    sci : (ny, nx), electrons; an even number of rows and columns
    bad, objects : pixels that do not count; objects only in the levelling, as Gemini has it
    force : clean also where the pattern is weaker than how.strength

    Rows beyond a whole number of boxes are left as they are.
    """
    ny, nx = sci.shape
    half_y, half_x = ny // 2, nx // 2
    rows, columns = half_y // how.height * how.height, half_x // how.width * how.width
    out = sci.copy()
    strengths: list[Floats] = []
    found: dict[tuple[int, int], Floats] = {}
    for y0 in (0, half_y):
        for x0 in (0, half_x):
            quadrant = (slice(y0, y0 + rows), slice(x0, x0 + columns))
            pattern, strength = _pattern(sci[quadrant], bad[quadrant], how)
            if force or pattern.std() >= how.strength:
                found[y0, x0] = pattern
                # The pattern comes and goes as rows are read: from both ends to the middle at once.
                strengths.append(strength[::-1] if y0 else strength)
    if not found:
        return out, 0
    edges, affected = find_edges(np.mean(strengths, axis=0), how.edge_sigma, how.least_range, how.height)
    steps: dict[tuple[int, int], list[int]] = {}
    for (y0, x0), pattern in found.items():
        there = affected[::-1] if y0 else affected
        tiled = np.tile(pattern, (rows // how.height, columns // how.width)).astype(np.float32)
        out[y0 : y0 + rows, x0 : x0 + columns] -= np.where(there[:, None], tiled, np.float32(0))
        steps[y0, x0] = sorted(rows - edge for edge in edges) if y0 else [edge + 1 for edge in edges]
    if how.level:
        _level(out, bad if objects is None else bad | objects, steps, how)
    return out, len(found)


def _boxes(plane: Any, how: Boxes) -> Any:
    """(rows of boxes, boxes in a row, pixels of a box)."""
    ny, nx = plane.shape
    cut = plane.reshape(ny // how.height, how.height, nx // how.width, how.width).swapaxes(1, 2)
    return cut.reshape(ny // how.height, nx // how.width, how.height * how.width)


def _pattern(sci: FloatImage, bad: BoolImage, how: Boxes) -> tuple[Floats, Floats]:
    """The median box less its mean, (height, width), and the pattern's strength in each row of pixels."""
    boxes = np.ma.masked_array(_boxes(sci, how).astype(float), _boxes(bad, how))
    means = boxes.mean(axis=2, keepdims=True).filled(0.0)
    level = means if how.subtract_background else 0.0
    flat = (boxes - level).reshape(-1, how.height * how.width)
    pattern = _clipped_median(flat, how.lsigma, how.hsigma)
    pattern -= pattern.mean()
    centred = boxes - means
    weight = np.where(np.ma.getmaskarray(boxes), 0.0, pattern**2).sum(axis=2)
    with np.errstate(divide="ignore", invalid="ignore"):
        amplitude = (centred * pattern).sum(axis=2).filled(0.0) / weight
    rows = np.ma.masked_invalid(amplitude)
    strength = _clipped_median(rows.T, 2.0, 2.0).repeat(how.height)
    return pattern.reshape(how.height, how.width), strength


def _clipped_median(values: Any, low: float, high: float, rounds: int = 10) -> Floats:
    """Median along the first axis of a masked array, clipped about the median until nothing changes."""
    # By plain arrays: numpy's median of a masked one takes many times as long.
    plain, kept = np.ma.getdata(values), ~np.ma.getmaskarray(values)
    for _ in range(rounds):
        middle, count = _median(plain, kept), np.maximum(kept.sum(axis=0), 1)
        mean = np.where(kept, plain, 0.0).sum(axis=0) / count
        sigma = np.sqrt(np.where(kept, (plain - mean) ** 2, 0.0).sum(axis=0) / count)
        inside = kept & (plain >= middle - low * sigma) & (plain <= middle + high * sigma)
        if (inside == kept).all():
            break
        kept = inside
    return _median(plain, kept)


def _median(plain: Floats, kept: BoolImage) -> Floats:
    """Median of the kept values along the first axis; 0 where none is."""
    ordered, count = np.sort(np.where(kept, plain, np.inf), axis=0), kept.sum(axis=0)
    middle = [np.take_along_axis(ordered, k[None], 0)[0] for k in (np.maximum(count - 1, 0) // 2, count // 2)]
    return np.asarray(np.where(count > 0, 0.5 * (middle[0] + middle[1]), 0.0))


def find_edges(
    strength: Floats, sigma: float, least_range: float, margin: int
) -> tuple[list[int], BoolImage]:
    """Rows after which a pattern goes on or off, and the rows that it affects; Canny's detector in one
    dimension.

    strength : (rows,), about 1 where the pattern is, 0 where not
    An edge is an extremum of the slope of the smoothed strength, steeper than 0.8 range / (1.2 sigma +
    0.28), the slope of a step of that range; range is half that of the 10th to 90th percentile, at least
    `least_range`. Edges within `margin` rows of the ends do not count. Without an edge every row is affected.
    """
    reach = int(2 * sigma + 0.8)
    x = np.arange(-reach, reach + 1)
    kernel = np.exp(-x * x / (2 * sigma * sigma)) / np.sqrt(2 * np.pi * sigma * sigma)
    padded = np.concatenate([np.full(reach, strength[0]), strength, np.full(reach, strength[-1])])
    slope = np.convolve(np.convolve(padded, kernel, mode="same"), [1, 0, -1], mode="same")[reach:-reach]
    low, high = np.nanpercentile(strength, [10, 90])
    threshold = 0.8 * max(0.5 * (high - low), least_range) / (1.2 * sigma + 0.28)
    edges, affected = [], np.ones(strength.size, np.bool_)
    last = 0
    for row in range(margin, strength.size - margin):
        if abs(slope[row]) > threshold and (slope[row] - slope[row - 1]) * (slope[row] - slope[row + 1]) >= 0:
            edges.append(row)
            going_on = slope[row] > 0
            affected[last:row] = not going_on
            affected[row:] = going_on
            last = row
    return edges, affected


def _level(image: FloatImage, bad: BoolImage, steps: dict[tuple[int, int], list[int]], how: Boxes) -> None:
    """Heal the level steps inside quadrants, then between bottom and top, then between left and right."""
    half_y, half_x = image.shape[0] // 2, image.shape[1] // 2
    for (y0, x0), edges in steps.items():
        columns = slice(x0, x0 + half_x)
        for i, edge in enumerate(edges):
            following = abs(edges[i + 1] - edge) if i + 1 < len(edges) else half_y
            reach = min(how.inner_seam, edge, half_y - edge, following)
            if reach <= 0:
                continue
            row = y0 + edge
            step = _step(
                image, bad, (slice(row, row + reach), columns), (slice(row - reach, row), columns), 0
            )
            if y0:
                image[row:, columns] -= step
            else:
                image[:row, columns] += step
    for x0 in (0, half_x):
        columns = slice(x0, x0 + half_x)
        above, below = slice(half_y, half_y + how.seam), slice(half_y - how.seam, half_y)
        image[:half_y, columns] += _step(image, bad, (above, columns), (below, columns), 0)
    left, right = slice(half_x - how.seam, half_x), slice(half_x, half_x + how.seam)
    image[:, half_x:] += _step(image, bad, (slice(None), left), (slice(None), right), 1)


def _step(image: FloatImage, bad: BoolImage, first: Any, second: Any, axis: int) -> np.float32:
    """Level of the first region over the second: median along the seam of the steps of clipped medians."""
    medians = []
    for region in (first, second):
        values = np.ma.masked_array(image[region].astype(float), bad[region])
        if np.ma.getmaskarray(values).all():
            return np.float32(0)
        clipped = _clipped_median(values if axis == 0 else values.T, 2.0, 2.0)
        empty = np.ma.getmaskarray(values).all(axis=axis)
        medians.append(np.where(empty, np.nan, clipped))
    steps = medians[0] - medians[1]
    steps = steps[np.isfinite(steps)]
    return np.float32(np.median(steps)) if steps.size else np.float32(0)


def clean_stripes(
    sci: FloatImage,
    bad: BoolImage,
    objects: BoolImage | None = None,
    *,
    threshold: float = 4.0,
    rows_together: int = 1,
) -> tuple[FloatImage, float]:
    """The image without 8-column stripes, and the rms of what was taken off.

    sci : (ny, nx); bad and objects : pixels that do not count; they take the clipped mean of their row
    threshold : amplitude of a frequency over the median amplitude of the frequencies around it that makes
    it stripes
    rows_together : rows averaged before the amplitude is judged; the pattern often changes from row to row

    Each half row (a quadrant's) is taken by itself: objects and bad pixels are replaced by the row's
    level, the smooth part is taken off, and the amplitudes at 1/8, 2/8, 3/8 and 4/8 a pixel are those of
    the least squares fit of that many waves, on good pixels. Nothing else changes: noise at other
    frequencies stays, stars too.
    """
    out, half = sci.copy(), sci.shape[1] // 2
    masked = bad if objects is None else bad | objects
    removed = 0.0
    for x0 in (0, half):
        columns = slice(x0, x0 + half)
        stripes = _stripes(sci[:, columns], masked[:, columns], threshold, max(1, rows_together))
        out[:, columns] -= stripes
        removed += float(np.sum(stripes.astype(float) ** 2))
    return out, float(np.sqrt(removed / sci.size))


def _stripes(sci: FloatImage, masked: BoolImage, threshold: float, together: int) -> FloatImage:
    ny, nx = sci.shape
    good = ~masked
    weight = good.sum(axis=1, keepdims=True)
    # Phases of one period: with the row's own level and slope off, their mean is the pattern of that row.
    values = np.where(good, sci, 0).astype(float)
    level = values.sum(axis=1, keepdims=True) / np.maximum(weight, 1)
    spread = np.sqrt(
        (np.where(good, sci - level, 0.0) ** 2).sum(axis=1, keepdims=True) / np.maximum(weight, 1)
    )
    kept = good & (np.abs(sci - level) <= 4 * spread)
    flat = np.where(kept, sci - _smooth(np.where(kept, sci, level), kept), 0.0)
    whole = nx // PERIOD * PERIOD
    folded = flat[:, :whole].reshape(ny, -1, PERIOD)
    number = kept[:, :whole].reshape(ny, -1, PERIOD).sum(axis=1)
    if together > 1:
        blocks = [slice(k, min(k + together, ny)) for k in range(0, ny, together)]
        sums = np.concatenate([np.repeat(folded[b].sum((0, 1))[None], b.stop - b.start, 0) for b in blocks])
        counts = np.concatenate([np.repeat(number[b].sum(0)[None], b.stop - b.start, 0) for b in blocks])
    else:
        sums, counts = folded.sum(axis=1), number
    shape = sums / np.maximum(counts, 1)
    shape -= shape.mean(axis=1, keepdims=True)
    # The power that noise alone would leave in each of the waves of the fold.
    noise = np.sqrt(np.median(flat[kept] ** 2) / 0.4549 / np.maximum(counts.mean(axis=1, keepdims=True), 1))
    waves = np.fft.rfft(shape, axis=1)
    # |wave| of noise: sqrt(PERIOD) noise; the last one, at 4/8, is real.
    waves[np.abs(waves) < threshold * np.sqrt(PERIOD / 2) * noise] = 0
    pattern = np.fft.irfft(waves, PERIOD, axis=1)
    return np.tile(pattern, (1, nx // PERIOD + 1))[:, :nx].astype(np.float32)


def _smooth(values: Floats, kept: BoolImage) -> Floats:
    """Running mean along rows over four periods of the good pixels, which holds nothing of the pattern."""
    size = 4 * PERIOD
    padded = np.pad(np.where(kept, values, 0.0), ((0, 0), (size // 2, size - size // 2)), mode="reflect")
    counts = np.pad(kept.astype(float), ((0, 0), (size // 2, size - size // 2)), mode="reflect")
    sums, numbers = np.cumsum(padded, axis=1), np.cumsum(counts, axis=1)
    number = numbers[:, size:] - numbers[:, :-size]
    return np.asarray((sums[:, size:] - sums[:, :-size]) / np.maximum(number, 1))
