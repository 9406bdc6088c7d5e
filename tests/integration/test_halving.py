"""One frame of a group makes its job fail: it is found and quarantined, the rest is reduced."""

import json

import pytest

from daemon.ledger import contents, questions, searches
from daemon.model.jobs import Outcome
from daemon.people import requests
from daemon.plan.halving import Search
from tests.night import FINAL, Daemon, FakeEngine, example1, frame

DARK = "N20160102S0001_dark"


class Poison(FakeEngine):
    """Fails as `ending` says with one of these frames among the inputs, or by their number."""

    def __init__(self, *numbers, ending="failed", when=lambda n: False, error="BadFrame: odd"):
        super().__init__()
        self.bad = {f"S{n:04}.fits" for n in numbers}
        self.ending, self.when, self.error = ending, when, error

    def run(self, job_id, attempt, spec):
        poisoned = any(item.name[9:] in self.bad for item in spec.inputs)
        self.endings[spec.name] = [self.ending] if poisoned or self.when(len(spec.inputs)) else []
        outcome = super().run(job_id, attempt, spec)
        return outcome if outcome.ending == "done" else type(outcome)(
            job_id, attempt, self.ending, 0.1, error=self.error
        )  # fmt: skip


@pytest.fixture
def daemons(tmp_path, keep):
    return lambda engine, **more: keep(Daemon(tmp_path, engine=engine, **more))


def darks(count, **more):
    return [frame("dark", n, 30 * n, **more) for n in range(1, count + 1)]


def states(daemon):
    rows = daemon.ask(lambda db: list(contents.everything(db)))
    return {row["paths"][0][-10:-5]: (row["state"], row["reason"]) for row in rows}


def inputs(daemon, name=DARK):
    return [item[10:14] for item in json.loads(daemon.current()[name])["inputs"]]


@pytest.mark.parametrize("number", range(1, 11))
def test_the_frame_is_found_wherever_it_is(daemons, number):
    daemon = daemons(Poison(number))
    daemon.land(*darks(10))
    daemon.run(900)
    name = DARK if number > 1 else "N20160102S0002_dark"
    assert len(inputs(daemon, name)) == 9
    state, reason = states(daemon)[f"S{number:04}"]
    assert state == "quarantined"
    assert "BadFrame: odd" in reason
    assert "found by halving its 10 frames" in reason
    assert len(daemon.engine.ran) <= 1 + 2 + 4 + 1  # the job, both halves, a half of 5 narrowed, the rest
    assert daemon.rows("SELECT MAX(runs) AS n FROM accounting") == [{"n": 1}]
    assert not list((daemon.products / ".staging").iterdir())
    (line,) = requests.written(daemon.products)
    assert (line["action"], line["user"]) == ("quarantine", "nirid")


@pytest.mark.parametrize("ending", ["timeout", "memory", "killed", "io"])
def test_a_failure_of_the_machine_is_blamed_on_no_frame(daemons, ending):
    """Whenever it comes: in the job itself, and in the search for the frame that has an error of its own."""
    daemon = daemons(Poison(4, ending=ending))
    daemon.land(*darks(6))
    daemon.run(900)
    assert {state for state, _ in states(daemon).values()} == {"ready"}
    assert not daemon.rows("SELECT * FROM search")
    assert [e for e, _ in daemon.events if e in ("job_interrupted", "job_failed")], "nothing was told"


@pytest.mark.parametrize("ending", ["timeout", "memory", "killed", "io"])
@pytest.mark.parametrize("at", range(1, 6))
def test_a_failure_of_the_machine_in_the_search_changes_nothing(daemons, ending, at):
    daemon = daemons(Poison(4))
    run = daemon.engine.run

    def once(job_id, attempt, spec):
        if len(daemon.engine.ran) == at and not daemon.engine.cancelled:
            daemon.engine.cancelled.append(job_id)
            return Outcome(job_id, attempt, ending, 0.1, error="out of memory")
        return run(job_id, attempt, spec)

    daemon.engine.run = once
    daemon.land(*darks(6))
    daemon.run(900)
    assert {name for name, (state, _) in states(daemon).items() if state == "quarantined"} == {"S0004"}
    assert inputs(daemon) == ["0001", "0002", "0003", "0005", "0006"]


@pytest.mark.parametrize("at", range(1, 5))
@pytest.mark.parametrize("deaths", [1, 2])
def test_workers_that_die_once_or_twice_in_the_search_blame_nobody(daemons, at, deaths):
    """A broken memory chip ends a worker by SIGSEGV: only what does so each time is the frame's."""
    daemon = daemons(Poison(4))
    run, died = daemon.engine.run, []

    def dying(job_id, attempt, spec):
        if at <= len(daemon.engine.ran) < at + deaths and job_id < 0 and len(died) < deaths:
            died.append(job_id)
            daemon.engine.ran.append(spec)
            return Outcome(job_id, attempt, "died", 0.1, error="the worker died (SIGSEGV)")
        return run(job_id, attempt, spec)

    daemon.engine.run = dying
    daemon.land(*darks(6))
    daemon.run(900)
    assert len(died) == deaths
    assert {name for name, (state, _) in states(daemon).items() if state == "quarantined"} == {"S0004"}
    assert inputs(daemon) == ["0001", "0002", "0003", "0005", "0006"]


def test_a_frame_that_crashes_its_worker_is_found_after_three_deaths(daemons):
    daemon = daemons(Poison(4, ending="died"))
    daemon.land(*darks(6))
    daemon.run(900)
    assert inputs(daemon) == ["0001", "0002", "0003", "0005", "0006"]
    assert states(daemon)["S0004"][0] == "quarantined"


@pytest.mark.parametrize("number", [376, 426])  # a lamp-on flat, which is needed; a dark, which is preferred
def test_each_half_has_its_share_of_every_ingredient_and_what_waits_goes_on_waiting(daemons, number):
    daemon = daemons(Poison(number))
    daemon.land(*example1())
    daemon.until_idle()
    assert set(daemon.current()) == FINAL
    assert states(daemon)[f"S{number:04}"][0] == "quarantined"
    names = [spec.name for spec in daemon.engine.ran]
    assert names.count("N20160102S0271_image") == 1  # not without it, not twice
    assert daemon.ask(questions.counts)["jobs"].keys() <= {"done", "dropped"}


@pytest.mark.parametrize(
    ("engine", "why"),
    [
        (Poison(1, 2), "both halves fail"),
        (Poison(when=lambda n: n == 8), "each half can be reduced alone"),
        (Poison(when=lambda n: True, error="NotEnoughFrames: 4"), "too few to tell"),
    ],
)
def test_when_no_single_frame_is_to_blame_the_job_stays_failed(daemons, engine, why):
    daemon = daemons(engine)
    daemon.land(*darks(8))
    daemon.run(900)
    (failed,) = daemon.ask(questions.jobs, ["failed"])
    assert why in failed["reason"]
    assert {state for state, _ in states(daemon).values()} == {"ready"}
    ran = len(daemon.engine.ran)
    daemon.run(900)
    assert len(daemon.engine.ran) == ran <= 3


@pytest.mark.parametrize(("count", "halved"), [(3, False), (4, False), (5, True)])
def test_only_a_group_more_than_one_above_its_minimum_is_halved(daemons, count, halved):
    daemon = daemons(Poison(2))
    daemon.land(*darks(count))
    daemon.run(900)
    assert (len(daemon.engine.ran) > 1) == halved
    assert (states(daemon)["S0002"][0] == "quarantined") == halved


def test_once_is_enough(daemons):
    daemon = daemons(Poison(2))
    daemon.land(*darks(10))
    daemon.run(900)
    assert states(daemon)["S0002"][0] == "quarantined"
    daemon.engine.bad = {"S0002.fits", "S0005.fits"}
    ran = len(daemon.engine.ran)
    daemon.decide("requeue", DARK)
    daemon.run(900)
    assert len(daemon.engine.ran) == ran + 1  # the rest fails as well: these frames were halved before
    assert [job["state"] for job in daemon.ask(questions.jobs, ["failed"])] == ["failed"]
    daemon.decide("accept", "N20160102S0002.fits")
    daemon.run(900)
    assert states(daemon)["S0002"][0] == "ready"  # a person has the last word


def test_a_restart_in_the_middle_goes_on_with_the_search(daemons):
    daemon = daemons(Poison(7))
    daemon.land(*darks(10))
    while len(daemon.engine.ran) < 3:
        daemon.main_loop.tick(daemon.now)
        daemon.now += 1
    daemon.close()
    again = daemons(Poison(7))
    again.dispatcher.recover(again.products)
    again.run(900)
    assert states(again)["S0007"][0] == "quarantined"
    assert len(inputs(again)) == 9


def test_a_blamed_frame_that_is_seen_again_stays_quarantined(daemons):
    daemon = daemons(Poison(3))
    daemon.land(*darks(10))
    daemon.run(900)
    ran = len(daemon.engine.ran)
    daemon.land(*darks(10))
    daemon.run(900)
    assert states(daemon)["S0003"][0] == "quarantined"
    assert len(daemon.engine.ran) == ran


def test_the_first_frame_is_left_out_of_the_part_that_has_it_only(daemons):
    daemon = daemons(Poison(275))
    daemon.land(*example1())
    daemon.until_idle()
    parts = [spec for spec in daemon.engine.ran if spec.name == "N20160102S0271_image"]
    for spec in parts:
        has = any(item.name == "N20160102S0270.fits" for item in spec.inputs)
        assert spec.parameters["removeFirstFrame:remove_first"] == has
    assert states(daemon)["S0275"][0] == "quarantined"


@pytest.mark.parametrize("count", range(2, 33))
def test_the_search_alone(count):
    for culprit in range(count):
        search, tries = Search(tuple(range(count))), 0
        while isinstance(search, Search):
            tries += 1
            search = search.told(reduced=culprit not in search.part())
        assert search == culprit
        assert tries <= 2 + count.bit_length()
    search = Search(tuple(range(count)), fixed=(99,))
    assert Search.from_json(search.to_json()) == search
    assert 99 in search.part()


def test_tries_are_counted_before_they_start(daemons):
    daemon = daemons(Poison(7))
    daemon.land(*darks(10))
    daemon.run(60)
    while not daemon.rows("SELECT * FROM search"):
        daemon.main_loop.tick(daemon.now)
        daemon.now += 1
    before = daemon.rows("SELECT tries FROM search")[0]["tries"]
    daemon.ledger.write(searches.next_try)
    assert daemon.rows("SELECT tries FROM search")[0]["tries"] == before + 1
