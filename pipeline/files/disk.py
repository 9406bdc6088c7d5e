"""Files that are there whole or not at all, and that stay.

write_whole(path, content)             # a reader sees the old file or the new one
with replacing(path) as part: ...      # the same for what writes a file itself
opened_below(path, folder)             # a file of ours, through no link
sync(path.parent)                      # from here on a power cut does not undo the rename
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

# What file systems say that cannot flush a folder.
NO_FLUSH = (errno.EINVAL, errno.ENOTSUP, errno.ENOSYS, errno.EBADF, errno.EISDIR)
# What they say that have no hard links (or none from here to there).
NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EMLINK, errno.EXDEV, errno.ENOSYS)
LONGEST_NAME = 200  # bytes, of the 255 that a name may have
_unsynced: list[Path] = []  # folders on network and FUSE file systems; the first is reported


def there(path: str | Path) -> bool:
    """False only when it is certain that nothing is there; OSError when that cannot be said."""
    try:
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def hash_of(path: Path) -> str:
    """SHA-256 of a file; "" when there is none. Raises OSError."""
    with contextlib.suppress(FileNotFoundError), open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
    return ""


def make_folder(folder: Path) -> None:
    """Make a folder, and those above it, each with its name flushed."""
    if not folder.is_dir():
        make_folder(folder.parent)
        with contextlib.suppress(FileExistsError):
            folder.mkdir(mode=0o755)
        sync(folder.parent)


def sync(path: Path) -> None:
    """Flush a file, or the names in a folder. A file system that cannot flush folders is logged once."""
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in NO_FLUSH or not path.is_dir():
            raise
        if not _unsynced:
            import structlog  # the daemon's log: the toolkit flushes no folders

            _unsynced.append(path)
            structlog.get_logger().warning("folder_not_synced", path=str(path), error=error.strerror)
    finally:
        os.close(handle)


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str], *, flush: bool = True, alone: bool = False) -> Iterator[Path]:
    """A hidden name beside `path`: what has been written there at the end is renamed to `path`.

    flush : to the disk, before it is renamed
    alone : no other process writes this file; what a crash has left is then written over the next time,
        where otherwise the hidden name has the number of this process in it
    Whatever is raised, nothing is left under the hidden name, and `path` is as it was.
    """
    part = _hidden(Path(path), alone)
    part.unlink(missing_ok=True)  # left by a crash
    try:
        yield part
        if flush:
            sync(part)
        os.replace(part, path)
    except BaseException:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
        raise


def _hidden(path: Path, alone: bool) -> Path:
    """Plain text, which a statement of SQL can hold as well."""
    name = path.name
    if len(name) > LONGEST_NAME or not name.isascii():
        name = hashlib.sha256(os.fsencode(name)).hexdigest()
    return path.with_name(f".{name}.part" if alone else f".{name}.{os.getpid()}.part")


def write_whole(
    path: str | os.PathLike[str],
    content: bytes,
    *,
    mode: int | None = None,
    flush: bool = True,
    alone: bool = False,
) -> None:
    """Write a file, in place of what is there. mode : whatever the umask; the others as of `replacing`.
    Raises OSError."""
    with replacing(path, flush=flush, alone=alone) as part, open(part, "xb") as file:
        if mode is not None:
            os.fchmod(file.fileno(), mode)
        file.write(content)


def copy_whole(source: Path, target: Path, *, flush: bool = True) -> None:
    """Copy a file, in place of what is there, which no other process writes. Raises OSError."""
    with replacing(target, flush=flush, alone=True) as part:
        shutil.copyfile(source, part)


def link_or_copy(source: Path, target: Path, *, flush: bool = True) -> None:
    """The same file under a second, new name; a copy where links are refused. Raises OSError."""
    try:
        os.link(source, target)
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise
        copy_whole(source, target, flush=flush)


@contextlib.contextmanager
def opened_below(path: Path, folder: Path) -> Iterator[int | None]:
    """A regular file below a folder, by no link; None where there is none."""
    try:
        fd = open_below(path, folder)
    except OSError:
        yield None
        return
    try:
        yield fd
    finally:
        os.close(fd)


def open_below(path: Path, folder: Path) -> int:
    """A descriptor of a regular file below a folder, through no link of its own. Raises OSError."""
    parent, below = os.path.realpath(path.parent), os.path.realpath(folder)
    if os.path.commonpath([parent, below]) != below:
        raise PermissionError(f"{path} does not lie below {folder}")
    fd = os.open(os.path.join(parent, path.name), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise PermissionError(f"{path} is no file")
    return fd
