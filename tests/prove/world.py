"""A small observatory on a real disk: raw files that a fast reader understands, a daemon of the real parts
(ledger, landing, planning, publication, requests) and an engine that "reduces" by writing a tiny FITS file.

Time is simulated: a night takes a tenth of a second. Everything that the daemon knows is in its folder, so
that a world may be thrown away at any moment and another one set up over what is left.
"""

import contextlib
import hashlib
import json
import os
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from unittest import mock

from daemon.arrivals.intake import Landing
from daemon.arrivals.settle import Tracker
from daemon.arrivals.watcher import Watcher
from daemon.config.options import Retention
from daemon.ledger import questions
from daemon.ledger.store import Ledger, connect_readonly
from daemon.loop import MainLoop
from daemon.model.files import FileRecord, signature_of
from daemon.model.jobs import FIRST_LOOK_NUMBER, JobSpec, Outcome, input_key
from daemon.model.names import QUICKLOOK, STAGING
from daemon.people.requests import Requests
from daemon.upkeep import provenance, rebuild, retention
from daemon.upkeep.audit import audit, is_clean
from daemon.upkeep.provenance import ProductOnDisk
from daemon.work.dispatch import Dispatcher
from daemon.work.previews import Looks
from tests.fitsfiles import header_bytes, padded
from tests.night import FakeEngine, describe, frame, setting, sha

_WRITE = os.write  # before anybody puts another in its place
END = b"\nEND"  # of a whole raw file
STEP = 20.0  # s of simulated time between two looks
GRACE = 300.0  # s, of incomplete files
LAMP = {"exposure_time": 42.0, "coadds": 1}
SHORT = {"exposure_time": 1.0, "coadds": 1}
POISON = "poison"  # pixels that no recipe can take
PRUNE = "prune"  # where this file lies, superseded products go as soon as all is quiet


def raw(
    kind, number, seconds, *, day="20160102", pixels="", comment="", qa="", **changes
) -> tuple[str, bytes]:
    """(name, bytes) of a raw file. pixels, comment, qa : other pixels, an edited comment, a QA state"""
    name = f"N{day}S{number:04d}.fits"
    facts = {"kind": kind, "number": number, "seconds": seconds, "day": day, "changes": changes}
    text = json.dumps({**facts, "pixels": pixels or name, "comment": comment, "qa": qa})
    return name, text.encode() + END


def small_night() -> dict[str, bytes]:
    """3 darks, 3 + 3 flats, 3 short darks for a mask, 4 science frames: four products."""
    files = [raw("science", n, 30 * n) for n in range(1, 5)]
    files += [raw("lampoff", n, 7200 + 60 * n, **LAMP) for n in range(11, 14)]
    files += [raw("lampon", n, 7800 + 60 * n, **LAMP) for n in range(21, 24)]
    files += [raw("dark", n, 20000 + 30 * n) for n in range(32, 35)]
    files += [raw("dark", n, 30000 + 5 * n, **SHORT) for n in range(41, 44)]
    return dict(files)


def read(path, *, patience="live") -> FileRecord:
    """Stands for `daemon.arrivals.read.ingest`, on the files of `raw`."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return FileRecord(path, "vanished", "gone before it could be read")
    with open(fd, "rb") as file:
        before, content = os.fstat(fd), file.read()
        signature = signature_of(before)
        if signature != signature_of(os.fstat(fd)):
            raise OSError("changed while it was read")
    if not content.endswith(END):
        if patience == "overdue":
            digest = hashlib.sha256(content).hexdigest()
            return FileRecord(path, "quarantined", "incomplete, and has not grown since", signature, digest)
        return FileRecord(path, "incomplete", f"only {len(content)} bytes", signature)
    values = json.loads(content[: -len(END)])
    made = frame(values["kind"], values["number"], values["seconds"], day=values["day"], **values["changes"])
    descriptors = describe(values["kind"], values["number"], values["seconds"], **values["changes"])
    record = replace(
        made,
        path=path,
        signature=signature,
        file_sha=hashlib.sha256(content).hexdigest(),
        data_sha=sha(values["pixels"]),
        descriptors=replace(descriptors, qa_state=values["qa"] or None),
    )
    if values["qa"] == "Fail":
        return replace(record, state="excluded", reason="the QA state in the header is Fail")
    return record


def product_bytes(content: bytes) -> bytes:
    """A FITS file whose data are these bytes."""
    head = {"SIMPLE": True, "BITPIX": 8, "NAXIS": 1, "NAXIS1": len(content)}
    return header_bytes(head) + padded(content)


class Engine(FakeEngine):
    """Stages as the real worker does: under a hidden name, flushed, then renamed. Keeps a log of what began
    in a file that is no part of the world, to hold the attempts on record against."""

    def __init__(self, folder: Path, **more):
        super().__init__(**more)
        self._log = os.open(folder / "began.log", os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def submit(self, job_id, attempt, spec):
        if job_id < FIRST_LOOK_NUMBER:
            _WRITE(self._log, f"{job_id} {attempt} {spec.key}\n".encode())
        super().submit(job_id, attempt, spec)

    def run(self, job_id, attempt, spec):
        try:
            for item in spec.inputs:  # which may have gone since the job was planned
                os.stat(item.path)
            if any(item.data_sha == sha(POISON) for item in spec.inputs):
                return Outcome(job_id, attempt, "failed", 0.1, error="BadFrame: odd")
            return super().run(job_id, attempt, spec)
        except OSError as error:
            return Outcome(job_id, attempt, "io", 0.1, error=str(error))

    @staticmethod
    def stage(spec):
        text = {
            "recipe": [spec.recipe, spec.recipe_version, spec.key, spec.group, spec.time_stamp],
            "inputs": [[i.name, i.data_sha, i.facts] for i in spec.inputs],
            "cals": sorted((c.role, c.sha, c.name) for c in spec.calibrations),
            "parameters": sorted(spec.parameters.items()),
            "notes": spec.notes,
        }
        content = product_bytes(json.dumps(text).encode())
        staged = Path(f"{spec.staging}.fits")
        staged.parent.mkdir(parents=True, exist_ok=True)
        write_whole(staged.with_suffix(".png"), json.dumps(spec.to_json()).encode())
        write_whole(staged, content)
        return {
            "fits": str(staged),
            "png": str(staged.with_suffix(".png")),
            "sha256": hashlib.sha256(content).hexdigest(),
            "name": spec.name,
            "notes": list(spec.notes),
            "seconds": 0.1,
            "peak_mb": 1.0,
        }


def read_product(path: Path, products: Path) -> ProductOnDisk:
    """Stands for `daemon.upkeep.provenance.read`: what `Engine.stage` has written beside it."""
    content = path.read_bytes()
    spec = JobSpec.from_json(json.loads(path.with_suffix(".png").read_text()))
    superseded = "superseded" in path.parts
    return ProductOnDisk(
        path=path,
        name=path.stem.rpartition(".v")[0] if superseded else path.stem,
        night=path.relative_to(products).parts[0],
        superseded=superseded,
        sha256=hashlib.sha256(content).hexdigest(),
        key=spec.key,
        group=spec.group,
        input_key=input_key(spec.inputs),
        recipe=spec.recipe,
        version=spec.recipe_version,
        preset=spec.preset,
        inputs=tuple((item.name, item.file_sha) for item in spec.inputs),
        calibrations=tuple((cal.name, cal.sha, cal.role) for cal in spec.calibrations),
        parameters=spec.parameters,
        notes=spec.notes,
        quality={},
        descriptors=describe("dark", 0, 0),
        time_stamp=spec.time_stamp,
        written=path.stat().st_mtime,
        ut=0.0,
        by_path=(),
        made_with={},
    )


def write_whole(path: Path, content: bytes) -> None:
    part = path.with_name(f".{path.name}.part")
    part.unlink(missing_ok=True)
    try:
        fd = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        try:
            view = memoryview(content)
            while len(view):
                view = view[os.write(fd, view) :]
            os.fsync(fd)
        finally:
            os.close(fd)
        os.replace(part, path)
    except OSError:
        part.unlink(missing_ok=True)
        raise


class Inline:
    """A pool without threads: done at once, so that a crash point is the same each time."""

    def submit(self, fn, *args, **more):
        future = Future()
        try:
            future.set_result(fn(*args, **more))
        except Exception as error:
            future.set_exception(error)
        return future

    def map(self, fn, items):
        return [fn(item) for item in items]

    def shutdown(self, **more):
        pass


class SweepsOnly(Watcher):
    """No events, no threads: what is found is found by listing."""

    def _arm(self):
        pass

    def supervise(self):
        return []


class World:
    """drop/, state/ and products/ below a folder, and a daemon over them."""

    def __init__(self, folder: Path, *, engine=None, wall=1.6e9):
        self.folder, self.now, self.wall = folder, 1000.0, wall
        self.drop, self.state, self.products = (folder / n for n in ("drop", "state", "products"))
        for place in (self.drop, self.state, self.products):
            place.mkdir(parents=True, exist_ok=True)
        self.events = []
        self.ledger = Ledger(self.state / "nirid.db", log=self._log, clock=lambda: self.wall + self.now)
        self.engine = engine or Engine(folder)
        # As for a file that is cut short, so that what is lost is gone on without before all is quiet.
        self.setting = replace(setting(self.products), grace_seconds=GRACE)
        self.dispatcher = Dispatcher(
            self.ledger,
            self.engine,
            clock=lambda: self.now,
            setting=self.setting,
            looks=Looks(self.products, self.setting, clock=lambda: self.now),
        )
        requests = Requests(self.ledger, self.setting, lambda r, d: {}, self.state, self.products)
        self.main_loop = MainLoop(
            self.ledger,
            self.dispatcher,
            self.setting,
            clock=lambda: self.now,
            log=self._log,
            requests=requests,
        )
        self.landing = Landing(
            self.ledger,
            SweepsOnly([str(self.drop)]),
            Tracker(2.0, 0.3, GRACE),
            self.setting,
            sweep_seconds=1.0,
            read=read,
            clock=lambda: self.now,
            log=self._log,
        )

    def _log(self, event, **fields):
        self.events.append((event, fields))

    def start(self):
        """As `app.Daemon.start`."""
        self.main_loop.recover(self.products)
        with contextlib.suppress(OSError):
            retention.finish(self.ledger)
        self.main_loop.looks.tidy(self.ledger)
        self.landing.start()
        self.landing._pool.shutdown()
        self.landing._pool = Inline()
        if any(rebuild.unknown(self.ledger, self.products)):
            with mock.patch.object(provenance, "read", read_product):
                rebuild.take_back(self.ledger, self.landing, self.setting, self.main_loop.overrides)
        return self

    def prune(self):
        """As the calendar does, where a chapter asks for it."""
        with contextlib.suppress(OSError):
            if (self.folder / PRUNE).exists():
                retention.prune(self.ledger, Retention(superseded_days=0.0, keep_versions=0))
        return self

    def tick(self, seconds=STEP):
        """Let time pass and do what can be done."""
        self.now += seconds
        self.landing.step(self.now)
        self.main_loop.tick(self.now)

    def run(self, seconds):
        end = self.now + seconds
        while self.now < end:
            self.tick()

    def until_quiet(self, seconds=500.0, longest=100_000.0):
        """Until nothing has happened for so long; TimeoutError when that never comes."""
        last, since, began = None, self.now, self.now
        while self.now - since < seconds:
            self.tick()
            seen = len(self.events), len(self.engine.ran), self.engine.busy()
            if seen != last:
                last, since = seen, self.now
            if self.now - began > longest:
                raise TimeoutError("it never comes to rest")
        return self

    def at_once(self):
        """As `nirid run --until-idle`."""
        self.main_loop.until_idle(self.landing.take_all)
        return self

    def close(self):
        self.landing.stop()
        self.main_loop.close()
        self.ledger.close()


def products_of(folder: Path) -> dict[str, bytes]:
    """{name: bytes} of the current products, by the ledger."""
    with contextlib.closing(connect_readonly(folder / "state" / "nirid.db")) as db:
        there = [(p["name"], Path(p["path"])) for p in questions.products(db)]
    return {name: path.read_bytes() if path.exists() else b"" for name, path in there}


def torn(folder: Path, whole: frozenset[str] = frozenset()) -> list[str]:
    """What nobody may ever see, looked for while no daemon runs: a product in the place of a product that is
    not whole, and a current product without its file.

    whole : hashes of products that were there before the ledger was lost, or that somebody has deleted
    """
    database = folder / "state" / "nirid.db"
    if not database.exists():
        return [str(p) for p in visible(folder) if _sha(p) not in whole]
    with contextlib.closing(connect_readonly(database)) as db:
        try:
            rows = list(db.execute("SELECT path, sha256, current FROM product"))
            plans = [json.loads(r[0]) for r in db.execute("SELECT plan FROM intent")]
            going = {os.fsdecode(r[0]) for r in db.execute("SELECT path FROM removal")}
        except Exception:  # no tables yet
            return [str(p) for p in visible(folder) if _sha(p) not in whole]
    begun = {plan["sha256"] for plan in plans}
    moved = {old["path"]: old["kept"] for plan in plans for old in plan["old"]}
    known = {row["sha256"] for row in rows} | begun | whole
    bad = [f"{p}: torn" for p in visible(folder) if _sha(p) not in known and str(p) not in going]
    for row in rows:
        path = os.fsdecode(row["path"])
        places = [path, moved.get(path, path), *(plan["final"] for plan in plans if plan["staged"] == path)]
        if row["sha256"] not in whole and not any(
            os.path.exists(p) and _sha(p) == row["sha256"] for p in places
        ):
            bad.append(f"{path}: on record, and not there")
    return bad


def _said(product: bytes | None) -> str:
    return "not there" if product is None else product[2880:].rstrip(b"\0").decode()


def visible(folder: Path):
    found = (folder / "products").rglob("*.fits")
    return [p for p in found if not any(q.startswith(".") or q == QUICKLOOK for q in p.parts)]


def overdue_looks(folder: Path, ask) -> list[str]:
    """Looks at frames that are in a current product."""
    used = {
        Path(name).stem
        for (name,) in ask(
            """SELECT f.name FROM frame f JOIN job_input i ON i.frame_id = f.id JOIN job j ON j.id = i.job_id
            JOIN product p ON p.job_id = j.id AND p.current WHERE j.recipe = 'reduce'"""
        )
    }
    quick = (folder / "products").glob(f"*/{QUICKLOOK}/*")
    return [
        f"a look that is overdue: {p.name}" for p in quick if p.stem.rpartition("_")[0].strip(".") in used
    ]


def _sha(path) -> str:
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def problems(
    folder: Path, wanted: dict[str, bytes] | None = None, *, staging=True, whole: frozenset[str] = frozenset()
) -> dict[str, list[str]]:
    """What is wrong at rest: {"lost": ..., "doubled": ..., "torn": ...}, all empty when nothing is.

    wanted : the products that there must be, as `products_of` has them
    staging : nothing may be left of what was staged
    """
    lost, doubled = [], []
    with contextlib.closing(connect_readonly(folder / "state" / "nirid.db")) as db:
        answer = audit(db, [folder / "drop"], folder / "products")
        if not is_clean(answer):
            lost.append(f"audit: {answer['unaccounted']} {answer['products']['broken']}")
        ask = lambda sql: [tuple(row) for row in db.execute(sql)]  # noqa: E731
        lost += [f"still running: {row}" for row in ask("SELECT id FROM job WHERE state = 'running'")]
        lost += [f"intent left: {row}" for row in ask("SELECT job_id FROM intent")]
        lost += [f"attempt without an end: {row}" for row in ask("SELECT * FROM attempt WHERE outcome = ''")]
        if not whole:  # nobody has deleted a product
            lost += [
                f"was lost: {row}" for row in ask("SELECT fields FROM event WHERE event = 'product_lost'")
            ]
        lost += [f"integrity: {row}" for row in ask("PRAGMA integrity_check") if row != ("ok",)]
        doubled += [f"runs: {row}" for row in ask("SELECT sha256, runs FROM accounting WHERE runs > 1")]
        doubled += [
            f"two current products of one group: {row}"
            for row in ask("SELECT group_id FROM product WHERE current GROUP BY group_id HAVING COUNT(*) > 1")
        ]
        sql = (
            "SELECT j.id, j.attempts, (SELECT COUNT(*) FROM attempt a WHERE a.job_id = j.id) AS n FROM job j"
        )
        lost += [f"attempts not counted: {row}" for row in ask(f"SELECT * FROM ({sql}) WHERE attempts <> n")]
        began = [
            tuple(map(int, line.split()[:2])) for line in (folder / "began.log").read_text().splitlines()
        ]
        doubled += [f"attempt begun twice: {b}" for b in set(began) if began.count(b) > 1]
        on_record = set(ask("SELECT job_id, n FROM attempt UNION SELECT -job_id, tries FROM search"))
        tries = dict(ask("SELECT -job_id, tries FROM search"))
        on_record |= {(job, n) for job, most in tries.items() for n in range(1, most + 1)}
        lost += [f"begun, not on record: {b}" for b in set(began) - on_record]
        lost += overdue_looks(folder, ask)
    place = folder / "products" / STAGING
    if staging and place.exists():
        # A running stack stays until its group is reduced, which may have to wait.
        lost += [f"left behind: {p.name}" for p in place.iterdir() if ".look" not in p.name]
    made = products_of(folder)
    if wanted is not None and made != wanted:
        differ = sorted(n for n in made.keys() | wanted.keys() if made.get(n) != wanted.get(n))
        lost.append(f"other products than there should be: {differ}")
        lost += [f"{n} is {_said(made.get(n))}\n   and not {_said(wanted.get(n))}" for n in differ[:1]]
    return {"lost": lost, "doubled": doubled, "torn": torn(folder, whole)}
