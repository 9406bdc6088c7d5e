"""Products held against the truth of a simulated night.

    for check in check_products(night, {"dark": path, "flat": path, "science": path}):
        print("ok " if check.ok else "BAD", check.sentence)

Robust statistics throughout (median, 1.4826 x median absolute deviation), pixels with DQ = 0 only. A limit
holds as the stated value or three standard errors of the statistic, whichever is wider. "pull" is the
scatter of (product - truth) in units of the product's own sqrt(VAR).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import sep
from astropy.io import fits
from astropy.wcs import WCS

from pipeline.simulate.detector import BoolImage, FloatImage, centre_of
from pipeline.simulate.sky import MOFFAT_BETA, Galaxy, Pointing, Vector, render_stars

APERTURE, ANNULUS = 10.0, (14.0, 22.0)  # pixels
ISOLATED_PIXELS = 25.0
FLUX_SIGNAL_TO_NOISE, POSITION_SIGNAL_TO_NOISE = 40.0, 80.0
BOX = 128
HOT_FOUND_ELECTRONS = 1400.0  # in the short darks: the mask's limit of 1300 with a margin for noise
Array = npt.NDArray[Any]


class Check(NamedTuple):
    """One number that must lie between two limits, and a sentence that says so."""

    name: str
    value: float
    low: float
    high: float
    ok: bool
    sentence: str


def _check(name: str, value: float, low: float, high: float, unit: str = "") -> Check:
    ok = bool(low <= value <= high)
    text = f"{name}: {value:.4g}{unit}, {'within' if ok else 'NOT within'} {low:.4g} to {high:.4g}"
    return Check(name, float(value), float(low), float(high), ok, text)


def _around(name: str, value: float, middle: float, half: float, error: float, unit: str = "") -> Check:
    reach = max(half, 3 * error)
    return _check(name, value, middle - reach, middle + reach, unit)


def spread(values: Array) -> float:
    """Standard deviation by the median absolute deviation."""
    return 1.4826 * float(np.median(np.abs(values - np.median(values)))) if values.size else float("nan")


def _median_error(values: Array) -> float:
    return float(1.2533 * spread(values) / np.sqrt(max(values.size, 1)))


def _spread_error(value: float, count: int) -> float:
    """Of a spread from `count` values (the efficiency of the MAD is 37 percent)."""
    return float(1.166 * value / np.sqrt(max(count, 1)))


@dataclass(frozen=True)
class Truth:
    """truth.json of a night, read when asked."""

    folder: Path

    @cached_property
    def facts(self) -> dict[str, Any]:
        facts: dict[str, Any] = json.loads((self.folder / "truth.json").read_text(encoding="utf-8"))
        return facts

    @cached_property
    def frames(self) -> dict[str, dict[str, Any]]:
        return {Path(frame["file"]).stem: frame for frame in self.facts["frames"]}

    def image(self, name: str, size: int) -> FloatImage | None:
        """The true flat or dark, cut to the centre; None when this truth has no images."""
        if name not in self.facts:
            return None
        data = fits.getdata(self.folder / self.facts[name]).astype(np.float32)
        return np.ascontiguousarray(centre_of(data, size))

    def defects(self, size: int) -> tuple[FloatImage, BoolImage]:
        """Dark rate of the hot pixels (0 elsewhere), and the dead pixels, cut to the centre."""
        hot, dead = np.zeros((1024, 1024), np.float32), np.zeros((1024, 1024), bool)
        for row, column, rate in self.facts["bad_pixels"]["hot"]:
            hot[row, column] = rate
        dead[tuple(np.array(self.facts["bad_pixels"]["dead"]).T)] = True
        return centre_of(hot, size), centre_of(dead, size)


@dataclass(frozen=True, eq=False)
class Product:
    """A product file; native byte order, NaN nowhere."""

    path: Path
    phu: fits.Header
    header: fits.Header
    sci: FloatImage
    var: FloatImage
    dq: Array
    coverage: Array | None

    @classmethod
    def read(cls, path: Path) -> Product:
        with fits.open(path) as units:
            planes = {unit.name: unit.data for unit in units[1:] if unit.is_image}
            sci = next(iter(planes.values())).astype(np.float32)
            header = next(unit.header for unit in units[1:] if unit.is_image)
            var = planes.get("VAR", np.zeros_like(sci)).astype(np.float32)
            dq = planes.get("DQ", np.zeros(sci.shape, np.uint16)).astype(np.uint16)
            return cls(path, units[0].header, header, sci, var, dq, planes.get("COVERAGE"))

    def inputs(self) -> list[str]:
        """Roots of the frames it was made from, the reference first."""
        cards = sorted(key for key in self.phu if key.startswith("IMCMB"))
        names = [str(self.phu[key]) for key in cards] or [self.path.name]
        return [name.split(".")[0].split("_")[0] for name in names]


def check_products(night_folder: Path, products: Mapping[str, Path]) -> list[Check]:
    """Compare products with the truth of the night they were made from.

    products : by kind: dark, flat, bpm, science or image, standard (a prefix "processed_" is allowed).
    An unknown kind is a KeyError; a product whose inputs are not frames of the night, too.
    """
    checkers: dict[str, Callable[[Truth, Product], Iterator[Check]]] = {
        "dark": check_dark,
        "flat": check_flat,
        "bpm": check_bpm,
        **dict.fromkeys(("science", "image", "standard"), check_image),
    }
    truth = Truth(night_folder)
    found = []
    for kind, path in products.items():
        checker = checkers[kind.removeprefix("processed_")]
        for check in checker(truth, Product.read(path)):
            found.append(check._replace(name=f"{kind}: {check.name}", sentence=f"{kind}: {check.sentence}"))
    return found


def check_dark(truth: Truth, product: Product) -> Iterator[Check]:
    frame, size = truth.frames[product.inputs()[0]], product.sci.shape[0]
    rate = truth.image("dark", size)
    if rate is None:  # only the medians are known
        rate = np.full(product.sci.shape, truth.facts["dark_median_e_per_s"], np.float32)
    hot, _ = truth.defects(size)
    expected = frame["coadds"] * (truth.facts["pedestal_median_e"] + rate * frame["exptime"])
    good = (product.dq == 0) & (hot == 0)
    residual = (product.sci - expected)[good]
    reach = 0.15 if "dark" in truth.facts else 2.0  # the median of the whole array is not that of a part
    yield _around("median residual", float(np.median(residual)), 0, reach, _median_error(residual), " e-")
    if "dark" in truth.facts:
        pull = spread(residual / np.sqrt(product.var[good]))
        low = 0.70 if frame.get("read_mode", "").startswith("Low") else 0.93
        yield _check("pull", pull, low, 1.03 + 3 * _spread_error(1, residual.size))


def check_flat(truth: Truth, product: Product) -> Iterator[Check]:
    response = truth.image("flat", product.sci.shape[0])
    if response is None:
        return
    good = product.dq == 0
    ratio = product.sci[good] / (response[good] / np.median(response[good]))
    yield _around(
        "median ratio to the true flat - 1", float(np.median(ratio)) - 1, 0, 1e-5, _median_error(ratio)
    )
    relative = np.sqrt(product.var[good]) / product.sci[good]
    yield _check("scatter of the ratio", spread(ratio), 0, 1.05 * float(np.median(relative)))
    yield _around("pull", spread((ratio - 1) / relative), 1, 0.03, _spread_error(1, ratio.size))


def check_bpm(truth: Truth, product: Product) -> Iterator[Check]:
    flagged = (product.dq if product.dq.any() else product.sci) != 0
    hot, dead = truth.defects(flagged.shape[0])
    short = min(f["exptime"] * f["coadds"] for f in truth.frames.values() if f["kind"] == "dark")
    very_hot = hot * short > HOT_FOUND_ELECTRONS
    yield _check("dead pixels found, fraction", float(flagged[dead].mean()), 1, 1)
    yield _check("hot pixels found, fraction", float(flagged[very_hot].mean()), 1, 1)
    yield _check("good pixels flagged", int((flagged & (hot == 0) & ~dead).sum()), 0, 0)


# --- images -------------------------------------------------------------------------------------------


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


def expect_image(truth: Truth, product: Product) -> Expected:
    """Build the noiseless stack from the truth of its input frames.

    The product's WCS is the header's of its reference frame, whose pointing error is known.
    """
    frames = [truth.frames[name] for name in product.inputs()]
    first, shape = frames[0], product.sci.shape
    field = next(f for f in truth.facts["fields"] if f["field"] == first["field"])
    catalogue = np.array([(s["ra"], s["dec"], s["flux_e_per_s"]) for s in field["sources"]])
    wcs = WCS(product.header)
    dx, dy = first["wcs_error_pix"]
    x, y = wcs.all_world2pix(catalogue[:, 0], catalogue[:, 1], 0)
    target = _target_of(truth, field)
    tx, ty = (float(v) + error for v, error in zip(wcs.all_world2pix(*target, 0), (dx, dy), strict=True))
    seconds = first["exptime"] * first["coadds"]
    beta = truth.facts.get("psf", {}).get("beta", MOFFAT_BETA)
    image, depth = np.zeros(shape, np.float32), np.zeros(shape, np.uint16)
    origins = []
    for frame in frames:
        rows = np.stack([x + dx, y + dy, catalogue[:, 2] * frame["transparency"]], axis=1)
        stars = render_stars(shape, rows, fwhm=frame["fwhm_pix"], beta=beta, floor=0.01 / seconds)
        image += np.float32(seconds / len(frames)) * stars
        x0, y0 = tx - frame["target_xy"][0], ty - frame["target_xy"][1]
        origins.append((x0, y0))
        left, low, size = round(x0), round(y0), frame["roi"]
        depth[max(low, 0) : max(low + size, 0), max(left, 0) : max(left + size, 0)] += 1
    clear = float(np.mean([frame["transparency"] for frame in frames]))
    galaxy = np.zeros(shape, np.float32)
    if field.get("galaxy"):
        here = Pointing(*target, tx, ty, wcs.pixel_scale_matrix * 3600)
        form = Galaxy(**field["galaxy"])
        if "format" not in truth.facts:  # an older way to write the truth counted the angle from west
            form = form._replace(pa=form.pa + 90)
        galaxy = form.surface_brightness(*here.offsets(shape), field["zeropoint_e"])
        galaxy *= np.float32(here.pixel_area * seconds * clear)
    skies = [f["sky_rate"] for f in _sky_frames(truth, first)]
    drift = np.mean([f["sky_rate"] for f in frames]) - np.median(skies) if skies else 0.0
    return Expected(
        np.stack([x + dx, y + dy, catalogue[:, 2] * clear * seconds], axis=1),
        image,
        galaxy,
        depth,
        origins,
        float(np.mean([frame["fwhm_pix"] for frame in frames])),
        float(drift * seconds),
    )


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


def check_image(truth: Truth, product: Product) -> Iterator[Check]:
    expected = expect_image(truth, product)
    yield from _check_stars(product, expected)
    yield from _check_background(product, expected)
    yield from _check_cosmic_rays(truth, product, expected)
    if "MAGZPT" in product.phu:
        frames = [truth.frames[name] for name in product.inputs()]
        clear = np.mean([f.get("cloud_transparency", f["transparency"]) for f in frames])
        field = next(f for f in truth.facts["fields"] if f["field"] == frames[0]["field"])
        true = field["zeropoint_e"] + 2.5 * np.log10(clear)
        yield _check("zero point - true, mag", product.phu["MAGZPT"] - true, -0.01, 0.01)


def _aperture(image: FloatImage, x: Vector, y: Vector, mask: BoolImage | None = None) -> Vector:
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
    usable = _clean_stars(product, expected)
    sci, var = np.ascontiguousarray(product.sci), np.ascontiguousarray(product.var)
    model = expected.star_image + expected.galaxy_image
    flagged = product.dq != 0
    x, y, electrons = x[usable], y[usable], electrons[usable]
    measured, true = _aperture(sci, x, y, flagged), _aperture(model, x, y)
    inner, outer = ANNULUS
    ring_weight = (APERTURE**2 / (outer**2 - inner**2)) ** 2
    ring_var = sep.sum_circann(var, x, y, inner, outer, mask=flagged, subpix=0)[0]
    error = np.sqrt(sep.sum_circle(var, x, y, APERTURE, subpix=0)[0] + ring_weight * ring_var)
    strong = electrons > FLUX_SIGNAL_TO_NOISE * error
    yield _check("stars for photometry", int(strong.sum()), 1, np.inf)
    if not strong.any():
        return
    ratio, pulls = (measured / true)[strong], ((measured - true) / error)[strong]
    yield _around("star flux / truth", float(np.median(ratio)), 1, 0.002, _median_error(ratio))
    if len(ratio) >= 5:
        predicted = float(np.sqrt(np.mean((error / electrons)[strong] ** 2)))
        yield _check("scatter of star fluxes", spread(ratio), 0, max(0.012, 1.5 * predicted))
        yield _around("pull of star fluxes", spread(pulls), 1, 0.10, _spread_error(1, len(pulls)))
    bright = electrons > POSITION_SIGNAL_TO_NOISE * error
    if not bright.any():
        return
    smooth = sci - expected.galaxy_image - np.float32(np.median(sci[product.dq == 0]))
    wx, wy, _ = sep.winpos(smooth, x[bright], y[bright], expected.fwhm / 2.3548, subpix=0)
    for axis, shift in (("x", wx - x[bright]), ("y", wy - y[bright])):
        middle = float(np.median(shift))
        yield _around(f"offset of stars in {axis}", middle, 0, 0.02, _median_error(shift), " pix")
        if len(shift) >= 5:
            yield _check(f"scatter of positions in {axis}", spread(shift), 0, 0.02)


def _clean_stars(product: Product, expected: Expected) -> Array:
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
        full = expected.depth[box].min() == len(expected.origins)
        if full and not product.dq[box].any() and electrons[near].sum() < 0.05 * electrons[k]:
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
        reach = max(0.3 * abs(expected.drift), 60.0)
        yield _around("background - drift of the sky", middle - expected.drift, 0, reach, 0, " e-")
    else:
        yield _around("background", middle, 0, 0.1, _median_error(here), " e-")
    pulls = np.where(empty, (residual - middle) / np.sqrt(np.maximum(product.var, 1e-6)), np.nan)
    boxes = [
        (float(np.median(part[~np.isnan(part)])), float(np.median(product.var[box])))
        for box, part in _tiles(pulls, BOX)
        if np.isfinite(part).mean() > 0.5
    ]
    if boxes:
        worst = max(boxes, key=lambda item: abs(item[0]) * np.sqrt(item[1]))
        sigma = np.sqrt(worst[1])
        yield _around("worst box of 128 pixels", worst[0] * sigma, 0, 1, 5 * 1.25 * sigma / BOX / 3, " e-")
    correction = float(product.header.get("NOISECOR", 1.0))
    single = pulls[np.isfinite(pulls)]
    yield _around(
        "pixel noise / sqrt(VAR) / NOISECOR", spread(single) / correction, 1, 0.05, 1 / np.sqrt(here.size)
    )
    blocks = np.array([np.sum(part) / 8 for _, part in _tiles(pulls, 8) if np.isfinite(part).all()])
    if blocks.size > 100:
        yield _around(
            "noise of 8 x 8 blocks / predicted", spread(blocks), 1, 0.05, _spread_error(1, blocks.size)
        )


def _tiles(image: Array, size: int) -> Iterator[tuple[tuple[slice, slice], Array]]:
    ny, nx = image.shape
    for row in range(0, ny - size + 1, size):
        for column in range(0, nx - size + 1, size):
            box = np.s_[row : row + size, column : column + size]
            yield box, image[box]


def _check_cosmic_rays(truth: Truth, product: Product, expected: Expected) -> Iterator[Check]:
    """Hits above 10 sigma of a frame, away from stars, that show above 4 sigma in the stack."""
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
                total += 1
                left += bool(residual[y, x] > 4 * np.sqrt(product.var[y, x]))
    if total:
        yield _check(f"cosmic rays left, of {total}", left / total, 0, max(0.01, 1.5 / total))
