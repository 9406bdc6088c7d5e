"""nirid health: each thing that can be wrong, alone, is told in one line and by the exit code."""

import json
import os
import time

import pytest

from daemon import cli, instance
from daemon.config import load
from daemon.instance import NOTE
from daemon.people import requests
from daemon.people.requests import FOLDER
from daemon.upkeep.health import Limits, examine, span
from tests.night import Daemon, FakeEngine, frame


@pytest.fixture
def place(tmp_path):
    """A daemon's folders, and its database after three darks were made."""
    (tmp_path / "drop").mkdir()
    given = {
        "watch.folders": [str(tmp_path / "drop")],
        "products.folder": str(tmp_path / "products"),
        "state.folder": str(tmp_path / "state"),
        "disk.low_water_mb": 0,
        "disk.low_water_inodes": 0,
    }
    settings = load.load(None, given)
    settings.state_folder.mkdir()
    settings.product_folder.mkdir()
    return settings


def fill(place, **more):
    """The ledger of a night of three darks in the state folder, with the clock of today."""
    daemon = Daemon(place.state_folder, **more)
    daemon.now = time.time() - 1.6e9 - 1800  # its clock is 1.6e9 s on; an hour ago is within limits
    daemon.land(*(frame("dark", n, 30 * n) for n in (1, 2, 3)))
    daemon.run(600)
    return daemon


@pytest.fixture
def well(place):
    fill(place).close()
    with instance.only_one(place):
        instance.tell(place, ready=True)
        yield place


def told(settings, **limits):
    report = examine(settings, Limits(**limits))
    assert "\n" not in report.line()
    return report.word, report.line()


def test_all_is_well(well):
    word, line = told(well)
    assert word == "OK", line
    assert "jobs: 1 done" in line


def test_no_daemon(place):
    fill(place).close()
    assert told(place) == ("CRITICAL", "NIRID CRITICAL - no daemon runs")


@pytest.mark.parametrize(
    ("note", "word", "says"),
    [
        ({"engine": "no worker can start (3 tried)"}, "CRITICAL", "no worker can start (3 tried)"),
        ({"paused": "a disk is full"}, "CRITICAL", "work is paused: a disk is full"),
        ({"stalled": "a drop folder does not answer"}, "CRITICAL", "does not answer"),
        ({"ready": False}, "WARNING", "is starting"),
    ],
)
def test_what_the_daemon_says_of_itself(well, note, word, says):
    instance.tell(well, **{"ready": True, **note})
    found, line = told(well)
    assert (found, says in line) == (word, True), line


def test_a_daemon_that_does_not_move(well):
    old = time.time() - 300
    os.utime(well.state_folder / NOTE, (old, old))
    assert "has not moved for 5 min" in told(well)[1]
    assert told(well, still=400)[0] == "OK"
    instance.alive(well)
    assert told(well)[0] == "OK"


def test_a_drop_folder_that_is_gone_or_closed(well):
    well.drop_folders[0].rmdir()
    assert "is missing" in told(well)[1]


def test_a_disk_that_is_full(well):
    from dataclasses import replace

    low = replace(well, disk=replace(well.disk, low_water_mb=1 << 50))
    assert told(low)[0] == "CRITICAL"
    assert "GB free" in told(low)[1]


def test_frames_that_do_not_come(well):
    assert told(well, last_frame=1)[0] == "OK"
    word, line = told(well, last_frame=1 / 36000)
    assert word == "WARNING"
    assert "the last frame came" in line


def test_a_failed_job_until_it_is_made_good(place):
    engine = FakeEngine(endings={"N20160102S0001_dark": ["failed"]})
    daemon = fill(place, engine=engine)
    with instance.only_one(place):
        instance.tell(place, ready=True)
        assert told(place)[0] == "WARNING"
        assert "1 job has failed (job 1" in told(place)[1]
        assert told(place, failed=1)[0] == "OK"
        daemon.land(frame("dark", 4, 120))
        daemon.run(600)
        assert told(place)[0] == "OK", "made good by a later job of the group"
        assert "failed" not in told(place)[1]
    daemon.close()


def test_a_job_that_waits_for_a_worker(place):
    engine = FakeEngine(workers=0)
    daemon = fill(place, engine=engine)
    with instance.only_one(place):
        instance.tell(place, ready=True)
        assert told(place, planned=60)[0] == "OK"
        assert "waits for a worker" in told(place, planned=0)[1]
    daemon.close()


def test_decisions_that_wait_or_were_refused(place):
    daemon = fill(place)
    (daemon.folder / "state").mkdir(exist_ok=True)
    daemon.requests.state = place.state_folder
    name = requests.submit(place.state_folder, {"action": "reject", "target": "nothing", "reason": "x"})
    with instance.only_one(place):
        instance.tell(place, ready=True)
        old = time.time() - 100
        os.utime(place.state_folder / FOLDER / f"{name}.json", (old, old))
        assert "1 decisions wait" in told(place)[1]
        daemon.run(10)
        assert "were refused" in told(place)[1]
        assert told(place, refused=0.01)[0] == "OK"
    daemon.close()


def test_a_database_that_is_damaged_or_gone(well):
    whole = well.database.read_bytes()
    well.database.write_bytes(whole[:4096] + os.urandom(len(whole) - 4096))
    assert "is damaged" in told(well)[1]
    well.database.unlink()
    assert "no database" in told(well)[1]


def test_exit_codes_and_json(well, tmp_path, capsys):
    def run(*words):
        with pytest.raises(SystemExit) as end:
            cli.main(["--state", str(well.state_folder), "health", *words])
        return end.value.code or 0

    instance.tell(well, ready=True)
    low = ["--config", str(tmp_path / "c.toml")]
    (tmp_path / "c.toml").write_text("disk = { low_water_mb = 0, low_water_inodes = 0 }\n")
    assert run(*low) == 0
    assert capsys.readouterr().out.startswith("NIRID OK - ")
    instance.tell(well, ready=True, engine="no worker can start")
    assert (run(*low), run("--nagios", *low)) == (1, 2)
    capsys.readouterr()
    assert run("--json", *low) == 1
    answer = json.loads(capsys.readouterr().out)
    assert answer["state"] == "CRITICAL"
    assert answer["problems"][0]["check"] == "workers"
    assert run("--nagios", "--config", "/nowhere.toml") == 3


def test_spans():
    assert [span(s) for s in (0, 89, 90, 5399, 5400, 3 * 86400)] == [
        "0 s", "89 s", "2 min", "90 min", "1.5 h", "3 d"
    ]  # fmt: skip


@pytest.mark.parametrize("ending", ["killed", "memory", "died", "timeout"])
def test_a_job_that_is_killed_again_and_again(place, ending):
    daemon = fill(place, engine=FakeEngine(endings={"N20160102S0001_dark": [ending] * 2}))
    times = len(daemon.rows("SELECT * FROM attempt WHERE outcome = ?", ending))
    assert times == 2
    with instance.only_one(place):
        instance.tell(place, ready=True)
        assert told(place, killed=1)[0] == "OK", "it was made in the end"
        daemon.ledger.write(lambda tx: tx.run("DELETE FROM attempt WHERE outcome = 'done'"))
        daemon.ledger.write(lambda tx: tx.run("UPDATE job SET state = 'planned'"))
        assert told(place)[0] == "OK"
        word, line = told(place, killed=1)
        assert word == "CRITICAL"
        assert f"job 1 was killed 2 times and is tried again: {ending}!" in line
    daemon.close()


def test_a_folder_in_the_drop_folder_that_is_closed_to_us(place):
    fill(place).close()
    with instance.only_one(place):
        instance.tell(place, ready=True, closed="/drop/private cannot be listed: Permission denied")
        assert told(place) == ("WARNING", "NIRID WARNING - /drop/private cannot be listed: Permission denied")
