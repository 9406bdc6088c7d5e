"""The recipes beside the default ones: sky flats, deep stacks, stacks of calibrated frames, quick looks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from pipeline import Reduce, cal_service
from pipeline.cal_service import LocalDB
from pipeline.errors import CalibrationNotFound, FrameMismatch, NotEnoughFrames
from pipeline.headers.tags import tags_of
from pipeline.headers.tangent import tangent
from pipeline.primitive import Calibrations, run_recipe
from pipeline.recipes import ALIGN_AND_STACK, MAKE_SKY_FLAT, RECIPES, ULTRADEEP
from pipeline.reduce import ReduceError
from pipeline.simulate import simulate_night
from pipeline.simulate.sky import ZERO_POINTS, Galaxy, offset_position
from pipeline.steps.darks import dark_correct
from pipeline.steps.flats import flat_correct
from pipeline.toolkit.dataset import Dataset
from tests.integration.test_special_cases import (
    OFFSETS,
    SECONDS,
    TARGET,
    array,
    dark,
    field,
    flat,
    frame_of,
    on_and_off,
    reduced,
    right,
    shots,
)

CALS = {"removeFirstFrame:remove_first": False}


# --- makeSkyFlat ---

THERMAL = {"filter": "Lprime", "exposure": 0.03, "coadds": 50, "read_mode": "High Background", "light": 4.5e6,
           "well": "Deep"}  # fmt: skip
BRIGHT = tuple(star._replace(mag=star.mag - 6.5) for star in field.__defaults__[0])


def sky_flat(preset="nirid", offsets=OFFSETS, stars=BRIGHT, **parameters):
    frames = [frame_of(s) for s in shots(offsets, field=field(stars), **THERMAL)]
    how = {k: v for k, v in THERMAL.items() if k not in ("filter", "light")}
    bound = MAKE_SKY_FLAT.bind(CALS | parameters, preset=preset)
    return run_recipe(bound, frames, Calibrations(dark=dark(**how)))


def response():
    own = array().cut(256)
    image = own.response / np.median(own.response[~own.dead])
    return image, ~own.dead & ~own.hot


@pytest.mark.parametrize(("preset", "most"), [("nirid", 2.05e-4), ("dragons", 2.3e-4)])
def test_a_flat_of_the_sky_is_the_response(preset, most):
    """Five frames of 6.7 million electrons: 0.019 % of noise. Minmax throws one value in five away."""
    product = sky_flat(preset)
    made = product.frame
    truth, good = response()
    good &= made.dq == 0
    assert good.mean() > 0.98
    error = (made.sci - truth)[good]
    assert np.std(error) < most
    assert np.abs(np.median(error)) < 1e-4
    if preset == "nirid":
        assert np.std(error / np.sqrt(made.var[good])) == pytest.approx(1.0, abs=0.1)
    # Nothing is left where a star was in any of the frames.
    for shot in shots(OFFSETS, field=field(BRIGHT), **THERMAL):
        x, y = shot.true_pointing.pixels(shot.field.ra, shot.field.dec)
        for a, b in zip(x, y, strict=True):
            box = np.s_[max(round(b) - 6, 0) : round(b) + 7, max(round(a) - 6, 0) : round(a) + 7]
            assert abs(np.median((made.sci - truth)[box][good[box]])) < 3e-4


def test_a_pixel_that_is_always_under_a_source_is_bad_in_the_flat():
    product = sky_flat(offsets=((0, 0), (1.3, 0.0), (0.0, 1.3), (-1.3, 0.0), (0.0, -1.3)))
    assert "under a source in every frame" in " ".join(product.notes)
    shot = shots(field=field(BRIGHT), **THERMAL)[0]
    x, y = shot.header_pointing.pixels(shot.field.ra[:1], shot.field.dec[:1])  # of the brightest
    assert product.frame.dq[round(y[0]), round(x[0])] & 1


def test_stars_do_not_get_into_the_flat_for_want_of_dithers():
    with pytest.raises(
        NotEnoughFrames, match="makeSkyFlat: 1 pointings for a sky flat, wanted 3 more than 1"
    ):
        sky_flat(offsets=((0, 0), (0.1, 0.0), (0.0, 0.1), (0.3, 0.3)))


def test_two_frames_are_too_few():
    with pytest.raises(NotEnoughFrames, match="makeSkyFlat: 2 frames for a sky flat, wanted 3"):
        sky_flat(offsets=OFFSETS[:2])


def test_a_flat_of_the_sky_is_a_flat_to_tags_and_association():
    made = sky_flat().frame
    assert made.descriptors.gcal_lamp == "QH"
    assert made.header["OBSTYPE"] == "FLAT"
    stamped = made.stamped("PROCFLAT")
    assert {"PROCESSED", "FLAT", "CAL", "IMAGE"} <= tags_of(stamped.header)
    frame = frame_of(shots(**THERMAL)[0])
    (out,) = flat_correct.run([frame.evolve(unit="electron")], None, Calibrations(flat=made))
    assert out.header["FLATIM"] == made.name


# --- ultradeep ---


@pytest.fixture(scope="module")
def deep():
    """Nine dithers of stars and a galaxy that no single frame shows, and what it is made of."""
    offsets = [
        (3.5 * np.cos(2.4 * k) * (k / 9) ** 0.5, 3.5 * np.sin(2.4 * k) * (k / 9) ** 0.5) for k in range(9)
    ]
    faint = Galaxy(19.7, 1.2, 0.0, 0.0, (2.0, 1.0))
    return [frame_of(s) for s in shots(offsets, field=replace(field(), galaxy=faint))]


def galaxy_light(stack):
    """Light of the faint galaxy within 25 pixels, in units of what it is."""
    wcs = tangent(stack.header)
    x, y = wcs.to_pixel(*offset_position(*TARGET, 2.0, 1.0))
    rows, columns = np.indices(stack.shape)
    radius = np.hypot(columns - x, rows - y)
    pixels = (radius < 25) & (stack.dq == 0)
    for a, b in zip(*wcs.to_pixel(field().ra, field().dec), strict=True):
        pixels &= np.hypot(columns - a, rows - b) > 18
    scale = wcs.pixel_scale
    true = 10 ** (0.4 * (ZERO_POINTS["Kprime"] - 19.7)) * scale**2 * SECONDS
    profile = true * np.exp(-np.hypot(radius * scale, 0.5) / 1.2)
    return float(stack.sci[pixels].sum() / profile[pixels].sum())


def test_ultradeep_keeps_the_light_that_a_single_pass_takes_for_sky(deep):
    cals = Calibrations(dark=dark(), flat=flat())
    stack = run_recipe(ULTRADEEP.bind(CALS), deep, cals).frame
    right(stack)
    assert stack.header["NCOMBINE"] == 9
    plain = galaxy_light(reduced(deep, cals).frame)
    assert galaxy_light(stack) == pytest.approx(1.0, abs=0.1)
    assert plain < galaxy_light(stack) - 0.05


def test_ultradeep_wants_the_object_in_every_frame():
    with pytest.raises(FrameMismatch, match=r"maskFromStack: N20160102S0002.fits is sky only"):
        run_recipe(ULTRADEEP.bind(CALS), on_and_off("OSOO"), Calibrations(dark=dark(), flat=flat()))


# --- alignAndStack, and modes ---


@pytest.fixture(scope="module")
def night(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny") / "raw"
    simulate_night(folder, "tiny")
    return folder


@pytest.fixture
def work(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    LocalDB("cal_manager.db").init()
    return tmp_path


def some(night, first, last):
    return [str(night / f"N20160102S{n:04d}.fits") for n in range(first, last + 1)]


WITHOUT = {"darkCorrect:do_cal": "skip", "flatCorrect:do_cal": "skip"}


def test_align_and_stack_of_frames_that_were_written_is_the_end_of_reduce(work, night):
    whole = Reduce(files=some(night, 270, 277), uparms=WITHOUT | {"skyCorrect:write_outputs": True})
    whole.runr()
    parts = sorted(str(p) for p in Path().glob("*_skyCorrected.fits"))
    assert len(parts) == 3
    again = Reduce(files=parts, recipename="alignAndStack")
    again.runr()
    assert again.output_filenames == ["N20160102S0271_stack.fits"]
    with fits.open("N20160102S0271_stack.fits") as stack, fits.open("N20160102S0271_image.fits") as image:
        np.testing.assert_array_equal(stack["SCI"].data, image["SCI"].data)
        np.testing.assert_array_equal(stack["DQ"].data, image["DQ"].data)
        assert stack[0].header["DATALAB"].endswith("-STACK")
        assert list(stack[0].header["IMCMB*"].values()) == list(image[0].header["IMCMB*"].values())
    assert cal_service.kind_of(Dataset("N20160102S0271_stack.fits")) is None


@pytest.mark.parametrize("mode", ["ql", "qa"])
def test_a_quick_look_goes_on_without_calibrations_and_says_so(work, night, mode):
    quick = Reduce(files=some(night, 270, 277), mode=mode)
    quick.runr()
    name = f"N20160102S0271_{mode}_image.fits"
    assert quick.output_filenames == [name]
    header = fits.getheader(name)
    assert header["PROCMODE"] == mode
    assert header["DATALAB"].endswith(f"-{mode.upper()}-IMAGE")
    said = " ".join(str(line) for line in header["HISTORY"])
    assert "darkCorrect skipped: no processed_dark" in said
    with pytest.raises(CalibrationNotFound):
        Reduce(files=some(night, 270, 277)).runr()


@pytest.mark.parametrize("step", [dark_correct, flat_correct])
def test_steps_go_by_the_mode_of_their_frames(step):
    (frame,) = [frame_of(s) for s in shots(OFFSETS[:1])]
    quick = frame.evolve(cards={"PROCMODE": "ql"})
    (out,) = step.run([quick])
    assert out.sci is quick.sci
    assert "no " in out.notes[0]
    for wrong, how in ((frame, "procmode"), (quick, "force")):
        with pytest.raises(CalibrationNotFound):
            step.run([wrong], do_cal=how)


@pytest.mark.parametrize("name", ["makeSkyFlat", "ultradeep", "makeProcessedBPM"])
def test_quick_look_has_fewer_recipes(work, night, name):
    with pytest.raises(ReduceError, match=rf"{name} is not offered in mode ql; there are .*alignAndStack"):
        Reduce(files=some(night, 270, 272), recipename=name, mode="ql").runr()


@pytest.mark.parametrize("preset", ["nirid", "dragons"])
def test_every_recipe_binds_in_both_presets(preset):
    for recipe in RECIPES.values():
        assert len(recipe.bind(preset=preset).steps) == len(recipe.steps)
    dragons = {s.step.name: s.params for s in ALIGN_AND_STACK.bind(preset="dragons").steps}
    assert dragons["stackFrames"].reject_method == "sigclip"
    values = {s.step.name: s.params for s in MAKE_SKY_FLAT.bind(preset=preset).steps}["makeSkyFlat"]
    facts = (values.reject_method, values.nlow, values.nhigh, values.scale, values.dilation)
    assert facts == ("minmax" if preset == "dragons" else "ccdclip", 0, 1, True, 10.0)
