"""Figures for Prometheus: STATE/metrics.prom, written every few seconds; `nirid web` serves it at /metrics.

    with Writer(config, ledger, machine).running(): ...
    figures.follow(db)                   # what has happened since the last time
    text = figures.text(of_ledger(db))

The daemon opens no socket. Names are those of the rules at prometheus.io/docs/practices/naming: prefix, base
units, `_total` of counters; no label ever names a file, a programme or an object. Counters and histograms
begin at 0 with the daemon.
"""

from __future__ import annotations

import contextlib
import math
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Literal, NamedTuple

from daemon import logs
from daemon.config.options import Config
from daemon.ledger import board, events, monitor, questions
from daemon.ledger.store import Ledger, Reader
from daemon.model.jobs import BACKLOG, CALIBRATION, SCIENCE, Ticket
from daemon.work import diskguard
from pipeline.files.disk import write_whole

FILE = "metrics.prom"
EVERY = 5.0  # s between two files
SAMPLED = 15.0  # s between two looks at the whole of the ledger, and only after something has happened
AT_ONCE = 1000  # events in one question

Kind = Literal["counter", "gauge", "histogram"]
Labels = tuple[tuple[str, str], ...]


class Metric(NamedTuple):
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()


_JOBS = (0.25, 0.5, 1, 2, 5, 10, 20, 60, 180, 900)
_LATENCY = (0.5, 1, 2, 3, 5, 8, 12, 20, 60, 300)
_INGEST = (0.1, 0.25, 0.5, 1, 2, 3, 5, 10, 30, 120)
METRICS: Mapping[str, Metric] = {
    "nirid_build_info": Metric("gauge", "1, with the version that runs.", ("version",)),
    "nirid_heartbeat_timestamp_seconds": Metric("gauge", "When the main loop made progress last."),
    "nirid_last_frame_timestamp_seconds": Metric("gauge", "When the last file was registered."),
    "nirid_files": Metric("gauge", "Contents on record, by state.", ("state",)),
    "nirid_jobs": Metric(
        "gauge", "Jobs on record, by state; failed: those that nothing has made good.", ("state",)
    ),
    "nirid_queue_depth": Metric("gauge", "Jobs that wait for a worker, by class.", ("class",)),
    "nirid_masters_held": Metric("gauge", "Calibrations that are held back until a person has looked."),
    "nirid_calibrations_missing": Metric("gauge", "Calibrations that tonight still needs.", ("kind",)),
    "nirid_image_quality_arcseconds": Metric("gauge", "Newest FWHM at zenith.", ("setting",)),
    "nirid_sky_mag_per_square_arcsecond": Metric("gauge", "Newest brightness of the sky.", ("setting",)),
    "nirid_cloud_magnitudes": Metric("gauge", "Newest extinction by cloud.", ("setting",)),
    "nirid_disk_free_bytes": Metric("gauge", "Room that is left.", ("what",)),
    "nirid_paused": Metric("gauge", "1 while no job is started for want of room."),
    "nirid_watch_backend_info": Metric(
        "gauge", "1 for each way in which drop folders are watched.", ("observer",)
    ),
    "nirid_frames_ingested_total": Metric("counter", "Files that were registered."),
    "nirid_files_rejected_total": Metric("counter", "Files that were refused or quarantined."),
    "nirid_jobs_failed_total": Metric("counter", "Jobs that have failed.", ("recipe",)),
    "nirid_job_seconds": Metric("histogram", "Time that a job took.", ("recipe",), _JOBS),
    "nirid_ingest_seconds": Metric(
        "histogram",
        "From the landing of a file, while the daemon runs, until it was registered.",
        (),
        _INGEST,
    ),
    "nirid_look_latency_seconds": Metric(
        "histogram", "From the landing of a frame until its look could be seen.", ("kind",), _LATENCY
    ),
    "nirid_product_latency_seconds": Metric(
        "histogram",
        "From the last frame of a group until its first product was there.",
        ("recipe",),
        _LATENCY,
    ),
}
_CLASSES = {0: "look", CALIBRATION: "calibration", SCIENCE: "science", 3: "stack", BACKLOG: "backlog"}
_MEASURES = {
    "nirid_image_quality_arcseconds": "fwhm_zenith",
    "nirid_sky_mag_per_square_arcsecond": "sky_magnitude",
    "nirid_cloud_magnitudes": "cloud",
}

Gauges = dict[str, dict[Labels, float]]


@dataclass
class Figures:
    """What has happened since the start. after : the last event that is counted

    since : when it began, seconds since the epoch: what had landed before says nothing of how long it takes
    """

    after: int = 0
    since: float = 0.0
    counters: dict[str, dict[Labels, float]] = field(default_factory=dict)
    seen: dict[str, dict[Labels, list[float]]] = field(default_factory=dict)  # of histograms: counts, sum

    def begin(self, db: Reader, now: float) -> None:
        """Count from now on. now : seconds since the epoch"""
        self.after, self.since = events.last_number(db), now

    def follow(self, db: Reader) -> bool:
        """Count what has happened since the last time; True when anything has."""
        before = self.after
        while rows := board.events(db, self.after, AT_ONCE):
            for told in rows:
                self._count(db, told.at, told.name, told.fields)
            self.after = rows[-1].number
        return self.after != before

    def _count(self, db: Reader, at: float, name: str, fields: Mapping[str, object]) -> None:
        recipe, job, seconds = str(fields.get("recipe", "")), fields.get("job"), fields.get("seconds")
        if name == "file_ingested":
            self.add("nirid_frames_ingested_total")
            landed = monitor.landed(db, str(fields.get("path", "")))
            if landed is not None and self.since <= landed <= at:
                self.observe("nirid_ingest_seconds", at - landed)
        elif name == "file_rejected":
            self.add("nirid_files_rejected_total")
        elif name == "job_failed":
            self.add("nirid_jobs_failed_total", recipe=recipe)
        elif name == "job_done" and isinstance(job, int):
            if isinstance(seconds, (int, float)):
                self.observe("nirid_job_seconds", seconds, recipe=recipe)
            if (late := monitor.product_waited(db, job)) is not None:
                self.observe("nirid_product_latency_seconds", late, recipe=recipe)
        elif name == "look_made" and isinstance(job, int):
            found = monitor.look_shown(db, Ticket.of(job).number)
            if found and found[1] >= 0:
                self.observe("nirid_look_latency_seconds", found[1], kind=found[0])

    def add(self, name: str, **labels: str) -> None:
        values = self.counters.setdefault(name, {})
        key = tuple(sorted(labels.items()))
        values[key] = values.get(key, 0.0) + 1.0

    def observe(self, name: str, value: float, **labels: str) -> None:
        bounds = METRICS[name].buckets
        row = self.seen.setdefault(name, {}).setdefault(
            tuple(sorted(labels.items())), [0.0] * (len(bounds) + 2)
        )
        for n, bound in enumerate(bounds):
            row[n] += value <= bound
        row[-2] += 1
        row[-1] += value

    def text(self, gauges: Gauges) -> str:
        """All of it in Prometheus' text format, in order of name."""
        lines: list[str] = []
        for name, metric in sorted(METRICS.items()):
            rows = list(self._rows(name, metric, gauges))
            if rows:
                lines += [f"# HELP {name} {metric.help}", f"# TYPE {name} {metric.kind}", *rows]
        return "\n".join(lines) + "\n"

    def _rows(self, name: str, metric: Metric, gauges: Gauges) -> Iterable[str]:
        if metric.kind != "histogram":
            values = gauges.get(name, {}) if metric.kind == "gauge" else self.counters.get(name, {})
            if metric.kind == "counter" and not values and not metric.labels:
                values = {(): 0.0}
            yield from (
                f"{name}{_braces(labels)} {_number(value)}" for labels, value in sorted(values.items())
            )
            return
        for labels, row in sorted(self.seen.get(name, {}).items()):
            bounds = [*map(_number, metric.buckets), "+Inf"]
            for bound, count in zip(bounds, row[:-1], strict=True):
                yield f"{name}_bucket{_braces((*labels, ('le', bound)))} {_number(count)}"
            yield f"{name}_sum{_braces(labels)} {_number(row[-1])}"
            yield f"{name}_count{_braces(labels)} {_number(row[-2])}"


def _braces(labels: Labels) -> str:
    if not labels:
        return ""
    told = (f'{name}="{_escaped(value)}"' for name, value in labels)
    return "{" + ",".join(told) + "}"


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def _number(value: float) -> str:
    return f"{int(value)}" if math.isfinite(value) and value == int(value) else f"{value:.9g}"


# -- what is as it is -----------------------------------------------------------------------------


def of_ledger(db: Reader) -> Gauges:
    """What the ledger says of now."""
    jobs = questions.job_counts(db)
    waiting = dict.fromkeys(_CLASSES.values(), 0)  # a class in which nothing waits is 0, not unknown
    for priority, n in monitor.queue(db).items():
        name = _CLASSES.get(priority, "other")
        waiting[name] = waiting.get(name, 0) + n
    found: Gauges = {
        "nirid_files": {(("state", state),): n for state, n in questions.counts(db)["files"].items()},
        "nirid_jobs": {(("state", state),): n for state, n in jobs.items()},
        "nirid_queue_depth": {(("class", name),): n for name, n in waiting.items()},
        "nirid_masters_held": {(): monitor.held(db)},
    }
    if (at := monitor.last_frame(db)) is not None:
        found["nirid_last_frame_timestamp_seconds"] = {(): at}
    for name, measure in _MEASURES.items():
        found[name] = {(("setting", key),): value for key, value in monitor.latest(db, measure).items()}
    return found


def of_machine(
    config: Config, *, heart: float, modes: Iterable[str], paused: bool, missing: Mapping[str, int]
) -> Gauges:
    """What the daemon knows besides. heart : when its main loop made progress, seconds since the epoch

    modes : how each drop folder is watched; missing : {kind: how many calibrations tonight needs}
    """
    found: Gauges = {
        "nirid_build_info": {(("version", metadata.version("nirid")),): 1.0},
        "nirid_heartbeat_timestamp_seconds": {(): heart},
        "nirid_paused": {(): float(paused)},
        "nirid_watch_backend_info": {(("observer", mode.partition(":")[0]),): 1.0 for mode in modes},
        "nirid_calibrations_missing": {(("kind", kind),): n for kind, n in missing.items()},
    }
    free: dict[Labels, float] = {}
    for what, folder in (("products", config.product_folder), ("state", config.state_folder)):
        with contextlib.suppress(OSError):
            room = diskguard.room(folder).bytes
            if room != diskguard.UNKNOWN:
                free[(("what", what),)] = float(room)
    return {**found, "nirid_disk_free_bytes": free}


def write(config: Config, text: str) -> None:
    """In one piece: who reads it meanwhile has the old one or the new one. OSError."""
    write_whole(Path(config.state_folder, FILE), text.encode(), flush=False, alone=True, mode=0o644)


@dataclass
class Writer:
    """Writes the file from a thread of its own, so that a slow disk holds up nothing.

    machine : answers `of_machine` as it is now; clock : monotonic
    """

    config: Config
    ledger: Ledger
    machine: Callable[[], Gauges]
    clock: Callable[[], float] = time.monotonic
    figures: Figures = field(default_factory=Figures)
    _sampled: Gauges = field(default_factory=dict)
    _due: float = float("-inf")
    _stop: threading.Event = field(default_factory=threading.Event)

    def once(self) -> None:
        """Count, sample where that is due, write. OSError where the database or disk cannot be used now."""
        with self.ledger.read() as db:
            first = self._due == float("-inf")
            if first:
                self.figures.begin(db, time.time())
            if (self.figures.follow(db) or first) and self.clock() >= self._due:
                self._sampled, self._due = of_ledger(db), self.clock() + SAMPLED
        write(self.config, self.figures.text({**self._sampled, **self.machine()}))

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Every few seconds, until the end of the block; the file goes then, as nothing stands behind it."""
        thread = threading.Thread(target=self._run, name="metrics", daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._stop.set()
            thread.join(timeout=EVERY)
            with contextlib.suppress(OSError):
                Path(self.config.state_folder, FILE).unlink(missing_ok=True)

    def _run(self) -> None:
        """What goes wrong is said once for as long as it lasts; the file's heartbeat is old meanwhile."""
        said = ""
        while not self._stop.is_set():
            try:
                self.once()
                said = ""
            except Exception as error:
                if said != repr(error):
                    said = repr(error)
                    logs.get().warning("metrics_failed", error=said, exc_info=not isinstance(error, OSError))
            self._stop.wait(EVERY)
