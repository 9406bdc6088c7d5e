"""Names: of nights, of frames, and where a staged file, a first look or a running stack lies."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path

from daemon.model.jobs import JobSpec
from pipeline import names
from pipeline.headers.values import ascii_name

FIRST_YEAR, LAST_YEAR = 1950, 2100  # of nights whose clock was right
GEMINI_NAME = re.compile(r"[NS](\d{8})S\d{4,}")


def night_of(name: str, ut: datetime) -> str:
    """The date in a Gemini file name, else the UT date of the exposure, as 20160102."""
    found = GEMINI_NAME.match(name)
    return found[1] if found else f"{ut:%Y%m%d}"


def is_date(word: str) -> bool:
    """True for a UT date as 20160102 that is one and in a year of `FIRST_YEAR` to before `LAST_YEAR`."""
    if not re.fullmatch(r"[0-9]{8}", word) or not FIRST_YEAR <= int(word[:4]) < LAST_YEAR:
        return False
    try:
        datetime.strptime(word, "%Y%m%d")
    except ValueError:
        return False
    return True


def stem_of(name: str) -> str:
    """What products are named after, of a frame's name: safe in a path, whatever the name is."""
    return re.sub(r"[^A-Za-z0-9_.+-]", "_", names.bare(name)).lstrip(".")[:48] or "frame"


def canonical_name(file_name: str) -> str:
    """A file's name as raw NIRI frames have it: printable, without compression suffix, ending in .fits."""
    return names.bare(ascii_name(file_name)) + ".fits"


def name_order(name: str) -> tuple[int, str]:
    """Sorts the names of one frame: Gemini's own first, then those that only begin so, as that of a copy."""
    return names.canonical_first(name)


QUICKLOOK = "quicklook"
FIRST, RUNNING = "firstlook", "running"


def paths(products: Path, name: str, ut: datetime, kinds: Sequence[str] = (FIRST, RUNNING)) -> Iterator[Path]:
    """Where the looks at a frame are, or would be."""
    folder = products / night_of(name, ut) / QUICKLOOK
    return (folder / f"{stem_of(name)}_{kind}.fits" for kind in kinds)


STAGING = ".staging"


def staging_path(spec: JobSpec, attempt: int) -> str:
    """Where an attempt's product is staged, without ".fits"."""
    return str(Path(spec.products) / STAGING / f"{spec.key}.{attempt}")


SUPERSEDED = "superseded"  # the folder of a night for products that were replaced
_VERSION = re.compile(r"(.+)\.v(\d{4,})")


def superseded_path(products: str, night: str, name: str, version: int) -> str:
    """Where a version of a product stays that is not the current one any more."""
    return str(Path(products) / night / SUPERSEDED / f"{name}.v{version:04d}.fits")


def version_of(path: Path) -> tuple[str, int] | None:
    """(name of the product, version) of a file that is called as `superseded_path` has it."""
    found = _VERSION.fullmatch(path.stem)
    return (found[1], int(found[2])) if found else None


def look_staging_path(products: Path, key: str, number: int) -> str:
    """Where a first look or a running stack is staged, without ".fits". number : of the look"""
    return str(products / STAGING / f"{key}.look{number}")
