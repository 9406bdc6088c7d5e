"""Whether conditions were what was asked for, frame by frame, and since when they were not.

    spells = out_of_spec([(at, "met"), (at, "not met"), ...])
    row = of_sequence(frames, asked)

A sequence is judged on the median of its frames since the last change, because an observer decides on
sequences; a single bad frame is no reason to stop.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from daemon.model.measures import Measure
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


@dataclass(frozen=True)
class Judged:
    """One frame with its measures. at : seconds since the epoch"""

    name: str
    at: float
    facts: Descriptors
    measures: Mapping[str, Measure] = field(default_factory=dict)


@dataclass(frozen=True)
class Spell:
    """A time out of what was asked; end : None while it lasts. Seconds since the epoch."""

    begin: float
    end: float | None = None


def out_of_spec(states: Sequence[tuple[float, State]]) -> list[Spell]:
    """When conditions were not met: it begins with the first of 3 frames in a row, or of 3 of the last 4,
    that
    were not met, and ends with the first of 2 that were. Frames that tell nothing are passed over."""
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
    fwhm, error = _value(found, "fwhm"), _error(found, "fwhm")
    if fwhm is None and facts.pixel_scale and (pixels := found.get("fwhm_pixels")):
        fwhm = pixels.value * facts.pixel_scale
        error = (pixels.error or 0.0) * facts.pixel_scale
    wavelength = facts.effective_wavelength
    return {
        "IQ": image_quality(
            fwhm,
            error,
            band=_band(facts),
            airmass=facts.airmass or 1.0,
            asked=asked.iq,
            stars=int(_value(found, "stars") or 2),
            ellipticity=_value(found, "ellipticity"),
            ellipticity_error=_error(found, "ellipticity"),
            natural=facts.ao_seeing,
            ao=facts.is_ao,
            wavelength=wavelength * 1e6 if wavelength else None,
        ),
        "CC": cloud(_value(found, "cloud"), _error(found, "cloud"), asked.cc),
        "BG": background(_value(found, "sky_magnitude"), USUAL_SKY.get(facts.filter_pretty), asked.bg),
        "WV": water(asked.wv),
    }


def of_sequence(
    frames: Sequence[Judged], asked: Request, product: Mapping[str, Measure] | None = None
) -> dict[str, Verdict]:
    """The verdicts on a sequence: of the median of its frames since the last change, with what its product
    says
    of cloud and sky. `since` of each is in `since_when`."""
    if not frames:
        return {}
    ordered = sorted(frames, key=lambda frame: frame.at)
    spells = out_of_spec([(f.at, of_frame(f, asked)["IQ"].state) for f in ordered])
    change = max((when for spell in spells for when in (spell.begin, spell.end) if when), default=0.0)
    recent = [frame for frame in ordered if frame.at >= change]
    middle = Judged(ordered[-1].name, ordered[-1].at, ordered[-1].facts, _medians(recent))
    verdicts = of_frame(middle, asked)
    if product:
        of_it = of_frame(Judged("", 0.0, ordered[-1].facts, product), asked)
        for condition in ("CC", "BG"):
            if of_it[condition].value is not None:
                verdicts[condition] = of_it[condition]
        if verdicts["IQ"].value is None:
            verdicts["IQ"] = of_it["IQ"]
    return verdicts


def since_when(frames: Sequence[Judged], asked: Request) -> Spell | None:
    """The spell out of image quality that still lasts, or None."""
    ordered = sorted(frames, key=lambda frame: frame.at)
    spells = out_of_spec([(f.at, of_frame(f, asked)["IQ"].state) for f in ordered])
    return spells[-1] if spells and spells[-1].end is None else None


def light_lost(frames: Sequence[Judged]) -> tuple[float, float] | None:
    """(magnitudes, when it began) of the light that the latest frames lack against the clearest; None where
    they
    lack none. Relative, so that no standard is needed."""
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
        scatter = 1.2533 * statistics.stdev(numbers) / math.sqrt(n) if n > 1 else 0.0
        claimed = statistics.median([m.error or 0.0 for m in several]) / math.sqrt(n)
        found[name] = Measure(name, statistics.median(numbers), max(scatter, claimed), several[0].unit)
    return found


def _band(facts: Descriptors) -> str:
    letter = facts.filter_pretty[:1]
    if letter in ("Y", "J", "H", "K", "L", "M"):
        return letter
    wavelength = (facts.effective_wavelength or 2.2e-6) * 1e6
    near = {"Y": 1.02, "J": 1.25, "H": 1.65, "K": 2.2, "L": 3.78, "M": 4.68}
    return min(near, key=lambda band: abs(near[band] - wavelength))


def _value(measures: Mapping[str, Measure], name: str) -> float | None:
    return measures[name].value if name in measures else None


def _error(measures: Mapping[str, Measure], name: str) -> float | None:
    return measures[name].error if name in measures else None
