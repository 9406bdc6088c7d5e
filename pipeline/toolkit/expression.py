"""Expressions about descriptors, as `exposure_time==20 and not (object in ("FS 17", "FS 27"))`.

    expression  = and-term {"or" and-term}
    and-term    = not-term {"and" not-term}
    not-term    = ["not"] comparison
    comparison  = operand {operator operand}
    operand     = descriptor | constant | "(" expression {"," expression} ")"
    constant    = text | number | date | time | True | False | None
    operator    = == | != | < | <= | > | >= | in | not in

Blanks are free, parentheses may stand anywhere, text is in single or double quotes; dates and times stand
with or without: ut_date==2016-01-02, ut_time>"07:30:00", ut_datetime<2016-01-02 07:30:00. A section is
compared as text, "[1:1024,1:1024]".

Equality, unless strict:
* `exposure_time==20` holds within 1 % of the larger, so 20.002 is found; so do `in` and its negations
* `central_wavelength==` and `effective_wavelength==` hold within one part in 100,000
* `filter_name`, `disperser` and `detector_name` are compared by display name: filter_name=="K(prime)"
With strict, numbers are equal exactly and names hold component numbers: filter_name=="Kprime_G0206". As
in Gemini's package `exposure_time!=20` and the order relations are always exact: `not exposure_time==20`
is the negation of the first. A frame whose header does not say is in no order: `airmass<2` does not hold
without an airmass, `airmass==None` does.

Gemini's parser stumbles over blanks around an operator, loses the tolerance after an opening parenthesis and
breaks at the blank in a date with time. None of that is copied. Nothing is evaluated as Python.
"""

from __future__ import annotations

import datetime as dt
import math
import operator
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, NoReturn

from pipeline.params import suggest
from pipeline.toolkit import vocabulary
from pipeline.toolkit.kinds import KINDS, Kind, equality, reader
from pipeline.toolkit.methods import Described
from pipeline.toolkit.tokens import END, ExpressionError, Token, tokens_of

MOST_DEEP = 40  # parentheses within parentheses


@dataclass(frozen=True)
class Expression:
    """A parsed expression: `expression(ad)` is True or False. warnings : of words that no frame can have"""

    text: str
    strict: bool
    test: Callable[[Described], bool]
    warnings: tuple[str, ...] = ()

    def __call__(self, ad: Described) -> bool:
        return self.test(ad)

    def __str__(self) -> str:
        return self.text


def expr_parser(expression: str | Expression | None, strict: bool = False) -> Expression:
    """The expression, ready for `select_data`. None and "" hold for every frame.

    strict : numbers are equal exactly, names hold component numbers
    Raises ExpressionError, with the column, for anything that the grammar does not know.
    """
    if isinstance(expression, Expression):
        return expression
    text = expression or ""
    if not text.strip():
        return Expression("", strict, lambda ad: True)
    try:
        parser = _Parser(text, strict)
        return Expression(text, strict, parser.whole(), tuple(dict.fromkeys(parser.warnings)))
    except RecursionError:
        raise ExpressionError("the parentheses are too deep", text[:80], 1) from None


_IN_WORDS: dict[Kind, str] = {
    "number": "a number", "text": "text", "bool": "True or False", "date": "a date", "time": "a time",
    "datetime": "a date with time", "None": "None", "list": "a list", "any": "a value",
}  # fmt: skip
_WORDS = {"and", "or", "not", "in", "True", "False", "None"}
_ORDER: dict[str, Callable[[Any, Any], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_OPERATORS = {"==", "!=", *_ORDER}


class _Node(NamedTuple):
    """A piece of the expression.

    value : what it is for a frame; name : of the descriptor that it is, if it is one; items : of a list
    constant : what it is for every frame, of a text, a number, a time
    """

    value: Callable[[Described], Any]
    kind: Kind
    column: int
    name: str = ""
    items: tuple[_Node, ...] = ()
    constant: Any = None


class _Parser:
    """Recursive descent over the tokens: one method for each rule of the grammar."""

    def __init__(self, text: str, strict: bool) -> None:
        self.text, self.strict = text, strict
        self.tokens = tokens_of(text)
        self.at, self.depth = 0, 0
        self.warnings: list[str] = []

    def whole(self) -> Callable[[Described], bool]:
        node = self.disjunction()
        if self.now.kind != "end":
            self.fail(f"{self.now.text!r} is not expected here; 'and' or 'or' joins two conditions")
        return self.truth(node)

    def disjunction(self) -> _Node:
        self.depth += 1
        if self.depth > MOST_DEEP:
            self.fail(f"parentheses are deeper than {MOST_DEEP}")
        node = self.joined("or", self.conjunction, any)
        self.depth -= 1
        return node

    def conjunction(self) -> _Node:
        return self.joined("and", self.negated, all)

    def joined(self, word: str, rule: Callable[[], _Node], gather: Callable[[Any], bool]) -> _Node:
        first = rule()
        if self.now.text != word:
            return first
        tests = [self.truth(first)]
        while self.take(word):
            tests.append(self.truth(rule()))
        return _Node(lambda ad: gather(test(ad) for test in tests), "bool", first.column)

    def negated(self) -> _Node:
        start = self.now
        if not self.take("not"):
            return self.comparison()
        turned = False  # any number of them, one after the other
        while self.take("not"):
            turned = not turned
        test = self.truth(self.comparison())
        return _Node(lambda ad: test(ad) == turned, "bool", start.column)

    def comparison(self) -> _Node:
        left = self.operand()
        tests = []
        while (relation := self.relation()) is not None:
            right = self.operand()
            tests.append(self.compared(left, relation, right))
            left = right
        if not tests:
            return left
        return _Node(lambda ad: all(test(ad) for test in tests), "bool", left.column)

    def relation(self) -> Token | None:
        token = self.now
        if token.kind == "operator":
            if token.text not in _OPERATORS:
                meant = "==" if token.text == "=" else ""
                meant = f"; did you mean {meant}?" if meant else f"; one of {' '.join(sorted(_OPERATORS))} in"
                self.fail(f"{token.text!r} compares nothing{meant}")
            self.at += 1
            return token
        if token.text == "not" and self.tokens[self.at + 1].text == "in":
            self.at += 2
            return token._replace(text="not in")
        return token if self.take("in") else None

    def operand(self) -> _Node:
        token = self.now
        self.at += 1
        if token.kind == "mark" and token.text in "([":
            return self.bracketed(token)
        if token.kind == "name":
            return self.named(token)
        if token.kind == "number":
            number = float(token.text)
            if not math.isfinite(number):
                self.fail(f"{token.text} is too large a number", token.column)
            return _constant(number, "number", token)
        if token.kind == "text":
            return _constant(token.text[1:-1], "text", token)
        if token.kind in ("datetime", "time"):
            kind: Kind = "time" if token.kind == "time" else "datetime" if ":" in token.text else "date"
            return _constant(self.clock(token.text, kind, token.column), kind, token)
        self.at -= 1
        return self.fail(f"a descriptor or a value is expected here, not {token.text!r}")

    def bracketed(self, opened: Token) -> _Node:
        closing = ")" if opened.text == "(" else "]"
        items, comma = [self.disjunction()], False
        while self.take(","):
            comma = True
            if self.now.text == closing:
                break
            items.append(self.disjunction())
        if not self.take(closing):
            self.fail(f"{closing!r} is expected here, for the {opened.text!r} in column {opened.column}")
        if not comma and opened.text == "(":
            return items[0]
        values = [item.value for item in items]
        return _Node(lambda ad: [value(ad) for value in values], "list", opened.column, items=tuple(items))

    def named(self, token: Token) -> _Node:
        constants: dict[str, tuple[Any, Kind]] = {
            "True": (True, "bool"),
            "False": (False, "bool"),
            "None": (None, "None"),
        }
        if token.text in constants:
            return _constant(*constants[token.text], token)
        if token.text in _WORDS:
            self.at -= 1
            self.fail(f"a descriptor or a value is expected here, not {token.text!r}")
        if token.text not in KINDS:
            self.at -= 1
            hint = suggest(token.text, KINDS) or "; text stands in quotes"
            self.fail(f"no descriptor {token.text}{hint}")
        if self.take("("):  # descriptor() as it is written in Python
            self.take(")") or self.fail("')' is expected here: a descriptor takes no options")
        return _Node(reader(token.text, self.strict), KINDS[token.text], token.column, token.text)

    # --- meaning --------------------------------------------------------------------------------------
    def truth(self, node: _Node) -> Callable[[Described], bool]:
        if node.kind not in ("bool", "any"):
            what = f"{node.name or 'this'} is {_IN_WORDS[node.kind]}"
            self.fail(f"{what}, not a condition; compare it with something", node.column)
        return lambda ad: bool(node.value(ad))

    def compared(self, left: _Node, relation: Token, right: _Node) -> Callable[[Described], bool]:
        if relation.text in ("in", "not in"):
            inside = self.contained(left, right, relation)
            return inside if relation.text == "in" else (lambda ad: not inside(ad))
        left, right = self.alike(left, right)
        self.known(left, right)
        a, b = left.value, right.value
        if relation.text in _ORDER:
            if "list" in (left.kind, right.kind):
                self.fail(f"{relation.text!r} does not compare a list", relation.column)
            order = _ORDER[relation.text]
            return lambda ad: (x := a(ad)) is not None and (y := b(ad)) is not None and order(x, y)
        if relation.text == "!=":
            return lambda ad: bool(a(ad) != b(ad))
        same = equality({left.name, right.name}, self.strict)
        return lambda ad: same(a(ad), b(ad))

    def contained(self, left: _Node, right: _Node, relation: Token) -> Callable[[Described], bool]:
        if right.items:
            tests = [self.compared(left, relation._replace(text="=="), item) for item in right.items]
            return lambda ad: any(test(ad) for test in tests)
        if right.kind not in ("text", "list", "any"):
            self.fail(f"'in' wants a list or text at its right, not {_IN_WORDS[right.kind]}", right.column)
        if right.kind == "text" and left.kind != "text":
            self.fail(f"'in' looks for text in text, not for {_IN_WORDS[left.kind]}", left.column)
        if right.kind == "list":
            self.known(left, right)
        a, b = left.value, right.value
        return lambda ad: (x := a(ad)) is not None and x in (b(ad) or ())

    def known(self, left: _Node, right: _Node) -> None:
        """A warning where a descriptor is compared with a word that it never is."""
        for named, word in ((left, right), (right, left)):
            if not named.name or word.name or word.kind != "text":
                continue
            if problem := vocabulary.unknown(named.name, word.constant):
                self.warnings.append(problem)

    def alike(self, left: _Node, right: _Node) -> tuple[_Node, _Node]:
        """Both of one kind: text beside a date is read as one. Raises where they never can be."""
        for one, other in ((left, right), (right, left)):
            clock = other.kind in ("date", "time", "datetime")
            if clock and not one.name and one.kind != other.kind and one.kind in ("text", "date", "datetime"):
                when = self.clock(str(one.constant), other.kind, one.column)
                read = one._replace(value=_always(when), kind=other.kind, constant=when)
                return (read, other) if one is left else (other, read)
        if left.kind != right.kind and not {left.kind, right.kind} & {"any", "None"}:
            named, value = (left, right) if left.name else (right, left)
            what = f"{named.name or 'the other'} is {_IN_WORDS[named.kind]}"
            self.fail(f"{what} and cannot be compared with {_IN_WORDS[value.kind]}", value.column)
        return left, right

    def clock(self, spelled: str, kind: Kind, column: int) -> Any:
        """A date, a time or both from text."""
        wanted = {"date": "YYYY-MM-DD", "time": "HH:MM:SS", "datetime": "YYYY-MM-DD HH:MM:SS"}[kind]
        day, _, hour = re.sub(r"[T\s]+", " ", spelled.strip()).partition(" ")
        if kind == "time":
            day, hour = "1-1-1", spelled.strip()
        try:
            date = dt.date(*(int(part) for part in day.split("-")))
            time = _time(hour) if hour else dt.time()
        except (ValueError, TypeError):
            return self.fail(f"{spelled!r} is no {kind}; wanted {wanted}", column)
        if kind == "date" and hour:
            self.fail(f"{spelled!r} is more than a date; wanted {wanted}", column)
        return date if kind == "date" else time if kind == "time" else dt.datetime.combine(date, time)

    # --- tokens ---------------------------------------------------------------------------------------
    @property
    def now(self) -> Token:
        return self.tokens[self.at]

    def take(self, text: str) -> bool:
        if self.now.text != text or self.now.kind in ("text", "end"):
            return False
        self.at += 1
        return True

    def fail(self, problem: str, column: int | None = None) -> NoReturn:
        raise ExpressionError(problem.replace(f"'{END}'", "the end"), self.text, column or self.now.column)


def _time(words: str) -> dt.time:
    hour, minute, *rest = words.split(":")
    seconds = float(rest[0] or 0) if rest else 0.0
    whole = int(seconds)
    return dt.time(int(hour), int(minute), whole, round((seconds - whole) * 1e6))


def _always(value: Any) -> Callable[[Described], Any]:
    return lambda ad: value


def _constant(value: Any, kind: Kind, token: Token) -> _Node:
    return _Node(_always(value), kind, token.column, constant=value)
