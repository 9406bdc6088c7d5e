"""The reports of nights that are kept with the products: PRODUCTS/reports/20160102.html, and .json beside it.

report = build(db, config, setting, "20160102", now)     # a page, and data
keep(report, config)                                     # both files, whole
Reports(config, setting, clock).look()                   # what the calendar asks for

**Which are made.** A night has a report when the Sun has risen over it; it is made again when something of
the night has changed after that (a frame came, a job ended, somebody decided); that is asked every ten
minutes. Nights without a frame have one if they were among the last two. While jobs run one report is made at
a time, else twenty. What cannot be written is told once for each reason, and tried again.

The folder is no night's: no product can lie there, retention and the search for products pass it over, and a
products folder that has nothing else still counts as one whose disk is not mounted.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from daemon import logs
from daemon.config.options import Config
from daemon.judgement import sun
from daemon.ledger import board, events, nightly, questions
from daemon.ledger.publications import is_night
from daemon.ledger.store import Reader, connect_readonly
from daemon.model.groups import Setting
from daemon.people import nightreport, nightsheet
from daemon.people.nightfacts import IMAGE, MOST
from pipeline.errors import NiridError
from pipeline.files import disk, outputs, thumbnails

FOLDER = "reports"
AT_ONCE, WHILE_BUSY = 20, 1  # reports that are made in one look
LATEST = 2  # nights that have a report without a frame
SMALL, PICTURES = 96, 90  # pixels; pictures that a page may have room for
UNSEEN = 5.0  # s: a change may be written down that long after its time


@dataclass(frozen=True)
class Report:
    """night : 20160102; page : HTML; data : JSON; made : seconds since the epoch"""

    night: str
    page: str
    data: str
    made: float


def build(db: Reader, config: Config, setting: Setting, night: str, now: datetime) -> Report:
    """The report of a night as it is at a time (aware)."""
    breakpoints = setting.policy.breakpoints
    answer = nightreport.answer(db, setting.rules, config.request, night, now, breakpoints)
    pictures = _pictures(db, night, config.product_folder)
    return Report(night, nightsheet.page(answer, pictures), nightsheet.as_json(answer), now.timestamp())


def _pictures(db: Reader, night: str, products: Path) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    for one in sorted(board.products(db, night, MOST), key=lambda p: not p.name.endswith(IMAGE)):
        with disk.opened_below(Path(one.path).with_suffix(".png"), products) as fd:
            small = thumbnails.small(fd, SMALL) if fd is not None else None
        if small is not None:
            found[one.name] = small
        if len(found) == PICTURES:
            break
    return found


def places(config: Config, night: str) -> tuple[Path, Path]:
    """(page, data) of a night that is kept."""
    folder = config.product_folder / FOLDER
    return folder / f"{night}.html", folder / f"{night}.json"


def keep(report: Report, config: Config) -> Path:
    """Write both files, the page last. Its time is that of what it says. OSError, WouldOverwrite."""
    page, data = places(config, report.night)
    disk.make_folder(page.parent)
    write(report, page, data)
    return page


def write(report: Report, page: Path, data: Path, *, overwrite: bool = False) -> None:
    """Each whole or not at all; a file that is no report of ours stays. Raises OSError, WouldOverwrite."""
    for path in (page, data):
        outputs.check(path, "report", overwrite=overwrite)
    _write(data, report.data)
    _write(page, report.page, at=report.made - UNSEEN)


def _write(path: Path, text: str, *, at: float | None = None) -> None:
    """at : time of the file, now where it is None"""
    with disk.replacing(path) as part:
        with open(part, "x", encoding="utf-8") as file:
            os.fchmod(file.fileno(), 0o644)
            file.write(text)
        if at is not None:
            os.utime(part, (at, at))


# -- what the calendar asks for ------------------------------------------------------------------


@dataclass
class Reports:
    """clock : seconds since the epoch"""

    config: Config
    setting: Setting
    clock: Callable[[], float]
    _due: set[str] = field(default_factory=set)
    _failed: set[str] = field(default_factory=set)  # of these, which come last
    _event: int = -1  # the last that was looked at
    _until: float = 0.0  # changes are known to here
    _said: str = ""

    def look(self) -> list[str]:
        """Make what is due, the latest night first; the nights that were made. Raises nothing."""
        made: list[str] = []
        try:
            self._look(made)
            self._said = ""
        except Exception as error:
            if str(error) != self._said:
                self._said = str(error)
                known = isinstance(error, (OSError, NiridError))
                logs.get().warning("report_delayed", error=str(error), exc_info=not known)
        for night in made:
            logs.get().info("report_made", night=night, file=str(places(self.config, night)[0]))
        return made

    def _look(self, made: list[str]) -> None:
        """Raises what went wrong with one of them, when all were tried."""
        now = datetime.fromtimestamp(self.clock(), UTC)
        with contextlib.closing(connect_readonly(self.config.database)) as db:
            self._find(db, now)
            risen = sorted((n for n in self._due if sun.sunrise(n) <= now), reverse=True)
            if not risen:
                return
            _make_sure_of_products(db, self.config.product_folder)
            wrong: Exception | None = None
            most = WHILE_BUSY if questions.jobs(db, ["running"], 1) else AT_ONCE
            for night in sorted(risen, key=self._failed.__contains__)[:most]:
                try:
                    keep(build(db, self.config, self.setting, night, now), self.config)
                except Exception as error:  # of one night: the others are made all the same
                    self._failed.add(night)
                    wrong = wrong or error
                else:
                    made.append(night)
                    self._due.discard(night)
                    self._failed.discard(night)
        if wrong:
            raise wrong

    def _find(self, db: Reader, now: datetime) -> None:
        """Add to what is due: nights that have changed since their report, and the latest two."""
        last = events.last_number(db)
        if last != self._event:
            changes = nightly.changed(db, min(self._until, now.timestamp()) - UNSEEN)
            self._due |= {night for night, at in changes.items() if at > _kept(self.config, night, now)}
            self._until = max([self._until, *changes.values()])
            self._event = last  # from here on they are not asked for again
        for days in range(LATEST):
            night = f"{now - timedelta(days=days):%Y%m%d}"
            if _kept(self.config, night, now) == 0.0:
                self._due.add(night)


def _kept(config: Config, night: str, now: datetime) -> float:
    """The time of the report of a night, 0 without one, or of one that a clock has made which was ahead.
    Raises OSError."""
    try:
        made = places(config, night)[0].stat().st_mtime
    except FileNotFoundError:
        return 0.0
    return made if made <= now.timestamp() else 0.0


def _make_sure_of_products(db: Reader, folder: Path) -> None:
    """Raises NiridError when the products lie on a disk that is not mounted, by all that can be seen."""
    there = any(is_night(path.name) for path in folder.iterdir())
    if not there and questions.counts(db)["products"]:
        raise NiridError(f"{folder} has no night at all: is the disk mounted?")
