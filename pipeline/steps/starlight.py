"""The same stars in every frame of a sequence: the shape of the mean one, and how much light they have."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.frame import SATURATED, Frame, Frames
from pipeline.headers.values import number
from pipeline.parallel import run_all
from pipeline.steps.frameshifts import by_wcs

if TYPE_CHECKING:
    from pipeline.algorithms.meanstar import Shape, Transparency

MOST_STARS = 40
USUAL_WIDTH = 4.0  # pixels, where no frame tells its FWHM
PIXELS, FEWEST = 400_000, 5  # of all cut-outs of a frame together, as long as there are so many stars
APERTURE = 1.5  # radius, in FWHM of the wider of the two frames: more light is more noise of the sky
SAME_PLACE = 8.0  # pixels, within which frames show the same moving target
MERGED = 1.5  # times the light of a moving target: beyond its own changes in a sequence
LEAST_SKY = 20  # good pixels in the ring beside a star
ENOUGH = 5  # stars without a neighbour, for those with one to be left out of the light
BETAS = 2.5, 5.0  # exponents that the profile of a star may have


class Seen(NamedTuple):
    """What one frame shows of the reference's stars; None where it cannot be measured.

    expected : stars that should be in its field
    beside : shape of the very same stars in the reference. A blend or the heart of a galaxy is no fault of a
        frame, and counts for much where few stars are seen.
    """

    shape: Shape | None
    light: Transparency | None
    expected: int
    beside: Shape | None = None


def compared(frames: Frames, base: Frame) -> list[Seen]:
    """What every frame shows of the stars of one of them."""
    chosen = stars_of(base)
    if chosen is not None and "NON_SIDEREAL" in base.tags:
        chosen = _in_most(frames, base, chosen)
    if chosen is None:
        return [Seen(None, None, 0)] * len(frames)
    widths = [number(f.header, "FWHMPIX") or math.nan for f in frames]
    usual = float(np.nanmedian(widths)) if np.isfinite(widths).any() else USUAL_WIDTH
    there = Pixels.of(base)
    first = look_at(base, there, base, there, chosen, usual)
    if first.shape is not None:
        first = first._replace(beside=first.shape)

    def look(frame: Frame) -> Seen:
        if frame is base:
            return first
        return look_at(frame, Pixels.of(frame), base, there, chosen, usual, first.shape)

    return run_all(look, frames)


class Pixels(NamedTuple):
    """The planes of a frame as sep takes them, (ny, nx): sci and var float32, bad bool, good float32 0 or 1.
    var : of nothing where the frame has none"""

    sci: Any
    var: Any
    bad: Any
    good: Any

    @classmethod
    def of(cls, frame: Frame) -> Pixels:
        bad = (frame.dq & ~np.uint16(6)) != 0
        var = None if frame.var is None else np.array(frame.var)
        return cls(np.array(frame.sci), var, bad, np.ascontiguousarray(~bad, np.float32))


def _in_most(frames: Frames, base: Frame, stars: Stars) -> Stars | None:
    """Of what frames show that lie on each other at a moving target, what is in most of them: that target.

    Its flux is the median of theirs: in one of them a star may be in it.
    """
    fluxes = np.full((len(frames), len(stars.x)), np.nan)
    for k, frame in enumerate(frames):
        if frame.catalog is not None and frame.catalog.size:
            away = _away(frame, *by_wcs(base, frame).to_input(stars.x, stars.y))
            flux = frame.catalog["FLUX_AUTO"][away.argmin(axis=1)]
            fluxes[k] = np.where(away.min(axis=1) < SAME_PLACE, flux, np.nan)
    same = 2 * np.isfinite(fluxes).sum(axis=0) > len(frames)
    if not same.any():
        return None
    return Stars(stars.x[same], stars.y[same], np.nanmedian(fluxes[:, same], axis=0), stars.dark[same])


def _away(frame: Frame, x: Any, y: Any) -> Any:
    """Pixels from each place to each source of the frame; (n, sources)."""
    t = frame.catalog
    assert t is not None
    return np.hypot(np.subtract.outer(x, t["X_IMAGE"] - 1), np.subtract.outer(y, t["Y_IMAGE"] - 1))


def _beside(frame: Frame, x: Any, y: Any, flux: Any, half: float) -> Any:
    """Whether another source of the frame is in the cut-out of a place, as bright as a tenth of it; (n,).

    Beside a moving target that is a star that it passes, and neither a second image nor a trail. flux : of
    what should be there, (n,); a source with more than MERGED of it has swallowed the star.
    """
    t = frame.catalog
    assert t is not None
    away = _away(frame, x, y)
    own = away.argmin(axis=1)
    other = (away < 1.5 * half) & (t["FLUX_AUTO"][None, :] > 0.1 * t["FLUX_AUTO"][own][:, None])
    other[np.arange(len(own)), own] = False
    return other.any(axis=1) | (t["FLUX_AUTO"][own] > MERGED * flux)


class Stars(NamedTuple):
    """Stars of the reference, (n,) each: pixels from 0, flux, and whether their light can be measured."""

    x: NDArray[np.float64]
    y: NDArray[np.float64]
    flux: NDArray[np.float64]
    dark: NDArray[np.bool_]


def stars_of(reference: Frame) -> Stars | None:
    """The sources to look at: bright, whole, unsaturated, alone within three times their width."""
    from pipeline.algorithms import meanstar

    t = reference.catalog
    if t is None or not t.size:
        return None
    with np.errstate(all="ignore"):
        good = (
            (t["FLUX_AUTO"] > 10 * t["FLUXERR_AUTO"])
            & ((t["IMAFLAGS_ISO"] & int(SATURATED)) == 0)
            & (t["FWHM_FIT"] > 0)
            & (t["FLAGS"] & 0b11000 == 0)
        )
    if (t["STAR"][good] == 1).sum() >= 5:
        good &= t["STAR"] == 1
    width = float(np.median(t["FWHM_FIT"][good])) if good.any() else 4.0
    away = np.hypot(
        np.subtract.outer(t["X_IMAGE"], t["X_IMAGE"]), np.subtract.outer(t["Y_IMAGE"], t["Y_IMAGE"])
    )
    np.fill_diagonal(away, np.inf)
    beside = (away < 3 * width) & (t["FLUX_AUTO"][None, :] > 0.1 * t["FLUX_AUTO"][:, None])
    alone = good & ~beside.any(axis=1)
    # A neighbour in the ring that tells the sky disturbs by its share of the ring.
    near = (away < (APERTURE * meanstar.RING[1] + 1) * width) & (
        t["FLUX_AUTO"] > 0.3 * t["FLUX_AUTO"][:, None]
    )
    dark = (alone & ~near.any(axis=1))[alone if alone.any() else good]
    t = t[alone if alone.any() else good]
    if not t.size:
        return None
    if dark.sum() < ENOUGH:
        dark[:] = True
    columns = (t[name].astype(float) for name in ("X_FIT", "Y_FIT", "FLUX_AUTO"))
    x, y, flux = (column[:MOST_STARS] for column in columns)
    return Stars(x - 1, y - 1, flux, dark[:MOST_STARS])


def look_at(
    frame: Frame,
    pixels: Pixels,
    reference: Frame,
    of_it: Pixels,
    stars: Stars,
    usual: float,
    its_shape: Shape | None = None,
) -> Seen:
    """The reference's stars in one frame: shape of the mean star, and light in like apertures.

    pixels, of_it : of the frame and of the reference; its_shape : of the reference's stars
    """
    from pipeline.algorithms import meanstar

    ny, nx = frame.shape
    x, y = by_wcs(reference, frame).to_input(stars.x, stars.y)
    half = math.ceil(5 * usual)
    inside = (x > half) & (x < nx - half) & (y > half) & (y < ny - half)
    if "NON_SIDEREAL" in frame.tags and frame.catalog is not None and frame.catalog.size:
        # The frames lie on each other at the target: stars are elsewhere.
        inside &= (_away(frame, x, y).min(axis=1) < 2 * usual) & ~_beside(frame, x, y, stars.flux, half)
    expected = int((inside & _seen_there(frame, x, y)).sum())
    if not expected or frame.header.get("REGMETH") in ("offsets", "header") or frame.var is None:
        return Seen(None, None, expected)
    most = np.flatnonzero(inside)[: max(FEWEST, PIXELS // (2 * half + 1) ** 2)]
    pieces, noise = _pieces(pixels, x[most], y[most], stars.flux[most], half)
    beside = None
    if frame is not reference:  # the same stars, the same pixels of each
        there, at = _pieces(of_it, stars.x[most], stars.y[most], stars.flux[most], half)
        there[np.isnan(pieces)] = np.nan
        pieces[np.isnan(there)] = np.nan
        beside = meanstar.shape(there, at, usual)
    shape = meanstar.shape(pieces, noise, usual)
    radius = APERTURE * max(shape.fwhm if shape else usual, usual)
    measured = inside & stars.dark
    there = _sums(pixels, x[measured], y[measured], radius)
    here = _sums(of_it, stars.x[measured], stars.y[measured], radius)
    light = meanstar.relative_light(*there, *here)
    if light is not None and shape is not None and its_shape is not None:
        light = _of_all_light(light, shape, its_shape, radius)
    return Seen(shape, light, expected, beside)


def beside(frame: Frame, reference: Frame, matrix: NDArray[np.float64]) -> tuple[float, float]:
    """(second image of the mean star, of the first; ellipticity), beyond those of the same stars in the
    reference; zeros where they cannot be measured, an ellipticity of less than 5 of its errors among them.

    matrix : (3, 3) takes pixels of the reference to those of the frame
    """
    from pipeline.algorithms import meanstar

    stars = stars_of(reference)
    if stars is None or frame.var is None or reference.var is None:
        return 0.0, 0.0
    usual = number(reference.header, "FWHMPIX") or USUAL_WIDTH
    half = math.ceil(5 * usual)
    most = slice(max(FEWEST, PIXELS // (2 * half + 1) ** 2))

    def shape(of: Frame, x: Any, y: Any) -> Shape | None:
        return meanstar.shape(*_pieces(Pixels.of(of), x[most], y[most], stars.flux[most], half), usual)

    x, y, _ = matrix @ np.stack([stars.x, stars.y, np.ones(len(stars.x))])
    own, there = shape(frame, x, y), shape(reference, stars.x, stars.y)
    if own is None or there is None:
        return 0.0, 0.0
    elongation = math.hypot(own.e1 - there.e1, own.e2 - there.e2)
    known = elongation > 5 * math.hypot(own.error, there.error)
    return own.second - there.second, elongation if known else 0.0


def _seen_there(frame: Frame, x: Any, y: Any) -> NDArray[np.bool_]:
    """(n,) places on a pixel that has seen light."""
    ny, nx = frame.shape
    rows, columns = np.clip(np.rint(y).astype(int), 0, ny - 1), np.clip(np.rint(x).astype(int), 0, nx - 1)
    return np.asarray((frame.dq[rows, columns] & ~np.uint16(6)) == 0)


def _pieces(pixels: Pixels, x: Any, y: Any, flux: Any, half: int) -> tuple[Any, Any]:
    """Cut-outs of the stars, and the noise of a pixel of each, both in units of their flux."""
    from pipeline.algorithms import meanstar

    noise = np.sqrt(np.median(pixels.var[::8, ::8])) / flux
    return meanstar.cutouts(pixels.sci, pixels.bad, x, y, flux, half), noise


def _of_all_light(light: Transparency, shape: Shape, reference: Shape, radius: float) -> Transparency:
    """Corrected for what wider stars lose outside the aperture; a tenth of the correction is its error."""
    from pipeline.algorithms import meanstar

    # One exponent for both: that of each is hardly known, and would change what lies outside by percents.
    beta = min(max(reference.beta, BETAS[0]), BETAS[1])
    lost = [meanstar.light_inside(radius, s.fwhm, beta) for s in (shape, reference)]
    change = -2.5 * math.log10(lost[0] / lost[1])
    return light._replace(
        magnitudes=light.magnitudes + change, error=math.hypot(light.error, 0.1 * change, 0.002)
    )


def _sums(pixels: Pixels, x: Any, y: Any, radius: float) -> tuple[Any, Any]:
    """(flux, error) in circles, less the mean of a ring; nan where the middle is bad or it is not whole."""
    import sep

    from pipeline.algorithms import meanstar

    sci, var, bad, good = pixels
    ny, nx = sci.shape
    whole = (x > radius) & (x < nx - 1 - radius) & (y > radius) & (y < ny - 1 - radius)
    ring = meanstar.RING[0] * radius, meanstar.RING[1] * radius
    whole &= sep.sum_circann(good, x, y, *ring, subpix=1)[0] > LEAST_SKY
    flux, error = np.full(len(x), np.nan), np.full(len(x), np.nan)
    if not whole.any():
        return flux, error
    flux[whole], error[whole], _ = sep.sum_circle(
        sci,
        x[whole],
        y[whole],
        radius,
        var=var,
        mask=bad,
        subpix=5,
        bkgann=ring,
    )
    rows, columns = np.clip(np.rint(y).astype(int), 0, ny - 1), np.clip(np.rint(x).astype(int), 0, nx - 1)
    core = np.array(
        [bad[max(r - 1, 0) : r + 2, max(c - 1, 0) : c + 2].any() for r, c in zip(rows, columns, strict=True)]
    )
    flux[core], error[core] = np.nan, np.nan
    return flux, error
