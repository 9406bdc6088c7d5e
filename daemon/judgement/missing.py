"""Every calibration that the science and the standards of a night still need.

    needs = missing(sets, night, now, table, past)

What is wanted is Gemini's own plan (NIRI's template of the Observing Tool, NIRI_BP): 10 darks for each
exposure and number of coadds of the science and none for standards, 10 + 10 lamp flats for each camera and
filter that is not thermal, a standard in each filter and camera within the night. What fits what is said by
the rules of `pipeline.association`, by which calibrations are chosen.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from daemon.judgement import lamps, sun
from daemon.judgement.lamps import FLATS, Lamp, Setup
from daemon.judgement.needs import FrameSet, Need, Past, State, agree, alike, key_of, unknown, users_of
from pipeline.association import RULES, CalKind
from pipeline.headers.descriptors import Descriptors
from pipeline.headers.times import exposure_among
from pipeline.levels import HEALING, Breakpoint, Level, in_words, level_at
from pipeline.niri import is_thermal

DARKS = 10
STANDARD_FRAMES = 2  # the fewest that a standard is reduced from
LEAST = 3  # frames of a dark, or of each half of a flat, that a master is made from
PAUSE = 600.0  # s without a frame: it is not being taken any more
DAY = 86400.0  # s
# Read mode that Gemini's template gives a dark: from this exposure on, s of one coadd (NIRI_BP).
TEMPLATE_READ_MODES = ((45.0, "Low Background"), (1.0, "Medium Background"), (0.0, "High Background"))


@dataclass(frozen=True)
class _Night:
    """What is the same for every need."""

    sets: Sequence[FrameSet]
    now: float
    over: bool  # day calibrations: the observing day has ended
    dark: bool  # standards: the night has not ended
    end: float
    dawn: float
    table: Mapping[Setup, Lamp]
    past: Past
    breakpoints: Sequence[Breakpoint]

    def of(self, *what: str) -> list[FrameSet]:
        return [s for s in self.sets if s.what in what and s.frames]


def missing(
    sets: Sequence[FrameSet],
    night: str,
    now: datetime,
    table: Mapping[Setup, Lamp],
    past: Past,
    breakpoints: Sequence[Breakpoint] = (),
) -> list[Need]:
    """Needs of a night, those that are not met first, then by the science frames that would be hurt.

    night : as 20160102; sets : of its frames; table : Gemini's lamps; past : what other nights have
    """
    phase, dawn = sun.phase(now, night), sun.dawn(night)
    end = sun.day_of(night)[1].timestamp()
    here = _Night(
        sets,
        now.timestamp(),
        phase == "finished",
        phase == "night",
        end,
        dawn.timestamp(),
        table,
        past,
        breakpoints,
    )
    found = [*_darks(here), *_flats(here), *_standards(here)]
    rank = {"missing": 0, "stale": 1, "wanted": 2, "being taken": 3, "there": 4, "not needed": 5}
    return sorted(found, key=lambda n: (rank[n.state] > 3, -n.frames, rank[n.state], n.kind, n.key))


# -- darks ---------------------------------------------------------------------------------------------


def _darks(night: _Night) -> list[Need]:
    rule = RULES[CalKind.DARK]
    needs = []
    for sets in alike(rule, night.of("science")):
        facts = sets[0].facts
        right = [s for s in night.of("dark") if agree(rule, facts, s.facts)]
        n = sum(s.frames for s in right)
        best = None if n >= LEAST else _best_known(night, CalKind.DARK, facts)
        state = _state(night, (n,), DARKS, right, best)
        needs.append(
            Need(
                key=key_of("dark", rule, facts),
                kind="dark",
                what=f"{DARKS} darks, {_exposure(facts)}, {_array(facts, with_mode=True)}",
                users=users_of(sets),
                frames=_hurt(sets),
                state=state,
                taken=f"{n} of {DARKS}",
                have=_have(f"{n} tonight", state, best),
                until=night.end,
                how=_read_mode(facts),
                warnings=_unknown(CalKind.DARK, facts),
            )
        )
    standards = night.of("standard")
    if standards:
        needs.append(_none_for("dark", "darks of standards", standards, "Gemini takes none for standards"))
    return needs


def _read_mode(facts: Descriptors) -> str:
    """How they are read, and a word where the template would read them otherwise than the science was."""
    seconds = _seconds(facts)
    usual = next(mode for low, mode in TEMPLATE_READ_MODES if seconds >= low)
    told = f"NIRI dark, read mode {facts.read_mode.lower()} as the science"
    return told if usual == facts.read_mode else f"{told} (Gemini's template would say {usual.lower()})"


# -- flats ---------------------------------------------------------------------------------------------


def _flats(night: _Night) -> list[Need]:
    rule = RULES[CalKind.FLAT]
    needs = []
    for sets in alike(rule, night.of("science", "standard")):
        facts = sets[0].facts
        if is_thermal(facts.filter_name):
            why = "no lamp flat is taken in a thermal filter: the sky makes one"
            needs.append(_none_for("flat", f"flats {_setup(facts)}", sets, why, key_of("flat", rule, facts)))
            continue
        right = [s for s in night.of("flat") if _flat_fits(facts, s)]
        on, off = _best_half_pairs(right)
        best = None if min(on, off) >= LEAST else _best_known(night, CalKind.FLAT, facts)
        state = _state(night, (on, off), FLATS, right, best)
        needs.append(
            Need(
                key=key_of("flat", rule, facts),
                kind="flat",
                what=f"flats {_setup(facts)}, {_array(facts)}",
                users=users_of(sets),
                frames=_hurt(sets),
                state=state,
                taken=f"{on} + {off} of {FLATS} + {FLATS}",
                have=_have(f"{on} open + {off} closed tonight", state, best),
                until=night.end,
                how=_lamp(night, facts),
                warnings=(*_unknown(CalKind.FLAT, facts), *_otherwise(night, facts, right)),
            )
        )
    return needs


def _flat_fits(facts: Descriptors, flats: FrameSet) -> bool:
    return agree(RULES[CalKind.FLAT], facts, flats.facts)


def _best_half_pairs(flats: Sequence[FrameSet]) -> tuple[int, int]:
    """(open, closed) of the most complete set: closed frames go with open ones that agree but for the lamp.

    The name of the lamp tells open frames apart only: of closed ones it may be another lamp's.
    """
    on: dict[tuple[object, ...], dict[str, int]] = {}
    off: dict[tuple[object, ...], int] = {}
    seen: list[float] = []
    for one in flats:
        facts = one.facts
        seconds = exposure_among(seen, facts.exposure_time or 0.0)
        key = (seconds, facts.coadds, facts.read_mode, facts.gcal_filter)
        if one.lamp_on:
            lamp = on.setdefault(key, {})
            name = facts.gcal_lamp_raw or ""
            lamp[name] = lamp.get(name, 0) + one.frames
        else:
            off[key] = off.get(key, 0) + one.frames
    pairs = [(n, off.get(key, 0)) for key, by_lamp in on.items() for n in by_lamp.values()]
    pairs += [(0, n) for n in off.values()]
    return max(pairs, key=lambda pair: (min(*pair, FLATS), sum(pair)), default=(0, 0))


def _lamp(night: _Night, facts: Descriptors) -> str:
    if lamp := night.table.get(lamps.setup_of(facts)):
        return f"NIRI {_setup(facts)}: {lamps.in_words(lamp)}"
    last = night.past.last_flat(facts)
    hint = "and no flat of this kind is known"
    if last is not None:
        hint = f"as the last flat of this kind ({lamps.in_words(lamps.as_taken(last))})"
    return f"lamp recipe of {_setup(facts)} not in our table: {hint}"


def _otherwise(night: _Night, facts: Descriptors, flats: Sequence[FrameSet]) -> tuple[str, ...]:
    """What was taken otherwise than Gemini's table says; never a reason to refuse it."""
    lamp = night.table.get(lamps.setup_of(facts))
    if lamp is None:
        return ()
    said = dict.fromkeys(lamps.differences(lamp, s.facts, lamp_on=s.lamp_on) for s in flats)
    return tuple(f"not as in Gemini's table: tonight's flats have {text}" for text in said if text)


# -- standards -----------------------------------------------------------------------------------------


def _standards(night: _Night) -> list[Need]:
    rule = RULES[CalKind.ZERO_POINT]
    needs = []
    for sets in alike(rule, night.of("science")):
        facts = sets[0].facts
        right = [s for s in night.of("standard") if agree(rule, facts, s.facts)]
        n = sum(s.frames for s in right)
        state: State = "there" if n >= STANDARD_FRAMES else "wanted" if night.dark else "missing"
        if 0 < n < STANDARD_FRAMES and _going_on(night, right):
            state = "being taken"
        needs.append(
            Need(
                key=key_of("standard", rule, facts),
                kind="standard",
                what=f"a standard star in {_setup(facts)}",
                users=users_of(sets),
                frames=_hurt(sets),
                state=state,
                taken=f"{n} of {STANDARD_FRAMES}",
                have="none tonight" if n == 0 else f"{n} frame{'s' if n > 1 else ''} tonight",
                until=night.dawn,
                how=_template_standard(facts),
                warnings=_unknown(CalKind.ZERO_POINT, facts),
            )
        )
    return needs


def _template_standard(facts: Descriptors) -> str:
    exposure = "1 s x 10 coadds" if lamps.camera_of(facts) == "f6" else "5 s x 1 coadd"
    return f"dithered, {exposure} in Gemini's template; shorter for a bright star"


# -- what they share -----------------------------------------------------------------------------------


def _state(
    night: _Night,
    halves: tuple[int, ...],
    plan: int,
    right: Sequence[FrameSet],
    best: Level | None,
) -> State:
    if min(halves) >= plan:
        return "there"
    if any(halves) and _going_on(night, right):
        return "being taken"
    if min(halves) >= LEAST or (best is not None and best.number == 0):
        return "there"
    if not night.over:
        return "wanted"
    if best is None:
        return "missing"
    return "there" if best.number <= HEALING else "stale"


def _going_on(night: _Night, right: Sequence[FrameSet]) -> bool:
    """True while another frame may follow: the last one began less than its exposure and a pause ago."""
    return any(0 <= night.now - s.last < PAUSE + (s.facts.exposure_time or 0.0) for s in right)


def _best_known(night: _Night, kind: CalKind, facts: Descriptors) -> Level | None:
    """The level of the best master of another night."""
    taken = night.past.master(kind, facts)
    if taken is None or facts.ut_datetime is None:
        return None
    ut, limits = datetime.fromtimestamp(taken, UTC), RULES[kind].levels
    return level_at(kind, limits, ut, facts.ut_datetime, night.breakpoints)


def _have(tonight: str, state: State, best: Level | None) -> str:
    if best is None:
        return tonight if state in ("there", "being taken") else f"{tonight}; no other is known"
    age = abs(best.apart).total_seconds() / DAY
    days = f"{age * 24:.0f} h" if age < 2 else f"{age:.0f} days"
    across = f", {best.beyond}" if best.across else ""
    return f"{tonight}; best known: {days} away{across}, {in_words(best.number)}"


def _none_for(kind: str, what: str, sets: Sequence[FrameSet], why: str, key: str = "") -> Need:
    assert kind in ("dark", "flat")
    return Need(
        key=key or f"{kind}:{what}",
        kind="dark" if kind == "dark" else "flat",
        what=what,
        users=users_of(sets),
        frames=_hurt(sets),
        state="not needed",
        taken="",
        have="",
        how=why,
    )


def _hurt(sets: Sequence[FrameSet]) -> int:
    return sum(s.frames for s in sets if s.what == "science")


def _unknown(kind: CalKind, facts: Descriptors) -> tuple[str, ...]:
    names = " and ".join(unknown(RULES[kind], facts)).replace("_", " ")
    return (f"the header does not say the {names}: nothing can match it",) if names else ()


def _seconds(facts: Descriptors) -> float:
    return (facts.exposure_time or 0.0) / max(1, facts.coadds)


def _exposure(facts: Descriptors) -> str:
    known = facts.exposure_time is not None
    return f"{_seconds(facts):.3f} s x {facts.coadds}" if known else "unknown exposure"


def _setup(facts: Descriptors) -> str:
    return f"{lamps.shown(lamps.camera_of(facts))} {facts.filter_pretty}"


def _array(facts: Descriptors, *, with_mode: bool = False) -> str:
    shape = f"{facts.shape[1]} x {facts.shape[0]}" if facts.shape else "unknown array"
    mode = [facts.read_mode.lower()] if with_mode else []
    return ", ".join([*mode, facts.well_depth.lower(), shape])
