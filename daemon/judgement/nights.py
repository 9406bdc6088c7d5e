"""Whether conditions were what was asked for, frame by frame, and since when they were not.

    spells = out_of_spec([(at, "met"), (at, "not met"), ...])
    found = course(frames, asked)          # verdicts on a sequence, since when, in how many frames

A sequence is judged on the median of its frames since the last change, because an observer decides on
sequences; a single bad frame is no reason to stop.
"""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from daemon.model.measures import Measure
from pipeline import conditions
from pipeline.conditions import Asked, State, Verdict, background, cloud, image_quality, water
from pipeline.headers.descriptors import Descriptors

IN_A_ROW, OF_FOUR, TO_END = 3, 3, 2  # frames not met that begin a spell; frames met that end it
TRANSPARENT = 0.1  # magnitudes of light lost against the clearest frames that are reported

# Usual brightness of the sky in mag/arcsec2, brightest and faintest (Gemini's NIRI page of zero points).
USUAL_SKY = {
    "Y": None, "J": (15.0, 16.0), "H": (14.0, 14.5), "K": (13.5, 14.0), "K(prime)": (13.7, 14.2),
    "K(short)": (13.6, 14.1),
}  # fmt: skip


NOTHING = Asked()


@dataclass(frozen=True)
class Request:
    """What a programme asks for. iq_arcsec : on the source; cloud_mag : magnitudes; else percentiles"""

    iq: Asked = NOTHING
    cc: Asked = NOTHING
    bg: Asked = NOTHING
    wv: Asked = NOTHING


# The measures that verdicts go by.
USED = ("cloud", "ellipticity", "fwhm", "fwhm_pixels", "sky_magnitude", "stars", "transparency")


@dataclass(frozen=True)
class Judged:
    """One frame with its measures. at : seconds since the epoch

    facts : of its sequence; airmass, natural : its own airmass and AOSEEING, None where it is as `facts` say
    """

    name: str
    at: float
    facts: Descriptors
    measures: Mapping[str, Measure] = field(default_factory=dict)
    airmass: float | None = None
    natural: float | None = None

    @property
    def looked_through(self) -> float:
        """Airmass; 1 where it is not known."""
        return self.airmass or self.facts.airmass or 1.0


@dataclass(frozen=True)
class Spell:
    """A time out of what was asked; end : None while it lasts. Seconds since the epoch."""

    begin: float
    end: float | None = None


@dataclass(frozen=True)
class Course:
    """What is said of a sequence. verdicts : by condition, {} without frames

    spell : the time out of image quality that still lasts; states : how many of its frames have which
    """

    verdicts: Mapping[str, Verdict]
    spell: Spell | None = None
    states: Mapping[State, int] = field(default_factory=dict)


def out_of_spec(states: Sequence[tuple[float, State]]) -> list[Spell]:
    """When conditions were not met: it begins with the first of 3 frames in a row, or of 3 of the last 4,
    that were not met, and ends with the first of 2 that were. Frames that tell nothing are passed over."""
    spells: list[Spell] = []
    told = [(at, state) for at, state in states if state in ("met", "not met", "borderline")]
    begin: float | None = None
    good: list[float] = []
    for n, (at, state) in enumerate(told):
        if begin is None:
            last = [entry for entry in told[max(0, n - 3) : n + 1] if spells == [] or entry[0] > _end(spells)]
            bad = [when for when, what in last if what == "not met"]
            if state == "not met" and len(bad) >= OF_FOUR:
                begin, good = bad[0], []
        else:
            good = [*good, at] if state == "met" else []
            if len(good) == TO_END:
                spells.append(Spell(begin, good[0]))
                begin = None
    return spells if begin is None else [*spells, Spell(begin)]


def _end(spells: Sequence[Spell]) -> float:
    return spells[-1].end or math.inf


def of_frame(frame: Judged, asked: Request) -> dict[str, Verdict]:
    """The verdicts on one frame, by condition."""
    found, facts = frame.measures, frame.facts
    fwhm, error = _sharpness(frame)
    natural = facts.ao_seeing if frame.natural is None else frame.natural
    return {
        "IQ": image_quality(
            fwhm,
            error,
            band=_band(facts),
            airmass=frame.looked_through,
            asked=asked.iq,
            stars=int(_value(found, "stars") or 2),
            ellipticity=_value(found, "ellipticity"),
            ellipticity_error=_error(found, "ellipticity"),
            natural=natural,
            ao=facts.is_ao,
            wavelength=_micrometres(facts),
        ),
        "CC": cloud(_value(found, "cloud"), _error(found, "cloud"), asked.cc),
        "BG": background(_value(found, "sky_magnitude"), USUAL_SKY.get(facts.filter_pretty), asked.bg),
        "WV": water(asked.wv),
    }


def states(frames: Sequence[Judged], asked: Request) -> list[State]:
    """The state of image quality of each frame of a sequence, as `of_frame` has it, without the words."""
    if not frames or frames[-1].facts.is_ao:
        return [of_frame(frame, asked)["IQ"].state for frame in frames]
    limit = conditions.quality_limit(asked.iq, band=_band(frames[-1].facts))
    return [_state(frame, limit, asked.iq) for frame in frames]


def _state(frame: Judged, limit: float | None, asked: Asked) -> State:
    found = frame.measures
    fwhm, error = _sharpness(frame)
    stars, round_ = found.get("stars"), found.get("ellipticity")
    return conditions.quality_state(
        fwhm,
        error,
        limit=limit,
        airmass=frame.looked_through,
        asked=asked,
        stars=int(stars.value or 2) if stars else 2,
        ellipticity=round_.value if round_ else None,
        ellipticity_error=round_.error if round_ else None,
    )


def _sharpness(frame: Judged) -> tuple[float | None, float | None]:
    """(FWHM, its error) in arcsec, of the look or of the frame in the stack; None where not measured."""
    if (found := frame.measures.get("fwhm")) is not None:
        return found.value, found.error
    pixels, scale = frame.measures.get("fwhm_pixels"), frame.facts.pixel_scale
    if pixels is None or not scale:
        return None, None
    return pixels.value * scale, (pixels.error or 0.0) * scale


def course(frames: Sequence[Judged], asked: Request, product: Mapping[str, Measure] | None = None) -> Course:
    """A sequence is judged on the median of its frames since the last change, with what its product says of
    cloud and sky."""
    if not frames:
        return Course({})
    ordered = sorted(frames, key=lambda frame: frame.at)
    each = states(ordered, asked)
    spells = out_of_spec([(frame.at, state) for frame, state in zip(ordered, each, strict=True)])
    change = max((when for spell in spells for when in (spell.begin, spell.end) if when), default=0.0)
    last = ordered[-1]
    verdicts = of_frame(
        replace(last, measures=_medians([frame for frame in ordered if frame.at >= change])), asked
    )
    if product:
        of_it = of_frame(Judged("", 0.0, last.facts, product), asked)
        for condition in ("CC", "BG"):
            if of_it[condition].value is not None:
                verdicts[condition] = of_it[condition]
        if verdicts["IQ"].value is None:
            verdicts["IQ"] = of_it["IQ"]
    lasting = spells[-1] if spells and spells[-1].end is None else None
    return Course(verdicts, lasting, Counter(each))


def light_lost(frames: Sequence[Judged]) -> tuple[float, float] | None:
    """(magnitudes, when it began) of the light that the latest frames lack against the clearest; None where
    they lack none. Relative, so that no standard is needed."""
    known = [(f.at, f.measures["transparency"]) for f in sorted(frames, key=lambda f: f.at)
             if "transparency" in f.measures and f.measures["transparency"].value > 0]  # fmt: skip
    if not known:
        return None
    lost = [(at, -2.5 * math.log10(m.value), 1.0857 * (m.error or 0.0) / m.value) for at, m in known]
    began: float | None = None
    for at, magnitudes, error in lost:
        began = (began or at) if magnitudes - 2 * error > TRANSPARENT else None
    return None if began is None else (lost[-1][1], began)


def request_of(facts: Descriptors, configured: Request | None) -> Request:
    """What is asked for: by the configuration where it says something, else by the header."""
    own = configured or Request()
    pairs = ((own.iq, facts.req_iq), (own.cc, facts.req_cc), (own.bg, facts.req_bg), (own.wv, facts.req_wv))
    return Request(*(asked if asked.known else Asked(header) for asked, header in pairs))


def _medians(frames: Sequence[Judged]) -> dict[str, Measure]:
    """Of each measure the median, with the error of a median, from the scatter or from the errors."""
    values: dict[str, list[Measure]] = {}
    for frame in frames:
        for name, measure in frame.measures.items():
            values.setdefault(name, []).append(measure)
    found = {}
    for name, several in values.items():
        numbers = [m.value for m in several]
        n = len(numbers)
        scatter = 1.2533 * _deviation(numbers) / math.sqrt(n) if n > 1 else 0.0
        claimed = statistics.median([m.error or 0.0 for m in several]) / math.sqrt(n)
        found[name] = Measure(name, statistics.median(numbers), max(scatter, claimed), several[0].unit)
    return found


def _deviation(numbers: Sequence[float]) -> float:
    """Standard deviation; `statistics.stdev` does the same in fractions, at thirty times the cost."""
    mean = math.fsum(numbers) / len(numbers)
    return math.sqrt(math.fsum((number - mean) ** 2 for number in numbers) / (len(numbers) - 1))


def _band(facts: Descriptors) -> str:
    return conditions.band_of(facts.filter_pretty, _micrometres(facts))


def _micrometres(facts: Descriptors) -> float | None:
    return facts.effective_wavelength * 1e6 if facts.effective_wavelength else None


def _value(measures: Mapping[str, Measure], name: str) -> float | None:
    return measures[name].value if name in measures else None


def _error(measures: Mapping[str, Measure], name: str) -> float | None:
    return measures[name].error if name in measures else None
