"""A master that is not like those before is held back until a person has looked."""

import numpy as np
import pytest

from daemon.ledger import guarding, held
from daemon.people import requests
from pipeline.association import CalKind
from tests.night import FakeEngine, example1, frame

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
