"""Which file system a folder is on, whether it can be written, and whether it tells what others write."""

from __future__ import annotations

import os
import re
from pathlib import Path

# File systems on which somebody else can write without an event in our kernel: another host, or a FUSE
# program.
NETWORK = (
    "nfs",
    "cifs",
    "smb",
    "fuse",
    "9p",
    "afs",
    "ceph",
    "lustre",
    "gpfs",
    "beegfs",
    "virtiofs",
    "vboxsf",
)


def filesystem_of(path: str, mounts: str = "/proc/self/mountinfo") -> str:
    """The type of the file system that holds a path, as the kernel calls it: "ext4", "nfs4", or "unknown"."""
    real, best, kind = os.path.realpath(path), "", "unknown"
    try:
        with open(mounts, encoding="utf-8", errors="surrogateescape") as table:
            for line in table:
                fields, _, after = line.partition(" - ")
                place = re.sub(r"\\([0-7]{3})", lambda m: chr(int(m[1], 8)), fields.split()[4])
                inside = real == place or real.startswith(place.rstrip("/") + "/")
                if inside and len(place) >= len(best):
                    best, kind = place, after.split()[0]
    except (OSError, ValueError, IndexError):
        return "unknown"
    return kind


def is_read_only(folder: Path) -> bool:
    """True of a file system that is mounted read-only, and says so."""
    try:
        return bool(os.statvfs(folder).f_flag & os.ST_RDONLY)
    except OSError:
        return False
