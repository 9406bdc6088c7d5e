"""The toolkit's log: one event, one line, on the screen and in the file, for people or as JSON."""

import io
import json
import re

import pytest

from pipeline import logutils
from pipeline.errors import ConfigError


@pytest.fixture
def screen():
    yield io.StringIO()
    logutils.config()


def test_lines_on_screen_and_in_the_file_are_for_reading(screen, tmp_path):
    file = tmp_path / "reduce.log"
    logutils.config(file_name=str(file), stream=screen)
    logutils.get().info("step", name="stackDarks", seconds=0.2)
    logutils.get().warning("left_out", text="N20160102S0270 left out: no WCS")
    assert screen.getvalue() == (
        "step: name=stackDarks  seconds=0.2\nWARNING - N20160102S0270 left out: no WCS\n"
    )
    first, second = file.read_text().splitlines()
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d INFO     - step: .*", first)
    assert second.endswith("WARNING  - N20160102S0270 left out: no WCS")


def test_the_same_events_as_json(screen, tmp_path):
    logutils.config(tmp_path / "log", json=True, stream=screen)
    logutils.get(recipe="reduce").info("step", name="stackFrames")
    for text in (screen.getvalue(), (tmp_path / "log").read_text()):
        event = json.loads(text)
        assert {
            "level": "info",
            "event": "step",
            "name": "stackFrames",
            "recipe": "reduce",
        }.items() <= event.items()
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", event["time"])


@pytest.mark.parametrize(
    ("mode", "on_screen", "in_file"),
    [("quiet", "E", "IE"), ("standard", "IE", "IE"), ("verbose", "DIE", "IE"), ("debug", "DIE", "DIE")],
)
def test_modes(screen, tmp_path, mode, on_screen, in_file):
    logutils.config(tmp_path / "log", mode, stream=screen)
    for level in ("debug", "info", "error"):
        getattr(logutils.get(), level)(level)
    assert [line.split(" - ")[-1][0].upper() for line in screen.getvalue().splitlines()] == list(on_screen)
    assert [line.split(" - ")[1][0].upper() for line in (tmp_path / "log").read_text().splitlines()] == list(
        in_file
    )


def test_set_up_twice_says_things_once(screen, tmp_path):
    for _ in range(3):
        logutils.config(tmp_path / "log", stream=screen)
    logutils.get().info("once")
    assert screen.getvalue() == "once\n"
    assert len((tmp_path / "log").read_text().splitlines()) == 1


def test_without_set_up_the_screen_is_standard_error(capsys):
    logutils.config()
    logutils.get().info("hello", target="SN2014J")
    captured = capsys.readouterr()
    assert captured.err == "hello: target=SN2014J\n"
    assert captured.out == ""


def test_control_characters_do_not_reach_the_terminal(screen):
    logutils.config(stream=screen)
    logutils.get().info("object", name="a\x1b[2Jb\nc")
    assert screen.getvalue() == "object: name=a\\x1b[2Jb\\nc\n"


def test_an_exception_is_shown_with_its_traceback(screen):
    logutils.config(stream=screen)
    try:
        raise ValueError("too small")
    except ValueError:
        logutils.get().exception("failed")
    assert "ERROR - failed" in screen.getvalue()
    assert "ValueError: too small" in screen.getvalue()


def test_a_line_that_cannot_be_written_is_lost_and_nothing_else(screen, tmp_path):
    logutils.config(tmp_path / "log", stream=screen)
    (tmp_path / "log").unlink()
    (tmp_path / "log").mkdir()
    screen.close()
    logutils.get().info("lost")
    logutils.config(tmp_path / "other", stream=io.StringIO())
    logutils.get().info("kept")
    assert "kept" in (tmp_path / "other").read_text()
    assert "lost" not in (tmp_path / "other").read_text()


def test_what_cannot_be_is_told(tmp_path):
    with pytest.raises(ConfigError, match="must be one of quiet, standard"):
        logutils.config(mode="loud")
    with pytest.raises(ConfigError, match=r"absent/log: No such file"):
        logutils.config(tmp_path / "absent" / "log")
    logutils.config()
