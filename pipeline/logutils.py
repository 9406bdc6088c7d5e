"""What is written to the screen and to a log file while a person reduces data.

    logutils.config(file_name="reduce.log")

Each event is a short name with fields, said once; here it becomes a line to read, on standard error and
in the file, or one JSON object a line. Without `config` the screen works the same way and there is no file.
"""

from __future__ import annotations

import contextlib
import json as jsonlib
import logging
import os
import sys
import time
from collections.abc import MutableMapping
from typing import Any, Literal, TextIO, get_args

import structlog

from pipeline.errors import ConfigError
from pipeline.files import outputs

Mode = Literal["quiet", "standard", "verbose", "debug"]
# The least that goes to the screen; the file has everything from "info".
_SCREEN = {"quiet": "error", "standard": "info", "verbose": "debug", "debug": "debug"}
_LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40, "critical": 50}


def config(
    file_name: str | os.PathLike[str] | None = None,
    mode: Mode = "standard",
    *,
    json: bool = False,
    stream: TextIO | None = None,
) -> None:
    """Say where events go; a second call replaces the first, so that no line appears twice.

    file_name : a log file to add to; None is none
    mode : "quiet" shows errors only, "standard" what a person wants to follow, "verbose" every detail,
        "debug" also writes the details into the file
    json : one JSON object a line, on the screen and in the file
    stream : instead of standard error
    Raises ConfigError for an unknown mode, or a file that cannot be written; WouldOverwrite for one that is
    no text.
    """
    if file_name is not None:
        outputs.check_log(file_name)
    if mode not in get_args(Mode):
        raise ConfigError(f"log mode {mode!r}: must be one of {', '.join(get_args(Mode))}")
    _sinks.stream = stream
    _sinks.json = json
    _sinks.screen = _LEVELS[_SCREEN[mode]]
    _sinks.detail = _LEVELS["debug" if mode == "debug" else "info"]
    _sinks.file = os.path.abspath(file_name) if file_name is not None else None
    try:
        _sinks.append("")
    except OSError as error:
        raise ConfigError(f"log file {os.fspath(file_name or '')}: {error.strerror}") from error


def get(**bound: Any) -> Any:
    """The logger of the toolkit: `get().info("step", name="stackDarks", seconds=0.2)`."""
    return structlog.wrap_logger(
        None,
        processors=[structlog.processors.add_log_level, structlog.processors.format_exc_info, _sinks],
        wrapper_class=structlog.make_filtering_bound_logger(logging.DEBUG),
        **bound,
    )


def at_terminal() -> bool:
    """True when a person sees the screen's lines as they come, and a moving display does no harm."""
    stream = _sinks.stream or sys.stderr
    return not _sinks.json and _sinks.screen <= _LEVELS["info"] and stream.isatty()


class _Sinks:
    """The last processor: one event to every place that wants it."""

    def __init__(self) -> None:
        self.stream: TextIO | None = None
        self.file: str | None = None
        self.json = False
        self.screen = _LEVELS["info"]
        self.detail = _LEVELS["info"]

    def __call__(self, logger: Any, method: str, event: MutableMapping[str, Any]) -> Any:
        level = str(event.pop("level", method))
        rank = _LEVELS.get(level, 20)
        now = time.time()
        # A line that cannot be written is lost; the reduction goes on.
        with contextlib.suppress(OSError, ValueError):
            if rank >= self.screen:
                line = _json(now, level, event) if self.json else _screen_line(level, event)
                print(line, file=self.stream or sys.stderr, flush=True)
        with contextlib.suppress(OSError):
            if rank >= self.detail:
                self.append((_json(now, level, event) if self.json else _file_line(now, level, event)) + "\n")
        raise structlog.DropEvent

    def append(self, text: str) -> None:
        # Opened for each line: the file may be moved away meanwhile, and nothing is left open.
        if self.file is not None:
            with open(self.file, "a", encoding="utf-8", errors="backslashreplace") as file:
                file.write(text)


_sinks = _Sinks()


def message(event: MutableMapping[str, Any]) -> str:
    """An event in words: `step: name=stackDarks seconds=0.2`, or its `text` where it has one."""
    fields = {key: value for key, value in event.items() if key not in ("event", "text", "exception")}
    said = str(event.get("text") or event.get("event", "").replace("_", " "))
    shown = "  ".join(f"{key}={value}" for key, value in fields.items())
    if not event.get("text") and shown:
        said = f"{said}: {shown}"
    lines = [said, *str(event.get("exception", "")).splitlines()]
    return "\n".join(printable(line) for line in lines)


def printable(text: str) -> str:
    """`text` with what is not printable written out, as Python does: what a header says must not move a
    terminal's cursor or make a line of its own."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def _screen_line(level: str, event: MutableMapping[str, Any]) -> str:
    return message(event) if level in ("info", "debug") else f"{level.upper()} - {message(event)}"


def _file_line(now: float, level: str, event: MutableMapping[str, Any]) -> str:
    """`2016-01-02 07:16:17 INFO     - message`, as Gemini's logs have it."""
    clock = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(now))
    return f"{clock} {level.upper():<8} - {message(event)}"


def _json(now: float, level: str, event: MutableMapping[str, Any]) -> str:
    clock = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now)) + f".{int(now * 1000) % 1000:03d}Z"
    return jsonlib.dumps({"time": clock, "level": level, **event}, default=str)
