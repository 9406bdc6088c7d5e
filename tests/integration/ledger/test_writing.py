"""One writer, many readers, and what survives: transactions, schemas, indexes, a kill."""

import random
import shutil
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing
from dataclasses import replace

import pytest

from daemon.ledger import questions, schema, store
from daemon.ledger.store import Ledger, LedgerBusy, connect_readonly, on_paper
from pipeline.errors import ConfigError
from tests.integration.ledger.helpers import rows, states, take
from tests.night import Daemon, example1, frame, static_bpm


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
        assert db.execute("SELECT version FROM schema WHERE component = 'ledger'").fetchone()[0] == 5
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
