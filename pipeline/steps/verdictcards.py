"""What an image delivered of image quality and cloud, as cards of its header.

What was asked for is not among them: it may be edited at any time, and that changes no product. So the header
has the probability that the limit of each bin was kept, by which any request is judged: met from 0.95 on, not
met up to 0.05, else borderline. `nirid verdict` does so, with the same limits and errors.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipeline import conditions
from pipeline.headers.descriptors import Descriptors

Cards = Mapping[str, Any]  # value, or (value, comment)


def of_quality(facts: Descriptors, found: Cards) -> dict[str, Any]:
    """IQBIN, IQDELIV, IQERR, IQP20, IQP70, IQP85 of an image; found : MEANFWHM, MFWHMERR ..., as measured

    With adaptive optics the natural seeing (AOSEEING) is judged. IQDELIV is "not measured" without stars, and
    when they are trailed, which is no seeing; then there are no probabilities.
    """
    band, airmass = conditions.band_of(facts.filter_pretty, _micrometres(facts)), facts.airmass or 1.0
    limits = conditions.AO_LIMITS if facts.is_ao else conditions.IQ_LIMITS[band]
    fwhm = facts.ao_seeing if facts.is_ao else _value(found, "MEANFWHM")
    name = "AOSEEING" if facts.is_ao else "FWHM at zenith"
    cards: dict[str, Any] = dict.fromkeys(("IQBIN", "IQDELIV", "IQERR", *(f"IQP{one}" for one in limits)))
    if fwhm is None or not conditions.is_size(fwhm):
        return cards
    if facts.is_ao:
        value, error = fwhm, conditions.ONE_STAR * fwhm
    else:
        value = fwhm * airmass**-0.6
        stars = int(_value(found, "NSTARS") or 2)
        error = conditions.seeing_error(fwhm, _value(found, "MFWHMERR"), stars) * value
    cards["IQBIN"] = (conditions.bin_of("IQ", value, limits), f"Image quality by {name}")
    trailed = conditions.elongated(_value(found, "MEANELLP"), _value(found, "ELLIERR"))
    if trailed and not facts.is_ao:
        return cards | {"IQDELIV": ("not measured", "Trailed stars: guiding or wind, no seeing")}
    return cards | _delivered("IQ", name, value, error, limits)


def of_cloud(extinction: float, error: float) -> dict[str, Any]:
    """CCBIN, CCDELIV, CCERR, CCP50, CCP70, CCP80 of an image. extinction : magnitudes, CLOUDEXT"""
    limits = conditions.CC_LIMITS
    bins = {"CCBIN": (conditions.bin_of("CC", extinction, limits), "Cloud cover by CLOUDEXT")}
    return bins | _delivered("CC", "CLOUDEXT", extinction, conditions.cloud_error(error), limits)


def _delivered(
    condition: str, name: str, value: float, error: float, limits: Mapping[int, float]
) -> dict[str, Any]:
    left = conditions.bins_left_open(condition, value, error, dict(limits))
    return {
        f"{condition}DELIV": (left, "Delivered: what the error leaves open"),
        f"{condition}ERR": (round(error, 4), f"Error of {name}, as judged"),
        **{
            f"{condition}P{one}": (
                round(conditions.odds(value, error, limit), 4),
                f"P of {name} < {limit:g}: met from 0.95",
            )
            for one, limit in limits.items()
        },
    }


def _micrometres(facts: Descriptors) -> float | None:
    return facts.effective_wavelength * 1e6 if facts.effective_wavelength else None


def _value(found: Cards, name: str) -> float | None:
    held = found.get(name)
    value = held[0] if isinstance(held, tuple) else held
    return float(value) if isinstance(value, int | float) else None
