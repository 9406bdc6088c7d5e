"""Standard input, output and error of a command, made such that nothing behind can stumble over them.

One that was closed by whoever started us would be reopened by the next file that we open: the answer of a
command would go into the database. A name that the terminal's encoding does not have is written out.
"""

from __future__ import annotations

import codecs
import contextlib
import errno
import io
import os
import sys
from typing import Any

from daemon.model.plain import clean


class NotWritten(OSError):
    """Standard output was closed, or is a file on a full disk."""

    def __str__(self) -> str:
        closed = self.errno == errno.EBADF
        return f"standard output cannot be written: {'it was closed' if closed else self.strerror}"


class _Output(io.FileIO):
    """Says what could not be written: "No space left on device" alone may be of any disk."""

    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except BrokenPipeError:  # whoever read it has seen enough; click ends without a word
            raise
        except OSError as error:
            raise NotWritten(error.errno, error.strerror) from None


def settle() -> None:
    """To be called once, before anything is opened or printed."""
    for number, how in ((0, os.O_RDONLY), (1, os.O_RDONLY), (2, os.O_WRONLY)):  # 1: to write is an error
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, how)  # the lowest number that is free: this one
    if sys.stdin is None:
        sys.stdin = open(0, closefd=False)  # noqa: SIM115  kept for life
    if sys.stderr is None:
        sys.stderr = open(2, "w", errors="backslashreplace", closefd=False)  # noqa: SIM115
    if sys.stdout is None or sys.stdout is sys.__stdout__:  # and not a test's
        encoding = getattr(sys.stdout, "encoding", "utf-8")
        terminal = os.isatty(1)
        buffered = io.BufferedWriter(_Output(1, "w", closefd=False))
        codecs.register_error(_ODD, _shown if terminal else _carried)
        sys.stdout = io.TextIOWrapper(buffered, encoding, _ODD, line_buffering=terminal)


_ODD = "nirid"  # name of what is done with what cannot be encoded


def _shown(error: UnicodeError) -> tuple[str | bytes, int]:
    r"""At a terminal: written out, as \xe9."""
    assert isinstance(error, UnicodeEncodeError)
    text = clean(error.object[error.start : error.end])
    return "".join(ascii(c)[1:-1] if ord(c) > 126 else c for c in text), error.end


def _carried(error: UnicodeError) -> tuple[str | bytes, int]:
    """Into a pipe or a file: bytes of a path that are no text stay as they are, for whoever opens it."""
    assert isinstance(error, UnicodeEncodeError)
    text = error.object[error.start : error.end]
    if all("\udc80" <= c <= "\udcff" for c in text):
        return os.fsencode(text), error.end
    return _shown(error)


def finish() -> None:
    """Write what is still to be written. Raises OSError once: what cannot be written is then forgotten."""
    try:
        sys.stdout.flush()
    except (OSError, ValueError):
        forget()
        raise


def forget() -> None:
    """Nothing more goes to standard output, so that the end of the program does not try again."""
    with contextlib.suppress(OSError, ValueError):
        nothing = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nothing, 1)
        os.close(nothing)
        sys.stdout.flush()
