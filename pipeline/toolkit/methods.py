"""What can be asked of a frame by name, as methods with Gemini's names, options and units.

The values come from `headers.descriptors`, which a header fills once. These methods only give them the
shape that scripts of Gemini's users expect: keyword options, sections as tuples, times without time zone
(always UTC), and, for what a detector has per extension, a list for a file and one value for `ad[0]`. The
module is long because Gemini has so many: one short method each.
"""

from __future__ import annotations

import datetime as dt
import math
from functools import cached_property
from typing import Any, TypeVar

from pipeline import niri
from pipeline.headers.descriptors import Descriptors, describe, strip_ids
from pipeline.headers.tags import tags_of
from pipeline.headers.values import Cards, number, sane_wcs, text

Section = tuple[int, int, int, int]
T = TypeVar("T")


class Described:
    """The descriptors of one frame, from its merged header cards and the shape of its image."""

    _is_file = True  # False for one extension: then no value is wrapped in a list
    filename: str
    _cards: Cards
    _shape: tuple[int, int] | None

    @cached_property
    def facts(self) -> Descriptors:
        """Every descriptor at once, as the daemon and the steps use them."""
        return describe(self._cards, shape=self._shape, filename=self.filename)

    @cached_property
    def tags(self) -> frozenset[str]:
        """What kind of frame this is, in Gemini's vocabulary: {"NIRI", "RAW", "DARK", ...}."""
        return tags_of(self._cards)

    # --- the exposure -------------------------------------------------------------------------------
    def exposure_time(self) -> float | None:
        """Exposure time of all coadds together, seconds."""
        return self.facts.exposure_time

    def coadds(self) -> int:
        """Number of exposures summed into the frame."""
        return self.facts.coadds

    def ut_datetime(self) -> dt.datetime | None:
        """Start of the exposure, UTC (without time zone, as Gemini's package has it)."""
        start = self.facts.ut_datetime
        return start.replace(tzinfo=None) if start else None

    def ut_date(self) -> dt.date | None:
        """Date of the start of the exposure, UTC."""
        start = self.facts.ut_datetime
        return start.date() if start else None

    def ut_time(self) -> dt.time | None:
        """Time of the start of the exposure, UTC."""
        start = self.facts.ut_datetime
        return start.time() if start else None

    def local_time(self) -> dt.time | None:
        """Time of the start of the exposure at the telescope, by its header card LT."""
        try:
            return dt.time.fromisoformat((text(self._cards, "LT") or "").split(".")[0])
        except ValueError:
            return None

    def airmass(self) -> float | None:
        """Airmass; None when the header's is blank or below 1."""
        return self.facts.airmass

    # --- what it is of ------------------------------------------------------------------------------
    def object(self) -> str | None:
        """Name of the target as the observer wrote it."""
        return self.facts.object

    def program_id(self) -> str | None:
        """Programme, as GN-2015B-Q-31."""
        return self.facts.program_id

    def observation_id(self) -> str | None:
        """Observation, as GN-2015B-Q-31-35."""
        return self.facts.observation_id

    def data_label(self) -> str | None:
        """Label of the frame, as GN-2015B-Q-31-35-001."""
        return self.facts.data_label

    def calibration_key(self) -> str | None:
        """The data label without `_stack`: frames of one key have the same calibrations."""
        return self.facts.data_label and self.facts.data_label.replace("_stack", "")

    def group_id(self) -> str:
        """What frames that can be stacked have in common, as text."""
        dark = "DARK" in self.tags
        first = (
            [self.exposure_time(), self.coadds()]
            if dark
            else [self.observation_id(), self.filter_name(pretty=True), self.camera()]
        )
        parts = [*first, self.read_mode(), self.well_depth_setting(), [self.facts.array_section]]
        if {"IMAGE", "FLAT"} <= self.tags:
            parts.append("NIRI_IMAGE_TWILIGHT" if "TWILIGHT" in self.tags else "NIRI_IMAGE_FLAT")
        return "_".join(str(part) for part in parts)

    def observation_class(self) -> str | None:
        """science, partnerCal, dayCal, acq ...; None in frames from before 2004."""
        return self.facts.observation_class

    def observation_type(self) -> str | None:
        """OBJECT, DARK, FLAT, ARC or BPM."""
        return self.facts.observation_type

    def qa_state(self) -> str:
        """Judgement of the observatory: Pass, Usable, Fail, CHECK or Undefined."""
        return self.facts.qa_state

    def instrument(self) -> str | None:
        """Name of the instrument."""
        return text(self._cards, "INSTRUME")

    def telescope(self) -> str | None:
        """Name of the telescope."""
        return text(self._cards, "TELESCOP")

    # --- the optics ---------------------------------------------------------------------------------
    def filter_name(self, stripID: bool = False, pretty: bool = False) -> str:
        """Filter or combination of filters, as Kprime_G0206 or PK50&Y_G0241.

        stripID : without component numbers (Kprime); pretty : as Gemini displays it (K(prime))
        """
        if pretty:
            return self.facts.filter_pretty
        return _id(self.facts.filter_name, stripID)

    def camera(self, stripID: bool = False, pretty: bool = False) -> str | None:
        """Camera: f6, f14 (also f13.9) or f32. stripID, pretty : without component number."""
        return _id(self.facts.camera, stripID or pretty)

    def focal_plane_mask(self, stripID: bool = False, pretty: bool = False) -> str | None:
        """Focal-plane mask, as f6-cam_G5208. stripID, pretty : without component number."""
        return _id(self.facts.focal_plane_mask, stripID or pretty)

    def disperser(self, stripID: bool = False, pretty: bool = False) -> str:
        """Grism, or MIRROR for imaging. stripID, pretty : without component number."""
        return _id(self.facts.disperser, stripID or pretty)

    def pupil_mask(self, stripID: bool = False, pretty: bool = False) -> str:
        """Pupil mask, or MIRROR. stripID, pretty : without component number."""
        return _id(self.facts.pupil_mask, stripID or pretty)

    def central_wavelength(
        self, asMicrometers: bool = False, asNanometers: bool = False, asAngstroms: bool = False
    ) -> float | None:
        """Wavelength at the centre of a spectrum, metres; None for imaging."""
        return None

    def effective_wavelength(
        self, asMicrometers: bool = False, asNanometers: bool = False, asAngstroms: bool = False
    ) -> float | None:
        """Effective wavelength of the filter, metres unless asked otherwise; None where not tabled."""
        metres = self.facts.effective_wavelength
        # Rounded, so that 2.12 micrometres times a power of ten is that number and not its neighbour.
        power = 6 if asMicrometers else 9 if asNanometers else 10 if asAngstroms else 0
        return None if metres is None else round(metres * 10**power, 12 - power)

    def wavelength_band(self) -> str | None:
        """Photometric band whose nominal wavelength is nearest: J, H, K ..."""
        microns = self.effective_wavelength(asMicrometers=True)
        if microns is None:
            return None
        return min(niri.BANDS, key=lambda band: abs(niri.BANDS[band] - microns))

    def gcal_lamp(self) -> str | None:
        """Lamp of the calibration unit; Off for an infrared lamp behind a closed shutter."""
        return self.facts.gcal_lamp

    def is_ao(self) -> bool:
        """True with adaptive optics."""
        return self.facts.is_ao

    def wavefront_sensor(self) -> str | None:
        """The wavefront sensors that were guiding, joined by &; None if none was."""
        return self.facts.wavefront_sensor

    # --- the detector -------------------------------------------------------------------------------
    def read_mode(self) -> str:
        """Low Background, Medium Background, High Background or Unknown."""
        return self.facts.read_mode

    def well_depth_setting(self) -> str:
        """Shallow, Deep or Unknown, from the bias voltages."""
        return self.facts.well_depth

    def gain(self) -> float | list[float]:
        """Electrons per unit of the pixels (per ADU in raw frames); per extension."""
        return self._each(self.facts.gain)

    def read_noise(self) -> float | list[float | None] | None:
        """Read noise of all coadds together, electrons; per extension."""
        return self._each(self.facts.read_noise)

    def saturation_level(self) -> float | list[float | None] | None:
        """Saturation, in the unit of the pixels; None if the well is unknown; per extension."""
        return self._each(self.facts.saturation_level)

    def non_linear_level(self) -> float | list[float | None] | None:
        """Level above which the response is no longer linear, in the unit of the pixels; per extension."""
        return self._each(self.facts.non_linear_level)

    def nonlinearity_coeffs(self) -> niri.Linearity | list[niri.Linearity | None] | None:
        """Linearity correction, for electrons per coadd; None where none is known; per extension."""
        ny = self._shape[0] if self._shape else 0
        return self._each(niri.LINEARITY.get((self.facts.read_mode, ny, self.facts.well_depth)))

    def array_section(self, pretty: bool = False) -> Any:
        """Where the image lies on the full array, (x1, x2, y1, y2) from 0 and half open; per extension.

        pretty : text counted from 1, as "[385:640,385:640]"
        """
        return self._each(_section(self.facts.array_section, pretty))

    def detector_section(self, pretty: bool = False) -> Any:
        """The same as `array_section`: NIRI has one array."""
        return self.array_section(pretty)

    def data_section(self, pretty: bool = False) -> Any:
        """The part of the stored image that holds data: all of it; per extension, as `array_section`."""
        return self._each(_section(self.facts.data_section, pretty))

    def detector_roi_setting(self) -> str | None:
        """Array setting: Full Frame, Central768, Central512, Central256 or Custom."""
        return self.facts.detector_roi_setting

    def detector_name(self, stripID: bool = False, pretty: bool = False) -> str | None:
        """Identification of the array by the header card ARRAYID."""
        return text(self._cards, "ARRAYID")

    def binning(self) -> str:
        """Binning: always 1x1."""
        return "1x1"

    def detector_x_bin(self) -> int:
        """Binning along x: always 1."""
        return 1

    def detector_y_bin(self) -> int:
        """Binning along y: always 1."""
        return 1

    def is_in_adu(self) -> bool:
        """True when the pixels are in ADU, False for electrons."""
        return self.facts.is_in_adu

    def is_coadds_summed(self) -> bool:
        """Always True: the pixels are sums over the coadds, not averages."""
        return True

    # --- the sky ------------------------------------------------------------------------------------
    def ra(self) -> float | None:
        """Right ascension of the WCS reference point, else of the target; degrees."""
        return self.wcs_ra() if sane_wcs(self._cards) else self.facts.ra

    def dec(self) -> float | None:
        """Declination of the WCS reference point, else of the target; degrees."""
        return self.wcs_dec() if sane_wcs(self._cards) else self.facts.dec

    def wcs_ra(self) -> float | None:
        """Right ascension of the WCS reference point, degrees ICRS; None without a usable WCS."""
        return self._wcs_place[0]

    def wcs_dec(self) -> float | None:
        """Declination of the WCS reference point, degrees ICRS; None without a usable WCS."""
        return self._wcs_place[1]

    def target_ra(self, offset: bool = False, pm: bool = True) -> float | None:
        """Right ascension of the target, degrees; with proper motion, if asked with the telescope offset."""
        return self._target(offset, pm)[0]

    def target_dec(self, offset: bool = False, pm: bool = True) -> float | None:
        """Declination of the target, degrees; with proper motion, if asked with the telescope offset."""
        return self._target(offset, pm)[1]

    def position_angle(self) -> float | None:
        """Position angle of the instrument, degrees east of north."""
        return self.facts.position_angle

    def cass_rotator_pa(self) -> float | None:
        """Angle of the Cassegrain rotator, degrees."""
        return number(self._cards, "CRPA")

    def azimuth(self) -> float | None:
        """Azimuth of the telescope, degrees."""
        return number(self._cards, "AZIMUTH")

    def elevation(self) -> float | None:
        """Elevation of the telescope, degrees."""
        return number(self._cards, "ELEVATIO")

    def pixel_scale(self) -> float | None:
        """Arcsec per pixel, from the WCS."""
        return self.facts.pixel_scale

    def detector_x_offset(self) -> float | None:
        """Telescope offset along x, pixels."""
        return self.facts.detector_x_offset

    def detector_y_offset(self) -> float | None:
        """Telescope offset along y, pixels."""
        return self.facts.detector_y_offset

    def telescope_x_offset(self) -> float | None:
        """Telescope offset XOFFSET of the header, arcsec."""
        return number(self._cards, "XOFFSET")

    def telescope_y_offset(self) -> float | None:
        """Telescope offset YOFFSET of the header, arcsec."""
        return number(self._cards, "YOFFSET")

    # --- conditions and photometry ------------------------------------------------------------------
    def raw_iq(self) -> int | None:
        """Image quality, percentile: 20, 70, 85 or 100 for any."""
        return self.facts.raw_iq

    def raw_cc(self) -> int | None:
        """Cloud cover, percentile."""
        return self.facts.raw_cc

    def raw_bg(self) -> int | None:
        """Sky background, percentile."""
        return self.facts.raw_bg

    def raw_wv(self) -> int | None:
        """Water vapour, percentile."""
        return self.facts.raw_wv

    def nominal_photometric_zeropoint(self) -> float | list[float | None] | None:
        """Magnitude (Vega) of one unit of the pixels per second; None where not tabled; per extension."""
        camera = self.camera(stripID=True) or ""
        zero_point = niri.ZEROPOINTS.get((camera, self.facts.filter_pretty))
        if zero_point is not None and self.facts.is_in_adu:
            zero_point -= 2.5 * math.log10(self.facts.gain)
        return self._each(zero_point)

    def nominal_atmospheric_extinction(self) -> float:
        """Magnitudes lost in the atmosphere: 0, as Gemini holds no coefficients for the near infrared."""
        return 0.0

    # --- how --------------------------------------------------------------------------------------------
    def _each(self, value: T) -> T | list[T]:
        return [value] if self._is_file else value

    @cached_property
    def _wcs_place(self) -> tuple[float | None, float | None]:
        if not sane_wcs(self._cards):
            return None, None
        ra, dec = float(self._cards["CRVAL1"]), float(self._cards["CRVAL2"])
        apparent = "APPT" in (text(self._cards, "FRAME"), text(self._cards, "TRKFRAME"))
        if not apparent or "NON_SIDEREAL" not in self.tags or self.facts.ut_datetime is None:
            return ra, dec
        # A moving target is tracked in apparent place: of date, with aberration.
        from astropy.coordinates import TETE, SkyCoord
        from astropy.time import Time

        place = SkyCoord(ra, dec, unit="deg", frame=TETE(obstime=Time(self.ut_datetime()))).icrs
        return float(place.ra.deg), float(place.dec.deg)

    def _target(self, offset: bool, pm: bool) -> tuple[float | None, float | None]:
        cards = self._cards if pm else {k: self._cards[k] for k in ("RA", "DEC") if k in self._cards}
        facts = self.facts if pm else describe(cards)
        ra, dec = facts.target_ra, facts.target_dec
        if offset and ra is not None and dec is not None:
            east = (number(self._cards, "RAOFFSET") or 0.0) + (number(self._cards, "RATRGOFF") or 0.0)
            north = (number(self._cards, "DECOFFSE") or 0.0) + (number(self._cards, "DECTRGOF") or 0.0)
            ra += east / 3600.0 / math.cos(math.radians(dec))
            dec += north / 3600.0
        return ra, dec


# The names that a person may ask for, in the order above.
DESCRIPTORS = tuple(
    name
    for name, value in vars(Described).items()
    if not name.startswith("_") and callable(value)
)  # fmt: skip


Name = TypeVar("Name", str, str | None)


def _id(name: Name, strip: bool) -> Name:
    return strip_ids(name) if strip and name else name


def _section(value: str | None, pretty: bool) -> str | Section | None:
    if value is None or pretty:
        return value
    x1, x2, y1, y2 = (int(n) for part in value.strip("[]").split(",") for n in part.split(":"))
    return x1 - 1, x2, y1 - 1, y2
