"""The figures of a stack that say how deep it is: of the frames that enter it, and of what came out.

    measures = of_frames(frames)          # before stackFrames
    measures |= of_stack(stack, measures) # of the finished image

Both are {name: [value, error or None, unit]}, kept in the ledger and in the product's table MEASURES.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from daemon.judgement.depth import DIAMETER, Known, Stack, depth
from daemon.work.mastermeasures import Measures
from pipeline.frame import NON_LINEAR, Frame, Frames
from pipeline.headers.values import number
from pipeline.steps.photometry import ZERO_POINT_STABILITY, MeasureQualityParams, nominal_zero_point
from pipeline.steps.stack import weights_of

if TYPE_CHECKING:
    from pipeline.algorithms.emptyapertures import Scatter

ELECTRON, MAG = "electron", "mag"
# Of a sum by VAR: docs/science.md has it right to 1 % on simulated nights; more is for a real detector.
VAR_ERROR = 0.05
NEAR = 2.0  # arcsec from the place in the header within which the target is
WINGS = 0.1  # by which the exponent of a fitted profile may be wrong


def of_step(step: str, frames: Frames) -> Measures:
    """`of_frames` of those that enter stackFrames; {} of any other step."""
    return of_frames(frames) if step == "stackFrames" else {}


def of_frames(frames: Frames) -> Measures:
    """Of the aligned frames: the noise of a pixel in one with its sky off, the part that its sky has brought,
    of how many frames that was made, and the light of its stars.

    Means that count as the frames do in the stack, so that frame_noise² / n is the variance of the stack of
    independent ones. {} of a single frame.
    """
    if len(frames) < 2 or any(frame.var is None for frame in frames):
        return {}
    from pipeline.algorithms import depthfigures

    share = np.array(weights_of(frames) or [1.0] * len(frames))
    share = share / share.sum()
    factor = np.array([number(f.header, "SCALEFAC") or 1.0 for f in frames])
    own = np.array([depthfigures.variance(f.var, f.dq != 0) for f in frames if f.var is not None])
    skies = np.array([number(f.header, "SKYVAR") or 0.0 for f in frames]) * factor**2
    many = np.array([number(f.header, "SKYNUM") or 0.0 for f in frames])
    light = np.array([number(f.header, "TRANSP") or 1.0 for f in frames]) * factor
    if not (own > 0).all():
        return {}
    n = len(frames)
    found: Measures = {
        "frame_noise": [math.sqrt(n * float((share**2 * own).sum())), None, ELECTRON],
        "sky_noise": [math.sqrt(n * float((share**2 * skies).sum())), None, ELECTRON],
        "light": [float((share * light).sum()), None, ""],
    }
    return found | ({"skies": [float(many.mean()), None, ""]} if (many > 0).all() else {})


def of_stack(stack: Frame, frames: Measures) -> Measures:
    """Of the finished image: noise of a pixel by VAR at full depth and in empty circles of 1.5 FWHM, which
    part of a star's light such a circle has, the zero point at this airmass, the light of the target, and
    the depth. frames : as `of_frames` has it; {} without stars, variance or electrons.
    """
    known = _circle(stack)
    if known is None or stack.var is None or stack.unit != ELECTRON:
        return {}
    from pipeline.algorithms import depthfigures
    from pipeline.algorithms.emptyapertures import scatter

    radius, inside = known
    good = depthfigures.full_depth(_bad(stack), stack.coverage)
    pixel = depthfigures.noise(stack.var, good)
    empty = good if stack.objmask is None else good & ~stack.objmask
    found = scatter(stack.sci, stack.var, empty, radius)
    noise = noise_of(found, pixel * math.sqrt(math.pi) * radius)
    if not (math.isfinite(pixel) and noise.value > 0):
        return {}
    said: Measures = {
        "stack_noise": [pixel, None, ELECTRON],
        "circle_noise": [*noise, ELECTRON],
        "circle_light": [*inside, ""],
    }
    zero = _zero_point(stack)
    if zero is not None:
        said["zero_here"] = [*zero, MAG]
        said |= _depth(stack, frames | said)
    return said | _target(stack, radius)


def noise_of(found: Scatter, expected: float) -> Known:
    """The scatter of empty circles and what VAR says of them, each as good as it is known.

    In a crowded field few circles are empty: then VAR counts more.
    """
    if not math.isfinite(found.noise) or not found.expected > 0:
        return Known(expected, VAR_ERROR * expected)
    ratio, error = found.noise / found.expected, found.error / found.expected
    weights = 1 / error**2, 1 / VAR_ERROR**2
    factor = (ratio * weights[0] + weights[1]) / sum(weights)
    return Known(expected * factor, expected / math.sqrt(sum(weights)))


def _circle(stack: Frame) -> tuple[float, Known] | None:
    """(radius in pixels, the part of a star's light within it), by the stars; None without one."""
    from pipeline.algorithms.photometry import moffat_inside

    if stack.catalog is None:
        return None
    stars = stack.catalog[(stack.catalog["STAR"] == 1) & (stack.catalog["BETA_FIT"] > 1)]
    if not stars.size:
        return None
    beta = float(np.median(stars["BETA_FIT"]))
    least, inside, most = (
        float(moffat_inside(DIAMETER / 2, 1.0, b)) for b in (beta / (1 + WINGS), beta, beta * (1 + WINGS))
    )
    return DIAMETER / 2 * float(np.median(stars["FWHM_FIT"])), Known(inside, (most - least) / 2)


def _zero_point(stack: Frame) -> Known | None:
    """The magnitude of 1 e-/s at the airmass of the stack: of a standard, else Gemini's nominal one."""
    value, error = number(stack.header, "MAGZPT"), number(stack.header, "MAGZERR") or 0.0
    if value is None:
        value, error = nominal_zero_point(stack), ZERO_POINT_STABILITY
    if value is None:
        return None
    extinction = number(stack.header, "KEXT")
    if extinction is None:
        extinction = MeasureQualityParams().extinction
    return Known(value - extinction * ((stack.descriptors.airmass or 1.0) - 1), error)


def _depth(stack: Frame, measures: Measures) -> Measures:
    fwhm = number(stack.header, "MEANFWHM")
    seconds = stack.descriptors.exposure_time
    if not fwhm or not seconds:
        return {}
    circle, inside, zero = (Known(*measures[n][:2]) for n in ("circle_noise", "circle_light", "zero_here"))
    deep = depth(
        Stack(
            int(number(stack.header, "NCOMBINE") or 1),
            seconds,
            zero,
            Known(fwhm, number(stack.header, "MFWHMERR") or 0.0),
            circle,
            inside,
            light=measures["light"][0] if "light" in measures else 1.0,
        )
    )
    return {"depth": [deep.value, deep.error, MAG]}


def _target(stack: Frame, radius: float) -> Measures:
    """The light of the brightest source near the target's place, in the circle; {} where there is none."""
    from pipeline.algorithms import depthfigures

    facts, wcs, sources = stack.descriptors, stack.tangent, stack.catalog
    if wcs is None or sources is None or facts.target_ra is None or facts.target_dec is None:
        return {}
    x, y = wcs.to_pixel(facts.target_ra, facts.target_dec)
    away = np.hypot(sources["X_IMAGE"] - 1 - x, sources["Y_IMAGE"] - 1 - y) * wcs.pixel_scale
    near = sources[away < NEAR]
    if not near.size or stack.var is None:
        return {}
    found = near[np.argmax(near["FLUX_AUTO"])]
    bad = _bad(stack)
    hidden = bad if stack.objmask is None else bad | stack.objmask
    place = float(found["X_IMAGE"]) - 1, float(found["Y_IMAGE"]) - 1
    light = depthfigures.light(stack.sci, stack.var, bad, hidden, *place, radius)
    return {"target_light": [*light, ELECTRON]} if light else {}


def _bad(stack: Frame) -> Any:
    """(ny, nx) True on pixels that are no good; what is not linear is good enough."""
    return (stack.dq & ~NON_LINEAR) != 0
