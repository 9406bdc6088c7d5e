"""Recipes: what runs, in which order, and what is kept in memory meanwhile."""

import weakref

import numpy as np
import pytest
from astropy.io import fits

from pipeline.errors import ReductionError
from pipeline.frame import Frame
from pipeline.primitive import Recipe, run_recipe
from pipeline.steps.counts import add_var, adu_to_electrons

RECIPE = Recipe("test", version=1, suffix="_test", steps=(adu_to_electrons(), add_var(read_noise=True)))


def raw(name: str, **cards) -> Frame:
    header = fits.Header({"INSTRUME": "NIRI", "RDNOISE": 35.0} | cards)
    sci = np.ones((4, 4), np.float32)
    return Frame(sci, np.zeros((4, 4), np.uint16), header, "adu", f"{name}.fits")


def test_steps_run_in_order_on_all_frames():
    frames, seen = [raw("a"), raw("b")], []
    product = run_recipe(
        RECIPE.bind(), frames, on_step=lambda *told: seen.append((told[0], told[1], len(told[2])))
    )
    assert [frame.name for frame in product.frames] == ["a.fits", "b.fits"]
    assert all(frame.unit == "electron" and frame.var is not None for frame in product.frames)
    assert seen == [(s, done, 2) for s in ("ADUToElectrons", "addVAR") for done in (False, True)]
    assert [frame.unit for frame in frames] == ["adu", "adu"]  # the caller's list is the caller's


def test_pixels_are_let_go_frame_by_frame():
    def given():
        for name in ("a", "b"):
            frame = raw(name)
            alive.append(weakref.ref(frame.sci.base))
            yield frame

    def look(step, done, frames, notes):
        if done:
            left.append(sum(plane() is not None for plane in alive))

    alive, left = [], []
    run_recipe(RECIPE.bind(), given(), on_step=look)
    assert left == [0, 0]


def test_an_error_says_in_which_step():
    frame = raw("a")
    del frame.header["RDNOISE"]
    with pytest.raises(ReductionError, match=r"^addVAR: a\.fits: RDNOISE"):
        run_recipe(RECIPE.bind(), [frame])
