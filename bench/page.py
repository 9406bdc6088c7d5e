"""The page: what it costs the viewer, the machine and the reduction; how soon a frame is on the screen."""

from __future__ import annotations

import contextlib
import gzip
import json
import math
import os
import shutil
import signal
import socket
import sqlite3
import statistics
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench import archive as archives
from bench import common
from bench.latency import SETTLE, _Daemon
from docs import screenshots

SMALL: dict[str, Any] = {
    "files": 60, "preset": "", "pairs": 1, "viewers": 2, "idle_seconds": 0.2, "browser": False, "repeat": 1,
    "workers": 1, "quiet": 0.5,
}  # fmt: skip

SLOW_LINE = {"offline": False, "latency": 150, "downloadThroughput": 200_000, "uploadThroughput": 200_000}
PAINTED = "performance.getEntriesByName('first-contentful-paint').map((entry) => entry.startTime)"
LIVE = "document.getElementById('live').textContent.startsWith('live')"
# Notes when each name is first in the page, and when each picture of the newest frame is drawn.
WATCH = """
window.seenAt = {};
const note = (name) => { if (name && !(name in window.seenAt)) window.seenAt[name] = Date.now() / 1000; };
new MutationObserver((changes) => { for (const change of changes) for (const node of change.addedNodes)
  if (node.querySelectorAll) for (const link of node.querySelectorAll("a.name, .thumbs a span"))
    note(link.textContent.trim()); }).observe(document, { childList: true, subtree: true });
document.addEventListener("load", (event) => { if (event.target.closest && event.target.closest(".pic"))
  note("picture of " + event.target.alt.split(" ").pop()); }, true);
"""
PATHS = ("/api/v1/tonight", "/", "/nights", "/health", "/night/{night}", "/thing/{product}", "/thing/{frame}")


def measure(
    data: Path,
    files: int = 100_000,
    preset: str = "example1",
    pairs: int = 4,
    viewers: int = 10,
    idle_seconds: float = 20.0,
    browser: bool = True,
    repeat: int = 9,
    workers: int = common.WORKERS,
    quiet: float = 3.0,
) -> dict[str, Any]:
    """files : in the archive whose page is measured
    preset : whose science lands before viewers and before none, by turns; "" is darks; pairs : of turns
    browser : one real browser more, where there is one

    archive : by address, ms of the server's processor and bytes as they are sent; load : first paint, ms
    live : seconds from the last rename to the product and from each to its first look, without and with
        viewers; their ratio; seconds from an event's time to the page
    """
    common.compiled(data)
    browser = browser and screenshots.chromium() is not None
    answer: dict[str, Any] = {"files": files, "viewers": viewers}
    answer["archive"] = _archive(data, files, idle_seconds, browser, repeat)
    with (
        common.scratch() as work,
        contextlib.closing(_Daemons(data, work, preset, 2 * pairs, workers, quiet)) as night,
    ):
        answer["live"] = _live(night, pairs, viewers, browser)
    return answer


# -- a large archive --------------------------------------------------------------------------------------


def _archive(data: Path, files: int, idle: float, browser: bool, repeat: int) -> dict[str, Any]:
    folder = data / f"archive-{files}"
    archives.build(folder, files // archives.A_NIGHT)
    with common.scratch() as work:
        shutil.copytree(folder / "state", work / "state")
        config = work / "nirid.toml"
        config.write_text(
            f"watch = {{ folders = ['{folder}/drop'] }}\nproducts = {{ folder = '{folder}/products' }}\n"
            f"state = {{ folder = '{work}/state' }}\n"
        )
        began = time.monotonic()
        with screenshots.served(work / "state", "--port", "0", config=config) as (address, process):
            _get(address)
            answer: dict[str, Any] = {"first_answer_seconds": round(time.monotonic() - began, 2)}
            answer["pages"] = [_page(address, process.pid, path, repeat) for path in _paths(work)]
            if browser:
                answer["load"] = _loads(address, repeat)
            answer["idle_percent"] = round(100 * _load(process.pid, idle), 2)
            answer["memory_mb"] = common.memory_mb(process.pid)
            answer["stop_seconds"] = _stop(address, process)
    return answer


def _paths(work: Path) -> list[str]:
    with contextlib.closing(sqlite3.connect(work / "state" / "nirid.db")) as db:
        frame, product = (
            db.execute(f"SELECT name FROM {table} ORDER BY id DESC LIMIT 1").fetchone()[0]
            for table in ("frame", "product")
        )
        night = db.execute("SELECT strftime('%Y%m%d', MAX(ut), 'unixepoch') FROM frame").fetchone()[0]
    return [path.format(night=night, product=product, frame=frame) for path in PATHS]


def _page(address: str, pid: int, path: str, repeat: int) -> dict[str, Any]:
    """Processor time of the server for an answer, and its bytes."""
    body = _get(address, path)
    before = common.ticks(pid)
    for _ in range(many := 5 * repeat):
        _get(address, path)
    milliseconds = 1000 * (common.ticks(pid) - before) / os.sysconf("SC_CLK_TCK") / many
    return {
        "path": path,
        "cpu_ms": round(milliseconds, 1),
        "bytes": len(body),
        "gzip_bytes": len(gzip.compress(body)),
    }


def _get(address: str, path: str = "/") -> bytes:
    with urllib.request.urlopen(address.rstrip("/") + path, timeout=60) as answer:
        return bytes(answer.read())


def _loads(address: str, repeat: int) -> dict[str, Any]:
    """First paint of a browser that has seen nothing yet; requests and bytes but pictures."""
    answer: dict[str, Any] = {}
    with screenshots.browser() as chromium:
        for name, line in (("loopback", None), ("slow_line", SLOW_LINE)):
            painted = []
            for _ in range(repeat):
                context = chromium.new_context()
                page = context.new_page()
                asked: list[Any] = []
                page.on("request", lambda request, asked=asked: asked.append(request))
                if line:
                    context.new_cdp_session(page).send("Network.emulateNetworkConditions", line)
                page.goto(address, wait_until="load")
                screenshots.wait(page, LIVE)
                painted.append(page.evaluate(PAINTED)[0])
                others = [request for request in asked if request.resource_type != "image"]
                sizes = [r.sizes()["responseBodySize"] for r in others if "stream" not in r.url]
                answer |= {"requests": len(others), "bytes": sum(sizes)}
                context.close()
            answer[f"{name}_ms"] = common.percentiles(painted)
    return answer


def _stop(address: str, process: subprocess.Popen[str]) -> float:
    """Seconds from SIGTERM to the end, with twenty streams open."""
    port = int(address.rstrip("/").rpartition(":")[2])
    with contextlib.ExitStack() as streams:
        for number in range(20):
            one = socket.create_connection(
                ("127.0.0.1", port), source_address=(f"127.0.1.{1 + number // 4}", 0)
            )
            streams.enter_context(one)
            one.sendall(b"GET /api/v1/stream HTTP/1.1\r\nHost: localhost\r\n\r\n")
            one.recv(100)
        began = time.monotonic()
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=30)
        return round(time.monotonic() - began, 3)


def _load(pid: int, seconds: float) -> float:
    before = common.ticks(pid)
    time.sleep(seconds)
    return (common.ticks(pid) - before) / os.sysconf("SC_CLK_TCK") / seconds


# -- a night while people look ----------------------------------------------------------------------------


class _Daemons:
    """A daemon at work, and sequences that are still to land."""

    cadence = 1.5  # s between two frames

    def __init__(self, data: Path, work: Path, preset: str, groups: int, workers: int, quiet: float) -> None:
        self.daemon, self.preset, self.made = _Daemon(work, workers, quiet, looks=True), preset, 0
        self.taken = SETTLE + quiet
        if preset:
            self.daemon.land(common.raw_files(common.night(data, preset, 0, "dark flaton flatoff")))
            self.daemon.wait_for_products("processed_flat", 2)
            nights = [common.night(data, preset, k, "object") for k in range(1, groups + 1)]
            self.sequences = [common.raw_files(night) for night in nights]
        else:
            self.sequences = [
                common.few_darks(work / "night" / str(k), first=10 * k + 1, exposure=20.0 + k)
                for k in range(groups)
            ]

    def turn(self) -> tuple[float, list[float], int]:
        """Land the next sequence; seconds from its last rename to the product beyond settle and quiet, from
        the rename of each frame to its first look, and the most bytes of the write-ahead log."""
        frames = self.sequences[self.made]
        self.made += 1
        landed = self.daemon.land(frames, self.cadence if self.preset else 0.0)
        published = self.daemon.wait_for_products("" if self.preset else "processed_dark", self.made)
        wal = self.daemon.work / "state" / "nirid.db-wal"
        at, landings = self.events(), self.daemon.landed
        names = {path.stem: f"{path.stem}_firstlook" for path in frames}
        looks = [at[name] - landings[stem] for stem, name in names.items() if name in at]
        return published - landed - self.taken, looks, wal.stat().st_size if wal.exists() else 0

    def events(self) -> dict[str, float]:
        """{name: time of the first event that has it} of looks and products."""
        found: dict[str, float] = {}
        for event in common.events_of(self.daemon.work / "log"):
            if event["event"] == "look_made" or (event["event"] == "job_done" and event.get("product")):
                found.setdefault(Path(event["product"]).stem, common.moment(event))
        return found

    def close(self) -> None:
        self.daemon.process.send_signal(signal.SIGTERM)
        self.daemon.process.wait(timeout=30)


def _live(night: _Daemons, pairs: int, viewers: int, browser: bool) -> dict[str, Any]:
    alone, watched, walls, cpu, seen, waits = [], [], [], [], {}, []
    looks: dict[str, list[float]] = {"alone": [], "watched": []}
    memory = 0.0
    for number in range(pairs):
        for with_viewers in (True, False) if number % 2 else (False, True):
            if not with_viewers:
                seconds, those, wal = night.turn()
                alone.append(seconds)
                looks["alone"] += those
                walls.append(("alone", wal))
                continue
            with _watched(night, viewers, browser and number == 0, seen, waits) as pid:
                before, began = common.ticks(pid), time.monotonic()
                seconds, those, wal = night.turn()
                watched.append(seconds)
                looks["watched"] += those
                walls.append(("watched", wal))
                used = (common.ticks(pid) - before) / os.sysconf("SC_CLK_TCK")
                cpu.append(used / (time.monotonic() - began))
                memory = max(memory, common.memory_mb(pid))
                time.sleep(2.0)  # what has just been made is to reach the page
    opened = seen.pop("", math.inf)  # what was there before came with the page itself
    new = {name: at for name, at in night.events().items() if at > opened}
    late = [seen[name] - at for name, at in new.items() if name in seen]
    drawn = [seen[f"picture of {name}"] - at for name, at in new.items() if f"picture of {name}" in seen]
    return {
        "alone": common.percentiles(alone),
        "watched": common.percentiles(watched),
        "ratio": _ratio(watched, alone, night.taken),
        "looks": {kind: common.percentiles(those) for kind, those in looks.items() if those},
        "looks_ratio": _ratio(looks["watched"], looks["alone"]),
        "wal_kb": {kind: max(w for k, w in walls if k == kind) // 1024 for kind in ("alone", "watched")},
        "web_percent": round(100 * statistics.mean(cpu), 1),
        "web_mb": memory,
        "event_to_page": common.percentiles(late) if late else None,
        "event_to_picture": common.percentiles(drawn) if drawn else None,
        "events": len(late),
        "change_to_viewer": _marks(waits) if waits else None,
    }


def _ratio(watched: list[float], alone: list[float], more: float = 0.0) -> float | None:
    """Of the medians, with what a person waits besides."""
    if not watched or not alone:
        return None
    return round((statistics.median(watched) + more) / (statistics.median(alone) + more), 3)


def _marks(values: list[float]) -> dict[str, float]:
    ordered = sorted(values)
    at = {"median": 0.5, "p95": 0.95, "p99": 0.99}
    return {name: round(ordered[math.ceil(q * len(ordered)) - 1], 4) for name, q in at.items()}


@contextlib.contextmanager
def _watched(
    night: _Daemons, viewers: int, browser: bool, seen: dict[str, float], waits: list[float]
) -> Iterator[int]:
    """The page with its viewers, one of them slow, and a browser; the number of its process."""
    work = night.daemon.work
    served = screenshots.served(work / "state", "--port", "0", config=work / "nirid.toml")
    with served as (address, process), contextlib.ExitStack() as more:
        words = [sys.executable, "-m", "bench.viewers", address, str(viewers), "1"]
        looking = subprocess.Popen(words, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[1])
        if browser:
            page = more.enter_context(screenshots.browser()).new_page()
            page.add_init_script(WATCH)
            page.goto(address, wait_until="load")
            screenshots.wait(page, LIVE)
            seen[""] = time.time()
        time.sleep(1.0)
        try:
            yield process.pid
        finally:
            if browser:
                seen |= page.evaluate("window.seenAt")
            looking.terminate()
            waits += json.loads(looking.communicate(timeout=10)[0])["waits"]


# -- in tables --------------------------------------------------------------------------------------------


def tables(answer: dict[str, Any]) -> list[common.Table]:
    archive, live = answer["archive"], answer["live"]
    title = (
        f"{answer['files']} files; idle {archive['idle_percent']} % of a core, {archive['memory_mb']} MB; "
        f"stops in {archive['stop_seconds']} s with 20 streams"
    )
    pages = [[page["path"], page["cpu_ms"], page["bytes"], page["gzip_bytes"]] for page in archive["pages"]]
    found = [(title, ("address", "ms of processor", "bytes", "gzip"), pages)]
    if load := archive.get("load"):
        marks = load["loopback_ms"]
        rows = [["loopback", *load["loopback_ms"].values()], ["slow line", *load["slow_line_ms"].values()]]
        title = f"first paint, ms; {load['requests']} requests, {load['bytes']} bytes but pictures"
        found.append((title, ("", *marks), rows))
    title = (
        f"s beyond settle and quiet; {answer['viewers']} viewers and a slow one; ratio {live['ratio']} with "
        f"these, of first looks {live['looks_ratio']}"
    )
    rows = [[f"product, {kind}", *live[kind].values(), live["wal_kb"][kind]] for kind in ("alone", "watched")]
    rows += [[f"first look, {kind}", *marks.values(), ""] for kind, marks in live["looks"].items()]
    found.append((title, ("", *live["alone"], "write-ahead log, kB"), rows))
    rows = [["processor, % of a core", live["web_percent"]], ["memory, MB", live["web_mb"]]]
    for name, marks in (
        ("change to viewer, s", "change_to_viewer"),
        ("event to page, s", "event_to_page"),
        ("event to its picture drawn, s", "event_to_picture"),
    ):
        rows += [[f"{name}, {mark}", value] for mark, value in (live[marks] or {}).items()]
    return [*found, ("the page meanwhile", ("", ""), rows)]
