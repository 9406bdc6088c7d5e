"""Observing conditions: what was asked for, what was delivered, and whether the one meets the other.

    verdict = image_quality(0.71, 0.02, filter_name="J", airmass=1.3, asked=Asked(70))
    verdict.state, verdict.words
    # ("not met", 'IQ85 delivered, IQ70 asked: not met (0.61 +- 0.02" at zenith, limit 0.60")')

Pure. A bin is a percentile of nights: IQ70 is delivered in 70 % of nights. Sources: limits of image quality
and cloud are those of DRAGONS (`qa_constraints.py`) and of the integration time calculator of Gemini's
Observing Tool; the percentile of 2004 to 2024 is the fit of lucuma-core (`ImageQuality.scala`).
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Literal

State = Literal["met", "borderline", "not met", "not measured", "not asked"]

# FWHM at zenith in arcsec below which 20, 70 and 85 percent of nights are, by band.
IQ_LIMITS = {
    "Y": {20: 0.40, 70: 0.70, 85: 0.95},
    "J": {20: 0.40, 70: 0.60, 85: 0.85},
    "H": {20: 0.40, 70: 0.60, 85: 0.85},
    "K": {20: 0.35, 70: 0.55, 85: 0.80},
    "L": {20: 0.35, 70: 0.50, 85: 0.75},
    "M": {20: 0.35, 70: 0.50, 85: 0.70},
}
AO_LIMITS = {20: 0.45, 70: 0.80, 85: 1.20}  # of the natural seeing (AOSEEING), never of the image
CC_LIMITS = {50: 0.08, 70: 0.3, 80: 1.0}  # magnitudes lost to cloud
# What may be asked for besides, and is no bin that is delivered (lucuma-core's `CloudExtinction.scala`).
CC_ASKED = CC_LIMITS | {75: 0.5, 90: 1.5, 95: 2.0}
# Bins of requests before Gemini changed them, and as what they were read afterwards (SPSiteQuality.java).
OLD_IQ = {50: 70, 80: 85}
ANY = 100
# Filters whose name begins with their band; any other has the band whose wavelength (micrometres) is nearest.
BROAD = ("Y", "J", "H", "K", "K(short)", "K(prime)", "L(prime)", "M(prime)")
WAVELENGTHS = {"Y": 1.02, "J": 1.25, "H": 1.65, "K": 2.2, "L": 3.78, "M": 4.68}

LEAST_ERROR = 0.02  # of a FWHM: that of the fitted profile
ONE_STAR = 0.10  # the same with a single star
SURE = 0.95  # met at least as probably as this, not met at most as probably as the rest
ELONGATED = 0.1  # ellipticity from which Gemini comments; no bin of image quality tells of it
FIT_TO = 2.5  # micrometres, as far as the fit rests on data


@dataclass(frozen=True)
class Asked:
    """A request: a percentile, or a value in arcsec on the source or magnitudes of cloud; None is
    not asked."""

    percentile: int | None = None
    value: float | None = None

    @property
    def known(self) -> bool:
        return self.percentile is not None or self.value is not None


@dataclass(frozen=True)
class Verdict:
    """Whether one condition was met. condition : IQ, CC, BG or WV

    value, error, limit : arcsec (IQ) or magnitudes (CC); probability : that the limit is kept
    """

    condition: str
    state: State
    words: str
    delivered: str = ""
    asked: str = ""
    value: float | None = None
    error: float | None = None
    limit: float | None = None
    probability: float | None = None


def band_of(filter_name: str, wavelength: float | None) -> str:
    """Y, J, H, K, L or M. filter_name : as people know it, K(prime); wavelength : micrometres"""
    if filter_name in BROAD or filter_name.endswith(" order sort"):
        return filter_name[0]
    where = wavelength or WAVELENGTHS["K"]
    return min(WAVELENGTHS, key=lambda band: abs(WAVELENGTHS[band] - where))


def percentile(word: str | None) -> int | None:
    """What a header's word asks for: "Any" is 100, "70-percentile" 70; None for a blank, UNKNOWN,
    all else."""
    word = (word or "").strip()
    if word == "Any":
        return ANY
    found = re.fullmatch(r"(\d{2})-percentile", word)
    return int(found[1]) if found else None


def image_quality(
    fwhm: float | None,
    error: float | None,
    *,
    band: str,
    airmass: float,
    asked: Asked,
    stars: int = 2,
    ellipticity: float | None = None,
    ellipticity_error: float | None = None,
    natural: float | None = None,
    ao: bool = False,
    wavelength: float | None = None,
) -> Verdict:
    """The image quality of a frame or a stack.

    fwhm, error : arcsec on the source; band : Y, J, H, K, L or M; stars : of the median
    natural : seeing before adaptive optics (AOSEEING), arcsec; wavelength : micrometres, for the percentile
    A value is compared with its error, of at least 2 % (one star: 10 %). With adaptive optics the natural
    seeing is judged. An elongated image has no bin: guiding or wind is no seeing.
    """
    if ao:
        return _with_ao(fwhm, natural, asked)
    if fwhm is None or not is_size(fwhm):
        return Verdict("IQ", "not measured", _asks("IQ", asked, "not measured"), asked=_name("IQ", asked))
    if elongated(ellipticity, ellipticity_error):
        words = f"guiding or wind, ellipticity {ellipticity:.2f}: image quality not measured"
        return Verdict("IQ", "not measured", words, asked=_name("IQ", asked), value=fwhm)
    limits = IQ_LIMITS.get(band[:1], IQ_LIMITS["K"])
    zenith = fwhm * airmass**-0.6
    value = zenith if asked.value is None else fwhm
    spread = seeing_error(fwhm, error, stars) * value
    rank = percentile_of_nights(zenith, wavelength) if wavelength else None
    known = f"{value:.2f} ± {spread:.2f}″{' at zenith' if asked.value is None else ' on the source'}"
    known += f", percentile {rank:.0f} of 2004 to 2024" if rank is not None else ""
    limit, delivered = quality_limit(asked, band=band), bin_of("IQ", zenith, limits)
    return _compared("IQ", value, spread, asked, limit, delivered, known, "″")


def quality_limit(asked: Asked, *, band: str, ao: bool = False) -> float | None:
    """Arcsec that an image may have: at zenith, on the source where that is asked; None: any will do."""
    return _limit(asked, AO_LIMITS if ao else IQ_LIMITS.get(band[:1], IQ_LIMITS["K"]), OLD_IQ)


def quality_state(
    fwhm: float | None,
    error: float | None,
    *,
    limit: float | None,
    airmass: float,
    asked: Asked,
    stars: int = 2,
    ellipticity: float | None = None,
    ellipticity_error: float | None = None,
) -> State:
    """The state that `image_quality` finds without adaptive optics, for many frames: no words are made.

    limit : of `quality_limit`
    """
    if fwhm is None or not is_size(fwhm) or elongated(ellipticity, ellipticity_error):
        return "not measured"
    if not asked.known:
        return "not asked"
    value = fwhm * airmass**-0.6 if asked.value is None else fwhm
    return _state(value, seeing_error(fwhm, error, stars) * value, limit)


def is_size(fwhm: float) -> bool:
    """False of what was not measured."""
    return math.isfinite(fwhm) and fwhm > 0


def seeing_error(fwhm: float, error: float | None, stars: int) -> float:
    """As a fraction of the FWHM: that of the stars, and of a profile or of a single star."""
    return math.hypot((error or 0.0) / fwhm, ONE_STAR if stars < 2 else LEAST_ERROR)


def cloud_error(error: float | None) -> float:
    """Magnitudes, of cloud as it is judged."""
    return max(error or 0.0, 0.01)


def odds(value: float, error: float, limit: float) -> float:
    """The probability that the true value is below a limit."""
    return 0.5 * (1 + math.erf((limit - value) / (math.sqrt(2) * error)))


def _state(value: float, error: float, limit: float | None) -> State:
    """limit : None where any conditions will do"""
    probable = 1.0 if limit is None else odds(value, error, limit)
    return "met" if probable >= SURE else "not met" if probable <= 1 - SURE else "borderline"


def cloud(extinction: float | None, error: float | None, asked: Asked) -> Verdict:
    """Cloud, from magnitudes lost against the nominal zero point; None where no standard tells."""
    if extinction is None or not math.isfinite(extinction):
        return Verdict(
            "CC", "not measured", _asks("CC", asked, "absolute not measured"), asked=_name("CC", asked)
        )
    spread = cloud_error(error)
    delivered = bins_left_open("CC", extinction, spread, CC_LIMITS)
    known = f"{extinction:z.2f} ± {spread:.2f} mag"
    return _compared("CC", extinction, spread, asked, _limit(asked, CC_ASKED), delivered, known, " mag")


def background(magnitude: float | None, usual: tuple[float, float] | None, asked: Asked) -> Verdict:
    """The sky's brightness, mag/arcsec2, beside its usual range (brightest, faintest). Never "not met".

    Gemini's bins of background are of moonlight in V; in the near infrared the sky glows by itself.
    """
    state: State = "not measured" if asked.known else "not asked"
    if magnitude is None or not math.isfinite(magnitude):
        return Verdict("BG", state, "BG not measured", asked=_name("BG", asked))
    words = f"BG {magnitude:.1f} mag/arcsec²"
    if usual:
        words += f", usual {usual[0]:g} to {usual[1]:g}"
        if magnitude < usual[0]:
            words += f": {10 ** (0.4 * (usual[0] - magnitude)):.1f} × the bright end"
    words += "; Gemini has no bins for it in the near infrared" if asked.known else ""
    return Verdict("BG", state, words, asked=_name("BG", asked), value=magnitude)


def water(asked: Asked) -> Verdict:
    """Water vapour, which images do not show."""
    wanted = asked.known and asked.percentile != ANY
    state: State = "not measured" if wanted else "not asked"
    words = f"{_name('WV', asked)} asked: cannot be seen in images" if wanted else "WV not asked"
    return Verdict("WV", state, words, asked=_name("WV", asked))


def elongated(ellipticity: float | None, error: float | None) -> bool:
    """Whether stars are surely not round: beyond 0.1, by three errors."""
    return ellipticity is not None and ellipticity - 3 * (error or 0.0) > ELONGATED


def percentile_of_nights(zenith: float, wavelength: float) -> float | None:
    """Which part of nights of 2004 to 2024 was better, in percent; None beyond 2.5 micrometres.

    zenith : FWHM in arcsec; wavelength : micrometres. The fit of lucuma-core to Gemini's own measurements.
    """
    if not 0 < wavelength <= FIT_TO:
        return None
    at = 0.8771 * wavelength**0.7847 + 16.109 * zenith**0.1378 - 15.826
    return min(max(50.102 * math.erf(at) + 49.87, 0.0), 100.0)


def _with_ao(fwhm: float | None, natural: float | None, asked: Asked) -> Verdict:
    delivered = f"{fwhm:.2f}″ delivered with adaptive optics" if fwhm else "adaptive optics"
    if natural is None or asked.value is not None:
        words = f"{delivered}; natural seeing not in the header" if natural is None else delivered
        state: State = "not measured" if asked.known else "not asked"
        return Verdict("IQ", state, words, asked=_name("IQ", asked), value=fwhm)
    known = f"natural seeing {natural:.2f}″; {delivered}"
    spread = ONE_STAR * natural
    limit, name = quality_limit(asked, band="", ao=True), bin_of("IQ", natural, AO_LIMITS)
    return _compared("IQ", natural, spread, asked, limit, name, known, "″")


def _compared(
    condition: str,
    value: float,
    error: float,
    asked: Asked,
    limit: float | None,
    delivered: str,
    known: str,
    unit: str,
) -> Verdict:
    name = _name(condition, asked)
    if not asked.known:
        words = f"{delivered} delivered, none asked ({known})"
        return Verdict(condition, "not asked", words, delivered, "", value, error)
    if limit is None:  # any conditions will do
        words = f"{delivered} delivered, any asked ({known})"
        return Verdict(condition, "met", words, delivered, name, value, error, None, 1.0)
    state, probable = _state(value, error, limit), odds(value, error, limit)
    words = f"{delivered} delivered, {name} asked: {state} ({known}, limit {limit:.2f}{unit})"
    return Verdict(condition, state, words, delivered, name, value, error, limit, probable)


def _limit(asked: Asked, limits: dict[int, float], old: dict[int, int] | None = None) -> float | None:
    if asked.value is not None:
        return asked.value
    wanted = (old or {}).get(asked.percentile or ANY, asked.percentile or ANY)
    looser = [limits[p] for p in sorted(limits) if p >= wanted]
    return looser[0] if looser else None


def bin_of(condition: str, value: float, limits: dict[int, float]) -> str:
    """The bin of a value, its error left out of account: "IQ70"; a value at the limit is in the worse one."""
    found = next((p for p in sorted(limits) if value < limits[p]), None)
    return f"{condition}{found or 'Any'}"


def bins_left_open(condition: str, value: float, error: float, limits: dict[int, float]) -> str:
    """Every bin that the true value may be in, by more than 5 % of the normal probability: "CC50 or CC70"."""

    bins = sorted(limits)
    shares = [0.0, *(odds(value, error, limits[one]) for one in bins), 1.0]
    names = [*map(str, bins), "Any"]
    likely = [name for n, name in enumerate(names) if shares[n + 1] - shares[n] > 1 - SURE]
    return " or ".join(f"{condition}{name}" for name in likely)


def _name(condition: str, asked: Asked) -> str:
    if asked.value is not None:
        return f"{asked.value:g}{'″' if condition == 'IQ' else ' mag'}"
    if asked.percentile is None:
        return ""
    return f"{condition}{'Any' if asked.percentile >= ANY else asked.percentile}"


def _asks(condition: str, asked: Asked, what: str) -> str:
    return f"{condition} {what}" + (f", {_name(condition, asked)} asked" if asked.known else "")
