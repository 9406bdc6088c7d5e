"""What landed: each content in one state, frames in their groups."""

from collections import Counter
from dataclasses import replace

import pytest

from daemon.ledger import contents, files, questions
from daemon.ledger.store import Ledger
from daemon.model.files import FileRecord, Signature
from daemon.model.states import FileState, IllegalTransition
from tests.integration.ledger.helpers import rows, states, take
from tests.night import example1, frame, setting, static_bpm


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
