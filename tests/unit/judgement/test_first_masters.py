"""The first masters of an archive: good darks and flats of the simulator are never held back.

Its darks have what real ones have: the pedestal of the read-out, hot pixels, counts of 12 electrons.
"""

import dataclasses
import math

import numpy as np
import pytest

from daemon.judgement.drift import Setup, State, judged
from daemon.work import mastermeasures
from tests.unit.steps.shots import SHOT, frames_of, ready


def verdict(kind, step, frames, shot):
    measures = mastermeasures.of_step(step, frames)
    assert measures
    figures = {name: (value, error) for name, (value, error, _) in measures.items()}
    setup = Setup(shot.read_mode, shot.coadds, math.prod(shot.shape), shot.exposure * shot.coadds)
    return judged(kind, setup, figures, [])


@pytest.mark.parametrize("read_mode", ["Low Background", "Medium Background", "High Background"])
@pytest.mark.parametrize(("exposure", "coadds"), [(0.5, 1), (1.0, 10), (20.0, 1), (60.0, 2), (300.0, 1)])
def test_good_darks(read_mode, exposure, coadds):
    shot = dataclasses.replace(SHOT, kind="dark", read_mode=read_mode, exposure=exposure, coadds=coadds)
    found = verdict("DARK", "stackDarks", ready(frames_of(shot, 5)), shot)
    assert found.state is not State.HELD, found.reasons


@pytest.mark.parametrize("light", [4000.0, 24000.0, 60000.0])
def test_good_flats(light):
    response = np.random.default_rng(9).normal(1, 0.03, SHOT.shape).astype(np.float32)
    shot = dataclasses.replace(SHOT, exposure=2.001).with_flat(response).with_cosmic_rays()
    on = dataclasses.replace(shot, kind="flaton").with_sky(light + 700)
    off = dataclasses.replace(shot, kind="flatoff").with_sky(700)
    frames = ready(frames_of(off, 5, 11, 8.0) + frames_of(on, 5, 51, 8.0))
    found = verdict("FLAT", "makeLampFlat", frames, shot)
    assert found.state is not State.HELD, found.reasons
