"""What 100,000 known files cost: a start, a sweep, an idle daemon, one more frame, a question."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import re
import resource
import shutil
import sqlite3
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits

from bench import common
from daemon.model.jobs import Outcome

SMALL: dict[str, Any] = {"files": 60, "idle_seconds": 0.2}

FIRST = datetime(2016, 1, 2, tzinfo=UTC)  # of the preset's dates
A_NIGHT = 20  # files
NIGHT_STEP = timedelta(days=2)
PIXELS = 16  # on a side: what a known file costs is its name, its stat and its rows
PATIENCE = 300.0


def measure(data: Path, files: int = 100_000, idle_seconds: float = 20.0) -> dict[str, Any]:
    """files : in the archive, a multiple of the 20 of a night"""
    archive = data / f"archive-{files}"
    seconds = build(archive, files // A_NIGHT)
    with common.scratch() as work:
        shutil.copytree(archive / "state", work / "state")
        answer = {"files": files, "build_seconds": seconds, **_sizes(archive, files)}
        answer["daemon"] = _daemon(archive, work, idle_seconds)
        answer["questions"] = _questions(archive, work)
        answer["steps"] = _inside(archive, work, files // A_NIGHT)
    return answer


# -- the archive ------------------------------------------------------------------------------------------


def build(folder: Path, nights: int) -> float | None:
    """A night that was landed, planned and "reduced" by the daemon's own code, and its likes. Seconds that
    it took; None when it was there.

    The others are written straight into the database, as the same would have been: the rows of the first one
    with other names, times and hashes, and the stat of files that are there. A frame arrived at the time of
    its exposure, as in an archive that grew over the years. (Only a deep audit would notice the hashes.)
    """
    if (folder / ".whole").exists():
        return None
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "drop").mkdir(parents=True)
    began = time.monotonic()
    write_night(folder / "drop", 0)
    with daemon_here(folder, folder / "state", batch=True) as daemon:
        daemon.landing.as_of = lambda record: record.descriptors.ut_datetime.timestamp()
        daemon.main_loop.until_idle(daemon.landing.take_all)
    with contextlib.closing(sqlite3.connect(folder / "state" / "nirid.db")) as db:
        db.execute("PRAGMA synchronous = off")
        _multiply(db, folder, nights)
        db.commit()
    (folder / ".whole").touch()
    return round(time.monotonic() - began, 1)


_KEPT = {"schema", "meta", "intent", "search", "removal", "decision"}  # tables of which a night has no rows
_SHIFTED = {"ut", "first_ut", "last_ut", "last_arrival", "first_seen", "last_seen"}  # times of the sky
_NUMBERS = {"id", "group_id", "frame_id", "content_id", "job_id", "producer_id", "job"}
_HASH = re.compile(r"(?<![.\w])(?=\d*[a-f])[0-9a-f]{16,64}\b")  # and no number


def _multiply(db: sqlite3.Connection, folder: Path, nights: int) -> None:
    """Write the rows of nights 1, 2 ... after those of the night that is there."""
    names = "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite%'"
    tables: dict[str, list[list[Any]]] = {name: [] for (name,) in db.execute(names) if name not in _KEPT}
    columns: dict[str, list[str]] = {}
    for table, rows in tables.items():
        found = db.execute(f"SELECT * FROM {table}")
        columns[table] = [column[0] for column in found.description]
        rows += [[v.decode() if isinstance(v, bytes) else v for v in row] for row in found]
    stride = 1 + max(row[columns[table].index("id")] for table, rows in tables.items()
                     if "id" in columns[table] for row in rows)  # fmt: skip
    text = json.dumps(tables)
    product, began = _Instant().product, time.time() - 3600
    for number in range(1, nights):
        here = {str(path): path.stat() for path in write_night(folder / "drop", number)}
        words = _HASH.sub(partial(_other_hash, number), text)
        for old, new in words_of(number).items():
            words = words.replace(old, new)
        for table, rows in json.loads(words).items():
            for row in rows:
                _move(dict(zip(columns[table], row, strict=True)), row, columns[table], number, stride, here)
            marks = ", ".join("?" * len(columns[table]))
            db.executemany(f"INSERT INTO {table} VALUES ({marks})", rows)
            for row in rows if table == "product" else ():
                path = Path(os.fsdecode(row[columns[table].index("path")]))
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(product)
                os.utime(path, (began, began))  # not later than the ledger says
                path.with_suffix(".png").touch()


def _other_hash(number: int, found: re.Match[str]) -> str:
    return hashlib.sha256(f"{found[0]} {number}".encode()).hexdigest()[: len(found[0])]


def _move(was: dict[str, Any], row: list[Any], names: list[str], number: int, stride: int, here: Any) -> None:
    """The numbers of one row of the first night, as they are in another night."""
    stat = here.get(was.get("path")) if "ctime_ns" in was else None
    for i, name in enumerate(names):
        if was[name] is None:
            continue
        if name in _NUMBERS:
            row[i] += number * stride
        elif name in _SHIFTED:
            row[i] += number * NIGHT_STEP.total_seconds()
        elif name == "path":
            row[i] = os.fsencode(row[i])
        elif stat is not None and name in ("ino", "size", "mtime_ns", "ctime_ns"):
            row[i] = getattr(stat, f"st_{name}")
            row[i] = str(row[i]) if name == "ino" else row[i]


def words_of(number: int) -> dict[str, str]:
    """What is another word in another night: {first night's: that night's}."""
    day = FIRST + number * NIGHT_STEP
    words = {"GN-2015B-Q-901": f"GN-{2015 + number // 800:04d}B-Q-{100 + number % 800}"}
    for k in (1, 0):  # the second day first: a night later its date is what the first day's was
        for form in ("%Y%m%d", "%Y-%m-%d"):
            words[f"{FIRST + timedelta(days=k):{form}}"] = f"{day + timedelta(days=k):{form}}"
    return words


def write_night(drop: Path, number: int) -> list[Path]:
    """The preset's night, NIGHT_STEP times `number` later, as a programme of its own."""
    words = words_of(number)
    folder = drop / f"{FIRST + number * NIGHT_STEP:%Y%m%d}"
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, content in _templates().items():
        for old, new in words.items():
            name, content = name.replace(old, new), content.replace(old.encode(), new.encode())
        paths.append(folder / name)
        paths[-1].write_bytes(content)
    return paths


@cache
def _templates() -> dict[str, bytes]:
    """{name: content} of a night: headers as the telescope writes them, next to no pixels."""
    with common.scratch() as work:
        night = common.night(work, "tiny")
        return {path.name: _cropped(path) for path in common.raw_files(night) if path.name.startswith("N")}


def _cropped(path: Path) -> bytes:
    out = io.BytesIO()
    with fits.open(path, do_not_scale_image_data=True) as hdus:
        hdus[1].data = np.ascontiguousarray(hdus[1].data[:PIXELS, :PIXELS])
        hdus.writeto(out, output_verify="ignore")
    return out.getvalue()


class _Instant:
    """An engine whose every job is done at once. workers : 0 to have none started"""

    def __init__(self) -> None:
        self.workers = 1
        self._done: list[Outcome] = []
        out = io.BytesIO()
        fits.HDUList([fits.PrimaryHDU(), fits.ImageHDU(np.zeros((4, 4), np.float32))]).writeto(out)
        self.product = out.getvalue()

    def submit(self, job_id: int, attempt: int, spec: Any) -> None:
        stem = Path(spec.staging)
        stem.parent.mkdir(parents=True, exist_ok=True)
        Path(f"{stem}.fits").write_bytes(self.product)
        Path(f"{stem}.png").touch()
        result = {"sha256": f"{job_id:064x}", "name": spec.name, "quality": {}, "notes": [], "seconds": 1.0}
        self._done.append(Outcome(job_id, attempt, "done", 1.0, result=result))

    def poll(self) -> list[Outcome]:
        done, self._done = self._done, []
        return done

    def start(self) -> None: ...
    def cancel(self, job_id: int) -> None: ...
    def free(self) -> int:
        return self.workers

    def busy(self) -> int:
        return 0

    def waitables(self) -> list[Any]:
        return []

    def stop(self, timeout: float) -> list[Outcome]:
        return []


@contextlib.contextmanager
def daemon_here(archive: Path, state: Path, *, batch: bool = False) -> Iterator[Any]:
    """The parts of a daemon in this process."""
    from daemon import app, logs
    from daemon.config import load

    logs.configure("error", "json")
    state.mkdir(exist_ok=True)
    given = {"watch.folders": [str(archive / "drop")], "products.folder": str(archive / "products")}
    daemon = app.build(load.load(None, given | {"state.folder": str(state)}), batch=batch)
    daemon.engine = daemon.main_loop.dispatcher.engine = _Instant()
    try:
        daemon.start()
        yield daemon
    finally:
        daemon.close()


# -- what is measured -------------------------------------------------------------------------------------


def _sizes(archive: Path, files: int) -> dict[str, Any]:
    with contextlib.closing(sqlite3.connect(archive / "state" / "nirid.db")) as db:
        tables = {"groups": "frame_group", "jobs": "job", "products": "product"}
        counts = {
            name: db.execute(f"SELECT COUNT(*) FROM {table}").fetchone()[0] for name, table in tables.items()
        }
    size = (archive / "state" / "nirid.db").stat().st_size
    return {
        **counts,
        "database_mb": round(size / 1e6, 1),
        "database_kb_per_file": round(size / 1e3 / files, 2),
    }


def _command(archive: Path, work: Path, *words: str) -> list[str]:
    (work / "nirid.toml").write_text(
        f"watch = {{ folders = ['{archive}/drop'] }}\nproducts = {{ folder = '{archive}/products' }}\n"
        f"state = {{ folder = '{work}/state' }}\nengine = {{ workers = 1 }}\nlog = {{ format = 'json' }}\n"
    )
    return common.command("--config", str(work / "nirid.toml"), *words)


def _daemon(archive: Path, work: Path, idle_seconds: float) -> dict[str, float]:
    """The service: until it is ready, and then with nothing to do."""
    began = time.monotonic()
    with (work / "log").open("wb") as log:
        process = subprocess.Popen(_command(archive, work, "run"), stderr=log, stdout=log)
    try:
        _until(lambda: "started" in {e["event"] for e in common.events_of(work / "log")}, process)
        ready, cpu = time.monotonic() - began, _used(process.pid)
        _until(lambda: _load(process.pid, 1.0) < 0.05, process)
        return {
            "ready_seconds": round(ready, 3),
            "ready_cpu_seconds": round(cpu, 2),
            "idle_percent": round(100 * _load(process.pid, idle_seconds), 2),
            "parent_mb": common.memory_mb(process.pid),
        }
    finally:
        process.terminate()
        process.wait(timeout=30)


def _questions(archive: Path, work: Path) -> list[dict[str, Any]]:
    """What commands take, as a person starts them."""
    with contextlib.closing(sqlite3.connect(work / "state" / "nirid.db")) as db:
        frame, product = (
            db.execute(f"SELECT name FROM {table} ORDER BY id LIMIT 1 OFFSET 3").fetchone()[0]
            for table in ("frame", "product")
        )
    rows = []
    search = ("nights", "--programme", "GN-2015B-Q-1", "--object", "sn2014j")
    for words in (("status",), ("explain", frame), ("explain", product), search, ("audit",)):
        began, before = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
        asked = _command(archive, work, *words, "--json")
        subprocess.run(asked, check=True, stdout=subprocess.DEVNULL, timeout=PATIENCE)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        rows.append(
            {
                "command": f"nirid {words[0]}",
                "seconds": round(time.monotonic() - began, 2),
                "cpu_seconds": round(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, 2),
            }
        )
    return rows


def _inside(archive: Path, work: Path, nights: int) -> list[dict[str, Any]]:
    """Steps of the main loop and of landing, ms each: median, most, and median of processor time."""
    from daemon.arrivals.read import ingest
    from daemon.ledger import jobs

    timer = _Timer()
    with daemon_here(archive, work / "state") as daemon, common.scratch() as elsewhere:
        main_loop, landing, ledger = daemon.main_loop, daemon.landing, daemon.ledger
        now = main_loop.clock()
        for _ in range(3):
            timer("sweep of all", landing.watcher.sweep)
        for k in range(20):
            timer("idle tick", lambda k=k: main_loop.tick(now + k))
        daemon.engine.workers = 0  # what it would make does not belong into the archive
        frames = write_night(elsewhere / "new", nights) + write_night(elsewhere / "old", nights // 2)[:4]
        for k, path in enumerate(frames):
            when, name = now + 20 + k, "new" if k < A_NIGHT else "old"
            if name == "old":  # late, not the same again
                path.write_bytes(path.read_bytes().replace(b"-31-00", b"-31-90"))
            record = ingest(str(path), patience="batch")
            timer(
                f"register a frame of a {name} night",
                lambda r=record: ledger.write(lambda tx: landing._record(tx, [r])),
            )
            timer(f"tick after a frame of a {name} night", lambda t=when: main_loop.tick(t))
        timer("tick when all these are quiet", lambda: main_loop.tick(now + 10_000))
        bpm = next(path for path in common.night(elsewhere, "tiny").iterdir() if path.name.startswith("bpm"))
        record = ingest(str(bpm), patience="batch")
        timer(
            "register a static bad-pixel mask", lambda: ledger.write(lambda tx: landing._record(tx, [record]))
        )
        timer("tick after it", lambda: main_loop.tick(now + 10_001))
        ledger.write(lambda tx: tx.run("UPDATE job SET state = 'planned' WHERE state = 'done'"))
        for k in range(5):
            timer(
                "claim, with every job planned",
                lambda k=k: ledger.write(lambda tx: jobs.claim(tx, oldest=k == 4)),
            )
    return timer.rows()


class _Timer:
    def __init__(self) -> None:
        self._times: dict[str, list[tuple[float, float]]] = {}

    def __call__(self, what: str, work: Callable[[], Any]) -> None:
        wall, cpu = time.perf_counter(), time.process_time()
        work()
        taken = (time.perf_counter() - wall, time.process_time() - cpu)
        self._times.setdefault(what, []).append(taken)

    def rows(self) -> list[dict[str, Any]]:
        return [
            {
                "step": what,
                "milliseconds": round(1e3 * statistics.median(wall for wall, _ in times), 2),
                "most": round(1e3 * max(wall for wall, _ in times), 2),
                "cpu": round(1e3 * statistics.median(cpu for _, cpu in times), 2),
            }
            for what, times in self._times.items()
        ]


def _until(holds: Callable[[], bool], process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + PATIENCE
    while not holds():
        if process.poll() is not None or time.monotonic() > end:
            raise SystemExit("the daemon does not do what it should")
        time.sleep(0.02)


def _used(pid: int) -> float:
    return common.ticks(pid) / os.sysconf("SC_CLK_TCK")


def _load(pid: int, seconds: float) -> float:
    """Cores that a process keeps busy."""
    before = _used(pid)
    time.sleep(seconds)
    return (_used(pid) - before) / seconds


def tables(answer: dict[str, Any]) -> list[common.Table]:
    files, rows = answer["files"], answer["steps"]
    title = (
        f"{files} files, {answer['groups']} groups, {answer['products']} products; "
        f"database {answer['database_kb_per_file']:.1f} kB a file"
    )
    names = ("step", "milliseconds", "most", "cpu")
    return [
        (title, ("the daemon", ""), list(answer["daemon"].items())),
        ("commands, s", ("", "seconds", "cpu_seconds"), [list(row.values()) for row in answer["questions"]]),
        ("inside, ms", names, [[row[name] for name in names] for row in rows]),
    ]
