"""What is in the drop folders: a recursive listing, cheap for files that are known.

A sweep over 100,000 settled files is 100,000 stats and look-ups and remembers 100 bytes a file. Links are
never followed (what they point to inside is found by itself, what lies outside is not ours), hidden
folders and files are passed over, and a folder that is suddenly empty, missing or another one is a
suspect mount, never "everything was deleted".
"""

from __future__ import annotations

import os
import stat
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from daemon.model.files import Signature, signature_of
from pipeline.names import is_fits

# Folders that file systems and other systems make for themselves, and often close to others.
_HOUSEHOLD = ("lost+found", "System Volume Information", "$RECYCLE.BIN")
DEEPEST = 32  # folders below a drop folder


def is_passed_over(folder: str) -> bool:
    """True for the name of a folder without data: hidden, lost+found."""
    return folder.startswith(".") or folder in _HOUSEHOLD


def next_sweep(sweep_seconds: float, took: float) -> float:
    """Seconds to wait before the next sweep: at most one per cent of the time goes into sweeping."""
    return max(sweep_seconds, 100.0 * took)


@dataclass(slots=True)
class Sweep:
    """What one sweep found.

    candidates : new or changed files, in order of path
    gone : settled paths that are no longer there, said once; never from a folder that is suspect
    files : all files of ours; ignored : counts by why; errors : path -> what the system said
    suspect : folder -> why its absence of files is not believed
    seconds : how long it took
    """

    candidates: list[tuple[str, Signature]] = field(default_factory=list)
    gone: list[str] = field(default_factory=list)
    files: int = 0
    ignored: Counter[str] = field(default_factory=Counter)
    suspect: dict[str, str] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0


class Index:
    """What is settled: for each path a hash of the signature that had its final verdict."""

    def __init__(self) -> None:
        self._known: dict[str, dict[str, int]] = {}  # folder -> name -> hash
        self._roots: dict[str, tuple[int, int]] = {}  # drop folder -> (dev, ino) at the last sweep
        self.folders: list[str] = []  # all folders that the last sweep entered

    def load(self, known: Iterable[tuple[str, Signature]]) -> None:
        for path, signature in known:
            self.settle(path, signature)

    def settle(self, path: str, signature: Signature) -> None:
        folder, name = _split(path)
        self._known.setdefault(folder, {})[name] = hash(signature)

    def forget(self, path: str) -> None:
        folder, name = _split(path)
        self._known.get(folder, {}).pop(name, None)

    def is_settled(self, path: str, signature: Signature) -> bool:
        folder, name = _split(path)
        return self._known.get(folder, {}).get(name) == hash(signature)

    def sweep(self, roots: Sequence[str]) -> Sweep:
        """List every folder below the roots (absolute paths)."""
        started = time.monotonic()
        found = Sweep()
        folders: list[str] = []
        for root in roots:
            try:
                st = os.stat(root)
            except OSError as error:
                found.suspect[root] = f"is missing: {error.strerror or error}"
                continue
            gone: list[str] = []
            before = found.files
            entered = self._walk(root, found, gone)
            for folder in [f for f in self._known if _below(f, root) and f not in entered]:
                if not any(_below(folder, bad) for bad in found.errors):
                    gone.extend(os.path.join(folder, name) for name in self._known[folder])
            same = self._roots.get(root, (st.st_dev, st.st_ino)) == (st.st_dev, st.st_ino)
            self._roots[root] = (st.st_dev, st.st_ino)
            if gone and found.files == before:
                found.suspect[root] = f"empty, but {len(gone)} files were here"
            elif gone and not same:
                found.suspect[root] = f"replaced by another folder without {len(gone)} of the files"
            else:
                found.gone.extend(gone)
                for path in gone:
                    self.forget(path)
            folders.extend(entered)
        self.folders = folders  # at once: the poller reads it in another thread
        found.candidates.sort()
        found.seconds = time.monotonic() - started
        return found

    def _walk(self, root: str, found: Sweep, gone: list[str]) -> set[str]:
        entered: set[str] = set()
        todo = [(root, 0)]
        while todo:
            folder, depth = todo.pop()
            try:
                with os.scandir(folder) as entries:
                    below = self._list(folder, entries, found, gone)
            except OSError as error:  # permission, a stale handle: what is below keeps its state
                found.errors[folder] = error.strerror or str(error)
                continue
            entered.add(folder)
            if depth < DEEPEST:
                todo.extend((os.path.join(folder, name), depth + 1) for name in below)
            else:
                found.ignored["too deep"] += len(below)
        return entered

    def _list(
        self, folder: str, entries: Iterable[os.DirEntry[str]], found: Sweep, gone: list[str]
    ) -> list[str]:
        """Files of one folder into `found`; the names of its sub-folders."""
        known = self._known.get(folder, {})
        present, below = 0, []
        for entry in entries:
            name = entry.name
            if is_passed_over(name):
                found.ignored["hidden"] += 1
            elif entry.is_symlink():
                found.ignored["symbolic link"] += 1
            elif entry.is_dir(follow_symlinks=False):
                below.append(name)
            elif not is_fits(name):
                found.ignored["other name"] += 1
            elif not entry.is_file(follow_symlinks=False):
                found.ignored["not a regular file"] += 1
            else:
                try:
                    signature = signature_of(entry.stat(follow_symlinks=False))
                except FileNotFoundError:
                    continue
                except OSError as error:
                    found.errors[entry.path] = error.strerror or str(error)
                    continue
                found.files += 1
                old = known.get(name)
                present += old is not None
                if old != hash(signature):
                    found.candidates.append((entry.path, signature))
        if present < len(known):
            paths = (os.path.join(folder, name) for name in known)
            gone.extend(path for path in paths if path not in found.errors and not is_file(path))
        return below


def is_file(path: str) -> bool:
    """False only when it is certain that no regular file is there; a link is none."""
    try:
        return stat.S_ISREG(os.lstat(path).st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return True


def _split(path: str) -> tuple[str, str]:
    """(folder, name) of an absolute path; at the start there may be a million of them."""
    folder, _, name = path.rpartition("/")
    return folder or "/", name


def _below(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip("/") + "/")
