"""The installed program, with real pixels: a frame that no recipe can take, and a disk that fills."""

import shutil
import subprocess

import numpy as np
import pytest
from astropy.io import fits

from pipeline.simulate.verify import check_products
from tests.e2e.test_night import TINY, Place, frames, right, tiny_night  # noqa: F401  (a fixture)

POISON = "N20160102S0274.fits"


@pytest.fixture
def small_disk(tmp_path):
    """A folder on a disk of a megabyte, and a function that makes it larger."""
    folder = tmp_path / "products"
    folder.mkdir()

    def mount(options):
        words = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
        return subprocess.run(words, capture_output=True).returncode == 0

    if shutil.which("mount") is None or not mount("size=1m"):
        pytest.skip("no disk can be mounted here")
    yield lambda: mount("remount,size=100m")
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_a_frame_that_no_recipe_can_take_is_found_and_the_rest_is_reduced(tmp_path, tiny_night):  # noqa: F811
    place = Place(tmp_path)
    place.config = tmp_path / "nirid.toml"  # frames are not judged, which would leave this one out at once
    place.config.write_text('[[override]]\nparameters = {"judgeFrames:judge" = false}\n')
    for path in frames(tiny_night):
        shutil.copy(path, place.drop)
    with fits.open(place.drop / POISON, mode="update") as hdus:
        hdus[1].data = np.full_like(hdus[1].data, np.nan, dtype="f4")
    place.run()
    assert set(place.made()) == set(TINY.values())
    checks = check_products(tiny_night, {kind: place.path(name) for kind, name in TINY.items()})
    assert [c.sentence for c in checks if not c.ok and "drift of the sky" not in c.sentence] == []
    audit = place.json("audit", "--deep")
    assert audit["unaccounted"] == audit["products"]["broken"] == []
    row = place.ledger()[POISON]
    assert row["state"] == "quarantined"
    assert "found by halving its 8 frames" in row["reason"]
    used = list(fits.getdata(place.path(TINY["science"]), "PROVENANCE")["filename"])
    assert POISON not in used
    assert len([name for name in used if name.startswith("N20160102S02") and "_" not in name]) == 7
    assert max(row["runs"] for row in place.ledger().values()) == 1


def test_a_disk_that_fills_stops_the_work_and_more_room_lets_it_go_on(tmp_path, tiny_night, small_disk):  # noqa: F811
    place = Place(tmp_path)
    for path in frames(tiny_night):
        shutil.copy(path, place.drop)
    config = tmp_path / "nirid.toml"
    config.write_text("disk = { low_water_mb = 0, low_water_inodes = 0 }\n")
    words = ["--config", str(config), "run", "--until-idle", "--drop", str(place.drop)]
    said = subprocess.run(place.command(*words), capture_output=True, text=True, cwd=place.folder)
    assert said.returncode == 1, said.stderr
    assert "work is paused, run it again when there is room" in said.stderr.splitlines()[-1]
    assert {row["state"] for row in place.ledger().values()} == {"ready", "calibration"}
    audit = place.json("audit", "--deep")
    assert audit["unaccounted"] == audit["products"]["broken"] == []  # nothing is torn, nothing forgotten
    assert len(place.made()) < len(TINY)
    assert small_disk()
    place.nirid(*words)
    right(place, tiny_night, TINY)
    assert not list((place.products / ".staging").iterdir())
    assert max(row["runs"] for row in place.ledger().values()) == 1
