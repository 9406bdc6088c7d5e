"""The sky frames of one run: their levels, what they make together, and at which level it is taken off."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import numpy as np

from pipeline.errors import BadFrame, ReductionError
from pipeline.frame import BAD_PIXEL, BoolImage, FloatImage, Frame, Keep, MaskImage
from pipeline.parallel import Memo
from pipeline.params import bounded

if TYPE_CHECKING:
    from pipeline.algorithms.combine import Stack
    from pipeline.primitive import Calibrations

Made = TypeVar("Made")

# Cut above the level, sigma: where objects are masked the same as below, else closer.
MASKED, UNMASKED = 3.0, 1.5
NEAREST = 3  # skies in time that tell how fast the sky changes
STACKS_KEPT = 4  # skies that are kept for the next frames: each takes as much memory as a frame
WINGS = 6.0  # pixels by which masks grow before a level is measured


@dataclass(frozen=True)
class SkyCorrectParams:
    mask_objects: bool = bounded(True, doc="mask the objects on the sky frames, found in a first pass")
    first_pass: Literal["deep", "sources", "given"] = bounded(
        "deep",
        dragons="sources",
        doc="how objects are found: above the sky on any scale, as detectSources does, or masked already",
    )
    dilation: float = bounded(2.0, ge=0, doc="pixels by which the masks of objects grow")
    operation: Literal["mean", "median", "wtmean", "lmedian"] = bounded(
        "median", doc="how sky frames are combined"
    )
    reject_method: Literal["none", "minmax", "sigclip", "varclip"] = bounded(
        "minmax", doc="how outliers among sky frames are rejected"
    )
    nlow: int = bounded(1, ge=0, doc="lowest values rejected by minmax")
    nhigh: int = bounded(1, ge=0, doc="highest values rejected by minmax")
    hsigma: float = bounded(3.0, gt=0, doc="high limit of sigclip and varclip")
    lsigma: float = bounded(3.0, gt=0, doc="low limit of sigclip and varclip")
    scale: bool = bounded(True, doc="bring sky frames to one level by a factor before they are combined")
    zero: bool = bounded(False, doc="bring sky frames to one level by an offset; not together with scale")
    scale_sky: bool | None = bounded(
        None,
        dragons=True,
        doc="scale the sky to the object frame; None: unless all skies lie off the objects' field",
    )
    offset_sky: bool = bounded(False, doc="bring the level of the result to zero by an offset")
    interpolate: float = bounded(
        900.0, ge=0, dragons=0.0,
        doc="unscaled: interpolate the level between skies within so many seconds on both sides; 0 is never",
    )  # fmt: skip
    reset_sky: bool = bounded(False, doc="add the level of the object frame's sky again afterwards")
    estimator: Literal["all", "ogive"] = bounded(
        "all",
        dragons="ogive",
        doc="sky level from all empty pixels, or from a curve fitted to one in a hundred",
    )
    exact_median: bool = bounded(
        True, dragons=False, doc="variance of a median for the number of skies, or pi/2 of a mean's"
    )
    common_noise: bool = bounded(
        True, dragons=False, doc="leave the noise of dark and flat, which object and sky share, out of VAR"
    )
    model: bool = bounded(
        True,
        dragons=False,
        doc="where no sky is seen, under an extended target or without sky frames, take off a smooth model",
    )
    gradient: bool = bounded(
        True, dragons=False, doc="bring frames of one field to one slope of the sky, where it drifts"
    )
    debug_threshold: float = bounded(
        1e-6, gt=0, dragons=0.001, doc="last step of the scaling, as a fraction of the sky"
    )


@dataclass
class Skies:
    """The frames of one run by name, and what has been worked out about them.

    keep : puts a plane of each frame where those of the run are kept
    """

    frames: dict[str, Frame]
    params: SkyCorrectParams
    keep: Keep
    masks: dict[str, BoolImage] = field(default_factory=dict)
    _marked: Memo[str, MaskImage] = field(default_factory=Memo)
    _levels: Memo[str, float] = field(default_factory=Memo)
    pairs: Memo[tuple[str, str], tuple[float, int]] = field(default_factory=Memo)
    _stacks: Memo[tuple[str, ...], Stack] = field(default_factory=lambda: Memo(STACKS_KEPT))
    _stack_levels: Memo[tuple[str, ...], float] = field(default_factory=Memo)

    def stack(self, names: tuple[str, ...]) -> Stack:
        """The sky of these frames; frames that share a list share it, if they come one after the other."""
        return self._stacks.get(names, lambda: combined(self, names))

    def stack_level(self, names: tuple[str, ...]) -> float:
        """Level of the sky of these frames, nan where it has no usable pixel."""
        from pipeline.algorithms import background

        def measure() -> float:
            sky = self.stack(names)
            if self.params.estimator == "ogive":
                return background.ogive_level(sky.sci, sky.dq != 0).level
            return background.sky_level(sky.sci, sky.dq != 0, high=MASKED).level

        return self._stack_levels.get(names, measure)

    def dq(self, name: str) -> MaskImage:
        """DQ with the objects marked as bad pixels."""
        frame, mask = self.frames[name], self.masks.get(name)
        if mask is None:
            return frame.dq
        return self._marked.get(name, lambda: self.keep(np.where(mask, frame.dq | BAD_PIXEL, frame.dq)))

    def level(self, name: str) -> float:
        """Mean level of the empty pixels of one frame."""
        frame = self.frames[name]
        return self._levels.get(name, lambda: level_of(frame, self.not_empty(frame, frame.dq), self.params))

    def not_empty(self, frame: Frame, dq: MaskImage) -> BoolImage:
        """True on the pixels of a frame that are flagged in dq or, as far as is known, not empty sky.

        The masks of objects are grown once more: beyond their edge the wings of all stars together still
        hold light, a few hundredths of an electron a pixel of a rich field.
        """
        from pipeline.algorithms import objectmasks

        bad: BoolImage = dq != 0
        mask = self.masks.get(frame.name, frame.objmask)
        if mask is None:
            return bad
        wide = objectmasks.dilate(mask, WINGS) if self.params.estimator == "all" else mask
        return bad | (wide if np.count_nonzero(wide) < 0.7 * wide.size else mask)


def of_frame(frame: Frame, make: Callable[[], Made]) -> Made:
    """What `make` makes of one frame. Raises BadFrame, which names it, for a ValueError."""
    try:
        return make()
    except ValueError as error:
        raise BadFrame(frame.name, str(error)) from error


def combined(skies: Skies, names: tuple[str, ...]) -> Stack:
    """The sky frames, objects masked, at the level of the first, as one."""
    from pipeline.algorithms.combine import Method, combine
    from pipeline.algorithms.levels import relative_scales, relative_zeros

    params = skies.params
    sci = [skies.frames[name].sci for name in names]
    dq = [skies.dq(name) for name in names]
    var = _variances(skies, names)
    scales, zeros = [1.0] * len(names), [0.0] * len(names)

    def known(i: int, j: int, compare: Callable[[], tuple[float, int]]) -> tuple[float, int]:
        return skies.pairs.get((names[i], names[j]), compare)  # two frames are in most skies together

    if params.estimator == "all" and (params.scale or params.zero):
        levels = [skies.level(name) for name in names]
        if params.scale and all(level > 0 for level in levels):
            scales = [levels[0] / level for level in levels]
        elif params.zero or params.scale:
            zeros = [levels[0] - level for level in levels]
    elif params.scale:
        scales = relative_scales(sci, dq, known=known)
    elif params.zero:
        zeros = relative_zeros(sci, dq, known=known)
    if len(names) == 2 and var is not None:
        dq = _without_the_higher(sci, var, dq, scales, zeros)
    reject, nlow, nhigh = params.reject_method, params.nlow, params.nhigh
    if reject == "minmax" and nlow + nhigh >= len(names):
        nlow = nhigh = 0  # too few to reject from; the median does without
    method = Method(
        params.operation, reject, lsigma=params.lsigma, hsigma=params.hsigma, nlow=nlow, nhigh=nhigh,
        exact_median=params.exact_median,
    )  # fmt: skip
    return combine(sci, var, dq, method, scales, zeros)


def _variances(skies: Skies, names: tuple[str, ...]) -> list[FloatImage] | None:
    var = [skies.frames[name].var for name in names]
    return [v for v in var if v is not None] if all(v is not None for v in var) else None


def _without_the_higher(
    sci: list[FloatImage], var: list[FloatImage], dq: list[MaskImage], scales: list[float], zeros: list[float]
) -> list[MaskImage]:
    """The masks of two sky frames with the higher pixel of pairs that cannot be one sky marked as bad."""
    from pipeline.algorithms.background import lower_of_two

    a, b = (s * np.float32(f) + np.float32(z) for s, f, z in zip(sci, scales, zeros, strict=True))
    good = (dq[0] | dq[1]) == 0
    first = good & lower_of_two((a, b), (var[0], var[1]))
    second = good & lower_of_two((b, a), (var[1], var[0]))
    return [np.where(first, dq[0] | BAD_PIXEL, dq[0]), np.where(second, dq[1] | BAD_PIXEL, dq[1])]


def level_of(frame: Frame, bad: BoolImage, params: SkyCorrectParams) -> float:
    from pipeline.algorithms import background

    if params.estimator == "ogive":
        return background.ogive_level(frame.sci, bad).level
    return background.sky_level(frame.sci, bad, high=MASKED).level


def scaling(frame: Frame, names: tuple[str, ...], skies: Skies) -> float:
    """The factor of the sky that leaves the frame's empty pixels at zero."""
    from pipeline.algorithms import background, objectmasks

    params, sky, sky_level = skies.params, skies.stack(names), skies.stack_level(names)
    if not np.isfinite(sky_level) or sky_level == 0:
        raise ReductionError(f"the sky of {frame.name} has no usable pixel")
    if params.estimator == "ogive":
        # Gemini's B sees the object mask only of frames that have one already.
        bad = (frame.dq | sky.dq) != 0
        if frame.objmask is not None:
            bad = bad | frame.objmask

        def residual_level(f: float) -> float:
            return background.ogive_level(frame.sci - np.float32(f) * sky.sci, bad).level

        return background.sky_factor(residual_level, sky_level, params.debug_threshold)

    bad = skies.not_empty(frame, frame.dq | sky.dq)
    if frame.name not in skies.masks:
        factor = background.sky_factor(_residual(frame, sky, bad), sky_level, 0.001)
        left = frame.sci - np.float32(factor) * sky.sci
        bad = bad | objectmasks.object_mask_of(left, bad, background.sky_level(left, bad, high=UNMASKED))
    return background.sky_factor(_residual(frame, sky, bad), sky_level, params.debug_threshold)


def _residual(frame: Frame, sky: Stack, bad: BoolImage) -> Callable[[float], float]:
    from pipeline.algorithms import background

    return lambda factor: background.sky_level(frame.sci, bad, sky=sky.sci, factor=factor, high=MASKED).level


def own_level(frame: Frame, names: tuple[str, ...], skies: Skies) -> tuple[float, str]:
    """(factor, how) of the sky at the level of its own frames, at the time of the object frame.

    Between the nearest sky before and the nearest after, both within `interpolate` seconds: a straight line.
    Else, with our estimator, the level of the sky nearest in time; with Gemini's settings that of the stack.
    """
    params = skies.params
    if params.estimator == "ogive" and not params.interpolate:
        return 1.0, "skies"
    now = middle_of(frame)
    times = {name: middle_of(skies.frames[name]) for name in names}
    before = [n for n in names if now - params.interpolate <= times[n] <= now]
    after = [n for n in names if now <= times[n] <= now + params.interpolate]
    whole = skies.stack_level(names)
    if not np.isfinite(whole) or whole == 0:
        raise ReductionError(f"the sky of {frame.name} has no usable pixel")
    if params.interpolate and before and after:
        first, last = max(before, key=times.__getitem__), min(after, key=times.__getitem__)
        span = times[last] - times[first]
        weight = (now - times[first]) / span if span > 0 else 0.0
        return ((1 - weight) * skies.level(first) + weight * skies.level(last)) / whole, "interpolated"
    nearest = min(names, key=lambda n: (abs(times[n] - now), n))
    return skies.level(nearest) / whole, "nearest"


def drift_of(frame: Frame, names: tuple[str, ...], skies: Skies) -> float:
    """What the level taken from the nearest sky may be off by at the time of the frame: as much as the skies
    nearest in time change in that time. It is not taken off: nothing tells how a change goes on."""
    now = middle_of(frame)
    near = sorted(names, key=lambda n: abs(middle_of(skies.frames[n]) - now))[:NEAREST]
    times = np.array([middle_of(skies.frames[n]) for n in near])
    levels = np.array([skies.level(n) for n in near])
    if len(near) < 2 or np.ptp(times) <= 0 or not np.isfinite(levels).all():
        return 0.0
    slope = float(np.polyfit(times - now, levels, 1)[0])
    return slope * (now - float(times[0]))


def middle_of(frame: Frame) -> float:
    """Time of the middle of the exposure, seconds."""
    facts = frame.descriptors
    start = facts.ut_datetime.timestamp() if facts.ut_datetime else 0.0
    return start + 0.5 * (facts.exposure_time or 0.0)


def shared_planes(frame: Frame, cals: Calibrations) -> dict[str, Any]:
    """Planes of the calibrations that went into the frame and have its shape."""
    planes: dict[str, Any] = {}
    flat, dark = cals.flat, cals.dark
    if flat is not None and flat.var is not None and flat.shape == frame.shape and "FLATCORR" in frame.header:
        planes |= {"flat": flat.sci, "flat_var": flat.var}
    if dark is not None and dark.var is not None and dark.shape == frame.shape and "DARKCORR" in frame.header:
        planes["dark_var"] = dark.var
    return planes


def calibrations_variance(planes: Mapping[str, Any], level: float) -> float:
    """What VAR of a frame of this level has of flat and dark, typically."""
    total = 0.0
    if "flat_var" in planes:
        flat = planes["flat"][::8, ::8]
        total += float(np.median(planes["flat_var"][::8, ::8] / np.maximum(flat, 0.01) ** 2)) * level**2
    if "dark_var" in planes:
        total += float(np.median(planes["dark_var"][::8, ::8]))
    return total
