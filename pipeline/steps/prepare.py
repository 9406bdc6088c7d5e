"""prepare: check a raw frame, complete its header, and see that its world coordinates can be trusted."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from pipeline import niri
from pipeline.errors import BadFrame, NotEnoughFrames
from pipeline.frame import Frame, Frames
from pipeline.headers import wcscards
from pipeline.headers.times import odd_date
from pipeline.headers.values import number, sane_wcs
from pipeline.params import bounded
from pipeline.primitive import Calibrations, note, primitive

# Below this many frames a group whose other frames have no usable WCS is not worth reducing.
FEWEST_WITH_WCS = 3
SOFTWARE = "nirid"
ADU = {"adu", "count", "counts", "dn", "data numbers"}
LONGEST_EXPOSURE = 86400.0  # seconds, all coadds together; what is not below a day is no exposure


@dataclass(frozen=True)
class PrepareParams:
    mode: Literal["sq", "ql", "qa"] = bounded(
        "sq", doc="science quality; in quick look and quality assessment a missing dark or flat is no error"
    )
    bad_wcs: Literal["exit", "fix", "new", "ignore"] = bounded(
        "fix",
        dragons="exit",
        doc="a frame with a wrong WCS: stop, mend from the base frame, make anew, ignore",
    )
    debug_consistency_limit: float = bounded(
        30.0, ge=0, doc="arcsec that the WCS may differ from the target plus offsets"
    )
    debug_max_deadtime: float = bounded(
        60.0, ge=0, doc="seconds between exposures after which a frame is a new base for the WCS check"
    )


@primitive("prepare", PrepareParams)
def prepare(frames: Frames, params: PrepareParams, cals: Calibrations) -> Frames:
    """Validate the frames, write the detector's values into their headers, check their WCS.

    After it EXPTIME is the total of all coadds in seconds, and GAIN, RDNOISE (electrons), SATLEVEL and
    NONLINEA (ADU) are in the header. A frame whose WCS cannot be mended is left out with a note.
    Raises BadFrame for another instrument; NotEnoughFrames when the WCS leaves fewer than 3.
    """
    prepared = [_standardise(_with_reading(_validated(frame)), params.mode) for frame in frames]
    if any({"DARK", "FLAT", "ARC"} & frame.tags for frame in prepared):
        return prepared
    return _check_wcs(prepared, params)


def _validated(frame: Frame) -> Frame:
    tags = frame.tags
    if "NIRI" not in tags:
        raise BadFrame(frame.name, f"INSTRUME is {frame.header.get('INSTRUME')!r}, wanted NIRI")
    if not 0 < (frame.descriptors.exposure_time or 0.0) < LONGEST_EXPOSURE:
        raise BadFrame(frame.name, f"EXPTIME is {frame.header.get('EXPTIME')!r}, wanted seconds")
    coadds, raw = frame.header.get("COADDS"), "PREPARE" not in frame.header
    if coadds is not None and raw and frame.descriptors.coadds != number(frame.header, "COADDS"):
        return frame.evolve(note=f"{frame.name}: COADDS is {coadds!r}; {frame.descriptors.coadds} taken")
    return frame


def _standardise(frame: Frame, mode: str) -> Frame:
    """The header as every later step expects it; a frame that is prepared already stays as it is."""
    if "PREPARE" in frame.header:
        return frame
    facts = frame.descriptors
    cards = {
        "ORIGNAME": (frame.header.get("ORIGNAME", frame.name), "Original file name"),
        "PROCSOFT": (SOFTWARE, "Data processing software used"),
        "PROCMODE": (mode, "Processing mode [sq|ql|qa]"),
        "FILTER": (facts.filter_pretty, "Combined filter name"),
        "PIXSCALE": (facts.pixel_scale or _nominal_scale(frame), "Pixel scale [arcsec/pixel]"),
        "BUNIT": ("adu", "Physical units of the array values"),
        "EXPTIME": (facts.exposure_time, "Exposure time of all coadds together [s]"),
        "GAIN": (facts.gain, "Gain [electrons/data value]"),
        "RDNOISE": (facts.read_noise, "Estimated read noise [electrons]"),
        "SATLEVEL": (facts.saturation_level, "Saturation level [adu]") if facts.saturation_level else None,
        "NONLINEA": (facts.non_linear_level, "Non-linear regime [adu]") if facts.non_linear_level else None,
    }
    if facts.ut_datetime and (odd_date(frame.header) or not str(frame.header.get("DATE-OBS") or "").strip()):
        # The assumed time stays with the product: its name and other cards would give another one.
        cards["DATE-OBS"] = (f"{facts.ut_datetime:%Y-%m-%d}", "UT date of the exposure, as it was taken")
        cards["UT"] = (f"{facts.ut_datetime.time().isoformat('milliseconds')}", "UT of its start")
    for text in _assumed(frame):
        frame = frame.evolve(note=f"{frame.name}: {text}")
    for stamp in ("VALDATA", "SDZSTRUC", "SDZHDRSG", "SDZHDRSI", "SDZWCS"):
        cards[stamp] = (frame.stamp, f"UT time stamp for {stamp}")
    # Cards of the total exposure are only right together with PREPARE, so they are set in one go.
    return frame.stamped("PREPARE", cards=cards)


def _assumed(frame: Frame) -> list[str]:
    """What the header of a raw frame does not say, or says wrong, and what is taken for it."""
    facts, header, told = frame.descriptors, frame.header, []
    if facts.read_mode == "Unknown":
        pair = (header.get("LNRS"), header.get("NDAVGS"))
        told.append(f"no read mode has (LNRS, NDAVGS) = {pair}; read noise of Medium Background used")
    if facts.saturation_level is None:
        told.append("well depth is unknown (A_VDDUC, A_VDET); saturation cannot be flagged")
    if str(header.get("BUNIT") or "adu").strip().lower() not in ADU:
        told.append(f"BUNIT is {header['BUNIT']!r}; a raw frame is in adu")
    if facts.ut_datetime is None and not odd_date(header):
        told.append("no time of the exposure in its header; taken for the last")
    return told


def _with_reading(frame: Frame) -> Frame:
    """With a note where its world coordinates were read in another way than they are written."""
    if said := frame.header.get(wcscards.READ):
        frame = frame.evolve(note=f"{frame.name}: world coordinates: {said}")
    if odd := odd_date(frame.header):
        taken = frame.descriptors.ut_datetime
        known = f"{taken:%Y-%m-%d %H:%M:%S}, from elsewhere, is taken" if taken else "its time is unknown"
        frame = frame.evolve(note=f"{frame.name}: DATE-OBS {odd!r} is no date; {known}")
    return frame


def _nominal_scale(frame: Frame) -> float | None:
    camera = frame.descriptors.camera or ""
    if camera == "f32" and frame.descriptors.is_ao:
        return niri.PIXEL_SCALE_F32_AO
    return niri.PIXEL_SCALES.get(camera)


def _check_wcs(frames: Frames, params: PrepareParams) -> Frames:
    """Mend or leave out frames whose WCS is absurd or did not follow the telescope offsets."""
    kept: Frames = []
    lost: list[str] = []
    base: Frame | None = None  # the first good one since the last pause
    previous: Frame | None = None
    for frame in frames:
        if previous is not None and _after_a_pause(frame, previous, params.debug_max_deadtime):
            base = None
        previous = frame
        problem = _problem(frame, base, params)
        if problem and params.bad_wcs == "exit":
            raise BadFrame(frame.name, problem)
        if problem and params.bad_wcs != "ignore":
            mended = _mend(
                frame, (base or _sane(frames, frame)) if params.bad_wcs == "fix" else None, problem
            )
            if mended is None:
                lost.append(f"{frame.name} left out: {problem}, and it cannot be rebuilt from its header")
                continue
            frame = mended
        elif not problem:
            base = base or frame
        kept.append(frame)
    if lost and len(kept) < FEWEST_WITH_WCS:
        raise NotEnoughFrames(f"{len(kept)} frames have a usable WCS, wanted {FEWEST_WITH_WCS}: {lost[0]}")
    for text in lost:
        kept = note(kept, text)
    return kept


def _sane(frames: Frames, frame: Frame) -> Frame | None:
    """A frame of the same observation that has a WCS at all, before or after."""
    own = frame.descriptors.observation_id
    return next((f for f in frames if f.descriptors.observation_id == own and sane_wcs(f.header)), None)


def _after_a_pause(frame: Frame, previous: Frame, dead_time: float) -> bool:
    now, then = frame.descriptors, previous.descriptors
    if now.observation_id != then.observation_id:
        return True
    if now.ut_datetime is None or then.ut_end is None:
        return False
    return (now.ut_datetime - then.ut_end).total_seconds() > dead_time


def _problem(frame: Frame, base: Frame | None, params: PrepareParams) -> str | None:
    """What is wrong with the WCS, in words; None when nothing is.

    The base frame is held against the target's coordinates moved by the telescope offsets, the others
    against the base: the WCS must have followed an offset of more than 10 pixels at least half way, and
    in the same direction where it is more than 2 pixels.
    """
    if not sane_wcs(frame.header):
        refused = frame.header.get(wcscards.REFUSED)
        return str(refused) if refused else "it has no WCS, or none that a NIRI camera can have"
    if "NON_SIDEREAL" in frame.tags:
        return None
    facts = frame.descriptors
    if facts.is_ao and frame.header.get("CRFOLLOW") == "no":
        return None
    if facts.detector_x_offset is None or facts.detector_y_offset is None:
        return None
    if base is None:
        # Telescope coordinates are often off by more; only the strict mode treats it as wrong.
        apart = _arcsec_from_target(frame) if params.bad_wcs == "exit" else None
        limit = params.debug_consistency_limit
        if apart is not None and apart > limit:
            return f"its WCS is {apart:.0f} arcsec from the target plus offsets, wanted {limit:g}"
        return None
    was = base.descriptors
    if was.detector_x_offset is None or was.detector_y_offset is None:
        return None
    told = (facts.detector_x_offset - was.detector_x_offset, facts.detector_y_offset - was.detector_y_offset)
    seen = _shift(base, frame)
    if math.hypot(*told) > 10 and math.hypot(*seen) < 0.5 * math.hypot(*told):
        return f"the telescope moved by {math.hypot(*told):.0f} pixels, its WCS by {math.hypot(*seen):.0f}"
    if any(abs(t) > 2 and abs(s) > 2 and t * s < 0 for t, s in zip(told, seen, strict=True)):
        moved = f"({seen[0]:.0f}, {seen[1]:.0f}) pixels, the telescope by ({told[0]:.0f}, {told[1]:.0f})"
        return f"its WCS moved by {moved}"
    return None


def _shift(base: Frame, frame: Frame) -> tuple[float, float]:
    """Pixels by which the sky of `base` has moved on the detector in `frame`, from the two WCS."""
    h, wcs = base.header, frame.tangent
    assert wcs is not None, "only asked of a sane WCS"
    x, y = wcs.to_pixel(h["CRVAL1"], h["CRVAL2"])
    return float(x) + 1 - h["CRPIX1"], float(y) + 1 - h["CRPIX2"]


def _arcsec_from_target(frame: Frame) -> float | None:
    facts, wcs = frame.descriptors, frame.tangent
    if wcs is None or facts.target_ra is None or facts.target_dec is None:
        return None
    x, y = wcs.to_pixel(facts.target_ra, facts.target_dec)
    dx = float(x) + 1 - frame.header["CRPIX1"] - (facts.detector_x_offset or 0.0)
    dy = float(y) + 1 - frame.header["CRPIX2"] - (facts.detector_y_offset or 0.0)
    scale = facts.pixel_scale or 0.0
    return math.hypot(dx, dy) * scale if math.isfinite(dx + dy) else math.inf


def _mend(frame: Frame, base: Frame | None, problem: str) -> Frame | None:
    """The frame with a WCS from the base frame, else from target, position angle and camera scale."""
    if base is not None and sane_wcs(base.header):
        cards = {key: base.header[key] for key in ("CTYPE1", "CTYPE2", "CRVAL1", "CRVAL2")}
        cards |= {key: base.header[key] for key in ("CD1_1", "CD1_2", "CD2_1", "CD2_2")}
        was = base.descriptors
        moved = _offset_pixels(frame, base.descriptors.pixel_scale or 1.0)
        home = _offset_pixels(base, was.pixel_scale or 1.0)
        cards["CRPIX1"] = base.header["CRPIX1"] + moved[0] - home[0]
        cards["CRPIX2"] = base.header["CRPIX2"] + moved[1] - home[1]
        how = f"rebuilt from {base.name} and the telescope offsets"
    else:
        made = nominal_wcs(frame)
        if made is None:
            return None
        cards, how = made, "made from target, position angle and camera scale"
    return frame.evolve(cards=cards, note=f"{frame.name}: {problem}; {how}")


def _offset_pixels(frame: Frame, scale: float) -> tuple[float, float]:
    """Telescope offset in pixels, from POFFSET and QOFFSET; before 2005 from RAOFFSET and DECOFFSE.

    RAOFFSET = -P cos PA + Q sin PA and DECOFFSE = -P sin PA - Q cos PA in real headers that have all four.
    """
    facts, h = frame.descriptors, frame.header
    p, q = facts.poffset, facts.qoffset
    if p is None or q is None:
        angle = math.radians(facts.position_angle or 0.0)
        ra, dec = number(h, "RAOFFSET") or 0.0, number(h, "DECOFFSE") or 0.0
        p = -ra * math.cos(angle) - dec * math.sin(angle)
        q = ra * math.sin(angle) - dec * math.cos(angle)
    flip = -1.0 if facts.inport == 1 and not facts.is_ao else 1.0
    return flip * p / scale, -q / scale


def nominal_wcs(frame: Frame) -> dict[str, object] | None:
    """A tangent-plane WCS from the target, the position angle and the camera's scale; None without them.

    North is up and East left at PA 0, except on the bottom port without AO, where East is right
    (Gemini's NIRI pages). The target sits at the array's centre, moved by the telescope offset.
    """
    facts = frame.descriptors
    scale = _nominal_scale(frame)
    if scale is None or facts.target_ra is None or facts.target_dec is None:
        return None
    angle = math.radians(facts.position_angle or 0.0)
    s = scale / 3600.0
    flip = -1.0 if facts.inport == 1 and not facts.is_ao else 1.0
    dx, dy = _offset_pixels(frame, scale)
    ny, nx = frame.shape
    return {
        "CTYPE1": "RA---TAN",
        "CTYPE2": "DEC--TAN",
        "CRVAL1": facts.target_ra,
        "CRVAL2": facts.target_dec,
        "CRPIX1": (nx + 1) / 2 + dx,
        "CRPIX2": (ny + 1) / 2 + dy,
        "CD1_1": -flip * s * math.cos(angle),
        "CD1_2": s * math.sin(angle),
        "CD2_1": flip * s * math.sin(angle),
        "CD2_2": s * math.cos(angle),
        "PIXSCALE": (scale, "Pixel scale [arcsec/pixel]"),
    }
