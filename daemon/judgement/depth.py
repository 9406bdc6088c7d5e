"""How deep a stack is, and how deep it will be with more frames.

    deep = depth(stack)                        # 5 sigma, point source: Reached(value=22.31, error=0.05, ...)
    later = forecast(stack, taken, 8, pace)    # with eight frames more
    more_frames(stack, taken, goal, pace)      # how many until it is there

Pure. Of a star the light within a circle of 1.5 FWHM diameter counts, near the best there is for a round
profile in sky noise; the noise in it is what the stack itself shows in empty circles of that size.

The noise of N frames is not that of n by the root of n/N, because each frame brings that of its sky, a median
of the others, whose variance falls with their number too: (1 + m(k)) / N for k skies each
(`pipeline.medians`). What skies have in common in frames that are hardly dithered does not average.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from daemon.judgement import weather
from daemon.judgement.weather import Ahead, Taken
from pipeline import medians

LIMIT = 5.0  # standard deviations
DIAMETER = 1.5  # FWHM
MAGNITUDES = 2.5 / math.log(10)
COMMON = 0.03  # of the variance of a stack, that two medians of it may differ by without a cause
SHARED = 0.75  # of the frames near in time that are each other's sky; below, their number is limited
# Of the change of a sky's noise: where objects are masked a sky has fewer frames than others, and how many
# pixels that are changes as well. A crowded field of three frames was off by so much.
SKIES = 0.3
MOST = 5000  # frames that are looked ahead


class Known(NamedTuple):
    """A value with its standard error."""

    value: float
    error: float = 0.0


@dataclass(frozen=True)
class Stack:
    """What was measured of a stack: the mean of `frames` exposures, in electrons of one of them.

    seconds : exposure of one, all coadds
    zero : magnitude of 1 e-/s of total light, at the airmass of the stack
    fwhm : arcsec; noise : in the circle, by empty ones; inside : part of a star's light in it
    frame_noise : of a pixel in one frame with its sky off; sky_noise : the part that its sky has brought;
        stack_noise : of a pixel in the stack; None where they are not known
    skies : frames in the sky of one, None where not known
    light : of the stars, of that of a clear frame
    """

    frames: int
    seconds: float
    zero: Known
    fwhm: Known
    noise: Known
    inside: Known
    frame_noise: float | None = None
    sky_noise: float | None = None
    stack_noise: float | None = None
    skies: float | None = None
    light: float = 1.0


@dataclass(frozen=True)
class Pace:
    """every : seconds from one frame that counts to the next; sky_within : as far in time a sky may be"""

    every: float
    sky_within: float


@dataclass(frozen=True)
class Reached:
    """A magnitude with its error, and how much of the error is not that of the zero point.

    noise : e- in the circle; light : of the stars, of that of a clear frame; frames : of the stack
    """

    value: float
    error: float
    own_error: float
    noise: float
    light: float
    frames: int


@dataclass(frozen=True)
class Goal:
    """What is enough. depth : magnitude of a point source with 5 sigma; or snr : at a magnitude"""

    depth: float | None = None
    snr: float | None = None
    magnitude: float | None = None

    def short_by(self, stack: Stack, reached: Reached) -> float:
        """Magnitudes that are missing; below 0 it is more than enough."""
        if self.depth is not None:
            return self.depth - reached.value
        assert self.snr is not None
        assert self.magnitude is not None
        return MAGNITUDES * math.log(self.snr / snr_at(stack, reached, self.magnitude))


def depth(stack: Stack) -> Reached:
    """The magnitude of a point source that the stack shows with 5 sigma."""
    own = math.hypot(*(MAGNITUDES * k.error / k.value for k in (stack.noise, stack.inside, stack.fwhm)))
    return _reached(stack, stack.noise.value, stack.light, stack.frames, own)


def forecast(stack: Stack, taken: Sequence[Taken], more: int, pace: Pace) -> Reached:
    """The same with `more` frames, under the conditions of the latest.

    taken : the frames of the sequence so far, in order of time
    The error has that of the measured noise, of conditions that will not stay (`weather`), and of the zero
    point.
    """
    if more <= 0:
        return depth(stack)
    there, ahead = _expected(stack, taken, more, pace)
    doubt = weather.doubt(taken, more, pace.every)
    part = MAGNITUDES * more / (stack.frames + more)  # of the frames, those to come
    own = math.hypot(
        depth(stack).own_error,
        part * doubt.fwhm,
        part * doubt.light,
        part * doubt.sky * ahead.photons / 2,
        MAGNITUDES * SKIES * _skies_change(stack, more, pace) / 2,
    )
    return _reached(stack, there.noise, there.light, there.frames, own)


def more_frames(stack: Stack, taken: Sequence[Taken], goal: Goal, pace: Pace) -> int | None:
    """The fewest frames more with which the goal is to be expected; None beyond MOST."""

    def there(more: int) -> bool:
        return goal.short_by(stack, _expected(stack, taken, more, pace)[0]) <= 0

    if goal.short_by(stack, depth(stack)) <= 0:
        return 0
    low, high = 0, 1
    while not there(high):
        low, high = high, 2 * high
        if high > MOST:
            return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if there(middle) else (middle, high)
    return high


def snr_at(stack: Stack, reached: Reached, magnitude: float) -> float:
    """Signal over noise of a star of this magnitude in the circle, its own photons counted."""
    rate: float = 10 ** (0.4 * (stack.zero.value - magnitude))
    light = rate * stack.seconds * stack.inside.value * reached.light
    return light / math.sqrt(reached.noise**2 + light / reached.frames)


def magnitude_of(stack: Stack, light: float, clear: float) -> float:
    """The magnitude of a star with this light in the circle, e- in one exposure; clear : as `Stack.light`"""
    total = light / (stack.inside.value * clear * stack.seconds)
    return stack.zero.value - 2.5 * math.log10(total)


def _reached(stack: Stack, noise: float, light: float, frames: int, own: float) -> Reached:
    """The source's own photons count, too: they are LIMIT² / frames of the mean at the least."""
    quantum = LIMIT**2 / frames
    faintest = (quantum + math.sqrt(quantum**2 + 4 * LIMIT**2 * noise**2)) / 2
    value = magnitude_of(stack, faintest, light)
    return Reached(value, math.hypot(own, stack.zero.error), own, noise, light, frames)


def _expected(stack: Stack, taken: Sequence[Taken], more: int, pace: Pace) -> tuple[Reached, Ahead]:
    """A forecast without its error, and the conditions that it rests on.

    Noise of skies falls with their number as that of a median; that of frames to come is as that of these,
    but for the sky's photons in it.
    """
    ahead = weather.ahead(taken, more, pace.every)
    n, total = stack.frames, stack.frames + more
    brighter = 1 + ahead.photons * (ahead.sky - 1)
    mean = (n + more * brighter) / total  # variance of a frame without its sky, of that so far
    now, then = _variance(stack, n, pace), mean * _variance(stack, total, pace)
    wider = ahead.fwhm ** (more / total)
    noise = stack.noise.value * math.sqrt(then / now) * wider
    light = (n * stack.light + more * ahead.light) / total
    return _reached(stack, noise, light, total, 0.0), ahead


def _variance(stack: Stack, frames: int, pace: Pace) -> float:
    """Variance of a pixel in a stack of so many frames like these, in units of one without its sky."""
    skies, brought = _skies(stack, frames, pace)
    return (1 + brought * skies) / frames + _common(stack) * brought * skies * (frames - 1) / frames


def _skies_change(stack: Stack, more: int, pace: Pace) -> float:
    """By which part of the variance of a frame the noise of its sky will fall."""
    (now, brought), (then, _) = (_skies(stack, n, pace) for n in (stack.frames, stack.frames + more))
    return abs(now - then) * brought / (1 + now * brought)


def _skies(stack: Stack, frames: int, pace: Pace) -> tuple[float, float]:
    """(variance of a sky of a stack of so many frames, as a median has it; by how much the measured differs).

    As many frames are in the sky of one as are near enough in time, unless there were fewer of them from the
    beginning: then it was limited.
    """
    near = _near(stack.frames, pace)
    seen = near if stack.skies is None else stack.skies
    if stack.frames < 2 or seen < 1:
        return 0.0, 0.0
    limited = seen < SHARED * near
    then = seen if limited else seen * _near(frames, pace) / near
    if stack.frame_noise and stack.sky_noise is not None and stack.frame_noise > stack.sky_noise:
        brought = stack.sky_noise**2 / (stack.frame_noise**2 - stack.sky_noise**2)
        return _median(then), brought / _median(seen)
    return _median(then), 1.0


def _median(number: float) -> float:
    """Between whole numbers, which are means over frames, on a line."""
    low = math.floor(number)
    at, above = medians.variance(low), medians.variance(low + 1)
    return at + (number - low) * (above - at)


def _near(frames: int, pace: Pace) -> float:
    """Mean number of the others that are near in time to one of so many frames."""
    reach = math.floor(pace.sky_within / pace.every) if pace.every > 0 else frames
    if frames <= reach + 1:
        return frames - 1.0
    return (2 * reach * frames - reach * (reach + 1)) / frames


def _common(stack: Stack) -> float:
    """The part of the noise of skies that frames have in common, 0 to 1: what the stack has more than the
    mean of independent frames."""
    if stack.frames < 2 or not (stack.frame_noise and stack.sky_noise and stack.stack_noise):
        return 0.0
    more = stack.stack_noise**2 - stack.frame_noise**2 / stack.frames
    if more < COMMON * stack.stack_noise**2:
        return 0.0
    return min(more * stack.frames / ((stack.frames - 1) * stack.sky_noise**2), 1.0)
