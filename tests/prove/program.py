"""The installed program on a small simulated night: killed at any moment, it and its workers; and a storm of
frames while it reduces."""

import contextlib
import os
import random
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np

from daemon.ledger.store import connect_readonly
from pipeline.errors import NiridError
from pipeline.simulate import simulate_night
from tests.fitsfiles import DARK, frame_bytes, noise
from tests.prove.counts import Counts
from tests.prove.world import products_of, torn

RULES = ("makeProcessedDark", "makeProcessedFlat", "makeProcessedBPM", "standard", "science")
LONGEST = 300  # s for anything


class Place:
    """Folders, a configuration with little patience, and the program."""

    def __init__(self, folder: Path, more: str = ""):
        self.folder, self.drop = folder, folder / "drop"
        self.drop.mkdir(parents=True)
        self.config = folder / "nirid.toml"
        quick = "quiet_seconds = 0.3\nquiet_cadence = 0\nquiet_exposures = 0\nquiet_overhead = 0\n"
        self.config.write_text(
            f"watch = {{ folders = ['{self.drop}'], settle_seconds = 0.2, sweep_seconds = 2 }}\n"
            f"products = {{ folder = '{folder / 'products'}' }}\n{more}"
            + "".join(f"[[trigger]]\nname = '{rule}'\n{quick}" for rule in RULES)
        )

    def command(self, *words):
        program = [sys.executable, "-P", "-m", "daemon"]
        return [*program, "--state", str(self.folder / "state"), "--config", str(self.config), *words]

    def start(self, *words):
        with (self.folder / "log").open("ab") as log:
            return subprocess.Popen(self.command("run", *words), cwd=self.folder, stdout=log, stderr=log)

    def run(self):
        """Until idle; how it ended, in words, "" when well."""
        process = self.start("--until-idle")
        try:
            code = process.wait(timeout=LONGEST)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            return "hung"
        return "" if code == 0 else f"exit {code}: {(self.folder / 'log').read_text()[-800:]}"

    def ask(self, sql):
        with contextlib.closing(connect_readonly(self.folder / "state" / "nirid.db")) as db:
            return [tuple(row) for row in db.execute(sql)]

    def audit(self, *words) -> str:
        done = subprocess.run(self.command("audit", *words), capture_output=True, text=True, cwd=self.folder)
        return "" if done.returncode == 0 else f"audit: exit {done.returncode}: {done.stdout}{done.stderr}"


def kills(times: int, *, part=(0, 1), seed=0) -> Counts:
    """kill -9 of the daemon or of one of its workers at random moments, ten in a row; then it may finish."""
    counts, began = Counts(), time.monotonic()
    chance = random.Random(seed * part[1] + part[0])
    with tempfile.TemporaryDirectory() as name:
        base = Path(name)
        simulate_night(base / "night", "tiny")
        night = sorted((base / "night").glob("*.fits"))
        quiet = Place(base / "quiet")
        for path in night:
            shutil.copy(path, quiet.drop)
        if said := quiet.run():
            raise RuntimeError(said)
        wanted = products_of(quiet.folder)
        left = max(1, times // part[1])
        counts.more = {"of the daemon": 0, "of a worker": 0, "in its first second": 0}
        while left > 0:
            row = min(10, left)
            left -= row
            place = Place(base / f"killed {left}")
            _row(place, night, row, chance, counts)
            said = place.run()
            bad = {
                "lost": [said] if said and said != "hung" else [],
                "hung": [said] if said == "hung" else [],
            }
            bad["lost"] += [a for a in [place.audit("--deep")] if a]
            made = products_of(place.folder)
            if made != wanted:
                bad["lost"].append(f"other products: {sorted(made.keys() ^ wanted.keys()) or 'their bytes'}")
            bad["doubled"] = [str(r) for r in place.ask("SELECT * FROM accounting WHERE runs > 1")]
            sql = """SELECT id FROM job j WHERE state NOT IN ('done', 'dropped') OR attempts <>
                (SELECT COUNT(*) FROM attempt a WHERE a.job_id = j.id)"""
            bad["lost"] += [f"job {r} is not done" for r in place.ask(sql)]
            counts.take(f"after {row} kills", bad)
            counts.tried += row - 1
            shutil.rmtree(place.folder)
    counts.seconds = time.monotonic() - began
    return counts


def _row(place: Place, night, times: int, chance: random.Random, counts: Counts) -> None:
    """Frames go on landing meanwhile; before each start nothing torn may be seen."""
    waiting = list(night)
    chance.shuffle(waiting)
    for number in range(times):
        for path in [waiting.pop() for _ in range(min(len(waiting), chance.randrange(1, 12)))]:
            part = place.drop / f".{path.name}.part"
            shutil.copy(path, part)
            os.replace(part, place.drop / path.name)
        if number == times - 1:
            for path in waiting:
                shutil.copy(path, place.drop)
        daemon = place.start()
        delay = chance.choice([chance.uniform(0.05, 1.0), chance.uniform(0.5, 4.0)])
        time.sleep(delay)
        workers = _children(daemon.pid)
        if workers and chance.random() < 0.4:
            with contextlib.suppress(ProcessLookupError):
                os.kill(chance.choice(workers), signal.SIGKILL)
            counts.more["of a worker"] += 1
            time.sleep(chance.uniform(0.0, 2.0))
        else:
            counts.more["of the daemon"] += 1
            counts.more["in its first second"] += delay < 1.0
        if daemon.poll() is not None:
            counts.take("while it runs", {"lost": [f"ended by itself with {daemon.returncode}"]})
        daemon.kill()
        daemon.wait()
        if bad := torn(place.folder):
            counts.take("after a kill", {"torn": bad})


def _children(pid: int) -> list[int]:
    try:
        return [int(p) for p in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def _memory_mb(pid: int) -> float:
    """What is its own: anonymous pages."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("RssAnon"):
            return int(line.split()[1]) / 1024
    return 0.0


def _until_there(place) -> None:
    """The daemon has made its database: on a busy machine its start takes longer than a short storm."""
    until = time.monotonic() + LONGEST / 5
    while time.monotonic() < until:
        with contextlib.suppress(NiridError, sqlite3.Error, OSError):
            place.ask("SELECT 1 FROM sighting")
            return
        time.sleep(0.2)


def _until_a_job_is_done(place) -> None:
    """A short storm may be over before the first worker is ready on a busy machine."""
    until = time.monotonic() + LONGEST / 5
    while time.monotonic() < until and not place.ask("SELECT 1 FROM job WHERE state = 'done'"):
        time.sleep(0.2)


PAUSED = "disk = { low_water_mb = 1000000000 }\n"  # more room than there is anywhere


def storm(frames: int, *, part=(0, 1), seed=0, per_second=20.0, side=256, paused=False) -> Counts:
    """So many frames, so many a second, by rename, link and slow writing, some of them again or cut short,
    while they are reduced, or while work is paused: all accounted for, how late, and how much memory."""
    counts, began = Counts(), time.monotonic()
    chance = random.Random(seed)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with tempfile.TemporaryDirectory() as name:
        base = Path(name)
        simulate_night(base / "night", "tiny")
        place = Place(base / "place", PAUSED if paused else "")
        for path in sorted((base / "night").glob("*.fits")):  # work for the workers
            shutil.copy(path, place.drop)
        daemon = place.start()
        try:
            _until_there(place)
            memory = _fall(place, daemon, frames, per_second, side, chance)
            late = _until_registered(place, frames)
            if not paused:
                _until_a_job_is_done(place)
        finally:
            daemon.send_signal(signal.SIGTERM)
            try:
                code = daemon.wait(timeout=60)
            except subprocess.TimeoutExpired:
                daemon.kill()
                code = "hung"
        states = dict(place.ask("SELECT state, COUNT(*) FROM content GROUP BY state"))
        bad = {"lost": [a for a in [place.audit()] if a], "hung": ["did not stop"] if code == "hung" else []}
        if code not in (0, "hung"):
            bad["lost"].append(f"exit {code}: {(place.folder / 'log').read_text()[-800:]}")
        if len(late) != frames:
            bad["lost"].append(f"{frames - len(late)} of {frames} frames never registered")
        bad["doubled"] = [str(r) for r in place.ask("SELECT * FROM accounting WHERE runs > 1")][:5]
        bad["torn"] = torn(place.folder)
        if memory and memory[-1] - memory[len(memory) // 3] > 60:
            bad["hung"].append(f"memory grew from {memory[len(memory) // 3]:.0f} to {memory[-1]:.0f} MB")
        counts.take(f"{frames} frames", bad)
        counts.tried = frames
        done = place.ask("SELECT COUNT(*) FROM job WHERE state = 'done'")[0][0]
        if bool(done) == paused:
            counts.take(
                f"{frames} frames", {"hung": [f"{done} jobs done, with work {'paused' if paused else 'on'}"]}
            )
    ordered = sorted(late) or [0.0]
    counts.more = {
        "=median, s": round(ordered[len(ordered) // 2], 2),
        "=99th percentile, s": round(ordered[int(0.99 * (len(ordered) - 1))], 2),
        "=longest, s": round(ordered[-1], 2),
        "=memory, MB": [round(m) for m in (memory[len(memory) // 3], memory[-1])] if memory else [],
        "=jobs done meanwhile": done,
        **{f"={state}": n for state, n in states.items()},
    }
    counts.seconds = time.monotonic() - began
    return counts


_complete: dict[str, float] = {}


def _fall(place, daemon, frames, per_second, side, chance) -> list[float]:
    """Land the frames in time; the daemon's memory as it went."""
    _complete.clear()
    pixels = noise(side, side)
    memory, writers = [], []
    start = time.monotonic()
    for number in range(frames):
        time.sleep(max(0.0, start + number / per_second - time.monotonic()))
        path = place.drop / f"N20170102S{number:04d}.fits"
        minute, second = divmod(number, 60)
        # Ten of each exposure time, so that there is always a group to be reduced.
        cards = {
            **DARK,
            "EXPTIME": 20.0 + number // 10,
            "DATALAB": f"GN-2017A-Q-1-1-{number}",
            "DATE-OBS": "2017-01-02",
            "UT": f"{minute // 60:02d}:{minute % 60:02d}:{second:02d}.0",
        }
        content = frame_bytes(cards, np.roll(pixels, number).astype(">f4").astype("f4") + np.float32(number))
        how = number % 4
        if how == 3:
            writer = threading.Thread(target=_slowly, args=(path, content, chance.uniform(0.1, 0.5)))
            writer.start()
            writers = [w for w in writers if w.is_alive()] + [writer]
            continue
        part = path.with_name(f".{path.name}.part")
        part.write_bytes(content)
        if how == 2:
            os.link(part, path)
            part.unlink()
        else:
            os.replace(part, path)
        _complete[path.name] = time.time()
        if number % 25 == 7:
            shutil.copy(path, place.drop / f"copy of {path.name}")
        if number % 25 == 9:
            (place.drop / f"N20170103S{number:04d}.fits").write_bytes(
                content[: chance.randrange(len(content))]
            )
        if number % 20 == 0:
            memory.append(_memory_mb(daemon.pid))
    for writer in writers:
        writer.join()
    return [*memory, _memory_mb(daemon.pid)]


def _slowly(path, content, seconds):
    with path.open("wb") as file:
        for start in range(0, len(content), 65536):
            file.write(content[start : start + 65536])
            file.flush()
            time.sleep(seconds * 65536 / len(content))
    _complete[path.name] = time.time()


def _until_registered(place, frames) -> list[float]:
    """Seconds from complete to registered, of every frame that was registered."""
    sql = """SELECT s.path, c.first_seen FROM sighting s JOIN content c ON c.id = s.content_id
        WHERE c.state = 'ready'"""
    end, found = time.monotonic() + LONGEST, {}
    while time.monotonic() < end and len(found) < frames:
        time.sleep(1.0)
        rows = [(os.path.basename(os.fsdecode(path)), seen) for path, seen in place.ask(sql)]
        found = {name: seen for name, seen in rows if name in _complete}
    return [seen - _complete[name] for name, seen in found.items()]
