"""nirid report: a night in data and in words."""

import time
from datetime import UTC, datetime

import pytest

from daemon.ledger import nightly
from daemon.people import nightreport
from tests.night import example1, frame

NOW = datetime(2016, 1, 4, tzinfo=UTC)


@pytest.fixture
def night(apart):
    daemon = apart()
    daemon.land(*example1())
    daemon.until_idle()
    daemon.decide("reject", "N20160102S0425.fits", reason="trailed")
    daemon.run(600)
    return daemon


def report(daemon, day="20160102"):
    rules = daemon.setting.rules
    return daemon.ask(lambda db: nightreport.answer(db, rules, (), day, NOW))


def test_a_night_has_its_sequences_products_and_what_was_taken_out(night):
    answer = report(night)
    assert (answer["frames"], answer["science_frames"]) == (45, 10)
    assert [row["product"] for row in answer["sequences"]] == ["N20160102S0271_image", "N20160102S0296_image"]
    assert {row["product"] for row in answer["calibrations"]} >= {"N20160102S0373_flat"}
    (out,) = answer["rejected"]
    assert (out["name"], out["state"]) == ("N20160102S0425.fits", "excluded")
    assert out["reason"].endswith(": trailed")
    assert answer["before"]["difference"]["frames"] == 45
    text = "\n".join(nightreport.lines(answer))
    assert "45 frames (+45)" in text
    assert "out of use\n  N20160102S0425.fits, excluded: rejected by" in text


def test_an_empty_night_makes_a_report(night):
    answer = report(night, "20150101")
    assert answer["frames"] == 0
    assert "no frames were taken" in list(nightreport.lines(answer))


def test_times_without_a_daemon_are_told_with_how_it_ended(night):
    def at(seconds, note):
        def write(tx):
            tx.now = seconds
            note(tx)

        night.ledger.write(write)

    at(100.0, nightly.note_start)
    at(200.0, nightly.note_stop)
    at(300.0, nightly.note_start)
    at(350.0, lambda tx: tx.event("job_started"))
    at(900.0, nightly.note_start)
    assert night.ask(lambda db: nightly.outages(db, 0.0, 1000.0))[:1] == [(200.0, 300.0, True)]
    assert night.ask(lambda db: nightly.outages(db, 320.0, 1000.0))[-1] == (350.0, 900.0, False)
    assert night.ask(lambda db: nightly.outages(db, 910.0, 1000.0)) == []


def test_old_nights_cost_nothing(night):
    night.land(*[frame("science", n, 86400 * 40 + 30 * n, day="20160211") for n in range(9)])
    night.run(600)
    report(night)
    began = time.perf_counter()
    report(night, "20160211")
    assert time.perf_counter() - began < 0.5
    plans = night.ask(lambda db: [tuple(r) for r in db.execute(
        "EXPLAIN QUERY PLAN SELECT COUNT(*) FROM frame WHERE ut >= 1 AND ut < 2")])  # fmt: skip
    assert all("SEARCH" in plan[-1] for plan in plans)
