"""With the preset `dragons` the calibrations of a small night are those that DRAGONS 4.2.2 makes of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from pipeline.files.read import read_frame
from pipeline.frame import Frame
from pipeline.primitive import Calibrations, Product, run_recipe
from pipeline.recipes import MAKE_PROCESSED_BPM, MAKE_PROCESSED_DARK, MAKE_PROCESSED_FLAT

STATIC_BPM = "bpm_20010317_niri_niri_11_full_1amp"


@pytest.fixture(scope="module")
def night(shared: Path) -> Path:
    folder = shared / "reference" / "dragons-tiny"
    if not folder.is_dir():
        pytest.skip("the reference night of DRAGONS is not here")
    return folder


def raw(night: Path, *names: str) -> list[Frame]:
    return [read_frame(night / "raw" / f"{name}.fits.gz") for name in names]


FLATS = tuple(f"N20160102S{number:04d}" for number in range(363, 369))
SHORT_DARKS = tuple(f"N20160103S{number:04d}" for number in range(463, 466))
DARKS = tuple(f"N20160102S{number:04d}" for number in range(423, 426))


@pytest.fixture(scope="module")
def bpm(night: Path) -> Product:
    return run_recipe(MAKE_PROCESSED_BPM.bind(preset="dragons"), raw(night, *FLATS, *SHORT_DARKS))


@pytest.fixture(scope="module")
def dark(night: Path) -> Product:
    return run_recipe(MAKE_PROCESSED_DARK.bind(preset="dragons"), raw(night, *DARKS))


@pytest.fixture(scope="module")
def flat(night: Path, bpm: Product) -> Product:
    cals = Calibrations(static_bpm=raw(night, STATIC_BPM)[0], user_bpm=bpm.frame)
    return run_recipe(MAKE_PROCESSED_FLAT.bind(preset="dragons"), raw(night, *FLATS), cals)


def test_dark(night, dark):
    with fits.open(night / "products" / "N20160102S0423_dark.fits") as theirs:
        np.testing.assert_allclose(dark.frame.sci, theirs["SCI"].data, rtol=1e-5, atol=0.01)
        np.testing.assert_allclose(dark.frame.var, theirs["VAR"].data, rtol=1e-4)
        np.testing.assert_array_equal(dark.frame.dq, theirs["DQ"].data)
        for key in ("NCOMBINE", "IMCMB001", "IMCMB003", "EXPTIME", "FILTER"):
            assert dark.frame.header[key] == theirs[0].header[key], key
        for key in ("SATLEVEL", "NONLINEA"):  # they round the levels in ADU, then multiply
            assert dark.frame.header[key] == pytest.approx(theirs[1].header[key], abs=0.01), key
        for key in ("GAIN", "RDNOISE", "BUNIT"):
            assert dark.frame.header[key] == theirs[1].header[key], key


def test_bpm(night, bpm):
    with fits.open(night / "products" / "N20160102S0366_bpm.fits") as theirs:
        np.testing.assert_array_equal(bpm.frame.dq, theirs[1].data)
        assert bpm.frame.header["OBJECT"] == theirs[0].header["OBJECT"]
        assert bpm.used[: theirs[0].header["NCOMBINE"]] == tuple(theirs[0].header["IMCMB*"].values())


def test_flat(night, flat):
    with fits.open(night / "products" / "N20160102S0366_flat.fits") as theirs:
        np.testing.assert_array_equal(flat.frame.dq, theirs["DQ"].data)
        sci = np.abs(flat.frame.sci / theirs["SCI"].data - 1)
        var = np.abs(flat.frame.var / theirs["VAR"].data - 1)
        # They take sigma from squares rounded to float32. With three samples of 50000 electrons of which two
        # are equal and the third is one ADU off, sigma comes out as rounding has it, and a good sample is
        # rejected: 28 pixels of this night. The rest agrees to rounding.
        rounding = var > 1e-4
        assert rounding.mean() < 5e-4
        assert sci[~rounding].max() < 1e-5
        assert sci.max() < 2e-4
        assert flat.frame.header["NCOMBINE"] == theirs[0].header["NCOMBINE"]


def test_frames_after_flat_correction(night, bpm):
    """DRAGONS left only a stack of them; what it does is repeated here in numpy, from its dark and flat."""
    from pipeline.steps.counts import add_var, adu_to_electrons, nonlinearity_correct
    from pipeline.steps.darks import dark_correct
    from pipeline.steps.flats import flat_correct
    from pipeline.steps.prepare import prepare
    from pipeline.steps.quality import add_dq

    with fits.open(night / "products" / "N20160102S0423_dark.fits") as hdus:
        dark_sci, dark_var = (hdus[name].data.astype(float) for name in ("SCI", "VAR"))
        dark_dq = hdus["DQ"].data
    with fits.open(night / "products" / "N20160102S0366_flat.fits") as hdus:
        flat_sci, flat_var = (hdus[name].data.astype(float) for name in ("SCI", "VAR"))
    frames = raw(night, "N20160102S0271")
    adu = frames[0].sci.astype(float)
    dark, flat = (
        read_frame(night / "products" / f"N20160102S{name}.fits") for name in ("0423_dark", "0366_flat")
    )
    cals = Calibrations(dark, flat, user_bpm=bpm.frame)
    for step, values in (
        (prepare, {"bad_wcs": "ignore"}),
        (add_dq, {}),
        (adu_to_electrons, {}),
        (add_var, {"read_noise": True, "poisson_noise": True, "pedestal": False}),
        (nonlinearity_correct, {}),
        (dark_correct, {}),
        (flat_correct, {}),
    ):
        frames = step.run(frames, None, cals, **values)
    electrons = adu * 12.3
    linear = electrons * (1 + 5.540988347e-07 * electrons + 1.404726339e-12 * electrons**2)
    s = 20.002 / (20.002 + 0.01029262589)
    var = (35.0**2 + np.maximum(electrons, 0) + linear - electrons) * s * s + dark_var
    sci = linear * s - dark_sci
    error = np.abs(frames[0].sci - sci / flat_sci)
    # The difference of two saturated pixels keeps the rounding of both.
    assert (error <= np.maximum(1e-5 * np.abs(electrons), 0.01)).all()
    expected = var / flat_sci**2 + sci**2 * flat_var / flat_sci**4
    np.testing.assert_allclose(frames[0].var, expected, rtol=1e-4)
    np.testing.assert_array_equal(frames[0].dq & dark_dq, dark_dq)
    assert frames[0].header["DARKIM"] == "N20160102S0423_dark.fits"
    assert frames[0].header["FLATIM"] == "N20160102S0366_flat.fits"
