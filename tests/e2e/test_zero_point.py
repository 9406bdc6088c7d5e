"""The zero point of a standard star in the header of the science: with the daemon, and by hand."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
from astropy.io import fits

from pipeline import Reduce, cal_service
from pipeline.simulate import PRESETS, Shot, simulate_night
from pipeline.simulate.runs import FIVE, FS17, FS17_KPRIME, Run, at, scaled
from pipeline.simulate.sky import Field
from pipeline.simulate.verify import check_products
from tests.e2e.test_night import TINY, Place

STANDARD = "N20160102S0296_image"


@pytest.fixture(scope="module")
def night(tmp_path_factory):
    """tiny, and half an hour after its galaxy FS 17 alone in its field."""
    tiny = PRESETS["tiny"]
    shot = Shot(
        kind="standard", exposure=3.001, target=FS17, object_name="FS 17", observation=34, shape=(256, 256)
    )
    run = Run(shot, "N20160102S0295", at("2016-01-02T12:20:05"), scaled(FIVE, 0.7), "FS 17", 7.5)
    ra, dec, mag = np.array([*FS17, FS17_KPRIME])[:, None]

    def fields(rng):
        return {**tiny.fields(rng), "FS 17": Field("FS 17", FS17, ra, dec, mag)}

    folder = tmp_path_factory.mktemp("standard") / "night"
    simulate_night(folder, replace(tiny, runs=(*tiny.runs, run), fields=fields))
    return folder


def land(place, night, first, last):
    for path in night.glob("N*.fits"):
        if first <= int(path.stem[10:]) <= last:
            shutil.copy(path, place.drop)


def header(place, name):
    return fits.getheader(place.path(name))


def test_science_carries_the_zero_point_of_the_standard(tmp_path, night):
    place, other = (Place(tmp_path / name) for name in ("one", "other") if not (tmp_path / name).mkdir())
    land(place, night, 0, 9999)
    place.run(workers=1)
    assert set(place.made()) == {*TINY.values(), STANDARD}
    checks = check_products(night, {"standard": place.path(STANDARD), "science": place.path(TINY["science"])})
    assert [check.sentence for check in checks if not check.ok] == []
    assert "standard: zero point - true, mag" in {check.name for check in checks}
    star, science = header(place, STANDARD), header(place, TINY["science"])
    assert science["ZPIMAGE"] == STANDARD
    assert "ZPIMAGE" not in star
    for key in ("MAGZPT", "ZPSTAR", "ZPMAG", "KEXT", "CLOUDEXT"):
        assert science[key] == star[key]
    assert 0 < science["MAGZERR"] < 0.1
    (kept,) = [row for row in place.json("caldb", "list", "-d", str(place.state / "nirid.db"))
               if row["kind"] == "zero_point"]  # fmt: skip
    assert kept["name"] == f"{STANDARD}.fits"
    used = {row["role"]: row["filename"] for row in fits.getdata(place.path(TINY["science"]), "PROVENANCE")}
    assert used["zero_point"] == STANDARD
    # The standard comes last: the science is made again, and is the same file.
    land(other, night, 270, 290)
    land(other, night, 363, 9999)
    other.run(workers=1)
    assert "MAGZPT" not in header(other, TINY["science"])
    land(other, night, 295, 299)
    other.run(workers=1)
    assert other.made() == place.made()


def test_by_hand(tmp_path, night, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cal_service.set_local_database().init("w")

    def reduced(first, last, **how):
        run = Reduce(**how)
        run.files = [str(p) for p in sorted(night.glob("N*.fits")) if first <= int(p.stem[10:]) <= last]
        run.runr()
        return fits.getheader(run.output_filenames[0])

    reduced(363, 368)
    reduced(423, 425)
    assert "MAGZPT" not in reduced(270, 277)
    star = reduced(295, 299)
    science = reduced(270, 277)
    assert (science["ZPIMAGE"], science["MAGZPT"]) == (STANDARD, star["MAGZPT"])
    given = reduced(270, 277, ucals={"zero_point": f"{STANDARD}.fits"})
    assert given["MAGZPT"] == star["MAGZPT"]
