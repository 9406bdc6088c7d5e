"""judgeImages: the same stars in every registered frame, and what they say of each frame.

How much light came through, how wide, how round and how single the stars are; then each frame is used as it
is, scaled to the clear ones, counted for less, or left out. Everything is relative to the other frames of
the sequence: what all of them share is the night, and no fault of a frame.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from pipeline.frame import Frame, Frames
from pipeline.headers.values import number
from pipeline.params import bounded
from pipeline.primitive import Calibrations, per_frame, primitive
from pipeline.steps.frameshifts import star_width
from pipeline.steps.judge import dealt, told
from pipeline.steps.limits import limit
from pipeline.steps.members import name_of
from pipeline.steps.reference import companions, reference_of
from pipeline.steps.starlight import Seen, compared
from pipeline.verdict import LEFT_OUT, SCALED, USED, WEIGHTED, Verdict

if TYPE_CHECKING:
    from pipeline.algorithms.meanstar import Shape

NARROW = 4.0  # pixels of FWHM, below which ellipticity counts for less
FEW_STARS = 5  # fewer than these may lie on a galaxy, or be blends that the seeing changes
LOOK_STARS, LOOK_ROUND = 3, 0.25  # stars of a first look; Gemini comments on ellipticities from 0.1 on
FEW = 4  # frames or fewer: nothing is left out on weak evidence
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
    misplaced: float = limit("misplaced", gt=0)
    unfound: float = limit("unfound", ge=0, lt=1)


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

    seen = compared(frames, reference_of(frames))
    brightest = max(range(len(frames)), key=lambda k: _excess(seen[k], params))
    if _excess(seen[brightest], params) > CLEARER:  # the reference is in cloud
        seen = compared(frames, frames[brightest])
    transparency = meanstar.of_the_clear([found.light for found in seen])
    verdicts = _verdicts(frames, seen, transparency, params)
    # An aperture cannot measure the light of a spoilt image: no value is given.
    spoilt = {v.frame for v in verdicts if v.use == LEFT_OUT and v.unit != "of the light"}
    transparency = [
        (math.nan, math.nan) if name_of(frame) in spoilt else light
        for frame, light in zip(frames, transparency, strict=True)
    ]
    frames = [_measured(*found) for found in zip(frames, seen, transparency, strict=True)]
    verdicts = _settled(verdicts, len(frames))
    frames = dealt(frames, verdicts, params.accept, skies=False)
    own = {verdict.frame: verdict for verdict in verdicts if not _is_accepted(verdict, frames)}
    return [_scaled(frame, own.get(name_of(frame))) for frame in frames]


def _excess(seen: Seen, params: JudgeImagesParams) -> float:
    """Magnitudes by which a frame is surely brighter than the one it is compared with; 0 for an odd image."""
    own = _unlike(seen)
    odd = own is None or own.second > params.second_peak or math.hypot(own.e1, own.e2) > ROUND
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


class Unlike(NamedTuple):
    """How the stars of a frame differ from the very same stars in the reference: the FWHM as a ratio."""

    fwhm: float
    e1: float
    e2: float
    second: float
    error: float  # of e1 and e2


def _unlike(seen: Seen) -> Unlike | None:
    own, there = seen.shape, seen.beside
    if own is None or there is None:
        return None
    return Unlike(
        own.fwhm / there.fwhm,
        own.e1 - there.e1,
        own.e2 - there.e2,
        own.second - there.second,
        own.error if own is there else math.hypot(own.error, there.error),
    )


def _verdicts(
    frames: Frames,
    seen: Sequence[Seen],
    transparency: Sequence[tuple[float, float]],
    params: JudgeImagesParams,
) -> list[Verdict]:
    """One verdict for each frame that is unlike the others."""
    found = [_unlike(own) for own in seen]
    known = [own for own in found if own is not None]
    usual = Unlike(*np.median(known, axis=0).tolist()) if known else None
    pairs = companions(frames)
    most_pairs = params.repeated + float(np.median(pairs))
    by_sources = sum(str(f.header.get("REGMETH")) in ("sources", "reference") for f in frames)
    out = []
    width = star_width(frames, frames[0])
    for frame, own, unlike, light, double in zip(frames, seen, found, transparency, pairs, strict=True):
        verdict = None
        off = number(frame.header, "REGERR") or 0.0 if frame.header.get("REGMETH") == "offsets" else 0.0
        if off > params.misplaced * width:
            reason = "its place is not known: its sources are not where its header has them"
            verdict = _left_out(frame, reason, off, params.misplaced * width, "pixels")
        elif double > most_pairs:
            reason = "double: its sources repeat at one distance"
            verdict = _left_out(frame, reason, double, most_pairs, "of the sources")
        elif own.expected >= 5 and own.shape is None and own.light is None and 2 * by_sources > len(frames):
            verdict = _left_out(
                frame, "not one of its stars was found", 0, params.unfound * own.expected, "stars"
            )
        if verdict is None and own.shape is not None and unlike is not None and usual is not None:
            verdict = _by_shape(frame, own.shape, unlike, usual, params, few=len(frames) <= FEW)
        cloud = _by_light(frame, light, params)
        if cloud is not None and "NON_SIDEREAL" in frame.tags:
            reason = (
                "its target has another light than in the others: cloud, or the target itself; not scaled"
            )
            cloud = replace(cloud, use=USED, weight=1.0, reason=reason)
        if (both := _harder(verdict, cloud)) is not None:
            before = next((v.weight for v in frame.verdicts if v.frame == both.frame), 1.0)
            out.append(replace(both, weight=both.weight * (before or 1.0)))
    return out + _untold(frames, transparency, out)


def _untold(
    frames: Frames, transparency: Sequence[tuple[float, float]], verdicts: Sequence[Verdict]
) -> list[Verdict]:
    """Where others are scaled for cloud: frames whose light cannot be measured, and are as they are."""
    if not any(v.use == SCALED for v in verdicts):
        return []
    judged = {v.frame for v in verdicts}
    reason = "others are in cloud, and the light of its own stars is not known: its counts are as they are"
    return [
        Verdict(name_of(frame), reason=reason)
        for frame, (light, _) in zip(frames, transparency, strict=True)
        if name_of(frame) not in judged and not math.isfinite(light)
    ]


def _left_out(frame: Frame, reason: str, figure: float, most: float, unit: str = "") -> Verdict:
    return Verdict(name_of(frame), LEFT_OUT, USED, reason, float(figure), float(most), unit, 0.0)


def _by_shape(
    frame: Frame, shape: Shape, unlike: Unlike, usual: Unlike, params: JudgeImagesParams, *, few: bool
) -> Verdict | None:
    """Double, elongated or blurred. With few frames or stars the evidence must be strong for one to be left
    out: a cosmic ray lengthens one star, and is a second image of it."""
    weak = WEAK if few or shape.number < 3 else 1.0
    one = WEAK if shape.number < FEW_STARS else 1.0
    second = one * params.second_peak + usual.second + shape.second - unlike.second
    if shape.second > second:
        return _left_out(frame, "double: a second image of each star", shape.second, second, "of the first")
    elongation = math.hypot(unlike.e1 - usual.e1, unlike.e2 - usual.e2)
    # The same motion lengthens a narrow star more, and costs as little.
    motion = params.elongated * max(1.0, NARROW / shape.fwhm)
    surely = max(5 * unlike.error, ROUND if shape.number < 3 else 0.0)
    most, too_much = max(one * motion, surely), max(max(one, weak) * motion, surely)
    ratio = unlike.fwhm / usual.fwhm
    if ratio > 1 + weak * (params.too_blurred - 1) and elongation < ROUND:
        return _left_out(frame, "blurred", ratio, params.too_blurred, "times the others' FWHM")
    if elongation > too_much:
        reason = f"trailed: ellipticity {shape.ellipticity:.2f} along {shape.angle:.0f} deg from +x"
        return _left_out(frame, reason, elongation, too_much, "beyond the others'")
    if elongation > most:
        return Verdict(
            name_of(frame), WEIGHTED, USED, "elongated", elongation, most, "beyond the others'", 0.5
        )
    blurred = params.blurred + unlike.error
    if ratio > blurred:
        return Verdict(
            name_of(frame),
            WEIGHTED,
            USED,
            "blurred",
            ratio,
            blurred,
            "times the others' FWHM",
            ratio**-2,
        )
    return None


def _by_light(frame: Frame, transparency: tuple[float, float], params: JudgeImagesParams) -> Verdict | None:
    """In cloud: the counts are scaled, the frame counts for less by the noise that this brings."""
    light, error = transparency
    measured = math.isfinite(error)  # else it is an upper limit
    most = 1 / params.thin_cloud
    if measured and light > most and light - 1 > 3 * error:
        reason = f"brighter than the frames taken for clear, by {2.5 * math.log10(light):.2f} mag; not scaled"
        return Verdict(name_of(frame), USED, USED, reason, light, most, "of the light")
    if not light < params.thin_cloud or (measured and 1 - light < 3 * error):
        return None
    if not measured and light**2 >= params.least_weight:
        return None
    if light**2 < params.least_weight:
        most = math.sqrt(params.least_weight)
        return _left_out(frame, f"cloud of {-2.5 * math.log10(light):.2f} mag", light, most, "of the light")
    reason = f"cloud of {-2.5 * math.log10(light):.2f} +- {1.0857 * error / light:.2f} mag"
    return Verdict(name_of(frame), SCALED, USED, reason, light, params.thin_cloud, "of the light", light**2)


def _harder(one: Verdict | None, other: Verdict | None) -> Verdict | None:
    """Two verdicts as one: the one that leaves the frame out, else scaled and weighted."""
    found = [v for v in (one, other) if v is not None]
    found = [v for v in found if v.use != USED] or found
    if len(found) < 2 or any(v.use == LEFT_OUT for v in found):
        return next((v for v in found if v.use == LEFT_OUT), found[0] if found else None)
    scaled = next(v for v in found if v.use == SCALED)
    rest = next(v for v in found if v is not scaled)
    return replace(scaled, reason=f"{scaled.reason}, {rest.reason}", weight=scaled.weight * rest.weight)


def _settled(verdicts: list[Verdict], number: int) -> list[Verdict]:
    """Where half of the frames or more would be left out, the whole night is odd: all are used.

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
            verdict = replace(
                verdict, use=use, weight=weight, reason=f"{verdict.reason}; most frames are odd"
            )
        kept.append(verdict)
    return kept


@per_frame("judgeLook", JudgeImagesParams)
def judge_look(frame: Frame, params: JudgeImagesParams, cals: Calibrations) -> Frame:
    """Say of a first look that its stars are trailed or double, where three of them or more are.

    There are no other frames to compare it with, and most nights' stars are round to LOOK_ROUND.
    """
    t = frame.catalog
    if not params.judge or t is None or "VERDICT" in frame.header:
        return frame
    with np.errstate(all="ignore"):
        sure = (t["FWHM_FIT"] > 0) & (t["NIMAFLAGS_ISO"] == 0) & (t["FLUX_AUTO"] > 20 * t["FLUXERR_AUTO"])
    lengths = t["ELLIP_FIT"][sure].astype(float)
    double = float(companions([frame])[0])
    if double > params.repeated:
        reason = "double: its sources repeat at one distance"
        return told(frame, _left_out(frame, reason, double, params.repeated, "of the sources"))
    if lengths.size >= LOOK_STARS and float(np.median(lengths)) > LOOK_ROUND:
        reason = "trailed: its stars are elongated"
        return told(frame, _left_out(frame, reason, float(np.median(lengths)), LOOK_ROUND, "ellipticity"))
    return frame
