"""The text of an expression as tokens, and the error that names the column where it makes no sense."""

from __future__ import annotations

import re
from typing import NamedTuple

from pipeline.errors import NiridError

MOST_TOLD = 120  # characters


class ExpressionError(NiridError, ValueError):
    """An expression that makes no sense. `column` counts from 1."""

    def __init__(self, problem: str, text: str, column: int) -> None:
        super().__init__(f"column {column}: {problem}; in {_around(text, column)!r}")
        self.problem, self.text, self.column = problem, text, column

    def pointer(self) -> str:
        """The expression, and a caret below the place."""
        return f"{self.text}\n{' ' * (self.column - 1)}^"


def _around(text: str, column: int) -> str:
    """So much of the expression as a line holds, with the column in it."""
    if len(text) <= MOST_TOLD:
        return text
    first = max(0, min(column - MOST_TOLD // 2, len(text) - MOST_TOLD))
    cut = text[first : first + MOST_TOLD]
    return f"{'...' if first else ''}{cut}{'...' if first + MOST_TOLD < len(text) else ''}"


class Token(NamedTuple):
    kind: str
    text: str
    column: int


_TOKENS = re.compile(
    r"""(?P<blank>\s+)
    |(?P<datetime>\d{4}-\d\d?-\d\d?(?:[T\ ]\s*\d\d?:\d\d(?::\d\d(?:\.\d*)?)?)?(?![\w.]))
    |(?P<time>\d\d?:\d\d(?::\d\d(?:\.\d*)?)?(?![\w.]))
    |(?P<number>[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)
    |(?P<text>"[^"]*"|'[^']*')
    |(?P<name>[A-Za-z_]\w*)
    |(?P<operator>[!=<>]+)
    |(?P<mark>[(),\[\]])""",
    re.VERBOSE,
)
END = "the end"


def tokens_of(text: str) -> list[Token]:
    tokens, at = [], 0
    while at < len(text):
        found = _TOKENS.match(text, at)
        if not found:
            quote = text[at] in "'\""
            problem = "the quote is not closed" if quote else f"{text[at]!r} is not understood"
            raise ExpressionError(problem, text, at + 1)
        if found.lastgroup != "blank":
            tokens.append(Token(str(found.lastgroup), found[0], at + 1))
        at = found.end()
    return [*tokens, Token("end", END, len(text) + 1)]
