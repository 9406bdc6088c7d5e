"""People decide: reject, accept, requeue, as files that the main loop applies."""

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from daemon.ledger import contents, decisions, questions
from daemon.people import requests
from daemon.people.requests import DECISIONS
from daemon.work import moving
from tests.night import FINAL, FakeEngine, example1, frame, static_bpm

DARK, SCIENCE = "N20160102S0423_dark", "N20160102S0271_image"


@pytest.fixture
def daemons(apart):
    return apart


@pytest.fixture
def night(daemons):
    daemon = daemons()
    daemon.land(*example1(), static_bpm())
    daemon.until_idle()
    assert set(daemon.current()) == FINAL
    daemon.engine.ran.clear()
    return daemon


def inputs(daemon, name):
    return json.loads(daemon.current()[name])["inputs"]


def states(daemon):
    rows = daemon.ask(lambda db: list(contents.everything(db)))
    return {Path(path).name: (row["state"], row["reason"]) for row in rows for path in row["paths"]}


def events(daemon, name):
    return [fields for event, fields in daemon.events if event == name]


def test_a_rejected_frame_is_excluded_and_what_used_it_is_made_again(night):
    night.decide("reject", "N20160102S0425.fits", reason="trailed")
    night.run(600)
    assert states(night)["N20160102S0425.fits"][0] == "excluded"
    assert states(night)["N20160102S0425.fits"][1].endswith(": trailed")
    assert "N20160102S0425.fits" not in inputs(night, DARK)
    remade = sorted(spec.name for spec in night.engine.ran)
    assert remade == sorted([DARK, SCIENCE])  # the standard has no dark
    assert not requests.waiting(night.folder / "state")
    (line,) = requests.written(night.products)
    assert (line["action"], line["reason"]) == ("reject", "trailed")
    assert line["user"] == requests._name(os.getuid())
    (event,) = events(night, "decision")
    assert event["user"] == line["user"]
    assert "made again" in event["outcome"]


def test_accepting_it_brings_back_what_was_made_before(night):
    before = night.current()
    night.decide("reject", "N20160102S0425", reason="trailed")
    night.run(600)
    assert night.current() != before
    night.engine.ran.clear()
    night.decide("accept", "N20160102S0425")
    night.run(600)
    assert states(night)["N20160102S0425.fits"][0] == "ready"
    assert night.current() == before
    assert night.engine.ran == []  # the same key never runs twice
    assert night.rows("SELECT MAX(runs) AS n FROM accounting") == [{"n": 1}]


def test_a_rejection_is_of_the_pixels_whatever_else_the_header_says_later(night):
    night.decide("reject", "N20160102S0425.fits", reason="trailed")
    night.run(600)
    night.engine.ran.clear()
    (raw,) = [f for f in example1() if f.path.endswith("S0425.fits")]
    night.land(replace(raw, file_sha="e" * 64, path="/drop/edited/N20160102S0425.fits"))
    night.run(600)
    assert {s for n, (s, _) in states(night).items() if "S0425" in n} == {"excluded"}
    assert night.engine.ran == []


def test_a_rejected_calibration_is_withdrawn_and_another_taken(night):
    nearby = [frame("dark", n, 86400 + 30 * n, day="20160103") for n in range(1, 5)]
    night.land(*nearby)
    night.run(600)
    assert DARK in night.current()[SCIENCE]
    night.engine.ran.clear()
    night.decide("reject", DARK, reason="light leak")
    night.run(600)
    assert DARK not in night.current()
    assert "N20160103S0001_dark" in night.current()[SCIENCE]
    assert [spec.name for spec in night.engine.ran] == [SCIENCE]  # the dark is not made again
    kept = night.products / "20160102" / "superseded" / f"{DARK}.v0001"
    assert kept.with_name(f"{kept.name}.fits").exists()
    assert not (night.products / "20160102" / f"{DARK}.fits").exists()
    reason = next(g["reason"] for g in night.ask(questions.groups) if "light leak" in g["reason"])
    assert reason.startswith("rejected by ")
    night.decide("accept", DARK)
    night.run(600)
    assert DARK in night.current()[SCIENCE]
    assert night.rows("SELECT MAX(runs) AS n FROM accounting") == [{"n": 1}]


def test_a_rejected_product_comes_back_with_another_frame_or_on_demand(night):
    night.decide("reject", DARK, reason="light leak")
    night.run(600)
    night.decide("requeue", DARK)
    night.run(600)
    assert [spec.name for spec in night.engine.ran].count(DARK) == 1
    assert DARK in night.current()[SCIENCE]


def test_a_product_does_not_keep_a_rejected_frame_because_too_few_are_left(daemons):
    daemon = daemons()
    daemon.land(*(frame("dark", n, 30 * n) for n in (1, 2, 3)))
    daemon.run(600)
    daemon.decide("reject", "N20160102S0002", reason="trailed")
    daemon.run(600)
    assert inputs(daemon, "N20160102S0001_dark") == ["N20160102S0001.fits", "N20160102S0003.fits"]
    assert "fewer frames than wanted: 2 of 3" in daemon.current()["N20160102S0001_dark"]


def test_a_rejected_product_is_not_made_again_by_what_else_arrives(night):
    flat = "N20160102S0373_flat"
    night.decide("reject", flat, reason="lamp was warming up")
    night.run(600)
    night.engine.ran.clear()
    night.decide("reject", "N20160102S0373_bpm", reason="made of the same lamps")
    night.run(600)
    assert flat not in night.current()
    assert flat not in [spec.name for spec in night.engine.ran]
    night.decide("reject", DARK, reason="light leak")
    night.land(frame("dark", 433, 20300))
    night.run(600)
    assert DARK in night.current()  # other frames: another product
    night.decide("reject", "N20160102S0433", reason="came by mistake")
    night.run(600)
    (one,) = night.rows("SELECT current FROM product WHERE name = ? AND version = 1", DARK)
    assert not one["current"], "what was rejected has come back"


def test_a_crash_after_the_decision_was_written_finishes_it(night, monkeypatch):
    night.decide("reject", DARK, reason="light leak")

    def die(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(moving, "withdraw", die)
    with pytest.raises(KeyboardInterrupt):
        night.run()
    path = night.products / "20160102" / f"{DARK}.fits"
    assert path.exists()
    assert requests.waiting(night.folder / "state")
    monkeypatch.undo()
    night.run()
    assert not path.exists()
    assert not requests.waiting(night.folder / "state")
    assert len(requests.written(night.products)) == 1
    assert night.rows("SELECT COUNT(*) AS n FROM decision") == [{"n": 1}]


def test_a_calibration_from_outside_is_taken_out_and_back(night):
    name = "bpm_20010317_niri_niri_11_full_1amp.fits"
    night.decide("reject", name, reason="wrong array")
    night.run(600)
    assert states(night)[name][0] == "excluded"
    assert "static_bpm" not in night.current()[SCIENCE]
    night.engine.ran.clear()
    night.decide("accept", name)
    night.run(600)
    assert states(night)[name][0] == "calibration"
    assert "static_bpm" in night.current()[SCIENCE]


def test_a_qa_state_of_fail_can_be_overruled(daemons):
    daemon = daemons()
    darks = [frame("dark", n, 30 * n) for n in range(1, 5)]
    failed = replace(darks[3], state="excluded", reason="the QA state in the header is Fail")
    daemon.land(*darks[:3], failed)
    daemon.run(600)
    assert len(inputs(daemon, "N20160102S0001_dark")) == 3
    daemon.decide("accept", "N20160102S0004.fits")
    daemon.run(600)
    assert len(inputs(daemon, "N20160102S0001_dark")) == 4
    again = daemon.ledger.write(lambda tx: decisions.judged(tx, failed))  # as when the ledger is made anew
    assert again.state == "ready"
    other = replace(failed, file_sha="e" * 64)  # another header of that frame says Fail by itself
    assert daemon.ledger.write(lambda tx: decisions.judged(tx, other)).state == "excluded"


def test_requeue_makes_again_and_tries_again(daemons):
    daemon = daemons(engine=FakeEngine(endings={"N20160102S0011_dark": ["failed"]}))
    daemon.land(*(frame("dark", n, 30 * n) for n in (1, 2, 3)))
    daemon.land(*(frame("dark", n, 30 * n, exposure_time=31.0) for n in (11, 12, 13)))
    daemon.run(600)
    assert set(daemon.current()) == {"N20160102S0001_dark"}
    (failed,) = daemon.ask(questions.jobs, ["failed"])
    daemon.decide("requeue", f"job:{failed['id']}")
    daemon.decide("requeue", "N20160102S0001_dark")
    daemon.run(600)
    assert set(daemon.current()) == {"N20160102S0001_dark", "N20160102S0011_dark"}
    names = [spec.name for spec in daemon.engine.ran]
    assert names.count("N20160102S0001_dark") == 2
    assert daemon.rows("SELECT MAX(runs) AS n FROM accounting") == [{"n": 1}]  # another key each time


def test_requeue_outdated_takes_what_another_release_or_configuration_made(night):
    night.decide("requeue", outdated=True)
    night.run(600)
    assert night.engine.ran == []
    night.requests.overrides = night.main_loop.overrides = lambda recipe, descriptors: (
        {"stackDarks:operation": "median"} if recipe == "makeProcessedDark" else {}
    )
    night.run(600)
    assert night.engine.ran == []  # never by itself
    night.decide("requeue", outdated=True, night="20160103")
    night.run(600)
    assert night.engine.ran == []
    night.decide("requeue", outdated=True)
    night.run(600)
    assert sorted({spec.name for spec in night.engine.ran}) == sorted([DARK, SCIENCE])


def test_what_makes_no_sense_is_refused_and_told(night):
    state = night.folder / "state"
    place = requests.folder(state)
    night.decide("reject", "N20160102S0425.fits")  # no reason
    night.decide("reject", "N29990102S0425.fits", reason="typing mistake")
    night.decide("explode", DARK)
    (place / "a.json").write_text("{")
    (place / "b.json").write_text("[" * 100_000)
    (place / "c.json").symlink_to("/etc/hostname")
    (place / "d.json").mkdir()
    os.mkfifo(place / "e.json")
    os.link(place / "a.json", place / "f.json")
    before = night.current()
    night.run(60)
    assert len(events(night, "request_refused")) == 9
    assert requests.waiting(state) == []
    assert night.current() == before
    assert requests.written(night.products) == []
    said = " ".join(event["reason"] for event in events(night, "request_refused"))
    assert "a rejection needs a reason" in said
    assert "no file, product, group or job is called so" in said


def test_somebody_elses_file_cannot_be_linked_in(night, tmp_path):
    night.decide("reject", "N20160102S0425", reason="trailed")
    (path,) = requests.waiting(night.folder / "state")
    os.link(path, tmp_path / "somebody's")
    night.run(60)
    assert states(night)["N20160102S0425.fits"][0] == "ready"
    assert "not a small file of its own" in events(night, "request_refused")[0]["reason"]


def test_what_until_idle_finds_it_applies_too(daemons):
    daemon = daemons()
    daemon.land(*example1())
    daemon.decide("reject", "N20160102S0425.fits", reason="trailed")
    daemon.until_idle()
    assert "N20160102S0425.fits" not in inputs(daemon, DARK)
    assert [spec.name for spec in daemon.engine.ran].count(DARK) == 1


def test_a_torn_line_of_the_decisions_file_is_left_out(tmp_path):
    file = tmp_path / DECISIONS
    line = {"at": "2016-01-02T05:00:00+00:00", "request": "1", "subject": "content aa", "action": "reject"}
    requests.append(file, [json.dumps(line)])
    with file.open("a") as out:
        out.write('{"request": "2", "subj')
    requests.append(file, [json.dumps({**line, "request": "3"}), json.dumps(line)])
    assert [found["request"] for found in requests.written(tmp_path)] == ["1", "3"]


def test_a_frame_that_nobody_took_out_can_be_forced_in_against_the_pipeline(night):
    name = "N20160102S0273.fits"
    before, was = night.current()[SCIENCE], states(night)[name]

    def parameters():
        return [spec.parameters.get("judgeFrames:accept") for spec in night.engine.ran]

    night.decide("accept", name, reason="the cloud was thin")
    night.run(600)
    assert [spec.name for spec in night.engine.ran] == [SCIENCE]
    assert parameters() == [[name]]
    assert states(night)[name] == was, "the person's word is on the verdict, not on the file"
    with night.ledger.read() as db:
        subjects = [row["subject"] for row in db.execute("SELECT subject FROM decision")]
    assert [subject.partition(" ")[0] for subject in subjects] == ["judgement"]
    night.decide("accept", name, reason="once more")
    night.run(600)
    assert len(night.engine.ran) == 1, "said twice is said once"
    # Rejected it is out; taken back, it is judged by the pipeline as at first, and nothing is made again.
    night.decide("reject", name, reason="after all")
    night.run(600)
    assert parameters() == [[name], None]
    assert name not in inputs(night, SCIENCE)
    night.decide("accept", name)
    night.run(600)
    assert night.current()[SCIENCE] == before
    assert parameters() == [[name], None]
