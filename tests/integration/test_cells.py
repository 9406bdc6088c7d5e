"""Cells that hold what their column is not for are found, and the database is made anew."""

import contextlib
import json
import sqlite3

import pytest
from click.testing import CliRunner

from daemon import cli
from daemon.config import load
from daemon.ledger import cells
from daemon.ledger.cells import _JSON, _MAY_BE_EMPTY, damaged
from daemon.ledger.store import connect_readonly
from daemon.upkeep import doctor
from tests.night import example1, static_bpm

DAMAGE = ("", "{", "nonsense", "7", '"x"', "[[", b"\xff\x00", None, "[" * 3000, "[]x")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A night that is done, closed."""
    from tests.night import Daemon

    folder = tmp_path_factory.mktemp("night")
    daemon = Daemon(folder, looks=True)
    daemon.land(*example1()[:4])
    daemon.run(10)  # with looks
    daemon.land(*example1(), static_bpm())
    daemon.until_idle()
    daemon.decide("reject", "N20160102S0425.fits", reason="trailed")
    daemon.until_idle()
    daemon.close()
    return folder


@pytest.fixture
def database(made, tmp_path):
    copy = tmp_path / "state" / "nirid.db"
    copy.parent.mkdir()
    copy.write_bytes((made / "nirid.db").read_bytes())
    return copy


def spoil(database, table, column, value):
    with contextlib.closing(sqlite3.connect(database)) as db:
        db.execute("PRAGMA ignore_check_constraints = 1")
        try:
            changed = db.execute(
                f"UPDATE {table} SET {column} = ? WHERE rowid = (SELECT MIN(rowid) FROM {table})", (value,)
            ).rowcount
            db.commit()
        except sqlite3.IntegrityError:  # NULL where the schema says no: cannot be there
            return False
    return bool(changed)


def test_a_whole_database_has_no_damaged_cells(database):
    with contextlib.closing(connect_readonly(database)) as db:
        assert cells.damaged_cells(db) == []


@pytest.mark.parametrize("place", [name for name in _JSON if not name.startswith(("intent", "search"))])
def test_every_kind_of_damage_to_every_cell_of_json_is_found(database, place):
    table, _, column = place.partition(".")
    whole = database.read_bytes()
    tried = 0
    for value in DAMAGE:
        if value == "" and place in _MAY_BE_EMPTY:
            continue
        database.write_bytes(whole)
        if spoil(database, table, column, value):
            tried += 1
            assert place in damaged(database), f"{value!r} passes"
    assert tried >= len(DAMAGE) - 2


def test_a_word_that_is_no_state_and_a_number_that_is_text(database):
    assert spoil(database, "job", "state", "asleep")
    assert spoil(database, "content", "first_seen", "yesterday")
    with contextlib.closing(connect_readonly(database)) as db:
        assert {cell.rpartition(" of ")[0] for cell in cells.damaged_cells(db)} == {
            "job.state",
            "content.first_seen",
        }


def test_commands_say_so_in_one_line(database, tmp_path):
    spoil(database, "job", "spec", "{")
    spoil(database, "content", "descriptors", "[")
    given = {"state.folder": str(database.parent), "watch.folders": [str(tmp_path / "drop")]}
    (finding,) = doctor._database(load.load(None, given))
    assert finding.level == "wrong"
    assert "job.spec" in finding.text
    cli._add_commands()
    for words in (["audit"], ["explain", "job:1"]):
        answer = CliRunner().invoke(cli.cli, ["--state", str(database.parent), *words])
        assert "is damaged" in str(answer.exception), words


def test_bytes_that_are_no_text_are_shown_and_no_error(database):
    with contextlib.closing(sqlite3.connect(database)) as db:
        db.execute("UPDATE content SET reason = CAST(X'FF41' AS TEXT)")
        db.commit()
    with contextlib.closing(connect_readonly(database)) as db:
        assert db.execute("SELECT reason FROM content").fetchone()[0] == "�A"


def test_json_is_what_the_ledger_writes(database):
    """The table of cells names every column that holds JSON."""
    with contextlib.closing(connect_readonly(database)) as db:
        tables = [row[0] for row in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        for table in tables:
            for row in db.execute(f"SELECT * FROM {table} LIMIT 20").fetchall():
                for column in row.keys():  # noqa: SIM118  a sqlite3.Row
                    value = row[column]
                    text = isinstance(value, str) and value[:1] in ("[", "{")
                    if text and f"{table}.{column}" != "frame_group.key":  # never read, only compared
                        json.loads(value)
                        assert f"{table}.{column}" in _JSON
