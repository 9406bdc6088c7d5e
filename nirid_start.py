"""Where the command `nirid` begins: our own packages come first, whatever PYTHONPATH brings along.

Module systems of clusters, and other software, set PYTHONPATH to libraries of their own (an older numpy, or
a package that is called `daemon` too). These stay within reach, behind those that nirid was installed with.
This module imports nothing that could be one of them.
"""

import os
import sys


def main() -> None:
    """The entry point of the command."""
    if sys.getfilesystemencoding().lower() not in ("utf-8", "utf8"):
        _begin_again_in_utf8()
    put_foreign_last()
    from daemon.cli import main as command

    command()


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
    places = {_absolute(entry) for entry in given.split(os.pathsep)} - {os.path.dirname(_absolute(__file__))}
    return [entry for entry in sys.path if _absolute(entry) in places]


def put_foreign_last() -> None:
    """Look there for a package only when it is nowhere else."""
    theirs = foreign()
    sys.path[:] = [entry for entry in sys.path if entry not in theirs] + theirs


def _absolute(entry: str) -> str:
    try:
        return os.path.abspath(entry)
    except OSError:  # relative to a folder that was deleted
        return entry
