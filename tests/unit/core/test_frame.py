"""Frame: immutable planes, evolve, arithmetic that carries variance and mask."""

import numpy as np
import pytest
from astropy.io import fits

from pipeline.errors import FrameMismatch
from pipeline.frame import BAD_PIXEL, SATURATED, Frame
from pipeline.names import root_of


def frame(value=100.0, var=4.0, name="N20160102S0001.fits", shape=(8, 8), **changes) -> Frame:
    dq = np.zeros(shape, np.uint16)
    sci = np.full(shape, value, np.float32)
    header = fits.Header({"OBJECT": "x", "EXPTIME": 10.0})
    return Frame(sci, dq, header, "electron", name, np.full(shape, var, np.float32)).evolve(**changes)


def marked(bit, y, x):
    dq = np.zeros((8, 8), np.uint16)
    dq[y, x] = bit
    return dq


def test_planes_cannot_be_written():
    made = frame()
    with pytest.raises(ValueError, match="read-only"):
        made.sci += 1
    with pytest.raises(ValueError, match="read-only"):
        made.evolve(sci=np.ones((8, 8), np.float32)).sci[0, 0] = 2


def test_evolve_shares_what_it_does_not_replace():
    made = frame()
    other = made.evolve(dq=marked(BAD_PIXEL, 1, 1), cards={"OBJECT": "y", "EXPTIME": None}, note="told")
    assert np.shares_memory(made.sci, other.sci)
    assert (made.header["OBJECT"], other.header["OBJECT"]) == ("x", "y")
    assert "EXPTIME" not in other.header
    assert (made.notes, other.notes) == ((), ("told",))
    assert other.evolve(note="told").notes == ("told",)


def test_descriptors_follow_the_header():
    made = frame()
    assert made.descriptors.exposure_time == 10
    assert made.descriptors is made.evolve(var=None).descriptors
    assert made.evolve(cards={"EXPTIME": 20.0}).descriptors.exposure_time == 20


@pytest.mark.parametrize("plane", ["var", "dq", "objmask", "coverage"])
def test_planes_of_another_type_or_shape_are_refused(plane):
    with pytest.raises(FrameMismatch, match=rf"N20160102S0001.fits: {plane} is float64 \(8, 8\), wanted"):
        frame().evolve(**{plane: np.zeros((8, 8))})
    good = {"var": np.float32, "dq": np.uint16, "objmask": np.bool_, "coverage": np.uint16}[plane]
    with pytest.raises(FrameMismatch, match=r"\(8, 7\), wanted .* \(8, 8\)"):
        frame().evolve(**{plane: np.zeros((8, 7), good)})


def test_subtraction_adds_variances_and_joins_masks():
    left, right = frame(dq=marked(BAD_PIXEL, 0, 0)), frame(30.0, 5.0, dq=marked(SATURATED, 0, 0))
    out = left - right
    assert np.all(out.sci == 70)
    assert np.all(out.var == 9)
    assert out.dq[0, 0] == 5
    assert out.dq.sum() == 5


def test_division_propagates_both_errors():
    out = frame(100.0, 4.0) / frame(2.0, 0.01)
    assert np.all(out.sci == 50)
    assert out.var == pytest.approx(4.0 / 4 + 100.0**2 * 0.01 / 16)


def test_division_against_scatter():
    rng = np.random.default_rng(3)
    shape = (200, 200)
    a = frame(shape=shape, var=9.0).evolve(sci=rng.normal(300, 3, shape).astype(np.float32))
    b = frame(shape=shape, var=4e-4).evolve(sci=rng.normal(1.5, 0.02, shape).astype(np.float32))
    out = a / b
    assert np.std((out.sci - 200) / np.sqrt(out.var)) == pytest.approx(1.0, abs=0.02)


def test_a_missing_variance_is_taken_from_the_other_side():
    assert np.all((frame().evolve(var=None) - frame(var=5.0)).var == 5)
    assert (frame().evolve(var=None) - frame().evolve(var=None)).var is None


def test_times_a_number():
    out = frame(10.0, 2.0) * 3
    assert np.all(out.sci == 30)
    assert np.all(out.var == 18)


def test_frames_that_do_not_fit_are_named():
    with pytest.raises(FrameMismatch, match=r"a.fits has \(8, 8\) pixels, b.fits has \(4, 4\)"):
        frame(name="a.fits") - frame(name="b.fits", shape=(4, 4))
    with pytest.raises(FrameMismatch, match=r"a.fits is in electron, b.fits in adu"):
        frame(name="a.fits") - frame(name="b.fits", unit="adu")


@pytest.mark.parametrize(
    ("name", "root"),
    [
        ("N20160102S0270.fits", "N20160102S0270"),
        ("x/y/N20160102S0270_dark.fits.gz", "N20160102S0270"),
        ("bpm_20010317_niri_niri_11_full_1amp.fits", "bpm_20010317_niri_niri_11_full_1amp"),
    ],
)
def test_root(name, root):
    assert root_of(name) == root


def test_stamps_are_the_end_of_the_exposure():
    made = frame().evolve(cards={"DATE-OBS": "2016-01-02", "UT": "06:00:00"}).stamped("ADDDQ")
    assert made.header["ADDDQ"] == made.header["GEM-TLM"] == "2016-01-02T06:00:10.000"


def test_cards_are_set_as_in_a_copy_of_the_header():
    header = fits.Header(
        [("OBJECT", "x", "target"), ("A", 1, "first"), ("A", 2), ("B", 3), ("HISTORY", "old")]
    )
    made = frame(header=header)
    before = header.tostring()
    other = made.evolve(
        cards={"OBJECT": "y", "A": (5, "new"), "B": None, "NEW": 7, "GONE": None}, history="more"
    )
    wanted = header.copy()
    wanted["OBJECT"], wanted["A"], wanted["NEW"] = "y", (5, "new"), 7
    del wanted["B"]
    wanted.add_history("more")
    assert other.header.tostring() == wanted.tostring()
    assert made.header.tostring() == before


def test_tags_follow_the_header():
    made = frame().evolve(cards={"INSTRUME": "NIRI", "OBSTYPE": "DARK"})
    assert {"NIRI", "DARK", "RAW"} <= made.tags
    assert made.tags is made.evolve(cards={"BUNIT": "electron"}).tags
    assert "RAW" not in made.stamped("PREPARE").tags
    assert "FLAT" in made.evolve(cards={"OBSTYPE": "FLAT"}).tags
