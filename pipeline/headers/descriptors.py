"""Descriptors: what a header says about one exposure, typed, with units, read once.

After ingest everything asks the descriptor, never the keyword. Nothing here raises on an odd
header: what cannot be read is None. Rules and values as in Gemini's astrodata for NIRI. It is
a long module because an exposure has so many facts.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any

from pipeline import conditions, niri
from pipeline.headers import times
from pipeline.headers.merged import FACT_CARDS
from pipeline.headers.values import Cards, angle, number, pixel_scale, sane_wcs, text

_ID = re.compile(r"_G\d+$")
_LAMPS = ("IRhigh", "IRlow")


@dataclass(frozen=True)
class Descriptors:
    """Facts about one exposure; None where the header does not say."""

    data_label: str | None = None
    observation_id: str | None = None
    program_id: str | None = None
    observation_class: str | None = None  # science, partnerCal, dayCal, acq ...; absent before 2004
    observation_type: str | None = None  # OBJECT, DARK, FLAT, ARC, BPM
    object: str | None = None
    ut_datetime: datetime | None = None  # start of the exposure, aware, UTC
    ut_end: datetime | None = None  # end of the exposure, aware, UTC
    exposure_time: float | None = None  # seconds, all coadds together
    coadds: int = 1
    read_mode: str = "Unknown"
    well_depth: str = "Unknown"
    gain: float = niri.GAIN  # electrons per unit of the pixels
    read_noise: float | None = None  # electrons, all coadds
    saturation_level: float | None = None  # in the unit of the pixels
    non_linear_level: float | None = None  # in the unit of the pixels
    filter_name: str = "open"  # with component numbers, as K_G0204
    camera: str | None = None
    focal_plane_mask: str | None = None
    disperser: str = "MIRROR"
    pupil_mask: str = "MIRROR"
    shape: tuple[int, int] | None = None  # (ny, nx) pixels
    data_section: str | None = None  # "[1:1024,1:1024]", the whole stored array
    array_section: str | None = None  # the same on the full array, 1-based
    detector_roi_setting: str | None = None  # Full Frame, Central768, Central512, Central256, Custom
    gcal_lamp: str | None = None  # Off for a lamp behind a closed shutter
    gcal_lamp_raw: str | None = None  # as the header has it
    gcal_shutter: str | None = None
    gcal_filter: str | None = None
    is_ao: bool = False
    inport: int | None = None  # instrument port; 1 is the bottom one, where parity flips
    airmass: float | None = None
    ra: float | None = None  # degrees, of the WCS reference point, else of the target
    dec: float | None = None  # degrees
    target_ra: float | None = None  # degrees, with proper motion
    target_dec: float | None = None  # degrees
    position_angle: float | None = None  # degrees, east of north
    pixel_scale: float | None = None  # arcsec per pixel, from the WCS
    poffset: float | None = None  # arcsec, telescope offset in the instrument's frame
    qoffset: float | None = None  # arcsec
    detector_x_offset: float | None = None  # pixels
    detector_y_offset: float | None = None  # pixels
    wavefront_sensor: str | None = None
    wavefront_sensors_known: bool = False  # all three peripheral sensors report a state
    qa_state: str = "Undefined"
    is_in_adu: bool = True
    # Requested and delivered conditions, percentiles; 100 is "Any".
    raw_iq: int | None = None
    raw_cc: int | None = None
    raw_bg: int | None = None
    raw_wv: int | None = None
    req_iq: int | None = None
    req_cc: int | None = None
    req_bg: int | None = None
    req_wv: int | None = None
    ao_seeing: float | None = None  # arcsec, natural seeing before adaptive optics

    @property
    def filter_pretty(self) -> str:
        """Gemini's display name of the filter combination, as K(prime)."""
        plain = strip_ids(self.filter_name)
        return niri.FILTERS[plain].pretty if plain in niri.FILTERS else plain

    @property
    def effective_wavelength(self) -> float | None:
        """Metres; None for a filter that Gemini's table does not list."""
        entry = niri.FILTERS.get(strip_ids(self.filter_name))
        return entry.wavelength * 1e-6 if entry and entry.wavelength else None

    def to_json(self) -> dict[str, Any]:
        """Plain values for JSON; times in ISO format."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        for key in ("ut_datetime", "ut_end"):
            values[key] = values[key].isoformat() if values[key] else None
        values["shape"] = list(self.shape) if self.shape else None
        return values

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Descriptors:
        """The inverse of `to_json`; unknown names, of another release, are passed over."""
        known = {key: value for key, value in values.items() if key in cls.__dataclass_fields__}
        for key in ("ut_datetime", "ut_end"):
            if known.get(key):
                known[key] = datetime.fromisoformat(known[key])
        if known.get("shape"):
            known["shape"] = tuple(known["shape"])
        return cls(**known)


def describe(cards: Cards, *, shape: tuple[int, int] | None = None, filename: str = "") -> Descriptors:
    """All descriptors of a frame.

    cards : merged header cards (`merged.merge`)
    shape : (ny, nx) of the stored image; else NAXIS2, NAXIS1 of the cards where they have them
    filename : the last resort for the date
    """
    if shape is None:
        nx, ny = number(cards, "NAXIS1"), number(cards, "NAXIS2")
        shape = (int(ny), int(nx)) if nx and ny else None
    prepared = any("PREPAR" in key for key in cards)
    coadds = max(1, int(number(cards, "COADDS") or 1))
    exposure = _exposure(cards, coadds, prepared)
    read_mode = niri.READ_MODES.get(_pair(cards, "LNRS", "NDAVGS"), "Unknown")
    well = _well_depth(cards)
    start = times.ut_start(cards, filename)
    scale = pixel_scale(cards)
    ra, dec = _pointing(cards)
    target_ra, target_dec = _target(cards, start)
    x_offset, y_offset = _detector_offsets(cards, scale)
    saturation = _levels(cards, prepared, well, coadds)
    return Descriptors(
        data_label=text(cards, "DATALAB"),
        observation_id=text(cards, "OBSID"),
        program_id=text(cards, "GEMPRGID"),
        observation_class=text(cards, "OBSCLASS"),
        observation_type=text(cards, "OBSTYPE"),
        object=text(cards, "OBJECT"),
        ut_datetime=start,
        ut_end=times.ut_end(cards, start, exposure),
        exposure_time=exposure,
        coadds=coadds,
        read_mode=read_mode,
        well_depth=well,
        gain=(number(cards, "GAIN") if prepared else None) or niri.GAIN,
        read_noise=_read_noise(cards, prepared, read_mode, coadds),
        saturation_level=saturation[0],
        non_linear_level=saturation[1],
        filter_name=filter_name(cards),
        camera=text(cards, "CAMERA"),
        focal_plane_mask=text(cards, "FPMASK"),
        disperser=_if(text(cards, "FILTER3"), lambda name: "grism" in name),
        pupil_mask=_if(text(cards, "FILTER3"), lambda name: name.startswith("pup")),
        shape=shape,
        data_section=f"[1:{shape[1]},1:{shape[0]}]" if shape else None,
        array_section=_array_section(cards, shape),
        detector_roi_setting=_roi_setting(shape),
        gcal_lamp=_gcal_lamp(cards),
        gcal_lamp_raw=text(cards, "GCALLAMP"),
        gcal_shutter=text(cards, "GCALSHUT"),
        gcal_filter=text(cards, "GCALFILT"),
        is_ao=text(cards, "AOFOLD") == "IN",
        inport=_integer(cards, "INPORT"),
        airmass=_airmass(cards),
        ra=ra,
        dec=dec,
        target_ra=target_ra,
        target_dec=target_dec,
        position_angle=number(cards, "PA"),
        pixel_scale=scale,
        poffset=number(cards, "POFFSET"),
        qoffset=number(cards, "QOFFSET"),
        detector_x_offset=x_offset,
        detector_y_offset=y_offset,
        wavefront_sensor=_wavefront_sensor(cards),
        wavefront_sensors_known=all(f"{s}_ST" in cards for s in ("PWFS1", "PWFS2", "OIWFS")),
        qa_state=_qa_state(cards),
        # A product whose unit is blank is a ratio.
        is_in_adu=(text(cards, "BUNIT") or ("" if prepared and "BUNIT" in cards else "adu")).lower() == "adu",
        raw_iq=_percentile(cards, "RAWIQ"),
        raw_cc=_percentile(cards, "RAWCC"),
        raw_bg=_percentile(cards, "RAWBG"),
        raw_wv=_percentile(cards, "RAWWV"),
        req_iq=_percentile(cards, "REQIQ"),
        req_cc=_percentile(cards, "REQCC"),
        req_bg=_percentile(cards, "REQBG"),
        req_wv=_percentile(cards, "REQWV"),
        ao_seeing=_positive(cards, "AOSEEING"),
    )


# What `describe` looks at; marks that steps leave (GEM-TLM, roles) are no part of it.
_READ = frozenset(FACT_CARDS) - {"GEM-TLM", "OBJFRAME", "SKYFRAME"} | {
    "RAWGEMQA", "RAWPIREQ", "RAWIQ", "RAWCC", "RAWBG", "RAWWV", "REQIQ", "REQCC", "REQBG",
    "REQWV", "AOSEEING",
}  # fmt: skip


def describes(keys: Iterable[str]) -> bool:
    """True when a change of one of these cards may change the descriptors."""
    return any(key in _READ or "PREPAR" in key for key in keys)


def strip_ids(name: str) -> str:
    """A filter, mask or camera name without its component numbers (K_G0204 -> K)."""
    return "&".join(_ID.sub("", part) for part in name.split("&"))


def filter_name(cards: Cards) -> str:
    """Names in the three wheels that filter light, sorted and joined by &, with component numbers.

    Positions that hold no filter (open, a grism, a pupil mask) are passed over; a blank in any wheel
    makes the whole `blank`; nothing left makes it `open`.
    """
    names = [text(cards, key) or "" for key in ("FILTER1", "FILTER2", "FILTER3")]
    passed_over = ("open", "grism", "pupil")
    filters = sorted(n for n in names if n and not any(word in n.lower() for word in passed_over))
    if any(_ID.sub("", name) == "blank" for name in filters):
        return "blank"
    return "&".join(filters) or "open"


def _if(name: str | None, holds: Any) -> str:
    return name if name and holds(name) else "MIRROR"


def _integer(cards: Cards, key: str) -> int | None:
    value = number(cards, key)
    return int(value) if value is not None else None


def _pair(cards: Cards, first: str, second: str) -> tuple[int, int]:
    return (_integer(cards, first) or 0, _integer(cards, second) or 0)


def _exposure(cards: Cards, coadds: int, prepared: bool) -> float | None:
    """Total seconds; raw files hold seconds per coadd, prepared ones the total."""
    seconds = number(cards, "EXPTIME")
    if seconds is None or seconds < 0:
        return None
    return round(seconds if prepared else seconds * coadds, 6)


def _well_depth(cards: Cards) -> str:
    """From the bias voltages after the exposure; those before it may still belong to the last setting."""
    vdduc, vdet = number(cards, "A_VDDUC"), number(cards, "A_VDET")
    if vdduc is None or vdet is None:
        return "Unknown"
    for name, volts in niri.WELL_BIAS_VOLTS.items():
        if abs(vdduc - vdet - volts) < niri.WELL_BIAS_TOLERANCE:
            return name
    return "Unknown"


def _read_noise(cards: Cards, prepared: bool, read_mode: str, coadds: int) -> float:
    stored = number(cards, "RDNOISE") if prepared else None
    return stored if stored is not None else niri.READ_NOISE_ELECTRONS[read_mode] * math.sqrt(coadds)


def _levels(cards: Cards, prepared: bool, well: str, coadds: int) -> tuple[float | None, float | None]:
    """(saturation, non-linear) levels in the unit of the pixels; truncated to whole ADU, as Gemini does."""
    if prepared and number(cards, "SATLEVEL") is not None:
        return number(cards, "SATLEVEL"), number(cards, "NONLINEA")
    if well not in niri.WELL_ELECTRONS:
        return None, None
    saturation = int(niri.WELL_ELECTRONS[well] * coadds / niri.GAIN)
    return float(saturation), float(int(niri.LINEAR_FRACTION * saturation))


def _array_section(cards: Cards, shape: tuple[int, int] | None) -> str | None:
    """Centred on the array whatever LOWROW and LOWCOL say: real sub-arrays have them at 0."""
    if shape is None:
        return None
    half = niri.ARRAY_SIZE // 2
    ny, nx = shape
    x, y = half - nx // 2, half - ny // 2
    return f"[{x + 1}:{x + nx},{y + 1}:{y + ny}]"


def _roi_setting(shape: tuple[int, int] | None) -> str | None:
    if shape is None:
        return None
    if shape == (niri.ARRAY_SIZE, niri.ARRAY_SIZE):
        return "Full Frame"
    return f"Central{shape[0]}" if shape[0] == shape[1] and shape[0] % 256 == 0 else "Custom"


def _gcal_lamp(cards: Cards) -> str | None:
    if "GCALLAMP" not in cards or "GCALSHUT" not in cards:
        return None
    lamp = text(cards, "GCALLAMP")
    closed = text(cards, "GCALSHUT") == "CLOSED"
    return "Off" if lamp in (None, "No Value") or (closed and lamp in _LAMPS) else lamp


def _airmass(cards: Cards) -> float | None:
    value = number(cards, "AIRMASS")
    return value if value is not None and value >= 1 else None


def _pointing(cards: Cards) -> tuple[float | None, float | None]:
    """(ra, dec) degrees: the WCS reference point when the scale is sane, else the target cards."""
    if sane_wcs(cards):
        return number(cards, "CRVAL1"), number(cards, "CRVAL2")
    return angle(cards.get("RA"), True), angle(cards.get("DEC"), False)


def _target(cards: Cards, when: datetime | None) -> tuple[float | None, float | None]:
    """Target (ra, dec) degrees with proper motion since EPOCH (PMRA in seconds of time per year).

    A product has EQUINOX alone, which for Gemini is the same."""
    ra, dec = angle(cards.get("RA"), True), angle(cards.get("DEC"), False)
    epoch = number(cards, "EPOCH") or number(cards, "EQUINOX")
    if ra is None or dec is None or when is None or not epoch or epoch < 1850:
        return ra, dec
    years = when.year + (when.timetuple().tm_yday - 1) / 365.25 - epoch
    ra += (number(cards, "PMRA") or 0.0) * 15.0 * years / 3600.0
    return ra % 360.0, dec + (number(cards, "PMDEC") or 0.0) * years / 3600.0


def _detector_offsets(cards: Cards, scale: float | None) -> tuple[float | None, float | None]:
    """Pixels by which the telescope offset moves the sky; the bottom port without AO mirrors x."""
    p, q = number(cards, "POFFSET"), number(cards, "QOFFSET")
    if p is None or q is None or not scale:
        return None, None
    mirrored = _integer(cards, "INPORT") == 1 and text(cards, "AOFOLD") != "IN"
    return (-p if mirrored else p) / scale, -q / scale


def _wavefront_sensor(cards: Cards) -> str | None:
    sensors = ("AOWFS", "OIWFS", "PWFS1", "PWFS2")
    return "&".join(s for s in sensors if text(cards, f"{s}_ST") == "guiding") or None


def _qa_state(cards: Cards) -> str:
    """Gemini's quality assessment in one word, from the two cards that hold it."""
    pi, gemini = text(cards, "RAWPIREQ"), text(cards, "RAWGEMQA")
    both = ((pi or "UNKNOWN").upper(), (gemini or "UNKNOWN").upper())
    if "UNKNOWN" in both:
        return "Undefined"
    if "CHECK" in both:
        return "CHECK"
    if both[1] == "BAD":
        return "Fail"
    return {("YES", "USABLE"): "Pass", ("NO", "USABLE"): "Usable"}.get(both, "Undefined")


def _percentile(cards: Cards, key: str) -> int | None:
    return conditions.percentile(text(cards, key))


def _positive(cards: Cards, key: str) -> float | None:
    value = number(cards, key)
    return value if value is not None and value > 0 else None
