"""Stacks held against the truth: stars, sky, noise, cosmic rays."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
import sep

from pipeline.simulate.detector import BoolImage, FloatImage
from pipeline.simulate.faults import SHARP, smeared
from pipeline.simulate.sky import MOFFAT_BETA, Galaxy, Pointing, Vector, render_stars
from pipeline.simulate.truth import (
    Array,
    Check,
    Product,
    Truth,
    around,
    check,
    median_error,
    spread,
    spread_error,
)

APERTURE, ANNULUS = 10.0, (14.0, 22.0)  # pixels
ISOLATED_PIXELS = 25.0
FLUX_SIGNAL_TO_NOISE, POSITION_SIGNAL_TO_NOISE = 40.0, 80.0
BOX = 128


@dataclass(frozen=True, eq=False)
class Expected:
    """What a stack should show: stars (x, y, electrons of one exposure) and images on the product's grid."""

    stars: Vector
    star_image: FloatImage
    galaxy_image: FloatImage
    depth: Array  # frames that cover each pixel
    origins: list[tuple[float, float]]  # where pixel (0, 0) of each input frame lies
    fwhm: float
    drift: float  # of the sky between object and sky frames, electrons
    response_known: bool  # the truth has the flat, so that its level is known to better than a percent


def expect_image(truth: Truth, product: Product) -> Expected:
    """Build the noiseless stack from the truth of its input frames.

    The product's WCS is that of one frame's header, whose pointing error is known. A frame behind a cloud
    is brought to the level of the others, and frames count for what the product says.
    """
    frames, weights = [truth.frames[name] for name in product.inputs()], product.weights()
    first, shape = _anchor(truth, product), product.sci.shape
    levels = clear_levels(frames)
    field = next(f for f in truth.facts["fields"] if f["field"] == first["field"])
    catalogue = np.array([(s["ra"], s["dec"], s["flux_e_per_s"]) for s in field["sources"]])
    wcs = product.wcs()
    dx, dy = first["wcs_error_pix"]
    x, y = wcs.all_world2pix(catalogue[:, 0], catalogue[:, 1], 0)
    target = _target_of(truth, field)
    tx, ty = (float(v) + error for v, error in zip(wcs.all_world2pix(*target, 0), (dx, dy), strict=True))
    # A flat is 1 at the median of its own pixels, so it leaves the mean response of a sub-array in.
    flat = truth.image("flat", first["roi"])
    seconds = first["exptime"] * first["coadds"] * (1.0 if flat is None else float(np.median(flat)))
    beta = truth.facts.get("psf", {}).get("beta", MOFFAT_BETA)
    image, depth = np.zeros(shape, np.float32), np.zeros(shape, np.uint16)
    origins = []
    for frame, weight, level in zip(frames, weights, levels, strict=True):
        rows = np.stack([x + dx, y + dy, catalogue[:, 2] * level], axis=1)
        rows = smeared(rows, tuple(map(tuple, frame.get("smear", SHARP))))
        stars = render_stars(shape, rows, fwhm=frame["fwhm_pix"], beta=beta, floor=0.01 / seconds)
        image += np.float32(seconds * weight) * stars
        x0, y0 = tx - frame["target_xy"][0], ty - frame["target_xy"][1]
        origins.append((x0, y0))
        left, low, size = round(x0), round(y0), frame["roi"]
        depth[max(low, 0) : max(low + size, 0), max(left, 0) : max(left + size, 0)] += 1
    clear = float(np.sum(weights * levels))
    galaxy = np.zeros(shape, np.float32)
    if field.get("galaxy"):
        here = Pointing(*target, tx, ty, wcs.pixel_scale_matrix * 3600)
        form = Galaxy(**field["galaxy"])
        if "format" not in truth.facts:  # an older way to write the truth counted the angle from west
            form = form._replace(pa=form.pa + 90)
        galaxy = form.surface_brightness(*here.offsets(shape), field["zeropoint_e"])
        galaxy *= np.float32(here.pixel_area * seconds * clear)
    skies = _sky_frames(truth, first)
    taken = [_sky_taken(frame, skies, str(product.phu.get("SKYHOW", "")).strip()) for frame in frames]
    drift = float(np.sum(weights * [frame["sky_rate"] for frame in frames]) - np.sum(weights * taken))
    drift = drift if skies else 0.0
    return Expected(
        np.stack([x + dx, y + dy, catalogue[:, 2] * clear * seconds], axis=1),
        image,
        galaxy,
        depth,
        origins,
        float(np.sum(weights * [frame["fwhm_pix"] for frame in frames])),
        float(drift * seconds),
        flat is not None,
    )


def _anchor(truth: Truth, product: Product) -> dict[str, Any]:
    """The frame whose header the product has its WCS from: the first, unless that one is not believed."""
    inputs = [truth.frames[name] for name in product.inputs()]
    here = product.header["CRVAL1"], product.header["CRVAL2"]
    others = [f for f in truth.frames.values() if f.get("obsid") == inputs[0]["obsid"]]
    for frame in (*inputs, *others):
        # A thousandth of an arcsecond.
        if np.allclose(frame["header_radec"], here, rtol=0, atol=3e-7):
            return frame
    return inputs[0]


def clear_levels(frames: Sequence[Mapping[str, Any]], key: str = "transparency") -> Array:
    """The transparency of each frame as a stack has it: clouded frames have that of the clear ones.

    key : "cloud_transparency" leaves the airmass out, where the truth tells them apart
    """
    levels = np.array([frame.get(key, frame["transparency"]) for frame in frames])
    cloudy = np.array([frame.get("fault", {}).get("cloud", 0.0) > 0 for frame in frames])
    if cloudy.any() and not cloudy.all():
        levels[cloudy] = levels[~cloudy].mean()
    return levels


def _target_of(truth: Truth, field: Mapping[str, Any]) -> tuple[float, float]:
    """The target's position; where the truth does not say it, the pointing of a frame without offset."""
    ra, dec = field.get("target") or next(
        f["header_radec"]
        for f in truth.frames.values()
        if f.get("field") == field["field"] and f["poffset"] == f["qoffset"] == 0
    )
    return float(ra), float(dec)


def _sky_frames(truth: Truth, like: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Unguided frames of the same observation: pointings off the target."""
    return [f for f in truth.frames.values() if f.get("obsid") == like["obsid"] and f.get("guided") is False]


def _sky_taken(frame: Mapping[str, Any], skies: list[dict[str, Any]], how: str) -> float:
    """The sky rate that the product says it took off: interpolated in time, the nearest, or the median."""
    if not skies:
        return 0.0
    times = np.array([datetime.fromisoformat(f["utc"]).timestamp() for f in skies])
    rates = np.array([f["sky_rate"] for f in skies])
    when = datetime.fromisoformat(frame["utc"]).timestamp()
    if how == "interpolated" and times.min() <= when <= times.max():
        order = np.argsort(times)
        return float(np.interp(when, times[order], rates[order]))
    if how in ("interpolated", "nearest"):
        return float(rates[np.argmin(np.abs(times - when))])
    return float(np.median(rates))


def check_image(truth: Truth, product: Product) -> Iterator[Check]:
    expected = expect_image(truth, product)
    yield from _check_stars(product, expected)
    yield from _check_background(product, expected)
    yield from _check_cosmic_rays(truth, product, expected)
    if "MAGZPT" in product.phu and "ZPIMAGE" not in product.phu:
        frames = [truth.frames[name] for name in product.inputs()]
        clear = np.sum(product.weights() * clear_levels(frames, "cloud_transparency"))
        field = next(f for f in truth.facts["fields"] if f["field"] == frames[0]["field"])
        # Electrons of a product are those of its median pixel: what a sub-array sees is not what all see.
        flat = truth.image("flat", frames[0]["roi"])
        level = 1.0 if flat is None else float(np.median(flat))
        true = field["zeropoint_e"] + 2.5 * np.log10(clear * level)
        off, error = product.phu["MAGZPT"] - true, max(product.phu["MAGZERR"], 1e-4)
        yield check("zero point - true, mag", off, -0.01, 0.01)
        yield check("zero point in its errors", off / error, -3, 3)


def aperture_fluxes(image: FloatImage, x: Vector, y: Vector, mask: BoolImage | None = None) -> Vector:
    """Sum inside the aperture less the mean level of the annulus around it."""
    inner, outer = ANNULUS
    total = sep.sum_circle(image, x, y, APERTURE, subpix=0)[0]
    ring, _, _ = sep.sum_circann(image, x, y, inner, outer, mask=mask, subpix=0)
    # With a mask, sep scales the sum of a ring up to its whole area.
    level = ring / (np.pi * (outer**2 - inner**2))
    return np.asarray(total - np.pi * APERTURE**2 * level)


def _check_stars(product: Product, expected: Expected) -> Iterator[Check]:
    """Fluxes and positions of isolated, unsaturated stars in full depth, against the expected image.

    The same apertures on the expected image hold the wings, the neighbours and the galaxy's slope.
    """
    x, y, electrons = expected.stars.T
    usable = clean_stars(product, expected)
    sci, var = np.ascontiguousarray(product.sci), np.ascontiguousarray(product.var)
    model = expected.star_image + expected.galaxy_image
    flagged = product.dq != 0
    x, y, electrons = x[usable], y[usable], electrons[usable]
    measured, true = aperture_fluxes(sci, x, y, flagged), aperture_fluxes(model, x, y)
    inner, outer = ANNULUS
    ring_weight = (APERTURE**2 / (outer**2 - inner**2)) ** 2
    ring_var = sep.sum_circann(var, x, y, inner, outer, mask=flagged, subpix=0)[0]
    error = np.sqrt(sep.sum_circle(var, x, y, APERTURE, subpix=0)[0] + ring_weight * ring_var)
    strong = electrons > FLUX_SIGNAL_TO_NOISE * error
    yield check("stars for photometry", int(strong.sum()), 1, np.inf)
    if not strong.any():
        return
    ratio, pulls = (measured / true)[strong], ((measured - true) / error)[strong]
    predicted = float(np.sqrt(np.mean((error / electrons)[strong] ** 2)))
    sure = max(median_error(ratio), 1.2533 * predicted / np.sqrt(len(ratio)))
    yield around("star flux / truth", float(np.median(ratio)), 1, 0.002, sure)
    if len(ratio) >= 5:
        chance = max(1.5, 1 + 3 * spread_error(1, len(ratio)))
        yield check("scatter of star fluxes", spread(ratio), 0, max(0.012, chance * predicted))
        yield around("pull of star fluxes", spread(pulls), 1, 0.10, spread_error(1, len(pulls)))
    bright = electrons > POSITION_SIGNAL_TO_NOISE * error
    if not bright.any():
        return
    smooth = sci - expected.galaxy_image - np.float32(np.median(sci[product.dq == 0]))
    wx, wy, _ = sep.winpos(smooth, x[bright], y[bright], expected.fwhm / 2.3548, subpix=0)
    for axis, shift in (("x", wx - x[bright]), ("y", wy - y[bright])):
        middle = float(np.median(shift))
        yield around(f"offset of stars in {axis}", middle, 0, 0.02, median_error(shift), " pix")
        if len(shift) >= 5:
            yield check(f"scatter of positions in {axis}", spread(shift), 0, 0.02)


def clean_stars(product: Product, expected: Expected) -> Array:
    """Indices of stars whose aperture has every frame and no flag, and that outshine their neighbours."""
    x, y, electrons = expected.stars.T
    margin = ANNULUS[1] + 2
    ny, nx = product.sci.shape
    chosen = []
    for k in np.flatnonzero((x > margin) & (x < nx - margin) & (y > margin) & (y < ny - margin)):
        distance = np.hypot(x - x[k], y - y[k])
        near = (distance < ISOLATED_PIXELS) & (distance > 0)
        row, column, reach = round(y[k]), round(x[k]), int(APERTURE) + 1
        box = np.s_[row - reach : row + reach + 1, column - reach : column + reach + 1]
        rows, columns = np.mgrid[box]
        inside = np.hypot(rows - y[k], columns - x[k]) < APERTURE + 1
        full = expected.depth[box].min() == len(expected.origins)
        clean = not product.dq[box][inside].any()
        if full and clean and electrons[near].sum() < 0.05 * electrons[k]:
            chosen.append(k)
    return np.array(chosen, int)


def _check_background(product: Product, expected: Expected) -> Iterator[Check]:
    """The sky that is left where nothing shines, its evenness, and its noise."""
    full = expected.depth == len(expected.origins)
    empty = full & (product.dq == 0) & (expected.star_image < 0.05 * np.sqrt(product.var))
    residual = product.sci - expected.galaxy_image - expected.star_image
    here = residual[empty]
    if here.size < 1000:
        return
    middle = float(np.median(here))
    if expected.galaxy_image.any():
        # The change of the sky between object and sky frames stays in by design.
        share, least = (0.02, 5.0) if expected.response_known else (0.3, 60.0)
        reach = max(share * abs(expected.drift), least)
        yield around("background - drift of the sky", middle - expected.drift, 0, reach, 0, " e-")
    else:
        yield around("background", middle, 0, 0.1, median_error(here), " e-")
    pulls = np.where(empty, (residual - middle) / np.sqrt(np.maximum(product.var, 1e-6)), np.nan)
    boxes = [
        (float(np.median(part[~np.isnan(part)])), float(np.median(product.var[box])))
        for box, part in tiles(pulls, BOX)
        if np.isfinite(part).mean() > 0.5
    ]
    if boxes:
        worst = max(boxes, key=lambda item: abs(item[0]) * np.sqrt(item[1]))
        sigma = np.sqrt(worst[1])
        yield around("worst box of 128 pixels", worst[0] * sigma, 0, 1, 5 * 1.25 * sigma / BOX / 3, " e-")
    correction = float(product.header.get("NOISECOR", 1.0))
    single = pulls[np.isfinite(pulls)]
    yield around(
        "pixel noise / sqrt(VAR) / NOISECOR", spread(single) / correction, 1, 0.05, 1 / np.sqrt(here.size)
    )
    blocks = np.array([np.sum(part) / 8 for _, part in tiles(pulls, 8) if np.isfinite(part).all()])
    if blocks.size > 100:
        yield around(
            "noise of 8 x 8 blocks / predicted", spread(blocks), 1, 0.05, spread_error(1, blocks.size)
        )


def tiles(image: Array, size: int) -> Iterator[tuple[tuple[slice, slice], Array]]:
    ny, nx = image.shape
    for row in range(0, ny - size + 1, size):
        for column in range(0, nx - size + 1, size):
            box = np.s_[row : row + size, column : column + size]
            yield box, image[box]


def _check_cosmic_rays(truth: Truth, product: Product, expected: Expected) -> Iterator[Check]:
    """Hits above 10 sigma of a frame, away from stars and on 3 or more good frames, that show above 4 sigma
    in the stack."""
    frames = [truth.frames[name] for name in product.inputs()]
    if not all("cosmic_ray_pixels" in frame for frame in frames):
        return
    left = total = 0
    noise = np.sqrt(product.var) * np.sqrt(np.maximum(expected.depth, 1))
    quiet = (expected.star_image < np.sqrt(product.var)) & (expected.depth >= 3) & (product.dq == 0)
    residual = product.sci - expected.galaxy_image - expected.star_image
    residual -= np.median(residual[quiet]) if quiet.any() else 0
    for frame, (x0, y0) in zip(frames, expected.origins, strict=True):
        for row, column, electrons in frame["cosmic_ray_pixels"]:
            y, x = round(row + y0), round(column + x0)
            if (
                0 <= y < quiet.shape[0]
                and 0 <= x < quiet.shape[1]
                and quiet[y, x]
                and electrons > 10 * noise[y, x]
            ):
                shows = bool(residual[y, x] > 4 * np.sqrt(product.var[y, x]))
                if product.coverage is None or product.coverage[y, x] >= 2 + shows:
                    total += 1
                    left += shows
    if total:
        yield check(f"cosmic rays left, of {total}", left / total, 0, max(0.01, 1.5 / total))
