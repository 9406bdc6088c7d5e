"""The night as `nirid status` has it: sequences, their worth, what there is to see, what needs a person."""

import json
import time
from dataclasses import replace
from functools import partial

import pytest
from click.testing import CliRunner

from daemon.cli import decide, status
from daemon.ledger import files, questions
from daemon.people import requests, tonight
from tests.beside import Settings
from tests.night import FakeEngine, example1, frame, static_bpm

FIFTH = "N20160102S0274.fits"


class Engine(FakeEngine):
    """Measures the seeing, and leaves the frame 0274 out."""

    def stage(self, spec):
        result = super().stage(spec)
        rows = [{"NAME": i.name, "VERDICT": "used", "AS_SKY": "used"} for i in spec.inputs]
        for row in rows:
            if row["NAME"] == FIFTH:
                row |= {"VERDICT": "left out", "AS_SKY": "left out"}
        if spec.name.endswith(("_image", "_firstlook")):
            result["quality"] |= {"MEANFWHM": 0.5, "MAGZERR": 0.02, "frames": rows}
        return result


@pytest.fixture
def daemon(daemons):
    return daemons(engine=Engine(), looks=True)


def by_name(daemon, night=None):
    named, rows = daemon.ask(tonight.sequences, night, time.time())
    return named, {(row["rule"], row["first"]): row for row in rows}, rows


def test_a_night_from_its_first_frames_to_its_products(daemon):
    daemon.land(*example1()[:5])
    daemon.run(5, step=1)
    named, found, _ = by_name(daemon)
    row = found["science", "N20160102S0270.fits"]
    assert named == "20160102"
    assert (row["state"], row["name"], row["frames"], row["used"]) == ("open", "", 5, 5)
    assert (row["of"], row["seeing"], row["zero_point"]) == ("look", 0.5, 26.3)
    looks = daemon.ask(lambda db: tonight.to_look_at(db, by_name(daemon)[2]))
    assert [look["name"] for look in looks] == ["N20160102S0271_running", "N20160102S0274_firstlook"]
    assert all(look["there"] for look in looks)
    daemon.land(*example1()[5:], static_bpm())
    daemon.run(600)
    _, found, rows = by_name(daemon)
    row = found["science", "N20160102S0270.fits"]
    assert (row["state"], row["name"], row["of"]) == ("done", "N20160102S0271_image", "product")
    assert (row["frames"], row["used"]) == (10, 8), "the first of the sequence and the one that was judged"
    assert (row["what"], row["filter"]) == ("SN2014J", "K(prime)")
    assert found["makeProcessedDark", "N20160103S0463.fits"]["frames"] == 10, "of the day after"
    assert [bool(row["role"]) for row in rows] == sorted((bool(row["role"]) for row in rows), reverse=True)
    assert daemon.ask(lambda db: tonight.to_look_at(db, rows)) == []


def test_one_night_is_shown_and_what_others_have_to_do_is_counted(daemon):
    later = [frame("science", n, 5 * 86400 + 30 * n, day="20160107") for n in range(1, 5)]
    daemon.land(*example1()[:10], *later)
    daemon.run(600)
    named, found, rows = by_name(daemon)
    assert (named, set(found)) == ("20160107", {("science", "N20160107S0001.fits")})
    assert daemon.ask(lambda db: tonight.unfinished_elsewhere(db, rows)) == 1
    named, found, _ = by_name(daemon, "20160102")
    assert (named, set(found)) == ("20160102", {("science", "N20160102S0270.fits")})
    assert by_name(daemon, "20150101") == ("20150101", {}, [])


def test_an_empty_database_has_no_night(daemon):
    assert by_name(daemon) == ("", {}, [])


def test_what_needs_a_person(daemon):
    night = example1()
    daemon.land(*night[10:], *night[:10])
    daemon.ledger.write(lambda tx: files.gone(tx, night[3].path, daemon.setting))
    daemon.ledger.write(
        lambda tx: files.seen(tx, "/drop/closed.fits", "cannot be read now: Permission denied")
    )
    damaged = frame("science", 290, 9000)
    daemon.land(replace(damaged, state="quarantined", reason="cut off"))
    short = replace(damaged, path="/drop/N20160102S0291.fits", file_sha="", data_sha="", descriptors=None)
    daemon.land(replace(short, state="incomplete", reason="HDU 1 is cut short"))
    daemon.run(300)
    since = 1.6e9 + daemon.now - 86400
    told = {need["check"]: need["text"] for need in daemon.ask(questions.for_a_person, since, since)}
    assert "nirid reject N20160102S0273.fits --reason gone" in told["lost file"]
    assert told["unread"] == "1 files cannot be read now: Permission denied, as /drop/closed.fits"
    assert "not whole" not in told  # it may grow yet
    later = {n["check"]: n["text"] for n in daemon.ask(questions.for_a_person, since, since + 86400 + 1e9)}
    assert later["not whole"] == "N20160102S0291.fits: HDU 1 is cut short, and it does not grow"
    assert told["damaged"] == "a file is damaged, as N20160102S0290.fits (nirid ledger --state quarantined)"
    assert "damaged" not in {n["check"] for n in daemon.ask(questions.for_a_person, since + 2e5, since)}


@pytest.fixture
def command(daemon, tmp_path):
    """A command beside that daemon."""
    return partial(CliRunner().invoke, obj=Settings(tmp_path))


def test_the_answer_in_json_keeps_what_it_had_and_fits_80_columns(daemon, command):
    daemon.land(*example1())
    daemon.run(600)
    told = json.loads(command(status.status, ["--json"]).output)
    before = {
        "daemon",
        "paused",
        "missing",
        "requests",
        "outdated",
        "counts",
        "running",
        "waiting",
        "planned",
    }
    assert told.keys() >= before | {"failed", "groups", "now", "waits", "refused"}
    assert len(told["sequences"]) == 6
    text = command(status.status, [], env={"COLUMNS": "80"}).output
    assert "N20160102S0271_image" in text
    wide = [line for line in text.splitlines() if len(line) > 80 and str(daemon.folder) not in line]
    assert wide == []


def test_requests_lists_those_that_wait_and_those_refused_and_takes_one_back(daemon, command):
    state = daemon.folder
    daemon.requests.state = state
    daemon.land(*example1()[:10])
    daemon.run(10)
    requests.submit(state, {"action": "reject", "target": "nothing.fits", "said": "it", "reason": "x"})
    daemon.run(10)
    name = requests.submit(state, {"action": "reject", "said": FIFTH, "target": FIFTH, "reason": "trailed"})
    with_json = json.loads(command(decide.list_requests, ["--json", "--days", "9999"]).output)
    assert [row["request"] for row in with_json["waiting"]] == [name]
    assert "reject N20160102S0274.fits (trailed)" in with_json["waiting"][0]["what"]
    assert "nothing.fits" in with_json["refused"][0]["reason"]
    said = command(decide.list_requests, ["--days", "9999"]).output.splitlines()
    assert [line.split()[0] for line in said] == ["waits", "refused"]
    assert name in said[0]
    assert command(decide.list_requests, ["--cancel", name]).output.startswith(f"{name} is taken back\n")
    assert json.loads(command(decide.list_requests, ["--json"]).output)["waiting"] == []
    daemon.run(10)
    assert daemon.rows("SELECT * FROM decision") == [], "what was taken back is not done"
    again = command(decide.list_requests, ["--cancel", name])
    assert again.exit_code != 0
