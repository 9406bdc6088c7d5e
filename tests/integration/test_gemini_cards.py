"""Gemini's tools know our products for what they are, and Gemini's products are calibrations here."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from pipeline import Reduce, cal_service
from pipeline.cal_service import LocalDB
from pipeline.files.read import read_provenance
from pipeline.toolkit.dataset import Dataset
from tests.e2e.test_night import Place

KINDS = {"dark": "0423_dark", "bpm": "0366_bpm", "flat": "0366_flat", "image": "0271_image"}
STATIC_BPM = "bpm_20010317_niri_niri_11_full_1amp.fits.gz"

# What DRAGONS writes and we do not, with the reason.
PRIMARY_WCS = {f"{k}{i}" for k in ("CTYPE", "CRPIX", "CRVAL") for i in (1, 2)}
PRIMARY_WCS |= {f"CD{i}_{j}" for i in (1, 2) for j in (1, 2)} | {
    "RADESYS"
}  # of the raw frame, wrong for a stack
ONLY_THEIRS = PRIMARY_WCS | {
    "SCALEOBJ",  # nothing was scaled
    "EPOCH",  # the FITS standard gave it up: EQUINOX
    "CUNIT1", "CUNIT2", "EQUINOX", "WCSAXES", "WCSDIM",  # the values that FITS takes for granted
    # Of their mosaic:
    "AREATYPE", "JFACTOR", *(f"AREA{i}_{j}" for i in range(1, 5) for j in (1, 2)), "DETSEC",
}  # fmt: skip


@pytest.fixture(scope="module")
def theirs(shared: Path) -> Path:
    folder = shared / "reference" / "dragons-tiny"
    if not folder.is_dir():
        pytest.skip("the reference night of DRAGONS is not here")
    return folder


@pytest.fixture(scope="module")
def ours(theirs, tmp_path_factory):
    """Our products of the same night."""
    folder, here = tmp_path_factory.mktemp("ours"), os.getcwd()

    def raw(day, *numbers):
        return [str(theirs / "raw" / f"N{day}S{number:04d}.fits.gz") for number in numbers]

    flats, short = raw(20160102, *range(363, 369)), raw(20160103, 463, 464, 465)
    os.chdir(folder)
    try:
        LocalDB("cal_manager.db").init()
        for files, recipe in (
            (raw(20160102, 423, 424, 425), "_default"),
            ([*flats, *short], "makeProcessedBPM"),
            (flats, "_default"),
            (raw(20160102, *range(270, 278)), "_default"),
        ):
            Reduce(files=files, recipename=recipe).runr()
    finally:
        os.chdir(here)
    return folder


def both(theirs, ours, kind):
    name = f"N20160102S{KINDS[kind]}.fits"
    return theirs / "products" / name, ours / name


@pytest.mark.parametrize("kind", KINDS)
def test_the_cards_are_there(theirs, ours, kind):
    their_path, our_path = both(theirs, ours, kind)
    with fits.open(their_path) as a, fits.open(our_path) as b:
        for unit in (0, "SCI", "VAR", "DQ"):
            if unit and unit not in a:
                continue
            missing = set(a[unit].header) - set(b[unit].header) - ONLY_THEIRS
            assert missing == set(), f"{kind} {unit}"
        for key in ("INSTRUME", "OBSTYPE", "OBJECT", "OBSCLASS", "FILTER", "EXPTIME", "COADDS", "NCOMBINE",
                    "PROCMODE", "ORIGNAME", "GCALLAMP", "IMCMB001", "IMCMB003"):  # fmt: skip
            assert a[0].header.get(key) == b[0].header.get(key), key
        unit = {"flat": "", "bpm": "bit"}.get(
            kind, "electron"
        )  # theirs stay in electrons when they are ratios
        assert b["SCI"].header["BUNIT"] == unit
        for key in ("GAIN", "RDNOISE", "DATASEC", "VARNOISE"):
            assert a["SCI"].header.get(key) == b["SCI"].header.get(key), key
        for key in ("SATLEVEL", "NONLINEA", "PIXSCALE"):
            assert b["SCI"].header[key] == pytest.approx(a["SCI"].header[key], abs=0.01), key
        if "VAR" in a:  # theirs says electron, which is not the unit of a variance
            assert b["VAR"].header["BUNIT"] == (f"{unit}**2" if unit else "")
        suffix = {"dark": "-SQ-DARK", "flat": "-SQ-FLAT", "image": "-SQ-IMAGE"}.get(kind, "-SQ-BPM")
        assert b[0].header["DATALAB"].endswith(suffix)
        if kind != "bpm":  # theirs is not stored, and so keeps that of the stack
            assert a[0].header["DATALAB"] == b[0].header["DATALAB"]


@pytest.mark.parametrize("kind", KINDS)
def test_tags_and_descriptors_agree(theirs, ours, kind):
    their, our = (Dataset(path) for path in both(theirs, ours, kind))
    assert their.tags == our.tags
    assert cal_service.kind_of(their) == cal_service.kind_of(our)
    for name in their.facts.__dataclass_fields__:
        a, b = getattr(their.facts, name), getattr(our.facts, name)
        if kind == "bpm" and name == "data_label":
            continue
        assert b == (pytest.approx(a, rel=1e-6) if isinstance(a, float) else a), name


def test_their_calibrations_are_taken_from_a_drop_folder_and_used(theirs, ours, tmp_path):
    place = Place(tmp_path)
    for name in ("0423_dark", "0366_flat", "0366_bpm"):
        shutil.copy(theirs / "products" / f"N20160102S{name}.fits", place.drop)
    for number in range(270, 278):
        shutil.copy(theirs / "raw" / f"N20160102S{number:04d}.fits.gz", place.drop)
    place.run(workers=1)
    assert set(place.made()) == {"N20160102S0271_image"}
    product = place.path("N20160102S0271_image")
    used = {role: name for name, _, role in read_provenance(product)[0]}
    assert used["processed_dark"] == "N20160102S0423_dark"
    assert used["processed_flat"] == "N20160102S0366_flat"
    rows = place.ledger()
    assert {rows[f"N20160102S{n}.fits"]["state"] for n in ("0423_dark", "0366_flat", "0366_bpm")} == {
        "calibration"
    }
    with fits.open(product) as made, fits.open(both(theirs, ours, "image")[1]) as own:
        assert made["SCI"].shape == own["SCI"].shape
        good = (made["DQ"].data == 0) & (own["DQ"].data == 0)
        assert good.mean() > 0.5
        difference = (made["SCI"].data - own["SCI"].data)[good] / np.sqrt(own["VAR"].data[good])
        # The same frames with another stack of the same darks and flats.
        assert np.percentile(np.abs(difference), 95) < 0.3
