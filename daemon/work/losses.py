"""Products that somebody has deleted, or whose bytes are not what was published.

Looked for at the start, when a job could not read what it needs, and by the nightly deep check. What is
lost is used no longer, what is left of it is kept under superseded/ with the ending .damaged, and its group
makes it again, under a new key: whoever needs it waits for it as for any other calibration. A preview that
was deleted alone is drawn again from its product, to the same bytes.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable
from pathlib import Path

from daemon import disk, logs
from daemon.ledger.store import connect_readonly
from pipeline.errors import NiridError
from pipeline.files.structure import hash_file


def harm(path: Path, sha256: str) -> str:
    """Why the product at a path is lost; "" when it is whole. Raises OSError when that cannot be said now.

    Where no night at all is left in the products folder, the disk may not be mounted: nothing is believed.
    """
    try:
        if disk.there(path):
            return "" if hash_file(path) == sha256 else "its bytes are not those that were published"
    except NiridError as error:  # a folder, a pipe
        return str(error)
    products = path.parents[1]
    if any(night.is_dir() for night in products.iterdir() if night.name[0] != "."):
        return "its file is gone"
    raise FileNotFoundError(errno.ENOENT, "no night at all: is the disk mounted?", str(products))


def draw_previews(database: Path, suspect: Callable[[str], None] = lambda path: None) -> list[str]:
    """Draw the previews that are gone while their products lie there. Returns the paths of those drawn.

    suspect : told the path of a product whose bytes are not those that were published; none is drawn of it
    What cannot be drawn now is logged; another look goes on.
    """
    drawn = []
    try:
        with contextlib.closing(connect_readonly(database)) as db:
            rows = db.execute("SELECT path, sha256 FROM product WHERE current").fetchall()
        for row in rows:
            path = Path(os.fsdecode(row["path"]))
            if os.path.lexists(path.with_suffix(".png")) or not os.path.lexists(path):
                continue
            if harm(path, row["sha256"]):
                suspect(str(path))
            elif _draw(path):
                drawn.append(str(path.with_suffix(".png")))
                logs.get().info("preview_drawn", path=drawn[-1])
    except Exception as error:
        logs.get().warning("previews_not_drawn", error=str(error))
    return drawn


def _draw(path: Path) -> bool:
    """One preview; False when another came meanwhile, which stays: the product may have been replaced."""
    from pipeline.files import preview
    from pipeline.files.read import read_frame

    png = path.with_suffix(".png")
    part = png.with_name(f".{png.name}.drawn")
    try:
        preview.save(part, preview.drawn(read_frame(path)))
        os.link(part, png)
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EOPNOTSUPP):
            raise
        os.replace(part, png)  # links are refused here
    finally:
        with contextlib.suppress(FileNotFoundError):
            part.unlink()
    return True
