"""The calibration store on a real file: alone, and inside the ledger's transactions."""

from datetime import UTC, datetime, timedelta

import pytest

from daemon.ledger.store import Ledger
from pipeline.association import RULES, CalKind, Candidate, Found, Missing
from pipeline.calibrations import caldb
from pipeline.errors import ConfigError
from tests.night import describe

TARGET = describe("science", 1, 0)


def dark(name="N20160102S0423_dark", days=0.0, version="a", **facts):
    rule = RULES[CalKind.DARK]
    values = {f: getattr(TARGET, f) for f in (*rule.match, *rule.tolerance)} | facts
    ut = TARGET.ut_datetime + timedelta(days=days)
    return Candidate(
        CalKind.DARK,
        name,
        f"key {name} {version}",
        values,
        ut,
        path=f"/products/{name}.fits",
        sha256=f"sha {name} {version}",
        origin=f"group of {name}",
    )


@pytest.fixture
def store(tmp_path):
    store = caldb.open_store(tmp_path / "cal_manager.db")
    yield store
    store.db.close()


def test_what_is_added_is_found_and_comes_back_whole(store):
    added = store.add(dark())
    found = store.best_match(CalKind.DARK, TARGET)
    assert isinstance(found, Found)
    assert found.candidate == added
    assert added.ut == TARGET.ut_datetime
    assert store.add(dark()) == added  # the same twice is one
    assert store.list() == [added]


def test_the_nearest_in_time_are_those_of_a_look_at_all(store, monkeypatch):
    """By index from both sides: also where all are on one side, or as far on either."""
    monkeypatch.setattr(caldb, "MOST_FOR_EXPLAIN", 20)
    days = [*range(-15, 16), *([3, -3, 0] * 4), *(0.5 * n for n in range(40, 80))]
    made = [store.add(dark(f"N20160102S{n:04d}_dark", d, exposure_time=n)) for n, d in enumerate(days)]
    store.remove(made[15].name, "bad")
    ids = {candidate.ident: n for n, candidate in enumerate(made)}
    for shift in (-40.0, -15.0, -2.5, 0.0, 7.0, 100.0):
        target = describe("science", 1, 86400 * shift)
        far = {c.ident: abs((c.ut - target.ut_datetime).total_seconds()) for c in made if c is not made[15]}
        wanted = sorted(far, key=lambda ident: (far[ident], ids[ident]))[:20]
        assert [c.ident for c in store.candidates(CalKind.DARK, target, exact=False)] == wanted


def test_a_newer_version_replaces_the_older_one(store):
    store.add(dark())
    newer = store.add(dark(version="b"))
    assert store.list() == [newer]
    renamed = store.add(Candidate(**{**vars(dark("other", version="c")), "origin": newer.origin}))
    assert store.list() == [renamed]
    assert not store.withdrawn(newer.ident)  # it was replaced, not taken away
    store.remove("other", "bad")
    assert store.withdrawn(renamed.ident)
    assert not store.withdrawn("never heard of")


def test_other_bytes_at_a_path_replace_what_was_there(store):
    flat = Candidate(**{**vars(dark()), "origin": "", "ident": "x", "sha256": "y"})
    store.add(dark())
    store.add(flat)
    assert [c.ident for c in store.list()] == ["x"]


def test_only_what_agrees_is_read_and_explain_reads_the_rest(store):
    store.add(dark("agrees"))
    store.add(dark("other mode", read_mode="High Background"))
    store.add(dark("too far", days=200))
    store.add(dark("other exposure", exposure_time=20.5))
    assert {c.name for c in store.candidates(CalKind.DARK, TARGET)} == {"agrees", "other exposure"}
    store.remove("agrees", "for the test")
    missing = store.best_match(CalKind.DARK, TARGET)
    assert isinstance(missing, Missing)
    why = {r.candidate.name: " ".join(r.failed) for r in missing.rejected}
    assert why["other mode"] == "read_mode High Background, wanted Low Background"
    assert "200.0 days from the frame" in why["too far"]
    assert why["other exposure"] == "exposure_time 20.5, wanted 20.002 within 0.01"


def test_a_path_need_not_be_text(store):
    odd = Candidate(**{**vars(dark()), "path": b"/drop/\xff\xfe.fits".decode(errors="surrogateescape")})
    store.add(odd)
    assert store.get(odd.path).path == odd.path
    assert store.remove(odd.path, "x")[0].name == odd.name
    assert store.get(odd.path) is None


def test_two_stores_are_two(tmp_path):
    first, second = caldb.open_store(tmp_path / "1.db"), caldb.open_store(tmp_path / "2.db")
    first.add(dark())
    assert (len(first.list()), len(second.list())) == (1, 0)
    first.db.close()
    second.db.close()


def test_a_newer_schema_stops_the_program(store, tmp_path):
    store.db.execute_sql("UPDATE schema SET version = 99 WHERE component = 'caldb'")
    with pytest.raises(ConfigError, match="caldb is of schema 99"):
        caldb.CalStore(store.db)


def test_it_commits_and_rolls_back_with_the_ledger(tmp_path):
    ledger = Ledger(tmp_path / "nirid.db")

    def fails(tx):
        tx.cals.add(dark())
        tx.insert("event", at=1.0, event="x", fields="{}")
        raise RuntimeError("now")

    with pytest.raises(RuntimeError, match="now"):
        ledger.write(fails)
    assert ledger.write(lambda tx: (tx.cals.list(), tx.rows("SELECT * FROM event"))) == ([], [])
    ledger.write(lambda tx: tx.cals.add(dark()))
    assert len(ledger.write(lambda tx: tx.cals.list())) == 1
    ledger.close()
    readonly = caldb.open_store(tmp_path / "nirid.db", readonly=True)
    assert isinstance(readonly.best_match(CalKind.DARK, TARGET), Found)
    readonly.db.close()


def test_an_external_calibration_needs_a_time():
    found = caldb.external(CalKind.FLAT, "/drop/a_flat.fits", "sha", TARGET)
    assert (found.name, found.ident, found.origin) == ("a_flat", "sha", "")
    undated = type(TARGET)(**{**vars(TARGET), "ut_datetime": None})
    with pytest.raises(ValueError, match="no time of observation"):
        caldb.external(CalKind.FLAT, "/drop/a_flat.fits", "sha", undated)
    assert found.ut < datetime.now(UTC)
