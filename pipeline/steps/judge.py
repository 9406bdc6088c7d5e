"""judgeFrames: every frame is looked at before it is used, as an object and as a sky for others.

What is odd becomes a `Verdict`, a note, and a row of FRAMES. With few frames only what is certain (no light,
saturated all over, never read out) leaves one out; a group in which most are odd is used as it is, with a
warning.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from pipeline.errors import NotEnoughFrames
from pipeline.frame import SATURATED, Frame, Frames
from pipeline.headers.values import number
from pipeline.names import is_named
from pipeline.parallel import run_all
from pipeline.params import bounded
from pipeline.primitive import Calibrations, note, primitive
from pipeline.steps.judgeclouds import clouded, star_light
from pipeline.steps.limits import limit
from pipeline.steps.members import NAMED, member_cards, name_of
from pipeline.steps.quality import constant
from pipeline.steps.twice import given_twice
from pipeline.verdict import LEFT_OUT, USED, WEIGHTED, Verdict

if TYPE_CHECKING:
    from pipeline.algorithms.figures import Figures

# Bits of pixels that do not count for a level: all but non-linear, saturated, and remembered light.
UNUSABLE = 0xFFFF & ~(2 | 4 | 8)


@dataclass(frozen=True)
class JudgeFramesParams:
    judge: bool = bounded(True, dragons=False, doc="look at every frame before it is used")
    accept: tuple[str, ...] = bounded((), doc="frames that are used whatever is found of them, by name")
    no_light: float = limit("no_light", ge=0, lt=1)
    saturated: float = limit("saturated", gt=0, le=1)
    constant: float = limit("constant", ge=0, lt=1)
    noisy: float = limit("noisy", gt=1)
    bright_sky: float = limit("bright_sky", gt=1)
    sky_cloud: float = limit("sky_cloud", ge=0, lt=1)
    dark_level: float = limit("dark_level")
    lamp_level: float = limit("lamp_level")
    lamp_off_level: float = limit("lamp_off_level")


@primitive("judgeFrames", JudgeFramesParams)
def judge_frames(frames: Frames, params: JudgeFramesParams, cals: Calibrations) -> Frames:
    """Leave out frames without light, saturated all over or never read out, and calibration frames whose
    level is not that of the others, and copies of others; bar frames from being a sky for others; each with a
    note.

    Levels and noise are compared within the darks, lamp-on, lamp-off and other frames given. At least one
    frame is left; raises NotEnoughFrames where no pixel of any is good. `accept` names frames that a person
    wants used all the same.
    """
    if not params.judge:
        return frames
    from pipeline.algorithms.figures import figures

    found = run_all(lambda f: figures(f.sci, f.var, f.dq, bad=UNUSABLE, saturated=int(SATURATED)), frames)
    kinds: dict[str, list[int]] = {}
    for place, frame in enumerate(frames):
        kinds.setdefault(_kind(frame), []).append(place)
    verdicts: list[Verdict] = []
    lamp = _lamp_light(kinds, found)
    for kind, places in kinds.items():
        members, seen = [frames[k] for k in places], [found[k] for k in places]
        own = _never_read(members, seen, params)
        # compared with frames that are not odd already
        rest = [k for k in range(len(members)) if k not in own]
        fit, looks = [members[k] for k in rest], [seen[k] for k in rest]
        if fit and kind == "image":
            own |= {rest[k]: v for k, v in _images(fit, looks, params).items()}
            own = clouded(members, seen, params.sky_cloud, besides=own) | own
        elif kind != "image":
            own |= _levels(kind, members, seen, own, params, lamp)
        objects = [k for k, f in enumerate(members) if not f.roles or "object" in f.roles]
        if objects and not any(math.isfinite(seen[k].level) for k in objects):
            raise NotEnoughFrames(f"no pixel of {len(objects)} {kind} frames has a value")
        if objects and all(k in own and own[k].use == LEFT_OUT for k in objects):
            # Nothing would be left: all are used, and the notes say why the product is as it is.
            own |= {k: _in_spite(own[k]) for k in objects}
        verdicts += own.values()
    copies, notes = given_twice(frames)
    left = dealt(frames, [*verdicts, *copies], params.accept)
    for text in notes:
        left = note(left, text)
    return left


def _in_spite(verdict: Verdict) -> Verdict:
    return replace(verdict, use=USED, sky=USED, weight=1.0, reason=f"{verdict.reason}; so are all")


def _kind(frame: Frame) -> str:
    tags = frame.tags
    if "DARK" in tags:
        return "dark"
    return "lamp-on" if "LAMPON" in tags else "lamp-off" if "LAMPOFF" in tags else "image"


def dealt(
    frames: Frames, verdicts: Iterable[Verdict], accept: Sequence[str] = (), *, skies: bool = True
) -> Frames:
    """The frames that are left, with the roles that are left to them, all with the verdicts and their notes.

    accept : names (or parts of them) of frames that a person wants used whatever was found
    skies : a frame that is left out as an object may stay as a sky for others
    """
    own = {verdict.frame: verdict for verdict in verdicts}
    own = {name: _accepted(verdict) if is_named(name, accept) else verdict for name, verdict in own.items()}
    if not own:
        return frames
    fit = [f for f in frames if "sky" in f.roles and own.get(name_of(f), _FINE).sky == USED]
    if any("sky" in f.roles for f in frames) and not fit:
        own = {k: v if v.use == LEFT_OUT else replace(v, sky=USED) for k, v in own.items()}
    found = {name_of(frame): frame for frame in frames}
    own = {name: replace(v, cards=member_cards(found[name])) for name, v in own.items()}
    left = [kept for frame in frames if (kept := _kept(frame, own.get(name_of(frame), _FINE), skies))]
    left = _named_for_the_first(frames, left)
    left = [frame.evolve(verdicts=tuple(own.values())) for frame in left]
    for verdict in own.values():
        left = note(left, verdict.text)
    return left


def _named_for_the_first(frames: Frames, left: Frames) -> Frames:
    """The frames that are left, with the name of the first of their kind where that one is gone.

    The product keeps that name, so that it does not change with a verdict.
    """
    first: dict[str, Frame] = {}
    for frame in frames:
        if not frame.roles or "object" in frame.roles:
            first.setdefault(_kind(frame), frame)
    here = {frame.name for frame in left if not frame.roles or "object" in frame.roles}
    gone = {kind: frame.name for kind, frame in first.items() if frame.name not in here}
    cards = {
        kind: {NAMED: (name, "First of the frames, which names the product")} for kind, name in gone.items()
    }
    return [
        f.evolve(cards=cards[kind]) if (kind := _kind(f)) in cards and NAMED not in f.header else f
        for f in left
    ]


_FINE = Verdict("")


def _accepted(verdict: Verdict) -> Verdict:
    return replace(verdict, use=USED, sky=USED, weight=1.0, person=True)


def _kept(frame: Frame, verdict: Verdict, skies: bool) -> Frame | None:
    """The frame with what its verdict leaves of its roles; None where none is left."""
    gone = {role for role, use in (("object", verdict.use), ("sky", verdict.sky)) if use == LEFT_OUT}
    if not gone:
        return frame
    if not frame.roles or not skies:  # all frames are both, or, of a calibration, neither
        return None if verdict.use == LEFT_OUT else frame
    roles = frame.roles - gone
    return frame.evolve(roles=roles) if roles else None


def _lamp_light(kinds: Mapping[str, list[int]], found: Sequence[Figures]) -> float:
    """Level of the lamp: of the lamp-on frames over that of the lamp-off; nan without either."""
    levels = {
        kind: np.median([found[k].level for k in kinds[kind]])
        for kind in ("lamp-on", "lamp-off")
        if kind in kinds
    }
    return float(levels["lamp-on"] - levels.get("lamp-off", 0.0)) if "lamp-on" in levels else math.nan


Verdicts = dict[int, Verdict]


def _never_read(members: Frames, seen: Sequence[Figures], params: JudgeFramesParams) -> Verdicts:
    """Frames that are the same number all over, or hardly any pixel of which is good."""
    usual = float(np.nanmedian([s.noise for s in seen])) if any(np.isfinite(s.noise) for s in seen) else 0.0
    out: Verdicts = {}
    for k, (frame, own) in enumerate(zip(members, seen, strict=True)):
        if not math.isfinite(own.level):
            out[k] = _out(frame, "no good pixel")
        elif own.saturated > params.saturated:
            out[k] = _out(frame, "saturated all over", own.saturated, params.saturated, "of the pixels")
        elif _kind(frame) == "image" and own.bent > params.saturated:
            # No step takes such a pixel for sky, and its counts are not those of the light.
            reason = "beyond the linear range all over"
            out[k] = _out(frame, reason, own.bent, params.saturated, "of the pixels")
        else:
            wanted = own.expected if math.isfinite(own.expected) else usual
            if own.noise < params.constant * wanted or constant(frame) is not None:
                out[k] = _out(
                    frame, "no noise: never read out", own.noise, params.constant * wanted, frame.unit
                )
    return out


def _images(members: Frames, seen: Sequence[Figures], params: JudgeFramesParams) -> Verdicts:
    """What is odd of frames of the sky."""
    from pipeline.algorithms import oddness

    levels = np.array([s.level for s in seen])
    noises = np.array([s.noise for s in seen])
    read = min(_without_light(f, s) for f, s in zip(members, seen, strict=True))
    subtracted = all("DARKCORR" in f.header for f in members)
    lights = oddness.light(levels, noises, read, dark_subtracted=subtracted)
    usual = oddness.usual_light(levels, noises, read)
    excess = np.array([s.noise / s.expected if s.expected > 0 else np.nan for s in seen])
    calm = oddness.usual(excess)[0]
    out: Verdicts = {}
    for k, frame in enumerate(members):
        if lights[k] < params.no_light:
            out[k] = _out(frame, "no light: closed shutter?", levels[k], params.no_light * usual, frame.unit)
        elif levels[k] > params.bright_sky * usual > 0:
            others = oddness.usual(noises[~(levels > params.bright_sky * usual)])[0]
            weight = min(1.0, float(others / max(noises[k], 1.0)) ** 2)
            out[k] = Verdict(
                name_of(frame), WEIGHTED, LEFT_OUT, "a sky far brighter than that of the others: twilight?",
                float(levels[k]), params.bright_sky * usual, frame.unit, weight,
            )  # fmt: skip
        elif excess[k] > params.noisy * max(calm, 1.0):
            out[k] = Verdict(
                name_of(frame), WEIGHTED, LEFT_OUT, "more noise than its light explains",
                float(excess[k]), params.noisy * max(calm, 1.0), "of the noise expected",
                float((calm / excess[k]) ** 2),
            )  # fmt: skip
    return out


def _without_light(frame: Frame, seen: Figures) -> float:
    """Noise of a pixel without light: of the read-out, and of the dark that was subtracted, which has much
    where it was made of few. At most so much: VAR has more of the light in it than the level tells."""
    read = number(frame.header, "RDNOISE") or 0.0
    if "DARKCORR" not in frame.header or not math.isfinite(seen.expected) or not math.isfinite(seen.level):
        return read
    return max(read, math.sqrt(max(seen.expected**2 - max(seen.level, 0.0), 0.0)))


def _levels(
    kind: str, members: Frames, seen: Sequence[Figures], odd: Verdicts, params: JudgeFramesParams, lamp: float
) -> Verdicts:
    """Darks, lamp-on or lamp-off frames whose level is not that of the others; `odd` ones are not compared
    with.

    Of two, or where all differ, nothing tells which are wrong: all are used, with a note.
    """
    from pipeline.algorithms import oddness

    fit = [k for k in range(len(members)) if k not in odd]
    levels = np.array([seen[k].level for k in fit])
    usual = oddness.usual(levels)[0]
    if kind == "dark":
        allowed = 5.0 / (number(members[0].header, "GAIN") or 1.0) + params.dark_level * abs(usual)
    elif kind == "lamp-on":
        allowed = params.lamp_level * abs(usual)
    else:
        allowed = params.lamp_off_level * lamp if lamp > 0 else params.lamp_level * abs(usual)
    # An unlit lamp gives little noise too: a verdict by level says more than "never read".
    unread = {k: seen[k].level - usual for k, v in odd.items() if v.unit != "of the pixels"}
    left = dict(zip(fit, oddness.far_from_usual(levels, allowed), strict=True))
    left |= {k: away if abs(away) > allowed else None for k, away in unread.items()}
    out: Verdicts = {}
    for k, away in left.items():
        if away is not None:
            where = "above" if away > 0 else "below"
            reason = f"{where} the level of the other {kind} frames"
            out[k] = _out(members[k], reason, abs(away), allowed, members[k].unit)
    same = [k for k in fit if k not in out]
    usual = oddness.usual(np.array([seen[k].level for k in same]))[0]
    for k in same:
        if (far := float(abs(seen[k].level - usual))) > allowed:
            reason = f"the levels of the {kind} frames differ, and which are wrong is not clear"
            out[k] = Verdict(name_of(members[k]), USED, USED, reason, far, allowed, members[k].unit)
    return out


def _out(
    frame: Frame, reason: str, figure: float = math.nan, most: float = math.nan, unit: str = ""
) -> Verdict:
    return Verdict(name_of(frame), LEFT_OUT, LEFT_OUT, reason, float(figure), float(most), unit, 0.0)


@primitive("compareWithEarlier", JudgeFramesParams)
def compare_with_earlier(frames: Frames, params: JudgeFramesParams, cals: Calibrations) -> Frames:
    """The last frame, judged against those taken shortly before it; the others end here.

    For first looks: nothing is left out. Sets TRANSP and TRANSERR where three stars are shared, VERDICT and
    VREASON where something is odd, with a note.
    """
    last = frames[-1]
    if not params.judge:
        return [last]
    from pipeline.algorithms.figures import figures

    seen = run_all(lambda f: figures(f.sci, f.var, f.dq, bad=UNUSABLE, saturated=int(SATURATED)), frames)
    place = len(frames) - 1
    odd = _images(frames, seen, params) | _never_read(frames, seen, params)
    verdict = odd.get(place)
    # One without light has no stars to compare with, but warm pixels that look like some.
    fit = [k for k in range(len(frames)) if k not in odd or odd[k].use != LEFT_OUT]
    if len(fit) > 1 and fit[-1] == place:
        light, error = star_light([frames[k] for k in fit], [seen[k] for k in fit])[1][-1]
        if math.isfinite(light) and math.isfinite(error):
            cards = {
                "TRANSP": (round(light, 4), "Light of its stars, of that in earlier frames"),
                "TRANSERR": (round(error, 4), "Error of TRANSP"),
            }
            last = last.evolve(cards=cards)
            if light < params.sky_cloud and 1 - light > 3 * error:
                reason = "cloud or blur took light from its stars"
                verdict = Verdict(
                    name_of(last), USED, LEFT_OUT, reason, light, params.sky_cloud, "of the light"
                )
    return [last if verdict is None else told(last, verdict)]


def told(frame: Frame, verdict: Verdict) -> Frame:
    """A first look that says what the pipeline would do with the frame."""
    cards = {
        "VERDICT": (verdict.use, "What the pipeline would do with this frame"),
        "VREASON": (verdict.reason[:60], "Why"),
    }
    return frame.evolve(cards=cards, note=verdict.text, verdicts=(verdict,))
