"""What comes late, goes or fails: products are remade, brought back, or left alone."""

import json

from daemon.ledger import contents, files, questions
from daemon.model.rules import Policy
from daemon.model.states import FileState
from tests.night import FINAL, FakeEngine, example1, frame


def test_short_darks_make_a_master_only_if_somebody_needs_it(daemons):
    daemon = daemons()
    short = {"exposure_time": 1.0, "coadds": 1}
    daemon.land(*(frame("dark", n, 30 * n, **short) for n in range(1, 5)))
    daemon.run(300)
    assert daemon.current() == {}
    daemon.land(*(frame("science", n, 30 * n, **short) for n in range(11, 15)))
    daemon.run(300)
    assert set(daemon.current()) == {"N20160102S0001_dark"}


def test_a_qa_state_of_fail_takes_the_frame_out_and_remakes_what_used_it(daemons):
    daemon = daemons()
    darks = [frame("dark", n, 30 * n) for n in range(1, 6)]
    daemon.land(*darks)
    daemon.run(300)
    edited = darks[2].__class__(
        **{
            **{f: getattr(darks[2], f) for f in darks[2].__slots__},
            "state": "excluded",
            "reason": "the QA state in the header is Fail",
            "file_sha": "f" * 64,
        }
    )
    daemon.land(edited)
    daemon.run(300)
    assert "N20160102S0003.fits" not in json.loads(daemon.current()["N20160102S0001_dark"])["inputs"]
    states = {row["sha256"][:4]: row["state"] for row in daemon.ask(lambda db: list(contents.everything(db)))}
    assert states["ffff"] == "excluded"
    assert states[darks[2].file_sha[:4]] == "superseded"


def test_the_same_bytes_under_another_name_change_nothing(daemons):
    daemon = daemons()
    darks = [frame("dark", n, 30 * n) for n in range(1, 5)]
    daemon.land(*darks)
    daemon.run(300)
    daemon.land(
        *(
            d.__class__(**{**{f: getattr(d, f) for f in d.__slots__}, "path": f"/drop/b{i}.fits"})
            for i, d in enumerate(darks)
        )
    )
    daemon.run(300)
    assert len(daemon.engine.ran) == 1
    assert len(list(daemon.ask(lambda db: list(contents.everything(db))))) == 4


def test_an_idle_main_loop_writes_nothing_and_old_groups_cost_nothing(daemons):
    daemon = daemons()
    daemon.land(*example1())
    daemon.run(3600, step=60)
    wrote = daemon.ledger.wrote_at
    for _ in range(20):
        daemon.main_loop.tick(daemon.now)
    assert daemon.ledger.wrote_at == wrote


def test_sky_that_comes_later_is_borrowed_and_remakes(daemons):
    daemon = daemons()
    night = example1()
    daemon.land(*night[15:35], *night[35:45])
    daemon.land(*(frame("science", n, 30 * n, ra=148.0) for n in range(1, 7)))
    daemon.run(600)
    assert "separateSky:ref_sky" not in daemon.current()["N20160102S0002_image"]
    sky = {"ra": 148.0, "dec": 10.05, "observation_id": "GN-2015B-Q-1-sky"}
    daemon.land(frame("science", 11, 330, **sky))
    daemon.run(600)
    made = dict(json.loads(daemon.current()["N20160102S0002_image"])["parameters"])
    assert made["separateSky:ref_sky"] == "N20160102S0011.fits"


def test_sky_is_borrowed_from_as_far_as_the_policy_says_whichever_comes_first(daemons):
    """It once was 900 s for sky that came later, whatever the policy said."""
    night = example1()
    science = [frame("science", n, 30 * n, ra=148.0) for n in range(1, 7)]
    sky = frame("science", 200, 6000, ra=148.0, dec=10.05, observation_id="GN-2015B-Q-1-sky")
    made = []
    for landing in ([sky], science), (science, [sky]):
        daemon = daemons(policy=Policy(borrow_sky_seconds=7200.0))
        daemon.land(*night[15:45])
        for frames in landing:
            daemon.land(*frames)
            daemon.run(600)
        product = json.loads(daemon.current()["N20160102S0002_image"])
        made.append(dict(product["parameters"]).get("separateSky:ref_sky"))
    assert made == ["N20160102S0200.fits"] * 2


def test_a_producer_that_fails_lets_its_waiters_go_on(daemons):
    daemon = daemons(engine=FakeEngine(endings={"N20160102S0373_bpm": ["failed"]}))
    daemon.land(*example1())
    daemon.until_idle()
    assert set(daemon.current()) == FINAL - {"N20160102S0373_bpm"}


class SlowScience(FakeEngine):
    """Science takes as long as `slow` is set."""

    slow = True

    def poll(self):
        done = [job for job in self.running if not (self.slow and job[2].name == "N20160102S0271_image")]
        self.running = [job for job in self.running if job not in done]
        return [self.run(*job) for job in done]


def test_a_job_whose_calibration_is_replaced_while_it_runs_gives_way_to_its_successor(daemons):
    """Mask and new flat are made while the science runs with the old flat: it is made again, no more."""
    daemon = daemons(engine=SlowScience())
    daemon.land(*example1()[:45])
    daemon.run(600)
    assert [spec.name for _, _, spec in daemon.engine.running] == ["N20160102S0271_image"]
    daemon.land(*example1()[45:])
    daemon.run(600)
    assert "N20160102S0373_bpm" in daemon.current()
    daemon.engine.slow = False
    daemon.run(3600)
    assert daemon.ask(questions.counts)["jobs"].keys() <= {"done", "dropped"}
    at_once = daemons()
    at_once.land(*example1())
    at_once.until_idle()
    assert daemon.current() == at_once.current()


def test_what_was_right_before_is_brought_back_not_made_again(daemons):
    daemon = daemons()
    darks = [frame("dark", n, 30 * n) for n in range(1, 6)]
    daemon.land(*darks)
    daemon.run(300)
    first = daemon.current()
    for state, reason in (("EXCLUDED", "rejected"), ("READY", "accepted"), ("EXCLUDED", "rejected")):
        daemon.ledger.write(
            lambda tx, s=state, r=reason: files.set_state(tx, 5, FileState[s], r, daemon.setting)
        )
        daemon.run(300)
        assert (daemon.current() == first) == (state == "READY")
    assert len(daemon.engine.ran) == 2
    on_disk = {p.name for p in daemon.products.rglob("N*.fits")}
    assert on_disk == {"N20160102S0001_dark.fits", "N20160102S0001_dark.v0001.fits"}
    assert len(list(daemon.products.rglob("N*.png"))) == 2
    kept = next(daemon.products.rglob("*.v0001.fits"))
    kept.unlink()  # as retention does
    daemon.ledger.write(lambda tx: files.set_state(tx, 5, FileState.READY, "accepted", daemon.setting))
    daemon.run(300)
    assert len(daemon.engine.ran) == 3
    assert daemon.engine.ran[2].key != daemon.engine.ran[0].key
    assert daemon.rows("SELECT MAX(runs) AS n FROM accounting") == [{"n": 1}]
