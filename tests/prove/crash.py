"""Stopped at every point, and every call made to fail: kill -9, power cuts, errors of the system.

A trial is one or several lives of a daemon over one folder, each in a process of its own that ends where
it is told to. After each end, before the next start, nothing torn may be seen; after the last life, which
is left alone, everything is as though nothing had happened.
"""

import bisect
import errno
import hashlib
import json
import os
import shutil
import signal
import sqlite3
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import closing, contextmanager
from pathlib import Path

import peewee as pw

from daemon.ledger.store import connect_readonly
from daemon.people import requests
from tests.prove.counts import Counts
from tests.prove.effects import Effects
from tests.prove.world import (
    POISON,
    PRUNE,
    SHORT,
    World,
    problems,
    products_of,
    raw,
    small_night,
    torn,
    visible,
)

HUNG_SECONDS = 60
NOT_STARTED = "could not start: "  # the service manager tries again
ERRORS = {
    "rename": (errno.ENOSPC, errno.EIO, errno.EACCES, errno.EROFS, errno.ESTALE),
    "replace": (errno.ENOSPC, errno.EIO, errno.EACCES, errno.EROFS, errno.ESTALE),
    "link": (errno.ENOSPC, errno.EIO, errno.EACCES, errno.EROFS, errno.EMLINK, errno.EPERM),
    "unlink": (errno.EIO, errno.EACCES, errno.EROFS, errno.ESTALE),
    "mkdir": (errno.ENOSPC, errno.EIO, errno.EACCES, errno.EROFS),
    "fsync": (errno.EIO, errno.ENOSPC),
    "write": (errno.ENOSPC, errno.EIO, errno.EDQUOT),
    "open": (errno.ENOSPC, errno.EACCES, errno.EROFS, errno.EMFILE, errno.ESTALE),
    "read": (errno.EIO, errno.EACCES, errno.EMFILE, errno.ESTALE),
    "stat": (errno.EIO, errno.ESTALE, errno.EACCES),
    "lstat": (errno.EIO, errno.ESTALE, errno.EACCES),
    "scandir": (errno.EIO, errno.ESTALE, errno.EACCES, errno.EMFILE),
    "connect": ("unable to open database file",),
    "begin": ("database is locked", "disk I/O error", "attempt to write a readonly database"),
    "commit": ("database is locked", "database or disk is full", "disk I/O error"),
}


# -- the story -------------------------------------------------------------------------------


def put(folder: Path, files: dict[str, bytes]) -> None:
    for name, content in files.items():
        (folder / "drop" / name).write_bytes(content)


def night_lands(folder: Path) -> None:
    put(folder, small_night())


def late_and_rewritten(folder: Path) -> None:
    """An earlier dark (the product gets another name), another flat at an old path, an edited QA state, a
    duplicate, a file gone, a frame that a person rejects."""
    night = small_night()
    put(folder, dict([raw("dark", 31, 20000 + 30 * 31), raw("dark", 44, 30000 + 5 * 44, **SHORT)]))
    put(folder, dict([raw("lampon", 22, 7800 + 60 * 22, pixels="again", exposure_time=42.0, coadds=1)]))
    put(folder, dict([raw("dark", 33, 20000 + 30 * 33, qa="Fail")]))
    put(folder, {"copy of a dark.fits": night["N20160102S0034.fits"]})
    put(folder, dict([raw("science", 5, 150)]))
    (folder / "drop" / "N20160102S0004.fits").unlink()
    requests.submit(
        folder / "state",
        {"action": "reject", "target": str(folder / "drop" / "N20160102S0003.fits"), "reason": "trailed"},
    )


def changed_their_mind(folder: Path) -> None:
    """A frame is accepted again, a file is back, a product is to be made again."""
    path = str(folder / "drop" / "N20160102S0003.fits")
    requests.submit(folder / "state", {"action": "accept", "target": path, "reason": "not so bad"})
    put(folder, dict([raw("dark", 33, 20000 + 30 * 33), raw("science", 4, 30 * 4)]))
    requests.submit(folder / "state", {"action": "requeue", "target": "N20160102S0021_flat"})


def one_is_poison(folder: Path) -> None:
    """Six darks of which one cannot be reduced: it is found by halving the group. What is old goes."""
    put(folder, dict([raw("dark", n, 40000 + 30 * n, exposure_time=5.0) for n in range(51, 56)]))
    put(folder, dict([raw("dark", 56, 40000 + 30 * 56, exposure_time=5.0, pixels=POISON)]))
    (folder / PRUNE).touch()


def a_product_is_deleted(folder: Path) -> None:
    """It is made again, and what was made with it."""
    (folder / "products" / "20160102" / "N20160102S0031_dark.fits").unlink()


def the_ledger_is_lost(folder: Path) -> None:
    """All that it knew is learnt again from what is on disk."""
    (folder / PRUNE).unlink(missing_ok=True)
    (folder / "began.log").unlink()
    shutil.rmtree(folder / "state")


STORY = (
    night_lands,
    late_and_rewritten,
    changed_their_mind,
    one_is_poison,
    a_product_is_deleted,
    the_ledger_is_lost,
)
KEPT = ("state", "products", "began.log", PRUNE)


class Stage:
    """One chapter: the folder as it is before the daemon starts on it, and what there must be in the end."""

    def __init__(self, base: Path, chapter: int):
        self.folder = base / "world"
        (self.folder / "drop").mkdir(parents=True)
        self.chapter = chapter
        for number in range(chapter + 1):
            STORY[number](self.folder)
            if number < chapter:
                self._alone()
        self.before = base / "before"
        self.before.mkdir()
        for name in KEPT:
            if (self.folder / name).is_dir():
                shutil.copytree(self.folder / name, self.before / name)
            elif (self.folder / name).exists():
                shutil.copy(self.folder / name, self.before / name)
        self.whole = self._not_torn()
        self._alone()
        self.wanted = products_of(self.folder)
        self.raw = {p.name: p.read_bytes() for p in (self.folder / "drop").iterdir()}

    def _not_torn(self) -> frozenset[str]:
        """Products that were there when the ledger was lost, and those that somebody has deleted."""
        database = self.folder / "state" / "nirid.db"
        if not database.exists():
            return frozenset(hashlib.sha256(p.read_bytes()).hexdigest() for p in visible(self.folder))
        with closing(connect_readonly(database)) as db:
            rows = db.execute("SELECT path, sha256 FROM product").fetchall()
        return frozenset(sha for path, sha in rows if not os.path.exists(path))

    def _alone(self):
        World(self.folder).start().until_quiet().prune().close()

    def reset(self):
        for name in ("state", "products", ".side"):
            shutil.rmtree(self.folder / name, ignore_errors=True)
        for name in ("began.log", PRUNE):
            (self.folder / name).unlink(missing_ok=True)
        shutil.copytree(self.before, self.folder, dirs_exist_ok=True)

    def live(self, act, *, reads=False) -> tuple[str, list[str], str]:
        """One life: (how it ended, the effects that it had, what it said)."""
        ears, write_end = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(ears)
            _life(self.folder, act, reads, write_end)
        os.close(write_end)
        with open(ears, "rb") as pipe:
            said = pipe.read()
        _, status = os.waitpid(pid, 0)
        how = {signal.SIGKILL: "killed", signal.SIGALRM: "hung"}.get(os.WTERMSIG(status), "ended")
        answer = json.loads(said) if said else {"names": [], "error": ""}
        return how, answer["names"], answer["error"]

    def check(self, *, staging=True) -> dict[str, list[str]]:
        bad = problems(self.folder, self.wanted, staging=staging, whole=self.whole)
        if {p.name: p.read_bytes() for p in (self.folder / "drop").iterdir()} != self.raw:
            bad["lost"].append("a raw file was touched")
        return bad


def _life(folder: Path, act, reads: bool, write_end: int) -> None:
    """In the child: never returns."""
    write = os.write
    error, effects, started = "", None, False
    signal.alarm(HUNG_SECONDS)
    try:
        effects = Effects(folder, lambda *at: act(effects, *at), reads=reads)
        effects.install()
        world = World(folder).start()
        started = True
        world.until_quiet().prune().close()
    except BaseException as problem:
        error = f"{'' if started else NOT_STARTED}{type(problem).__name__}: {problem}"
    write(write_end, json.dumps({"names": effects.names if effects else [], "error": error}).encode())
    os._exit(0)


def nothing(effects, number, name, path):
    pass


def stop_at(k: int, how: str):
    def act(effects, number, name, path):
        if number == k:
            getattr(effects, how)()

    return act


def fail_at(k: int, error, times: int = 1):
    """The k-th call fails, and the next ones of its kind until it has failed so often."""
    left = [times, None]

    def act(effects, number, name, path):
        if number == k:
            left[1] = name
        if error == errno.EACCES and "/requests/" in str(path):
            return  # a request that may not be read is refused, and said to be
        if left[1] == name and left[0] > 0:
            left[0] -= 1
            if isinstance(error, str):
                raise (sqlite3 if name == "connect" else pw).OperationalError(error)
            raise OSError(error, os.strerror(error), path if isinstance(path, str) else None)

    return act


# -- the parts -------------------------------------------------------------------------------


@contextmanager
def place():
    """A folder in memory where there is one: what counts here is the order of calls, not the disk."""
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=memory) as folder:
        yield Path(folder).resolve()


def crashes(points: int, *, part=(0, 1), seed=0, chapters=0) -> Counts:
    """kill -9 and power cuts at every point; then, until there are so many, a second one in the recovery.

    part : (i, n) takes every n-th point, so that several processes share the work
    chapters : how many of the story, 0 for all
    """
    counts, began = Counts(), time.monotonic()
    kinds: Counter = Counter()
    with place() as base:
        stages = []
        for chapter in range(chapters or len(STORY)):
            (base / str(chapter)).mkdir()
            stages.append(Stage(base / str(chapter), chapter))
        trials = list(_single(stages))
        counts.more["points of one life"] = len(trials) // 2
        share = points // part[1]
        chosen = _spread(trials, max(1, share // 2) if share < len(trials) else len(trials), part, seed)
        ends = [0]  # of the second crashes that each recovery has room for: a million, so they are not listed
        for stage, lives in chosen:
            ends.append(ends[-1] + 2 * _trial(stage, lives, counts))
            kinds["single"] += 1
        for number in _spread(range(ends[-1]), max(0, share - counts.tried), (0, 1), seed):
            first = bisect.bisect_right(ends, number) - 1
            stage, lives = chosen[first]
            point, cut = divmod(number - ends[first], 2)
            _trial(stage, (*lives, (point + 1, "cut" if cut else "kill")), counts)
            kinds["double"] += 1
    counts.more |= kinds
    counts.seconds = time.monotonic() - began
    return counts


def _single(stages):
    for stage in stages:
        stage.reset()
        how, names, error = stage.live(nothing)
        if how != "ended" or error:
            raise RuntimeError(f"chapter {stage.chapter} does not even work undisturbed: {how} {error}")
        for k in range(1, len(names) + 1):
            yield stage, ((k, "kill"),)
            yield stage, ((k, "cut"),)


def _spread(items: Sequence, wanted: int, part, seed: int) -> Sequence:
    """So many of them, evenly over all, beginning elsewhere for each part."""
    mine = items[(part[0] + seed) % part[1] :: part[1]]
    if wanted >= len(mine):
        return mine
    return [mine[(i * len(mine)) // wanted] for i in range(wanted)]


def _trial(stage: Stage, lives, counts: Counts) -> int:
    """Lives that end where they are told, then one that is left alone. Returns how many effects that had."""
    stage.reset()
    label = f"chapter {stage.chapter}, {' then '.join(f'{how} at {k}' for k, how in lives)}"
    seen = []
    for k, how in lives:
        end, _, error = stage.live(stop_at(k, how))
        if end == "hung" or error:
            counts.hung += end == "hung"
            counts.found.append(f"{label}: {end} {error}")
        seen += torn(stage.folder, stage.whole)
    end, names, error = stage.live(nothing)
    if end != "ended" or error:
        counts.take(label, {"lost": [f"the recovery {end}: {error}"], "torn": seen})
        counts.hung += end == "hung"
        return len(names)
    bad = stage.check()
    bad["torn"] += seen
    counts.take(label, bad)
    return len(names)


def errors(tries: int, *, part=(0, 1), seed=0) -> Counts:
    """At every point every error that fits, once and five times in a row: the daemon goes on by itself.

    Once only in reading while the ledger is made anew: a raw file that cannot be read then is unknown, and
    what it is in is made again when it can be.
    """
    counts, began = Counts(), time.monotonic()
    kinds: Counter = Counter()
    with place() as base:
        trials = []
        for chapter in range(len(STORY)):
            (base / str(chapter)).mkdir()
            stage = Stage(base / str(chapter), chapter)
            stage.reset()
            _, names, _ = stage.live(nothing, reads=True)
            trials += [
                (stage, k, error, times)
                for k, name in enumerate(names, 1)
                for error in ERRORS[name]
                for times in (1, 5)
                if not (name == "read" and times == 5 and STORY[chapter] is the_ledger_is_lost)
            ]
        counts.more["points with an error"] = len(trials)
        for stage, k, error, times in _spread(trials, tries // part[1], part, seed):
            stage.reset()
            end, names, said = stage.live(fail_at(k, error, times), reads=True)
            name = names[k - 1] if len(names) >= k else "?"
            word = error if isinstance(error, str) else errno.errorcode[error]
            label = f"chapter {stage.chapter}, {name} {k}: {word} x {times}"
            kinds[word] += 1
            bad = {}
            if end == "ended" and not said:
                bad = stage.check(staging=False)
            elif end == "hung" or not said.startswith(NOT_STARTED):
                bad = {"lost": [f"the daemon {end}: {said}"]}
                counts.hung += end == "hung"
            stage.live(nothing)  # which tidies up, or does what could not begin
            counts.take(label, bad if any(bad.values()) else stage.check())
    counts.more |= kinds
    counts.seconds = time.monotonic() - began
    return counts
