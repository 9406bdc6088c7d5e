"""Forecasts of depth on simulated sequences: does the error that is stated at half time hold the end?

    python -m bench enough            # 200 sequences

Sequences of 6 to 40 frames are drawn with their noise pixel by pixel (256 x 256), under seeing, sky and light
that wander; skies are medians of the other frames, or of frames beside the target, as the pipeline makes
them. The forecast sees what the ledger would keep at half time: the noise in empty apertures, and of each
frame seeing, sky and light with the errors of a measurement. The end is what the pixels of the whole
stack then have.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from daemon.judgement.depth import DIAMETER, Known, Pace, Reached, Stack, depth, forecast
from daemon.judgement.weather import Taken
from daemon.work.depthmeasures import noise_of
from pipeline import medians
from pipeline.algorithms.emptyapertures import scatter
from pipeline.algorithms.photometry import moffat_inside
from pipeline.steps.sky import AssociateSkyParams

SIDE = 256
SCALE = 0.1171  # arcsec a pixel, f/6
ZERO, ZERO_ERROR = 26.4, 0.03
BETA = 3.0
# Errors with which the frames are measured, relative: seeing of a handful of stars, sky, light of the stars.
MEASURED = {"fwhm": 0.03, "sky": 0.005, "light": 0.015}
SKY_WITHIN = AssociateSkyParams().time
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Night:
    """One sequence as it is. fwhm (arcsec), sky (e-), light : (n,) of each frame; zero : the true one"""

    frames: int
    seconds: float
    every: float
    read_noise: float
    apart: bool
    fwhm: Floats
    sky: Floats
    light: Floats
    zero: float

    def times(self) -> Floats:
        return self.every * np.arange(self.frames)

    def until(self, n: int) -> Night:
        return replace(self, frames=n, fwhm=self.fwhm[:n], sky=self.sky[:n], light=self.light[:n])


def drawn(rng: np.random.Generator) -> Night:
    """Short and long, in thin and bright skies, with read noise that counts or does not; one in four with its
    sky beside the target, one in five in passing cloud."""
    n = 2 * int(rng.integers(3, 21))
    seconds, read_noise = float(rng.uniform(15, 90)), float(rng.choice([12.3, 35.0]))
    apart = bool(rng.random() < 0.25)
    every = (seconds + rng.uniform(5, 25)) * (2 if apart else 1)
    times = every * np.arange(n)
    sky = rng.uniform(100, 1200) * seconds * (1 + rng.uniform(-0.3, 0.3) * times / 3600.0)
    sky = sky * np.exp(_wander(rng, times, rng.uniform(0.01, 0.08)))
    fwhm = rng.uniform(0.4, 0.8) * np.exp(_wander(rng, times, rng.uniform(0.04, 0.18)))
    fwhm = fwhm * np.exp(rng.normal(0.0, rng.uniform(0.0, 0.1), n))
    light = np.exp(-np.abs(_wander(rng, times, 0.2))) if rng.random() < 0.2 else np.ones(n)
    light = light * np.exp(rng.normal(0.0, 0.005, n))
    zero = ZERO + rng.normal(0.0, ZERO_ERROR)
    return Night(n, seconds, every, read_noise, apart, fwhm, sky, light, zero)


def _wander(rng: np.random.Generator, times: Floats, sigma: float) -> Floats:
    """A process that forgets itself within 8 to 35 minutes, as it is not known to the forecast."""
    alike = np.exp(-np.abs(np.subtract.outer(times, times)) / rng.uniform(480, 2100))
    return rng.multivariate_normal(np.zeros(times.size), sigma**2 * alike, method="cholesky")


def reduced(own: Night, pixels: Floats, beside: Floats | None) -> tuple[Floats, dict[str, float]]:
    """The stack of these frames, and the figures that are kept with it.

    pixels : (n, side, side) noise of each frame; beside : the same of sky frames, None where the frames are
        each other's sky
    Each frame is moved by a dither of its own before it is added: no sky lies on the same place twice.
    """
    n, times = own.frames, own.times()
    bare = own.sky + own.read_noise**2
    stack, brought, skies = np.zeros(pixels.shape[1:]), [], []
    for k in range(n):
        near = np.abs(times - times[k]) <= SKY_WITHIN
        if beside is None:
            near[k] = False
        pool = np.flatnonzero(near)
        others = (pixels if beside is None else beside)[pool]
        stack += np.roll(pixels[k] - np.median(others, axis=0), (7 * k, 13 * k), (0, 1))
        brought.append(medians.variance(pool.size) * float(bare[pool].mean()))
        skies.append(pool.size)
    total = bare + np.array(brought)
    figures = {
        "frame_noise": math.sqrt(total.mean()),
        "sky_noise": math.sqrt(np.mean(brought)),
        "stack_noise": math.sqrt(total.mean() / n),
        "skies": float(np.mean(skies)),
    }
    return stack / n, figures


def seen(own: Night, pixels: Floats, beside: Floats | None, rng: np.random.Generator) -> Stack:
    """What is measured of the stack of these frames."""
    image, figures = reduced(own, pixels, beside)
    fwhm = _width(own)
    radius = DIAMETER / 2 * fwhm / SCALE
    var = np.full(image.shape, figures["stack_noise"] ** 2, np.float32)
    found = scatter(image.astype(np.float32), var, np.ones(image.shape, np.bool_), radius)
    noise = noise_of(found, figures["stack_noise"] * math.sqrt(math.pi) * radius)
    measured = fwhm * float(1 + rng.normal(0.0, 0.01))
    inside = float(moffat_inside(DIAMETER / 2, 1.0, BETA))
    return Stack(
        own.frames, own.seconds, Known(ZERO, ZERO_ERROR), Known(measured, 0.01 * measured),
        Known(noise.value * measured / fwhm, noise.error), Known(inside, 0.0), light=float(own.light.mean()),
        **figures,
    )  # fmt: skip


def at_the_end(own: Night, pixels: Floats, beside: Floats | None) -> Reached:
    """The truth: the noise of all pixels, the seeing and the light that there were, the true zero point."""
    image, _ = reduced(own, pixels, beside)
    radius = DIAMETER / 2 * _width(own) / SCALE
    noise = float(image.std()) * math.sqrt(math.pi) * radius
    inside = float(moffat_inside(DIAMETER / 2, 1.0, BETA))
    exact = Stack(
        own.frames, own.seconds, Known(own.zero), Known(_width(own)), Known(noise), Known(inside),
        light=float(own.light.mean()),
    )  # fmt: skip
    return depth(exact)


def _width(own: Night) -> float:
    """The seeing of a mean of images."""
    return float(np.exp(np.log(own.fwhm).mean()))


def frames_of(own: Night, rng: np.random.Generator) -> list[Taken]:
    def measured(values: Floats, name: str) -> Floats:
        return values * (1 + rng.normal(0.0, MEASURED[name], values.size))

    rows = zip(
        own.times(), measured(own.fwhm, "fwhm"), measured(own.sky, "sky"), measured(own.light, "light"),
        strict=True,
    )  # fmt: skip
    return [Taken(*(float(value) for value in row), read_noise=own.read_noise) for row in rows]


@dataclass(frozen=True)
class Calibration:
    """within : part of the sequences whose end was within 1 and 2 stated errors, all counted; own : the
    same against the true end with the zero point that was used, by the error without that of the zero point

    pulls : rms of (end - forecast) / error; bias : median of end - forecast, magnitudes; error : median
    plain : rms of end - forecast by the root of n alone, and ours, magnitudes
    """

    sequences: int
    within: tuple[float, float]
    own: tuple[float, float]
    pulls: tuple[float, float]
    bias: float
    error: tuple[float, float]
    plain: tuple[float, float]
    short: tuple[float, float]  # of the sequences of 12 frames and fewer: bias by the root of n, and ours


def calibrated(sequences: int = 200, seed: int = 20161128, side: int = SIDE) -> Calibration:
    """Draw sequences, forecast each at half time, compare with the end. side : of their images, pixels"""
    rng = np.random.default_rng(seed)
    rows = np.array([_one(drawn(rng), rng, side) for _ in range(sequences)])
    off, error, own_off, own_error, plain_off, frames = rows.T
    few = frames <= 12

    def within(values: Floats, errors: Floats) -> tuple[float, float]:
        return float(np.mean(np.abs(values) <= errors)), float(np.mean(np.abs(values) <= 2 * errors))

    def rms(values: Floats) -> float:
        return float(np.sqrt(np.mean(values**2)))

    return Calibration(
        sequences, within(off, error), within(own_off, own_error),
        (rms(off / error), rms(own_off / own_error)), float(np.median(own_off)),
        (float(np.median(error)), float(np.median(own_error))), (rms(plain_off), rms(own_off)),
        (float(np.median(plain_off[few])), float(np.median(own_off[few]))),
    )  # fmt: skip


def _one(own: Night, rng: np.random.Generator, side: int) -> tuple[float, ...]:
    sigma = np.sqrt(own.sky + own.read_noise**2)[:, None, None]
    size = (own.frames, side, side)
    pixels = rng.normal(0.0, sigma, size)
    beside = rng.normal(0.0, sigma, size) if own.apart else None
    half = own.frames // 2
    early = own.until(half)
    stack = seen(early, pixels[:half], None if beside is None else beside[:half], rng)
    told = forecast(stack, frames_of(early, rng), own.frames - half, Pace(own.every, SKY_WITHIN))
    end = at_the_end(own, pixels, beside).value
    same = end - own.zero + ZERO  # the zero point that was used
    plain = depth(stack).value + 1.25 * math.log10(own.frames / half)
    return end - told.value, told.error, same - told.value, told.own_error, same - plain, own.frames


SMALL = {"sequences": 24, "side": 96}


def measure(data: Path, sequences: int = 200, side: int = SIDE) -> dict[str, Any]:
    """As every bench answers. data : not used, all is drawn here."""
    return asdict(calibrated(sequences, side=side))


def tables(answer: dict[str, Any]) -> Iterator[tuple[str, Sequence[str], list[Sequence[Any]]]]:
    rows = []
    for name, k in (("all errors", 0), ("without the zero point's", 1)):
        one, two = answer["within"] if k == 0 else answer["own"]
        rows.append((name, f"{100 * one:.1f}", f"{100 * two:.1f}", round(answer["pulls"][k], 2),
                     round(answer["error"][k], 3)))  # fmt: skip
    yield (
        f"forecasts at half time, {answer['sequences']} sequences",
        ("error", "end within 1, %", "within 2, %", "rms of pulls", "median error, mag"),
        rows,
    )
    yield (
        "end less forecast, magnitudes",
        ("by", "rms", "median of those of 12 frames and fewer"),
        [
            ("the root of the number", round(answer["plain"][0], 3), round(answer["short"][0], 3)),
            ("nirid", round(answer["plain"][1], 3), round(answer["short"][1], 3)),
        ],
    )
