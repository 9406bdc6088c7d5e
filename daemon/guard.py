"""Has another distribution replaced our packages? `daemon` and `pipeline` are names that other distributions
use too.

python-daemon installs a package `daemon`, django-pipeline a package `pipeline`. Installed beside us,
they replace our files silently, so the program checks before it starts. Relies on nothing in
`daemon/__init__.py`, which may be theirs.
"""

from __future__ import annotations

import os
import sys
from importlib import metadata

DISTRIBUTION = "nirid"
PACKAGES = ("daemon", "pipeline")


def intruders() -> dict[str, list[str]]:
    """{package: other distributions that provide it}; empty when all is well."""
    theirs = foreign()  # come last: what is there replaces nothing
    found: dict[str, set[str]] = {package: set() for package in PACKAGES}
    for distribution in metadata.distributions(path=[entry for entry in sys.path if entry not in theirs]):
        for package in _packages(distribution):
            if (name := distribution.metadata["Name"]) != DISTRIBUTION:
                found[package].add(name)
    return {
        package: sorted(names - {DISTRIBUTION}) for package, names in found.items() if names - {DISTRIBUTION}
    }


def _packages(distribution: metadata.Distribution) -> list[str]:
    """Which of our packages it provides. Its lists of files are searched as text: read as paths, as
    `packages_distributions` does, those of every distribution take 0.1 s of each start."""
    top = distribution.read_text("top_level.txt")
    if top is not None:
        return [package for package in PACKAGES if package in top.split()]
    files = "\n" + (distribution.read_text("RECORD") or distribution.read_text("SOURCES.txt") or "")
    return [p for p in PACKAGES if any(f"\n{p}{then}" in files for then in ("/", ".py,", ".py\n"))]


def complaint() -> str | None:
    """One line that says who is in the way, or None."""
    found = intruders()
    if not found:
        return None
    who = "; ".join(
        f"'{', '.join(names)}' also provides the package '{package}'" for package, names in found.items()
    )
    return f"{who}: install {DISTRIBUTION} into a virtual environment of its own"


def settle() -> None:
    """To be called first of all: file names in UTF-8, and our own packages first."""
    if sys.getfilesystemencoding().lower() not in ("utf-8", "utf8"):
        _begin_again_in_utf8()
    put_foreign_last()


def _begin_again_in_utf8() -> None:
    """Under another locale the same file would have another name in the database, and some none at all. The
    terminal keeps its encoding."""
    os.environ["PYTHONIOENCODING"] = f"{getattr(sys.stdout, 'encoding', 'utf-8')}:backslashreplace"
    os.environ["PYTHONUTF8"] = "1"
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def foreign() -> list[str]:
    """The entries of sys.path that are there by PYTHONPATH; not where we are ourselves."""
    given = os.environ.get("PYTHONPATH")
    if not given or sys.flags.ignore_environment:
        return []
    here = os.path.dirname(os.path.dirname(_absolute(__file__)))
    places = {_absolute(entry) for entry in given.split(os.pathsep)} - {here}
    return [entry for entry in sys.path if _absolute(entry) in places]


def put_foreign_last() -> None:
    """What PYTHONPATH brings along stays within reach, behind the packages that we were installed with."""
    theirs = foreign()
    sys.path[:] = [entry for entry in sys.path if entry not in theirs] + theirs


def _absolute(entry: str) -> str:
    try:
        return os.path.abspath(entry)
    except OSError:  # relative to a folder that was deleted
        return entry
