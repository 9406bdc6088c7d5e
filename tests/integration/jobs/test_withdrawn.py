"""Products with frames that are out, and groups that lose theirs."""

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest

from daemon.ledger import files, questions
from daemon.model.jobs import Outcome
from daemon.model.names import staging_path
from tests.integration.jobs.helpers import Killed, killer, whole
from tests.night import frame


def flats(lamp, numbers, start):
    return [frame(lamp, n, start + n, exposure_time=42.0, coadds=1) for n in numbers]


def excluded(record):
    values = {name: getattr(record, name) for name in record.__slots__}
    failed = {"state": "excluded", "reason": "the QA state in the header is Fail", "file_sha": "f" * 64}
    return record.__class__(**{**values, **failed})


@pytest.mark.parametrize("point", ["nothing", "withdrawn"])
def test_a_product_that_holds_a_frame_which_is_out_and_cannot_be_made_without_it_is_withdrawn(daemons, point):
    daemon = daemons()
    off, on = flats("lampoff", (11, 12, 13), 20_000), flats("lampon", (21, 22, 23), 20_100)
    short = [frame("dark", n, 30_000 + n, exposure_time=1.0, coadds=1) for n in (41, 42, 43)]
    daemon.land(*off, *on, *short)
    daemon.run(600)
    assert set(daemon.current()) == {"N20160102S0021_flat", "N20160102S0021_bpm"}
    daemon.dispatcher.publisher.at = killer(point)
    daemon.land(excluded(short[1]))
    try:
        daemon.run(13 * 3600, step=600)
    except Killed:
        daemon.ledger.close()
        daemon = daemons()
        daemon.main_loop.recover(daemon.products)
        daemon.run(13 * 3600, step=600)
    assert set(daemon.current()) == {"N20160102S0021_flat"}
    assert "N20160102S0021_bpm" not in daemon.current()["N20160102S0021_flat"]
    whole(daemon)
    daemon.land(short[1])  # its QA state is edited back
    daemon.run(13 * 3600, step=600)
    assert set(daemon.current()) == {"N20160102S0021_flat", "N20160102S0021_bpm"}
    whole(daemon)


def all_out(daemon, darks):
    daemon.land(*map(excluded_as, darks))


def one_out_and_one_gone(daemon, darks):
    daemon.ledger.write(lambda tx: files.gone(tx, darks[0].path, daemon.setting))
    daemon.land(excluded(darks[1]))


def one_out_and_the_rest_cannot_be_reduced(daemon, darks):
    daemon.engine.endings["N20160102S0002_dark"] = ["failed"]
    daemon.land(excluded(darks[1]))


def excluded_as(record):
    return replace(excluded(record), file_sha=hashlib.sha256(record.path.encode()).hexdigest())


@pytest.mark.parametrize("why", [all_out, one_out_and_one_gone, one_out_and_the_rest_cannot_be_reduced])
def test_no_product_keeps_a_frame_that_is_out_whatever_keeps_a_new_one_from_being_made(daemons, why):
    daemon = daemons()
    darks = [frame("dark", n, n) for n in (2, 3, 4)]
    daemon.land(*darks)
    daemon.run(300)
    assert set(daemon.current()) == {"N20160102S0002_dark"}
    why(daemon, darks)
    daemon.run(300)
    assert daemon.current() == {}
    whole(daemon)


def test_the_product_of_a_group_without_frames_is_withdrawn(daemons):
    daemon = daemons()
    darks = [frame("dark", n, n) for n in (2, 3, 4)]
    daemon.land(*darks)
    daemon.run(300)
    for n, dark in zip((2, 3, 4), darks, strict=True):
        edited = frame("dark", n, n, exposure_time=50.0)
        daemon.land(
            edited.__class__(
                **{f: getattr(edited, f) for f in edited.__slots__ if f != "path"}, path=dark.path
            )
        )
    daemon.run(600)
    rows = daemon.ask(questions.products, current=False)
    assert [(row["name"], row["current"]) for row in rows if row["current"]] == [
        ("N20160102S0002_dark", True)
    ]
    assert len(rows) == 2
    whole(daemon)


def test_a_mask_waits_for_a_dark_that_is_gone_and_is_made_when_it_is_back(daemons):
    daemon = daemons()
    short = [frame("dark", n, 30_000 + n, exposure_time=1.0, coadds=1) for n in (41, 42, 43)]
    daemon.land(*short)
    daemon.ledger.write(lambda tx: files.gone(tx, short[1].path, daemon.setting))
    daemon.land(*flats("lampoff", (11, 12, 13), 20_000), *flats("lampon", (21, 22, 23), 20_100))
    daemon.run(600)
    assert set(daemon.current()) == {"N20160102S0021_flat"}
    reason = daemon.ask(questions.jobs, ["waiting"])[0]["reason"]
    assert reason.startswith("N20160102S0042.fits is no longer on disk: goes on without 15 min after ")
    daemon.land(short[1])
    daemon.run(600)
    assert set(daemon.current()) == {"N20160102S0021_flat", "N20160102S0021_bpm"}


def test_what_was_staged_for_nothing_goes(daemons):
    daemon = daemons()
    daemon.engine.held = True
    daemon.land(*(frame("dark", n, n) for n in (2, 3, 4)))
    daemon.run(300)
    job, attempt, spec = daemon.engine.running[0]
    stem = staging_path(spec, attempt - 1)
    Path(stem).parent.mkdir(parents=True, exist_ok=True)
    for suffix in (".fits", ".png"):
        Path(f"{stem}{suffix}").touch()
    daemon.dispatcher.finish(Outcome(job, attempt - 1, "done", 1.0, result={"sha256": "0"}))
    assert list(Path(stem).parent.iterdir()) == []
