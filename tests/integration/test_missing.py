"""A night whose darks are missing, late, and of the wrong kind, as log and command tell it."""

import json
from datetime import UTC, datetime
from io import StringIO

import pytest
from click.testing import CliRunner
from rich.console import Console

from daemon.cli import missing as command
from daemon.cli.missing import lines
from daemon.people import missing
from tests.integration.test_tonight import Settings
from tests.night import NIGHT, frame


@pytest.fixture
def daemon(daemons):
    """Its clock is that of the night: `at` moves it, in seconds from 05:00 UT."""
    made = daemons()
    made.begin = made.now
    made.main_loop.watch = missing.Watch(
        made.ledger, made.setting.rules, lambda: NIGHT.timestamp() + made.now - made.begin
    )
    return made


def at(daemon, seconds):
    daemon.now = daemon.begin + seconds
    daemon.run(0)


def told(daemon, what="dark"):
    """(state, before) of each event, of needs that have this in their words."""
    found = [f for event, f in daemon.events if event == "calibration_need" and what in f["what"]]
    return [(f["state"], f["before"]) for f in found]


def dark(daemon, night="20160102"):
    answer = ask(daemon, night)
    return next(need for need in answer["needs"] if need["kind"] == "dark")


def ask(daemon, night="20160102"):
    now = datetime.fromtimestamp(daemon.main_loop.watch.clock(), UTC)
    return daemon.ask(missing.answer, daemon.setting.rules, night, now)


def darks(first, count, seconds, **more):
    return [frame("dark", n, seconds + 30 * (n - first), **more) for n in range(first, first + count)]


def test_a_dark_set_that_is_missing_then_late_then_wrong_then_right(daemon):
    at(daemon, 0)
    assert told(daemon) == []
    daemon.land(frame("science", 270, 0))
    at(daemon, 1)  # a second later
    assert told(daemon) == [("wanted", "")]
    assert (ask(daemon)["phase"], dark(daemon)["state"]) == ("night", "wanted")
    for n in range(271, 280):
        daemon.land(frame("science", n, 30 * (n - 270)))
        at(daemon, 30 * (n - 270) + 1)
    assert told(daemon) == [("wanted", "")]  # more of the same is no change
    assert dark(daemon)["frames"] == 10

    morning = 13.5 * 3600
    daemon.land(*darks(400, 10, morning, coadds=1))
    at(daemon, morning + 300)
    assert ask(daemon)["phase"] == "morning"
    assert told(daemon) == [("wanted", "")]  # of one coadd: not the right set

    daemon.land(*darks(423, 4, morning + 1000))
    at(daemon, morning + 1100)
    assert told(daemon)[1:] == [("being taken", "wanted")]
    assert dark(daemon)["taken"] == "4 of 10"
    daemon.land(*darks(427, 6, morning + 1120))
    at(daemon, morning + 1300)
    assert told(daemon)[2:] == [("there", "being taken")]
    assert ask(daemon)["missing"] == 2  # flats and a standard


def test_after_a_restart_only_what_has_changed_is_told(daemon):
    """Also what ended while no daemon was there."""
    daemon.land(frame("science", 270, 0), *darks(423, 4, 600))
    at(daemon, 730)
    before = len(told(daemon, ""))
    assert told(daemon)[-1] == ("being taken", "")
    begin_anew(daemon)
    at(daemon, 731)
    assert len(told(daemon, "")) == before
    daemon.land(*darks(427, 6, 720))
    at(daemon, 901)
    assert told(daemon)[-1] == ("there", "being taken")
    begin_anew(daemon)
    at(daemon, 20 * 3600)
    assert len(told(daemon)) == 2
    assert told(daemon, "flats")[-1] == ("missing", "wanted")
    begin_anew(daemon)
    at(daemon, 21 * 3600)
    assert len(told(daemon, "flats")) == 2


def begin_anew(daemon):
    was = daemon.main_loop.watch
    daemon.main_loop.watch = missing.Watch(was.ledger, was.rules, was.clock)


def test_what_is_told_is_found_by_index_among_all_that_has_happened(daemon):
    asked = "SELECT fields FROM event WHERE event = 'calibration_need' ORDER BY at DESC, id DESC"
    plan = daemon.rows(f"EXPLAIN QUERY PLAN {asked}")
    assert [row["detail"] for row in plan] == ["SCAN event USING INDEX event_of_need"]


def test_what_did_not_come_is_missing_when_the_date_turns(daemon):
    daemon.land(*(frame("science", n, 30 * (n - 270)) for n in range(270, 274)))
    at(daemon, 200)
    at(daemon, 19 * 3600 - 1)
    assert told(daemon) == [("wanted", "")]
    at(daemon, 19 * 3600 + 1)
    assert told(daemon) == [("wanted", ""), ("missing", "wanted")]
    assert ask(daemon)["phase"] == "finished"
    at(daemon, 30 * 3600)
    assert told(daemon) == [("wanted", ""), ("missing", "wanted")]


def test_an_archive_says_nothing(daemon):
    daemon.land(*(frame("science", n, -30 * 86400 + 30 * (n - 270), day="20151203") for n in range(270, 274)))
    at(daemon, 1)
    assert told(daemon, "") == []
    assert dark(daemon, "20151203")["state"] == "missing"


def test_the_science_rejected_nothing_is_wanted_any_more(daemon):
    daemon.land(frame("science", 270, 0))
    at(daemon, 1)
    daemon.decide("reject", "N20160102S0270.fits", reason="trailed")
    at(daemon, 2)
    assert told(daemon) == [("wanted", ""), ("not wanted any more", "wanted")]


def test_a_master_of_another_night_is_the_best_that_is_known(daemon):
    daemon.land(*darks(100, 10, -23 * 86400, day="20151210"))
    at(daemon, 0)
    daemon.run(4000, step=100)
    assert daemon.current()
    daemon.land(frame("science", 270, 0))
    at(daemon, 5000)
    assert dark(daemon)["have"] == "0 tonight; best known: 23 days away, level 2, usable"
    at(daemon, 20 * 3600)
    assert dark(daemon)["state"] == "stale"


def test_a_master_of_too_few_darks_of_tonight_is_no_better_known_one(daemon):
    daemon.land(*(frame("science", n, 30 * (n - 270)) for n in range(270, 274)), *darks(423, 2, 600))
    at(daemon, 0)
    daemon.run(13 * 3600, step=600)
    assert [name for name in daemon.current() if name.endswith("_dark")]  # after twelve hours, with a note
    assert (dark(daemon)["state"], dark(daemon)["have"]) == ("wanted", "2 tonight; no other is known")


def test_the_last_flat_of_a_kind_is_remembered(daemon):
    setup = {"filter_name": "PaGamma_G0234"}
    lamp = {**setup, "exposure_time": 3.001, "coadds": 1}
    daemon.land(*(frame("lampon", n, -86400 * 9 + 60 * n, day="20151224", **lamp) for n in range(3)))
    daemon.land(frame("science", 270, 0, **setup))
    at(daemon, 1)
    (how,) = [need["how"] for need in ask(daemon)["needs"] if need["kind"] == "flat"]
    assert how.endswith("as the last flat of this kind (IR grey body high, ND2.0, 3 s, 10 open + 10 closed)")


@pytest.mark.parametrize("hours", [1, 14, 40])
def test_what_people_read_fits_80_columns(daemon, hours):
    daemon.land(frame("science", 270, 0), frame("science", 300, 60, filter_name="Lprime_G0207"))
    daemon.land(frame("standard", 290, 600, exposure_time=3.0, coadds=1), *darks(423, 2, 3500))
    at(daemon, hours * 3600)
    out = Console(width=80, file=StringIO(), record=True)
    for line in lines(ask(daemon)):
        out.print(line, width=80)
    text = out.export_text()
    assert max(len(line.rstrip()) for line in text.splitlines()) <= 80
    assert "10 darks, 10.001 s x 2, low background, shallow, 1024 x 1024" in text
    assert ("missing" if hours == 40 else "wanted") in text
    assert "not needed: flats f/6 L(prime)" in text


class Explained:
    """A reader that notes by which index each statement looks first."""

    def __init__(self, db):
        self.db, self.first = db, []

    def execute(self, sql, values=()):
        self.first.append(tuple(self.db.execute(f"EXPLAIN QUERY PLAN {sql}", values).fetchone())[3])
        return self.db.execute(sql, values)


def test_what_it_costs_does_not_grow_with_old_files(daemon):
    """Each statement begins with what is the night's, or the setting's, by index."""
    daemon.land(frame("science", 270, 0, filter_name="PaGamma_G0234"))
    with daemon.ledger.read() as db:
        asked = Explained(db)
        missing.answer(asked, daemon.setting.rules, "20160102", NIGHT)
    assert [text.split("(")[0].split()[-1] for text in asked.first] == [
        "frame_ut",
        "KEY",  # of the frames that were found
        "calibration_key_ut",
        "calibration_key_ut",
        "frame_group_offers_first_ut",
    ]


def test_an_empty_ledger_has_a_night_without_needs(daemon):
    answer = ask(daemon, None)
    assert (answer["night"], answer["needs"], answer["missing"]) == ("20160102", [], 0)
    assert [str(line) for line in lines(answer)][-1] == "no science or standard frames: nothing is needed"


def test_the_command_answers_people_and_machines(daemon, tmp_path):
    daemon.land(frame("science", 270, 0))
    at(daemon, 1)

    def nirid_missing(*words):
        return (
            CliRunner().invoke(command.missing, words, obj=Settings(tmp_path), catch_exceptions=False).output
        )

    text = nirid_missing()
    assert text.startswith("night 20160102\nfinished, the observing day ended at 00:00 UT (14:00 HST)\n")
    assert "3 not there yet" in text
    answer = json.loads(nirid_missing("--json", "--night", "2016-01-02"))
    assert (answer["night"], answer["phase"], answer["missing"]) == ("20160102", "finished", 3)
    assert {need["kind"]: need["state"] for need in answer["needs"]} == dict.fromkeys(
        ("dark", "flat", "standard"), "missing"
    )
    assert answer["needs"][0]["for"] == [
        {
            "program": "GN-2015B-Q-1",
            "filter": "K(prime)",
            "frames": 1,
            "since": "2016-01-02T05:00:00+00:00",
            "role": "science",
        }
    ]
    assert json.loads(nirid_missing("--json", "--night", "20200101"))["needs"] == []
