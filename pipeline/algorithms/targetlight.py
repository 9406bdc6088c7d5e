"""Where an extended target is seen, of the light that `skymodel` finds in the cells of a field."""

from __future__ import annotations

import numpy as np

from pipeline.algorithms import boxes
from pipeline.algorithms.skymodel import FEWEST, BoolImage, Floats, SkyModel


def extended(model: SkyModel, noise: float, level: float) -> BoolImage:
    """(my, mx) cells with light of an extended target: three by three or more of them together.

    A cell counts from 5 standard errors, a twentieth of the noise of a pixel, and 0.1 % of the sky on. Light
    that is a plane all over the field is none: a slope that the sky has in all frames looks so, and goes with
    it.
    """
    least = np.maximum(5 * model.errors, max(0.05 * noise, 0.001 * abs(level)))

    def together(target: Floats) -> BoolImage:
        bright: BoolImage = np.isfinite(target) & (target > least)
        return boxes.opened(bright, 3)

    found = together(model.target)
    return found if found.any() and together(_less_its_plane(model.target, least)).any() else found & False


def _less_its_plane(target: Floats, least: Floats, rounds: int = 12) -> Floats:
    """The target less the plane under its faintest parts: what stands above the fit is left out, again."""
    rows, columns = np.indices(target.shape)
    design = np.stack([np.ones(target.shape), columns, rows], axis=-1)
    kept = np.isfinite(target)
    plane = np.zeros(target.shape)
    for _ in range(rounds):
        if kept.sum() < FEWEST:
            break
        plane = design @ np.linalg.lstsq(design[kept], target[kept], rcond=None)[0]
        fewer = np.isfinite(target) & (target - plane <= least)
        if (fewer == kept).all():
            break
        kept = fewer
    return target - plane
