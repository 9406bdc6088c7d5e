"""A master that is not like those before is held back until a person has looked."""

from datetime import timedelta

import numpy as np
import pytest

from daemon.ledger import guarding, held
from daemon.people import requests
from pipeline.association import CalKind
from tests.night import NIGHT, FakeEngine, example1, frame

NOISES = ("read_noise", *(f"read_noise_q{k}" for k in range(1, 5)))
DARK = "N20160102S0423_dark"
SCIENCE = "N20160102S0271_image"
BEFORE = "N20160101S0005_dark"


class Measuring(FakeEngine):
    """Darks have a read noise of 12.3 electrons, but for those of `loud`."""

    loud = ()

    def run(self, job_id, attempt, spec):
        outcome = super().run(job_id, attempt, spec)
        if spec.recipe == "makeProcessedDark":
            rng = np.random.default_rng(len(self.ran))
            noise = 12.3 * np.sqrt(2) * (2.0 if spec.name in self.loud else 1.0)
            figures = {n: (float(noise * rng.normal(1.0, 0.005)), 0.01, "electron") for n in NOISES}
            outcome.result["quality"] = {"measures": figures}
        return outcome


@pytest.fixture
def night(apart):
    """Its darks are loud, and there are those of the night before."""
    daemon = apart()
    daemon.engine.__class__ = Measuring
    daemon.engine.loud = (DARK,)
    daemon.land(*[frame("dark", n, -86400 + 30 * n, day="20160101") for n in range(5, 15)])
    daemon.land(*example1())
    daemon.until_idle()
    return daemon


def darks_of(daemon, name):
    """What the last job of a product was dark-corrected with."""
    spec = [s for s in daemon.engine.ran if s.name == name][-1]
    return [c.name for c in spec.calibrations if c.role == CalKind.DARK]


def events(daemon, name):
    return [fields for event, fields in daemon.events if event == name]


def test_science_takes_the_last_accepted_and_says_so(night):
    (event,) = events(night, "calibration_held")
    assert (event["product"], event["state"]) == (DARK, "held")
    assert DARK in night.current()
    assert darks_of(night, SCIENCE) == [BEFORE]
    (spec,) = [s for s in night.engine.ran if s.name == SCIENCE][-1:]
    (note,) = [n for n in spec.notes if "held back" in n]
    assert DARK in note
    assert note.endswith(f"{BEFORE} is used instead")
    assert "read noise is" in note
    (one,) = night.ask(held.everything)
    assert one["name"] == DARK


def test_accepting_it_has_the_science_made_with_it(night):
    night.decide("accept", DARK)
    night.run(600)
    assert darks_of(night, SCIENCE) == [DARK]
    assert night.ask(held.everything) == []


def test_rejecting_it_leaves_the_science_as_it_is(night):
    before = night.current()[SCIENCE]
    night.decide("reject", DARK, reason="the cold head was off")
    night.run(600)
    assert night.current()[SCIENCE] == before
    assert DARK not in night.current()
    assert night.ask(held.everything) == []


def test_it_is_among_the_decisions_that_outlive_the_ledger(night):
    night.run(10)
    (line,) = [line for line in requests.written(night.products) if line["action"] == "hold"]
    assert line["user"] == "nirid"
    assert line["outcome"].startswith(f"{DARK} is held back")


def test_it_stays_held_when_its_product_is_taken_into_a_new_ledger_that_has_no_figures(night):
    def again(tx):
        job = tx.one("SELECT j.* FROM job j JOIN product p ON p.job_id = j.id WHERE p.name = ?", DARK)
        return guarding.judged(tx, job, {}, DARK)

    assert night.ledger.write(again).startswith("read noise is")


class MeasuringMasks(FakeEngine):
    """Of a mask that has one to be compared with, a pixel in fifty is new."""

    def run(self, job_id, attempt, spec):
        outcome = super().run(job_id, attempt, spec)
        if spec.recipe == "makeProcessedBPM":
            new = {"new": (0.02, 1e-4, "")} if spec.compare else {}
            outcome.result["quality"] = {"measures": {"bad": (0.03, 1e-4, ""), **new}}
        return outcome


def flats(first, day, **more):
    """Flats and short darks, so many days after the night: a mask and a flat are made of them."""
    lamps = {"exposure_time": 42.0, "coadds": 1, "day": f"{NIGHT + timedelta(days=day):%Y%m%d}"} | more
    start, short = 86400 * day, {"exposure_time": 1.0, "coadds": 1, "day": lamps["day"]}
    made = [frame("lampoff", first + n, start + 60 * n, **lamps) for n in range(4)]
    made += [frame("lampon", first + 10 + n, start + 600 + 60 * n, **lamps) for n in range(4)]
    return made + [frame("dark", first + 20 + n, start + 9000 + 5 * n, **short) for n in range(4)]


def test_a_mask_with_many_new_bad_pixels_is_held_and_the_one_before_is_used(apart):
    daemon = apart()
    daemon.engine.__class__ = MeasuringMasks
    daemon.land(*flats(100, 0), *flats(200, 1, filter_name="J_G0202"))
    daemon.until_idle()
    made = {spec.name: spec for spec in daemon.engine.ran}
    assert (made["N20160102S0110_bpm"].compare, made["N20160103S0210_bpm"].compare) == ("", "")
    daemon.land(*flats(300, 5))
    daemon.until_idle()
    made = {spec.name: spec for spec in daemon.engine.ran}
    assert made["N20160107S0310_bpm"].compare.endswith("/N20160102S0110_bpm.fits")
    (event,) = events(daemon, "calibration_held")
    assert event["product"] == "N20160107S0310_bpm"
    (reason,) = event["reasons"]
    assert reason == "bad pixels that the mask before had not is 0.02 of all, can be 0 to 0.005"
    flat = made["N20160107S0310_flat"]
    assert [c.name for c in flat.calibrations] == ["N20160103S0210_bpm"]
    assert any("N20160107S0310_bpm is held back" in note for note in flat.notes)
    daemon.decide("accept", "N20160107S0310_bpm")
    daemon.run(600)
    again = [spec for spec in daemon.engine.ran if spec.name == "N20160107S0310_flat"][-1]
    assert [c.name for c in again.calibrations] == ["N20160107S0310_bpm"]
