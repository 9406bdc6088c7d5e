"""Logs: JSON that holds anything, and never an exception for the caller."""

import io
import json
import logging
import re
import warnings

import pytest
import structlog

from daemon import logs


@pytest.fixture
def stream():
    yield io.StringIO()
    structlog.reset_defaults()
    logging.basicConfig(force=True)
    logging.captureWarnings(False)


def lines(stream):
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_one_json_object_a_line_with_time_level_and_event_first(stream):
    logs.configure(stream=stream)
    logs.get().info("file_ingested", path="a.fits", tags=frozenset({"RAW", "NIRI"}))
    (line,) = lines(stream)
    assert list(line)[:3] == ["time", "level", "event"]
    assert line["event"] == "file_ingested"
    assert line["tags"] == ["NIRI", "RAW"]
    assert line["time"].endswith("Z")


def test_everything_inside_a_job_carries_job_recipe_and_group(stream):
    logs.configure(stream=stream)
    with logs.job_context(7, "reduce", 3):
        logs.get().info("step_finished", step="prepare")
    logs.get().info("later")
    inside, outside = lines(stream)
    assert (inside["job"], inside["recipe"], inside["group"]) == (7, "reduce", 3)
    assert "job" not in outside


HOSTILE = 'M31\n{"event":"job_done"}\x1b[2J\x07\udcff'


def test_hostile_values_stay_inside_their_json_string(stream):
    logs.configure(stream=stream)
    logs.get().warning("file_rejected", object=HOSTILE)
    assert stream.getvalue().isascii()
    assert stream.getvalue().count("\n") == 1
    assert lines(stream)[0]["object"] == HOSTILE


def test_hostile_values_do_not_move_the_cursor_of_a_terminal(stream):
    logs.configure(stream=stream, format="console")
    logs.get().warning("file_rejected", object=HOSTILE)
    try:
        raise ValueError(HOSTILE)
    except ValueError:
        logs.get().exception("bug")
    assert "\x1b[2J" not in stream.getvalue()
    assert "\x07" not in stream.getvalue()
    first = stream.getvalue().splitlines()[0]
    assert r"object=M31\n{" in re.sub(r"\x1b\[\d+m", "", first)
    stream.getvalue().encode("utf-8")  # no lone surrogate is left


def test_level(stream):
    logs.configure(level="warning", stream=stream)
    logs.get().info("no")
    logs.get().warning("yes")
    assert [line["event"] for line in lines(stream)] == ["yes"]


class Broken(io.StringIO):
    def write(self, text):
        raise OSError(28, "No space left on device")


class Unshowable:
    def __str__(self):
        raise RuntimeError("no")


def test_nothing_raises_into_the_caller(stream):
    before = logs.lost_lines
    logs.configure(stream=Broken())
    logs.get().error("disk_full")
    assert logs.lost_lines == before + 1
    closed = io.StringIO()
    logs.configure(stream=closed)
    closed.close()
    logs.get().error("closed")
    assert logs.lost_lines == before + 2
    logs.configure(stream=stream)
    logs.get().error("odd", value=Unshowable())
    assert lines(stream)[0] == {"event": "log_failed", "was": "'odd'", "error": "RuntimeError('no')"}


def test_traceback_is_a_field(stream):
    logs.configure(stream=stream)
    try:
        raise KeyError("x")
    except KeyError:
        logs.get().exception("bug")
    (line,) = lines(stream)
    assert "KeyError: 'x'" in line["exception"]
    assert line["level"] == "error"


def test_the_standard_library_and_warnings_come_along(stream):
    logs.configure(stream=stream)
    logging.getLogger("watchdog").warning("queue of %d", 3)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(True)
        warnings.warn("old", DeprecationWarning, stacklevel=1)
    said = lines(stream)
    assert said[0]["logger"] == "watchdog"
    assert said[0]["text"] == "queue of 3"
    assert "DeprecationWarning: old" in said[1]["text"]
