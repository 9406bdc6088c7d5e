"""Each rule of the alerts: it comes when it must, goes when it must, and is not there on a clean night."""

import os
import time
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from daemon import instance
from daemon.config.options import Alerting, ConditionsRequest, Config, Products, State, Watch
from daemon.judgement import pace
from daemon.ledger import measures
from daemon.model.measures import Measure
from daemon.people import board
from daemon.upkeep import health
from daemon.web import alerts
from daemon.web.bell import Bell
from daemon.web.source import HOLD, Source
from tests.integration.test_web import Engine
from tests.night import NIGHT, example1, frame, static_bpm


class Measuring(Engine):
    """Darks have read noises; those of `loud` cannot be."""

    loud = ()

    def stage(self, spec):
        result = super().stage(spec)
        if spec.recipe == "makeProcessedDark":
            noise = 90.0 if spec.name in self.loud else 17.4
            result["quality"] = {"measures": {"read_noise": (noise, 0.01, "electron")}}
        return result


class Place:
    """A daemon that runs, and what the page sees of it, by a clock that the test moves."""

    def __init__(self, daemon, **more):
        folder = daemon.folder
        (folder / "drop").mkdir(exist_ok=True)
        daemon.products.mkdir(exist_ok=True)
        self.daemon, self.now = daemon, time.time()
        self.config = Config(
            state=State(str(daemon.ledger.path.parent)),
            products=Products(str(daemon.products)),
            watch=Watch(folders=(str(folder / "drop"),)),
            base=str(folder),
            **more,
        )
        self.source = Source(self.config, clock=lambda: self.now)
        self.beat()

    def beat(self, late=0.0):
        note = self.config.state_folder / instance.NOTE
        os.utime(note, (self.now - late, self.now - late))

    def told(self, seconds=10.0, late=0.0):
        """What the page tells, some time later: {its first word: alert}."""
        self.now += seconds
        self.beat(late)
        self.source.look()
        self.source.check()
        self.source._old = True
        return {alert.key.partition(":")[0]: alert for alert in self.source.look().alerts}


@pytest.fixture
def place(daemons):
    daemon = daemons(engine=Measuring(), looks=True)
    config = Config(state=State(str(daemon.ledger.path.parent)), base=str(daemon.folder))
    with instance.only_one(config):
        instance.tell(config, ready=True)
        yield Place(daemon)


def landed(place, **endings):
    place.daemon.engine.endings = {name: [how] * 20 for name, how in endings.items()}
    place.daemon.land(*example1(), static_bpm())
    place.daemon.run(600)


def test_a_clean_night_has_none(place):
    landed(place)
    assert place.told() == {}
    assert place.told(60) == {}


def test_every_alert_says_why_and_what_to_do(place):
    place.daemon.engine.loud = ("N20160102S0423_dark",)
    landed(place, N20160102S0296_image="failed")
    place.config.drop_folders[0].rmdir()
    found = place.told(late=100)
    assert len(found) >= 4
    for alert in found.values():
        assert alert.what
        assert alert.why
        assert alert.do


def test_drop_folder(place):
    folder = place.config.drop_folders[0]
    folder.rmdir()
    assert "is missing" in place.told()["drop folder"].why
    folder.mkdir()
    assert place.told(HOLD + 1) == {}


def test_heart(place):
    assert place.told(late=alerts.SILENT - 1) == {}
    assert "has not moved" in place.told(late=alerts.SILENT + 5)["daemon"].why
    assert place.told(HOLD + 1) == {}


def test_disk_on_which_work_is_paused(place):
    instance.tell(place.config, ready=True, paused="0.3 GB free for products, 2 GB wanted")
    assert "0.3 GB free" in place.told()["disk"].why
    instance.tell(place.config, ready=True)
    assert place.told(HOLD + 1) == {}


def test_disk_that_is_nearly_full(place, monkeypatch):
    low = place.config.disk.low_water_mb * 1e6
    free = {"products": 10 * low, "state": 10 * low}
    monkeypatch.setattr(health, "room", lambda config: free)
    assert place.told() == {}
    free["products"] = 1.9 * low
    assert "work pauses below" in place.told()["nearly full"].why
    free["products"] = 2.1 * low  # a little above the limit is not well above it
    assert "nearly full" in place.told(HOLD + 1)
    free["products"] = 2.6 * low
    place.told(1)
    assert place.told(HOLD + 1) == {}


def test_what_comes_and_goes_is_one_alert(place):
    """Around its limit, as a folder that answers now and then: it stays, and the bell rings once."""
    folder, bell = place.config.drop_folders[0], Bell(Alerting(command=("true",)))
    seen = []
    for n in range(8):
        if n % 2:
            folder.mkdir()
        else:
            folder.rmdir()
        found = place.told(5)
        bell.hear(found.values())
        seen.append(set(found))
    assert seen == [{"drop folder"}] * 8
    assert len(bell._waiting) == 1


def test_master_held(place):
    place.daemon.engine.loud = ("N20160102S0423_dark",)
    landed(place)
    held = place.told()["held"]
    assert (held.target, held.decide) == ("N20160102S0423_dark", True)
    assert "read noise" in held.why
    place.daemon.decide("accept", "N20160102S0423_dark")
    place.daemon.run(600)
    assert place.told() == {}


def test_job_failed(place):
    landed(place, N20160102S0296_image="failed")
    failed = place.told()["failed"]
    assert "N20160102S0296_image has failed" in failed.what
    place.daemon.engine.endings = {}
    place.daemon.decide("requeue", failed.target, reason="again")
    place.daemon.run(600)
    assert place.told() == {}


def test_file_quarantined(place):
    place.now = 1.6e9 + place.daemon.now + 100
    bad = replace(
        frame("dark", 900, 50000), state="quarantined", reason="it ends too early", descriptors=None
    )
    place.daemon.land(bad)
    assert "damaged" in place.told()
    assert place.told(alerts.LATELY + HOLD) == {}


# -- rules about the night that goes on ----------------------------------------------------------


def night_of(place, now, requests=()):
    """The night as the page has it at a time. now : seconds since the epoch"""
    config = replace(place.config, request=requests)
    with place.daemon.ledger.read() as db:
        return board.board(db, place.source.setting, config, now)


def test_out_of_specification(place):
    place.daemon.land(*[frame("science", 270 + n, 30 * n, airmass=1.0) for n in range(6)])
    place.daemon.run(100)

    def measured(tx):
        for row in tx.rows("SELECT id, ut FROM frame"):
            seen = [Measure("fwhm", 0.9, 0.01, "arcsec"), Measure("stars", 12)]
            measures.record(tx, "frame", row["id"], row["ut"], "f6 K(prime)", seen)

    place.daemon.ledger.write(measured)
    now = NIGHT.timestamp() + 3600
    asked = ConditionsRequest("GN-*", iq_arcsec=0.5)
    (alert,) = [a for a in alerts.of_night(night_of(place, now, (asked,))) if a.key.startswith("out of spec")]
    assert alert.since is not None
    assert "0.90" in alert.why
    content = replace(asked, iq_arcsec=1.5)
    assert not [a for a in alerts.of_night(night_of(place, now, (content,))) if "spec" in a.key]
    assert not list(alerts.of_night(night_of(place, now + 5 * 86400, (asked,))))  # it is not tonight any more


def test_calibration_missing_when_the_night_is_over(place):
    """From dawn to the end of the day, while they can still be taken."""
    place.daemon.land(*[frame("science", 270 + n, 30 * n) for n in range(5)])
    place.daemon.run(100)
    dawn = datetime(2016, 1, 2, 18, tzinfo=UTC).timestamp()
    found = [a for a in alerts.of_night(night_of(place, dawn)) if a.key.startswith("missing")]
    assert len(found) == 2  # the dark and the flat
    assert all("10" in alert.what and alert.do for alert in found)
    assert not list(alerts.of_night(night_of(place, NIGHT.timestamp() + 1000)))
    place.daemon.land(*[frame("dark", 400 + n, 40000 + 30 * n) for n in range(10)])
    place.daemon.run(100)
    left = [a for a in alerts.of_night(night_of(place, dawn)) if a.key.startswith("missing")]
    assert len(left) == 1
    assert "flat" in left[0].what


def paced(place, count=5, every=40.0):
    """The night of a sequence whose frames have landed at their pace, the last of them just now."""
    place.daemon.land(*[frame("science", 270 + n, every * n) for n in range(count)])
    last = NIGHT.timestamp() + every * (count - 1)
    night = night_of(place, last + 25)
    for n, row in enumerate(night["frames"]):
        row["came"] = last + 25 - every * n
    assert night["sequence"]["state"] == "open"
    return night, last + 25


def no_frame(night, now, before=()):
    found = list(alerts.of_pace(night, 10.0, before, now))
    return found[0] if found else None


def test_no_frame_while_the_sequence_is_open(place):
    night, last = paced(place)
    assert no_frame(night, last + 115) is None
    alert = no_frame(night, last + 125 + 20)
    assert alert is not None
    assert (alert.since, alert.target) == (last, f"group:{night['sequence']['group']}")
    assert "40 s" in alert.why
    # The sequence closes a little later: who has been told is not untold at once.
    night["sequence"]["state"] = "done"
    assert no_frame(night, last + 200) is None
    assert no_frame(night, last + 200, {alert.key}) is not None
    assert no_frame(night, last + pace.OVER + 1, {alert.key}) is None
    # A frame comes: it is over at once.
    night["frames"][0]["came"] = last + 205
    assert no_frame(night, last + 206, {alert.key}) is None


def test_no_frame_while_the_goal_is_not_reached(place):
    night, last = paced(place)
    night["sequence"]["state"] = "done"
    assert no_frame(night, last + 200) is None
    night["sequence"]["enough"] = {"state": "more"}
    assert no_frame(night, last + 200) is not None


def test_nobody_is_told_of_frames_that_are_not_expected(place):
    night, last = paced(place)
    later = last + 200
    assert no_frame(night, later) is not None
    assert no_frame({**night, "tonight": False}, later) is None
    assert no_frame({**night, "missing": {**night["missing"], "phase": "morning"}}, later) is None
    assert no_frame({**night, "sequence": None}, later) is None
    other = [{**night["frames"][0], "group": 99}, *night["frames"]]  # the telescope does something else now
    assert no_frame({**night, "frames": other}, later) is None
    assert no_frame({**night, "frames": night["frames"][:2]}, later) is None


def test_a_standard_that_ends_and_what_is_deep_enough_are_no_alarm(place):
    night, last = paced(place)
    assert no_frame(night, last + 200) is not None
    night["sequence"]["enough"] = {"state": "enough"}
    assert no_frame(night, last + 200) is None
    night["sequence"] |= {"role": "standard", "enough": None}
    assert no_frame(night, last + 200) is None


def test_a_disk_whose_clock_is_wrong_is_no_alarm(place):
    """Frames come at their pace: their times are those of the disk, 10 minutes behind or ahead."""
    night, now = paced(place)
    night["last_frame"] = {"name": "N20160102S0274.fits", "at": now}
    for off in (-600, 600):
        for n, row in enumerate(night["frames"]):
            row["came"] = now + off - 40 * n
        assert no_frame(night, now + 30) is None
        assert no_frame(night, now + 130) is not None


def test_a_frame_that_was_copied_late_is_no_alarm(place):
    night, last = paced(place)
    assert no_frame(night, last + 200) is not None
    night["frames"][1]["came"] = last + 190
    assert no_frame(night, last + 200) is None


def late(place, seconds, now, before=()):
    night, _ = paced(place)
    points = [[now - 60 * n, value, None] for n, value in enumerate(seconds)]
    night["curves"] = {**night["curves"], "latency": points}
    night["sequence"]["state"] = "done"
    return list(alerts.of_pace(night, 10.0, before, now))


@pytest.mark.parametrize(
    ("seconds", "before", "there"),
    [
        ([3.0] * 20, False, False),
        ([3.0] * 18 + [30.0] * 2, False, True),
        ([3.0] * 19 + [30.0], False, False),
        ([9.0] * 20, False, False),
        ([9.0] * 20, True, True),
        ([7.0] * 20, True, False),
        ([30.0] * 4, False, False),
    ],
)
def test_looks_that_come_late(place, seconds, before, there):
    now = NIGHT.timestamp() + 5000
    found = late(place, seconds, now, {alerts.LATE_LOOKS} if before else ())
    assert bool(found) == there
    if there:
        assert found[0].key == alerts.LATE_LOOKS
        assert "wanted are 10 s" in found[0].why


def test_looks_of_long_ago_say_nothing(place):
    night, now = paced(place)
    night["curves"]["latency"] = [[now - pace.LOOKS_BACK - n, 60.0, None] for n in range(1, 20)]
    assert list(alerts.of_pace(night, 10.0, (), now)) == []
    night["curves"]["latency"] = [[now - n, 60.0, None] for n in range(1, 20)]
    assert list(alerts.of_pace(night, 10.0, (), now))
    assert list(alerts.of_pace(night, 0.0, (), now)) == []  # 0 is not looked at


def test_time_alone_brings_the_alert_to_the_page(place):
    """Nothing changes in the database: it is the clock that makes it one."""
    night, last = paced(place)
    for _ in range(3):
        assert place.told() == {}
    place.source.now = replace(place.source.now, night=night)
    place.now = last + 100
    place.beat()
    place.source.check()
    assert not place.source.is_old()
    place.now = last + 150
    place.beat()
    place.source.check()
    place.now += 1
    assert place.source.is_old()
    assert [a.key.partition(":")[0] for a in place.source._problems] == ["no frame"]
