"""The calibration store as a person uses it: which databases there are, and what goes in and out.

    caldb = cal_service.set_local_database()
    caldb.init("w")
    caldb.add_cal("bpm_20010317_niri_niri_11_full_1amp.fits")

The configuration is Gemini's INI section; one database a line, asked in this order:

    [calibs]
    databases = ~/nirid/cal_manager.db get store
                /var/lib/nirid/nirid.db get

`get` looks calibrations up in it, `store` puts new ones into it; without either it is `get`. A folder means
`cal_manager.db` in it. The file is the one given, else $NIRIDRC, else `nirirc` in the working directory,
else `~/.nirid/nirirc`; without any there is one database, `cal_manager.db` in the working directory, `get
store`. Gemini's own `~/.dragons/dragonsrc` is not read: the database that it names is of another kind.

The daemon's database holds a calibration store as well. It can be asked like any other; only the daemon
writes into it, whether it runs or not.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from pipeline import logutils
from pipeline.association import CalKind, Candidate, Found
from pipeline.calibrations import caldb
from pipeline.calibrations.caldb import CalStore, external, open_store
from pipeline.calibrations.stores import (
    Database,
    StoreError,
    find_first,
    must_be_ours,
    opened,
    read_config,
    refuse_the_daemons,
)
from pipeline.errors import ConfigError, DamagedFile, RefusedFile
from pipeline.files.pixels import check_planes
from pipeline.files.places import expanded
from pipeline.files.structure import hash_file
from pipeline.headers import zeropoint
from pipeline.params import suggest
from pipeline.select import fits_files
from pipeline.toolkit.dataset import CannotOpen, Dataset


class NotACalibration(StoreError):
    """A file that was not added, and why."""


class FileData(NamedTuple):
    """A file of the store: its name, and the folder that it is in."""

    name: str
    path: str


_loaded: tuple[Database, ...] | None = None


def load_config(config_file: str | os.PathLike[str] | None = None) -> tuple[Database, ...]:
    """The databases of the configuration, in order; from now on `Reduce` uses these.

    Raises ConfigError: no such file, no [calibs], an unknown flag.
    """
    global _loaded
    _loaded = read_config(config_file)
    return _loaded


def databases(config_file: str | os.PathLike[str] | None = None) -> tuple[Database, ...]:
    """Those of this file, else those of the last `load_config`, else as the configuration is found now."""
    if config_file is not None or _loaded is None:
        return read_config(config_file)
    return _loaded


def set_local_database(config_file: str | os.PathLike[str] | None = None) -> LocalDB:
    """The database that a person writes to: the one with `store`, or the only one there is.

    Raises ConfigError when there are several that it could be.
    """
    found = load_config(config_file)
    local = [database for database in found if database.store] or list(found)
    if len(local) > 1:
        names = ", ".join(str(database.path) for database in local)
        raise ConfigError(f"which database is meant? {names}: give `store` to one of them")
    return LocalDB(local[0].path)


class LocalDB:
    """One calibration store, by its path. All methods but `init` need it to exist."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = expanded(path).absolute()

    def init(self, wipe: bool | str = False) -> None:
        """Make the database. wipe (True or "w") : empty one that exists, which otherwise is an error."""
        if self.path.exists():
            refuse_the_daemons(self.path)
            if not wipe:
                raise StoreError(f"{self.path} exists already; init('w') or `nirid caldb init -w` empties it")
            must_be_ours(self.path)
            for ending in ("", "-wal", "-shm"):
                Path(f"{self.path}{ending}").unlink(missing_ok=True)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        open_store(self.path).db.close()

    def add_cal(self, path: str | os.PathLike[str]) -> Candidate:
        """Register a processed calibration or a bad-pixel mask where it lies.

        Raises NotACalibration saying what the file is and why it was not added.
        """
        refuse_the_daemons(self.path)
        with self._open() as store:
            return store.add(as_calibration(path))

    def add_directory(self, path: str | os.PathLike[str], walk: bool = False) -> list[Candidate]:
        """Register every calibration in a folder; other files are logged with the reason."""
        added = []
        for file in fits_files(path, recursive=walk):
            try:
                added.append(self.add_cal(file))
            except NotACalibration as error:
                logutils.get().info("not_added", text=str(error))
        return added

    def remove_cal(self, name: str | os.PathLike[str]) -> None:
        """Take a calibration out of use, by its file name or path; the file stays.

        Raises StoreError when there is none, and for a file name that several folders have.
        """
        refuse_the_daemons(self.path)
        with self._open() as store:
            given = os.fspath(name)
            known = [candidate.path for candidate in store.list()]
            if os.sep in given or os.path.abspath(given) in known:
                given = os.path.abspath(given)
            same = [path for path in known if os.path.basename(path) == given]
            if len(same) > 1:
                raise StoreError(
                    f"{given} is {len(same)} calibrations: {', '.join(same)}; name one by its path"
                )
            if not store.remove(given, "removed by hand"):
                hint = suggest(os.path.basename(given), [os.path.basename(path) for path in known])
                raise StoreError(f"{os.path.basename(given)} is not in {self.path}{hint}")

    def list_files(self) -> Iterator[FileData]:
        """(name, folder) of every calibration in use, by name."""
        paths = sorted((os.path.split(c.path) for c in self.calibrations()), key=lambda p: (p[1], p[0]))
        return (FileData(name, folder) for folder, name in paths)

    def calibrations(self) -> list[Candidate]:
        """Everything in use, with kind and time."""
        with self._open(readonly=True) as store:
            return list(store.list())

    def get_cal(self, target: str | os.PathLike[str] | Dataset, caltype: str) -> str | None:
        """Path of the calibration for a frame; None without one.

        caltype : processed_dark, processed_flat, processed_bpm, static_bpm or zero_point
        """
        found = find_first(kinds_of(caltype), Dataset(target).facts, [Database(self.path)])
        return found.candidate.path if isinstance(found, Found) else None

    def get_calibrations(
        self, targets: Iterable[str | os.PathLike[str] | Dataset], caltype: str
    ) -> list[str | None]:
        """`get_cal` for each of several frames."""
        return [self.get_cal(target, caltype) for target in targets]

    @contextmanager
    def _open(self, *, readonly: bool = False) -> Iterator[CalStore]:
        with opened(self.path, readonly=readonly) as store:
            yield store


# --- what a file is ---------------------------------------------------------------------------------
def as_calibration(path: str | os.PathLike[str]) -> Candidate:
    """A file as the store takes it. Raises NotACalibration with what it is and why it is refused."""
    try:
        ad = Dataset(path)
    except CannotOpen as error:
        raise NotACalibration(f"not added: {error}") from error
    kind = kind_of(ad)
    if kind is None:
        raise NotACalibration(f"{path} was not added: it is {_what(ad)}")
    if ad.qa_state() == "Fail":
        raise NotACalibration(f"{path} was not added: its QA state is Fail")
    place = os.path.abspath(path)
    try:
        check_planes(place, is_mask=kind in (CalKind.STATIC_BPM, CalKind.MADE_BPM))
        return external(kind, place, hash_file(Path(place)), ad.facts)
    except (DamagedFile, RefusedFile, ValueError) as error:
        raise NotACalibration(f"not added: {error}") from error


def kind_of(ad: Dataset) -> CalKind | None:
    """The kind of a processed calibration; None for everything else.

    The image of a standard star is one when its header has a zero point.
    """
    if {"NIRI", "PROCESSED_SCIENCE"} <= ad.tags and zeropoint.read(dict(ad.phu), ad.filename):
        return CalKind.ZERO_POINT
    return caldb.kind_of(frozenset(ad.tags))


def _what(ad: Dataset) -> str:
    if "NIRI" not in ad.tags:
        return f"of {ad.instrument() or 'no instrument'}, not of NIRI"
    if "SPECT" in ad.tags:
        return "spectroscopic"
    if "PROCESSED_SCIENCE" in ad.tags:
        return "a processed science image, not a calibration"
    word = str(ad.observation_type() or "frame")
    if "RAW" in ad.tags:
        return f"a raw {word}; only processed calibrations and bad-pixel masks go into the store"
    return f"a {word} processed in part; only finished calibrations go into the store"


def kinds_of(caltype: str) -> tuple[CalKind, ...]:
    """What a calibration type of Gemini's means here; its processed_bpm is either kind of mask."""
    if caltype == CalKind.MADE_BPM:
        return (CalKind.MADE_BPM, CalKind.STATIC_BPM)
    if caltype not in set(CalKind):
        raise StoreError(f"no calibration type {caltype}{suggest(caltype, list(CalKind))}")
    return (CalKind(caltype),)
