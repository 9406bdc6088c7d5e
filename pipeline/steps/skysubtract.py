"""skyCorrect: the sky of each object frame, made of its sky frames with their objects masked, taken off.

How noise goes along. A sky made of n frames brings its own noise, 0.29 VAR for a median of 5. Frames that are
dithered by more than a few pixels before they are stacked put one sky's noise on different places of the
target, so it averages like any other. Frames that share a sky and are hardly dithered put it on the same
places: it does not average, and no VAR of a single frame can say so. So each frame carries the variance
that its sky has brought (`SKYVAR`) and the names of its skies; resampleToCommonFrame, which knows the
shifts, turns these into the covariance `SKYCOV` of the frames to be stacked, and a stack of m frames has
VAR = (sum VAR + m (m - 1) SKYCOV) / m².
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from pipeline import pointing
from pipeline.errors import BadFrame, ReductionError
from pipeline.frame import BAD_PIXEL, BoolImage, FloatImage, Frame, Frames, MaskImage
from pipeline.params import bounded
from pipeline.primitive import Calibrations, note, primitive

if TYPE_CHECKING:
    from pipeline.algorithms.combine import Stack


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
    debug_threshold: float = bounded(
        1e-6, gt=0, dragons=0.001, doc="last step of the scaling, as a fraction of the sky"
    )


@dataclass
class _Skies:
    """The frames of one run by name, and what has been worked out about them."""

    frames: dict[str, Frame]
    params: SkyCorrectParams
    masks: dict[str, BoolImage] = field(default_factory=dict)
    masked: dict[str, MaskImage] = field(default_factory=dict)
    levels: dict[str, float] = field(default_factory=dict)
    stacks: dict[tuple[str, ...], Stack] = field(default_factory=dict)

    def stack(self, names: tuple[str, ...]) -> Stack:
        """The sky of these frames; frames that share a list share it."""
        if names not in self.stacks:
            self.stacks[names] = _combined(self, names)
        return self.stacks[names]

    def dq(self, name: str) -> MaskImage:
        """DQ with the objects marked as bad pixels."""
        if name not in self.masked:
            frame, mask = self.frames[name], self.masks.get(name)
            self.masked[name] = frame.dq if mask is None else np.where(mask, frame.dq | BAD_PIXEL, frame.dq)
        return self.masked[name]

    def level(self, name: str) -> float:
        """Mean level of the empty pixels of one frame."""
        if name not in self.levels:
            frame = self.frames[name]
            self.levels[name] = _level(frame, self.not_empty(frame, frame.dq), self.params)
        return self.levels[name]

    def not_empty(self, frame: Frame, dq: MaskImage) -> BoolImage:
        """True on the pixels of a frame that are flagged in dq or, as far as is known, not empty sky.

        The masks of objects are grown once more: beyond their edge the wings of all stars together still
        hold light, a few hundredths of an electron a pixel of a rich field.
        """
        from pipeline.algorithms import sources

        bad: BoolImage = dq != 0
        mask = self.masks.get(frame.name, frame.objmask)
        if mask is None:
            return bad
        wide = sources.dilate(mask, WINGS) if self.params.estimator == "all" else mask
        return bad | (wide if np.count_nonzero(wide) < 0.7 * wide.size else mask)


@primitive("skyCorrect", SkyCorrectParams)
def sky_correct(frames: Frames, params: SkyCorrectParams, cals: Calibrations) -> Frames:
    """Take the sky off every object frame; frames that are only sky end here.

    First pass: the sky frames are subtracted from one another and their objects found. Second pass: for
    each object frame its sky frames (`skies`), objects masked, are brought to one level and combined; the
    result is scaled to the frame (scale_sky), or, where object and sky lie apart, taken at the level of
    its own frames, interpolated to the time of the object frame if they bracket it, else that of the
    nearest; it is never extrapolated.

    Sets SKYLEVEL (what was taken off), SKYFACT, SKYNUM, SKYHOW, SKYVAR. A frame without skies stays as it is,
    with a note. Raises ReductionError when a frame has no usable sky pixel.
    """
    objects = [f for f in frames if "object" in f.roles or not f.roles]
    used = {name for f in objects for name in f.skies}
    skies = _Skies({f.name: f for f in frames}, params)
    notes: list[str] = []
    if params.mask_objects:
        skies.masks = _first_pass([f for f in frames if f.name in used], params)
    scale = params.scale_sky
    if scale is None:
        off = [f for f in frames if f.name in used]
        scale = not (off and not ({f.name for f in objects} & used) and pointing.all_apart(objects, off))
    out = []
    for frame in objects:
        names = tuple(name for name in frame.skies if name in skies.frames)
        if not names:
            notes.append(f"{frame.name}: no sky frame belongs to it; its sky is not subtracted")
            out.append(frame)
            continue
        if len(names) == 1:
            notes.append(f"{frame.name}: one sky frame only, whose bad pixels and cosmic rays stay")
        try:
            out.append(_corrected(frame, names, skies, scale, cals))
        except ValueError as error:
            raise BadFrame(frame.name, str(error)) from error
    for text in notes:
        out = note(out, text)
    return out


def _corrected(frame: Frame, names: tuple[str, ...], skies: _Skies, scale: bool, cals: Calibrations) -> Frame:
    """One object frame less its sky."""
    from pipeline.algorithms import background
    from pipeline.algorithms.combine import median_variance

    params = skies.params
    sky = skies.stack(names)
    if scale:
        factor, how = _scaling(frame, skies, sky), "scaled"
    else:
        factor, how = _own_level(frame, names, skies, sky)
    variance = np.zeros_like(frame.sci) if frame.var is None else frame.var
    common: dict[str, Any] = {}
    if params.common_noise and frame.var is not None:
        common = _shared(frame, cals)
        if params.operation == "median":
            common["share"] = float(median_variance(len(names), params.exact_median)[len(names)])
        else:
            common["share"] = 1.0 / len(names)
    result = background.subtract_sky(frame.sci, variance, sky.sci, sky.var, factor, **common)
    sci, dq = result.sci, frame.dq | sky.dq
    if params.offset_sky and not scale:
        sci = sci - np.float32(_level(frame.evolve(sci=sci, dq=dq), skies.not_empty(frame, dq), params))
        how = "offset"
    taken = factor * _stack_level(sky, params)
    if params.reset_sky:
        sci = sci + np.float32(taken)
    cards = {
        "SKYLEVEL": (round(taken, 4), f"[{frame.unit}] Sky level taken off"),
        "SKYFACT": (round(factor, 7), "Factor applied to the sky frame"),
        "SKYNUM": (len(names), "Number of frames in the sky"),
        "SKYHOW": (how, "How the level of the sky was found"),
        "SKYVAR": (round(result.sky_var, 4), "Variance that the sky has brought"),
    }
    var = None if frame.var is None else result.var
    return frame.stamped("SUBSKY", sci=sci, var=var, dq=dq, cards=cards)


def _shared(frame: Frame, cals: Calibrations) -> dict[str, Any]:
    """Planes of the calibrations that went into the frame and have its shape."""
    planes: dict[str, Any] = {}
    flat, dark = cals.flat, cals.dark
    if flat is not None and flat.var is not None and flat.shape == frame.shape and "FLATCORR" in frame.header:
        planes |= {"flat": flat.sci, "flat_var": flat.var}
    if dark is not None and dark.var is not None and dark.shape == frame.shape and "DARKCORR" in frame.header:
        planes["dark_var"] = dark.var
    return planes


def _combined(skies: _Skies, names: tuple[str, ...]) -> Stack:
    """The sky frames, objects masked, at the level of the first, as one."""
    from pipeline.algorithms.combine import Method, combine
    from pipeline.algorithms.levels import relative_scales, relative_zeros

    params = skies.params
    sci = [skies.frames[name].sci for name in names]
    dq = [skies.dq(name) for name in names]
    var = _variances(skies, names)
    scales, zeros = [1.0] * len(names), [0.0] * len(names)
    if params.estimator == "all" and (params.scale or params.zero):
        levels = [skies.level(name) for name in names]
        if params.scale and all(level > 0 for level in levels):
            scales = [levels[0] / level for level in levels]
        elif params.zero or params.scale:
            zeros = [levels[0] - level for level in levels]
    elif params.scale:
        scales = relative_scales(sci, dq)
    elif params.zero:
        zeros = relative_zeros(sci, dq)
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


def _variances(skies: _Skies, names: tuple[str, ...]) -> list[FloatImage] | None:
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


# --- the first pass: objects on the sky frames ---

TOGETHER = 16  # frames whose objects are looked for together, at most


def _first_pass(frames: Frames, params: SkyCorrectParams) -> dict[str, BoolImage]:
    """The object masks of sky frames, grown by `dilation`."""
    plain = _Skies({f.name: f for f in frames}, params)
    if params.first_pass == "given":
        return {f.name: _grown(f, params) for f in frames if f.objmask is not None}
    if params.first_pass == "sources":
        return {frame.name: _detected(frame, plain) for frame in frames}
    masks: dict[str, BoolImage] = {}
    number = pointing.groups(frames) if frames else []
    for group in range(max(number, default=-1) + 1):
        members = [f for f, n in zip(frames, number, strict=True) if n == group]
        for start in range(0, len(members), TOGETHER):
            masks |= _deep_masks(members[start : start + TOGETHER], plain)
    return masks


def _grown(frame: Frame, params: SkyCorrectParams) -> BoolImage:
    from pipeline.algorithms import sources

    assert frame.objmask is not None
    return sources.dilate(frame.objmask, params.dilation)


def _detected(frame: Frame, skies: _Skies) -> BoolImage:
    """Gemini's first pass: the frame less its skies, and what detectSources finds on it."""
    from pipeline.algorithms import sources

    params = skies.params
    pool = tuple(n for n in frame.skies if n in skies.frames)
    if not pool:
        return np.zeros(frame.shape, np.bool_)
    sky = skies.stack(pool)
    factor = 1.0 if params.scale_sky is False else _scaling(frame, skies, sky)
    residual = frame.sci - np.float32(factor) * sky.sci
    _, labels = sources.detect(residual, frame.dq | sky.dq, sources.Detection())
    return sources.dilate(sources.object_mask(labels), params.dilation)


def _deep_masks(frames: Frames, skies: _Skies) -> dict[str, BoolImage]:
    """Masks of frames of one field, each from what the others show."""
    from pipeline.algorithms import background, sources

    residuals, bad, sigmas = [], [], []
    for frame in frames:
        residual, unusable = _rough_residual(frame, skies)
        level = background.sky_level(residual, unusable, high=UNMASKED)
        residuals.append(residual - np.float32(level.level))
        bad.append(unusable)
        sigmas.append(level.sigma)
    apart = pointing.offsets(frames)[0]
    # Where frame j's pixel (0, 0) lies on the sky, in pixels of the first frame.
    shifts = [(round(float(dx)), round(float(dy))) for dx, dy in apart]
    grow = round(skies.params.dilation)
    masks = sources.masks_from_others(residuals, bad, shifts, float(np.median(sigmas)), grow=grow)
    return dict(zip((f.name for f in frames), masks, strict=True))


def _rough_residual(frame: Frame, skies: _Skies) -> tuple[FloatImage, BoolImage]:
    """A frame less the median of its pool, and its unusable pixels.

    One sky serves all that share a pool: that a frame's own light is among the n samples of the median
    does not hide an object on it. Without other frames the smooth background has to do.
    """
    from pipeline.algorithms import sources

    pool = tuple(n for n in frame.skies if n in skies.frames)
    bad: BoolImage = frame.dq != 0
    if not pool:
        return frame.sci - sources.smooth_background(frame.sci, bad), bad
    sky = skies.stack(tuple(sorted({frame.name, *pool})))
    factor = np.float32(skies.level(frame.name) / _stack_level(sky, skies.params))
    return frame.sci - factor * sky.sci, bad | (sky.dq != 0)


# --- levels ---

# Cut above the level, sigma: where objects are masked the same as below, else closer.
MASKED, UNMASKED = 3.0, 1.5
WINGS = 6.0  # pixels by which masks grow before a level is measured


def _level(frame: Frame, bad: BoolImage, params: SkyCorrectParams) -> float:
    from pipeline.algorithms import background

    if params.estimator == "ogive":
        return background.ogive_level(frame.sci, bad).level
    return background.sky_level(frame.sci, bad, high=MASKED).level


def _stack_level(sky: Stack, params: SkyCorrectParams) -> float:
    from pipeline.algorithms import background

    if params.estimator == "ogive":
        return background.ogive_level(sky.sci, sky.dq != 0).level
    return background.sky_level(sky.sci, sky.dq != 0, high=MASKED).level


def _scaling(frame: Frame, skies: _Skies, sky: Stack) -> float:
    """The factor of the sky that leaves the frame's empty pixels at zero."""
    from pipeline.algorithms import background, sources

    params = skies.params
    sky_level = _stack_level(sky, params)
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
        bad = bad | sources.object_mask_of(left, bad, background.sky_level(left, bad, high=UNMASKED))
    return background.sky_factor(_residual(frame, sky, bad), sky_level, params.debug_threshold)


def _residual(frame: Frame, sky: Stack, bad: BoolImage) -> Callable[[float], float]:
    from pipeline.algorithms import background

    return lambda factor: background.sky_level(frame.sci, bad, sky=sky.sci, factor=factor, high=MASKED).level


def _own_level(frame: Frame, names: tuple[str, ...], skies: _Skies, sky: Stack) -> tuple[float, str]:
    """(factor, how) of the sky at the level of its own frames, at the time of the object frame.

    Between the nearest sky before and the nearest after, both within `interpolate` seconds: a straight line.
    Else, with our estimator, the level of the sky nearest in time; with Gemini's settings that of the stack.
    """
    params = skies.params
    if params.estimator == "ogive" and not params.interpolate:
        return 1.0, "skies"
    now = _middle(frame)
    times = {name: _middle(skies.frames[name]) for name in names}
    before = [n for n in names if now - params.interpolate <= times[n] <= now]
    after = [n for n in names if now <= times[n] <= now + params.interpolate]
    whole = _stack_level(sky, params)
    if not np.isfinite(whole) or whole == 0:
        raise ReductionError(f"the sky of {frame.name} has no usable pixel")
    if params.interpolate and before and after:
        first, last = max(before, key=times.__getitem__), min(after, key=times.__getitem__)
        span = times[last] - times[first]
        weight = (now - times[first]) / span if span > 0 else 0.0
        return ((1 - weight) * skies.level(first) + weight * skies.level(last)) / whole, "interpolated"
    nearest = min(names, key=lambda n: (abs(times[n] - now), n))
    return skies.level(nearest) / whole, "nearest"


def _middle(frame: Frame) -> float:
    facts = frame.descriptors
    start = facts.ut_datetime.timestamp() if facts.ut_datetime else 0.0
    return start + 0.5 * (facts.exposure_time or 0.0)
