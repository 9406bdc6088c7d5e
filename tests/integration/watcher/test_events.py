"""Events are hints: every way of delivery, bursts, and what is lost."""

import logging
import os

from tests.fitsfiles import frame_bytes


def test_every_way_of_delivery_is_hinted(make, tmp_path):
    drop = make()
    assert drop.watcher.modes == {str(drop.folder): "native"}
    drop.put("written.fits", frame_bytes())
    drop.put(".hidden.fits.Xy12").rename(drop.folder / "renamed.fits")
    (tmp_path / "outside.fits").write_bytes(b"x")
    os.link(tmp_path / "outside.fits", drop.folder / "linked.fits")
    os.rename(tmp_path / "outside.fits", drop.folder / "moved.FITS.GZ")
    assert drop.hinted("written.fits", "renamed.fits", "linked.fits", "moved.FITS.GZ")
    assert drop.moved == {"renamed.fits"}


def test_names_that_are_not_ours_are_not_hinted(make):
    drop = make()
    for name in (".N1.fits", "N1.fits.part", "notes.txt", "N1.fits~"):
        drop.put(name)
    drop.put("N1.fits")
    assert drop.hinted("N1.fits")
    assert drop.seen == {"N1.fits"}


def test_a_folder_moved_in_is_found_with_all_inside(make, tmp_path):
    drop = make()
    night = tmp_path / "20160102"
    night.mkdir()
    for i in range(5):
        (night / f"N{i}.fits").write_bytes(b"x")
    night.rename(drop.folder / "20160102")
    assert drop.asked_to_sweep()
    assert drop.swept() == [f"20160102/N{i}.fits" for i in range(5)]
    drop.put("20160102/N9.fits")
    assert drop.hinted("20160102/N9.fits")


def test_names_that_are_no_text(make):
    drop = make()
    with open(os.fsencode(drop.folder) + b"/N\xff\n.fits", "wb"):
        pass
    assert drop.hinted(os.fsdecode(b"N\xff\n.fits"))
    assert len(drop.swept()) == 1


def test_a_burst_beyond_the_limit_asks_for_a_sweep_instead(make):
    drop = make(hint_limit=10)
    for i in range(50):
        drop.put(f"N{i:02}.fits")
    assert drop.asked_to_sweep()
    assert drop.watcher.overflows
    assert len(drop.swept()) == 50


def test_events_that_the_kernel_dropped_ask_for_a_sweep(make, caplog):
    caplog.set_level(logging.ERROR)  # also when our own log is quiet
    drop = make()
    logging.getLogger("watchdog.observers.inotify_c").warning(
        "Inotify queue overflowed; filesystem events were lost"
    )
    assert drop.asked_to_sweep()
    assert drop.watcher.overflows == 1


def test_an_error_in_the_handler_does_not_kill_the_observer(make, monkeypatch):
    drop = make()
    monkeypatch.setattr(drop.watcher, "hint", None)  # not callable: the handler fails
    drop.put("N1.fits")
    assert drop.asked_to_sweep()
    monkeypatch.undo()
    drop.put("N2.fits")
    assert drop.hinted("N2.fits")
    assert drop.watcher.healthy()[0]
