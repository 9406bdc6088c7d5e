"""measureQuality: seeing, background, transparency, the zero point."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline import niri
from pipeline.association import RULES, CalKind
from pipeline.frame import NO_DATA, NON_LINEAR, SATURATED, Frame
from pipeline.headers import standards, zeropoint
from pipeline.headers.tangent import separation
from pipeline.headers.values import number
from pipeline.headers.zeropoint import NO_STANDARD, ZeroPoint
from pipeline.params import bounded
from pipeline.primitive import Calibrations, per_frame
from pipeline.steps import verdictcards
from pipeline.steps.magnitudes import with_magnitudes
from pipeline.steps.sources import DetectSourcesParams, find_sources, sharpness_cards
from pipeline.travel import travelling

if TYPE_CHECKING:
    from pipeline.algorithms.sources import Catalogue, LabelImage
    from pipeline.headers.descriptors import Descriptors

# Proper name of the filter -> how its magnitudes follow from J, H, K.
NAMES = {
    "Y": "Y",
    "J": "J",
    "H": "H",
    "K": "K",
    "K(short)": "Ks",
    "K(prime)": "K'",
    "L(prime)": "Lprime",
    "M(prime)": "Mprime",
}

# Nominal zero points are stable to 3 percent (Gemini's page of NIRI zero points).
MAGNITUDES = 2.5 / math.log(10)
ZERO_POINT_STABILITY = 0.03 * MAGNITUDES


@dataclass(frozen=True)
class MeasureQualityParams:
    extinction: float = bounded(0.06, ge=0, doc="magnitudes per airmass, all bands")
    extinction_error: float = bounded(0.03, ge=0, doc="its error")
    aperture: float = bounded(3.0, ge=1, le=4.5, doc="radius for the standard's flux, in FWHM")
    search: float = bounded(
        15.0, gt=0, doc="arcsec around its catalogue place within which the standard is looked for"
    )


@per_frame("measureQuality", MeasureQualityParams)
def measure_quality(frame: Frame, params: MeasureQualityParams, cals: Calibrations) -> Frame:
    """Measure the quality of an image and write it into its header; keeps catalogue and object mask.

    MEANFWHM, ZENFWHM (arcsec; at zenith by airmass^-0.6), MEANELLP of stars, IQBIN and more (`verdictcards`);
    BGRATE (e-/s a pixel), BGMAG (mag/arcsec², by the nominal zero point), with errors and samples; SATFRAC;
    NSOURCES. For a standard star in the packaged list also MAGZPT, MAGZERR, ZPSTAR, ZPMAG, ZPFLUX, KEXT, and
    CLOUDEXT, CCBIN and more
    against the nominal zero point; the scatter between its frames (ZPFSCAT) is in MAGZERR, and a value that
    no sky can give has no CCBIN. Any other target gets these of the best standard of the night
    (`zeropoint.choose`), in ZPIMAGE which image that is, in ZPLEV how good it is for this one, in ZPNSTD how
    many were compared, and in MAGZERR their scatter ZPSCAT; PHOTOM says whether they tell of cloud.
    """
    catalogue, labels = find_sources(frame, DetectSourcesParams())
    cards: dict[str, Any] = sharpness_cards(catalogue) | _seeing(frame, catalogue)
    cards |= verdictcards.of_quality(frame.descriptors, cards) | _sky(frame, labels)
    data = (frame.dq & NO_DATA) == 0
    saturated = float(np.sum((frame.dq & SATURATED) != 0)) / max(int(data.sum()), 1)
    cards["SATFRAC"] = (round(saturated, 7), "Fraction of pixels that are saturated")
    zero, notes = _zero_point(frame, catalogue, labels, params)
    if not zero and (cals.zero_points or not notes):
        zero, more = _given_zero_point(frame, cals.zero_points, params)
        notes += more
    for text in notes:
        frame = frame.evolve(note=text)
    facts = frame.descriptors
    return frame.stamped(
        "MEASREIQ", objmask=np.asarray(labels > 0),
        catalog=with_magnitudes(catalogue, facts, zero) if catalogue.size else None,
        cards=cards | zero,
    )  # fmt: skip


def _seeing(frame: Frame, catalogue: Catalogue) -> dict[str, Any]:
    wcs = frame.tangent
    stars = catalogue[catalogue["STAR"] == 1]
    if wcs is None or not stars.size:
        return dict.fromkeys(("MEANFWHM", "MEANELLP", "ZENFWHM"))
    fwhm = float(np.median(stars["FWHM_FIT"])) * wcs.pixel_scale
    airmass = frame.descriptors.airmass or 1.0
    zenith = fwhm * airmass**-0.6
    error = float(sharpness_cards(catalogue)["FWHMERR"][0]) * wcs.pixel_scale
    return {
        "MEANFWHM": (round(fwhm, 4), "[arcsec] FWHM of stars, median"),
        "MFWHMERR": (round(error, 4), "[arcsec] Error of MEANFWHM, from NSTARS stars"),
        "MEANELLP": (round(float(np.median(stars["ELLIP_FIT"])), 4), "Ellipticity of stars, median"),
        "ZENFWHM": (round(zenith, 4), "[arcsec] FWHM at zenith, airmass^-0.6"),
    }


def _sky(frame: Frame, labels: LabelImage) -> dict[str, Any]:
    """The background of the exposures, from the levels that skyCorrect took off: mean, error, sample.

    The error is that of the mean, from the scatter between exposures, so that a drifting sky shows. Of a
    frame with its sky still in it, the level between its sources.
    """
    from pipeline.algorithms import background

    time = frame.descriptors.exposure_time
    own = number(frame.header, "SKYLEVEL")
    if own is None and frame.members is None:
        own = background.sky_level(frame.sci, (frame.dq != 0) | (labels > 0), high=1.5).level
    found = np.array([own]) if frame.members is None else frame.members["SKYLEVEL"].astype(float)
    # Frames that took the level of one and the same sky frame say nothing new.
    levels = np.unique([v for v in found if v is not None and np.isfinite(v)]).astype(float)
    if not levels.size or not time or frame.unit != "electron":
        return {}
    rate = float(levels.mean()) / time
    error = float(levels.std(ddof=1)) / math.sqrt(levels.size) / time if levels.size > 1 else None
    cards: dict[str, Any] = {
        "BGRATE": (round(rate, 4), "[electron/s/pix] Background"),
        "BGRERR": (round(error, 4), "Error of BGRATE") if error is not None else None,
        "BGFRAMES": (int(levels.size), "Independent levels that BGRATE is of"),
    }
    zero, wcs = nominal_zero_point(frame), frame.tangent
    if zero is not None and wcs is not None and rate > 0:
        magnitude = zero - 2.5 * math.log10(rate / wcs.pixel_scale**2)
        cards["BGMAG"] = (round(magnitude, 3), "[mag/arcsec2] Background, by nominal zero point")
        doubt = math.hypot(ZERO_POINT_STABILITY, MAGNITUDES * (error or 0.0) / rate)
        cards["BGMAGERR"] = (round(doubt, 3), "Error of BGMAG, that of the zero point included")
    return cards


def nominal_zero_point(frame: Frame) -> float | None:
    """Gemini's zero point of the camera and filter for one electron per second."""
    facts = frame.descriptors
    return niri.ZEROPOINTS.get((facts.camera or "", facts.filter_pretty))


def filter_magnitude(star: standards.Standard, pretty: str) -> tuple[float, float] | None:
    """(magnitude, error) of a standard in a NIRI filter; None where the list cannot tell.

    K' = K + 0.22 (H - K), and Ks = K + 0.002 + 0.026 (J - K) where it was not measured (Gemini's NIRI
    pages, MKO colours); good to 0.01 for ordinary stars. The colour term of a very red star is not believed.
    """
    band = NAMES.get(pretty, pretty)
    values, errors = star.magnitudes, star.errors

    def known(*names: str) -> bool:
        return all(name in values for name in names)

    if band in values:
        return values[band], errors.get(band, 0.03)
    red = "very_red" in star.flag
    if band == "K'" and known("H", "K") and not red:
        error = math.hypot(0.78 * errors.get("K", 0.03), 0.22 * errors.get("H", 0.03), 0.005)
        return values["K"] + 0.22 * (values["H"] - values["K"]), error
    if band == "Ks" and known("J", "K") and not red:
        error = math.hypot(errors.get("K", 0.03), 0.026 * errors.get("J", 0.03), 0.009)
        return values["K"] + 0.002 + 0.026 * (values["J"] - values["K"]), error
    return None


def _zero_point(
    frame: Frame, catalogue: Catalogue, labels: LabelImage, params: MeasureQualityParams
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """(cards, notes) of the zero point; none for a target that is no standard."""
    from pipeline.algorithms import photometry

    facts = frame.descriptors
    star = standards.find(facts.object or "")
    if star is None or (facts.observation_class == "science" and not _at_standard(frame, star)):
        return {}, ()
    where = f"{frame.name}: no zero point from {star.name}: "
    magnitude = filter_magnitude(star, facts.filter_pretty)
    if magnitude is None:
        return {}, (where + f"its magnitude in {facts.filter_pretty} is not known",)
    if frame.unit != "electron" or frame.var is None or not facts.exposure_time:
        return {}, (where + f"the image is in {frame.unit}, wanted electrons with their variance",)
    source = _find(frame, star, catalogue, params)
    if source is None:
        return {}, (where + f"no source within {params.search:g} arcsec of its place",)
    if int(source["IMAFLAGS_ISO"]) & int(SATURATED):
        return {}, (where + "it is saturated",)
    if not source["FWHM_FIT"] > 0:
        return {}, (where + "its profile could not be fitted",)
    others = (labels > 0) & (labels != source["NUMBER"])
    x, y, fwhm, beta = (float(source[name]) for name in ("X_FIT", "Y_FIT", "FWHM_FIT", "BETA_FIT"))
    bad = (frame.dq & ~NON_LINEAR) != 0
    growth = photometry.curve_of_growth(
        frame.sci, frame.var, bad, x - 1, y - 1, fwhm, beta, aperture=params.aperture, others=others
    )
    if growth is None:
        return {}, (where + "bad pixels or no sky in its aperture",)
    airmass = facts.airmass or 1.0
    value, error = photometry.zero_point(
        *magnitude,
        growth.total,
        growth.error,
        facts.exposure_time,
        airmass,
        params.extinction,
        params.extinction_error,
    )
    scatter = zeropoint.scatter_of_frames(frame.members)
    if scatter:  # the scatter of the frames is an error of their mean too
        error = math.hypot(error, scatter[0] / math.sqrt(scatter[1]))
    cards = {
        "MAGZPT": (round(value, 4), "Zero point: Vega, 1 e-/s, total flux, airmass 1"),
        "MAGZERR": (round(error, 4), "Error of MAGZPT"),
        "ZPSTAR": (star.name, "Standard star of MAGZPT"),
        "ZPMAG": (round(magnitude[0], 4), f"Its magnitude in {facts.filter_pretty} ({star.system})"),
        "ZPMAGERR": (round(magnitude[1], 4), "Error of ZPMAG"),
        "ZPFLUX": (round(growth.total / facts.exposure_time, 3), "[electron/s] Its total flux"),
        "ZPAPER": (round(params.aperture, 2), "Radius of its aperture, in FWHM"),
        "ZPWINGS": (round(growth.missing, 5), "Fraction of its light outside the aperture"),
        "ZPFSCAT": (round(scatter[0], 4), "[mag] Transparency: scatter of the frames") if scatter else None,
    } | _extinction(frame, value, error, params)
    return cards, _doubts(frame, star, value, error, scatter)


def _doubts(
    frame: Frame, star: standards.Standard, value: float, error: float, scatter: tuple[float, int] | None
) -> tuple[str, ...]:
    """What is to be said against the zero point of a standard."""
    notes = []
    if zeropoint.doubts(star):
        notes.append(
            f"{star.name} is listed as {star.flag}: its zero point may be wrong and is not passed on"
        )
    if why := zeropoint.impossible(value, error, nominal_zero_point(frame)):
        notes.append(
            f"zero point {value:.2f} of {star.name} is impossible, {why}: it says nothing of the cloud cover"
        )
    if scatter and scatter[0] > zeropoint.BETWEEN_FRAMES:
        notes.append(
            f"{star.name} in cloud: its {scatter[1]} frames differ by {scatter[0]:.2f} mag in transparency, "
            f"limit {zeropoint.BETWEEN_FRAMES:g}"
        )
    return tuple(notes)


def _given_zero_point(
    frame: Frame, zeros: Sequence[ZeroPoint], params: MeasureQualityParams
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """(cards, notes) of an image that is no standard's, by the zero points of those that are."""
    if frame.unit != "electron":
        return {}, ()
    facts = frame.descriptors
    airmass = facts.airmass or 1.0
    air = (params.extinction, params.extinction_error)
    choice = zeropoint.choose(
        zeros, when=facts.ut_datetime, airmass=airmass, extinction=air[0], extinction_error=air[1]
    )
    zero = choice.zero
    if zero is None:
        known = nominal_zero_point(frame) is not None
        return {"ZPLEV": NO_STANDARD} if known else {}, choice.notes
    value, error = zero.at(airmass, *air)
    error = math.hypot(error, choice.scatter)
    clear = choice.photometric
    air_cards = _extinction(frame, value, error, params)
    if clear is False and choice.compared > 1:  # nothing tells which of them the image is like
        air_cards = {key: card for key, card in air_cards.items() if not key.startswith("CC")}
    return {
        "MAGZPT": (round(value, 4), "Zero point: Vega, 1 e-/s, total flux, airmass 1"),
        "MAGZERR": (round(error, 4), "Error of a magnitude by MAGZPT at this AIRMASS"),
        "ZPSTAR": (zero.star, "Standard star of MAGZPT"),
        "ZPMAG": (round(zero.magnitude, 4), "Its magnitude"),
        "ZPIMAGE": (zero.image, "Image of the standard star"),
        "ZPAIRMAS": (round(zero.airmass, 4), "Airmass of that image"),
        "ZPNSTD": (choice.compared, "Images of standards that were compared"),
        "ZPSCAT": (round(choice.scatter, 4), "[mag] Their scatter beyond their errors"),
        "PHOTOM": (clear, "The standards show no cloud") if clear is not None else None,
        "ZPLEV": zero.level(facts.ut_datetime, airmass, RULES[CalKind.ZERO_POINT].levels),
    } | air_cards, (*choice.notes, *travelling(zero.image, zero.notes))


def _extinction(frame: Frame, value: float, error: float, params: MeasureQualityParams) -> dict[str, Any]:
    """What was assumed of the air, and what the zero point says of clouds in it."""
    cards: dict[str, Any] = {
        "KEXT": (params.extinction, "[mag/airmass] Extinction assumed"),
        "KEXTERR": (params.extinction_error, "Error of KEXT"),
    }
    nominal = nominal_zero_point(frame)
    if nominal is None:
        return cards
    cloud = nominal - value
    cards["CLOUDEXT"] = (round(cloud, 3), "[mag] Nominal zero point less MAGZPT")
    if not zeropoint.impossible(value, error, nominal):
        cards |= verdictcards.of_cloud(cloud, error)
    return cards


def gives_zero_point(facts: Descriptors) -> bool:
    """True for frames of a standard that is in the list, in a filter in which it is known, and trusted."""
    star = standards.find(facts.object or "")
    known = star is not None and filter_magnitude(star, facts.filter_pretty) is not None
    return known and star is not None and not zeropoint.doubts(star)


def _place(frame: Frame, star: standards.Standard) -> tuple[float, float]:
    """(ra, dec) degrees of the standard at the time of the frame; its list's epoch is taken for 2000."""
    when = frame.descriptors.ut_datetime
    years = when.year + when.timetuple().tm_yday / 365.25 - 2000.0 if when else 0.0
    dec = star.dec + star.pm_dec * years / 3.6e6
    return star.ra + star.pm_ra * years / 3.6e6 / max(math.cos(math.radians(dec)), 1e-6), dec


def _at_standard(frame: Frame, star: standards.Standard) -> bool:
    """True when the frame points within 2 arcmin of the star that its name means."""
    facts = frame.descriptors
    if facts.ra is None or facts.dec is None:
        return False
    return bool(separation(facts.ra, facts.dec, *_place(frame, star)) < 120)


def _find(frame: Frame, star: standards.Standard, catalogue: Catalogue, params: MeasureQualityParams) -> Any:
    """The brightest source near the standard's place, else near the target's."""
    wcs = frame.tangent
    if wcs is None or not catalogue.size:
        return None
    facts = frame.descriptors
    places = [_place(frame, star)]
    if facts.target_ra is not None and facts.target_dec is not None:
        places.append((facts.target_ra, facts.target_dec))
    for place in places:
        x, y = wcs.to_pixel(*place)
        away = np.hypot(catalogue["X_IMAGE"] - 1 - x, catalogue["Y_IMAGE"] - 1 - y) * wcs.pixel_scale
        near = np.flatnonzero(away < params.search)
        if near.size:
            return catalogue[near[np.argmax(catalogue["FLUX_AUTO"][near])]]
    return None
