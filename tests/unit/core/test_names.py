"""Names of frames and products: none is lost, none stands for two."""

from datetime import UTC, datetime

import pytest

from daemon.model.names import canonical_name
from pipeline.association import CalKind
from pipeline.calibrations.caldb import external, open_store
from pipeline.headers.descriptors import Descriptors
from pipeline.names import (
    RECIPE_SUFFIXES,
    STEP_SUFFIXES,
    bare,
    base_of,
    canonical_first,
    is_fits,
    is_named,
    root_of,
    stems,
    suffix_of,
    told_apart,
)
from pipeline.recipes import RECIPES


@pytest.mark.parametrize(
    ("name", "root"),
    [
        ("N20160102S0270.fits", "N20160102S0270"),
        ("N20160102S0270_skyCorrected.fits", "N20160102S0270"),
        ("N20160102S0270_my_own.fits.gz", "N20160102S0270"),
        ("N20160102S0270-1.fits", "N20160102S0270-1"),
        ("raw/N20160102S0270_ql_image.fits.bz2", "N20160102S0270"),
        ("M82_0.fits", "M82_0"),
        ("M82_0_prepared.fits", "M82_0"),
        ("M82_0_ql_image.fits", "M82_0"),
        ("dark_20s_1.FITS", "dark_20s_1"),
        ("dark_20s_1_dark.FITS.GZ", "dark_20s_1"),
        ("on/img1.fits", "img1"),
        ("_dark.fits", "_dark"),
        ("bpm_20010317_niri_niri_11_full_1amp.fits", "bpm_20010317_niri_niri_11_full_1amp"),
        ("a.b_c.fits", "a.b_c"),
    ],
)
def test_root(name, root):
    assert root_of(name) == root


def test_the_root_of_a_product_is_that_of_its_frame():
    for suffix in {*RECIPE_SUFFIXES, *STEP_SUFFIXES.values(), *(r.suffix for r in RECIPES.values())}:
        for root in ("N20160102S0270", "M82_0", "x"):
            assert root_of(f"{root}{suffix}.fits") == root
    assert suffix_of("judgeFrames") == "_judgeFrames"


def test_files_of_one_name_are_told_apart_by_folders(tmp_path):
    paths = ["a/on/x.fits", "a/off/x.fits", "b/on/x.fits", "b/on/y.fits", "b/on/x.fits.gz"]
    names = told_apart([str(tmp_path / path) for path in paths])
    assert names[3] == "y.fits"
    assert len(set(names)) == 5
    assert names[1] == "off/x.fits" or names[1].endswith("a/off/x.fits")
    assert told_apart(["N1.fits", "raw/N2.fits.gz"]) == ["N1.fits", "N2.fits"]


def test_products_of_one_root_are_told_apart():
    assert stems(["on/x.fits", "off/x.fits", "y.fits"]) == ["on-x", "off-x", "y"]
    assert stems(["x_dark.fits", "x_flat.fits"]) == ["x_dark", "x_flat"]
    assert len(set(stems(["x.fits", "x.fits", "x.fits.gz"]))) == 3


def test_the_names_of_an_exposure_in_order():
    names = ["copy.fits", "N20160102S0271-1.fits", "a/N20160102S0271.fits"]
    assert sorted(names, key=canonical_first) == names[::-1]


@pytest.mark.parametrize("ending", ["", ".fits", ".FITS", ".Fits.gz", ".fits.GZ", ".FITS.BZ2", ".fits.fz"])
def test_endings_do_not_count_in_any_case(ending, tmp_path):
    assert bare(f"night/N20160102S0270{ending}") == "night/N20160102S0270"
    assert base_of(f"night/N20160102S0270{ending}") == "N20160102S0270"
    assert is_named("N20160102S0270.fits", [f"S0270{ending}"])
    assert not is_named("N20160102S0270.fits", [f"S0271{ending}"])
    assert canonical_name(f"N20160102S0270{ending}") == "N20160102S0270.fits"
    assert is_fits(f"N20160102S0270{ending}") is bool(ending)


def test_a_mask_is_found_by_any_spelling_of_its_name(tmp_path):
    store = open_store(tmp_path / "cals.db")
    facts = Descriptors(ut_datetime=datetime(2016, 1, 2, tzinfo=UTC), shape=(64, 64))
    store.add(external(CalKind.STATIC_BPM, "/masks/BPM.FITS.gz", "a" * 64, facts))
    store.add(
        external(CalKind.STATIC_BPM, "/masks/OLD.FITS", "b" * 64, facts, name="OLD.FITS")
    )  # as once stored
    assert [c.name for c in store.list()] == ["BPM", "OLD.FITS"]
    for word in ("BPM", "BPM.fits", "BPM.FITS", "BPM.fits.gz"):
        assert store.get(word).path == "/masks/BPM.FITS.gz"
    assert store.get("OLD.FITS").ident == "b" * 64
    assert [c.ident for c in store.remove("OLD.FITS", "by hand")] == ["b" * 64]
