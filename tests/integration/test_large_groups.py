"""Groups whose planes do not fit into memory: each step puts them where the run keeps them while it works."""

import mmap

import numpy as np
import pytest

from pipeline.files.scratch import planes_on_disk
from pipeline.primitive import Calibrations, run_recipe
from pipeline.recipes import MAKE_SKY_FLAT, REDUCE, ULTRADEEP
from tests.integration.test_special_cases import dark, flat, frame_of, shots

CALS = {"removeFirstFrame:remove_first": False}


def is_in_the_file(plane):
    while isinstance(plane, np.ndarray):
        plane = plane.base
    return isinstance(plane, mmap.mmap)


def planes(frame):
    found = (getattr(frame, name) for name in ("sci", "var", "dq", "objmask", "coverage"))
    return [plane for plane in found if plane is not None]


@pytest.fixture(scope="module")
def group():
    return [frame_of(shot) for shot in shots()]


@pytest.mark.parametrize("recipe", [REDUCE, ULTRADEEP, MAKE_SKY_FLAT], ids=lambda recipe: recipe.name)
def test_steps_keep_planes_while_they_make_them(recipe, group, tmp_path):
    """Not only when they are over: by then those of all frames would have been in memory."""
    with planes_on_disk(tmp_path) as keep:
        cals = Calibrations(dark=dark(), flat=flat(), keep=keep)
        frames = [frame.kept(keep) for frame in group]
        for step in recipe.bind(CALS).steps:
            frames = step.step.primitive.body(frames, step.params, cals)
            away = [f.name for f in frames if not all(map(is_in_the_file, planes(f)))]
            assert len(frames) == 1 or away == [], step.step.name
            frames = [frame.kept(keep) for frame in frames]


def test_masks_of_sky_frames_are_kept_too(group, tmp_path):
    given = []
    with planes_on_disk(tmp_path) as keep:

        def watched(plane):
            if not is_in_the_file(plane):
                given.append((during[-1], plane.dtype))
            return keep(plane)

        during = [""]
        cals = Calibrations(dark=dark(), flat=flat())
        run_recipe(REDUCE.bind(CALS), group, cals, lambda step, *_: during.append(step), keep=watched)
    assert given.count(("skyCorrect", np.bool_)) == len(group), "the objects of each"
    assert given.count(("skyCorrect", np.uint16)) == 2 * len(group), "DQ of each, and with its objects in it"


def test_the_product_does_not_depend_on_where_planes_are(group, tmp_path):
    cals = Calibrations(dark=dark(), flat=flat())
    plain = run_recipe(REDUCE.bind(CALS), group, cals).frame
    with planes_on_disk(tmp_path) as keep:
        mapped = run_recipe(REDUCE.bind(CALS), group, cals, keep=keep).frame
        assert all(map(is_in_the_file, planes(mapped)))
        for one, other in zip(planes(plain), planes(mapped), strict=True):
            np.testing.assert_array_equal(one, other)
    assert plain.header.tostring() == mapped.header.tostring()
