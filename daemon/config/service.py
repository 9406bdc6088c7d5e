"""Where the service lives on this machine, so that commands find it without a word.

The unit gives the daemon its folders: `WorkingDirectory=`, `StateDirectory=`, `CacheDirectory=`. A person's
shell has none of them, so that they stand here as well (a test holds them against the unit). $NIRID_ROOT is
put before all of them: another root, as for a test or an image that is being built; "none" looks nowhere.
"""

from __future__ import annotations

import os
from pathlib import Path

FILE, FOLDERS, STATE, CACHE = "etc/nirid/nirid.toml", "srv/nirid", "var/lib/nirid", "var/cache/nirid"


def place(name: str) -> Path:
    """One of the above, below the root."""
    return Path(os.environ.get("NIRID_ROOT") or "/", name)


def file() -> Path | None:
    """The configuration of the service of this machine; None when none is installed."""
    if os.environ.get("NIRID_ROOT") == "none":
        return None
    path = place(FILE)
    return path if os.path.lexists(path) else None


def owns(path: Path | None) -> bool:
    """True of the service's file, whoever named it, unless its manager has set the folders already."""
    own = file()
    if path is None or own is None or os.environ.get("STATE_DIRECTORY"):
        return False
    try:
        return path.samefile(own)
    except OSError:
        return path == own
