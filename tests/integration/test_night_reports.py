"""The reports that the calendar makes: when, of which nights, and what they never touch."""

import json
import os
from datetime import UTC, datetime

import pytest

from daemon.config.options import Config, Products, State
from daemon.judgement import sun
from daemon.ledger import nightly
from daemon.upkeep import audit, reports, retention
from daemon.upkeep.reports import Reports
from daemon.work import losses
from pipeline.files import outputs
from tests.night import NIGHT, example1, frame
from tests.unit.service.test_markup import parsed

DAY = 86400.0
SUNRISE = sun.sunrise("20160102").timestamp()


class Calendar:
    """A daemon whose ledger and reports go by one clock: `at`, seconds since the epoch."""

    def __init__(self, daemon):
        self.daemon, self.said = daemon, []
        self.move(NIGHT.timestamp())
        config = Config(
            state=State(str(daemon.folder)), products=Products(str(daemon.products)), base=str(daemon.folder)
        )
        daemon.products.mkdir(exist_ok=True)
        self.reports = Reports(config, daemon.setting, lambda: 1.6e9 + daemon.now)

    def move(self, at):
        self.daemon.now = at - 1.6e9

    def look(self, at=None):
        if at is not None:
            self.move(at)
        return self.reports.look()

    def kept(self):
        return sorted(path.name for path in (self.daemon.products / "reports").glob("*"))


@pytest.fixture
def calendar(daemons):
    made = Calendar(daemons())
    made.daemon.land(*example1())
    made.daemon.until_idle()
    return made


@pytest.fixture
def log(monkeypatch):
    """What is logged: (level, event, fields)."""
    said = []

    class Log:
        def __getattr__(self, level):
            return lambda event, **fields: said.append((level, event, fields))

    monkeypatch.setattr(reports.logs, "get", Log)
    return said


def test_sunrise_is_that_of_the_almanac():
    """Hilo, 40 km from there, on 2 January 2016: 06:53 HST; on 21 June: 05:42."""
    for night, hour, minute in (("20160102", 16, 53), ("20160621", 15, 42)):
        told = datetime.strptime(f"{night} {hour}:{minute} +0000", "%Y%m%d %H:%M %z")
        assert abs((sun.sunrise(night) - told).total_seconds()) < 300
        assert sun.dawn(night) < sun.sunrise(night)


def test_it_is_made_once_after_sunrise(calendar):
    assert "20160102" not in calendar.look(SUNRISE - 60)
    assert calendar.look(SUNRISE + 60) == ["20160102"]
    assert calendar.look(SUNRISE + 660) == []
    data = json.loads((calendar.daemon.products / "reports/20160102.json").read_text())
    assert (data["frames"], data["night"]) == (45, "20160102")
    page = (calendar.daemon.products / "reports/20160102.html").read_text()
    assert "N20160102S0271_image" in parsed(page).data


def test_the_last_night_has_one_even_without_a_frame(calendar):
    assert calendar.look(SUNRISE - 60) == ["20160101"]
    assert "no frames were taken" in (calendar.daemon.products / "reports/20160101.html").read_text()
    calendar.look(SUNRISE + 60)
    assert calendar.look(SUNRISE + DAY + 120) == ["20160103"]
    assert calendar.look(SUNRISE + 2 * DAY + 240) == ["20160104"]


def test_what_changes_in_the_morning_is_in_it(calendar):
    calendar.look(SUNRISE + 60)
    calendar.move(SUNRISE + 3600)
    calendar.daemon.decide("reject", "N20160102S0271_image", reason="wrong field")
    calendar.daemon.run()
    assert calendar.look() == ["20160102"]
    assert "rejected by" in (calendar.daemon.products / "reports/20160102.html").read_text()
    assert calendar.look(SUNRISE + 4200) == []
    calendar.daemon.land(frame("science", 999, 600))
    assert calendar.look(SUNRISE + 5000) == ["20160102"]


def test_a_night_that_lands_years_later_has_its_own(calendar):
    calendar.look(SUNRISE + 60)
    calendar.move(SUNRISE + 400 * DAY)
    calendar.daemon.land(frame("dark", 7, -300 * DAY, day="20150308"))
    assert "20150308" in calendar.look(SUNRISE + 400 * DAY + 10)


def test_after_a_restart_only_what_has_no_report_or_changed_is_made(calendar):
    calendar.look(SUNRISE + 60)
    again = Calendar(calendar.daemon)
    assert again.look(SUNRISE + 700) == []
    os.unlink(calendar.daemon.products / "reports/20160102.html")
    assert Calendar(calendar.daemon).look(SUNRISE + 800) == ["20160102"]


def test_reduction_goes_first(calendar):
    """While a job runs one report is made at a time, the latest first; else all of them."""
    for days in range(1, 6):
        calendar.daemon.land(frame("dark", days, -DAY * 10 * days, day="20151201"))
    job = calendar.daemon.rows("SELECT id FROM job LIMIT 1")[0]["id"]
    calendar.daemon.ledger.write(lambda tx: tx.run("UPDATE job SET state = 'running' WHERE id = ?", job))
    assert calendar.look(SUNRISE + 60) == ["20160102"]
    assert len(calendar.look(SUNRISE + 660)) == 1
    calendar.daemon.ledger.write(lambda tx: tx.run("UPDATE job SET state = 'done' WHERE id = ?", job))
    assert len(calendar.look(SUNRISE + 1260)) >= 4
    assert calendar.look(SUNRISE + 1860) == []


def test_what_cannot_be_written_is_told_once_and_tried_again(calendar, log, monkeypatch):
    def full(*args, **more):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(reports.disk, "replacing", full)
        assert calendar.look(SUNRISE + 60) == []
        assert calendar.look(SUNRISE + 660) == []
    assert [(level, event) for level, event, _ in log] == [("warning", "report_delayed")]
    assert calendar.look(SUNRISE + 1260) == ["20160102", "20160101"]
    assert log[-1][1] == "report_made"


def test_one_night_that_goes_wrong_does_not_hold_up_the_others(calendar, log, monkeypatch):
    calendar.daemon.land(frame("dark", 7, -DAY * 30, day="20151203"))
    right = reports.build

    def build(db, config, setting, night, now):
        if night == "20160102":
            raise ZeroDivisionError("of a night")
        return right(db, config, setting, night, now)

    monkeypatch.setattr(reports, "build", build)
    assert "20151203" in calendar.look(SUNRISE + 60)
    assert [event for _, event, _ in log].count("report_delayed") == 1
    monkeypatch.setattr(reports, "build", right)
    assert calendar.look(SUNRISE + 660) == ["20160102"]


def test_a_file_of_a_person_stays(calendar, log):
    mine = calendar.daemon.products / "reports" / "20160102.json"
    mine.parent.mkdir()
    mine.write_text("my notes")
    assert calendar.look(SUNRISE + 60) == ["20160101"]
    assert mine.read_text() == "my notes"
    assert "20160102.html" not in calendar.kept()
    assert "nirid did not make it" in log[0][2]["error"]
    with pytest.raises(outputs.WouldOverwrite):
        outputs.check(mine, "report")


def test_nothing_of_the_house_stumbles_over_them(calendar):
    """The audit is clean, retention leaves them, a folder of reports is no night: with nothing else the disk
    counts as not mounted, and no report is made either."""
    daemon = calendar.daemon
    calendar.look(SUNRISE + 60)
    kept = calendar.kept()
    assert "20160102.html" in kept
    assert daemon.ask(audit.audit, [], daemon.products)["unaccounted"] == []
    retention.prune(daemon.ledger, calendar.reports.config.retention)
    assert calendar.kept() == kept
    product = daemon.rows("SELECT path, sha256 FROM product WHERE current LIMIT 1")[0]
    (daemon.products / "20160102").rename(daemon.folder / "away")
    with pytest.raises(FileNotFoundError, match="is the disk mounted"):
        losses.harm(daemon.products / "20160102" / os.fsdecode(product["path"]).rpartition("/")[2], "")
    assert calendar.look(SUNRISE + DAY + 60) == []
    assert calendar.kept() == kept


def test_frames_with_a_wrong_clock_make_no_report_and_no_harm(calendar):
    calendar.daemon.land(frame("dark", 8, -DAY * 365 * 80), frame("dark", 9, DAY * 365 * 90))
    assert calendar.look(SUNRISE + 60) == ["20160102", "20160101"]


def test_changes_are_of_the_night_of_their_frames(calendar):
    assert set(calendar.daemon.ask(nightly.changed, 0.0)) == {
        "20160102",
        "20160103",
    }  # darks of the next UT day
    assert calendar.daemon.ask(nightly.changed, NIGHT.timestamp() + DAY) == {}
    assert datetime.fromtimestamp(SUNRISE, UTC).hour == 16


@pytest.mark.parametrize("wrong", ["a file", "a loop"])
def test_what_changed_while_the_folder_was_not_to_be_had_is_not_forgotten(calendar, log, wrong):
    """The changes are asked for once: what is found then stays due."""
    folder = calendar.daemon.products / "reports"
    folder.symlink_to(folder) if wrong == "a loop" else folder.write_text("in the way")
    assert calendar.look(SUNRISE + DAY * 5) == []
    assert calendar.look(SUNRISE + DAY * 5 + 600) == []
    assert [event for _, event, _ in log] == ["report_delayed"]
    folder.unlink()
    assert {"20160102", "20160107"} <= set(calendar.look(SUNRISE + DAY * 5 + 1200))


def test_a_clock_that_was_ahead_hides_no_later_change(calendar):
    """Its reports and its changes are of a time that has not come: what changes after is in a report, too."""
    calendar.look(SUNRISE + 60)
    calendar.move(SUNRISE + 400 * DAY)
    calendar.daemon.land(frame("science", 998, 500))
    assert "20160102" in calendar.look(SUNRISE + 400 * DAY + 10)
    calendar.move(SUNRISE + 3600)
    calendar.daemon.land(frame("science", 999, 600))
    assert "20160102" in calendar.look(SUNRISE + 3700)
    data = json.loads((calendar.daemon.products / "reports/20160102.json").read_text())
    assert data["frames"] == 47
    calendar.move(SUNRISE + 7200)
    calendar.daemon.land(frame("science", 997, 700))
    assert "20160102" in Calendar(calendar.daemon).look(SUNRISE + 7300)
    calendar.look(SUNRISE + 7900)
    assert calendar.look(SUNRISE + 8500) == []


def test_nights_that_go_wrong_come_after_those_that_may_not(calendar, monkeypatch):
    """However many they are: one at a time is tried while jobs run."""
    calendar.look(SUNRISE + 60)
    right = reports.build

    def build(db, config, setting, night, now):
        if night >= "20160103":
            raise ZeroDivisionError("of a night")
        return right(db, config, setting, night, now)

    monkeypatch.setattr(reports, "build", build)
    monkeypatch.setattr(reports, "AT_ONCE", 1)
    calendar.look(SUNRISE + DAY + 60)
    calendar.daemon.land(frame("dark", 7, -DAY * 30, day="20151203"))
    assert "20151203" in [*calendar.look(SUNRISE + DAY + 660), *calendar.look(SUNRISE + DAY + 1260)]


def test_a_report_is_of_a_time_before_what_may_not_be_written_down_yet(calendar):
    calendar.look(SUNRISE + 60)
    page = calendar.daemon.products / "reports/20160102.html"
    assert page.stat().st_mtime == pytest.approx(SUNRISE + 60 - reports.UNSEEN, abs=0.01)
