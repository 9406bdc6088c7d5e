"""Finding the objects on sky frames, so that they can be masked: the first pass of skyCorrect."""

from __future__ import annotations

import numpy as np

from pipeline.frame import BoolImage, FloatImage, Frame, Frames, Keep
from pipeline.parallel import run_all
from pipeline.steps import pointing
from pipeline.steps.skystack import UNMASKED, Skies, SkyCorrectParams, of_frame, scaling

TOGETHER = 16  # frames whose objects are looked for together, at most
MANY = 32  # skies of one frame above which those of all together do for each: a few more or less do not tell


def first_pass(frames: Frames, params: SkyCorrectParams, keep: Keep) -> dict[str, BoolImage]:
    """The object masks of sky frames, grown by `dilation`, where `keep` puts them."""
    plain = Skies({f.name: f for f in frames}, params, keep)
    if params.first_pass == "given":
        return {f.name: keep(_grown(f, params)) for f in frames if f.objmask is not None}
    if params.first_pass == "sources":
        found = run_all(lambda frame: keep(of_frame(frame, lambda: _detected(frame, plain))), frames)
        return {frame.name: mask for frame, mask in zip(frames, found, strict=True)}
    masks: dict[str, BoolImage] = {}
    number = pointing.groups(frames) if frames else []
    for group in range(max(number, default=-1) + 1):
        members = [f for f, n in zip(frames, number, strict=True) if n == group]
        for start in range(0, len(members), TOGETHER):
            some = members[start : start + TOGETHER]
            found = _deep_masks(some, plain)
            masks |= {frame.name: keep(mask) for frame, mask in zip(some, found, strict=True)}
    return masks


def _grown(frame: Frame, params: SkyCorrectParams) -> BoolImage:
    from pipeline.algorithms import objectmasks

    assert frame.objmask is not None
    return objectmasks.dilate(frame.objmask, params.dilation)


def _detected(frame: Frame, skies: Skies) -> BoolImage:
    """Gemini's first pass: the frame less its skies, and what detectSources finds on it."""
    from pipeline.algorithms import objectmasks, sources

    params = skies.params
    pool = tuple(n for n in frame.skies if n in skies.frames)
    if not pool:
        return np.zeros(frame.shape, np.bool_)
    sky = skies.stack(pool)
    factor = 1.0 if params.scale_sky is False else scaling(frame, pool, skies)
    residual = frame.sci - np.float32(factor) * sky.sci
    _, labels = sources.detect(residual, frame.dq | sky.dq, sources.Detection())
    return objectmasks.dilate(sources.object_mask(labels), params.dilation)


def _deep_masks(frames: Frames, skies: Skies) -> list[BoolImage]:
    """Masks of frames of one field, each from what the others show."""
    from pipeline.algorithms import background, objectmasks

    pools = [tuple(n for n in frame.skies if n in skies.frames) for frame in frames]
    if all(len(pool) > MANY for pool in pools):
        pools = [tuple(sorted({name for pool in pools for name in pool}))] * len(frames)

    def less_its_sky(place: int) -> tuple[FloatImage, BoolImage, float]:
        residual, unusable = _rough_residual(frames[place], pools[place], skies)
        level = background.sky_level(residual, unusable, high=UNMASKED)
        return residual - np.float32(level.level), unusable, level.sigma

    found = run_all(less_its_sky, range(len(frames)))
    apart = pointing.offsets(frames)[0]
    # Where frame j's pixel (0, 0) lies on the sky, in pixels of the first frame.
    shifts = [(round(float(dx)), round(float(dy))) for dx, dy in apart]
    grow = round(skies.params.dilation)
    residuals, bad = [residual for residual, _, _ in found], [unusable for _, unusable, _ in found]
    sigma = float(np.median([sigma for _, _, sigma in found]))
    return objectmasks.masks_from_others(residuals, bad, shifts, sigma, grow=grow)


def _rough_residual(frame: Frame, pool: tuple[str, ...], skies: Skies) -> tuple[FloatImage, BoolImage]:
    """A frame less the median of its pool, and its unusable pixels.

    One sky serves all that share a pool: that a frame's own light is among the n samples of the median
    does not hide an object on it. Without other frames the smooth background has to do.
    """
    from pipeline.algorithms import objectmasks

    bad: BoolImage = frame.dq != 0
    if not pool:
        return frame.sci - objectmasks.smooth_background(frame.sci, bad), bad
    together = tuple(sorted({frame.name, *pool}))
    sky, level = skies.stack(together), skies.stack_level(together)
    factor = np.float32(skies.level(frame.name) / level)
    return frame.sci - factor * sky.sci, bad | (sky.dq != 0)
