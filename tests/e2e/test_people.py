"""The installed program: what people decide, what they are told, and a database that is lost."""

import json
import os
import shutil
import subprocess

import pytest
from astropy.io import fits

from tests.e2e.test_night import TINY, Place, frames, right, tiny_night  # noqa: F401  (a fixture)


@pytest.fixture(scope="module")
def made(tiny_night, tmp_path_factory):  # noqa: F811
    """A night that has been reduced; tests change it one after the other."""
    place = Place(tmp_path_factory.mktemp("people"))
    for path in frames(tiny_night):
        shutil.copy(path, place.drop)
    place.run()
    return place


def fails(place, *words, code=1):
    done = subprocess.run(place.command(*words), capture_output=True, text=True, cwd=place.folder)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stderr


def test_a_rejection_waits_for_a_daemon_and_is_done_by_the_next(made):
    answer = made.json("reject", "N20160102S0425.fits", "--reason", "trailed")
    assert (answer["applied"], answer["name"]) == (False, "N20160102S0425.fits")
    assert made.json("status")["requests"] == 1
    made.run()
    assert made.json("status")["requests"] == 0
    assert made.ledger()["N20160102S0425.fits"]["state"] == "excluded"
    used = fits.getdata(made.path(TINY["dark"]), "PROVENANCE")["filename"]
    assert "N20160102S0425.fits" not in list(used)
    assert made.json("explain", "N20160102S0425")["decisions"][0]["reason"] == "trailed"
    line = json.loads((made.products / ".nirid" / "decisions.jsonl").read_text())
    assert (line["action"], line["reason"]) == ("reject", "trailed")


def test_mistakes_are_one_clear_line(made):
    assert fails(made, "reject", "N20160102S0999", "--reason", "x").startswith(
        "nirid: N20160102S0999: no file"
    )
    assert "did you mean" in fails(made, "explain", "N20160102S0271_imgae")
    assert "Missing option '--reason'" in fails(made, "reject", "N20160102S0425.fits", code=2)
    assert "give a TARGET" in fails(made, "requeue", code=2)
    assert "give a TARGET" in fails(made, "accept", "", code=2)
    assert not list((made.state / "requests").glob("*.json"))


def test_the_toolkit_hands_calibrations_to_the_daemon(made, tmp_path):
    dark = tmp_path / "my_dark.fits"
    shutil.copy(made.path(TINY["dark"]), dark)
    made.nirid("caldb", "add", "-d", str(made.state / "nirid.db"), str(dark))
    made.run()
    assert made.ledger()["my_dark.fits"]["state"] == "calibration"
    made.nirid("caldb", "remove", "-d", str(made.state / "nirid.db"), str(dark))
    made.run()
    assert made.ledger()["my_dark.fits"]["state"] == "excluded"
    raw = str(frames(made.drop)[0])
    assert "a raw" in fails(made, "caldb", "add", "-d", str(made.state / "nirid.db"), raw)


@pytest.mark.parametrize("loss", ["rebuild", "gone", "damaged"])
def test_a_lost_database_is_made_anew_and_nothing_is_reduced_again(made, loss):
    products, before = made.made(), made.ledger()
    database = made.state / "nirid.db"
    if loss == "rebuild":
        answer = made.json("rebuild")
        assert os.path.exists(answer["kept"])
        assert answer["left"] == []
    elif loss == "gone":
        for side in ("", "-wal", "-shm"):
            (made.state / f"nirid.db{side}").unlink(missing_ok=True)
    else:
        with database.open("r+b") as file:
            file.write(b"\x55" * 20_000)
    answer = made.json("run", "--until-idle", "--drop", str(made.drop), "--products", str(made.products))
    assert {row["state"] for row in answer.pop("left_out")} <= {"excluded", "no product"}
    assert answer == {"failed": [], "waiting": [], "products": [], "blocked": []}
    assert made.made() == products
    after = made.ledger()
    assert {name: (row["state"], row["runs"], row["reason"]) for name, row in after.items()} == {
        name: (row["state"], row["runs"], row["reason"]) for name, row in before.items()
    }
    audit = made.json("audit", "--deep")
    assert audit["unaccounted"] == audit["products"]["broken"] == []


def test_accepted_again_everything_is_as_it_was(made, tiny_night):  # noqa: F811
    made.nirid("accept", "N20160102S0425")
    made.run()
    right(made, tiny_night, TINY)
    assert made.json("audit")["unaccounted"] == []
