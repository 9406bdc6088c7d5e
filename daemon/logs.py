"""Log set-up: one JSON object a line in service, colours at a terminal, never an exception.

Event names are short and fixed (`file_ingested`, `job_done` ...); everything else is a field. What
is bound with `job_context` is on every line logged meanwhile by that thread. Nothing that fails in
here reaches the caller: a full disk or a closed standard error costs the line, not the night.
"""

from __future__ import annotations

import atexit
import json
import logging
import os
import queue
import sys
import threading
import time
from collections.abc import Callable, Mapping, MutableMapping
from contextlib import AbstractContextManager
from typing import Any, Literal, TextIO

import structlog
from structlog.typing import EventDict, WrappedLogger

from daemon.model.plain import clean
from pipeline import logutils

Format = Literal["auto", "json", "console"]
LEVELS = ("debug", "info", "warning", "error")

MOST_WAITING = 5000  # lines waiting to be written; beyond that they are lost
FLUSH_SECONDS = 1.0  # that the last lines get when the program ends

lost_lines = 0  # lines that could not be written since the start; `status` and the tests look at it


def configure(
    level: str = "info", format: Format = "auto", stream: TextIO | None = None, *, wait: bool = True
) -> None:
    """Send all logging, that of the standard library included, to `stream` (standard error).

    level : one of LEVELS
    format : "auto" is colours when the stream is a terminal, else JSON
    wait : False for a daemon: lines that nobody reads are lost, and never stop the work
    """
    out = stream or sys.stderr or open(os.devnull, "w")  # noqa: SIM115  kept for life
    sink = _Stream(out) if wait else _Patient(out)
    terminal = not out.closed and out.isatty()
    readable = format == "console" or (format == "auto" and terminal)
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            _time_stamped,
            _renderer(_console(colours=terminal) if readable else _json),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=lambda *args: sink,
        cache_logger_on_first_use=False,  # so that a second call takes effect everywhere
    )
    logging.basicConfig(handlers=[_FromStandardLibrary()], level=logging.WARNING, force=True)
    logging.captureWarnings(True)
    if not wait:
        threading.excepthook = _thread_failed


def flush() -> None:
    """Let the lines that wait be written, for at most FLUSH_SECONDS, so that what is said next comes last."""
    sink = structlog.get_config()["logger_factory"]()
    if isinstance(sink, _Patient):
        sink.flush()


def _thread_failed(what: threading.ExceptHookArgs) -> None:
    """An exception that ended a thread, as a log line."""
    error = (what.exc_type, what.exc_value, what.exc_traceback)
    get().error("thread_failed", thread=what.thread.name if what.thread else "", exc_info=error)


_stamp = structlog.processors.TimeStamper(fmt="iso", utc=True, key="time")


def _time_stamped(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    """The time now, unless it was logged elsewhere before."""
    return event if "time" in event else _stamp(logger, method, event)


def get() -> Any:
    """The logger. `get().info("file_ingested", path=path)`."""
    return structlog.get_logger()


def relay(event: Mapping[str, Any]) -> None:
    """Pass on an event that another process of ours has logged, with its own time and level."""
    fields = {str(key): value for key, value in event.items()}
    level = str(fields.pop("level", "info"))
    name = str(fields.pop("event", "worker_said"))
    getattr(get(), level if level in LEVELS else "info")(name, **fields)


def job_context(job: int, recipe: str, group: int) -> AbstractContextManager[Any]:
    """Every line logged inside carries the job, its recipe and its group: so that one filter finds
    all of it."""
    return structlog.contextvars.bound_contextvars(job=job, recipe=recipe, group=group)


class _Stream:
    """Writes a line, or counts it as lost."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def msg(self, line: str) -> None:
        global lost_lines
        try:
            self._stream.write(line + "\n")  # one write: lines of several processes do not mix
            self._stream.flush()
        except (OSError, ValueError):  # ENOSPC, EPIPE; closed; a surrogate that the encoding refuses
            lost_lines += 1

    debug = info = warning = error = critical = exception = msg


class _Patient(_Stream):
    """Hands lines to a thread that writes them: whoever logs does not wait for a reader that has stopped."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__(stream)
        self._queue: queue.Queue[str] = queue.Queue(MOST_WAITING)
        self._lost = 0  # since a line could last be written
        try:
            self._fd = stream.fileno()
        except (OSError, ValueError, AttributeError):  # not a file: nobody can stop reading it
            self._fd = -1
            return
        threading.Thread(target=self._write, name="log", daemon=True).start()
        atexit.register(self.flush)

    def msg(self, line: str) -> None:
        global lost_lines
        if self._fd < 0:
            super().msg(line)
            return
        try:
            self._queue.put_nowait(line)
        except queue.Full:
            lost_lines += 1
            self._lost += 1

    debug = info = warning = error = critical = exception = msg

    def flush(self, seconds: float = FLUSH_SECONDS) -> None:
        """Give the last lines a moment to be read."""
        end = time.monotonic() + seconds
        while self._queue.unfinished_tasks and time.monotonic() < end:
            time.sleep(0.005)

    def _write(self) -> None:
        # Past Python's buffers: their locks, held by a thread that hangs, would keep the program from ending.
        global lost_lines
        while True:
            line = self._queue.get()
            data = memoryview((line + "\n").encode("utf-8", "backslashreplace"))
            try:
                while data:
                    data = data[os.write(self._fd, data) :]
            except OSError:  # ENOSPC, EPIPE, closed
                lost_lines += 1
            finally:
                self._queue.task_done()
            if self._lost and not self._queue.full():
                lost, self._lost = self._lost, 0
                get().warning("log_lines_lost", lines=lost, why="nobody read them")


class _FromStandardLibrary(logging.Handler):
    """Brings what watchdog, APScheduler and the `warnings` module say into the same stream."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            level = record.levelname.lower()
            log = getattr(get(), level if level in LEVELS else "error")
            log("library_message", logger=record.name, text=record.getMessage(), exc_info=record.exc_info)
        except Exception:
            self.handleError(record)  # the standard library's own last resort: a note on standard error


def _renderer(render: Callable[[EventDict], str]) -> structlog.typing.Processor:
    """The last processor: event to text. A value that cannot be shown is replaced, never raised."""

    def processor(logger: WrappedLogger, method: str, event: MutableMapping[str, Any]) -> str:
        try:
            if event.get("exc_info"):
                event = dict(structlog.processors.format_exc_info(logger, method, event))
            event.pop("exc_info", None)
            return render(event)
        except Exception as error:
            return json.dumps(
                {"event": "log_failed", "was": ascii(event.get("event")), "error": ascii(error)}
            )

    return processor


def _json(event: EventDict) -> str:
    # ASCII only: newlines, escapes and half surrogates of hostile headers arrive as \uXXXX.
    first = {key: event[key] for key in ("time", "level", "event") if key in event}
    return json.dumps(first | dict(event), default=_plain)


def _plain(value: Any) -> Any:
    if isinstance(value, (set, frozenset)):
        return sorted(map(str, value))
    if isinstance(value, Mapping):
        return dict(value)
    return str(value)


def printable(text: str) -> str:
    r"""The same as of the toolkit, with bytes that are no text as \xe9."""
    return logutils.printable(clean(text))


_COLOURS = {"debug": "2", "info": "32", "warning": "33", "error": "31"}


def _console(colours: bool) -> Callable[[EventDict], str]:
    def paint(code: str, text: str) -> str:
        return f"\033[{code}m{text}\033[0m" if colours else text

    def render(event: EventDict) -> str:
        clock = str(event.pop("time", ""))[11:23]
        level = str(event.pop("level", "info"))
        trace = event.pop("exception", None)
        shown = {key: printable(str(value)) for key, value in event.items() if key != "event"}
        fields = "  ".join(f"{paint('36', key)}={value}" for key, value in shown.items())
        name = printable(str(event.get("event", "")))
        painted = paint(_COLOURS.get(level, "31"), f"{level:7}")
        line = f"{paint('2', clock)} {painted} {name:18} {fields}".rstrip()
        indented = "\n".join("    " + printable(row) for row in trace.splitlines()) if trace else ""
        return f"{line}\n{indented}" if indented else line

    return render
