"""Lists of files, one path a line, as `dataselect -o` writes and `@LIST` reads them.

Blank lines and comments are skipped: `#` at the beginning of a line, or after a blank. A path that would not
be read as it is (blanks at its ends, a line break, a `#` that looks like a comment) is written in double
quotes, as JSON has text; so every legal file name goes through a list. Lines may end as on any system, and a
byte-order mark at the beginning is none of the first name.
"""

from __future__ import annotations

import json
import os
import re

from pipeline.errors import NiridError
from pipeline.files.places import expanded

_COMMENT = re.compile(r"(^|[ \t])#.*")
_MARKS = {b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}
_BLANKS = " \t\r"


class ListError(NiridError):
    """A list that cannot be read: absent, or a line of it is no path."""


def read_list(path: str | os.PathLike[str]) -> list[str]:
    """The paths in a list. Raises ListError, naming file and line."""
    try:
        content = expanded(path).read_bytes()
    except (OSError, ValueError) as error:
        raise ListError(f"{path}: {getattr(error, 'strerror', None) or error}") from None
    try:
        if encoding := _MARKS.get(content[:2]):
            text = content.decode(encoding)
        else:
            text = content.removeprefix(b"\xef\xbb\xbf").decode("utf-8", "surrogateescape")
    except UnicodeDecodeError as error:
        raise ListError(f"{path}: {error}") from None
    if "\n" not in text:
        text = text.replace("\r", "\n")
    found = []
    for number, line in enumerate(text.split("\n"), start=1):
        name = _name(line)
        if "\0" in (name or ""):
            raise ListError(f"{path}: line {number} holds a NUL, which no file name does")
        if name:
            found.append(name)
    return found


def _name(line: str) -> str:
    stripped = line.strip(_BLANKS)
    if stripped.startswith('"'):
        end = _COMMENT.sub("", stripped).rstrip(_BLANKS) if not stripped.endswith('"') else stripped
        try:
            quoted = json.loads(end)
        except ValueError:  # a name that begins with a quote, written by somebody else
            quoted = None
        if isinstance(quoted, str):
            return quoted
    return _COMMENT.sub("", stripped).strip(_BLANKS)


def list_line(path: str) -> str:
    """The line of a list from which `read_list` gets this path."""
    plain = _name(path) == path and "\n" not in path and "\r" not in path and "\ufeff" not in path
    return path if plain else json.dumps(path)


def comment_line(what: str, text: str) -> str:
    """A comment, of one line whatever the text is."""
    return f"# {what}: {' '.join(text.split()) or 'none'}"
