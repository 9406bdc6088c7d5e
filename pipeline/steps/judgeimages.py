"""judgeImages: the same stars in every registered frame, and what they say of each frame.

How much light came through, how wide, how round and how single the stars are; then each frame is used as it
is, scaled to the clear ones, counted for less, or left out. Everything is relative to the other frames of
the sequence: what is the same in all of them is the night's, and no frame's fault.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.frame import SATURATED, Frame, Frames
from pipeline.headers import number
from pipeline.limits import limit
from pipeline.parallel import each
from pipeline.params import bounded
from pipeline.primitive import Calibrations, primitive
from pipeline.steps.frameshifts import by_wcs
from pipeline.steps.judge import dealt
from pipeline.steps.members import name_of
from pipeline.steps.reference import reference_of
from pipeline.tags import tags_of
from pipeline.verdict import LEFT_OUT, SCALED, USED, WEIGHTED, Verdict

if TYPE_CHECKING:
    from pipeline.algorithms.meanstar import Shape, Transparency

MOST_STARS = 40
PIXELS, FEWEST = 400_000, 5  # of all cut-outs of a frame together, as long as there are so many stars
APERTURE = 2.5  # radius, in FWHM of the wider of the two frames
FEW = 3  # frames or fewer: nothing is left out on weak evidence
WEAK = 2.0  # times the limit beyond which the evidence is not weak
CLEARER = 0.25  # magnitudes, by which another frame than the reference must be brighter to be compared with
ROUND = 0.3  # ellipticity below which what is wide is called blurred, not trailed


@dataclass(frozen=True)
class JudgeImagesParams:
    judge: bool = bounded(True, dragons=False, doc="compare the stars of all frames before they are stacked")
    accept: tuple[str, ...] = bounded((), doc="frames that are used whatever is found of them, by name")
    thin_cloud: float = limit("thin_cloud", gt=0, le=1)
    least_weight: float = limit("least_weight", ge=0, lt=1)
    blurred: float = limit("blurred", ge=1)
    too_blurred: float = limit("too_blurred", ge=1)
    elongated: float = limit("elongated", gt=0)
    second_peak: float = limit("second_peak", gt=0)
    repeated: float = limit("repeated", gt=0)
    unfound: float = limit("unfound", ge=0, lt=1)


class Seen(NamedTuple):
    """What one frame shows of the reference's stars; None where it cannot be told.

    expected : stars that should be in its field
    """

    shape: Shape | None
    light: Transparency | None
    expected: int


@primitive("judgeImages", JudgeImagesParams)
def judge_images(frames: Frames, params: JudgeImagesParams, cals: Calibrations) -> Frames:
    """Compare the frames by the stars that they share; scale, weigh or leave out what is not like the rest.

    Sets TRANSP and TRANSERR (light of the stars, of that in the clear frames), ELLIPPA; SCALEBY, the factor
    that scaleCountsToReference applies to a frame in cloud. Needs registered frames with catalogues.
    `accept` names frames that a person wants used as they are.
    """
    if not params.judge or len(frames) < 2:
        return frames
    from pipeline.algorithms import meanstar

    seen = _compared(frames, reference_of(frames))
    brightest = max(range(len(frames)), key=lambda k: _excess(seen[k], params))
    if _excess(seen[brightest], params) > CLEARER:  # the reference is in cloud
        seen = _compared(frames, frames[brightest])
    transparency = meanstar.of_the_clear([found.light for found in seen])
    frames = [_measured(*found) for found in zip(frames, seen, transparency, strict=True)]
    verdicts = _settled(_verdicts(frames, seen, transparency, params), len(frames))
    frames = dealt(frames, verdicts, params.accept, skies=False)
    own = {verdict.frame: verdict for verdict in verdicts if not _is_accepted(verdict, frames)}
    return [_scaled(frame, own.get(name_of(frame))) for frame in frames]


def _compared(frames: Frames, base: Frame) -> list[Seen]:
    """What every frame shows of the stars of one of them."""
    chosen = _stars(base)
    if chosen is None:
        return [Seen(None, None, 0)] * len(frames)
    widths = [number(f.header, "FWHMPIX") or math.nan for f in frames]
    usual = float(np.nanmedian(widths)) if np.isfinite(widths).any() else 4.0
    first = _look(base, base, chosen, usual)
    return each(lambda f: first if f is base else _look(f, base, chosen, usual, first.shape), frames)


def _excess(seen: Seen, params: JudgeImagesParams) -> float:
    """Magnitudes by which a frame is surely brighter than the one it is compared with; 0 for an odd image."""
    odd = seen.shape is None or seen.shape.second > params.second_peak or seen.shape.ellipticity > ROUND
    if odd or seen.light is None or not math.isfinite(seen.light.error):
        return 0.0
    return seen.light.magnitudes - 3 * seen.light.error


def _is_accepted(verdict: Verdict, frames: Frames) -> bool:
    return any(v.frame == verdict.frame and v.person for v in frames[0].verdicts)


def _scaled(frame: Frame, verdict: Verdict | None) -> Frame:
    transparency = number(frame.header, "TRANSP")
    if verdict is None or verdict.use != SCALED or not transparency:
        return frame
    return frame.evolve(cards={"SCALEBY": (round(1 / transparency, 6), "Factor for the counts, by TRANSP")})


# -- what is measured ---------------------------------------------------------------------------------------


class Stars(NamedTuple):
    """Stars of the reference, (n,) each: pixels from 0, flux, FWHM."""

    x: NDArray[np.float64]
    y: NDArray[np.float64]
    flux: NDArray[np.float64]


def _stars(reference: Frame) -> Stars | None:
    """The sources to look at: bright, whole, unsaturated, alone within three times their width."""
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
    t = t[alone if alone.any() else good][:MOST_STARS]
    if not t.size:
        return None
    return Stars(t["X_FIT"].astype(float) - 1, t["Y_FIT"].astype(float) - 1, t["FLUX_AUTO"].astype(float))


def _look(
    frame: Frame, reference: Frame, stars: Stars, usual: float, of_reference: Shape | None = None
) -> Seen:
    """The reference's stars in one frame: shape of the mean star, and light in like apertures."""
    from pipeline.algorithms import meanstar

    ny, nx = frame.shape
    x, y = by_wcs(reference, frame).to_input(stars.x, stars.y)
    half = math.ceil(5 * usual)
    inside = (x > half) & (x < nx - half) & (y > half) & (y < ny - half)
    if "NON_SIDEREAL" in tags_of(frame.header) and frame.catalog is not None:
        # The frames lie on each other at the target: stars are elsewhere.
        t = frame.catalog
        near = np.hypot(np.subtract.outer(x, t["X_IMAGE"] - 1), np.subtract.outer(y, t["Y_IMAGE"] - 1))
        inside &= near.min(axis=1) < 2 * usual
    expected = int(inside.sum())
    if not expected or frame.header.get("REGMETH") in ("offsets", "header") or frame.var is None:
        return Seen(None, None, expected)
    bad = (frame.dq & ~np.uint16(6)) != 0
    noise = np.sqrt(np.median(frame.var[::8, ::8])) / stars.flux[inside]
    most = max(FEWEST, PIXELS // (2 * half + 1) ** 2)
    pieces = meanstar.cutouts(
        frame.sci, bad, x[inside][:most], y[inside][:most], stars.flux[inside][:most], half
    )
    shape = meanstar.shape(pieces, noise[:most], usual)
    radius = APERTURE * max(shape.fwhm if shape else usual, usual)
    there = _sums(frame, x[inside], y[inside], radius)
    here = _sums(reference, stars.x[inside], stars.y[inside], radius)
    light = meanstar.relative_light(*there, *here)
    if light is not None and shape is not None and of_reference is not None:
        light = _of_all_light(light, shape, of_reference, radius)
    return Seen(shape, light, expected)


def _of_all_light(light: Transparency, shape: Shape, reference: Shape, radius: float) -> Transparency:
    """Corrected for what wider stars lose outside the aperture; a tenth of the correction is its error."""
    from pipeline.algorithms import meanstar

    lost = [meanstar.light_inside(radius, s.fwhm, s.beta) for s in (shape, reference)]
    change = -2.5 * math.log10(lost[0] / lost[1])
    return light._replace(
        magnitudes=light.magnitudes + change, error=math.hypot(light.error, 0.1 * change, 0.002)
    )


def _sums(frame: Frame, x: Any, y: Any, radius: float) -> tuple[Any, Any]:
    """(flux, error) in circles, less the mean of a ring; nan where the middle is bad or it is not whole."""
    import sep

    from pipeline.algorithms import meanstar

    assert frame.var is not None
    bad = (frame.dq & ~np.uint16(6)) != 0
    ny, nx = frame.shape
    flux, error, _ = sep.sum_circle(
        np.array(frame.sci), x, y, radius, var=np.array(frame.var), mask=bad, subpix=5,
        bkgann=(meanstar.RING[0] * radius, meanstar.RING[1] * radius),
    )  # fmt: skip
    whole = (x > radius) & (x < nx - 1 - radius) & (y > radius) & (y < ny - 1 - radius)
    rows, columns = np.clip(np.rint(y).astype(int), 0, ny - 1), np.clip(np.rint(x).astype(int), 0, nx - 1)
    core = [
        bad[max(r - 1, 0) : r + 2, max(c - 1, 0) : c + 2].any() for r, c in zip(rows, columns, strict=True)
    ]
    usable = whole & ~np.array(core, bool)
    return np.where(usable, flux, np.nan), np.where(usable, error, np.nan)


def _measured(frame: Frame, seen: Seen, transparency: tuple[float, float]) -> Frame:
    """The frame with what was found of it in its header."""
    light, error = transparency
    cards: dict[str, Any] = {}
    if math.isfinite(light) and math.isfinite(error):
        cards |= {
            "TRANSP": (round(light, 5), "Light of its stars, of that in clear frames"),
            "TRANSERR": (round(error, 5), "Error of TRANSP"),
        }
    if seen.shape is not None:
        cards |= {
            "ELLIPTIC": (round(seen.shape.ellipticity, 4), "Ellipticity of the mean star"),
            "ELLIERR": (round(seen.shape.error, 4), "Error of ELLIPTIC"),
            "ELLIPPA": (round(seen.shape.angle, 1), "[deg] Of the long axis, from +x to +y"),
        }
    return frame.evolve(cards=cards) if cards else frame


# -- what becomes of it -------------------------------------------------------------------------------------


class Usual(NamedTuple):
    fwhm: float
    e1: float
    e2: float
    second: float


def _verdicts(
    frames: Frames,
    seen: Sequence[Seen],
    transparency: Sequence[tuple[float, float]],
    params: JudgeImagesParams,
) -> list[Verdict]:
    """One verdict for each frame that is unlike the others."""
    shapes = [s.shape for s in seen if s.shape is not None]
    usual = (
        Usual(*(float(np.median([getattr(s, name) for s in shapes])) for name in Usual._fields))
        if shapes
        else None
    )
    pairs = [_pairs(frame) for frame in frames]
    most_pairs = params.repeated + float(np.median(pairs))
    by_sources = sum(str(f.header.get("REGMETH")) in ("sources", "reference") for f in frames)
    out = []
    for frame, own, light, double in zip(frames, seen, transparency, pairs, strict=True):
        verdict = None
        if double > most_pairs:
            reason = "double: its sources repeat at one distance"
            verdict = _left_out(frame, reason, double, most_pairs, "of the sources")
        elif own.expected >= 5 and own.shape is None and own.light is None and 2 * by_sources > len(frames):
            verdict = _left_out(
                frame, "not one of its stars was found", 0, params.unfound * own.expected, "stars"
            )
        if verdict is None and own.shape is not None and usual is not None:
            verdict = _by_shape(frame, own.shape, usual, params, few=len(frames) <= FEW)
        cloud = None if "NON_SIDEREAL" in tags_of(frame.header) else _by_light(frame, light, params)
        if (both := _harder(verdict, cloud)) is not None:
            before = next((v.weight for v in frame.verdicts if v.frame == both.frame), 1.0)
            out.append(replace(both, weight=both.weight * (before or 1.0)))
    return out


def _pairs(frame: Frame) -> float:
    from pipeline.algorithms import meanstar

    t = frame.catalog
    if t is None:
        return 0.0
    t = t[:MOST_STARS]
    return meanstar.repeated(*(t[name].astype(float) for name in ("X_IMAGE", "Y_IMAGE", "FLUX_AUTO")))


def _left_out(frame: Frame, reason: str, figure: float, most: float, unit: str = "") -> Verdict:
    return Verdict(name_of(frame), LEFT_OUT, USED, reason, float(figure), float(most), unit, 0.0)


def _by_shape(
    frame: Frame, shape: Shape, usual: Usual, params: JudgeImagesParams, *, few: bool
) -> Verdict | None:
    """Double, elongated or blurred. With few frames the evidence must be strong for one to be left out."""
    weak = WEAK if few else 1.0
    second = params.second_peak + usual.second
    if shape.second > second:
        return _left_out(frame, "double: a second image of each star", shape.second, second, "of the first")
    elongation = math.hypot(shape.e1 - usual.e1, shape.e2 - usual.e2)
    most = max(params.elongated, 4 * shape.error)
    ratio = shape.fwhm / usual.fwhm
    if ratio > 1 + weak * (params.too_blurred - 1) and elongation < ROUND:
        return _left_out(frame, "blurred", ratio, params.too_blurred, "times the others' FWHM")
    if elongation > weak * most:
        reason = f"trailed: ellipticity {shape.ellipticity:.2f} along {shape.angle:.0f} deg from +x"
        return _left_out(frame, reason, elongation, weak * most, "beyond the others'")
    if elongation > most:
        return Verdict(
            name_of(frame), WEIGHTED, USED, "elongated", elongation, most, "beyond the others'", 0.5
        )
    if ratio > params.blurred:
        return Verdict(
            name_of(frame),
            WEIGHTED,
            USED,
            "blurred",
            ratio,
            params.blurred,
            "times the others' FWHM",
            ratio**-2,
        )
    return None


def _by_light(frame: Frame, transparency: tuple[float, float], params: JudgeImagesParams) -> Verdict | None:
    """In cloud: the counts are scaled, the frame counts for less by the noise that this brings."""
    light, error = transparency
    if not light < params.thin_cloud or (math.isfinite(error) and 1 - light < 3 * error):
        return None
    if not math.isfinite(error) or light**2 < params.least_weight:
        most = math.sqrt(params.least_weight)
        return _left_out(frame, f"cloud of {-2.5 * math.log10(light):.2f} mag", light, most, "of the light")
    reason = f"cloud of {-2.5 * math.log10(light):.2f} +- {1.0857 * error / light:.2f} mag"
    return Verdict(name_of(frame), SCALED, USED, reason, light, params.thin_cloud, "of the light", light**2)


def _harder(one: Verdict | None, other: Verdict | None) -> Verdict | None:
    """Both in one: what leaves the frame out, else scaled and weighted."""
    found = [v for v in (one, other) if v is not None]
    if len(found) < 2 or any(v.use == LEFT_OUT for v in found):
        return next((v for v in found if v.use == LEFT_OUT), found[0] if found else None)
    scaled = next(v for v in found if v.use == SCALED)
    rest = next(v for v in found if v is not scaled)
    return replace(scaled, reason=f"{scaled.reason}, {rest.reason}", weight=scaled.weight * rest.weight)


def _settled(verdicts: list[Verdict], number: int) -> list[Verdict]:
    """Where half of the frames or more would be left out, what is odd is the night: all are used.

    They are weighted still, by what is known of their light, and the warning stands.
    """
    out = [v for v in verdicts if v.use == LEFT_OUT]
    if 2 * len(out) < number:
        return verdicts
    kept = []
    for verdict in verdicts:
        if verdict.use == LEFT_OUT:
            cloud = verdict.unit == "of the light" and verdict.figure > 0
            weight = max(verdict.figure**2, 1e-4) if cloud else 1.0
            use = SCALED if cloud else USED
            verdict = replace(verdict, use=use, weight=weight, reason=f"{verdict.reason}; so are most frames")
        kept.append(verdict)
    return kept
