"""detectSources: a catalogue of each frame's sources, a mask of their pixels, and how sharp its stars are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.frame import SATURATED, Frame
from pipeline.params import bounded
from pipeline.primitive import Calibrations, per_frame

if TYPE_CHECKING:
    from pipeline.algorithms.sources import Catalogue, LabelImage

MOST_FITS = 60  # sources, brightest first, that get a fitted profile


@dataclass(frozen=True)
class DetectSourcesParams:
    detect_thresh: float = bounded(1.5, gt=0, doc="sigma above the background for a pixel of a source")
    detect_minarea: int = bounded(40, ge=1, doc="fewest connected pixels of a source")
    back_size: int = bounded(32, ge=8, doc="mesh of the background, pixels")
    back_filter_size: int = bounded(3, ge=1, doc="median filter of the background, meshes")
    phot_min_radius: float = bounded(3.5, ge=0, doc="least radius of a Kron aperture, pixels")
    deblend_nthresh: int = bounded(32, ge=1, doc="levels at which blends are looked for")
    deblend_mincont: float = bounded(
        0.005, ge=0, le=1, doc="least part of the flux of a blend that is a source"
    )
    mask: bool = bounded(False, doc="hide every flagged pixel from the detection, not only replace_flags")
    replace_flags: int = bounded(249, ge=0, doc="DQ bits of pixels that the detection does not see")
    set_saturation: bool = bounded(False, doc="flag sources that reach the saturation level (FLAGS 4)")


@per_frame("detectSources", DetectSourcesParams)
def detect_sources(frame: Frame, params: DetectSourcesParams, cals: Calibrations) -> Frame:
    """Give the frame a catalogue (OBJCAT) and an object mask; cards FWHMPIX, ELLIPTIC and NSTARS of its
    stars.

    SExtractor's method with Gemini's values; profiles are fitted to the brighter sources. A frame without
    a source gets an empty mask and no catalogue.
    """
    catalogue, labels = find_sources(frame, params)
    objmask = np.asarray(labels > 0)
    if not catalogue.size:
        return frame.stamped("DETECSRC", objmask=objmask, catalog=None, note=f"{frame.name}: no source found")
    return frame.stamped("DETECSRC", objmask=objmask, catalog=catalogue, cards=sharpness_cards(catalogue))


def find_sources(frame: Frame, params: DetectSourcesParams) -> tuple[Catalogue, LabelImage]:
    """(catalogue, labels) of a frame, with world coordinates, profile fits and stars marked."""
    from pipeline.algorithms import profiles, sources

    how = sources.Detection(
        thresh=params.detect_thresh,
        minarea=params.detect_minarea,
        back_size=params.back_size,
        back_filter=params.back_filter_size,
        deblend_levels=params.deblend_nthresh,
        deblend_contrast=params.deblend_mincont,
        kron_minimum=params.phot_min_radius,
        hidden_flags=0xFFFF if params.mask else params.replace_flags,
    )
    catalogue, labels = sources.detect(frame.sci, frame.dq, how, frame.var)
    if not catalogue.size:
        return catalogue, labels
    wcs = frame.tangent
    if wcs is not None:
        catalogue["X_WORLD"], catalogue["Y_WORLD"] = wcs.to_sky(
            catalogue["X_IMAGE"] - 1, catalogue["Y_IMAGE"] - 1
        )
    saturation = frame.descriptors.saturation_level
    if params.set_saturation and saturation:
        catalogue["FLAGS"] |= np.where(catalogue["FLUX_MAX"] + catalogue["BACKGROUND"] >= saturation, 4, 0)
    if frame.var is not None:
        bright = catalogue[:MOST_FITS]
        fits = profiles.fit_stars(
            frame.sci, frame.var, frame.dq != 0, bright["X_IMAGE"] - 1, bright["Y_IMAGE"] - 1,
            np.clip(bright["PROFILE_FWHM"].astype(float), 2.0, 30.0), labels=labels, number=bright["NUMBER"],
        )  # fmt: skip
        _fill_fits(bright, fits)
    catalogue["STAR"] = sources.stars(catalogue)
    return catalogue, labels


def _fill_fits(table: Catalogue, fits: Any) -> None:
    fitted = np.isfinite(fits.x) & (fits.fwhm > 0)
    for column, values in (
        ("X_FIT", fits.x + 1), ("Y_FIT", fits.y + 1), ("ERR_FIT", fits.error), ("FWHM_FIT", fits.fwhm),
        ("ELLIP_FIT", fits.ellipticity), ("BETA_FIT", fits.beta),
    ):  # fmt: skip
        table[column] = np.where(fitted, values, table[column])


def sharpness_cards(catalogue: Catalogue) -> dict[str, Any]:
    """FWHM and ellipticity of the stars of a catalogue, with errors; none without a star."""
    stars = catalogue[catalogue["STAR"] == 1]
    cards: dict[str, Any] = {
        "NSOURCES": (int(catalogue.size), "Sources detected"),
        "NSTARS": (int(stars.size), "Stars that FWHM and ellipticity are of"),
        "NSATSRC": (
            int(np.sum((catalogue["IMAFLAGS_ISO"] & int(SATURATED)) != 0)),
            "Sources with saturated pixels",
        ),
    }
    for key, column, text in (
        ("FWHMPIX", "FWHM_FIT", "[pix] FWHM of stars, median"),
        ("ELLIPTIC", "ELLIP_FIT", "Ellipticity of stars, median"),
    ):
        value = error = None
        if stars.size:
            values = stars[column].astype(float)
            value = round(float(np.median(values)), 4)
            # Error of a median; a single star is as good as its fit, about 1.5 of its position's error.
            spread = (
                1.2533 * 1.4826 * float(np.median(np.abs(values - np.median(values)))) / np.sqrt(stars.size)
            )
            own = 1.5 * float(np.median(stars["ERR_FIT"])) / np.sqrt(stars.size)
            own = own if column == "FWHM_FIT" else own / float(np.median(stars["FWHM_FIT"]))
            error = round(max(spread, own), 4)
        cards[key] = (value, text) if value is not None else None
        cards[key[:4] + "ERR"] = (error, f"Error of {key}") if error is not None else None
    return cards
