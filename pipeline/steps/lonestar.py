"""The shift of a frame by its brightest star alone, where no pattern of sources tells it.

One star behind a cloud, or doubled, is weak evidence among all places of a field. It is strong at the place
that the headers give, where hardly anything as bright lies by chance.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pipeline.frame import Frame, Frames
from pipeline.steps import pointing
from pipeline.steps.frameshifts import AdjustWCSParams, Shift, Shifts, by_wcs, points_of

if TYPE_CHECKING:
    from pipeline.algorithms.grids import Mapping
    from pipeline.algorithms.matching import Match

REACH = 0.6  # arcsec about where the headers of the others put it: offsets of NIRI are wrong by 0.1 to 0.3
SIGNAL, OWN_SIGNAL = 50.0, 20.0  # to noise of the star, in the reference and in the frame
DIMMEST, BRIGHTEST = 0.04, 1.8  # of its light in the reference: 3.5 magnitudes of cloud; a blend
CHANCE = 0.01  # of a source like it within reach, if the star itself were not seen
NARROWEST, SAME = 0.7, 3.0  # times its FWHM in the reference: a cosmic ray; pixels within which two are one


def by_lone_star(frames: Frames, place: int, shifts: Shifts, params: AdjustWCSParams) -> None:
    """Fill in the shifts, not yet known, of frames that show the reference's brightest star where the
    headers, less what those of the others were off by, have it.

    place : of the reference, whose own shift is known. Where a second source is in reach the star may be
    either, and the error says so.
    """
    reference = frames[place]
    usual = np.median([shift.correction for shift in shifts if shift is not None], axis=0)
    for k, frame in enumerate(frames):
        if shifts[k] is None:
            start = by_wcs(reference, frame)
            match = _match(reference, frame, start, (float(usual[0]), float(usual[1])), params)
            if match is not None:
                shifts[k] = Shift(start, match, "sources")


def _match(
    reference: Frame, frame: Frame, start: Mapping, usual: tuple[float, float], params: AdjustWCSParams
) -> Match | None:
    from pipeline.algorithms.matching import Match
    from pipeline.algorithms.shifts import honest

    there, here = points_of(reference, params), points_of(frame, params)
    if params.cull_sources or params.min_sources > 1 or not there.x.size or not here.x.size:
        return None
    ny, nx = frame.shape
    reach = REACH / pointing.projection(frame).pixel_scale
    x, y = start.to_input(there.x, there.y)
    x, y = x + usual[0], y + usual[1]
    inside = (x > reach) & (x < nx - 1 - reach) & (y > reach) & (y < ny - 1 - reach)
    signal, own_signal = _signal(reference), _signal(frame)
    bright = np.flatnonzero(inside & (signal > SIGNAL))
    if not bright.size:
        return None
    star = int(bright[np.argmax(there.flux[bright])])
    away = np.hypot(here.x - x[star], here.y - y[star])
    light = here.flux / there.flux[star]
    like = (away < reach) & (own_signal > OWN_SIGNAL) & (light > DIMMEST) & (light < BRIGHTEST)
    like &= ~(_widths(frame) < NARROWEST * _widths(reference)[star])
    if not like.any():
        return None
    own = int(np.argmax(np.where(like, here.flux, -np.inf)))
    as_bright = np.count_nonzero(here.flux >= 0.5 * here.flux[own])
    if as_bright * math.pi * reach**2 / (nx * ny) > CHANCE:
        return None
    dx, dy = float(here.x[own] - x[star]), float(here.y[own] - y[star])
    others = bright[(bright != star) & (signal[bright] * light[own] > SIGNAL)]
    apart = np.hypot(np.subtract.outer(x[others] + dx, here.x), np.subtract.outer(y[others] + dy, here.y))
    if others.size and 2 * np.count_nonzero(apart.min(axis=1) < SAME) < others.size:
        return None  # its other stars are elsewhere
    rivals = (away < 2 * reach) & (here.flux > 0.3 * here.flux[own])
    rivals[own] = False
    beside = np.hypot(here.x - here.x[own], here.y - here.y[own])[rivals]
    error = math.hypot(float(here.error[own]), float(there.error[star]))
    match = honest(Match(usual[0] + dx, usual[1] + dy, error, 1, ratio=math.log(light[own])))
    return match._replace(error=max(match.error, *beside)) if beside.size else match


def _signal(frame: Frame) -> NDArray[np.float64]:
    """Signal to noise of each source."""
    t = frame.catalog
    assert t is not None
    with np.errstate(all="ignore"):
        return np.asarray(np.nan_to_num(t["FLUX_AUTO"] / t["FLUXERR_AUTO"].astype(float), posinf=0.0))


def _widths(frame: Frame) -> NDArray[np.float64]:
    """FWHM of each source, nan where none could be fitted."""
    t = frame.catalog
    assert t is not None
    return np.where(t["FWHM_FIT"] > 0, t["FWHM_FIT"].astype(float), np.nan)
