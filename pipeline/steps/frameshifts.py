"""Where the sky of one frame lies in another: by headers, by sources, by pixels."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline import niri
from pipeline.frame import SATURATED, Frame
from pipeline.headers.tangent import affine_between
from pipeline.headers.values import number
from pipeline.params import bounded
from pipeline.steps import pointing
from pipeline.steps.reference import REFERENCE

if TYPE_CHECKING:
    from pipeline.algorithms.grids import Mapping
    from pipeline.algorithms.matching import Match, Points


USUAL_SEEING = 0.5  # arcsec, FWHM where no star tells it
WIDE = 4.0  # pixels, rms: a saturated star is no wider
# Sources that must agree before a match counts for more than its header.
STRONG = 3


@dataclass(frozen=True)
class AdjustWCSParams:
    """Parameters of adjustWCSToReference (`register`): every way of matching reads them."""

    method: Literal["sources", "offsets"] = bounded(
        "sources", doc="what is compared: sources, or header offsets"
    )
    fallback: Literal["offsets", "header"] | None = bounded(
        "offsets",
        doc="where the method fails: telescope offsets, the header's WCS, or leave the frame out (None)",
    )
    reference: Literal["best", "first"] = bounded(
        "best",
        dragons="first",
        doc="the frame that all are registered to: the best, or the first",
    )
    first_pass: float = bounded(5.0, gt=0, doc="arcsec within which the first match looks")
    search: float = bounded(
        0.5, ge=0, le=1, dragons=0.0, doc="of the field's diagonal: how far a match is looked for at most"
    )
    match_radius: float = bounded(0.5, gt=0, doc="arcsec within which two sources are one")
    min_sources: int = bounded(1, ge=1, dragons=3, doc="fewest matched sources that are believed")
    evidence: bool = bounded(
        True,
        dragons=False,
        doc="believe a match that chance cannot make, whatever the clouds; else most votes",
    )
    cull_sources: bool = bounded(False, doc="compare stars only")
    rotate: bool = bounded(False, doc="fit a rotation too")
    scale: bool = bounded(False, doc="fit a scale too")
    faint: bool = bounded(
        True, dragons=False, doc="where sources fail, look for fainter stars with a filter of their profile"
    )
    pixels: bool = bounded(True, dragons=False, doc="where sources fail, compare the pixels themselves")
    distortion: bool = bounded(True, dragons=False, doc="allow for the distortion of f/32 with AO")


class Shift(NamedTuple):
    """How the reference's pixels lie in a frame: first by its header (`start`), then as `match` corrects it.

    how : REGMETH
    """

    start: Mapping
    match: Match
    how: str

    def to_frame(self, x: Any, y: Any) -> tuple[Any, Any]:
        """Pixels of the frame from those of the reference."""
        return self.match.to_image(*self.start.to_input(x, y))

    @property
    def linear(self) -> NDArray[np.float64]:
        """(2, 2): its turn and scale."""
        s, m = self.start, self.match
        c, k = m.scale * math.cos(m.angle), m.scale * math.sin(m.angle)
        return np.asarray(np.array([[c, -k], [k, c]]) @ np.array([[s.a, s.b], [s.d, s.e]]))

    @property
    def matrix(self) -> NDArray[np.float64]:
        """(3, 3): the same of homogeneous pixels (x, y, 1)."""
        whole = np.eye(3)
        whole[:2, :2] = self.linear
        whole[:2, 2] = self.to_frame(0.0, 0.0)
        return whole

    @property
    def correction(self) -> NDArray[np.float64]:
        """(2,) pixels x and y by which the header was off, at the middle of the frame."""
        return np.array([self.match.dx, self.match.dy])


Shifts = list[Shift | None]  # of the frames of a group, None where nothing tells


def itself(frame: Frame) -> Shift:
    """The reference's own."""
    from pipeline.algorithms.matching import Match

    return Shift(by_wcs(frame, frame), Match(0.0, 0.0, 0.0, 0), REFERENCE)


def by_wcs(reference: Frame, frame: Frame) -> Mapping:
    """Pixels of the frame from those of the reference, as their headers have it."""
    from pipeline.algorithms.grids import Mapping

    ny, nx = reference.shape
    centre = ((nx - 1) / 2, (ny - 1) / 2)
    a, b, c, d, e, f = affine_between(pointing.projection(reference), pointing.projection(frame), centre)
    return Mapping(a, b, c, d, e, f)


def by_offsets(reference: Frame, frame: Frame) -> Mapping | None:
    """The same from the telescope offsets; None where the headers have none."""
    from pipeline.algorithms.grids import Mapping

    a, b = reference.descriptors, frame.descriptors
    if a.detector_x_offset is None or b.detector_x_offset is None:
        return None
    if a.detector_y_offset is None or b.detector_y_offset is None:
        return None
    return Mapping(c=b.detector_x_offset - a.detector_x_offset, f=b.detector_y_offset - a.detector_y_offset)


def search_of(frame: Frame, params: AdjustWCSParams) -> tuple[float, float]:
    """(how far a match is looked for, how near a header nearly always is), pixels."""
    near = params.first_pass / pointing.projection(frame).pixel_scale
    return max(near, params.search * math.hypot(*frame.shape)), near


def points_of(frame: Frame, params: AdjustWCSParams) -> Points:
    """The frame's sources, free of distortion: the fitted place where there is one, else the centroid."""
    from pipeline.algorithms import matching

    t = frame.catalog
    if t is None:
        none = np.zeros(0)
        return matching.Points(none, none, none, none)
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
    # The middle of a galaxy depends on how much of it stands out of the sky, in which it is, too.
    wide = np.sqrt(np.abs(t["A_IMAGE"].astype(float) * t["B_IMAGE"].astype(float)))
    error = np.where(fitted, error, np.maximum(error, 0.1 * (wide - WIDE)))
    x, y = undistorted(frame, x.astype(float), y.astype(float), params.distortion)
    return matching.Points(x, y, error, t["FLUX_AUTO"].astype(float))


def sizes_of(frame: Frame) -> NDArray[np.float64]:
    """rms size of each source of `points_of`, pixels."""
    if frame.catalog is None:
        return np.zeros(0)
    t = frame.catalog
    return np.asarray(np.sqrt(np.abs(t["A_IMAGE"].astype(float) * t["B_IMAGE"].astype(float))))


def match_points(
    reference: Points, points: Points, frame: Frame, start: Mapping, params: AdjustWCSParams
) -> Match | None:
    """The correction to `start` that lays points in pixels of the reference on those of the frame."""
    from pipeline.algorithms import matching

    if not reference.x.size or not points.x.size:
        return None
    ny, nx = frame.shape
    x, y = start.to_input(reference.x, reference.y)
    search, near = search_of(frame, params)
    if not params.evidence:
        search = near
    # What lies outside this frame cannot match, but would count as the brightest.
    inside = (x > -search) & (x < nx + search) & (y > -search) & (y < ny + search)
    expected = matching.Points(x[inside], y[inside], reference.error[inside], reference.flux[inside])
    radius = max(params.match_radius / pointing.projection(frame).pixel_scale, 2.0)
    return matching.match_sources(
        expected, points, search=search, radius=radius, least=params.min_sources, rotate=params.rotate,
        stretch=params.scale, centre=((nx - 1) / 2, (ny - 1) / 2), shape=frame.shape,
        proposal="evidence" if params.evidence else "votes",
    )  # fmt: skip


def match_pixels(
    reference: Frame, frame: Frame, start: Mapping, params: AdjustWCSParams, far: bool = False
) -> Match | None:
    """The correction to `start` from the images themselves; far : as far as a match is looked for at all."""
    from pipeline.algorithms import matching

    if reference.shape != frame.shape:
        return None
    ny, nx = frame.shape
    x, y = start.to_input((nx - 1) / 2, (ny - 1) / 2)
    guess = (float(x) - (nx - 1) / 2, float(y) - (ny - 1) / 2)
    found = matching.match_images(
        reference.sci, frame.sci, reference.dq != 0, frame.dq != 0,
        guess=guess, search=search_of(frame, params)[0 if far else 1],
    )  # fmt: skip
    return found._replace(dx=found.dx - guess[0], dy=found.dy - guess[1]) if found else None


def star_width(frames: Sequence[Frame], frame: Frame) -> float:
    """FWHM in pixels of the stars of a group, or what is usual, in pixels of `frame`."""
    widths = [w for one in frames if (w := number(one.header, "FWHMPIX")) is not None]
    return float(np.median(widths)) if widths else USUAL_SEEING / pointing.projection(frame).pixel_scale


def faint_points_of(frame: Frame, fwhm: float, params: AdjustWCSParams) -> Points:
    """Stars of that width (pixels) down to those too faint for detectSources, free of distortion."""
    from pipeline.algorithms.faint import faint_sources

    found = faint_sources(frame.sci, frame.dq != 0, fwhm)
    x, y = undistorted(frame, found.x, found.y, params.distortion)
    return found._replace(x=x, y=y)


def faint_matcher(
    frames: Sequence[Frame], place: int, params: AdjustWCSParams
) -> Callable[[Frame, Mapping], Match | None]:
    """What matches a frame with the reference, frames[place], by stars too faint for detectSources."""
    fwhm = star_width(frames, frames[place])
    reference: list[Points] = []  # of the reference, made when it is first asked for

    def match(frame: Frame, start: Mapping) -> Match | None:
        if not reference:
            reference.append(faint_points_of(frames[place], fwhm, params))
        return match_points(reference[0], faint_points_of(frame, fwhm, params), frame, start, params)

    return match


def united(points: Sequence[Points], radius: float) -> Points:
    """All sources of several lists in the same pixels, each once, with the values of the first list that has
    it."""
    from pipeline.algorithms import matching

    whole = points[0]
    for more in points[1:]:
        if not more.x.size:
            continue
        near = np.hypot(np.subtract.outer(more.x, whole.x), np.subtract.outer(more.y, whole.y)) <= radius
        new = ~near.any(axis=1) if whole.x.size else np.ones(more.x.size, bool)
        whole = matching.Points(*(np.concatenate([old, v[new]]) for old, v in zip(whole, more, strict=True)))
    return whole


def seen_from_reference(points: Points, shift: Shift) -> Points:
    """A frame's points in pixels of the reference, and their fluxes as the reference would measure them.

    Where they lie is no better known than the frame's shift.
    """
    inverse = np.linalg.inv(shift.matrix)
    x, y, _ = inverse @ np.stack([points.x, points.y, np.ones_like(points.x)])
    ratio = shift.match.ratio if math.isfinite(shift.match.ratio) else 0.0
    error = np.hypot(points.error, shift.match.error)
    return points._replace(x=x, y=y, error=error, flux=points.flux * math.exp(-ratio))


def inherited(
    shift: Shift, against: Points, points: Points, parents: Sequence[tuple[Points, float]]
) -> Shift:
    """The shift with the error that it has from the frames whose sources it was matched by.

    against : what `points` was matched with; parents : sources of frames as `seen_from_reference` gives them,
        with the error of their shift, which all of a frame share: many sources make it no smaller
    """
    if not parents:
        return shift
    error = np.zeros(against.x.size)
    for own, known in parents:
        theirs = np.isin(against.x, own.x) & np.isin(against.y, own.y)
        error[theirs] = known
    x, y = shift.to_frame(against.x, against.y)
    away = np.hypot(np.subtract.outer(x, points.x), np.subtract.outer(y, points.y)).min(axis=1)
    same = away < 2.0
    if not same.any():
        return shift
    weight = 1 / np.maximum(against.error[same], 0.01) ** 2
    shared = float(np.sum(weight * error[same]) / np.sum(weight))
    return shift._replace(match=shift.match._replace(error=math.hypot(shift.match.error, shared)))


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
