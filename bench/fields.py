"""Verdicts on image quality, through the pixels of simulated fields of stars near the limits of the bins.

    python -m bench fields            # 200 fields

A field of 256 x 256 pixels has 2 to 12 stars with a Moffat profile of known FWHM, at airmass 1 to 2, in J, H
or K'; its seeing at the zenith lies around one of the limits of Gemini's bins. What is judged is what
measureQuality finds. One field in ten has trailed stars, one in ten saturated ones alone: no bin may come of
these.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits

from pipeline.conditions import IQ_LIMITS, Asked, Verdict, band_of, image_quality
from pipeline.frame import SATURATED, Frame
from pipeline.headers.merged import FACT_CARDS, merge
from pipeline.simulate import Shot
from pipeline.simulate.sky import render_stars
from pipeline.steps.photometry import measure_quality

SIDE, SKY, READ, FULL = 256, 3000.0, 35.0, 180_000.0
SCALE = 0.1171  # arcsec a pixel, f/6
FILTERS = {"J": "J", "H": "H", "K": "Kprime"}
FAR, NEAR = 3.0, 1.65  # errors from a limit


@dataclass(frozen=True)
class Field:
    """zenith : true FWHM there, arcsec; percentile : of the limit near it; kind : stars, trailed, burnt"""

    band: str
    airmass: float
    zenith: float
    percentile: int
    kind: str
    seed: int

    @property
    def limit(self) -> float:
        return IQ_LIMITS[self.band][self.percentile]


def drawn(seed: int) -> Field:
    rng = np.random.default_rng([20160105, seed])
    band, percentile = str(rng.choice(list(FILTERS))), int(rng.choice([20, 70, 85]))
    zenith = IQ_LIMITS[band][percentile] * float(rng.uniform(0.85, 1.15))
    kind = "trailed" if seed % 10 == 3 else "burnt" if seed % 10 == 7 else "stars"
    return Field(band, float(rng.uniform(1.0, 2.0)), zenith, percentile, kind, seed)


def frame_of(field: Field) -> Frame:
    """The field as skyCorrect leaves it: electrons with their variance, the sky taken off."""
    rng = np.random.default_rng([20160106, field.seed])
    number = int(rng.integers(2, 13))
    fwhm = field.zenith * field.airmass**0.6 / SCALE
    places = rng.uniform(25, SIDE - 25, (number, 2))
    bright = 10 ** rng.uniform(5.0, 5.8, number) * (400.0 if field.kind == "burnt" else 1.0)
    trail = np.linspace(-0.9, 0.9, 9) * fwhm if field.kind == "trailed" else np.zeros(1)
    stars = [(x + d, y + 0.3 * d, light / trail.size) for (x, y), light in zip(places, bright, strict=True)
             for d in trail]  # fmt: skip
    light = render_stars((SIDE, SIDE), np.array(stars), fwhm=fwhm, beta=3.0).astype(np.float64)
    var = light + SKY + READ**2
    seen = light + rng.normal(0.0, 1.0, light.shape) * np.sqrt(var)
    full = seen > FULL
    shot = Shot(name="N20160105S0001", shape=(SIDE, SIDE), exposure=30.0, filter=FILTERS[field.band])
    cards = {key: value for key, value in merge(*shot.headers()).items() if key in FACT_CARDS}
    cards |= {"PREPARE": "yes", "BUNIT": "electron", "GAIN": 1.0, "RDNOISE": READ, "AIRMASS": field.airmass,
              "SATLEVEL": FULL, "NONLINEA": 0.8 * FULL, "SKYLEVEL": SKY}  # fmt: skip
    return Frame(
        np.minimum(seen, FULL).astype(np.float32), np.where(full, SATURATED, np.uint16(0)),
        fits.Header(list(cards.items())), "electron", "N20160105S0001.fits", var=var.astype(np.float32),
    )  # fmt: skip


def judged(field: Field) -> Verdict:
    """What is said of it when the bin is asked for whose limit it is near."""
    frame = measure_quality.run([frame_of(field)])[0]
    header, facts = frame.header, frame.descriptors
    wavelength = facts.effective_wavelength
    return image_quality(
        header.get("MEANFWHM"), header.get("MFWHMERR"),
        band=band_of(facts.filter_pretty, wavelength * 1e6 if wavelength else None),
        airmass=field.airmass, asked=Asked(field.percentile), stars=int(header.get("NSTARS", 0)),
        ellipticity=header.get("MEANELLP"), ellipticity_error=header.get("ELLIERR"),
    )  # fmt: skip


def true_bin(field: Field) -> str:
    inside = [p for p, limit in IQ_LIMITS[field.band].items() if field.zenith < limit]
    return f"IQ{min(inside)}" if inside else "IQAny"


SMALL = {"fields": 20}


def measure(data: Path, fields: int = 200) -> dict[str, Any]:
    """As every bench answers. data : not used, all is drawn here."""
    tally: Counter[str] = Counter()
    pulls = []
    for seed in range(fields):
        field = drawn(seed)
        verdict = judged(field)
        measured = verdict.state not in ("not measured",)
        if field.kind != "stars":
            tally[f"{field.kind}, tried"] += 1
            tally[f"{field.kind}, given a bin"] += bool(verdict.delivered) and measured
            continue
        tally["stars, tried"] += 1
        if not measured or verdict.value is None or not verdict.error:
            tally["stars, not measured"] += 1
            continue
        pulls.append((verdict.value - field.zenith) / verdict.error)
        away = min(abs(field.zenith - limit) for limit in IQ_LIMITS[field.band].values()) / verdict.error
        if away >= FAR:
            tally["far from every limit"] += 1
            tally["far, bin right"] += verdict.delivered == true_bin(field)
            tally["far, state right"] += verdict.state == ("met" if field.zenith < field.limit else "not met")
        near = abs(verdict.value - field.limit) < NEAR * verdict.error
        tally["measured near its limit"] += near
        tally["near, borderline"] += near and verdict.state == "borderline"
        tally["not near, and borderline"] += not near and verdict.state == "borderline"
    return {
        "fields": fields,
        "tally": dict(tally),
        "pull": float(np.mean(pulls)),
        "scatter": float(np.std(pulls)),
    }


def tables(answer: dict[str, Any]) -> Iterator[tuple[str, Sequence[str], list[Sequence[Any]]]]:
    yield "fields", ("what", "number"), list(answer["tally"].items())
    yield (
        "measured less true, in its error", ("mean", "scatter"),
        [(round(answer["pull"], 2), round(answer["scatter"], 2))],
    )  # fmt: skip
