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
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from daemon import logs
from daemon.ledger import products, publications
from daemon.ledger.store import Ledger, connect_readonly
from daemon.work.publishing import Publisher
from pipeline.errors import NiridError
from pipeline.files import disk
from pipeline.files.structure import hash_file

LOOK_AGAIN = 30.0  # s, until a product that could not be checked is tried again


def harm(path: Path, sha256: str) -> str:
    """Why the product at a path is lost; "" when it is whole. Raises OSError when that cannot be said now.

    When the products folder has no night at all, the disk may not be mounted: then nothing counts as lost.
    """
    try:
        if disk.there(path):
            return "" if hash_file(path) == sha256 else "its bytes are not those that were published"
    except NiridError as error:  # a folder, a pipe
        return str(error)
    products = path.parents[1]
    if any(night.is_dir() for night in products.iterdir() if publications.is_night(night.name)):
        return "its file is gone"
    raise FileNotFoundError(errno.ENOENT, "no night at all: is the disk mounted?", str(products))


@dataclass
class Suspects:
    """Products that may be lost, by their paths; they are looked into by the main loop."""

    ledger: Ledger
    publisher: Publisher
    clock: Callable[[], float]
    _paths: deque[str] = field(default_factory=deque)
    _doubtful: set[str] = field(default_factory=set)  # those of which nothing can be said now
    _again_at: float = 0.0

    def add(self, *paths: str) -> None:
        """From any thread."""
        self._paths.extend(paths)

    def make_up(self) -> int:
        """Withdraw lost products and have them made again. Returns how many."""
        count = 0
        if self.clock() >= self._again_at:
            self._paths.extend(self._doubtful)
            self._doubtful.clear()
        for _ in range(len(self._paths)):
            path, again = self._paths[0], False
            with self.ledger.read() as db:
                product = products.current_at(db, path)
            try:
                why = harm(Path(path), product.sha256) if product else ""
            except OSError:
                why, again = "", True
            if why and product:
                intend = partial(publications.intend_withdrawal, group=product.group, lost=why)
                plan = self.ledger.write(intend)
                again = plan is None  # another one is being made; if that fails, it is still lost
                count += self.publisher.publish(plan) if plan else 0
            self._paths.popleft()
            if again:
                self._doubtful.add(path)
                self._again_at = self.clock() + LOOK_AGAIN
        return count


def draw_previews(database: Path, suspect: Callable[[str], None] = lambda path: None) -> list[str]:
    """Draw the previews that are gone while their products lie there. Returns the paths of those drawn.

    suspect : told the path of a product whose bytes are not those that were published; none is drawn of it
    What cannot be drawn now is logged; the next check tries again.
    """
    drawn = []
    try:
        with contextlib.closing(connect_readonly(database)) as db:
            current = products.current(db)
        for product in current:
            path = Path(product.path)
            if os.path.lexists(path.with_suffix(".png")) or not os.path.lexists(path):
                continue
            if harm(path, product.sha256):
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
        disk.write_whole(part, preview.drawn(read_frame(path)))
        os.link(part, png)
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in disk.NO_LINKS:
            raise
        os.replace(part, png)  # links are refused here
    finally:
        with contextlib.suppress(FileNotFoundError):
            part.unlink()
    return True
