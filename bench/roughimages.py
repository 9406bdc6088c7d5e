"""What is measured of stacks whose sky is the question: extended targets, nods, gradients."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np

from bench.roughfigures import Figure, Outcome, registration
from pipeline.simulate.truth import median_error, spread, spread_error
from pipeline.simulate.verify_image import Expected, expect_image, tiles

BAD, NO_DATA = 1, 16


def _holes(outcome: Outcome, expected: Expected) -> float:
    """Share of the pixels that two or more frames cover and that have no value, or are called bad.

    Where only one frame is, its own bad pixels are holes by right.
    """
    product = outcome.product
    seen = expected.depth >= 3
    empty = (product.var <= 0) | ((product.dq & (BAD | NO_DATA)) != 0)
    return float((empty & seen).sum() / seen.sum())


def _residual(outcome: Outcome, expected: Expected) -> np.ndarray:
    return outcome.product.sci - expected.galaxy_image - expected.star_image


def extended(outcome: Outcome) -> Iterator[Figure]:
    """A target that fills much of the field: no holes, no rims, no more error than VAR says."""
    case, product = outcome.case.name, outcome.product
    expected = expect_image(outcome.truth, product)
    yield from registration(outcome, 0.2)  # by what stars are seen through it
    yield Figure(case, "pixels without a value, share", _holes(outcome, expected), 1e-4)
    full = (expected.depth == len(expected.origins)) & ((product.dq & ~np.uint16(8)) == 0)
    quiet = full & (expected.star_image < 0.05 * np.sqrt(np.maximum(product.var, 1)))
    residual, light = _residual(outcome, expected), expected.galaxy_image
    seconds = outcome.truth.frames[product.inputs()[0]]["exptime"]
    sky = seconds * float(np.mean([outcome.truth.frames[n]["sky_rate"] for n in product.inputs()]))
    # Rings of equal galaxy light: the steps between them, and how far the target's light is off.
    edges = sky * 0.6 * 0.75 ** np.arange(0, 18)
    rings = [(light < high) & (light >= low) & quiet for high, low in itertools.pairwise(edges)]
    rings = [ring for ring in rings if ring.sum() > 400]
    middles = [(float(np.median(residual[r])), median_error(residual[r])) for r in rings]
    steps = [(b[0] - a[0], float(np.hypot(a[1], b[1]))) for a, b in itertools.pairwise(middles)]
    sigma = float(np.median(np.sqrt(product.var[quiet])))
    worst = max(steps, key=lambda step: abs(step[0]), default=(0.0, 0.0))
    yield Figure(case, "step at a rim / noise of the sky", worst[0] / sigma, 0.1, worst[1] / sigma)
    inside = light > 0.02 * sky
    pulls = [
        float(np.median(residual[box][part])) / float(np.sqrt(np.median(product.var[box][part])))
        for box, _ in tiles(residual, 32)
        if (part := (inside & quiet)[box]).mean() > 0.5
    ]
    # VAR of a pixel must hold the error that many of them share.
    yield Figure(
        case,
        "blocks of 32 pixels on the target / sqrt(VAR), rms",
        float(np.sqrt(np.mean(np.square(pulls)))),
        1.0,
    )
    middle = float(np.median(residual[inside & quiet]))
    yield Figure(case, "light of the target that is lost, part of the sky", middle / sky, 0.005)


def nodded(outcome: Outcome) -> Iterator[Figure]:
    """Two positions: every pixel has a value, no pattern, honest noise."""
    case, product = outcome.case.name, outcome.product
    expected = expect_image(outcome.truth, product)
    yield Figure(case, "pixels called bad or empty, share", _holes(outcome, expected), 0.005)
    yield from _noise(outcome, expected)


def _noise(outcome: Outcome, expected: Expected) -> Iterator[Figure]:
    case, product = outcome.case.name, outcome.product
    empty = (expected.depth == len(expected.origins)) & (product.dq == 0)
    empty &= (product.var > 0) & (expected.star_image < 0.05 * np.sqrt(product.var))
    residual = _residual(outcome, expected)
    pulls = np.where(
        empty, (residual - np.median(residual[empty])) / np.sqrt(np.maximum(product.var, 1e-6)), np.nan
    )
    single = pulls[np.isfinite(pulls)]
    ratio = spread(single) / float(product.header.get("NOISECOR", 1.0))
    yield Figure(case, "pixel noise / sqrt(VAR) / NOISECOR - 1", ratio - 1, 0.05, 1 / np.sqrt(single.size))
    blocks = np.array([np.sum(part) / 8 for _, part in tiles(pulls, 8) if np.isfinite(part).all()])
    value = spread(blocks)
    yield Figure(case, "noise of 8 x 8 blocks / predicted - 1", value - 1, 0.2, spread_error(1, blocks.size))


def gradients(outcome: Outcome) -> Iterator[Figure]:
    """A sky whose tilt changes: what is left of it in the stack."""
    case, product = outcome.case.name, outcome.product
    expected = expect_image(outcome.truth, product)
    empty = (expected.depth == len(expected.origins)) & (product.dq == 0)
    empty &= (product.var > 0) & (expected.star_image < 0.05 * np.sqrt(product.var))
    residual = np.where(empty, _residual(outcome, expected), np.nan)
    middle = np.nanmedian(residual)
    boxes = [
        (float(np.nanmedian(part) - middle), median_error(part[np.isfinite(part)]))
        for _, part in tiles(residual, 128)
        if np.isfinite(part).mean() > 0.5
    ]
    change = max(fault.gradient for fault in outcome.case.faults.values())
    worst = max(boxes, key=lambda box: abs(box[0]))
    yield Figure(case, "worst box of 128 pixels, e-", worst[0], 2.0 if change <= 0.01 else 5.0, worst[1])
    yield from _noise(outcome, expected)
    yield from registration(outcome, 0.1)
