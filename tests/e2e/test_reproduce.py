"""nirid reproduce: products made again of their own record, with the installed program."""

import json
import os
import shutil
import subprocess

import pytest
from astropy.io import fits

from tests.e2e.test_night import TINY, Place
from tests.e2e.test_zero_point import STANDARD, night  # noqa: F401  (fixture)

NAMES = [*TINY.values(), STANDARD]
SCIENCE, FLAT, DARK = TINY["science"], TINY["flat"], TINY["dark"]
RAW = "N20160102S0272.fits"


def made(folder, night, **more):  # noqa: F811
    place = Place(folder)
    for path in night.glob("N*.fits"):
        shutil.copy(path, place.drop)
    place.config = more.get("config")
    place.run()
    return place


@pytest.fixture(scope="module")
def shared_place(tmp_path_factory, night):  # noqa: F811
    """A night that is done. Each test leaves it as it was."""
    place = made(tmp_path_factory.mktemp("made"), night)
    assert set(place.made()) == set(NAMES)
    return place


def answer(place, product, *words, code=0, env=None, state=None, prelude=(), cwd=None):
    command = [*prelude, *place.command("reproduce", str(product), "--json", *words)]
    if state:
        command[command.index(str(place.state))] = str(state)
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        cwd=cwd or place.folder,
        timeout=300,
        env={**os.environ, **(env or {})},
    )
    assert done.returncode == code, f"exit {done.returncode}\n{done.stdout}\n{done.stderr}"
    return json.loads(done.stdout)


@pytest.mark.parametrize("name", NAMES)
def test_every_kind_of_product_is_made_again_bit_for_bit(shared_place, name):
    found = answer(shared_place, name)
    assert (found["result"], found["preview"]) == ("identical", True)
    assert found["differences"] == found["missing"] == found["notes"] == []
    assert not any(release["differs"] for release in found["releases"])
    assert all(release["made"] for release in found["releases"])
    with fits.open(shared_place.path(name)) as hdus:
        assert len(found["used"]) == len(hdus["PROVENANCE"].data)
        assert [hdus[0].header[card] for card in ("NUMPY", "PYTHON", "MACHINE")] == [
            next(r["made"] for r in found["releases"] if r["name"] == name)
            for name in ("numpy", "python", "processor")
        ]


def test_whatever_the_time_zone_the_language_the_umask_and_the_number_of_cores(shared_place):
    odd = {"TZ": "Pacific/Honolulu", "LC_ALL": "tr_TR.UTF-8", "LANG": "tr_TR.UTF-8", "PYTHONHASHSEED": "7"}
    one_core = ("sh", "-c", 'umask 077; exec taskset -c 0 "$@"', "sh")
    assert answer(shared_place, SCIENCE, env=odd, prelude=one_core)["result"] == "identical"


def test_a_file_from_elsewhere_without_a_ledger(shared_place, tmp_path):
    copy = shutil.copy(shared_place.path(SCIENCE), tmp_path / "under another name.fits")
    nowhere, empty = tmp_path / "no state", tmp_path / "empty"
    empty.mkdir()
    raw = tmp_path / "archive"
    shutil.copytree(shared_place.drop, raw / "2016")
    for number, path in enumerate(sorted((raw / "2016").iterdir())):
        path.rename(raw / "2016" / f"frame{number}.fit")
    found = answer(shared_place, copy, "--from", str(raw), state=nowhere, code=3, cwd=empty)
    missing = {one["name"] for one in found["missing"]}
    assert missing == {FLAT, TINY["bpm"], DARK, STANDARD}
    shutil.copytree(shared_place.products, tmp_path / "calibrations")
    both = ("--from", str(raw), "--from", str(tmp_path / "calibrations"))
    assert answer(shared_place, copy, *both, state=nowhere, cwd=empty)["result"] == "identical"


def test_one_bit_of_an_input_is_named(shared_place):
    raw = shared_place.drop / RAW
    before, times = raw.read_bytes(), raw.stat()
    changed = bytearray(before)
    changed[-3000] ^= 1
    raw.write_bytes(changed)
    try:
        found = answer(shared_place, SCIENCE, code=3)
        assert [(one["name"], one["role"]) for one in found["missing"]] == [(RAW, "input")]
        assert f"{raw} has other bytes now" in found["missing"][0]["how"]
        text = shared_place.nirid("reproduce", SCIENCE, code=3)
        assert "cannot" in text
        assert RAW in text
    finally:
        raw.write_bytes(before)
        os.utime(raw, ns=(times.st_atime_ns, times.st_mtime_ns))


def test_an_input_that_is_gone_is_named_and_found_where_it_went(shared_place, tmp_path):
    raw = shared_place.drop / RAW
    away = tmp_path / "away" / "x.fits"
    away.parent.mkdir()
    shutil.move(raw, away)
    try:
        found = answer(shared_place, SCIENCE, code=3)
        assert [(one["name"], one["how"]) for one in found["missing"]] == [(RAW, f"gone; it was {raw}")]
        found = answer(shared_place, SCIENCE, "--from", str(away.parent))
        assert {one["name"]: one["path"] for one in found["used"]}[RAW] == str(away)
    finally:
        shutil.move(away, raw)


def test_an_edited_comment_is_no_other_exposure(shared_place, tmp_path):
    """Other bytes, the same pixels and cards that count: by the ledger, and by the key in the product."""
    raw = shared_place.drop / RAW
    kept = shutil.move(raw, tmp_path / RAW)
    try:
        with fits.open(kept) as hdus:
            hdus[0].header["COMMENT"] = "looked at"
            hdus.writeto(raw)
        for more in ({}, {"state": tmp_path / "no state"}):
            found = answer(shared_place, shared_place.path(SCIENCE), **more)
            how = {one["name"]: one["how"] for one in found["used"]}[RAW]
            assert found["result"] == "identical"
            assert how.startswith("other bytes, with the same pixels")
    finally:
        os.replace(kept, raw)


def test_a_calibration_whose_file_is_gone_is_made_again_first(shared_place, tmp_path):
    flat = shared_place.path(FLAT)
    shutil.move(flat, tmp_path / flat.name)
    try:
        found = answer(shared_place, SCIENCE)
        how = {one["name"]: one["how"] for one in found["used"]}
        assert found["result"] == "identical"
        assert how[FLAT].startswith("was gone, and was made again")
        raw = shared_place.drop / "N20160102S0366.fits"
        shutil.move(raw, tmp_path / raw.name)
        found = answer(shared_place, SCIENCE, code=3)
        assert [one["name"] for one in found["missing"]] == [FLAT]
        assert "cannot be made again: N20160102S0366.fits" in found["missing"][0]["how"]
        shutil.move(tmp_path / raw.name, raw)
    finally:
        shutil.move(tmp_path / flat.name, flat)


def test_what_differs_is_listed_with_its_size(shared_place, tmp_path):
    """A pixel 5 sigma off, a card, a cell of the catalogue: found in a product that somebody has edited."""
    edited = tmp_path / "edited.fits"
    with fits.open(shared_place.path(SCIENCE)) as hdus:
        y, x = 120, 130
        hdus["SCI"].data[y, x] += 5 * hdus["VAR"].data[y, x] ** 0.5
        hdus[0].header["OBJECT"] = "other"
        hdus["PROVENANCE"].data["role"][0] = "input"
        hdus["OBJCAT"].data["FLUX_AUTO"][0] *= 2
        hdus.writeto(edited, checksum=True)
    found = answer(shared_place, edited, "--into", str(tmp_path / "again"), code=1)
    seen = {(one["part"], one["what"]): one for one in found["differences"]}
    assert ("primary", "OBJECT") in seen
    assert ("OBJCAT", "FLUX_AUTO") in seen
    pixel = seen["SCI", "pixels"]
    assert pixel["count"] == 1
    assert f"x {x + 1}, y {y + 1}" in pixel["was"]
    assert found["largest"] == pytest.approx(5, rel=1e-3)
    again = tmp_path / "again" / f"{edited.stem}.fits"
    assert again.read_bytes() == shared_place.path(SCIENCE).read_bytes()
    assert found["made"] == str(again)
    assert again.with_suffix(".png").is_file()
    text = shared_place.nirid("reproduce", str(edited), code=1)
    assert "different" in text
    assert "5 sqrt(VAR)" in text
    with pytest.raises(AssertionError, match="is there already"):
        shared_place.nirid("reproduce", str(edited), "--into", str(tmp_path / "again"))


def test_a_version_that_differs_is_told(shared_place, tmp_path):
    older = tmp_path / "older.fits"
    with fits.open(shared_place.path(DARK)) as hdus:
        hdus[0].header["NUMPY"] = "1.0"
        hdus.writeto(older, checksum=True)
    found = answer(shared_place, older, code=1)
    assert [r["made"] for r in found["releases"] if r["differs"]] == ["1.0"]
    assert "NUMPY" in {one["what"] for one in found["differences"]}


def test_what_is_no_product_is_refused(shared_place):
    for said in (shared_place.drop / RAW, "N20160102S0272", "nothing"):
        with pytest.raises(AssertionError, match="exit 1"):
            shared_place.nirid("reproduce", str(said))


def test_after_a_requeue_old_and_new_are_made_again(tmp_path, night):  # noqa: F811
    """Each of its own dark: the first science, superseded, of the first; a mask given by path is found where
    it lies by now."""
    mask = tmp_path / "mine.fits"
    place = made(tmp_path, night)
    with fits.open(place.path(TINY["bpm"])) as hdus:
        hdus[0].header["OBSERVER"] = "me"
        hdus.writeto(mask, checksum=True)
    place.config = tmp_path / "nirid.toml"
    place.config.write_text(
        f'[[override]]\nrecipe = "reduce"\nparameters = {{ "addDQ:user_bpm" = "{mask}" }}\n'
    )
    place.nirid("requeue", DARK)
    place.run()
    place.nirid("requeue", SCIENCE)
    place.run()
    old = sorted((place.products / "20160102" / "superseded").glob("*.fits"))
    assert {path.name.split(".")[0] for path in old} >= {DARK, SCIENCE}
    for path in (*old, place.path(DARK), place.path(SCIENCE)):
        assert answer(place, path)["result"] == "identical", path
    mask.rename(tmp_path / "drop" / "moved.fits")
    found = answer(place, SCIENCE, "--from", str(place.drop))
    assert {one["role"]: one["path"] for one in found["used"]}["user_bpm"] == str(place.drop / "moved.fits")
    assert found["result"] == "identical"
