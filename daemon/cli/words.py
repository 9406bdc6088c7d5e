"""What is typed on a command line: files, lists and patterns, parameters, nights, states."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem


class File(click.ParamType[str]):
    """A path, completed by the shell. `@list.lis` and patterns in quotes are opened by `expanded`."""

    name = "file"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        from pipeline.files import places

        return str(places.expanded(value)) if value.startswith("~/") else value

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        return [CompletionItem(incomplete, type="file")]


def names_of(where: Callable[[], Iterable[str]]) -> Any:
    """Completes a list of names with commas."""

    def complete(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
        before, comma, last = incomplete.rpartition(",")
        return [f"{before}{comma}{name}" for name in sorted(where()) if name.startswith(last)]

    return complete


def expanded(names: Iterable[str]) -> list[str]:
    """Paths from what was typed: `@list.lis` is a file with one path a line, a pattern in quotes is searched.

    What a list may look like is told in `pipeline.files.lists`. Raises UsageError when nothing is left.
    """
    from pipeline.files import lists

    paths: list[str] = []
    for name in names:
        if name.startswith("@"):
            try:
                paths += lists.read_list(name[1:])
            except lists.ListError as error:
                raise click.UsageError(str(error)) from None
        elif _is_pattern(name):
            paths += sorted(glob.glob(name))
        else:
            paths.append(name)
    if not paths:
        raise click.UsageError(f"no files in {' '.join(names)}")
    return paths


def existing(names: Iterable[str]) -> list[str]:
    """The same of files that are to be read: one that is not there is no file to be left out in silence.

    Raises UsageError for a pattern that nothing matches, NiridError for a path where nothing lies.
    """
    from pipeline.errors import NiridError

    names = list(names)
    for name in names:
        if not name.startswith("@") and _is_pattern(name) and not glob.glob(name):
            raise click.UsageError(f"no file matches {name}")
    paths = expanded(names)
    if gone := [path for path in paths if "\0" not in path and not os.path.lexists(path)]:
        more = f" (and {len(gone) - 1} more)" if len(gone) > 1 else ""
        raise NiridError(f"{gone[0]}: no such file or directory{more}")
    return paths


def _is_pattern(name: str) -> bool:
    return any(mark in name for mark in "*?[") and not Path(name).exists()


def sorted_out(
    words: Sequence[str], with_params: bool, with_cals: bool
) -> tuple[list[str], list[str], list[str]]:
    """(files, parameters, calibrations) of the words that stand alone, as after `-p a=1 b=2`.

    What is there is a file, whatever it looks like. UsageError for a parameter or calibration without its
    option, and when no file is left.
    """
    from pipeline.association import CalKind

    kinds = "|".join(CalKind)
    looks = {
        "-p": (re.compile(r"[A-Za-z_]\w*(:\w+)?=.+", re.DOTALL), with_params),
        "--user-cal": (re.compile(rf"({kinds}):.+", re.DOTALL), with_cals),
    }
    found: dict[str, list[str]] = {"": [], "-p": [], "--user-cal": []}
    for word in words:
        like = (o for o, (pattern, _) in looks.items() if pattern.fullmatch(word))
        option = "" if os.path.lexists(word) else next(like, "")
        if option and not looks[option][1]:
            raise click.UsageError(f"{word}: no such file; is it meant for {option}?")
        found[option].append(word)
    if not found[""]:
        raise click.UsageError("no files: all that is given belongs to -p or --user-cal")
    return found[""], found["-p"], found["--user-cal"]


def pairs(words: Iterable[str], mark: str, option: str) -> list[tuple[str, str]]:
    """`name=value` or `kind:path` as pairs; UsageError for a word without the mark."""
    found = []
    for word in words:
        name, there, value = word.partition(mark)
        if not (there and name and value):
            raise click.UsageError(
                f"{option} {word!r}: must be as {'step:param=value' if mark == '=' else 'kind:path'}"
            )
        found.append((name.strip(), value.strip().strip("'\"")))
    return found


class Night(click.ParamType[str]):
    """A UT date as the folders of products have it: `20160102`, also typed 2016-01-02 or 2016/01/02."""

    name = "night"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        from daemon.model.names import is_date

        digits = re.sub(r"(\d{4})[-/.](\d\d)[-/.](\d\d)", r"\1\2\3", str(value).strip())
        if not is_date(digits):
            self.fail(f"{value} is no night; wanted is a UT date as 20160102 or 2016-01-02", param, ctx)
        return digits


def state_of_a_file(words: Iterable[str]) -> tuple[str | None, str | None]:
    """(state of a file, folder) of what was said with --state, which means either; UsageError for neither.

    A path, or what is there, is the folder of the database; the name of a state is always the state.
    """
    from daemon.model.states import FileState
    from pipeline.params import suggest

    state = folder = None
    for word in words:
        if word in list(FileState):
            state = word
        elif os.sep in word or word.startswith("~") or os.path.exists(word):
            folder = word
        else:
            known = ", ".join(FileState)
            raise click.UsageError(f"no state {word}{suggest(word, FileState)}; there are: {known}")
    return state, folder
