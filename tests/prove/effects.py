"""Every call that changes the disk, as a numbered point: to stop the process there, to cut the power, or to
have the call fail. For a process that was forked for it: what is put in place stays until the process ends.

A kill leaves what was written. A power cut also takes back what was not yet flushed: a file written and
not synced is empty, a name given or taken in a folder that was not synced since is as before.
"""

import builtins
import contextlib
import io
import os
import signal
import sqlite3
import stat
from pathlib import Path

import peewee as pw

NAMES = ("rename", "replace", "link", "unlink", "mkdir", "fsync", "write")
READS = ("stat", "scandir", "lstat")  # made to fail, never stopped at


class Effects:
    """act : called as act(number, name, path) before each effect; it may raise, or call `kill` or `cut`.
    folder : only what is done below it counts; reads : `open` for reading and the calls of READS count too
    """

    def __init__(self, folder: Path, act, *, reads=False):
        self.count, self.names = 0, []
        self._act, self._folder, self._reads = act, str(folder), reads
        self._real = {name: getattr(os, name) for name in (*NAMES, *READS, "open", "close")}
        self._pending = []  # (folder whose sync makes it last, what takes it back)
        self._dirty = {}  # inode -> a descriptor of it
        self._side = str(folder / ".side")
        os.makedirs(self._side, exist_ok=True)

    def install(self):
        for name in ("rename", "replace"):
            setattr(os, name, self._renamer(name))
        os.link, os.unlink, os.mkdir = self._link, self._unlink, self._mkdir
        os.remove = self._unlink
        os.fsync, os.write, os.open = self._fsync, self._write, self._open
        real_open = io.open

        def opened(file, mode="r", *args, **more):
            writes = isinstance(file, str | os.PathLike) and any(c in mode for c in "wxa+")
            if writes and self._counts(file):
                new = not os.path.exists(file)
                self._point("open", file)
                made = real_open(file, mode, *args, **more)
                self._soil(made.fileno())
                if new:
                    self._later(file, self._real["unlink"], os.fspath(file))
                return made
            if self._reads and isinstance(file, str | os.PathLike) and self._counts(file):
                self._point("read", file)
            return real_open(file, mode, *args, **more)

        builtins.open = io.open = opened
        begin, commit = pw.SqliteDatabase.begin, pw.SqliteDatabase.commit

        def counted_begin(db, *args, **more):
            if self._reads:
                self._point("begin", db.database)
            return begin(db, *args, **more)

        def counted_commit(db):
            self._point("commit", db.database)
            return commit(db)

        pw.SqliteDatabase.begin, pw.SqliteDatabase.commit = counted_begin, counted_commit
        if self._reads:
            connect = sqlite3.connect

            def counted_connect(*args, **more):
                self._point("connect", None)
                return connect(*args, **more)

            sqlite3.connect = counted_connect
            for name in READS:
                setattr(os, name, self._reader(name))
        return self

    # -- the ends -----------------------------------------------------------------------------

    def kill(self):
        os.kill(os.getpid(), signal.SIGKILL)

    def cut(self):
        for handle in self._dirty.values():
            os.ftruncate(handle, 0)
        for _, undo, args in reversed(self._pending):
            with contextlib.suppress(OSError):  # it never came to be, or something later has taken it over
                undo(*args)
        self.kill()

    # -- the points ---------------------------------------------------------------------------

    def _counts(self, path) -> bool:
        return isinstance(path, int) or os.fsdecode(path).startswith(self._folder)

    def _point(self, name, path):
        self.count += 1
        self.names.append(name)
        self._act(self.count, name, path)

    def _later(self, path, undo, *args):
        self._pending.append((os.path.dirname(os.fspath(path)), undo, args))

    def _keep(self, path):
        """Another name for what is at a path, so that it can come back; None when there is nothing."""
        side = f"{self._side}/{len(os.listdir(self._side))}-{self.count}"
        try:
            self._real["link"](path, side)
        except FileNotFoundError:
            return None
        return side

    def _soil(self, fd):
        inode = os.fstat(fd).st_ino
        if inode not in self._dirty:
            self._dirty[inode] = os.dup(fd)

    def _renamer(self, name):
        def rename(source, target, **more):
            if not self._counts(target):
                return self._real[name](source, target, **more)
            self._point(name, target)
            source, target = os.fspath(source), os.fspath(target)
            side = self._keep(target)
            self._real[name](source, target, **more)
            if side:
                self._later(target, self._real["link"], side, target)
            self._later(target, self._real["rename"], target, source)

        return rename

    def _link(self, source, target, **more):
        self._point("link", target)
        self._real["link"](source, target, **more)
        self._later(target, self._real["unlink"], os.fspath(target))

    def _unlink(self, path, **more):
        if not self._counts(path):
            return self._real["unlink"](path, **more)
        self._point("unlink", path)
        side = self._keep(path)
        self._real["unlink"](path, **more)
        if side:
            self._later(path, self._real["link"], side, os.fspath(path))

    def _mkdir(self, path, *args, **more):
        self._point("mkdir", path)
        self._real["mkdir"](path, *args, **more)
        self._later(path, os.rmdir, os.fspath(path))

    def _fsync(self, fd):
        self._point("fsync", fd)
        self._real["fsync"](fd)
        facts = os.fstat(fd)
        if stat.S_ISDIR(facts.st_mode):
            place = os.readlink(f"/proc/self/fd/{fd}")
            self._pending = [p for p in self._pending if p[0] != place]
        elif facts.st_ino in self._dirty:
            self._real["close"](self._dirty.pop(facts.st_ino))

    def _write(self, fd, data):
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            return self._real["write"](fd, data)
        self._soil(fd)
        self._point("write", fd)
        half = memoryview(data)[: max(1, len(data) // 2)]
        done = self._real["write"](fd, half)  # a write may be short; a stop between the halves tears it
        return done

    def _open(self, path, flags, mode=0o777, **more):
        writes = flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
        if not self._counts(path) or not (writes or self._reads):
            return self._real["open"](path, flags, mode, **more)
        new = bool(flags & os.O_CREAT) and not os.path.exists(path)
        self._point("open" if writes else "read", path)
        fd = self._real["open"](path, flags, mode, **more)
        if new:
            self._later(path, self._real["unlink"], os.fspath(path))
        return fd

    def _reader(self, name):
        def call(path=".", *args, **more):
            if isinstance(path, str | bytes | os.PathLike) and self._counts(path):
                self._point(name, path)
            return self._real[name](path, *args, **more)

        return call
