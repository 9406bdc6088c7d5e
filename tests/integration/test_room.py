"""A disk that fills: no job is started, nothing is lost, and everything is made when there is room again."""

import pytest

from daemon.work.diskguard import DiskGuard, Room
from pipeline.errors import NiridError
from tests.night import Daemon, FakeEngine, frame


@pytest.fixture
def daemons(tmp_path, keep):
    def make(**more):
        daemon = keep(Daemon(tmp_path, **more))
        daemon.room = Room(10_000, None)
        daemon.dispatcher.guard = DiskGuard({"products": tmp_path}, 2_000, 0, look=lambda _: daemon.room)
        daemon.told = []
        daemon.dispatcher.on_pause = daemon.told.append
        return daemon

    return make


def test_work_pauses_while_frames_are_registered_and_goes_on(daemons):
    daemon = daemons()
    daemon.room = Room(1_000, None)
    daemon.land(*(frame("dark", n, 30 * n) for n in (1, 2, 3)))
    daemon.run(600)
    assert daemon.engine.ran == []
    assert daemon.rows("SELECT state, COUNT(*) AS n FROM job GROUP BY 1") == [{"state": "planned", "n": 1}]
    assert [event for event, _ in daemon.events].count("work_paused") == 1
    daemon.room = Room(10_000, None)
    daemon.run(100)
    assert set(daemon.current()) == {"N20160102S0001_dark"}
    assert [bool(why) for why in daemon.told] == [True, False]


def test_an_enospc_of_a_worker_pauses_though_the_numbers_look_well(daemons):
    daemon = daemons(engine=Full(endings={"N20160102S0001_dark": ["io"]}))
    daemon.land(*(frame("dark", n, 30 * n) for n in (1, 2, 3)))
    daemon.run(150, step=1)
    ran = len(daemon.engine.ran)
    assert ran == 1
    assert "No space left" in daemon.told[0]
    daemon.run(120)
    assert set(daemon.current()) == {"N20160102S0001_dark"}
    assert daemon.told[-1] == ""


class Full(FakeEngine):
    def run(self, *job):
        outcome = super().run(*job)
        if outcome.ending != "io":
            return outcome
        error = "OSError: [Errno 28] No space left on device"
        return type(outcome)(outcome.job_id, outcome.attempt, "io", 0.1, error=error)


def test_a_batch_run_says_so_and_ends(daemons):
    daemon = daemons()
    daemon.room = Room(1_000, None)
    daemon.land(*(frame("dark", n, 30 * n) for n in (1, 2, 3)))
    with pytest.raises(NiridError, match=r"work is paused.*GB free for products"):
        daemon.until_idle()
