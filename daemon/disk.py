"""Is a file there, and is its name safely on the disk?"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
from pathlib import Path

from daemon import logs

# What file systems say that cannot flush a folder.
NO_FLUSH = (errno.EINVAL, errno.ENOTSUP, errno.ENOSYS, errno.EBADF, errno.EISDIR)
_unsynced: list[Path] = []  # folders on network and FUSE file systems; the first is told


def there(path: str | Path) -> bool:
    """False only when it is certain that nothing is there; OSError when that cannot be said."""
    try:
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def hash_of(path: Path) -> str:
    with contextlib.suppress(FileNotFoundError), open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
    return ""


def make_folder(folder: Path) -> None:
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
            _unsynced.append(path)
            logs.get().warning("folder_not_synced", path=str(path), error=error.strerror)
    finally:
        os.close(handle)
