"""Frames whose sky is a model: an extended target covers every sky of a pixel, or there is no sky frame.

The sky of a flat-fielded frame is smooth but for errors of flat and dark. `skymodel` finds the smooth part
of all frames of a field together, under the target too; what is left when the target, as the other frames
show it, is taken off as well is the pattern, and is taken off where it stands above its own noise.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.frame import BoolImage, FloatImage, Frame, Frames, for_each
from pipeline.parallel import run_all
from pipeline.steps import pointing
from pipeline.steps.skystack import SkyCorrectParams, calibrations_variance, middle_of, shared_planes

if TYPE_CHECKING:
    from pipeline.algorithms.combine import Stack
    from pipeline.algorithms.skymodel import Cells, Floats, SkyModel
    from pipeline.primitive import Calibrations

HIDDEN = 0.5  # of the sky frames of a pixel that may show the target: more, and it has no sky
LEAST = 0.002  # of the field that has no sky, from which the sky of the whole field is a model
DRIFT = 0.001  # of the sky: less than this from the middle to a corner is lost in the noise of a stack
CLEAR = 5.0  # standard errors of a pixel of the pattern from which it is taken off by itself
TOGETHER = 16  # frames whose pattern is found together, at most

Pools = Mapping[str, tuple[str, ...]]


@dataclass(frozen=True)
class Study:
    """Frames of one field, and what their sky and their target are. shifts : whole pixels, (x, y)"""

    frames: Frames
    shifts: list[tuple[int, int]]
    cells: Cells
    model: SkyModel

    def level(self) -> float:
        return float(np.mean(self.model.surfaces[:, 0]))

    @property
    def drifts(self) -> bool:
        """The slope of the sky changes by more than chance, and by enough to matter."""
        return self.model.drifts and float(_changes(self).max()) > DRIFT * self.level()


def studied(frames: Frames) -> Study | None:
    """The smooth sky of frames of one field, without those that have hardly a good pixel; None of none."""
    from pipeline.algorithms import skymodel

    shifts = [(round(float(x)), round(float(y))) for x, y in pointing.offsets(frames)[0]]
    bad: list[BoolImage] = [f.dq != 0 for f in frames]
    cells = skymodel.cells_of([f.sci for f in frames], bad, shifts)
    enough = [np.count_nonzero(np.isfinite(values)) >= skymodel.FEWEST for values in cells.values]
    if not all(enough):
        left = [frame for frame, fine in zip(frames, enough, strict=True) if fine]
        return studied(left) if left else None
    levels = [float(np.nanmedian(values)) for values in cells.values]
    times = [middle_of(f) for f in frames]
    return Study(frames, shifts, cells, skymodel.fit(cells, levels, shifts, times))


def hidden(study: Study, pools: Pools) -> dict[str, int]:
    """Pixels of each frame where more than half of its sky frames show an extended target; a frame without
    sky frames of the field: all of them that show it themselves."""
    from pipeline.algorithms import targetlight

    target = targetlight.extended(study.model, study.cells.noise, study.level())
    if not target.any():
        return dict.fromkeys((f.name for f in study.frames), 0)
    size = study.cells.size
    x0, y0 = min(s[0] for s in study.shifts), min(s[1] for s in study.shifts)
    ny, nx = study.frames[0].shape
    shown = {}
    for frame, (x, y) in zip(study.frames, study.shifts, strict=True):
        rows, columns = (np.arange(ny) + y - y0) // size, (np.arange(nx) + x - x0) // size
        shown[frame.name] = target[rows[:, None], columns[None, :]]
    out = {}
    for frame in study.frames:
        pool = [shown[name] for name in pools.get(frame.name, ()) if name in shown] or [shown[frame.name]]
        count = np.zeros((ny, nx), np.uint16)
        for plane in pool:
            count += plane
        out[frame.name] = int(np.count_nonzero(count > HIDDEN * len(pool)))
    return out


def needs_model(study: Study, pools: Pools) -> dict[str, int]:
    """`hidden`, where it is enough of some frame for the sky of the field to be a model; else nothing."""
    found = hidden(study, pools)
    ny, nx = study.frames[0].shape
    return found if max(found.values()) > LEAST * ny * nx else {}


def steadied(study: Study, cals: Calibrations) -> tuple[Frames, str]:
    """The frames with the slopes of their sky brought to the mean slopes, and what to say of it."""
    from pipeline.algorithms import skymodel

    change = study.model.surfaces.copy()
    change[:, 1:3] -= change[:, 1:3].mean(axis=0)
    change[:, [0, 3, 4, 5]] = 0

    def less(k: int) -> Frame:
        frame = study.frames[k]
        return frame.evolve(sci=frame.sci - skymodel.surface(change[k], frame.shape))

    return for_each(less, range(len(study.frames)), cals.keep), _said_of_drift(study)


def _changes(study: Study) -> Floats:
    """(n,) by how much the slopes of each frame depart from the mean ones, from the middle to a corner."""
    slopes = study.model.surfaces[:, 1:3]
    return np.asarray(np.abs(slopes - slopes.mean(axis=0)).sum(axis=1))


def _said_of_drift(study: Study) -> str:
    size = _changes(study)
    worst, percent = int(np.argmax(size)), 100 * float(size.max()) / study.level()
    return (
        f"{study.frames[worst].name}: the slope of the sky drifts, up to {percent:.2f} % of it from middle "
        f"to corner (limit {100 * DRIFT:.1f} %), which is taken off {len(size)} frames"
    )


def said(study: Study, names: Sequence[str], under: Mapping[str, int], pools: Pools) -> list[str]:
    """Notes on frames whose sky is a model."""
    ny, nx = study.frames[0].shape
    good = f"good to {float(np.sqrt(study.model.covariance[0, 0])):.1f} e-"
    alone = [name for name in names if not pools[name]]
    notes = [
        f"{n}: no sky frame belongs to it; its sky is a smooth model of the frame, {good}" for n in alone
    ]
    if under:
        worst = max(names, key=lambda name: under[name])
        notes.append(
            f"{worst}: sky under the target is a model for {under[worst]} pixels, "
            f"{100 * under[worst] / (ny * nx):.0f} % of the field (limit {100 * LEAST:.1f} %), "
            f"and so it is for {len(names)} frames; {good} if the faintest part of the field is empty"
        )
        if study.drifts:
            notes.append(_said_of_drift(study))
    return notes


def less_model(
    study: Study, names: Sequence[str], pools: Pools, params: SkyCorrectParams, cals: Calibrations
) -> Frames:
    """The named frames of a study less the model of their sky."""
    from pipeline.algorithms import skymodel
    from pipeline.algorithms.skypattern import Mosaic

    frames, shape = study.frames, study.frames[0].shape
    mosaic = Mosaic(shape, study.shifts)
    error = skymodel.variance(study.model.covariance, shape)

    def light(k: int) -> FloatImage:
        return frames[k].sci - skymodel.surface(study.model.surfaces[k], shape)

    for k, frame in enumerate(frames):
        mosaic.add(k, light(k), frame.dq == 0)
    out: list[Frame] = []
    for start in range(0, len(frames), TOGETHER):
        chunk = range(start, min(start + TOGETHER, len(frames)))

        def left_of(k: int) -> tuple[FloatImage, BoolImage]:
            from pipeline.algorithms import skypattern

            near = [(j, light(j), frames[j].dq == 0) for j in mosaic.near(k)]
            others, number = mosaic.others(k, near)
            return skypattern.residual(light(k), frames[k].dq != 0, others, number, study.cells.noise)

        pattern = Pattern([frames[k] for k in chunk], run_all(left_of, chunk), pools, study, params)
        wanted = [k for k in chunk if frames[k].name in names]
        less = partial(_less, study=study, error=error, pattern=pattern, params=params, cals=cals)
        out += for_each(less, wanted, cals.keep)
    return out


class Pattern:
    """The fixed pattern of some frames, from what the others of them have left."""

    def __init__(
        self,
        frames: Frames,
        left: list[tuple[FloatImage, BoolImage]],
        pools: Pools,
        study: Study,
        params: SkyCorrectParams,
    ) -> None:
        from pipeline.algorithms import skypattern
        from pipeline.algorithms.combine import median_variance

        self.left = {frame.name: pair for frame, pair in zip(frames, left, strict=True)}
        self.pools, self.params = pools, params
        self.levels = {f.name: float(s[0]) for f, s in zip(study.frames, study.model.surfaces, strict=True)}
        self.common, self.single = skypattern.pattern_variance([p for p, _ in left], [u for _, u in left])
        number = max(len(frames) - 1, 1)
        self.everywhere = self.common > self.single * float(median_variance(number)[number])

    def of(self, frame: Frame) -> tuple[Stack, BoolImage] | None:
        """(the pattern of this frame, where it is taken off); None without another frame."""
        from pipeline.algorithms.combine import Method, combine

        names = [n for n in self.pools.get(frame.name, ()) if n in self.left and n != frame.name]
        if not names or self.single <= 0:
            return None
        least = 1 if len(names) > 2 else 0
        method = Method("median", "minmax" if least else "none", nlow=least, nhigh=least)
        var = np.full(frame.shape, self.single, np.float32)
        scale = [self.levels[frame.name] / self.levels[n] if self.levels[n] > 0 else 1.0 for n in names]
        sci = [self.left[n][0] for n in names]
        dq = [self.left[n][1].astype(np.uint16) for n in names]
        stack = combine(sci, [var] * len(names), dq, method, scale)
        taken: BoolImage = stack.dq == 0
        if not self.everywhere:
            taken &= (np.abs(stack.sci) > CLEAR * np.sqrt(stack.var)) & (stack.coverage > 1)
        return stack, taken


def _less(
    k: int, study: Study, error: FloatImage, pattern: Pattern, params: SkyCorrectParams, cals: Calibrations
) -> Frame:
    """Frame k less its sky. error : variance of the mean surface, which the frames have in common"""
    from pipeline.algorithms import background, skymodel

    frame, surface = study.frames[k], skymodel.surface(study.model.surfaces[k], study.frames[k].shape)
    sky, sky_var, brought = surface, np.zeros_like(surface), 0.0
    found = pattern.of(frame)
    planes = shared_planes(frame, cals) if params.common_noise and frame.var is not None else {}
    unseen = max(pattern.common - calibrations_variance(planes, study.level()), 0.0)
    variance = np.zeros_like(frame.sci) if frame.var is None else frame.var
    if found is not None and found[1].any():
        stack, taken = found
        sky = surface + np.where(taken, stack.sci, np.float32(0))
        sky_var = np.where(taken, stack.var, np.float32(unseen))
        if pattern.everywhere:
            # Object and pattern have the noise of flat and dark in common; without a pattern it stays.
            share = float(np.median(stack.var[taken])) / pattern.single
            done = background.subtract_sky(frame.sci, variance, sky, sky_var, 1.0, share=share, **planes)
            var, brought = np.where(taken, done.var, variance + sky_var), done.sky_var
        else:
            var = variance + sky_var
    else:
        var = variance + np.float32(unseen)
    # The error of the model is common to all n frames of the stack: n times in each is once in their mean.
    var = var + np.float32(len(study.frames)) * error
    level = float(study.model.surfaces[k, 0])
    cards: dict[str, Any] = {
        "SKYLEVEL": (round(level, 4), f"[{frame.unit}] Sky level taken off"),
        "SKYFACT": (1.0, "Factor applied to the sky frame"),
        "SKYNUM": (len(study.frames), "Number of frames in the sky"),
        "SKYHOW": ("model", "How the level of the sky was found"),
        "SKYVAR": (round(brought, 4), "Variance that the sky has brought"),
        "SKYMODEL": (frame.sci.size, "Pixels where the sky is a model"),
    }
    sci = frame.sci - sky
    if params.reset_sky:
        sci = sci + np.float32(level)
    return frame.stamped("SUBSKY", sci=sci, var=None if frame.var is None else var, cards=cards)
