"""A ledger that is lost: everything is there again, and nothing is made again."""

import json
import os
from dataclasses import replace

from astropy.io import fits

from daemon.ledger import guarding, questions
from daemon.model.jobs import JobSpec, job_key
from tests.integration.rebuild.helpers import DARK, FLAT, lose, rows
from tests.night import FINAL, example1, frame, static_bpm


def test_everything_is_there_again_and_nothing_is_made_again(night, daemons):
    before, made = rows(night), night.current()
    again = lose(night, daemons, [*example1(), static_bpm()])
    assert rows(again) == before
    again.until_idle()
    assert again.engine.ran == []
    assert again.current() == made
    assert rows(again) == before
    assert again.rows("SELECT MAX(runs) AS n FROM accounting") == [{"n": 1}]
    for row in again.rows("SELECT key, spec, remake FROM job"):
        spec = JobSpec.from_json(json.loads(row["spec"]))
        content = (spec.recipe, spec.recipe_version, spec.inputs, spec.calibrations, spec.parameters)
        assert job_key(*content, spec.preset, row["remake"]) == row["key"]
    assert max(row["remake"] for row in again.rows("SELECT remake FROM job")) == 2


def test_what_people_decided_can_be_taken_back_afterwards(night, daemons):
    again = lose(night, daemons, [*example1(), static_bpm()])
    again.decide("accept", "N20160102S0373_bpm")
    again.decide("accept", "N20160102S0425")
    again.until_idle()
    assert set(again.current()) == FINAL
    sha = next(r.file_sha for r in example1() if "S0425" in r.path)
    provenance = fits.getdata(again.products / "20160102" / f"{DARK}.fits", "PROVENANCE")
    assert sha in [row["sha256"] for row in provenance]


def test_an_edited_comment_meanwhile_changes_nothing_an_edited_fact_does(night, daemons):
    records = example1()
    edited = [replace(r, file_sha="c" * 64) if "S0426" in r.path else r for r in records]
    again = lose(night, daemons, [*edited, static_bpm()])
    again.until_idle()
    assert again.engine.ran == []
    edited = [replace(r, file_sha="d" * 64, facts="d" * 64) if "S0427" in r.path else r for r in records]
    third = lose(again, daemons, [*edited, static_bpm()])
    third.until_idle()
    assert DARK in [spec.name for spec in third.engine.ran]


def test_what_was_asked_for_and_not_made_yet_is_made(night, daemons):
    night.decide("requeue", FLAT)
    night.engine.held = True
    night.run(1)
    assert night.rows("SELECT COUNT(*) AS n FROM decision WHERE action = 'requeue'") == [{"n": 3}]
    again = lose(night, daemons, [*example1(), static_bpm()])
    again.until_idle()
    assert [spec.name for spec in again.engine.ran][:1] == [FLAT]
    assert [spec.name for spec in again.engine.ran].count(DARK) == 0


def test_a_publication_that_was_cut_short_by_the_loss(daemons):
    daemon = daemons()
    darks = [frame("dark", n, 30 * n) for n in range(1, 7)]
    daemon.land(*darks[1:])
    daemon.until_idle()
    folder = daemon.products / "20160102"
    old, kept = folder / "N20160102S0002_dark.fits", folder / "superseded" / "N20160102S0002_dark.v0001.fits"
    older = old.read_bytes()
    preview = old.with_suffix(".png").read_bytes()
    times = old.stat()
    daemon.land(darks[0])
    daemon.until_idle()
    old.write_bytes(older)  # linked and renamed, not yet unlinked
    old.with_suffix(".png").write_bytes(preview)
    os.utime(old, ns=(times.st_atime_ns, times.st_mtime_ns))
    os.utime(kept, ns=(times.st_atime_ns, times.st_mtime_ns))
    newer = folder / "N20160102S0001_dark.fits"
    os.utime(newer, ns=(times.st_atime_ns + 10**10, times.st_mtime_ns + 10**10))
    again = lose(daemon, daemons, darks)
    again.until_idle()
    assert again.engine.ran == []
    assert set(again.current()) == {"N20160102S0001_dark"}
    assert {p.name for p in folder.glob("*.fits")} == {"N20160102S0001_dark.fits"}
    assert {p.name for p in folder.rglob("superseded/*.fits")} == {kept.name}
    assert again.rows("SELECT name FROM calibration WHERE removed IS NULL") == [{"name": newer.stem}]
    known = {p["path"] for p in again.ask(questions.products, current=False)}
    assert known == {str(newer), str(kept)}


def test_what_was_used_is_not_judged_again(night, daemons, monkeypatch):
    used = rows(night)["calibrations"]
    monkeypatch.setattr(guarding, "judged", lambda *_: "held by the limits of a later release")
    assert rows(lose(night, daemons, [*example1(), static_bpm()]))["calibrations"] == used
