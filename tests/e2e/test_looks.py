"""The installed program while a sequence is being taken: something to see after every frame."""

import json
import os
import shutil
import signal
import subprocess

from astropy.io import fits

from tests.e2e.test_night import TINY, Place, frames, place, tiny_night, wait_for  # noqa: F401  (fixtures)
from tests.readers import read_by_all


def folder(path):
    path.mkdir()
    return Place(path)


def deliver(source, place):  # noqa: F811
    part = place.drop / f".{source.name}.part"
    shutil.copy(source, part)
    os.replace(part, place.drop / source.name)


def test_looks_and_a_stack_that_becomes_the_product(place, tiny_night, tmp_path):  # noqa: F811
    made = folder(tmp_path / "calibrations")
    for path in frames(tiny_night):
        shutil.copy(path, made.drop)
    made.run()
    calibrations = [made.path(TINY[kind]) for kind in ("dark", "flat")]
    science = [p for p in frames(tiny_night) if fits.getval(p, "OBSTYPE") == "OBJECT"]
    at_once = folder(tmp_path / "at_once")
    for path in (*calibrations, *science):
        shutil.copy(path, at_once.drop)
    at_once.run()

    config, log = place.folder / "nirid.toml", place.folder / "log"
    config.write_text(
        f"watch = {{ folders = ['{place.drop}'], settle_seconds = 0.2, fast_settle_seconds = 0.1 }}\n"
        f"products = {{ folder = '{place.products}' }}\nlog = {{ format = 'json' }}\n"
        "[[trigger]]\nname = 'science'\nquiet_seconds = 8\n"
        "quiet_cadence = 0\nquiet_exposures = 0\nquiet_overhead = 0\n"
    )
    with log.open("wb") as out:
        daemon = subprocess.Popen(
            place.command("run", config=config), cwd=place.folder, stdout=out, stderr=out
        )
    quick = place.products / "20160102" / "quicklook"
    try:
        for path in calibrations:
            deliver(path, place)
        # A look takes what is there when it begins: a dark that is being read may come too late.
        wait_for(lambda: registered(log) == len(calibrations), daemon, log)
        for path in science:
            deliver(path, place)
            look = quick / f"{path.stem}_firstlook.fits"
            wait_for(look.exists, daemon, log)
            read_by_all(look)
            with fits.open(look) as hdus:
                assert {"SCI", "VAR", "DQ"} <= {hdu.name for hdu in hdus}
                roles = set(hdus["PROVENANCE"].data["role"])
            assert {"processed_dark", "processed_flat"} <= roles
            assert place.json("reproduce", str(look))["result"] == "identical"
            assert look.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
        wait_for(lambda: stacks(log) == len(science), daemon, log)
        running = next(quick.glob("*_running.fits")).read_bytes()
        wait_for(place.path(TINY["science"]).exists, daemon, log)
        wait_for(lambda: not list(quick.iterdir()), daemon, log)
        daemon.send_signal(signal.SIGTERM)
        assert daemon.wait(timeout=30) == 0, log.read_text()
    finally:
        daemon.kill()
        daemon.wait()
    product = place.path(TINY["science"]).read_bytes()
    assert product == running == at_once.path(TINY["science"]).read_bytes()
    assert all(row["runs"] <= 1 for row in place.ledger().values())
    jobs = [event for event in events(log) if event.get("job") == 1 and event["event"] == "step_finished"]
    assert jobs == [], "the job was run, though its product was there"
    assert place.json("audit", "--deep")["unaccounted"] == []


def events(log):
    return [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{")]


def registered(log):
    return sum(event["event"] == "calibration_registered" for event in events(log))


def stacks(log):
    """Frames in the last running stack."""
    made = [e["frames"] for e in events(log) if e["event"] == "look_made" and e["kind"] == "running"]
    return made[-1] if made else 0
