"""Frames on their way into a stack held against the truth: registration, sharpness, what was rejected.

What the product does not show any more is seen on the frames that a recipe hands from step to step.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.ndimage import binary_dilation

from pipeline.frame import Frame
from pipeline.headers.tangent import Tangent, tangent
from pipeline.simulate.detector import BoolImage
from pipeline.simulate.sky import MOFFAT_BETA, moffat_alpha
from pipeline.simulate.truth import Array, Check, Product, Truth, check, root
from pipeline.simulate.verify_image import Expected, expect_image

MOST_MISTAKEN = 0.001
HIT_REACH = 3  # pixels around a hit that resampling may have touched


def check_frames(
    truth: Truth, registered: Sequence[Frame], aligned: Sequence[Frame], product: Product
) -> Iterator[Check]:
    """registered : frames after adjustWCSToReference, with their catalogues; aligned : those that were
    stacked, on the product's grid; product : the stack, with its COVERAGE. All name their raw files.
    """
    yield from _registration(truth, registered)
    yield from _sharpness(truth, registered, product)
    if product.coverage is not None and all(f.shape == product.sci.shape for f in aligned):
        yield from _mistaken(truth, aligned, product, product.coverage)


def _root(frame: Frame) -> str:
    return root(Path(str(frame.header.get("ORIGNAME", frame.name))).name)


def _truth_of(truth: Truth, frame: Frame) -> dict[str, Any]:
    return truth.frames[_root(frame)]


def _registration(truth: Truth, frames: Sequence[Frame]) -> Iterator[Check]:
    """The farthest that the sky of a frame lies from that of the reference, by the frames' WCS."""
    left = []
    for frame in frames:
        facts, wcs = _truth_of(truth, frame), frame.tangent
        if wcs is not None:
            left.append(np.subtract(_target(truth, facts, wcs), facts["target_xy"]))
    if len(left) > 1:
        worst = float(np.abs(np.array(left) - left[0]).max())
        yield check("registration, farthest frame", worst, 0, 0.05, " pix")


def _target(truth: Truth, facts: Mapping[str, Any], wcs: Tangent) -> tuple[float, float]:
    field = next(f for f in truth.facts["fields"] if f["field"] == facts["field"])
    x, y = wcs.to_pixel(*field["target"])
    return float(x), float(y)


def seen_fwhm(fwhm: float, beta: float = MOFFAT_BETA) -> float:
    """FWHM of a Moffat profile averaged over a pixel at each place, as pixels show it; pixels."""
    alpha = moffat_alpha(fwhm, beta)
    nodes, weights = np.polynomial.legendre.leggauss(9)
    nodes, weights = nodes / 2, weights / 2
    dy = (nodes[:, None] / alpha) ** 2

    def level(x: Array) -> Array:
        dx = ((x[:, None, None] + nodes) / alpha) ** 2
        return np.asarray(np.einsum("kij,i,j->k", (1 + dx + dy) ** -beta, weights, weights))

    radii = np.linspace(0, fwhm, 401)
    profile = level(radii)
    return 2 * float(np.interp(-profile[0] / 2, -profile, radii))


def _sharpness(truth: Truth, frames: Sequence[Frame], product: Product) -> Iterator[Check]:
    """FWHM that the frames' stars are given, and the stack's, over what is true."""
    beta = truth.facts.get("psf", {}).get("beta", MOFFAT_BETA)
    ratios, true = [], []
    for frame in frames:
        true.append(seen_fwhm(_truth_of(truth, frame)["fwhm_pix"], beta))
        if frame.catalog is not None and (frame.catalog["STAR"] == 1).any():
            stars = frame.catalog[frame.catalog["STAR"] == 1]
            ratios.append(float(np.median(stars["FWHM_FIT"])) / true[-1])
    if ratios:
        yield check("FWHM of single frames / true, median", float(np.median(ratios)), 0.97, 1.03)
    stack = product.phu.get("MEANFWHM")
    wcs = tangent(product.header)
    if stack and wcs:
        ratio = stack / wcs.pixel_scale / float(np.mean(true))
        yield check("FWHM of the stack / true mean of the frames", ratio, 0.95, 1.05)


def _mistaken(truth: Truth, frames: Sequence[Frame], product: Product, coverage: Array) -> Iterator[Check]:
    """Good samples that the stack left out: within 2 FWHM of stars, and on plain sky."""
    expected = expect_image(truth, product)
    good, known = np.zeros(coverage.shape, int), np.ones(coverage.shape, bool)
    origins = dict(zip(product.inputs(), expected.origins, strict=True))
    for frame in frames:
        origin = origins[_root(frame)]
        good += frame.dq == 0
        known &= ~_near_hits(_truth_of(truth, frame), origin, coverage.shape)
    known &= (product.dq == 0) & (good >= 3)
    lost = np.clip(good - coverage.astype(int), 0, None)
    stars = _near_stars(expected, product)
    plain = ~stars & (expected.star_image + expected.galaxy_image < np.sqrt(product.var))
    for name, where in (("near stars", stars), ("on plain sky", plain)):
        here = where & known
        if here.sum() > 1000:
            share = float(lost[here].sum() / good[here].sum())
            # Chance alone may add three errors of the count.
            reach = MOST_MISTAKEN + 3 * np.sqrt(MOST_MISTAKEN / good[here].sum())
            yield check(f"good samples rejected {name}", share, 0, float(reach))


def _near_hits(facts: Mapping[str, Any], origin: tuple[float, float], shape: tuple[int, ...]) -> BoolImage:
    hit = np.zeros(shape, bool)
    if facts.get("cosmic_ray_pixels"):
        rows, columns, _ = np.array(facts["cosmic_ray_pixels"]).T
        y, x = np.rint(rows + origin[1]).astype(int), np.rint(columns + origin[0]).astype(int)
        inside = (x >= 0) & (x < shape[1]) & (y >= 0) & (y < shape[0])
        hit[y[inside], x[inside]] = True
    return np.asarray(binary_dilation(hit, np.ones((2 * HIT_REACH + 1,) * 2, bool)))


def _near_stars(expected: Expected, product: Product) -> BoolImage:
    """Within 2 FWHM of stars whose peak is above 5 sigma of the product."""
    near = np.zeros(product.sci.shape, bool)
    noise = float(np.sqrt(np.median(product.var[product.dq == 0])))
    reach = 2 * expected.fwhm
    rows, columns = (np.arange(n) for n in product.sci.shape)
    half = int(np.ceil(reach)) + 1
    for x, y, electrons in expected.stars:
        if electrons / (1.33 * expected.fwhm**2) < 5 * noise:
            continue
        down = slice(max(round(y) - half, 0), max(round(y) + half + 1, 0))
        along = slice(max(round(x) - half, 0), max(round(x) + half + 1, 0))
        near[down, along] |= np.hypot(rows[down, None] - y, columns[along] - x) < reach
    return near
