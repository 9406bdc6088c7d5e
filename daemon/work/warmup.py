"""Compile every loop before the first job waits for it: once on a machine, for about a minute.

Runs each recipe once on small synthetic frames: what a recipe uses is compiled for exactly the types that
it uses, and kept on disk.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np

from daemon import logs
from pipeline.errors import NiridError
from pipeline.files.read import as_header
from pipeline.frame import Frame, Frames
from pipeline.headers.merged import merge
from pipeline.primitive import NO_CALIBRATIONS, Calibrations, run_recipe
from pipeline.recipes import RECIPES
from pipeline.simulate import Shot
from pipeline.simulate.sky import Field

SIZE = 256  # the smallest array setting: linearity and saturation depend on it
START = datetime(2016, 1, 2, 6, tzinfo=UTC)
STARS = (24, 4)  # many stars hide the sky, so that its model is compiled too; few do not


def run_every_recipe() -> None:
    """Run every recipe once. A recipe that fails here is logged and not fatal: its loops are compiled in a
    job then."""
    base = Shot(shape=(SIZE, SIZE), start=START).with_dark(0.5, pedestal=20.0)
    flat = replace(base, kind="flaton", exposure=2.0).with_sky(3000.0)
    off = replace(base, kind="flatoff", exposure=2.0).with_sky(30.0)
    lamps = _frames(off, 3, 10) + _frames(flat, 3, 20)
    short = _frames(replace(base, kind="dark", exposure=1.0), 3, 40)
    try:
        dark = _run("makeProcessedDark", _frames(replace(base, kind="dark"), 3, 30))
        bpm = _run("makeProcessedBPM", lamps + short)
        made = Calibrations(dark=dark, static_bpm=bpm, made_bpm=bpm)
        made = replace(made, flat=_run("makeProcessedFlat", lamps, made))
        for stars in STARS:
            _run("reduce", _dithered(base.with_sky(60.0), stars), made)
    except NiridError as error:
        logs.get().warning("warm_up_incomplete", error=str(error))


def _run(recipe: str, frames: Frames, cals: Calibrations = NO_CALIBRATIONS) -> Frame:
    return run_recipe(RECIPES[recipe].bind(), frames, cals).frame


def _frames(shot: Shot, count: int, first: int) -> Frames:
    return [
        _frame(replace(shot, start=shot.start + timedelta(minutes=first + i)), first + i)
        for i in range(count)
    ]


def _dithered(shot: Shot, stars: int) -> Frames:
    """Stars that move under the dither, so that all of registration runs."""
    rng = np.random.default_rng(1)
    ra, dec = (centre + rng.uniform(-12, 12, stars) / 3600 for centre in shot.target)
    shot = shot.with_field(Field("warm-up", shot.target, ra, dec, rng.uniform(12.0, 15.0, stars)))
    offsets = ((0.0, 0.0), (2.0, 1.0), (-1.0, 2.0), (1.0, -2.0), (-2.0, -1.0))
    return [f for i, offset in enumerate(offsets) for f in _frames(replace(shot, offset=offset), 1, i)]


def _frame(shot: Shot, number: int) -> Frame:
    raw = replace(shot, name=f"N20160102S{number:04d}", number=number).render(number)
    header = as_header(merge(raw.phu, raw.ext))
    dq = np.zeros(raw.adu.shape, np.uint16)
    return Frame(
        sci=raw.adu.astype(np.float32), dq=dq, header=header, unit="adu", name=f"{raw.shot.name}.fits"
    )
