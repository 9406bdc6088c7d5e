"""Simulated frames for the steps of calibration."""

from __future__ import annotations

import dataclasses
from datetime import timedelta

import numpy as np
from astropy.io import fits

from pipeline.frame import Frame
from pipeline.headers.merged import merge
from pipeline.primitive import NO_CALIBRATIONS, Calibrations
from pipeline.simulate import Shot
from pipeline.steps.counts import add_var, adu_to_electrons, nonlinearity_correct
from pipeline.steps.prepare import prepare
from pipeline.steps.quality import add_dq

SHAPE = (256, 256)


SHOT = Shot(shape=SHAPE).with_dark(0.25, pedestal=131.0)


def frame_of(shot: Shot, seed: int) -> Frame:
    raw = shot.render(seed)
    header = fits.Header(list(merge(raw.phu, raw.ext).items()))
    return Frame(raw.adu, np.zeros(shot.shape, np.uint16), header, "adu", f"{shot.name}.fits")


def shots(shot: Shot, number: int, first: int = 1, gap: float = 40.0) -> list[Shot]:
    """The same exposure again and again, with names and times of their own."""
    return [
        dataclasses.replace(
            shot,
            name=f"N20160102S{first + i:04d}",
            start=shot.start + timedelta(seconds=i * gap),
            number=i + 1,
        )
        for i in range(number)
    ]


def frames_of(shot: Shot, number: int, first: int = 1, gap: float = 40.0) -> list[Frame]:
    return [frame_of(s, 100 * first + i) for i, s in enumerate(shots(shot, number, first, gap))]


def ready(frames: list[Frame], cals: Calibrations = NO_CALIBRATIONS, **noise) -> list[Frame]:
    """As the recipes for darks and flats begin."""
    for step in (prepare, add_dq, nonlinearity_correct, adu_to_electrons):
        frames = step.run(frames, None, cals)
    return add_var.run(frames, None, cals, read_noise=True, poisson_noise=True, **noise)


def robust(values: np.ndarray) -> float:
    return float(1.4826 * np.median(np.abs(values - np.median(values))))


def with_pixels(frame: Frame, *values: tuple) -> Frame:
    sci = frame.sci.copy()
    for place, value in values:
        sci[place] = value
    return frame.evolve(sci=sci)
