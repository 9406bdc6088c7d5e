"""Whether sequences are deep enough, as people ask it.

answer(db, None, goals, now)        # what `nirid enough` shows: a row for each sequence of the night
of_group(db, 7, goals, now)         # the same of one
"""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from daemon.config.options import DepthGoal
from daemon.judgement import depth as of_depth
from daemon.judgement import enough, overheads, sun
from daemon.judgement.depth import MAGNITUDES, Goal, Known, Pace, Reached, Stack
from daemon.judgement.weather import Taken
from daemon.ledger import looks, measures
from daemon.ledger.answers import current_product
from daemon.ledger.measures import FrameRow
from daemon.ledger.store import Reader
from daemon.model.measures import Measure
from daemon.model.names import night_of
from daemon.people import tonight, verdicts
from pipeline.headers.descriptors import Descriptors

Answer = dict[str, Any]
Found = Mapping[str, Measure]

USED = ("fwhm", "fwhm_pixels", "sky", "sky_level", "transparency")  # measures of single frames
NEXT = 2  # frames more, of which it is always told what they gain
NEEDED = ("frames", "fwhm", "circle_noise", "circle_light", "zero_here")


def answer(
    db: Reader, night: str | None, goals: Sequence[DepthGoal], now: float, magnitude: float | None = None
) -> Answer:
    """Plain data: the night, and a row for each of its science sequences. now : seconds since the epoch

    magnitude : of which the signal-to-noise ratio is wanted as well
    """
    named, rows = tonight.sequences(db, night, now)
    groups = [row["group"] for row in rows if row["role"] == "science"]
    return {"night": named, "sequences": [of_group(db, g, goals, now, magnitude) for g in groups]}


def of_group(
    db: Reader, group: int, goals: Sequence[DepthGoal], now: float, magnitude: float | None = None
) -> Answer:
    """Depth, forecast and goal of one sequence; "depth" is None where nothing tells of it."""
    of_it = measures.of_groups(db, [group], USED).get(group)
    if of_it is None:
        return {"group": group, "frames": 0, "depth": None, **_not_measured("no usable frame")}
    facts, frames = of_it
    row: Answer = {
        "group": group,
        "program": facts.program_id or "",
        "object": facts.object or "",
        "filter": facts.filter_pretty,
        "first": frames[0].name,
        "last": frames[-1].name,
        "frames": len(frames),
        "depth": None,
    }
    of, names, found = _stack_of(db, group)
    if missing := [name for name in NEEDED if name not in found]:
        return row | _not_measured(_why_not(of, missing, found))
    stack = _stack(found, facts)
    waiting = sum(frame.name not in names for frame in frames)
    mine = [frame for frame in frames if frame.name in names] or frames
    goal = configured(goals, facts)
    every, seen = overheads.pace(facts, [frame.at for frame in mine], stack.frames)
    pace = Pace(every, _sky_within())
    left = _left(frames[-1], now)
    taken = [_taken(frame, facts) for frame in mine]
    waiting = int(waiting * stack.frames / max(len(mine) - 1, stack.frames))
    row |= _depth(stack, found, taken, pace)
    row |= {
        "stack": {"of": of, "frames": stack.frames, "not_stacked": waiting},
        "pace": {"seconds": round(every, 1), "seen": seen, **asdict(overheads.of(facts))},
        "at": _at(stack, magnitude),
        "goal": asdict(goal) if goal else None,
    }
    wanted = _goal(goal, row["target"])
    if goal and wanted is None:
        return row | _not_measured("no source at the target's place; give the goal a magnitude")
    return row | asdict(enough.judged(stack, taken, wanted, pace, left, waiting))


def latest(
    db: Reader, rows: Sequence[Mapping[str, Any]], goals: Sequence[DepthGoal], now: float
) -> list[str]:
    """Of the latest science sequence among those of a night, in a line; none while nothing is known."""
    groups = [row["group"] for row in rows if row["role"] == "science"]
    row = of_group(db, groups[-1], goals, now) if groups else {"depth": None}
    return [f"group {row['group']}: {in_a_line(row)}"] if row["depth"] else []


def in_words(db: Reader, explained: Mapping[str, Any], goals: Sequence[DepthGoal], now: float) -> list[str]:
    """Of the sequence that `explain` has answered about, a line each; none of calibrations."""
    group = verdicts.sequence_of(explained)
    row = of_group(db, group, goals, now) if group is not None else {"depth": None}
    return lines(row) if row["depth"] else []


def configured(goals: Sequence[DepthGoal], facts: Descriptors) -> DepthGoal | None:
    """The goal of a sequence; of several tables the last that fits. A standard has none."""

    def fits(goal: DepthGoal) -> bool:
        named = _plain(goal.target) in ("", _plain(facts.object or ""))
        same = goal.filter in ("", facts.filter_pretty)
        return named and same and fnmatch.fnmatchcase(facts.program_id or "", goal.program)

    if facts.observation_class == "partnerCal":
        return None
    return next((goal for goal in reversed(goals) if fits(goal)), None)


def _plain(name: str) -> str:
    return "".join(name.upper().split())


def _goal(goal: DepthGoal | None, target: Mapping[str, Any] | None) -> Goal | None:
    """None without a goal, and where the target's own magnitude is needed and not known."""
    if goal is None:
        return None
    if goal.depth is not None:
        return Goal(depth=goal.depth)
    magnitude = goal.magnitude
    if magnitude is None and target:
        magnitude = float(target["magnitude"])
    return None if magnitude is None else Goal(snr=goal.snr, magnitude=magnitude)


def _sky_within() -> float:
    from pipeline.steps.sky import AssociateSkyParams

    return AssociateSkyParams().time


# -- what the ledger has ------------------------------------------------------------------------


def _stack_of(db: Reader, group: int) -> tuple[str, list[str], Found]:
    """("product" or "look", names of its frames, its measures) of the stack that has most frames."""
    product, look = current_product(db, group), looks.newest_stack(db, group)
    inputs = [i["name"] for i in product.spec.get("inputs", [])] if product else []
    if product and (look is None or len(look[1]) <= len(inputs)):
        return "product", inputs, measures.of(db, "product", product.id)
    return ("look", look[1], measures.of(db, "look", look[0])) if look else ("", [], {})


def _why_not(of: str, missing: Sequence[str], found: Found) -> str:
    if not of:
        return "nothing is stacked yet"
    if "fwhm" in missing:
        return "no star in the stack"
    if missing == ["zero_here"]:
        return "no zero point is known in this filter and camera"
    return "an earlier release has made it, which kept no figures of it (nirid requeue)"


def _not_measured(why: str) -> Answer:
    state = enough.Judged("not measured", f"not measured: {why}")
    return asdict(state)


def _stack(found: Found, facts: Descriptors) -> Stack:
    def known(name: str) -> Known:
        return Known(found[name].value, found[name].error or 0.0)

    def value(name: str) -> float | None:
        return found[name].value if name in found else None

    return Stack(
        frames=max(int(found["frames"].value), 1),
        seconds=facts.exposure_time or 1.0,
        zero=known("zero_here"),
        fwhm=known("fwhm"),
        noise=known("circle_noise"),
        inside=known("circle_light"),
        frame_noise=value("frame_noise"),
        sky_noise=value("sky_noise"),
        stack_noise=value("stack_noise"),
        skies=value("skies"),
        light=value("light") or 1.0,
    )


def _taken(frame: FrameRow, facts: Descriptors) -> Taken:
    """facts : of any frame of the group, which agree in what is asked of them"""
    found = frame.measures
    fwhm = found["fwhm"].value if "fwhm" in found else None
    if fwhm is None and "fwhm_pixels" in found and facts.pixel_scale:
        fwhm = found["fwhm_pixels"].value * facts.pixel_scale
    sky = found["sky_level"].value if "sky_level" in found else None
    if sky is None and "sky" in found:
        sky = found["sky"].value * (facts.exposure_time or 0.0)
    light = found["transparency"].value if "transparency" in found else None
    return Taken(frame.at, fwhm, sky, light, facts.read_noise or 0.0)


def _left(last: FrameRow, now: float) -> float:
    """Seconds from now to the dawn of the night in which a frame was taken."""
    dawn = sun.dawn(night_of(last.name, datetime.fromtimestamp(last.at, UTC))).timestamp()
    return dawn - max(now, last.at)


# -- what it says -------------------------------------------------------------------------------


def _depth(stack: Stack, found: Found, taken: Sequence[Taken], pace: Pace) -> Answer:
    now = of_depth.depth(stack)
    return {
        "depth": _reached(now),
        "seeing": found["fwhm"].value,
        "zero_point": {**_pair(stack.zero), "nominal": "zero_point" not in found},
        "target": _target(stack, found),
        "next": [
            {"frames": more, "minutes": round(more * pace.every / 60, 1), **_reached(later),
             "gain": later.value - now.value}
            for more in (NEXT, stack.frames)
            for later in (of_depth.forecast(stack, taken, more, pace),)
        ],
    }  # fmt: skip


def _reached(reached: Reached) -> Answer:
    return {"value": reached.value, "error": reached.error, "own_error": reached.own_error}


def _pair(known: Known) -> Answer:
    return {"value": known.value, "error": known.error}


def _target(stack: Stack, found: Found) -> Answer | None:
    """Signal-to-noise ratio and magnitude of the source at the target's place."""
    light = found.get("target_light")
    if light is None or light.value <= 0:
        return None
    magnitude = of_depth.magnitude_of(stack, light.value, stack.light)
    error = MAGNITUDES * (light.error or 0.0) / light.value
    total = Known(error, MAGNITUDES * stack.inside.error / stack.inside.value)
    snr = of_depth.snr_at(stack, of_depth.depth(stack), magnitude)
    return {
        "magnitude": magnitude,
        "error": (stack.zero.error**2 + sum(e * e for e in total)) ** 0.5,
        "snr": snr,
    }


def _at(stack: Stack, magnitude: float | None) -> Answer | None:
    if magnitude is None:
        return None
    snr = of_depth.snr_at(stack, of_depth.depth(stack), magnitude)
    return {"magnitude": magnitude, "snr": snr}


def in_a_line(row: Mapping[str, Any]) -> str:
    """`2 more frames (3 min); depth 22.31 ± 0.05 mag, goal 22.5`"""
    deep = row["depth"]
    return f"{row['words']}; depth {deep['value']:.2f} ± {deep['error']:.2f} mag{_wanted(row)}"


def _wanted(row: Mapping[str, Any]) -> str:
    goal = row["goal"]
    if not goal:
        return ""
    if goal["depth"] is not None:
        return f", goal {round(goal['depth'], 2):g}"
    at = f"{goal['magnitude']:g} mag" if goal["magnitude"] is not None else "the target"
    return f", goal S/N {goal['snr']:g} at {at}"


def lines(row: Mapping[str, Any]) -> list[str]:
    """One sequence in words: whether it is enough, what more frames would gain, the target."""
    if not row["depth"]:
        return [row["words"]]
    zero = (
        "by the nominal zero point, which knows no cloud" if row["zero_point"]["nominal"] else "by a standard"
    )
    said = [in_a_line(row), f'5 sigma, point source, seeing {row["seeing"]:.2f}", {zero}']
    said += [
        f"{step['frames']} more frames ({enough.span(60 * step['minutes'])}): "
        f"{step['value']:.2f} ± {step['error']:.2f} mag, {step['gain']:+z.2f}"
        for step in row["next"]
    ]
    if target := row["target"]:
        said.append(f"target {target['magnitude']:.2f} ± {target['error']:.2f} mag, S/N {target['snr']:.0f}")
    if at := row["at"]:
        said.append(f"S/N {at['snr']:.1f} at {at['magnitude']:g} mag")
    return said
