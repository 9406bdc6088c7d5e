"""What we make opens everywhere, without a warning, and means what it says."""

import json
import math
import warnings
from pathlib import Path

import numpy as np
import pytest
from astropy import units as u
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.table import QTable
from astropy.time import Time

import pipeline
from pipeline.files.columns import TABLES
from pipeline.files.read import read_frame
from pipeline.files.standardcards import of_an_image, stamp_of, without_epoch
from pipeline.files.write import write_product
from pipeline.simulate import simulate_night
from tests.e2e.test_night import EXAMPLE1, Place, frames
from tests.fitsfiles import real_file
from tests.readers import FITSVERIFY, read_by_all


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The products of the night of the tutorial, at half its size, by name."""
    place = Place(tmp_path_factory.mktemp("readers"))
    simulate_night(place.folder / "night", "example1", size=512)
    for path in frames(place.folder / "night"):
        path.rename(place.drop / path.name)
    place.run()
    return place


@pytest.mark.parametrize("kind", EXAMPLE1)
def test_readers_have_nothing_to_say(made, kind):
    path = made.path(EXAMPLE1[kind])
    image = read_by_all(path)
    assert image.unit == {"flat": "", "bpm": "bit"}.get(kind, "electron")
    assert image.wcs.wcs.radesys == "FK5"
    assert image.wcs.wcs.mjdobs == pytest.approx(fits.getval(path, "MJD-OBS", "SCI"))


@pytest.mark.skipif(FITSVERIFY is None, reason="fitsverify is not installed")
def test_fitsverify_is_asked_and_sees_what_is_wrong(made, tmp_path):
    path = tmp_path / "old.fits"
    with fits.open(made.path(EXAMPLE1["dark"])) as hdus:
        hdus[0].header["EPOCH"] = 2000.0
        hdus.writeto(path)
    with pytest.raises(AssertionError, match="EPOCH"):
        read_by_all(path)


def test_every_column_says_what_it_is(made):
    for name in EXAMPLE1.values():
        with fits.open(made.path(name)) as hdus:
            for hdu in hdus[1:]:
                if isinstance(hdu, fits.BinTableHDU):
                    columns = TABLES[hdu.name]
                    assert set(hdu.columns.names) <= set(columns)
                    for number, column in enumerate(hdu.columns, 1):
                        unit, meaning = columns[column.name]
                        assert (column.unit or "", hdu.header[f"TCOMM{number}"]) == (unit, meaning)


def test_one_call_gives_ccddata(made):
    path = made.path(EXAMPLE1["science"])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ours, theirs = pipeline.open(path).to_ccddata(), read_by_all(path)
    assert np.array_equal(ours.data, theirs.data)
    assert np.array_equal(ours.mask, theirs.mask)
    assert np.array_equal(ours.uncertainty.array, theirs.uncertainty.array)
    assert ours.unit == theirs.unit
    assert np.array_equal(ours.flags, fits.getdata(path, "DQ"))
    assert np.allclose(ours.wcs.wcs.crval, theirs.wcs.wcs.crval)


def test_photutils_takes_the_image_and_its_error(made):
    photutils = pytest.importorskip("photutils.aperture")
    image = pipeline.open(made.path(EXAMPLE1["standard"])).to_ccddata()
    sources = QTable.read(made.path(EXAMPLE1["standard"]), hdu="OBJCAT")
    star = sources[np.argmin(np.where(sources["STAR"] == 1, sources["MAG_VEGA"].value, 99))]
    place = SkyCoord(star["X_WORLD"], star["Y_WORLD"], frame="fk5")
    aperture = photutils.SkyCircularAperture(place, 1.4 * u.arcsec)
    found = photutils.aperture_photometry(image, aperture)
    assert found["aperture_sum"][0].value == pytest.approx(star["FLUX_AUTO"].value, rel=0.1)


def test_magnitudes_are_those_of_the_simulation_within_their_errors(made):
    truth = json.loads((made.folder / "night" / "truth.json").read_text())
    table = QTable.read(made.path(EXAMPLE1["science"]), hdu="OBJCAT")
    field = next(f for f in truth["fields"] if "SN2014J" in f["object"])
    there = [s for s in field["sources"] if "mag" in s]
    ra, dec, mag = (np.array([s[key] for s in there]) for key in ("ra", "dec", "mag"))
    pulls, off = [], []
    for row in table[(table["FLAGS"] == 0) & (table["NIMAFLAGS_ISO"] == 0)]:
        east = (ra - row["X_WORLD"].value) * math.cos(math.radians(dec[0])) * 3600
        apart = np.hypot(east, (dec - row["Y_WORLD"].value) * 3600)
        if apart.min() < 0.3 and (apart < 2.0).sum() == 1 and row["STAR"] == 1:
            off.append(row["MAG_VEGA"].value - mag[apart.argmin()])
            pulls.append(off[-1] / row["MAGERR_VEGA"].value)
    assert len(pulls) >= 5
    assert abs(np.median(off)) < 0.05
    assert np.mean(np.abs(pulls) < 2) >= 0.7


def test_without_a_zero_point_there_are_no_magnitudes(made):
    with fits.open(made.path(EXAMPLE1["science"])) as hdus:
        assert {"MAG_VEGA", "MAGERR_VEGA"} <= set(hdus["OBJCAT"].columns.names)
    cards = pipeline.open(made.path(EXAMPLE1["dark"])).header
    assert "MAGZPT" not in cards


@pytest.mark.parametrize(
    ("given", "written"),
    [
        ("2016-01-02T11:56:18.500000+00:00", "2016-01-02T11:56:18.500"),
        ("2016-01-02T01:56:18.5-10:00", "2016-01-02T11:56:18.500"),
        ("2016-01-02T11:56:18", "2016-01-02T11:56:18.000"),
        ("no time", "no time"),
    ],
)
def test_times_are_written_as_the_standard_has_them(given, written):
    assert stamp_of(given) == written


def test_epoch_becomes_equinox_only_where_there_is_none():
    header = fits.Header([("EPOCH", 1950.0)])
    assert dict(without_epoch(header)) == {"EQUINOX": 1950.0}
    header = fits.Header([("EPOCH", 1950.0), ("EQUINOX", 2000.0)])
    assert dict(without_epoch(header)) == {"EQUINOX": 2000.0}


@pytest.mark.parametrize(
    ("cards", "system", "equinox"),
    [
        ({"FRAME": "FK5"}, "FK5", 2000.0),
        ({"FRAME": "APPT", "TRKFRAME": "ICRS"}, "ICRS", None),
        ({"FRAME": "AZEL_TOPO"}, "FK5", 2000.0),
        ({"RADESYS": "FK4", "EQUINOX": 1950.0}, "FK4", 1950.0),
        ({"EQUINOX": 0.0}, "FK5", 2000.0),
    ],
)
def test_the_system_of_the_coordinates_is_named(cards, system, equinox):
    from pipeline.frame import Frame

    header = fits.Header([("INSTRUME", "NIRI"), ("CTYPE1", "RA---TAN"), *cards.items()])
    plane = np.zeros((4, 4), np.float32)
    frame = Frame(plane, np.zeros((4, 4), np.uint16), header, "electron", "x.fits")
    found = of_an_image(frame, "")
    assert found["RADESYS"][0] == system
    assert found.get("EQUINOX", (None,))[0] == equinox
    assert "MJD-OBS" not in found


def test_the_page_of_products_has_every_column_as_it_is_written():
    page = (Path(pipeline.__file__).parents[1] / "docs" / "products.md").read_text()
    for columns in TABLES.values():
        for name, (unit, meaning) in columns.items():
            assert f"| `{name}` | {unit} | {meaning} |" in page


STAMP = "2016-01-02T06:00:00+00:00"


def test_cards_of_real_frames_make_no_reader_complain(shared, tmp_path):
    folder = shared / "realdata" / "headers" / "raw"
    if not folder.is_dir():
        pytest.skip("no headers of real frames are here")
    for number, header in enumerate(sorted(folder.glob("*.header"))):
        raw, path = tmp_path / f"N20160102S{number:04d}.fits", tmp_path / f"{number}_prepared.fits"
        raw.write_bytes(real_file(header.read_text(encoding="latin-1")))
        frame = read_frame(raw)
        frame = frame.evolve(var=np.ones(frame.shape, np.float32))
        made = {"provenance": [("a", "b", "input")], "history": [("prepare", {}, "x")], "time_stamp": STAMP}
        write_product(path, frame, **made)
        image = read_by_all(path, times=False)
        when = frame.descriptors.ut_datetime
        assert when is None or abs(Time(image.wcs.wcs.mjdobs, format="mjd").unix - when.timestamp()) < 2e-3
