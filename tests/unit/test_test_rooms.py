"""The tests follow the rooms, and stay small enough to be read."""

from pathlib import Path

TESTS = Path(__file__).parents[1]
ROOT = TESTS.parent


def test_unit_tests_follow_the_rooms():
    """A folder tests the room of its name; `service` and `core` test what stands outside of rooms."""
    rooms = {path.name for package in ("daemon", "pipeline") for path in (ROOT / package).iterdir()}
    folders = {path.parent.name for path in (TESTS / "unit").glob("*/test_*.py")}
    assert len(folders) > 10
    assert folders <= rooms | {"service", "core", "bench"}


def test_no_file_of_tests_is_too_long_to_be_read():
    lines = {path.relative_to(TESTS): len(path.read_text().splitlines()) for path in TESTS.rglob("*.py")}
    # The rules of the house, and the world of the proofs, are one subject each.
    assert {str(p) for p, n in lines.items() if n > 400} == {"unit/test_architecture.py", "prove/world.py"}
