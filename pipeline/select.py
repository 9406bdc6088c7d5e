"""Choosing frames by what they are: the tutorial's `dataselect`, and `showd` and `typewalk`.

    darks = dataselect.select_data(files, ["DARK"], [], dataselect.expr_parser("exposure_time==20"))

Only headers are read. The grammar of expressions, and where it is better than Gemini's, is in
`pipeline.toolkit.expression`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from pipeline.errors import NiridError
from pipeline.headers.tags import RULES
from pipeline.names import is_fits
from pipeline.params import suggest
from pipeline.toolkit.dataset import CannotOpen, Dataset
from pipeline.toolkit.expression import Expression, expr_parser
from pipeline.toolkit.methods import DESCRIPTORS
from pipeline.toolkit.tokens import ExpressionError

__all__ = ["ExpressionError", "expr_parser", "fits_files", "select_data", "showd", "typewalk", "unknown_tags"]


PathLike = str | os.PathLike[str]


def select_data(
    inputs: Iterable[str],
    tags: Iterable[str] | str = (),
    xtags: Iterable[str] | str = (),
    expression: str | Expression | None = None,
) -> list[str]:
    """The files, in the order given, that have all of `tags`, none of `xtags` and meet the expression.

    tags, xtags : names, or one text of names with commas
    expression : from `expr_parser`, or as text
    Raises CannotOpen for a file that is none, ExpressionError for an expression that makes no sense.
    """
    wanted, unwanted, test = tag_set(tags), tag_set(xtags), expr_parser(expression)
    if test.warnings:
        from pipeline import logutils

        for text in test.warnings:
            logutils.get().warning("expression", text=text)
    chosen = []
    for name in inputs:
        ad = Dataset(name)
        if wanted <= ad.tags and not unwanted & ad.tags and test(ad):
            chosen.append(name)
    return chosen


def tag_set(tags: Iterable[str] | str) -> set[str]:
    """`"DARK, RAW"` or a list of names, as a set."""
    names = tags.split(",") if isinstance(tags, str) else tags
    return {name.strip().upper() for name in names if name.strip()}


def unknown_tags(tags: Iterable[str] | str) -> list[str]:
    """A line for each name that no NIRI frame can have: `DRAK is no tag; did you mean DARK?`."""
    known = {tag for rule in RULES for tag in rule.tags.split()}
    return [f"{tag} is no tag of a NIRI frame{suggest(tag, known)}" for tag in sorted(tag_set(tags) - known)]


def showd(
    inputs: Iterable[str], descriptors: Sequence[str] | str, *, pretty: bool = True
) -> list[dict[str, Any]]:
    """One row a file: `filename` and the descriptors asked for, filters by their display names.

    Raises NiridError for a name that is no descriptor.
    """
    names = descriptors.split(",") if isinstance(descriptors, str) else descriptors
    names = [name.strip() for name in names if name.strip()]
    for name in names:
        if name not in DESCRIPTORS and name != "tags":
            raise NiridError(f"no descriptor {name}{suggest(name, DESCRIPTORS)}")
    rows = []
    for path in inputs:
        ad = Dataset(path)
        rows.append({"filename": str(path), **{name: _value(ad, name, pretty) for name in names}})
    return rows


def _value(ad: Dataset, name: str, pretty: bool) -> Any:
    if name == "tags":
        return sorted(ad.tags)
    method = getattr(ad[0] if len(ad) else ad, name)
    takes = "pretty" in method.__func__.__code__.co_varnames
    return method(pretty=True) if takes and (pretty or name.endswith("_section")) else method()


def typewalk(
    folder: PathLike = ".",
    tags: Iterable[str] | str = (),
    xtags: Iterable[str] | str = (),
    *,
    recursive: bool = True,
    either: bool = False,
    mask: str | None = None,
) -> list[dict[str, Any]]:
    """One row a FITS file below a folder: `filename`, sorted `tags`, `error` where it cannot be opened.

    either : any of `tags` is enough; mask : a regular expression for the whole name of a file
    Raises NiridError for a mask that is none.
    """
    wanted, unwanted = tag_set(tags), tag_set(xtags)
    try:
        named = re.compile(mask or ".*")
    except re.error as error:
        raise NiridError(f"{mask} is no regular expression: {error}") from error
    rows: list[dict[str, Any]] = []
    for path in fits_files(folder, recursive=recursive):
        if not named.fullmatch(os.path.basename(path)):
            continue
        try:
            has = Dataset(path).tags
        except CannotOpen as error:
            if not wanted:
                rows.append({"filename": path, "tags": [], "error": str(error)})
            continue
        enough = bool(wanted & has) if either and wanted else wanted <= has
        if enough and not unwanted & has:
            rows.append({"filename": path, "tags": sorted(has)})
    return rows


def fits_files(folder: PathLike, *, recursive: bool = True) -> Iterator[str]:
    """FITS files by name, in order; hidden ones are left out. Raises CannotOpen without such a folder."""
    if not Path(folder).is_dir() or not os.stat(folder).st_nlink:  # deleted, and still our working folder
        raise CannotOpen(f"{folder}: no such folder")
    for here, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if recursive and not name.startswith("."))
        for name in sorted(files):
            if is_fits(name):
                yield os.path.normpath(os.path.join(here, name))
