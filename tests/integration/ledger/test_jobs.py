"""Jobs in the ledger: claimed once, planned without harm, the right one first."""

import threading
from dataclasses import replace

from daemon.ledger import files, jobs, questions
from tests.integration.ledger.helpers import rows, take
from tests.night import frame


def planned(daemon, starts=(1,)):
    """One planned job for each start; nothing runs."""
    daemon.engine.workers = 0
    for start in starts:
        daemon.land(*(frame("dark", n, 9000 * start + n) for n in range(start, start + 3)))
    daemon.run(300)


def test_of_many_threads_that_claim_a_job_one_wins(daemon):
    planned(daemon)
    won, barrier = [], threading.Barrier(8)

    def grab():
        barrier.wait()
        won.append(daemon.ledger.write(lambda tx: jobs.claim_job(tx, 1)))

    threads = [threading.Thread(target=grab) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [c.attempt for c in won if c] == [1]
    assert daemon.rows("SELECT state, attempts FROM job") == [{"state": "running", "attempts": 1}]
    assert daemon.rows("SELECT COUNT(*) AS n FROM attempt") == [{"n": 1}]


def test_planning_twice_is_harmless(daemon):
    planned(daemon)
    before = daemon.rows("SELECT id, key, state, planned_at FROM job")
    daemon.ledger.write(lambda tx: tx.run("UPDATE frame_group SET touched = 1"))
    daemon.run(10)
    assert daemon.rows("SELECT id, key, state, planned_at FROM job") == before
    assert [e for e, _ in daemon.events].count("job_planned") == 1


def test_after_a_crash_running_jobs_are_planned_with_one_attempt_used(daemon):
    planned(daemon, (1, 11))
    claimed = daemon.ledger.write(jobs.claim)
    assert daemon.ledger.write(jobs.recover_interrupted) == 1
    state = daemon.rows("SELECT state, attempts, interruptions FROM job WHERE id = " + str(claimed.job_id))
    assert state == [{"state": "planned", "attempts": 1, "interruptions": 1}]
    assert daemon.rows("SELECT outcome FROM attempt") == [{"outcome": "interrupted"}]
    daemon.engine.workers = 2
    daemon.run(10)
    assert len(daemon.current()) == 2


def test_a_running_group_gives_out_no_second_job(daemon):
    planned(daemon)
    assert daemon.ledger.write(jobs.claim) is not None
    daemon.land(frame("dark", 9, 9010))
    daemon.run(300)
    assert daemon.ask(questions.counts)["jobs"] == {"running": 1, "planned": 1}
    assert daemon.ledger.write(jobs.claim) is None


def test_an_earlier_frame_becomes_the_first_of_its_group(ledger):
    """So its exposure decides who belongs, as though it had come first."""
    late = [frame("dark", n, 100 * n, exposure_time=10.009 + 0.0098 * (n == 5)) for n in (4, 5, 6)]
    take(ledger, *late)
    assert rows(ledger, "SELECT COUNT(*) FROM frame_group WHERE NOT closed") == [(1,)]
    take(ledger, frame("dark", 1, 100, exposure_time=10.0))
    found = rows(
        ledger, "SELECT exposure, first_ut, last_ut FROM frame_group WHERE NOT closed ORDER BY first_ut"
    )
    start = late[0].descriptors.ut_datetime.timestamp() - 400
    assert found == [(10.0, start + 100, start + 600), (10.0188, start + 500, start + 500)]


def test_a_group_runs_one_job_at_a_time(daemon):
    daemon.engine.held = True
    daemon.land(*(frame("dark", n, n) for n in range(1, 4)))
    daemon.run(200)
    daemon.land(frame("dark", 9, 9))
    daemon.run(200)
    assert daemon.ask(questions.counts)["jobs"] == {"running": 1, "planned": 1}
    daemon.engine.held = False
    daemon.run(10)
    product = daemon.ask(questions.products)[0]
    assert (product["version"], len(daemon.ask(questions.jobs, ["done"])[0]["inputs"])) == (2, 4)


def test_a_product_did_not_wait_for_a_frame_that_came_after_it(daemon):
    daemon.land(*(frame("dark", n, n) for n in range(1, 4)))
    daemon.run(200)
    assert daemon.ask(questions.products)[0]["waited"] > 0
    daemon.engine.workers = 0
    daemon.now += 100
    daemon.land(frame("dark", 9, 9))
    assert daemon.ask(questions.products)[0]["waited"] is None


def test_fresh_work_goes_first_and_now_and_then_the_oldest(daemon):
    day = 86400
    daemon.engine.workers = 0
    for start, ut in ((100, 0), (200, 10 * day), (300, 20 * day)):
        daemon.land(*(frame("dark", n, ut + n) for n in range(start, start + 3)))
    daemon.run(300)
    names = []
    for oldest in (False, True, False):
        names.append(daemon.ledger.write(lambda tx, o=oldest: jobs.claim(tx, oldest=o)).spec.name)
    assert names == [f"N20160102S0{n}_dark" for n in (300, 100, 200)]


def test_what_a_fresh_job_waits_for_goes_before_other_calibrations(daemon):
    daemon.engine.workers = 0
    lamps = {"exposure_time": 42.0, "coadds": 1}
    daemon.land(*(frame("dark", n, 50_000 + n, exposure_time=99.0) for n in range(1, 4)))  # nobody's
    daemon.land(*(frame("lampoff", n, 20_000 + n, **lamps) for n in range(11, 14)))
    daemon.land(*(frame("lampon", n, 20_100 + n, **lamps) for n in range(21, 24)))
    short = {"exposure_time": 1.0, "coadds": 1}
    daemon.land(*(frame("dark", n, 30_000 + n, **short) for n in range(41, 44)))
    daemon.land(*(frame("science", n, n) for n in range(31, 36)))
    daemon.run(300)
    priority = {
        j["name"]: p["priority"]
        for j, p in zip(
            sorted(daemon.ask(questions.jobs), key=lambda j: j["id"]),
            daemon.rows("SELECT priority FROM job ORDER BY id"),
            strict=True,
        )
    }
    assert priority["N20160102S0021_bpm"] == 1  # the flat waits for it, the science for the flat
    assert priority["N20160102S0001_dark"] == 4


def test_a_frame_is_called_by_its_right_name_though_a_copy_came_first(daemon):
    darks = [frame("dark", n, 30 * n) for n in (1, 2, 3)]
    daemon.land(replace(darks[0], path="/drop/a copy.fits"), *darks)
    daemon.run(300)
    assert set(daemon.current()) == {"N20160102S0001_dark"}


def test_a_header_that_is_gone_counts_only_when_no_other_is_there(daemon):
    darks = [frame("dark", n, 30 * n) for n in (1, 2, 3, 4)]
    daemon.land(*darks)
    daemon.run(300)
    failed = replace(darks[1], state="excluded", reason="Fail", file_sha="f" * 64, path="/drop/moved/x.fits")
    daemon.ledger.write(lambda tx: files.gone(tx, darks[1].path, daemon.setting))
    daemon.run(300)
    assert len(daemon.engine.ran) == 1
    daemon.land(failed)  # edited and moved between two looks
    daemon.run(300)
    assert [spec.inputs[1].name for spec in daemon.engine.ran] == [
        "N20160102S0002.fits",
        "N20160102S0003.fits",
    ]


def test_names_that_are_swapped_change_nothing_but_the_paths(daemon):
    darks = [frame("dark", n, 30 * n) for n in (1, 2, 3)]
    daemon.land(*darks)
    daemon.run(300)
    daemon.land(replace(darks[0], path=darks[1].path), replace(darks[1], path=darks[0].path))
    daemon.run(300)
    assert len(daemon.engine.ran) == 1
    with daemon.ledger.read() as db:
        paths = {row["sha256"]: row["path"] for row in questions.files_on_record(db)}
    assert paths[darks[0].file_sha] == darks[1].path
    assert paths[darks[1].file_sha] == darks[0].path
