"""The detector: what an ALADDIN array makes of the light that falls on it.

The chain, for the sum of all coadds, in electrons: photons x response + dark + latent image,
Poisson noise, + pedestal + cosmic rays, the inverse of the published linearity correction, the
well, digitisation with read noise. The constants are written down here once more, apart from
those the pipeline reduces with, so that a slip in either shows as a disagreement.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

FloatImage = npt.NDArray[np.float32]
BoolImage = npt.NDArray[np.bool_]

ARRAY_SIZE = 1024
GAIN = 12.3  # electrons per ADU
WELL = {"Shallow": 200_000.0, "Deep": 280_000.0}  # electrons per coadd
READ_NOISE = {"Low Background": 12.3, "Medium Background": 35.0, "High Background": 70.0}
READS = {"Low Background": (16, 16), "Medium Background": (1, 16), "High Background": (1, 1)}  # LNRS, NDAVGS
OVERHEAD_SECONDS = {"Low Background": 10.8, "Medium Background": 0.3, "High Background": 0.1}  # of a coadd
BIAS_VOLTS = {"Shallow": 0.58, "Deep": 0.89}

LATENT_SECONDS = 120.0  # a residual image is followed for this long
LATENT_FRACTION = 0.008  # of the well, right after the exposure (published: 0.5 to 1 %)
LATENT_DECAY_SECONDS = 60.0
COSMIC_RATE = 0.8  # hits per second on the whole array


class Nonlinearity(NamedTuple):
    """c' = c (1 + gamma c + eta c^2), then x t / (t + time_delta); c in electrons of one coadd."""

    time_delta: float
    gamma: float
    eta: float

    def apply(self, c: npt.ArrayLike) -> FloatImage:
        value = np.asarray(c, np.float32)
        return np.asarray(value * (1 + value * (self.gamma + self.eta * value)), np.float32)

    def invert(self, true: FloatImage) -> FloatImage:
        """The c that `apply` takes to `true`, by Newton's method (four steps reach float32)."""
        c = true / (1 + true * np.float32(self.gamma + 0.6 * self.eta * 1e5))
        for _ in range(4):
            slope = 1 + c * (2 * self.gamma + 3 * self.eta * c)
            c = c - (self.apply(c) - true) / slope
        return np.asarray(c, np.float32)


LINEAR = Nonlinearity(0.0, 0.0, 0.0)
# (read mode, rows read out, well): facts of the instrument; every other combination is linear here.
NONLINEARITY = {
    ("Low Background", 1024, "Shallow"): Nonlinearity(1.2662732, 6.006310407e-07, 1.282732019e-12),
    ("Medium Background", 1024, "Shallow"): Nonlinearity(0.09442515154, 2.787629143e-07, 3.178236042e-12),
    ("Medium Background", 256, "Shallow"): Nonlinearity(0.01029262589, 5.540988347e-07, 1.404726339e-12),
    ("High Background", 1024, "Shallow"): Nonlinearity(0.009697324059, 2.471574550e-07, 3.067478573e-12),
    ("High Background", 1024, "Deep"): Nonlinearity(0.007680816203, 2.912125336e-07, 1.203254464e-12),
}


@dataclass(frozen=True)
class Detector:
    """The properties of one array, all images (ny, nx).

    response : sensitivity, median 1 over good pixels; dead pixels below 0.3
    dark_rate : e-/s, hot and warm pixels included
    pedestal : electrons of one coadd, the same in every pixel and without shot noise
    hot, dead : True where a pixel is defective (hot includes warm: everything above 20 e-/s)
    static_bpm : the part of the defects that the observatory's old mask knows
    """

    response: FloatImage
    dark_rate: FloatImage
    pedestal: float
    hot: BoolImage
    dead: BoolImage
    static_bpm: BoolImage

    @property
    def shape(self) -> tuple[int, int]:
        ny, nx = self.response.shape
        return ny, nx

    def cut(self, size: int) -> Detector:
        """The central size x size part, as a sub-array is read out."""
        return Detector(
            centre_of(self.response, size),
            centre_of(self.dark_rate, size),
            self.pedestal,
            centre_of(self.hot, size),
            centre_of(self.dead, size),
            centre_of(self.static_bpm, size),
        )


def centre_of(image: npt.NDArray[Any], size: int) -> npt.NDArray[Any]:
    first = (image.shape[0] - size) // 2
    return image[first : first + size, first : first + size]


def perfect_detector(shape: tuple[int, int], *, dark_rate: float = 0.25, pedestal: float = 0.0) -> Detector:
    """Every pixel alike and none defective: where a test wants to add its own faults."""
    none = np.zeros(shape, bool)
    return Detector(
        np.ones(shape, np.float32), np.full(shape, dark_rate, np.float32), pedestal, none, none, none
    )


def make_detector(rng: np.random.Generator, size: int = ARRAY_SIZE) -> Detector:
    """An array as the instrument pages describe it: 0.25 e-/s and glow, a response of some percent
    rms, 0.2 % defects, of which a mask of 2001 knows two thirds."""
    y, x = np.mgrid[0:size, 0:size].astype(np.float32) / size - 0.5
    smooth = 0.03 * x - 0.02 * y - 0.12 * (x**2 + y**2) + 0.012 * np.sin(7 * x + 4 * y)
    quadrant = rng.normal(0, 0.004, (2, 2)).astype(np.float32).repeat(size // 2, 0).repeat(size // 2, 1)
    pixel = 0.02 * np.clip(rng.standard_normal((size, size), np.float32), -4, 4)
    response = 1 + smooth + quadrant + pixel
    response /= np.median(response)
    # One good pixel outside the limits of the mask (0.8 to 1.25) would be no good pixel.
    response = np.clip(response, 0.86, 1.16)

    glow = 0.6 * np.exp(-(y + 0.5) / 0.06) + 0.8 * np.exp(-np.hypot(x - 0.5, y - 0.5) / 0.09)
    dark = (0.25 + glow) * np.clip(1 + 0.15 * rng.standard_normal((size, size), np.float32), 0.2, None)

    n = size * size
    defect = rng.permutation(n)[: max(24, round(n * 0.0033))]
    warm, hot, dead_pixels = np.split(defect, [len(defect) * 3 // 10, len(defect) * 6 // 10])
    # Nothing between 1000 and 1450 e-/s, where it would be a matter of noise whether a mask finds it.
    dark.flat[warm] = 20 * 50 ** rng.random(len(warm))
    dark.flat[hot] = 1450 * 14 ** rng.random(len(hot))
    dead = np.zeros((size, size), bool)
    dead.flat[dead_pixels] = True
    for cy, cx, radius in zip(*rng.integers(8, size - 8, (2, 7)), rng.uniform(1.5, 5, 7), strict=True):
        near = np.s_[max(cy - 6, 0) : cy + 7, max(cx - 6, 0) : cx + 7]
        dead[near] |= np.hypot((y[near] + 0.5) * size - cy, (x[near] + 0.5) * size - cx) < radius
    response[dead] = rng.uniform(0, 0.3, int(dead.sum()))
    is_hot = np.asarray(dark > 20)
    static = (is_hot | dead) & (rng.random((size, size)) < 0.65)
    return Detector(
        np.asarray(response, np.float32), np.asarray(dark, np.float32), 131.0, is_hot, dead, static
    )


def poisson(rng: np.random.Generator, mean: FloatImage) -> FloatImage:
    """Poisson counts; above 1000 by the normal law, ten times faster and within 0.05 sigma out to 3 sigma."""
    mean = np.maximum(mean, 0)
    counts = mean + np.sqrt(mean) * rng.standard_normal(mean.shape, np.float32)
    few = mean < 1000
    counts[few] = rng.poisson(mean[few])
    return np.asarray(counts, np.float32)


class Readout(NamedTuple):
    adu: FloatImage  # sum of coadds, whole numbers
    saturated: BoolImage


def read_out(
    rng: np.random.Generator,
    rate: FloatImage,
    deposited: FloatImage | float,
    *,
    pedestal: float,
    latent: FloatImage | float,
    exposure: float,
    coadds: int,
    read_mode: str,
    well: str,
) -> Readout:
    """Raw ADU, summed over coadds, of a pixel rate (e-/s, photons and dark).

    deposited : electrons put in by cosmic rays in the whole frame
    latent : mean electrons of residual image in the whole frame
    exposure : seconds of one coadd. The collecting time is longer by the time_delta of the mode,
        as the published correction says; the pedestal is so scaled that it survives correction.
    """
    curve = NONLINEARITY.get((read_mode, rate.shape[0], well), LINEAR)
    seconds = exposure + curve.time_delta
    charge = poisson(rng, rate * np.float32(seconds * coadds) + latent) / coadds
    charge += np.float32(pedestal * seconds / exposure) + deposited / coadds
    full = WELL[well]
    c = curve.invert(np.minimum(charge, curve.apply(1.02 * full)))
    saturated = np.asarray(c >= full)
    c = np.minimum(c, 1.01 * full)  # the converter's limit, a little above the nominal well
    # Both reads of a pair see a full well where light is far too bright: a burnt-out star has a hole.
    c[charge > 5 * full] = 0.06 * full
    digits = GAIN**2 / 12  # rounding to whole ADU is part of the published read noise
    noise = np.sqrt(coadds * READ_NOISE[read_mode] ** 2 - digits)
    adu = (c * coadds + np.float32(noise) * rng.standard_normal(c.shape, np.float32)) / GAIN
    return Readout(np.rint(adu), saturated)


def cosmic_rays(rng: np.random.Generator, shape: tuple[int, int], seconds: float) -> FloatImage:
    """Electrons deposited by cosmic rays: short straight tracks, 300 to some 20000 electrons a pixel."""
    image = np.zeros(shape, np.float32)
    ny, nx = shape
    for _ in range(rng.poisson(COSMIC_RATE * seconds * ny * nx / ARRAY_SIZE**2)):
        y, x, angle = rng.uniform(0, ny), rng.uniform(0, nx), rng.uniform(0, 2 * np.pi)
        electrons = rng.lognormal(7.6, 0.8)
        for step in range(1 + rng.geometric(0.45)):
            row, col = int(y + step * np.sin(angle)), int(x + step * np.cos(angle))
            if 0 <= row < ny and 0 <= col < nx:
                image[row, col] += electrons * rng.uniform(0.4, 1.2)
    return image


def latent_image(earlier: list[tuple[float, BoolImage]], well: str, shape: tuple[int, int]) -> FloatImage:
    """Mean electrons of residual image, from (seconds since, saturated pixels) of earlier frames."""
    image = np.zeros(shape, np.float32)
    for seconds, saturated in earlier:
        if seconds < LATENT_SECONDS and saturated.shape == shape:
            image += saturated * np.float32(
                LATENT_FRACTION * WELL[well] * np.exp(-seconds / LATENT_DECAY_SECONDS)
            )
    return image


def column_pattern(rng: np.random.Generator, shape: tuple[int, int], amplitude: float) -> FloatImage:
    """The controller's pattern noise in ADU: eight columns repeated, in part of the rows of each quadrant,
    the upper quadrants a mirror of the lower; rms `amplitude` where it is on."""
    ny, nx = shape
    eight = rng.standard_normal(8)
    eight = amplitude * (eight - eight.mean()) / eight.std()
    rows = np.arange(ny // 2)
    start = rng.uniform(0, 0.5) * ny / 2
    on = (rows >= start) & (rows < start + rng.uniform(0.3, 0.9) * ny / 2)
    lower = np.outer(on, np.resize(eight, nx))
    return np.asarray(np.concatenate([lower, lower[::-1]]), np.float32)
