"""Whole nights through the installed program: what lands becomes the products it should, and nothing else."""

import gzip
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from pipeline.simulate import simulate_night
from pipeline.simulate.verify import check_products

TINY = {
    "dark": "N20160102S0423_dark",
    "bpm": "N20160102S0366_bpm",
    "flat": "N20160102S0366_flat",
    "science": "N20160102S0271_image",
}
EXAMPLE1 = {
    "dark": "N20160102S0423_dark",
    "bpm": "N20160102S0373_bpm",
    "flat": "N20160102S0373_flat",
    "standard": "N20160102S0296_image",
    "science": "N20160102S0271_image",
}


@pytest.fixture(scope="session")
def tiny_night(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny") / "night"
    simulate_night(folder, "tiny")
    return folder


class Place:
    """A drop folder, a product folder and a state folder, and the program on them."""

    def __init__(self, folder):
        self.folder, self.drop = folder, folder / "drop"
        self.products, self.state = folder / "products", folder / "state"
        self.config = None
        self.drop.mkdir()

    def command(self, *words, config=None):
        config = config or self.config
        first = [sys.executable, "-P", "-m", "daemon", "--state", str(self.state)]
        return [*first, *(["--config", str(config)] if config else []), *words]

    def nirid(self, *words, code=0):
        done = subprocess.run(
            self.command(*words), capture_output=True, text=True, cwd=self.folder, timeout=300
        )
        assert done.returncode == code, f"{words}: exit {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def run(self, *, workers=2, code=0):
        folders = ("--drop", str(self.drop), "--products", str(self.products))
        return self.nirid("run", "--until-idle", *folders, "--workers", str(workers), code=code)

    def json(self, *words, code=0):
        return json.loads(self.nirid(*words, "--json", code=code))

    def ledger(self):
        rows = [json.loads(line) for line in self.nirid("ledger", "--json").splitlines()]
        return {Path(path).name: row for row in rows for path in row["paths"]}

    def made(self):
        """{name: bytes} of the current products."""
        found = (p for p in self.products.rglob("*.fits") if p.parent.name.isdecimal())
        return {path.stem: path.read_bytes() for path in found}

    def path(self, name):
        return self.products / "20160102" / f"{name}.fits"


@pytest.fixture
def place(tmp_path):
    return Place(tmp_path)


def frames(night):
    return sorted(night.glob("*.fits"))


def right(place, night, expected):
    """Every expected product is there, with its preview, agrees with the truth, and the audit is clean."""
    assert set(place.made()) == set(expected.values())
    for name in expected.values():
        assert place.path(name).with_suffix(".png").read_bytes().startswith(b"\x89PNG")
    checks = check_products(night, {kind: place.path(name) for kind, name in expected.items()})
    assert [c.sentence for c in checks if not c.ok] == []
    assert len(checks) >= 3 * len(expected)
    audit = place.json("audit", "--deep")
    assert audit["unaccounted"] == audit["products"]["broken"] == []
    return audit


def test_tiny_night_until_idle(place, tiny_night):
    for path in frames(tiny_night):
        shutil.copy(path, place.drop)
    before = {path.name: path.read_bytes() for path in frames(place.drop)}
    place.run()
    audit = right(place, tiny_night, TINY)
    assert audit["files"] == {"total": 21, "by_state": {"calibration": 1, "ready": 20}}
    assert {path.name: path.read_bytes() for path in frames(place.drop)} == before, "a raw file was touched"
    assert all(row["runs"] <= 1 for row in place.ledger().values())
    with fits.open(place.path(TINY["science"])) as stack:
        assert {"SCI", "VAR", "DQ", "COVERAGE", "OBJCAT", "PROVENANCE", "HISTORY"} <= {h.name for h in stack}
        assert stack[0].header["NCOMBINE"] == 3
        assert stack["SCI"].header["BUNIT"] == "electron"
        assert stack["SCI"].shape[0] > 256, "not the union of the dithers"
        used = {row["role"]: row["filename"] for row in stack["PROVENANCE"].data}
        assert {"input", "processed_dark", "processed_flat", "processed_bpm", "static_bpm"} == set(used)
    products, again = place.made(), place.run()
    assert place.made() == products, f"a second run made something: {again}"
    torn = place.path(TINY["flat"])
    data = bytearray(torn.read_bytes())
    data[len(data) // 2] ^= 1
    torn.write_bytes(data)
    (broken,) = place.json("audit", "--deep", code=1)["products"]["broken"]
    assert broken["path"] == str(torn)


def test_the_order_of_arrival_does_not_matter(place, tiny_night, tmp_path):
    """One file after the other with a run after each, short darks first or last: the same bits in the end."""
    shuffled = frames(tiny_night)
    random.Random(5).shuffle(shuffled)
    third = len(shuffled) // 3
    for part in (shuffled[:third], shuffled[third : 2 * third], shuffled[2 * third :]):
        for path in part:
            shutil.copy(path, place.drop)
        place.run(code=0)
    right(place, tiny_night, TINY)
    (tmp_path / "quiet").mkdir()
    quiet = Place(tmp_path / "quiet")
    for path in frames(tiny_night):
        shutil.copy(path, quiet.drop)
    quiet.run(workers=1)
    made, as_it_came = quiet.made(), place.made()
    assert [name for name in made if made[name] != as_it_came[name]] == []


def test_what_is_not_ours_is_recorded_and_does_no_harm(place, tiny_night):
    night = frames(tiny_night)
    for path in night:
        shutil.copy(path, place.drop)
    science, dark = night[0].name, "N20160102S0423.fits"
    whole = (place.drop / science).read_bytes()
    (place.drop / "N20160102S0901.fits").write_bytes(whole[: len(whole) // 2])
    (place.drop / "copy").mkdir()
    (place.drop / "copy" / "duplicate.fits").write_bytes(whole)
    with gzip.open(place.drop / "copy" / f"{dark}.gz", "wb") as file:
        file.write((place.drop / dark).read_bytes())
    (place.drop / "N20160102S0902.fits").write_bytes(b"hello" * 1000)
    (place.drop / "empty.fits").touch()
    (place.drop / "notes.txt").write_text("no")
    with fits.open(place.drop / science) as other:
        other[0].header["INSTRUME"] = "GMOS-N"
        other.writeto(place.drop / "N20160102S0903.fits", output_verify="ignore")
    with fits.open(place.drop / science) as grism:
        grism[0].header["FILTER3"] = "Kgrism_G5204"
        grism.writeto(place.drop / "N20160102S0904.fits", output_verify="ignore")
    place.run()
    right(place, tiny_night, TINY)
    rows = place.ledger()
    states = {name: rows[name]["state"] for name in rows}
    assert states["N20160102S0901.fits"] == "incomplete"
    assert states["duplicate.fits"] == states[science] == "ready"
    assert rows["duplicate.fits"]["sha256"] == rows[science]["sha256"]
    assert states[f"{dark}.gz"] == "ready"
    assert states["N20160102S0902.fits"] == "quarantined"
    assert states["empty.fits"] in ("incomplete", "quarantined")
    assert states["N20160102S0903.fits"] == states["N20160102S0904.fits"] == "refused"
    assert "notes.txt" not in states
    assert all(row["reason"] for row in rows.values())


def test_a_processed_science_image_is_refused_and_a_processed_dark_is_used(place, tiny_night):
    for path in frames(tiny_night):
        shutil.copy(path, place.drop)
    place.run()
    (place.folder / "two").mkdir()
    second = Place(place.folder / "two")
    for path in frames(tiny_night):
        if not "N20160102S0423" <= path.stem <= "N20160102S0425":
            shutil.copy(path, second.drop)
    for name in (TINY["dark"], TINY["science"]):
        shutil.copy(place.path(name), second.drop)
    second.run()
    rows = second.ledger()
    assert rows[f"{TINY['dark']}.fits"]["state"] == "calibration"
    assert rows[f"{TINY['science']}.fits"]["state"] == "refused"
    assert set(second.made()) == set(TINY.values()) - {TINY["dark"]}
    with fits.open(second.path(TINY["science"])) as mine, fits.open(place.path(TINY["science"])) as other:
        assert np.array_equal(mine["SCI"].data, other["SCI"].data)


def test_live_run_of_a_tiny_night(place, tiny_night):
    """Frames land one by one; the science waits, is made, and is made again when the mask arrives."""
    config = place.folder / "nirid.toml"
    rules = ["makeProcessedDark", "makeProcessedFlat", "makeProcessedBPM", "standard", "science"]
    config.write_text(
        f"watch = {{ folders = ['{place.drop}'], settle_seconds = 0.2, sweep_seconds = 1 }}\n"
        f"products = {{ folder = '{place.products}' }}\n"
        + "".join(
            f"[[trigger]]\nname = '{rule}'\nquiet_seconds = 0.5\n"
            "quiet_cadence = 0\nquiet_exposures = 0\nquiet_overhead = 0\n"
            for rule in rules
        )
    )
    log = place.folder / "log"
    with log.open("wb") as out:
        daemon = subprocess.Popen(
            place.command("run", config=config), cwd=place.folder, stdout=out, stderr=out
        )
    try:
        late = [p for p in frames(tiny_night) if p.name.startswith("N20160103")]
        for path in [p for p in frames(tiny_night) if p not in late]:
            temporary = place.drop / f".{path.name}.tmp"
            shutil.copy(path, temporary)
            os.replace(temporary, place.drop / path.name)
        wait_for(lambda: place.path(TINY["science"]).exists(), daemon, log)
        second = subprocess.run(
            place.command("run", config=config), cwd=place.folder, capture_output=True, text=True
        )
        assert second.returncode == 75, second.stderr
        assert "another" in second.stderr
        for path in late:
            shutil.copy(path, place.drop)
        wait_for(lambda: place.path(TINY["bpm"]).exists(), daemon, log)
        wait_for(lambda: list(place.products.rglob("superseded/*_image.v0001.fits")), daemon, log)
        wait_for(lambda: not place.json("status")["running"], daemon, log)
        daemon.send_signal(signal.SIGTERM)
        assert daemon.wait(timeout=30) == 0, log.read_text()
    finally:
        daemon.kill()
        daemon.wait()
    right(place, tiny_night, TINY)
    lines = [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{")]
    events = {line["event"] for line in lines}
    assert {"file_ingested", "job_planned", "job_waiting", "step_finished", "job_done"} <= events
    assert all(
        {"job", "recipe", "group"} <= line.keys() for line in lines if line["event"] == "step_finished"
    )
    assert not [line for line in lines if line["level"] == "error"]


def test_kill_9_again_and_again(place, tiny_night, tmp_path):
    """Whenever it is killed, no torn product is to be seen, and in the end all is as if nothing had been."""
    for path in frames(tiny_night):
        shutil.copy(path, place.drop)
    words = ("run", "--until-idle", "--drop", str(place.drop), "--products", str(place.products))
    killed = 0
    for delay in (0.4, 0.9, 1.3, 1.6, 1.9, 2.2):
        with (place.folder / "log").open("wb") as out:
            daemon = subprocess.Popen(place.command(*words), cwd=place.folder, stdout=out, stderr=out)
        try:
            daemon.wait(timeout=delay)
        except subprocess.TimeoutExpired:
            daemon.kill()
            daemon.wait()
            killed += 1
        if (place.state / "nirid.db").exists():
            asked = place.command("audit", "--deep", "--json")
            said = subprocess.run(asked, cwd=place.folder, capture_output=True, text=True)
            if "nothing is in it yet" in said.stderr:  # killed before its first transaction
                continue
            answer = json.loads(said.stdout)
            assert answer["products"]["broken"] == []
    assert killed >= 3
    place.run()
    right(place, tiny_night, TINY)
    assert all(row["runs"] <= 1 for row in place.ledger().values())
    assert not list((place.products / ".staging").iterdir())
    (tmp_path / "quiet").mkdir()
    quiet = Place(tmp_path / "quiet")
    for path in frames(tiny_night):
        shutil.copy(path, quiet.drop)
    quiet.run()
    made, after_kills = quiet.made(), place.made()
    assert [name for name in made if made[name] != after_kills[name]] == []


def test_sigterm_drains_and_the_next_run_goes_on(place, tiny_night):
    for path in frames(tiny_night):
        shutil.copy(path, place.drop)
    words = ("run", "--until-idle", "--drop", str(place.drop), "--products", str(place.products))
    with (place.folder / "log").open("wb") as out:
        daemon = subprocess.Popen(place.command(*words), cwd=place.folder, stdout=out, stderr=out)
    wait_for(lambda: "job_started" in (place.folder / "log").read_text(), daemon, place.folder / "log")
    daemon.send_signal(signal.SIGTERM)
    assert daemon.wait(timeout=20) == 1
    assert "run it again to go on" in (place.folder / "log").read_text()
    assert place.json("status")["running"] == []
    place.run()
    right(place, tiny_night, TINY)


def test_the_demonstration(tmp_path):
    """What `make demo` calls, on the small night."""
    command = [sys.executable, "-P", "-m", "daemon", "demo", "--preset", "tiny", "--speed", "4"]
    command += ["--folder", "here", "--picture", "demo.png", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=300)
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert {product["kind"]: product["name"] for product in answer["products"]} == TINY
    assert all(0 < product["final_seconds"] < 60 for product in answer["products"])
    assert all(check["ok"] for check in answer["checks"])
    assert (tmp_path / "demo.png").read_bytes().startswith(b"\x89PNG")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").touch()
    refused = subprocess.run(
        [*command[:5], "--folder", "mine"], capture_output=True, text=True, cwd=tmp_path, timeout=60
    )
    assert refused.returncode == 1
    assert "not empty" in refused.stderr
    assert (tmp_path / "mine" / "thesis.tex").exists()


def wait_for(done, daemon, log, seconds=120):
    end = time.monotonic() + seconds
    while not done():
        assert daemon.poll() is None, f"the daemon has ended: {log.read_text()}"
        assert time.monotonic() < end, f"nothing came: {log.read_text()}"
        time.sleep(0.1)


@pytest.mark.slow
def test_example1(place):
    night = place.folder / "night"
    simulate_night(night, "example1")
    for path in frames(night):
        os.link(path, place.drop / path.name)
    place.run()
    audit = right(place, night, EXAMPLE1)
    assert audit["files"] == {"total": 56, "by_state": {"calibration": 1, "ready": 55}}
