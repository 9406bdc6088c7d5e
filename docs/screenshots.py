"""Makes page.png and page-phone.png, the pictures of the page in the README.

python docs/screenshots.py STATE

STATE is the state folder of a night, as `make demo` leaves it: demo/state. It needs Playwright and Debian's
Chromium (`pip install 'nirid[browser]'`, `apt-get install chromium`).
"""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
SIZES = {"page": (1360, 860), "page-phone": (390, 844)}


def chromium() -> str | None:
    """The browser; None where there is none."""
    return shutil.which("chromium") or shutil.which("chromium-browser")


@contextlib.contextmanager
def served(state: Path, *words: str, config: Path | None = None) -> Iterator[tuple[str, Any]]:
    """(address, process) of a page over a state folder, at a port that is free."""
    first = [sys.executable, "-P", "-m", "daemon", "--state", str(state)]
    first += ["--config", str(config)] if config else []
    command = [*first, "web", *(words or ("--port", "0"))]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=state.parent)
    try:
        assert process.stderr is not None
        said = process.stderr.readline()
        yield json.loads(said)["addresses"][0], process
    finally:
        process.terminate()
        process.wait(timeout=10)
        if process.stderr:
            process.stderr.close()


@contextlib.contextmanager
def browser() -> Iterator[Any]:
    """A headless browser."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        found = play.chromium.launch(executable_path=chromium(), args=["--no-sandbox"])
        try:
            yield found
        finally:
            found.close()


def wait(page: Any, expression: str, seconds: float = 15.0) -> None:
    """Until it is true in the page, whose own policy lets no text run as a script. Raises TimeoutError."""
    until = time.monotonic() + seconds
    while not page.evaluate(expression):
        if time.monotonic() > until:
            raise TimeoutError(expression)
        time.sleep(0.05)


def take(found: Any, address: str, folder: Path) -> list[Path]:
    """A picture of each size."""
    made = []
    for name, (width, height) in SIZES.items():
        page = found.new_page(viewport={"width": width, "height": height}, color_scheme="dark")
        page.goto(address, wait_until="load")
        wait(page, "document.getElementById('live').textContent.startsWith('live')")
        wait(page, "[...document.images].every(image => image.complete || image.loading === 'lazy')")
        time.sleep(0.3)
        made.append(folder / f"{name}.png")
        page.screenshot(path=made[-1])
        page.close()
    return made


if __name__ == "__main__":
    with served(Path(sys.argv[1]).resolve()) as (where, _), browser() as headless:
        print(*take(headless, where, HERE), sep="\n")
