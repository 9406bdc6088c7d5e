"""cleanReadout: patterns that the read-out electronics add."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pipeline.frame import BoolImage, Frame
from pipeline.params import bounded
from pipeline.primitive import Calibrations, per_frame


@dataclass(frozen=True)
class CleanReadoutParams:
    clean: Literal["skip", "default", "force", "fft"] = bounded(
        "skip",
        doc="do nothing; clean quadrants with a strong box pattern; all quadrants; 8-column stripes instead",
    )
    hsigma: float = bounded(3.0, gt=0, doc="high clipping limit of the mean box")
    lsigma: float = bounded(3.0, gt=0, doc="low clipping limit of the mean box")
    pattern_x_size: int = bounded(16, ge=4, doc="width of the box that repeats, pixels")
    pattern_y_size: int = bounded(4, ge=4, doc="height of the box that repeats, pixels")
    level_bias_offset: bool = bounded(True, doc="heal the steps of level that come with the pattern")
    smoothing_extent: int = bounded(5, ge=1, doc="pixels beside a seam of quadrants that are compared")
    intraquad_smooth: int = bounded(50, ge=1, doc="rows beside a step inside a quadrant that are compared")
    simple_thres: float = bounded(0.6, gt=0, doc="least range of the pattern's strength between rows")
    pat_strength_thres: float = bounded(15.0, ge=0, doc="electrons rms of a pattern that is cleaned")
    debug_subtract_background: bool = bounded(True, doc="take off each box's mean before boxes are compared")
    debug_canny_sigma: float = bounded(3.0, gt=0, doc="rows of smoothing before edges are looked for")


@per_frame("cleanReadout", CleanReadoutParams)
def clean_readout(frame: Frame, params: CleanReadoutParams, cals: Calibrations) -> Frame:
    """Take read-out patterns off; with clean=skip, the default, nothing is done.

    VAR and DQ stay as they are. Levelling fails where light fills the frame, which is why it is off by
    default.
    """
    if params.clean == "skip":
        return frame
    from pipeline.algorithms import patterns

    bad: BoolImage = frame.dq != 0
    if params.clean == "fft":
        sci, removed = patterns.clean_stripes(frame.sci, bad, _objects(frame, bad))
        return frame.stamped(
            "CLNRDOUT", sci=sci, cards={"PATTRMS": (round(removed, 3), "rms of the stripes taken off")}
        )
    how = patterns.Boxes(
        width=params.pattern_x_size, height=params.pattern_y_size, lsigma=params.lsigma, hsigma=params.hsigma,
        subtract_background=params.debug_subtract_background, strength=params.pat_strength_thres,
        least_range=params.simple_thres, edge_sigma=params.debug_canny_sigma, level=params.level_bias_offset,
        seam=params.smoothing_extent, inner_seam=params.intraquad_smooth,
    )  # fmt: skip
    sci, quadrants = patterns.clean_boxes(frame.sci, bad, frame.objmask, how, force=params.clean == "force")
    return frame.stamped(
        "CLNRDOUT", sci=sci, cards={"PATTQUAD": (quadrants, "Quadrants cleaned of a read-out pattern")}
    )


def _objects(frame: Frame, bad: BoolImage) -> BoolImage:
    """The object mask, found here if there is none yet: the fit of stripes must not see stars."""
    if frame.objmask is not None:
        return frame.objmask
    from pipeline.algorithms import background, objectmasks

    flat = frame.sci - objectmasks.smooth_background(frame.sci, bad)
    return objectmasks.object_mask_of(flat, bad, background.sky_level(flat, bad, high=1.5))
