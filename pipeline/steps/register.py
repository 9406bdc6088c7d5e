"""Registration: WCS corrected to the first frame's, frames on one grid, counts on one scale."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from pipeline import niri, pointing
from pipeline.errors import FrameMismatch
from pipeline.frame import SATURATED, Frame, Frames
from pipeline.params import bounded
from pipeline.primitive import Calibrations, note, primitive
from pipeline.tags import tags_of
from pipeline.tangent import affine_between

if TYPE_CHECKING:
    from pipeline.algorithms.matching import Match, Points
    from pipeline.algorithms.resampling import Mapping

# Pixels over the whole frame by which turn and scale may move a pixel and still count as a plain shift.
NEGLIGIBLE = 0.02


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
        _by_offsets(reference, frame) if moving or params.method == "offsets" else _by_wcs(reference, frame)
    )
    if start is None:
        start = _by_wcs(reference, frame)
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
        reference, frame, told or _by_wcs(reference, frame), Match(0.0, 0.0, math.nan, 0), "offsets"
    ), text


def _by_wcs(reference: Frame, frame: Frame) -> Mapping:
    """Pixels of the frame from those of the reference, as their headers have it."""
    from pipeline.algorithms.resampling import Mapping

    ny, nx = reference.shape
    centre = ((nx - 1) / 2, (ny - 1) / 2)
    a, b, c, d, e, f = affine_between(pointing.projection(reference), pointing.projection(frame), centre)
    return Mapping(a, b, c, d, e, f)


def _by_offsets(reference: Frame, frame: Frame) -> Mapping | None:
    """The same from the telescope offsets; None where the headers have none."""
    from pipeline.algorithms.resampling import Mapping

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


@dataclass(frozen=True)
class ResampleParams:
    interpolant: Literal["cubic", "poly3", "poly5", "spline3", "spline5", "linear", "nearest"] = bounded(
        "cubic",
        dragons="poly3",
        doc="cubic convolution, bad pixels replaced; polynomials or splines of order 3, 5; linear; nearest",
    )
    trim_data: bool = bounded(False, doc="keep the reference's field only, not the union of all")
    clean_data: bool = bounded(
        False,
        doc="replace bad pixels from their neighbours before others than cubic run over them",
    )
    conserve: bool = bounded(True, doc="conserve flux where the scale changes")
    force_affine: bool = bounded(True, doc="take any mapping for an affine one")
    dq_threshold: float = bounded(
        0.1, gt=0, le=1, dragons=0.001, doc="weight of bad pixels in an output pixel from which it is bad"
    )
    distortion: bool = bounded(True, dragons=False, doc="correct the distortion of f/32 with AO")


@primitive("resampleToCommonFrame", ResampleParams)
def resample_to_common_frame(frames: Frames, params: ResampleParams, cals: Calibrations) -> Frames:
    """Bring all frames onto the pixel grid of the first, enlarged to hold all of them.

    The first frame is copied, not interpolated (unless it has distortion to correct). Outside a frame: 0,
    VAR 0, DQ 16. Sets NOISECOR, the noise of single pixels over sqrt(VAR), and SKYCOV, the covariance of
    the frames through skies that they share (see `skysubtract`). A single frame without distortion stays
    as it is.

    Raises FrameMismatch for frames of different shapes.
    """
    from pipeline.algorithms import resampling

    reference = frames[0]
    for frame in frames[1:]:
        if frame.shape != reference.shape:
            raise FrameMismatch(
                f"{frame.name} has {frame.shape} pixels, {reference.name} has {reference.shape}"
            )
    mappings = [mapping_onto(reference, frame, params.distortion) for frame in frames]
    if len(frames) == 1 and mappings[0].is_shift:
        return frames
    ny, nx = reference.shape
    grid = resampling.Grid(0, 0, (ny, nx)) if params.trim_data else resampling.union_grid(mappings, (ny, nx))
    covariance = _shared_sky(frames, mappings)
    return [
        _onto(frame, reference, mapping, grid, covariance, params)
        for frame, mapping in zip(frames, mappings, strict=True)
    ]


def mapping_onto(reference: Frame, frame: Frame, correct: bool = True) -> Mapping:
    """Pixels of a frame from those of the reference's grid; a pure shift where that is what it amounts to."""
    from pipeline.algorithms.resampling import Mapping

    ny, nx = frame.shape
    centre = ((nx - 1) / 2, (ny - 1) / 2)
    k = distortion_of(frame) if correct else 0.0
    if frame is reference:
        return Mapping(distortion=k, centre=centre)
    full = _by_wcs(reference, frame)
    turn = max(abs(full.a - 1), abs(full.b), abs(full.d), abs(full.e - 1)) * max(nx, ny) / 2
    if turn < NEGLIGIBLE:
        x, y = (float(v) for v in full.to_input(*centre))
        return Mapping(c=x - centre[0], f=y - centre[1], distortion=k, centre=centre)
    return Mapping(full.a, full.b, full.c, full.d, full.e, full.f, k, centre)


def _onto(
    frame: Frame, reference: Frame, mapping: Mapping, grid: Any, covariance: float, params: ResampleParams
) -> Frame:
    from pipeline.algorithms import resampling

    sci, var = frame.sci, frame.var
    if params.interpolant == "cubic":
        moved = resampling.resample(
            sci, var, frame.dq, mapping, grid, conserve=params.conserve, matters=params.dq_threshold
        )
    else:
        if params.clean_data:
            sci, var = resampling.fill_bad(sci, var, (frame.dq & resampling.WORTHLESS) != 0)
        moved = resampling.resample_plainly(
            sci, var, frame.dq, mapping, grid,
            interpolant=params.interpolant, conserve=params.conserve, dq_threshold=params.dq_threshold,
        )  # fmt: skip
    ny, nx = grid.shape
    header = reference.header
    cards: dict[str, Any] = {
        key: header[key] for key in ("CRVAL1", "CRVAL2", "CD1_1", "CD1_2", "CD2_1", "CD2_2")
    }
    cards |= {
        "CRPIX1": header["CRPIX1"] - grid.x0,
        "CRPIX2": header["CRPIX2"] - grid.y0,
        "DATASEC": (f"[1:{nx},1:{ny}]", "Data section"),
        "NOISECOR": (round(moved.noise, 4), "Noise of single pixels over sqrt(VAR)"),
        "SKYCOV": (round(covariance, 4), "Covariance of frames through skies they share"),
    }
    catalog = frame.catalog
    if catalog is not None:
        catalog = catalog.copy()
        for x, y in (("X_IMAGE", "Y_IMAGE"), ("X_FIT", "Y_FIT")):
            u, v = mapping.to_output(catalog[x] - 1, catalog[y] - 1)
            known = catalog[x] > -900
            catalog[x] = np.where(known, u - grid.x0 + 1, catalog[x])
            catalog[y] = np.where(known, v - grid.y0 + 1, catalog[y])
    return frame.stamped(
        "ALIGN", sci=moved.sci, var=moved.var, dq=moved.dq, objmask=None, catalog=catalog, cards=cards
    )


# Pixels a side of the block for whose sum the covariance is right: between a pixel and an aperture.
BLOCK = 12.0


def _shared_sky(frames: Frames, mappings: list[Mapping]) -> float:
    """Mean covariance of two frames through skies made of the same frames, for sums over a block of pixels.

    Two skies of n and m frames, c of them in common, have the covariance SKYVAR c / sqrt(n m); a frame
    that is in the sky of another takes away twice what one of n frames brings. On the common grid only the
    part counts over which a block still sees the same detector pixels after the shift.
    """
    n = len(frames)
    total = 0.0
    for i in range(n):
        for j in range(i):
            dx, dy = abs(mappings[i].c - mappings[j].c), abs(mappings[i].f - mappings[j].f)
            overlap = max(0.0, 1 - dx / BLOCK) * max(0.0, 1 - dy / BLOCK)
            if overlap == 0:
                continue
            a, b = set(frames[i].skies), set(frames[j].skies)
            if not a or not b:
                continue
            brought = math.sqrt(_sky_var(frames[i]) * _sky_var(frames[j]))
            total += overlap * brought * len(a & b) / math.sqrt(len(a) * len(b))
            total -= overlap * brought * ((frames[i].name in b) + (frames[j].name in a))
    return max(0.0, 2 * total / (n * (n - 1))) if n > 1 else 0.0


def _sky_var(frame: Frame) -> float:
    return float(frame.header.get("SKYVAR", 0.0) or 0.0)


@dataclass(frozen=True)
class ScaleCountsParams:
    tolerance: float = bounded(
        0.0,
        ge=0,
        le=1,
        doc="scale by the flux of common sources where within this of the exposure times' ratio; 0 is off",
    )
    radius: float = bounded(0.5, gt=0, doc="arcsec within which two sources are one")


@primitive("scaleCountsToReference", ScaleCountsParams)
def scale_counts_to_reference(frames: Frames, params: ScaleCountsParams, cals: Calibrations) -> Frames:
    """Bring the counts of all frames to the exposure time of the first.

    The factor is t_ref / t; with a tolerance, the ratio of the fluxes of common sources instead, where
    that is within [1 - tolerance, 1 / (1 - tolerance)] of it. Frames that need none stay as they are; else
    ORIGTEXP keeps the time.
    """
    if len(frames) < 2:
        return frames
    reference = frames[0]
    time = reference.descriptors.exposure_time or 0.0
    out = [reference]
    for frame in frames[1:]:
        own = frame.descriptors.exposure_time or 0.0
        factor = time / own if own > 0 and time > 0 else 1.0
        if params.tolerance > 0:
            measured = _flux_ratio(reference, frame, params.radius)
            if measured and 1 - params.tolerance <= measured / factor <= 1 / max(1 - params.tolerance, 1e-6):
                factor = measured
        if abs(factor - 1) < 1e-9:
            out.append(frame)
            continue
        cards = {
            "ORIGTEXP": (own, "[s] Exposure time before scaling"),
            "EXPTIME": (time, "Exposure time of all coadds together [s]"),
            "SCALEFAC": (round(factor, 6), "Factor applied to the counts"),
        }
        out.append((frame * factor).stamped("SCALEOBJ", cards=cards))
    return out


def _flux_ratio(reference: Frame, frame: Frame, arcsec: float) -> float | None:
    """Flux of the reference's sources over the frame's, weighted mean; None without a common one."""
    a, b = reference.catalog, frame.catalog
    if a is None or b is None or not a.size or not b.size:
        return None
    radius = arcsec / pointing.projection(frame).pixel_scale
    away = np.hypot(
        np.subtract.outer(a["X_IMAGE"], b["X_IMAGE"]), np.subtract.outer(a["Y_IMAGE"], b["Y_IMAGE"])
    )
    j = away.argmin(axis=1)
    same = (away.min(axis=1) <= radius) & (a["FLUX_AUTO"] > 0) & (b["FLUX_AUTO"][j] > 0)
    same &= (a["NIMAFLAGS_ISO"] == 0) & (b["NIMAFLAGS_ISO"][j] == 0)
    if not same.any():
        return None
    fa, fb = a["FLUX_AUTO"][same].astype(float), b["FLUX_AUTO"][j][same].astype(float)
    relative2 = (a["FLUXERR_AUTO"][same] / fa) ** 2 + (b["FLUXERR_AUTO"][j][same] / fb) ** 2
    return float(np.exp(np.average(np.log(fa / fb), weights=1 / np.maximum(relative2, 1e-8))))


def with_common_noise(stack: Frame, frames: Frames) -> Frame:
    """The stack of these aligned frames with the noise that they have in common, and its NOISECOR.

    A stack of m independent frames has VAR = sum VAR / m²; with the covariance SKYCOV between any two of
    them it has SKYCOV (m - 1) / m more. NOISECOR² is the mean of the frames', weighted by their variances.
    """
    if stack.var is None or len(frames) < 2 or "NOISECOR" not in frames[0].header:
        return stack
    typical = np.array([_typical(f) for f in frames])
    factors = np.array([float(f.header.get("NOISECOR", 1.0)) for f in frames])
    total = float(typical.sum())
    noise = math.sqrt(float((typical * factors**2).sum()) / total) if total > 0 else 1.0
    cards = {"NOISECOR": (round(noise, 4), "Noise of single pixels over sqrt(VAR)")}
    covariance = float(frames[0].header.get("SKYCOV", 0.0) or 0.0)
    if covariance <= 0:
        return stack.evolve(cards=cards)
    used = stack.coverage if stack.coverage is not None else np.full(stack.shape, len(frames), np.uint16)
    share = np.maximum(used, np.uint16(1)).astype(np.float32)
    var = stack.var + np.float32(covariance) * (1 - 1 / share) * (used > 0)
    return stack.evolve(var=var.astype(np.float32), cards=cards)


def _typical(frame: Frame) -> float:
    """Median variance of the good pixels, from one in 64."""
    if frame.var is None:
        return 1.0
    thin = (slice(None, None, 8), slice(None, None, 8))
    values = frame.var[thin][(frame.dq[thin] == 0) & (frame.var[thin] > 0)]
    return float(np.median(values)) if values.size else 0.0
