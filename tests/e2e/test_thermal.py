"""A night in a thermal filter: the flat is made of the sky, used, and gives way to one that is given."""

import json
import shutil

import numpy as np
import pytest
from astropy.io import fits

from pipeline.simulate import simulate_night
from tests.e2e.test_night import Place

DARK, SKY_FLAT, SCIENCE = "N20160111S0260_dark", "N20160111S0102_skyflat", "N20160111S0102_image"


@pytest.fixture(scope="module")
def night(tmp_path_factory):
    folder = tmp_path_factory.mktemp("thermal") / "night"
    simulate_night(folder, "thermal")
    return folder


@pytest.fixture
def place(tmp_path):
    return Place(tmp_path)


def land(place, night, first=0, last=9999):
    for path in sorted(night.glob("N*.fits")):
        if first <= int(path.stem[10:]) <= last:
            shutil.copy(path, place.drop)


def product(place, name):
    return place.products / "20160111" / f"{name}.fits"


def used(place, name):
    rows = fits.getdata(product(place, name), "PROVENANCE")
    return {row["role"]: row["filename"] for row in rows}


def response(night):
    """What the detector truly makes of even light, its median 1."""
    image = fits.getdata(night / ".truth" / "flat.fits")[384:640, 384:640]
    return image / np.median(image)


def test_a_thermal_night(place, night):
    land(place, night)
    place.run(workers=1)
    assert set(place.made()) == {DARK, SKY_FLAT, SCIENCE}
    roles = used(place, SCIENCE)
    assert roles["processed_flat"] == SKY_FLAT
    assert roles["processed_dark"] == DARK
    with fits.open(product(place, SKY_FLAT)) as hdus:
        flat, var, dq, header = hdus["SCI"].data, hdus["VAR"].data, hdus["DQ"].data, hdus[0].header
        cards = {key: header[key] for key in ("OBSTYPE", "OBJECT", "GCALLAMP", "NCOMBINE")}
        assert cards == {"OBSTYPE": "FLAT", "OBJECT": "Flat Frame", "GCALLAMP": "QH", "NCOMBINE": 6}
        assert header["DATALAB"] == "GN-CAL20160111-900-102-SQ-FLAT"
    truth = response(night)
    good = (dq == 0) & (truth > 0.8)
    assert good.mean() > 0.98
    error = (flat - truth)[good]
    # Six frames of 6.7 million electrons: 0.017 % of noise, with the dark's.
    assert np.std(error) < 2.5e-4
    assert np.abs(error).max() < 0.002  # no star shows
    assert np.std(error / np.sqrt(var[good])) == pytest.approx(1.0, abs=0.1)
    kept = place.json("audit", "--deep")
    assert kept["unaccounted"] == kept["products"]["broken"] == []
    stars_keep_their_light(place, night)
    for name in (SKY_FLAT, SCIENCE):
        assert place.json("reproduce", name)["result"] == "identical"


def stars_keep_their_light(place, night):
    """Of isolated stars the stack has the electrons that fell, within the noise."""
    truth = json.loads((night / "truth.json").read_text())
    frames = [f for f in truth["frames"] if f["kind"] == "object"][1:]
    through = np.mean([f["transparency"] for f in frames]) * 1.5  # seconds
    with fits.open(product(place, SCIENCE)) as hdus:
        sources = truth["fields"][0]["sources"]
        catalogue = hdus["OBJCAT"].data
    ratios = []
    for star in sorted(sources, key=lambda s: s["mag"])[:8]:
        away = 3600 * np.hypot(
            (catalogue["X_WORLD"] - star["ra"]) * np.cos(np.radians(star["dec"])),
            catalogue["Y_WORLD"] - star["dec"],
        )
        if away.min() < 0.5:
            flux = catalogue["FLUX_AUTO"][away.argmin()]
            ratios.append(flux / (star["flux_e_per_s"] * through))
    assert len(ratios) >= 4
    # A Kron aperture holds 0.9 of a Moffat profile with wings.
    assert np.median(ratios) == pytest.approx(0.92, abs=0.08)


def test_too_few_dithers_go_without_a_flat_and_use_one_that_comes(place, night):
    land(place, night, 101, 104)
    land(place, night, 260, 270)
    place.run(workers=1)
    name = "N20160111S0101_image"
    assert set(place.made()) == {DARK, name}
    assert "processed_flat" not in used(place, name)
    notes = " ".join(str(line) for line in fits.getheader(product(place, name))["HISTORY"])
    assert "no processed_flat is made for Lprime_G0207" in notes
    land(place, night, 105, 107)  # now there are enough
    place.run(workers=1)
    assert set(place.made()) == {DARK, SKY_FLAT, SCIENCE}
    assert used(place, SCIENCE)["processed_flat"] == SKY_FLAT


def test_a_flat_that_is_given_comes_first(place, night, tmp_path):
    (tmp_path / "other").mkdir()
    other = Place(tmp_path / "other")
    land(other, night)
    other.run(workers=1)
    shutil.copy(product(other, SKY_FLAT), place.drop / "given_flat.fits")
    land(place, night)
    place.run(workers=1)
    assert set(place.made()) == {DARK, SCIENCE}
    assert used(place, SCIENCE)["processed_flat"] == "given_flat"
