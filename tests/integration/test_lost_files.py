"""A raw file that is deleted before its group is reduced: waited for, then done without, and taken again."""

import json

import pytest

from daemon.ledger import files, questions
from daemon.ledger.targets import find
from daemon.people.explain import explain
from tests.night import frame

LAMPS = {"exposure_time": 42.0, "coadds": 1}
FLATS = [frame("lampoff", n, 20_000 + n, **LAMPS) for n in range(11, 14)]
FLATS += [frame("lampon", n, 20_100 + n, **LAMPS) for n in range(21, 24)]
SCIENCE = [frame("science", n, 30 * n) for n in range(1, 10)]
DARKS = [frame("dark", n, 30_000 + n) for n in range(41, 44)]


def go(daemon, record):
    daemon.ledger.write(lambda tx: files.gone(tx, record.path, daemon.setting))


def used(daemon, name):
    return json.loads(daemon.current()[name])["inputs"]


@pytest.fixture
def daemon(daemons):
    daemon = daemons()
    daemon.land(*FLATS, *DARKS, *SCIENCE)
    go(daemon, SCIENCE[2])
    daemon.run(300)
    return daemon


def test_after_its_grace_the_group_goes_on_without_and_says_so(daemon):
    assert "N20160102S0002_image" not in daemon.current()
    waits = daemon.ask(questions.jobs, ["waiting"])[0]
    assert "nirid reject N20160102S0003.fits --reason gone" in waits["reason"]
    answer = daemon.ledger.write(
        lambda tx: explain(tx, find(tx.reader, f"group:{waits['group']}"), daemon.setting, lambda r, d: {})
    )
    assert "nirid reject N20160102S0003.fits --reason gone" in answer["reason"]
    daemon.run(900)
    assert [int(i[10:14]) for i in used(daemon, "N20160102S0002_image")] == [1, 2, 4, 5, 6, 7, 8, 9]
    assert (
        "N20160102S0003.fits left out: its file is no longer on disk"
        in daemon.current()["N20160102S0002_image"]
    )


def test_while_it_waits_nothing_is_written(daemon):
    written = daemon.ledger.write(lambda tx: tx.one("SELECT total_changes()")[0])
    for _ in range(50):
        daemon.run(1.0, step=1.0)
    assert daemon.ledger.write(lambda tx: tx.one("SELECT total_changes()")[0]) <= written + 2  # the clock


def test_it_is_taken_again_when_it_is_back(daemon):
    daemon.run(900)
    assert len(used(daemon, "N20160102S0002_image")) == 8
    daemon.land(SCIENCE[2])
    daemon.run(100)
    assert len(used(daemon, "N20160102S0002_image")) == 9


def test_in_time_nothing_was_lost(daemon):
    daemon.land(SCIENCE[2])
    daemon.run(100)
    assert len(used(daemon, "N20160102S0002_image")) == 9


def test_the_command_that_is_named_releases_it(daemon):
    daemon.decide("reject", f"sha256:{SCIENCE[2].file_sha}", reason="gone", user="ada", said="x", id="1")
    daemon.run(10)
    assert len(used(daemon, "N20160102S0002_image")) == 8


def test_a_batch_goes_on_at_once(daemons):
    daemon = daemons()
    daemon.land(*FLATS, *DARKS, *SCIENCE)
    go(daemon, SCIENCE[2])
    daemon.until_idle()
    assert len(used(daemon, "N20160102S0002_image")) == 8


@pytest.mark.parametrize("kind", ["dark", "flat"])
def test_calibrations_too_and_their_masks(daemons, kind):
    daemon = daemons()
    short = [frame("dark", n, 30_000 + n, exposure_time=1.0, coadds=1) for n in range(51, 55)]
    daemon.land(*FLATS, *short)
    go(daemon, short[1] if kind == "dark" else FLATS[4])
    daemon.run(300)
    assert "N20160102S0021_bpm" not in daemon.current()
    daemon.run(900)
    if kind == "dark":
        assert short[1].path.rpartition("/")[2] not in used(daemon, "N20160102S0021_bpm")
    else:  # two lamp-on frames are left: fewer than wanted, so more are waited for as ever
        assert daemon.ask(questions.groups, unfinished=True)[0]["reason"].startswith("incomplete")


def test_a_mask_stays_when_some_of_its_darks_are_tidied_away(daemons):
    daemon = daemons()
    short = [frame("dark", n, 30_000 + n, exposure_time=1.0, coadds=1) for n in range(51, 56)]
    daemon.land(*FLATS, *short)
    daemon.run(300)
    before, ran = used(daemon, "N20160102S0021_bpm"), len(daemon.engine.ran)
    for record in (short[1], FLATS[1]):
        go(daemon, record)
    daemon.run(1000)
    daemon.ledger.write(lambda tx: tx.run("UPDATE frame_group SET touched = 1"))
    daemon.run(1000)
    assert used(daemon, "N20160102S0021_bpm") == before
    assert len(daemon.engine.ran) == ran


def test_looks_go_on_without_it(daemons):
    daemon = daemons(looks=True)
    daemon.land(*SCIENCE[:6])
    daemon.run(5, step=1)
    go(daemon, SCIENCE[4])
    daemon.land(SCIENCE[6])
    daemon.run(5, step=1)
    stack = [spec for spec in daemon.engine.ran if spec.recipe == "reduce"][-1]
    assert [int(i.name[10:14]) for i in stack.inputs] == [1, 2, 3, 4, 6, 7]
