"""`Reduce`: run a recipe on files, as in the tutorial.

    reduction = Reduce()
    reduction.files.extend(darks)
    reduction.runr()
    reduction.output_filenames                     # ["N20160102S0423_dark.fits"]

The recipe follows from the tags of the first file, calibrations come from `ucals` and from the databases of
`pipeline.cal_service`, parameters from `uparms`. Products appear in the working directory, whole or not at
all; a calibration also goes into the databases with `store`. Whatever is wrong with files, names, parameters
or calibrations is reported before a pixel is read.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pipeline import cal_service, logutils
from pipeline.files.places import expanded
from pipeline.names import suffix_of
from pipeline.params import suggest
from pipeline.primitive import PRIMITIVES, Recipe
from pipeline.recipes import RECIPES, default_recipe
from pipeline.reduction.chosen import user_calibrations
from pipeline.reduction.inputs import ReduceError, check_kinds, is_raw, once_each, open_all, raw_only
from pipeline.reduction.plan import plan_run
from pipeline.toolkit.dataset import Dataset

__all__ = ["Reduce", "ReduceError", "find_recipe"]

DEFAULT = "_default"
MODES, PRESETS = ("sq", "ql", "qa"), ("nirid", "dragons")

Overrides = Mapping[str, Any] | Iterable[tuple[str, Any]]


@dataclass
class Reduce:
    """One reduction. Set the attributes, call `runr`, look at `output_filenames`.

    files : paths of what goes in, all of one kind (for a BPM: flats first, then short darks)
    recipename : "_default" follows from the tags of the first file; else a recipe, a single step, or
        "file.NAME" for a Recipe called NAME in file.py
    uparms : parameters, {"step:name": value} or pairs; bare "name" reaches every step that has one
    ucals : {"processed_dark": path, ...}, before any database
    preset : "nirid", or "dragons": every parameter as Gemini's package has it
    mode : "sq" insists on the calibrations that a recipe needs; "ql" and "qa" go on without, with a warning
    suffix : instead of the recipe's, as "_mine"; out : folder of the products
    config_file : the databases, instead of those of `cal_service`; preview : write a PNG beside each product
    overwrite : replace also files that nirid did not make; never an input, a raw frame or a database
    strict_cals : a calibration given by hand that does not match a frame is an error, not a warning
    drpkg, upload : taken, for scripts that set them
    output_filenames : what was written, None before; processed_filenames : of these, calibrations and science
    """

    files: list[str] = field(default_factory=list)
    recipename: str = DEFAULT
    uparms: Overrides = field(default_factory=list)
    ucals: Mapping[str, str] = field(default_factory=dict)
    preset: Literal["nirid", "dragons"] = "nirid"
    mode: Literal["sq", "ql", "qa"] = "sq"
    suffix: str | None = None
    out: str | os.PathLike[str] = "."
    config_file: str | None = None
    preview: bool = False
    overwrite: bool = False
    strict_cals: bool = False
    drpkg: str = "geminidr"
    upload: Any = None
    output_filenames: list[str] | None = None
    processed_filenames: list[str] | None = None

    def runr(self) -> None:
        """Run the recipe and write the product. Raises errors of pipeline.errors, and OSError."""
        log = logutils.get()
        _one_of("mode", self.mode, MODES)
        _one_of("preset", self.preset, PRESETS)
        folder = _folder(self.out, self.suffix)
        opened, unread = open_all(self.files)
        recipe = find_recipe(self.recipename, next(filter(is_raw, opened), opened[0]), self.mode)
        self.recipename = recipe.name
        if any(step.name == "prepare" for step in recipe.steps):
            opened = raw_only(opened)
        check_kinds(recipe, opened)
        frames, warnings = once_each(opened)
        plan = plan_run(
            recipe,
            frames,
            overrides=_overrides(self.uparms or ()),
            user=user_calibrations(self.ucals),
            where=cal_service.databases(self.config_file),
            preset=self.preset,
            mode=self.mode,
            strict=self.strict_cals,
            warnings=[*unread, *warnings],
        )
        names = [source.name for source in plan.inputs]
        log.info("recipe", text=f"{recipe.name}: {len(names)} frames, {names[0]} to {names[-1]}")
        for source in plan.calibrations:
            log.info("calibration", text=f"  {source.role}: {_short(source.path)}")
        for warning in plan.warnings:
            log.warning("note", text=warning)
        paths = plan.execute(folder, self.suffix, self.preview, self.overwrite)
        stored = plan.store(paths)
        for path in paths:
            into = f", registered in {', '.join(_short(place) for place in stored)}" if stored else ""
            log.info("written", text=f"  wrote {path}{into}")
        self.output_filenames = [str(path) for path in paths]
        self.processed_filenames = list(self.output_filenames) if recipe.makes or recipe.needs else []


# --- before a pixel is read ---------------------------------------------------------------------------
def find_recipe(name: str, first: Dataset, mode: str = "sq") -> Recipe:
    """The recipe of this name, or the one for a frame's tags. Raises ReduceError with the nearest names, and
    for a recipe that Gemini's package does not have in this mode."""
    if name in (DEFAULT, "", None):
        recipe = default_recipe(first.tags)
        if recipe is None or "SPECT" in first.tags or "RAW" not in first.tags:
            what = " ".join(sorted(first.tags))
            raise ReduceError(f"no recipe for {first.filename}, whose tags are {what}")
        return recipe
    if name in RECIPES:
        if mode not in RECIPES[name].modes:
            offered = ", ".join(r.name for r in RECIPES.values() if mode in r.modes)
            raise ReduceError(f"recipe {name} is not offered in mode {mode}; there are {offered}")
        return RECIPES[name]
    if name in PRIMITIVES:
        return Recipe(name, version=1, suffix=suffix_of(name), steps=(PRIMITIVES[name](),))
    file, _, attribute = name.rpartition(".")
    if file:
        return _from_file(file, attribute)
    raise ReduceError(
        f"no recipe {name}{suggest(name, [*RECIPES, *PRIMITIVES])}; there are {', '.join(RECIPES)}"
    )


def _from_file(name: str, attribute: str) -> Recipe:
    """A person's own recipe: NAME in file.py, found in the working directory or by its path."""
    path = expanded(f"{name.removesuffix('.py')}.py")
    if not path.is_file():
        raise ReduceError(f"no recipe {name}.{attribute}: there is no file {path}")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    recipe = getattr(module, attribute, None)
    if not isinstance(recipe, Recipe):
        known = [key for key, value in vars(module).items() if isinstance(value, Recipe)]
        raise ReduceError(f"{path} has no recipe {attribute}{suggest(attribute, known)}")
    return recipe


def _short(path: str | Path) -> str:
    """A path below the working directory as it is seen from there."""
    return os.path.relpath(path) if Path(path).absolute().is_relative_to(Path.cwd()) else str(path)


def _folder(out: str | os.PathLike[str], suffix: str | None) -> Path:
    """Where products go. Raises ReduceError for no folder, and for a suffix that ends no file's name."""
    if suffix is not None and (not isinstance(suffix, str) or not suffix.isprintable() or "/" in suffix):
        raise ReduceError(f"suffix {suffix!r}: must be the end of a file's name, as _mine")
    try:
        folder = Path(out)
    except TypeError as error:
        raise ReduceError(f"out {out!r} is no folder: {error}") from None
    if "\0" in str(folder) or (os.path.lexists(folder) and not folder.is_dir()):
        raise ReduceError(f"out {str(folder)!r} is no folder")
    there = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    if not os.access(there, os.W_OK | os.X_OK):
        raise ReduceError(f"{there.absolute()} cannot be written: products go elsewhere with out, or --out")
    return folder


def _overrides(given: Overrides) -> dict[str, Any]:
    """Parameters by name. Raises ReduceError for what is neither a mapping nor pairs."""
    try:
        found = dict(given)
    except (TypeError, ValueError):
        found = {0: None}  # type: ignore[dict-item]
    if not all(isinstance(key, str) for key in found):
        raise ReduceError(f"uparms {given!r}: must be pairs of a name, as step:parameter, and a value")
    return found


def _one_of(name: str, value: str, allowed: Sequence[str]) -> None:
    if value not in allowed:
        raise ReduceError(f"{name} {value!r}: must be one of {', '.join(allowed)}")
