"""Bugs put in on purpose: each has to turn a check red, else the check is worth nothing.

    python -m tests.prove planted            # all of them
    python -m tests.prove planted --short    # three

A bug replaces a function or a value while its check runs; no source is touched. The same checks are green
without it.
"""

import contextlib
import os
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from unittest.mock import patch

import peewee as pw

from daemon.arrivals import read as arrivals_read
from daemon.arrivals import settle, sweep
from daemon.arrivals.intake import Landing
from daemon.ledger import jobs, publications
from daemon.ledger.store import _PRAGMAS, Ledger, LedgerBusy
from daemon.model import files, states
from daemon.model.files import FileRecord, Signature
from daemon.model.states import JOB_TRANSITIONS, JobState
from daemon.work import dispatch, moving
from daemon.work.dispatch import Dispatcher
from daemon.work.publishing import Publisher
from pipeline.files import disk, streams, structure
from tests.prove import world as worlds
from tests.prove.counts import Counts
from tests.prove.crash import crashes, errors
from tests.prove.damage import Judge, damage, originals
from tests.prove.world import World, problems, products_of, raw, small_night


@dataclass(frozen=True)
class Bug:
    """what : in words; plant : () -> contexts that put it in; check : () -> what has to be red"""

    what: str
    plant: Callable[[], list]
    check: Callable[[], Counts]
    short: bool = False


# -- checks that are no parts of their own ----------------------------------------------------


def two_writers() -> Counts:
    """Somebody else writes between our reading and our writing: the transaction waits, it does not fail."""
    counts = Counts()
    with tempfile.TemporaryDirectory() as folder:
        both = [Ledger(Path(folder) / "nirid.db") for _ in range(2)]
        failed = []

        def count(mine):
            for _ in range(40):
                try:
                    mine.write(lambda tx: tx.counter("n") if tx.one("SELECT * FROM meta") or True else 0)
                except LedgerBusy as error:
                    failed.append(str(error))

        threads = [threading.Thread(target=count, args=(mine,)) for mine in both]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        with both[0].read() as db:
            total = db.execute("SELECT value FROM meta WHERE name = 'n'").fetchone()[0]
        for mine in both:
            mine.close()
    counts.take("80 transactions", {"lost": [*failed[:1], *([] if total == 80 else [f"{total} of 80"])]})
    return counts


def power_cut_safe() -> Counts:
    """What SQLite was told about flushing, which no process that is killed can tell."""
    counts = Counts()
    asked = []
    execute = pw.SqliteDatabase.execute_sql

    def noted(db, sql, *args, **more):
        result = execute(db, sql, *args, **more)
        if not asked:
            asked.append(db.connection().execute("PRAGMA synchronous").fetchone()[0])
        return result

    with tempfile.TemporaryDirectory() as folder, patch.object(pw.SqliteDatabase, "execute_sql", noted):
        Ledger(Path(folder) / "nirid.db").close()
    counts.take("PRAGMA synchronous", {"lost": [] if asked == [2] else [f"is {asked}, not 2 (FULL)"]})
    return counts


def a_story(*chapters) -> Counts:
    """A night lands, and then this: what there is in the end, held against what a new daemon makes of it."""
    counts = Counts()
    with tempfile.TemporaryDirectory() as name:
        base = Path(name).resolve()
        world = World(base / "live").start()
        for chapter in (lambda drop: _put(drop, small_night()), *chapters):
            chapter(world.drop)
            for _ in range(30):
                world.tick()
        world.close()
        os.makedirs(base / "at once")
        os.rename(base / "live" / "drop", base / "at once" / "drop")
        World(base / "at once").start().at_once().close()
        os.symlink(base / "at once" / "drop", base / "live" / "drop")
        made, wanted = products_of(base / "live"), products_of(base / "at once")
        bad = [] if made == wanted else [f"other products: {sorted(made.keys() ^ wanted.keys()) or 'bytes'}"]
        counts.take("the story", {"lost": bad})
    return counts


def late_frames() -> Counts:
    late = dict([raw("dark", 35, 20000 + 30 * 35)])
    return a_story(lambda drop: _put(drop, late))


def in_place() -> Counts:
    """As many bytes, the old time, the same inode: only ctime tells."""

    def rewrite(drop):
        path = drop / "N20160102S0033.fits"
        before = path.stat()
        content = path.read_bytes().replace(b'"pixels": "N', b'"pixels": "M')
        with path.open("r+b") as file:
            file.write(content)
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))

    return a_story(rewrite)


def copies() -> Counts:
    def copy(drop):
        (drop / "more").mkdir()
        _put(drop / "more", {n: b for n, b in small_night().items() if "S003" in n})

    return a_story(copy)


def idle_restart() -> Counts:
    """A daemon ends while jobs run; the next one takes them up."""
    counts = Counts()
    with tempfile.TemporaryDirectory() as name:
        base = Path(name).resolve()
        world = World(base).start()
        world.dispatcher.looks = None  # of which the workers would be full
        world.engine.held = True
        _put(world.drop, small_night())
        for _ in range(20):
            world.tick()
        world.close()
        World(base).start().until_quiet().close()
        counts.take("the restart", problems(base))
    return counts


def at_rest() -> Counts:
    """A night, and nothing else."""
    counts = Counts()
    with tempfile.TemporaryDirectory() as name:
        base = Path(name).resolve()
        world = World(base).start()
        _put(world.drop, small_night())
        world.until_quiet().close()
        counts.take("the night", problems(base))
    return counts


def cut_short() -> Counts:
    """Real files, real reader: cut at many places."""
    counts = Counts()
    with tempfile.TemporaryDirectory() as name:
        judge = Judge(Path(name), counts)
        for what, content in originals(Path(name)).items():
            for share in (0.2, 0.5, 0.9, 0.999):
                short = content[: int(len(content) * share)]
                judge(f"{what} cut", short, never=("ready",), patience="live")
    return counts


def _put(drop: Path, contents: dict[str, bytes]) -> None:
    for name, content in contents.items():
        (drop / name).write_bytes(content)


# -- bugs ------------------------------------------------------------------------------------


def _swap(owner, **values):
    return lambda: [patch.object(owner, name, value) for name, value in values.items()]


def _nothing(*args, **more):
    return None


def _deferred():
    begin = pw.SqliteDatabase.begin
    return [patch.object(pw.SqliteDatabase, "begin", lambda db, lock_type=None: begin(db))]


def _counted_after():
    """The job is handed out before its attempt is on record."""

    def hand_out(self):
        def early(tx):
            claimed = jobs.claim(tx)
            if claimed:
                self.engine.submit(claimed.job_id, claimed.attempt, claimed.spec)
            return claimed

        started = 0
        while self.engine.free() > 0 and self._claimable([]) and self.ledger.write(early):
            started += 1
        return started

    return [patch.object(Dispatcher, "dispatch", hand_out)]


def _commit_first():
    def publish_(self, plan):
        self.ledger.write(lambda tx: publications.commit(tx, plan, self.policy))
        moving.move_files(plan)

    return [patch.object(Publisher, "carry_out", publish_)]


def _forgetful():
    """An ending that cannot be written down now is dropped."""

    def collect(self):
        outcomes = self.engine.poll()
        for outcome in outcomes:
            self.finish(outcome)
        for plan in list(self.publisher.unfinished.values()):
            self.publisher.publish(plan)
        return len(outcomes) + self.publisher.fulfil_wishes()

    return [patch.object(Dispatcher, "collect", collect)]


def _staged_name_not_synced():
    """What it leaves would be tidied up at the next start, which finds one product at two places."""
    sync = disk.sync
    return [
        patch.object(moving, "sync", lambda path: None if path.name == ".staging" else sync(path)),
        patch.object(worlds.rebuild, "unknown", lambda ledger, products: ([], [])),
    ]


def _written_in_place():
    """The product is copied to its place instead of renamed."""

    def copy(source, target, **more):
        fd = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        view = memoryview(Path(source).read_bytes())
        while len(view):
            view = view[os.write(fd, view) :]
        os.close(fd)
        os.unlink(source)

    class Os:
        def __getattr__(self, name):
            return copy if name == "replace" else getattr(os, name)

    return [patch.object(moving, "os", Os())]


def _no_intent():
    return [patch.object(publications, "_intent", lambda tx, plan: plan)]


def _identity_is_the_path():
    read = worlds.read

    def by_path(path, *, patience="live"):
        record = read(path, patience=patience)
        if not record.file_sha:
            return record
        file_sha, data_sha = worlds.sha(record.file_sha + path), worlds.sha(record.data_sha + path)
        return replace(record, file_sha=file_sha, data_sha=data_sha)

    return [patch.object(worlds, "read", by_path)]


def _mtime_only():
    def signature_of(st):
        return Signature(st.st_dev, 0, st.st_size, st.st_mtime_ns, 0)

    return [patch.object(module, "signature_of", signature_of) for module in (settle, worlds, sweep)]


def _created_means_complete():
    def whole(path, why, patience):
        return FileRecord(path, "ready", "it is there", files.signature_of(os.lstat(path)))

    return [patch.object(arrivals_read, "_cut_short", whole)]


def _sweeps_once():
    list_folders = Landing._sweep

    def only_at_start(self, now):
        found = list_folders(self, now) if self.sweep_at == 0.0 else None
        self.sweep_at = float("inf")
        return found

    return [patch.object(Landing, "_sweep", only_at_start)]


def _runs_again():
    """A job that is done may be started again."""
    legal = {**JOB_TRANSITIONS, JobState.DONE: frozenset({JobState.PLANNED})}

    def reopen(tx, plan, policy):
        commit(tx, plan, policy)
        if tx.one("SELECT attempts FROM job WHERE id = ?", plan.job)[0] < 2:
            tx.run("UPDATE job SET state = 'planned' WHERE id = ?", plan.job)
            tx.run("DELETE FROM product WHERE job_id = ?", plan.job)

    commit = publications.commit
    return [patch.object(states, "JOB_TRANSITIONS", legal), patch.object(publications, "commit", reopen)]


def _few_crashes() -> Counts:
    return crashes(160)


BUGS = (
    Bug("no folder is flushed after a rename", _swap(moving, sync=_nothing), _few_crashes),
    Bug("the name of a staged file is not flushed", _staged_name_not_synced,
        lambda: crashes(1600, chapters=3)),
    Bug("SQLite flushes now and then only", lambda: [patch.dict(_PRAGMAS, synchronous="normal")],
        power_cut_safe, short=True),
    Bug("transactions begin deferred", _deferred, two_writers),
    Bug("folders are listed at the start only", _sweeps_once, late_frames, short=True),
    Bug("what was created is taken for complete", _created_means_complete, cut_short, short=True),
    Bug("size and mtime are all of a file's identity", _mtime_only, in_place),
    Bug("the identity of a frame is its path", _identity_is_the_path, copies),
    Bug("attempts are counted after the start", _counted_after, _few_crashes),
    Bug("no intent is written before publishing", _no_intent, _few_crashes),
    Bug("the commit comes before the rename", _commit_first, _few_crashes),
    Bug("products are written in place", _written_in_place, _few_crashes),
    Bug("the old product is not kept", _swap(moving, _keep=_nothing), _few_crashes),
    Bug("running jobs are forgotten at a start", _swap(dispatch, recover_interrupted=lambda tx: 0),
        idle_restart),
    Bug("an ending is dropped when the database is busy", _forgetful, lambda: errors(700)),
    Bug("a finished job runs again", _runs_again, at_rest),
    Bug("checksums are read, not compared", _swap(structure._Walk, _verify=_nothing), lambda: damage(400)),
    Bug("compressed files may grow without limit",
        lambda: [patch.object(streams, "MAX_RATIO", 1e9), patch.object(streams, "MAX_BYTES", 1 << 40),
                 patch.object(structure, "MAX_BYTES", 1 << 40)], lambda: damage(50)),
)  # fmt: skip


def planted(*, short=False, part=(0, 1)) -> Counts:
    """Every bug has to be found: "lost" are those that were not, and checks that are red without a bug."""
    counts, began = Counts(), time.monotonic()
    bugs = [bug for bug in BUGS if bug.short or not short][part[0] :: part[1]]
    for bug in bugs:
        with contextlib.ExitStack() as stack:
            for context in bug.plant():
                stack.enter_context(context)
            try:
                found = bug.check()
                first = found.found[0] if found.red else ""
            except Exception as error:  # the bug stops everything: it is noticed
                first = f"{type(error).__name__}: {error}"
        counts.take(bug.what, {"lost": [] if first else ["not noticed"]})
        counts.more[f"={bug.what}"] = first[:100] or "NOT NOTICED"
    for bug in (
        bugs if short else {b.check.__name__: b for b in bugs if b.check.__name__ != "<lambda>"}.values()
    ):
        sound = bug.check()
        if sound.red:
            counts.take(f"{bug.what}: without it", {"lost": sound.found[:1]})
    counts.seconds = time.monotonic() - began
    return counts
