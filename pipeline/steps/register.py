"""Registration: the WCS of all frames corrected to agree with that of the first."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from pipeline import niri, pointing
from pipeline.frame import SATURATED, Frame, Frames
from pipeline.params import bounded
from pipeline.primitive import Calibrations, note, primitive
from pipeline.tags import tags_of
from pipeline.tangent import affine_between

if TYPE_CHECKING:
    from pipeline.algorithms.grids import Mapping
    from pipeline.algorithms.matching import Match, Points


@dataclass(frozen=True)
class AdjustWCSParams:
    method: Literal["sources", "offsets"] = bounded(
        "sources", doc="what is compared: sources, or header offsets"
    )
    fallback: Literal["offsets", "header"] | None = bounded(
        "offsets",
        doc="where the method fails: telescope offsets, the header's WCS, or leave the frame out (None)",
    )
    first_pass: float = bounded(5.0, gt=0, doc="arcsec within which the first match looks")
    match_radius: float = bounded(0.5, gt=0, doc="arcsec within which two sources are one")
    min_sources: int = bounded(1, ge=1, dragons=3, doc="fewest matched sources that are believed")
    cull_sources: bool = bounded(False, doc="compare stars only")
    rotate: bool = bounded(False, doc="fit a rotation too")
    scale: bool = bounded(False, doc="fit a scale too")
    pixels: bool = bounded(True, dragons=False, doc="where sources fail, compare the pixels themselves")
    distortion: bool = bounded(True, dragons=False, doc="allow for the distortion of f/32 with AO")


@primitive("adjustWCSToReference", AdjustWCSParams)
def adjust_wcs_to_reference(frames: Frames, params: AdjustWCSParams, cals: Calibrations) -> Frames:
    """Correct the WCS of all frames to agree with that of the first, whose WCS stays.

    By matched sources, one bright one being enough; else by the cross-correlation of the images; else by the
    telescope offsets. A moving target is matched by itself, never by stars. Sets REGMETH, REGNUM
    (sources), REGERR (achieved precision in pixels), REGDX and REGDY (what was corrected). What had to
    fall back is noted.
    """
    if len(frames) < 2:
        return frames
    reference = frames[0]
    out = [reference.stamped("CORRWCS", cards={"REGMETH": ("reference", "How this frame was registered")})]
    notes = []
    for frame in frames[1:]:
        moved, text = _registered(reference, frame, params)
        if moved is not None:
            out.append(moved)
        if text:
            notes.append(text)
    for text in notes:
        out = note(out, text)
    return out


def _registered(reference: Frame, frame: Frame, params: AdjustWCSParams) -> tuple[Frame | None, str | None]:
    """(the frame with its WCS corrected, what a person should know)."""
    moving = "NON_SIDEREAL" in tags_of(reference.header)
    start = (
        _by_offsets(reference, frame) if moving or params.method == "offsets" else by_wcs(reference, frame)
    )
    if start is None:
        start = by_wcs(reference, frame)
    match, how = None, "offsets"
    if params.method == "sources":
        match, how = _match_target(reference, frame, start, params), "target"
        if not moving:
            match, how = _match_sources(reference, frame, start, params), "sources"
            if match is None and params.pixels:
                match, how = _match_pixels(reference, frame, start, params), "pixels"
    if match is not None:
        # A match is laid over `start`, which for a moving target is not what the header says.
        return _moved(reference, frame, start, match, how), None
    text = None
    if params.method == "sources":
        text = f"{frame.name}: neither sources nor pixels tell its shift; "
        if params.fallback is None:
            return None, text + "left out"
        text += (
            "aligned by telescope offsets" if params.fallback == "offsets" else "aligned by its header's WCS"
        )
    told = (
        _by_offsets(reference, frame) if params.fallback == "offsets" or params.method == "offsets" else None
    )
    from pipeline.algorithms.matching import Match

    return _moved(
        reference, frame, told or by_wcs(reference, frame), Match(0.0, 0.0, math.nan, 0), "offsets"
    ), text


def by_wcs(reference: Frame, frame: Frame) -> Mapping:
    """Pixels of the frame from those of the reference, as their headers have it."""
    from pipeline.algorithms.grids import Mapping

    ny, nx = reference.shape
    centre = ((nx - 1) / 2, (ny - 1) / 2)
    a, b, c, d, e, f = affine_between(pointing.projection(reference), pointing.projection(frame), centre)
    return Mapping(a, b, c, d, e, f)


def _by_offsets(reference: Frame, frame: Frame) -> Mapping | None:
    """The same from the telescope offsets; None where the headers have none."""
    from pipeline.algorithms.grids import Mapping

    a, b = reference.descriptors, frame.descriptors
    if a.detector_x_offset is None or b.detector_x_offset is None:
        return None
    if a.detector_y_offset is None or b.detector_y_offset is None:
        return None
    return Mapping(c=b.detector_x_offset - a.detector_x_offset, f=b.detector_y_offset - a.detector_y_offset)


def _match_sources(reference: Frame, frame: Frame, start: Mapping, params: AdjustWCSParams) -> Match | None:
    from pipeline.algorithms import matching

    if reference.catalog is None or frame.catalog is None:
        return None
    scale = pointing.projection(frame).pixel_scale
    there = _points(reference, params)
    x, y = start.to_input(there.x, there.y)
    ny, nx = frame.shape
    search, radius = params.first_pass / scale, max(params.match_radius / scale, 2.0)
    # What lies outside this frame cannot match, but would count as the brightest.
    inside = (x > -search) & (x < nx + search) & (y > -search) & (y < ny + search)
    expected = matching.Points(x[inside], y[inside], there.error[inside], there.flux[inside])
    return matching.match_sources(
        expected, _points(frame, params), search=search, radius=radius, least=params.min_sources,
        rotate=params.rotate, stretch=params.scale, centre=((nx - 1) / 2, (ny - 1) / 2),
    )  # fmt: skip


def _points(frame: Frame, params: AdjustWCSParams) -> Points:
    """The frame's sources, free of distortion: the fitted place where there is one, else the centroid."""
    from pipeline.algorithms import matching

    t = frame.catalog
    assert t is not None
    if params.cull_sources and (t["STAR"] == 1).sum() >= params.min_sources:
        t = t[t["STAR"] == 1]
    saturated = (t["IMAFLAGS_ISO"] & int(SATURATED)) != 0
    fitted = (t["ERR_FIT"] > 0) & ~saturated
    x = np.where(fitted, t["X_FIT"], t["X_IMAGE"]) - 1
    y = np.where(fitted, t["Y_FIT"], t["Y_IMAGE"]) - 1
    # A centroid: its rms width over signal to noise, and no better than a twentieth of a pixel.
    with np.errstate(divide="ignore", invalid="ignore"):
        rough = np.nan_to_num(2.0 * t["A_IMAGE"] * t["FLUXERR_AUTO"] / t["FLUX_AUTO"], nan=1.0, posinf=1.0)
    error = np.where(fitted, t["ERR_FIT"], np.clip(np.abs(rough), 0.05, 2.0))
    error = np.where(saturated, np.maximum(error, 0.2), error).astype(float)
    x, y = undistorted(frame, x.astype(float), y.astype(float), params.distortion)
    return matching.Points(x, y, error, t["FLUX_AUTO"].astype(float))


def _match_pixels(reference: Frame, frame: Frame, start: Mapping, params: AdjustWCSParams) -> Match | None:
    from pipeline.algorithms import matching

    if reference.shape != frame.shape:
        return None
    ny, nx = frame.shape
    x, y = start.to_input((nx - 1) / 2, (ny - 1) / 2)
    guess = (float(x) - (nx - 1) / 2, float(y) - (ny - 1) / 2)
    found = matching.match_images(
        reference.sci, frame.sci, reference.dq != 0, frame.dq != 0,
        guess=guess, search=params.first_pass / pointing.projection(frame).pixel_scale,
    )  # fmt: skip
    return found._replace(dx=found.dx - guess[0], dy=found.dy - guess[1]) if found else None


def _match_target(reference: Frame, frame: Frame, start: Mapping, params: AdjustWCSParams) -> Match | None:
    """A moving target on itself: the brightest source near the place where offsets put it."""
    from pipeline.algorithms import matching

    if reference.catalog is None or frame.catalog is None:
        return None
    ny, nx = reference.shape
    facts = reference.descriptors
    place = ((nx - 1) / 2 + (facts.detector_x_offset or 0.0), (ny - 1) / 2 + (facts.detector_y_offset or 0.0))
    reach = params.first_pass / pointing.projection(frame).pixel_scale
    first = _brightest(_points(reference, params), *place, 2 * reach)
    if first is None:
        return None
    x, y = (float(v) for v in start.to_input(first.x[0], first.y[0]))
    second = _brightest(_points(frame, params), x, y, reach)
    if second is None or not 0.5 < second.flux[0] / first.flux[0] < 2.0:
        return None
    error = math.hypot(float(first.error[0]), float(second.error[0]))
    return matching.Match(float(second.x[0]) - x, float(second.y[0]) - y, error, 1)


def _brightest(points: Points, x: float, y: float, reach: float) -> Points | None:
    near = np.flatnonzero(np.hypot(points.x - x, points.y - y) <= reach)
    if not near.size:
        return None
    best = near[np.argmax(points.flux[near])]
    return type(points)(*(column[best : best + 1] for column in points))


def _moved(reference: Frame, frame: Frame, start: Mapping, match: Match, how: str) -> Frame:
    """The frame with the WCS that puts the reference's sky where start and match say that it lies."""
    header = reference.header
    x, y = match.to_image(*start.to_input(header["CRPIX1"] - 1.0, header["CRPIX2"] - 1.0))
    # The frame's pixel is M times the reference's; so its sky is the reference's of M^-1 pixels.
    c, s = match.scale * math.cos(match.angle), match.scale * math.sin(match.angle)
    linear = np.array([[c, -s], [s, c]]) @ np.array([[start.a, start.b], [start.d, start.e]])
    cd = np.array([[float(header[f"CD{i}_{j}"]) for j in (1, 2)] for i in (1, 2)]) @ np.linalg.inv(linear)
    cards: dict[str, Any] = {key: header[key] for key in ("CTYPE1", "CTYPE2", "CRVAL1", "CRVAL2")}
    cards |= {f"CD{i}_{j}": float(cd[i - 1, j - 1]) for i in (1, 2) for j in (1, 2)}
    cards |= {"CRPIX1": float(x) + 1.0, "CRPIX2": float(y) + 1.0}
    cards |= {
        "REGMETH": (how, "How this frame was registered"),
        "REGNUM": (match.number, "Sources that it was registered by"),
        "REGERR": (round(match.error, 4), "[pix] Precision of the registration") if match.error > 0 else None,
        "REGDX": (round(match.dx, 4), "[pix] Correction to the header's shift in x"),
        "REGDY": (round(match.dy, 4), "[pix] Correction to the header's shift in y"),
    }
    return frame.stamped("CORRWCS", cards=cards)


def distortion_of(frame: Frame) -> float:
    """Coefficient of r' = r + k r² (pixels) of the frame's optics; 0 but for f/32 with AO."""
    facts = frame.descriptors
    return niri.DISTORTION_F32_AO if facts.is_ao and (facts.camera or "").startswith("f32") else 0.0


def undistorted(frame: Frame, x: Any, y: Any, wanted: bool) -> tuple[Any, Any]:
    """Pixels where a frame without distortion would have them."""
    k = distortion_of(frame) if wanted else 0.0
    if not k:
        return x, y
    cx, cy = (frame.shape[1] - 1) / 2, (frame.shape[0] - 1) / 2
    stretch = 1 + k * np.hypot(x - cx, y - cy)
    return cx + (x - cx) * stretch, cy + (y - cy) * stretch
