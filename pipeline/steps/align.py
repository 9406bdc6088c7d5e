"""Frames on one grid and one scale of counts, and the noise that they share."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import FrameMismatch
from pipeline.frame import NO_DATA, FloatImage, Frame, Frames, for_each
from pipeline.headers.values import number
from pipeline.params import bounded
from pipeline.primitive import Calibrations, primitive
from pipeline.steps import pointing
from pipeline.steps.frameshifts import by_wcs, distortion_of
from pipeline.steps.reference import reference_of

if TYPE_CHECKING:
    from pipeline.algorithms.grids import Mapping

# Pixels over the whole frame by which turn and scale may move a pixel and still count as a plain shift.
NEGLIGIBLE = 0.02


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
    """Bring all frames onto the pixel grid of the reference, enlarged to hold all of them.

    The reference is the one of adjustWCSToReference, else the first; it is copied, not interpolated (unless
    it has distortion to correct). Outside a frame: 0, VAR 0, DQ 16. Sets NOISECOR, the noise of single pixels
    over sqrt(VAR), and SKYCOV, the covariance of the frames through skies that they share (see
    `skysubtract`). A single frame without distortion stays as it is.

    Raises FrameMismatch for frames of different shapes.
    """
    from pipeline.algorithms import grids

    reference = reference_of(frames)
    for frame in frames:
        if frame.shape != reference.shape:
            raise FrameMismatch(
                f"{frame.name} has {frame.shape} pixels, {reference.name} has {reference.shape}"
            )
    mappings = [mapping_onto(reference, frame, params.distortion) for frame in frames]
    if len(frames) == 1 and mappings[0].is_shift:
        return frames
    ny, nx = reference.shape
    grid = grids.Grid(0, 0, (ny, nx)) if params.trim_data else grids.union_grid(mappings, (ny, nx))
    covariance = _shared_sky(frames, mappings)

    def onto(place: int) -> Frame:
        return _onto(frames[place], reference, mappings[place], grid, covariance[place], params)

    return for_each(onto, range(len(frames)), cals.keep)


def mapping_onto(reference: Frame, frame: Frame, correct: bool = True) -> Mapping:
    """Pixels of a frame from those of the reference's grid; a pure shift where that is what it amounts to."""
    from pipeline.algorithms.grids import Mapping

    ny, nx = frame.shape
    centre = ((nx - 1) / 2, (ny - 1) / 2)
    k = distortion_of(frame) if correct else 0.0
    if frame is reference:
        return Mapping(distortion=k, centre=centre)
    full = by_wcs(reference, frame)
    turn = max(abs(full.a - 1), abs(full.b), abs(full.d), abs(full.e - 1)) * max(nx, ny) / 2
    if turn < NEGLIGIBLE:
        x, y = (float(v) for v in full.to_input(*centre))
        return Mapping(c=x - centre[0], f=y - centre[1], distortion=k, centre=centre)
    return Mapping(full.a, full.b, full.c, full.d, full.e, full.f, k, centre)


def _onto(
    frame: Frame,
    reference: Frame,
    mapping: Mapping,
    grid: Any,
    covariance: tuple[int, float, float],
    params: ResampleParams,
) -> Frame:
    from pipeline.algorithms import interpolate, resampling

    sci, var = frame.sci, frame.var
    if params.interpolant == "cubic":
        moved = resampling.resample(
            sci, var, frame.dq, mapping, grid, conserve=params.conserve, matters=params.dq_threshold
        )
    else:
        if params.clean_data:
            sci, var = resampling.fill_bad(sci, var, (frame.dq & resampling.WORTHLESS) != 0)
        moved = interpolate.resample_plainly(
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
        "SKYPLACE": (covariance[0] + 1, "First frame of those at its place of the target"),
        "SKYCOV": (round(covariance[1], 4), "Their covariance through skies they share"),
        "SKYCOVP": (round(covariance[2], 4), "The same of single pixels"),
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
PIXEL = 1.5  # the same of single pixels, which interpolation makes that much wider


def _shared_sky(frames: Frames, mappings: list[Mapping]) -> list[tuple[int, float, float]]:
    """(place, covariance, covariance of single pixels) of each frame: frames that lie within a block of one
    another have one place, and through skies made of the same frames this mean covariance, for sums over a
    block of pixels; that of pixels is smaller, since the shifts between the frames are no whole pixels.

    Two skies of n and m frames, c of them in common, have the covariance SKYVAR c / sqrt(n m); a frame
    that is in the sky of another takes away twice what one of n frames brings. On the common grid only the
    part counts over which a block still sees the same detector pixels after the shift.
    """
    n = len(frames)
    skies = [set(frame.skies) for frame in frames]
    place = list(range(n))
    pairs = []
    for i in range(n):
        for j in range(i):
            dx, dy = abs(mappings[i].c - mappings[j].c), abs(mappings[i].f - mappings[j].f)
            overlap, of_pixel = (max(0.0, 1 - dx / side) * max(0.0, 1 - dy / side) for side in (BLOCK, PIXEL))
            if overlap == 0:
                continue
            old, new = max(place[i], place[j]), min(place[i], place[j])
            place = [new if p == old else p for p in place]
            a, b = skies[i], skies[j]
            if not a or not b:
                continue
            brought = math.sqrt(_sky_var(frames[i]) * _sky_var(frames[j]))
            shared = len(a & b) / math.sqrt(len(a) * len(b)) - (frames[i].name in b) - (frames[j].name in a)
            pairs.append((i, overlap * brought * shared, of_pixel * brought * shared))
    out = []
    for own in place:
        size = place.count(own)
        many = max(size * (size - 1) / 2, 1)
        block, pixel = (math.fsum(pair[k] for pair in pairs if place[pair[0]] == own) / many for k in (1, 2))
        out.append((own, max(0.0, block), max(0.0, min(pixel, block))))
    return out


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

    The factor is t_ref / t, times that of judgeImages for a frame in cloud; with a tolerance, the ratio of
    the fluxes of common sources instead, where that is within [1 - tolerance, 1 / (1 - tolerance)] of it.
    Frames that need none stay as they are; else ORIGTEXP keeps the time.
    """
    if len(frames) < 2:
        return frames
    reference = frames[0]
    time = reference.descriptors.exposure_time or 0.0
    out = []
    for frame in frames:
        own = frame.descriptors.exposure_time or 0.0
        factor = time / own if own > 0 and time > 0 else 1.0
        if params.tolerance == 0:
            factor *= number(frame.header, "SCALEBY") or 1.0
        else:
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
        out.append((frame * factor).stamped("SCALEOBJ", cards=cards).kept(cals.keep))
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


def with_common_noise(stack: Frame, frames: Frames, weights: Sequence[float] | None = None) -> Frame:
    """The stack of these aligned frames with the noise that they have in common, and its NOISECOR.

    weights : of the frames in the stack; None is all alike

    A stack of m independent frames has VAR = sum VAR / m²; with the covariance SKYCOV between any two of
    them it has SKYCOV (m - 1) / m more; with weights w and factors s, SKYCOV times the sum over pairs of
    w s w s / (sum w)²; only frames of one place have any (`_shared_sky`). NOISECOR² is the mean of the
    frames', weighted by what they add to the noise, less what single pixels do not share of the common part.
    """
    if stack.var is None or len(frames) < 2 or "NOISECOR" not in frames[0].header:
        return stack
    share = np.array(weights or [1.0] * len(frames))
    share = share / share.sum()
    typical = np.array([_typical(f) for f in frames]) * (share * len(frames)) ** 2
    factors = np.array([float(f.header.get("NOISECOR", 1.0)) for f in frames])
    total = float(typical.sum())
    noise = math.sqrt(float((typical * factors**2).sum()) / total) if total > 0 else 1.0
    common = _common_variance(frames, share)
    var = stack.var if common is None else stack.var + common
    if common is not None:
        thin = (slice(4, None, 8), slice(4, None, 8))
        whole, part = float(np.median(var[thin])), float(np.median(common[thin]))
        block, pixel = (
            math.fsum(number(f.header, card) or 0.0 for f in frames) for card in ("SKYCOV", "SKYCOVP")
        )
        if whole > 0 and block > 0:
            noise *= math.sqrt(max(1 - part / whole * (1 - pixel / block), 0.25))
    return stack.evolve(
        var=var, cards={"NOISECOR": (round(noise, 4), "Noise of single pixels over sqrt(VAR)")}
    )


def _common_variance(frames: Frames, share: NDArray[np.float64]) -> FloatImage | None:
    """What the stack's VAR lacks, pixel by pixel: frames of one place that are there, with their SKYCOV."""
    places = [frame.header.get("SKYPLACE", 0) for frame in frames]
    covariances = [float(frame.header.get("SKYCOV", 0.0) or 0.0) for frame in frames]
    if not any(covariances):
        return None
    shape = frames[0].shape
    total, added = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
    for place in dict.fromkeys(places):
        sums, squares, covariance = np.zeros(shape, np.float32), np.zeros(shape, np.float32), 0.0
        for frame, weight, own, value in zip(frames, share, places, covariances, strict=True):
            if own != place:
                continue
            there = (frame.dq & NO_DATA) == 0
            scaled = np.float32(weight * (number(frame.header, "SCALEFAC") or 1.0))
            total += np.float32(weight) * there
            sums += scaled * there
            squares += scaled**2 * there
            covariance = value
        if covariance > 0:
            added += np.float32(covariance) * (sums * sums - squares)
    out: FloatImage = added / np.maximum(total, np.float32(1e-6)) ** 2
    return out


def _typical(frame: Frame) -> float:
    """Median variance of the good pixels, from one in 64."""
    if frame.var is None:
        return 1.0
    thin = (slice(None, None, 8), slice(None, None, 8))
    values = frame.var[thin][(frame.dq[thin] == 0) & (frame.var[thin] > 0)]
    return float(np.median(values)) if values.size else 0.0
