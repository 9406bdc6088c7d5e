"""astropy's settings of header cards, as they must be while we make cards, and left as they were after.

Two are needed: no "record-valued" keywords, else a text such as OBJECT = 'M31: 0.5' becomes a keyword
OBJECT.M31 with a number; and text without the blanks after it. astropy looks into its configuration anew at
every card that is made or read, a tenth of a job: here they are plain attributes for a while instead.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock
from typing import Any

SETTINGS = {"enable_record_valued_keyword_cards": False, "strip_header_whitespace": True}

_lock = Lock()
_users = 0
_own: dict[str, Any] = {}


@contextmanager
def quick_cards() -> Iterator[None]:
    """Inside, cards are made with SETTINGS; may be nested, and used by several threads at once."""
    from astropy.io import fits

    global _users
    kind: Any = type(fits.conf)
    with _lock:
        _users += 1
        if _users == 1:
            for name, value in SETTINGS.items():
                _own[name] = vars(kind)[name]
                setattr(kind, name, value)
    try:
        yield
    finally:
        with _lock:
            _users -= 1
            if not _users:
                for name, item in _own.items():
                    setattr(kind, name, item)
