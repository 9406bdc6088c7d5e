"""The ledger on a real file: one writer, many threads, and what landed."""

import os
import random
import shutil
import sqlite3
import subprocess
import sys
import threading
from collections import Counter
from contextlib import closing
from dataclasses import replace

import pytest

from daemon.ledger import contents, files, jobs, questions, schema, store
from daemon.ledger.store import Ledger, LedgerBusy, connect_readonly, on_paper
from daemon.model.files import FileRecord, Signature
from daemon.model.states import FileState, IllegalTransition
from pipeline.errors import ConfigError
from tests.night import Daemon, example1, frame, setting, static_bpm


@pytest.fixture
def ledger(tmp_path):
    made = Ledger(tmp_path / "nirid.db")
    yield made
    made.close()


def take(ledger, *records):
    for record in records:
        ledger.write(lambda tx, r=record: files.record(tx, r, setting()))


def states(ledger):
    with ledger.read() as db:
        return {os.path.basename(r["path"]): r["state"] for r in questions.files_on_record(db)}


def rows(ledger, sql):
    with ledger.read() as db:
        return [tuple(row) for row in db.execute(sql)]


# -- writing -----------------------------------------------------------------------------------


def test_threads_write_one_after_the_other(ledger):
    def count():
        for _ in range(50):
            ledger.write(lambda tx: tx.counter("n"))

    threads = [threading.Thread(target=count) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert ledger.write(lambda tx: tx.counter("n")) == 401


def test_an_error_rolls_back_and_the_writer_lives(ledger):
    def fails(tx):
        tx.counter("n")
        raise KeyError("x")

    with pytest.raises(KeyError):
        ledger.write(fails)
    assert ledger.write(lambda tx: tx.counter("n")) == 1
    with pytest.raises(RuntimeError, match="inside a write"):
        ledger.write(lambda tx: ledger.write(lambda tx: 1))


def test_readers_cannot_write_and_see_one_snapshot(ledger):
    with ledger.read() as db:
        with pytest.raises(sqlite3.OperationalError, match="readonly"):
            db.execute("INSERT INTO meta VALUES ('x', 1)")
        before = db.execute("SELECT COUNT(*) FROM meta").fetchone()[0]
        ledger.write(lambda tx: tx.counter("n"))
        assert db.execute("SELECT COUNT(*) FROM meta").fetchone()[0] == before
    assert rows(ledger, "SELECT COUNT(*) FROM meta") == [(before + 1,)]


def test_nobody_else_can_write_between_a_read_and_a_write(ledger, tmp_path):
    other = sqlite3.connect(tmp_path / "nirid.db", isolation_level=None, timeout=0, check_same_thread=False)

    def read_then_write(tx):
        tx.rows("SELECT * FROM meta")
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            other.execute("INSERT INTO meta VALUES ('other', 1)")
        return tx.counter("n")

    assert ledger.write(read_then_write) == 1
    other.close()


def test_a_database_that_is_locked_is_busy_not_broken(ledger, tmp_path):
    ledger.write(lambda tx: tx.db.execute_sql("PRAGMA busy_timeout").fetchone())
    other = sqlite3.connect(tmp_path / "nirid.db", isolation_level=None)
    # A pragma needs no lock, so it can be shortened from inside a transaction.
    ledger.write(lambda tx: tx.db.execute_sql("PRAGMA busy_timeout = 1"))
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(LedgerBusy, match="locked"):
        ledger.write(lambda tx: tx.counter("n"))
    other.execute("ROLLBACK")
    other.close()
    assert ledger.write(lambda tx: tx.counter("n")) == 1


def test_a_full_disk_is_told_as_such(ledger):
    ledger.write(lambda tx: tx.run("PRAGMA max_page_count = 1"))  # no page more than there are now
    with pytest.raises(LedgerBusy, match="disk is full"):  # work pauses for what says so
        ledger.write(lambda tx: [tx.event("long", text="x" * 1000) for _ in range(1000)])
    ledger.write(lambda tx: tx.run("PRAGMA max_page_count = 100000"))
    assert ledger.write(lambda tx: tx.one("SELECT COUNT(*) FROM event WHERE event = 'long'")[0]) == 0


def test_events_are_kept_with_the_transaction_and_logged_after_it(tmp_path):
    said = []
    ledger = Ledger(tmp_path / "nirid.db", log=lambda event, **fields: said.append((event, fields)))
    ledger.write(lambda tx: tx.event("job_done", job=7, path="\udcff"))

    def fails(tx):
        tx.event("never")
        raise KeyError

    with pytest.raises(KeyError):
        ledger.write(fails)
    assert said == [("job_done", {"job": 7, "path": "\udcff"})]
    assert rows(ledger, "SELECT event, job FROM event") == [("job_done", 7)]
    ledger.close()


def test_a_closed_ledger_is_one_file_that_others_can_read(tmp_path):
    ledger = Ledger(tmp_path / "nirid.db")
    take(ledger, frame("dark", 1, 0))
    with ledger.read():
        pass
    ledger.close()
    assert [p.name for p in tmp_path.iterdir()] == ["nirid.db"]
    db = connect_readonly(tmp_path / "nirid.db")
    assert questions.counts(db)["files"] == {"ready": 1}
    db.close()
    with on_paper(tmp_path / "nirid.db") as tx:
        assert tx.rows("SELECT * FROM content")
    assert [p.name for p in tmp_path.iterdir()] == ["nirid.db"]  # nor do they leave anything


def test_readers_see_what_is_only_in_the_log(tmp_path):
    ledger = Ledger(tmp_path / "nirid.db")
    ledger.write(lambda tx: tx.run("PRAGMA wal_autocheckpoint = 0"))
    take(ledger, frame("dark", 1, 0))
    with closing(connect_readonly(tmp_path / "nirid.db")) as db:
        assert questions.counts(db)["files"] == {"ready": 1}
    (tmp_path / "killed").mkdir()
    for file in tmp_path.glob("nirid.db*"):  # as kill -9 leaves them
        shutil.copy(file, tmp_path / "killed")
    with closing(connect_readonly(tmp_path / "killed/nirid.db")) as db:
        assert questions.counts(db)["files"] == {"ready": 1}
    ledger.close()


def test_a_newer_schema_is_refused(tmp_path):
    ledger = Ledger(tmp_path / "nirid.db")
    ledger.write(lambda tx: tx.run("UPDATE schema SET version = 99 WHERE component = 'ledger'"))
    ledger.close()
    with pytest.raises(ConfigError, match="ledger is of schema 99"):
        Ledger(tmp_path / "nirid.db")


def indexes(path):
    with closing(sqlite3.connect(path)) as db:
        return set(db.execute("SELECT name, tbl_name, sql FROM sqlite_master WHERE type = 'index'"))


def test_a_database_of_the_first_schema_is_brought_up_to_date(tmp_path):
    fresh, old = tmp_path / "fresh.db", tmp_path / "old.db"
    Ledger(fresh).close()
    ledger = Ledger(old)
    take(ledger, *example1())
    ledger.close()
    with closing(sqlite3.connect(old)) as db:
        db.executescript(
            """DROP INDEX job_queue; DROP INDEX job_makes_key_state;
            CREATE INDEX job_makes_key ON job (makes_key);
            CREATE INDEX job_state_priority_ut ON job (state, priority, ut);
            ALTER TABLE demand DROP COLUMN chosen;
            DROP TABLE job_calibration;
            CREATE TABLE job_calibration (job_id INTEGER NOT NULL, role TEXT NOT NULL, ident TEXT NOT NULL,
                name TEXT NOT NULL, PRIMARY KEY (job_id, role));
            UPDATE schema SET version = 1 WHERE component = 'ledger'"""
        )
    ledger = Ledger(old)
    assert len(states(ledger)) == len(example1())
    with ledger.read() as db:
        assert db.execute("SELECT version FROM schema WHERE component = 'ledger'").fetchone()[0] == 4
        assert sum(row["pk"] > 0 for row in db.execute("PRAGMA table_info(job_calibration)")) == 3
    ledger.close()
    assert indexes(old) == indexes(fresh)


def flats_of_two_lamps():
    """Ten minutes apart: the quartz lamp, lamp off, the grey body, each three times, and another filter."""
    lit = [frame("lampon", n, 20 * n, gcal_lamp_raw="QH") for n in range(1, 4)]
    off = [frame("lampoff", n, 20 * n + 600, gcal_lamp_raw="IRhigh") for n in range(4, 7)]
    grey = [frame("lampon", n, 20 * n + 1200, gcal_lamp_raw="IRhigh") for n in range(7, 10)]
    other = [frame("lampoff", n, 20 * n + 1200, gcal_filter="ND4-5") for n in range(10, 12)]
    return [*lit, *off, *grey, *other]


def groups_of(ledger, rule="makeProcessedFlat"):
    return sorted(
        tuple(sorted(row[0] for row in rows(ledger, f"""SELECT f.name FROM membership m JOIN frame f
            ON f.id = m.frame_id WHERE m.group_id = {group[0]}""")))
        for group in rows(ledger, f"SELECT id FROM frame_group WHERE rule = '{rule}' AND NOT closed")
    )  # fmt: skip


def test_the_lamp_groups_lamp_on_frames_only_in_any_order(tmp_path):
    """One set of lamp-off frames serves both lamps, whichever comes first; what is late finds its place."""
    names = [r.path.rpartition("/")[2] for r in flats_of_two_lamps()]
    quartz, off, grey, other = names[:3], names[3:6], names[6:9], names[9:]
    expected = sorted([tuple(quartz + off), tuple(off + grey), tuple(other)])
    for seed in range(12):
        ledger = Ledger(tmp_path / f"{seed}.db")
        night = flats_of_two_lamps()
        random.Random(seed).shuffle(night)
        take(ledger, *night)
        assert groups_of(ledger) == expected
        assert groups_of(ledger, "makeProcessedBPM") == expected
        # Without the lamps, the lamp-off frames are a group of their own again; back, they are as before.
        lit = [r for r in night if "LAMPON" in r.tags]
        for record in lit:
            gone = replace(record, tags=record.tags - {"LAMPON", "IMAGE"}, facts="as a spectrum")
            take(ledger, replace(gone, file_sha=f"new {record.file_sha}"))
        assert groups_of(ledger) == sorted([tuple(off), tuple(other)])
        ledger.close()


SMALL = {"intent", "removal", "search"}  # tables that hold only what is under way


def test_what_the_main_loop_asks_goes_by_index(tmp_path, monkeypatch):
    """The cost of a tick must not grow with the archive: no statement reads or sorts a table of it."""
    asked = set()

    def traced(make, connection_of):
        def opened(*args):
            made = make(*args)
            connection_of(made, *args).set_trace_callback(asked.add)
            return made

        return opened

    monkeypatch.setattr(store, "_reader", traced(store._reader, lambda made, uri: made))
    monkeypatch.setattr(store, "create_all", traced(schema.create_all, lambda made, db: db.connection()))
    daemon = Daemon(tmp_path)
    night = example1()
    daemon.land(*night[:5])
    daemon.run(120)
    daemon.land(*night[5:], static_bpm())  # live: looked at, waited for, planned, made, healed
    daemon.run(3600)
    told, plans = asked.copy(), {}
    assert len(daemon.current()) == 5
    with daemon.ledger.read() as db:
        for sql in told:
            never = "key IN ()" in sql or "(0 = 1)" in sql
            if sql.lstrip().startswith(("SELECT", "UPDATE", "DELETE", "WITH")) and not never:
                plans[sql] = [row["detail"] for row in db.execute(f"EXPLAIN QUERY PLAN {sql}")]
    daemon.close()
    assert len(plans) > 100
    bad = {
        (sql, line)
        for sql, lines in plans.items()
        for line in lines
        if line.startswith("SCAN ") and line.split()[1] not in SMALL | {"CONSTANT", "(subquery-2)"}
    }
    assert bad == set()
    claims = [lines for sql, lines in plans.items() if "ORDER BY j.priority, j.ut DESC" in sql]
    assert claims
    assert all("job_queue" in lines[0] and "B-TREE" not in " ".join(lines) for lines in claims)


def test_what_was_said_to_be_done_survives_a_kill(tmp_path):
    """kill -9 right after a write has returned, many times over: nothing of it is lost or half done."""
    program = (
        "import os, sys\nfrom daemon.ledger.store import Ledger\nledger = Ledger(sys.argv[1])\n"
        "print(ledger.write(lambda tx: tx.counter('n')), flush=True)\nos.kill(os.getpid(), 9)"
    )
    for expected in (1, 2, 3):
        done = subprocess.run(
            [sys.executable, "-c", program, str(tmp_path / "nirid.db")], capture_output=True, text=True
        )
        assert (done.returncode, done.stdout.strip()) == (-9, str(expected))


# -- what landed -------------------------------------------------------------------------------


def test_each_content_is_in_one_state(ledger):
    good = frame("dark", 1, 0)
    bad = FileRecord("/drop/x.fits", "refused", "GMOS", Signature(1, 2, 3, 4, 5), file_sha="b" * 64)
    ledger.write(lambda tx: files.seen(tx, "/drop/slow.fits"))
    cut = FileRecord("/drop/cut.fits", "incomplete", "100 of 200 bytes", Signature(1, 3, 3, 4, 5))
    take(ledger, good, bad, cut, static_bpm())
    assert Counter(states(ledger).values()) == Counter(
        ["ready", "refused", "seen", "incomplete", "calibration"]
    )
    assert {state for _, state, _ in rows(ledger, "SELECT * FROM accounting")} == {
        "ready",
        "refused",
        "calibration",
    }
    ledger.write(
        lambda tx: (files.gone(tx, "/drop/slow.fits", setting()), files.gone(tx, good.path, setting()))
    )
    assert states(ledger)["slow.fits"] == "vanished"
    assert states(ledger)["N20160102S0001.fits"] == "ready"  # it was read; that it went changes nothing
    whole = replace(frame("dark", 2, 30), path=cut.path)
    take(ledger, whole)
    assert states(ledger)["cut.fits"] == "ready"


def test_taking_the_same_again_changes_nothing(ledger):
    night = [*example1()[:12], static_bpm()]
    take(ledger, *night)
    before = [
        rows(ledger, f"SELECT * FROM {t} ORDER BY 1, 2") for t in ("content", "membership", "calibration")
    ]
    touched = rows(ledger, "SELECT id, touched FROM frame_group")
    take(ledger, *reversed(night))
    assert before == [
        rows(ledger, f"SELECT * FROM {t} ORDER BY 1, 2") for t in ("content", "membership", "calibration")
    ]
    assert rows(ledger, "SELECT id, touched FROM frame_group") == touched


def test_newer_content_at_a_path_supersedes_until_the_old_comes_back(ledger):
    old = frame("dark", 1, 0)
    new = replace(frame("dark", 1, 0), file_sha="n" * 64, data_sha="d" * 64)
    take(ledger, old, new)
    by_sha = {sha[:1]: state for sha, state, _ in rows(ledger, "SELECT * FROM accounting")}
    assert by_sha == {old.file_sha[0]: "superseded", "n": "ready"}
    assert len(rows(ledger, "SELECT * FROM membership")) == 1
    take(ledger, old)
    by_sha = {sha[:1]: state for sha, state, _ in rows(ledger, "SELECT * FROM accounting")}
    assert by_sha == {old.file_sha[0]: "ready", "n": "superseded"}
    assert rows(ledger, "SELECT reason FROM content WHERE state = 'ready'") == [("dark",)]  # as at first


def test_a_damaged_frame_is_in_its_group_until_it_comes_whole(ledger):
    whole = frame("science", 1, 0)
    lost = replace(whole, state="quarantined", reason="cut short", file_sha="d" * 64, data_sha="")
    take(ledger, lost, frame("science", 2, 60))
    members = "SELECT f.name, f.usable FROM frame f JOIN membership m ON m.frame_id = f.id ORDER BY f.ut"
    assert rows(ledger, members) == [("N20160102S0001.fits", 0), ("N20160102S0002.fits", 1)]
    take(ledger, whole)
    assert rows(ledger, members) == [("N20160102S0001.fits", 1), ("N20160102S0002.fits", 1)]
    assert len(rows(ledger, "SELECT 1 FROM frame_group WHERE NOT closed")) == 1


@pytest.mark.parametrize("end", ["whole", "given up", "gone"])
def test_a_frame_that_was_short_in_a_batch_is_in_its_group_until_it_comes_whole(ledger, end):
    whole = frame("science", 1, 0)
    short = replace(whole, state="incomplete", reason="cut short", file_sha="d" * 64, data_sha="")
    take(ledger, short, frame("science", 2, 60))
    members = "SELECT f.name, f.usable FROM frame f JOIN membership m ON m.frame_id = f.id ORDER BY f.ut"
    states = "SELECT substr(sha256, 1, 1), state FROM accounting WHERE state <> 'ready'"
    assert rows(ledger, members) == [("N20160102S0001.fits", 0), ("N20160102S0002.fits", 1)]
    ledger.write(lambda tx: files.seen(tx, whole.path))  # the daemon starts, and looks at it anew
    take(ledger, replace(short, file_sha="", descriptors=None))
    assert rows(ledger, members) == [("N20160102S0001.fits", 0), ("N20160102S0002.fits", 1)]
    if end == "whole":
        take(ledger, whole)
        assert rows(ledger, states) == [("d", "superseded")]
    elif end == "given up":
        take(ledger, replace(short, state="quarantined"))
        assert rows(ledger, states) == [("d", "quarantined")]
    else:
        ledger.write(lambda tx: files.gone(tx, whole.path, setting()))
        assert rows(ledger, states) == [("d", "vanished")]
    assert rows(ledger, members) == [("N20160102S0001.fits", int(end == "whole")), ("N20160102S0002.fits", 1)]


def test_a_copy_elsewhere_keeps_the_content_alive(ledger):
    old = frame("dark", 1, 0)
    take(ledger, old, replace(old, path="/drop/copy.fits"))
    take(ledger, replace(old, file_sha="n" * 64, data_sha="d" * 64))
    assert {s for _, s, _ in rows(ledger, "SELECT * FROM accounting")} == {"ready"}


def test_a_calibration_follows_its_drop_folder_to_another_disk(ledger, tmp_path):
    """The old folder is not watched any more, so that nobody says that its files are gone."""
    old, new = tmp_path / "old.fits", tmp_path / "new.fits"
    old.touch()
    new.touch()
    at = [replace(static_bpm(), path=str(path)) for path in (old, new)]
    take(ledger, at[0], at[1])
    assert rows(ledger, "SELECT path FROM calibration") == [(str(old).encode(),)]
    old.unlink()
    take(ledger, at[1])
    assert rows(ledger, "SELECT path FROM calibration") == [(str(new).encode(),)]


def test_an_edited_header_is_another_version_of_one_frame(ledger):
    old = frame("science", 1, 0)
    take(ledger, old)
    comment = replace(old, file_sha="c" * 64)  # the same pixels and facts
    touched = rows(ledger, "SELECT touched FROM frame_group")
    take(ledger, comment)
    assert rows(ledger, "SELECT touched FROM frame_group") == touched
    other = frame("science", 1, 0, filter_name="J_G0202")
    take(ledger, replace(other, data_label=old.data_label, data_sha=old.data_sha))
    assert len(rows(ledger, "SELECT * FROM frame")) == 1
    keys = rows(ledger, "SELECT key FROM frame_group WHERE NOT closed")
    assert len(keys) == 1
    assert "J_G0202" in keys[0][0]


def test_of_two_header_versions_at_once_the_same_counts_whichever_came_first(tmp_path):
    one = frame("science", 1, 0)
    other = replace(
        frame("science", 1, 0, filter_name="J_G0202"),
        path="/drop/copy.fits",
        data_label=one.data_label,
        data_sha=one.data_sha,
    )
    found = []
    for order in ((one, other), (other, one)):
        ledger = Ledger(tmp_path / f"{len(found)}.db")
        take(ledger, *order)
        found.append(rows(ledger, "SELECT name, facts, descriptors FROM frame"))
        ledger.close()
    assert found[0] == found[1]
    assert found[0][0][0] == "N20160102S0001.fits"


def test_a_persons_exclusion_stays_when_the_same_bytes_come_again(ledger):
    record = frame("dark", 1, 0)
    take(ledger, record)
    ledger.write(lambda tx: files.set_state(tx, 1, FileState.EXCLUDED, "rejected by me", setting()))
    take(ledger, replace(record, path="/drop/again.fits"))
    assert rows(ledger, "SELECT state, reason FROM content") == [("excluded", "rejected by me")]
    with pytest.raises(IllegalTransition):
        ledger.write(lambda tx: files.set_state(tx, 1, FileState.SEEN, "x", setting()))


def test_odd_names_are_data(ledger):
    path = b"/drop/\xff'; DROP TABLE content; --\n.fits".decode(errors="surrogateescape")
    take(ledger, replace(frame("dark", 1, 0), path=path))
    with ledger.read() as db:
        assert [r["paths"] for r in contents.everything(db)] == [[path]]
        assert [p for p, _ in questions.settled_files(db)] == [path]


# -- jobs --------------------------------------------------------------------------------------


@pytest.fixture
def daemon(tmp_path):
    made = Daemon(tmp_path)
    yield made
    made.close()


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
