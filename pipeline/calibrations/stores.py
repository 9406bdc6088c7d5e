"""Which calibration databases there are, and asking and filling all of them: what `Reduce` needs of them.

The configuration is described in `pipeline.cal_service`, which is what a person uses.
"""

from __future__ import annotations

import configparser
import os
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from pipeline import association, logutils
from pipeline.association import CalKind, Candidate, Found, Match
from pipeline.calibrations.caldb import CalStore, open_store
from pipeline.errors import ConfigError, NiridError
from pipeline.files.places import expanded, home, readonly_uri
from pipeline.files.structure import hash_file
from pipeline.headers.descriptors import Descriptors
from pipeline.params import suggest

FILE = "cal_manager.db"
FLAGS = ("get", "store")


class StoreError(NiridError):
    """A calibration store that cannot do what was asked: absent, there already, the daemon's."""


@dataclass(frozen=True)
class Database:
    """One line of the configuration. named : by a person, in a file; else it is made when first needed"""

    path: Path
    get: bool = True
    store: bool = True
    named: bool = True


def read_config(config_file: str | os.PathLike[str] | None = None) -> tuple[Database, ...]:
    """The databases of the configuration, in order; as a default `cal_manager.db` here, get and store.

    Raises ConfigError, naming file and line: no such file, no [calibs], an unknown flag.
    """
    path = config_path(config_file)
    if path is None:
        return (Database(Path.cwd() / FILE, named=False),)
    parser = configparser.ConfigParser(inline_comment_prefixes=("#",), interpolation=None)
    try:
        parser.read_string(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, configparser.Error) as error:
        why = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise ConfigError(f"{path}: {why}") from error
    if not parser.has_section("calibs"):
        raise ConfigError(f"{path}: it has no section [calibs]{suggest('calibs', parser.sections())}")
    lines = parser.get("calibs", "databases", fallback="").strip().splitlines()
    if not lines:
        raise ConfigError(f"{path}: [calibs] has no line such as: databases = {FILE} get store")
    return tuple(_database(path, line) for line in lines if line.strip())


def config_path(given: str | os.PathLike[str] | None = None) -> Path | None:
    """The configuration's file: the one given, else $NIRIDRC, else nirirc here or at home; None for none."""
    if chosen := given or os.environ.get("NIRIDRC"):
        return expanded(chosen)
    own = home()
    places = (Path("nirirc"), *([own / ".nirid" / "nirirc"] if own else []))
    return next((place for place in places if place.is_file()), None)


def _database(config: Path, line: str) -> Database:
    name, *flags = line.split()
    for flag in flags:
        if flag not in FLAGS:
            hint = suggest(flag, FLAGS)
            raise ConfigError(f"{config}: databases: {line.strip()!r}: {flag} must be get or store{hint}")
    if "//" in name:
        raise ConfigError(f"{config}: databases: {name}: only databases on this machine can be used")
    path = expanded(name)
    if name.endswith("/") or path.is_dir():
        path /= FILE
    return Database(path.absolute(), get="get" in flags or not flags, store="store" in flags)


def check(where: Iterable[Database]) -> None:
    """Raises what using these databases would raise, before any work is done."""
    for database in where:
        if database.store:
            refuse_the_daemons(database.path)
            if database.named and not _writable(database.path):
                raise StoreError(f"{database.path} is to store calibrations, and cannot be written")
        if database.path.exists():
            must_be_ours(database.path)
        elif database.named:
            raise _absent(database.path)


# --- asking and filling ----------------------------------------------------------------------
def find(kind: CalKind, target: Descriptors, where: Iterable[Database]) -> Match:
    """The calibration for a frame from the first database that has one; else the last answer.

    A file that is gone, or has changed since it was registered, is passed over with a warning.
    """
    answer = association.best_match(association.RULES[kind], target, [])
    for database in where:
        if not database.get or (not database.named and not database.path.exists()):
            continue
        with opened(database.path, readonly=True) as store:
            answer = _intact(store, kind, target)
        if isinstance(answer, Found):
            break
    return answer


def find_zero_points(target: Descriptors, where: Iterable[Database]) -> list[Candidate]:
    """Those of all standards of the frame's night, of all databases, each once: as the daemon takes them.

    A file that is gone, or has changed since it was registered, is passed over with a warning.
    """
    found: dict[str, Candidate] = {}
    for database in where:
        if not database.get or (not database.named and not database.path.exists()):
            continue
        with opened(database.path, readonly=True) as store:
            for candidate in store.candidates(CalKind.ZERO_POINT, target):
                found.setdefault(candidate.sha256, candidate)
    intact = []
    for candidate in found.values():
        if problem := _spoilt(candidate):
            logutils.get().warning("calibration_passed_over", text=problem)
        else:
            intact.append(candidate)
    return association.of_the_night(association.RULES[CalKind.ZERO_POINT], target, intact)


def find_first(kinds: Iterable[CalKind], target: Descriptors, where: Iterable[Database]) -> Match:
    """`find` for several kinds in order."""
    where, answer = list(where), None
    for kind in kinds:
        answer = find(kind, target, where)
        if isinstance(answer, Found):
            break
    assert answer is not None
    return answer


def _intact(store: CalStore, kind: CalKind, target: Descriptors) -> Match:
    rule, candidates = association.RULES[kind], list(store.candidates(kind, target))
    if not candidates:
        return store.best_match(kind, target)  # with why not, for every one of this kind
    while True:
        answer = association.best_match(rule, target, candidates)
        problem = _spoilt(answer.candidate) if isinstance(answer, Found) else None
        if problem is None or not isinstance(answer, Found):
            return answer
        logutils.get().warning("calibration_passed_over", text=problem)
        candidates.remove(answer.candidate)


def _spoilt(candidate: Candidate) -> str | None:
    try:
        if hash_file(Path(candidate.path)) == candidate.sha256:
            return None
        return (
            f"{candidate.path} has changed since it was registered and is passed over; add it again to use it"
        )
    except (OSError, NiridError):
        return f"{candidate.path} is registered but cannot be read; it is passed over"


def store_in_all(calibration: Candidate, where: Iterable[Database]) -> list[Path]:
    """Register a calibration in every database with `store`; returns their paths.

    The one that nobody has asked for is passed over with a warning where it cannot be written: products may
    go elsewhere from a folder that is read-only.
    """
    into = []
    for database in where:
        if database.store and (database.named or _writable(database.path)):
            into.append(database)
        elif database.store:
            text = f"{calibration.name} is registered nowhere: {database.path} cannot be written"
            logutils.get().warning("not_registered", text=text)
    for database in into:
        with opened(database.path, make=not database.named) as store:
            store.add(calibration)
    return [database.path for database in into]


# --- database files ----------------------------------------------------------------------------------
@contextmanager
def opened(path: Path, *, readonly: bool = False, make: bool = False) -> Iterator[CalStore]:
    """An open store; StoreError for a file that is not there (unless make) or is something else."""
    if path.exists():
        must_be_ours(path)
    elif not make:
        raise _absent(path)
    # A reader alone would leave SQLite's side files lying beside the database: only where it must be one.
    readonly = readonly and ("ledger" in _components(path) or not os.access(path, os.W_OK))
    store = open_store(path, readonly=readonly)
    try:
        yield store
    finally:
        store.db.close()


def _writable(path: Path) -> bool:
    """Whether a database can be written, or made: SQLite puts files beside it."""
    return os.access(path.parent, os.W_OK) and (not path.exists() or os.access(path, os.W_OK))


def _absent(path: Path) -> StoreError:
    return StoreError(f"there is no calibration database {path}; `nirid caldb init` or init() makes it")


def refuse_the_daemons(path: Path) -> None:
    """Raises StoreError when the database is the daemon's."""
    if is_the_daemons(path):
        raise StoreError(
            f"{path} is the daemon's database, read-only for the toolkit: a calibration goes in through the "
            "daemon's drop folder or `nirid caldb add`, and `nirid reject FILE --reason TEXT` takes one out"
        )


def is_the_daemons(path: Path) -> bool:
    return "ledger" in _components(path)


def must_be_ours(path: Path) -> None:
    if path.stat().st_size and "caldb" not in _components(path):
        raise StoreError(f"{path} is no calibration database of nirid; it was left as it is")


def _components(path: Path) -> set[str]:
    """The names in the table `schema` of a database of ours; none for any other file."""
    if not path.is_file():
        return set()
    try:
        with closing(sqlite3.connect(readonly_uri(path), uri=True)) as connection:
            return {row[0] for row in connection.execute("SELECT component FROM schema")}
    except sqlite3.DatabaseError:
        return set()
