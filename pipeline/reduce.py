"""`Reduce`: run a recipe on files, as in the tutorial.

    reduction = Reduce()
    reduction.files.extend(darks)
    reduction.runr()
    reduction.output_filenames                     # ["N20160102S0423_dark.fits"]

The recipe follows from the tags of the first file, calibrations come from `ucals` and from the databases of
`pipeline.cal_service`, parameters from `uparms`. Products appear in the working directory, whole or not at
all; a calibration also goes into the databases with `store`. Whatever is wrong with files, names, parameters
or calibrations is told before a pixel is read.
"""

from __future__ import annotations

import importlib.util
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pipeline import cal_service, logutils, outputs, produce, standards, stores
from pipeline.association import CalKind, Found, Match, NotApplicable
from pipeline.dataset import CannotOpen, Dataset
from pipeline.errors import CalibrationNotFound, NiridError
from pipeline.fitsreader import hash_file
from pipeline.frame import Frames, root_of
from pipeline.parallel import cores, threads
from pipeline.params import suggest
from pipeline.places import expanded
from pipeline.primitive import PRIMITIVES, BoundRecipe, Recipe, run_recipe
from pipeline.produce import Source
from pipeline.recipes import RECIPES, default_recipe

DEFAULT = "_default"
MODES, PRESETS = ("sq", "ql", "qa"), ("nirid", "dragons")
# The step that uses a kind, and so can be told to do without it.
USED_BY = {CalKind.DARK: "darkCorrect", CalKind.FLAT: "flatCorrect"}

Overrides = Mapping[str, Any] | Iterable[tuple[str, Any]]


class ReduceError(NiridError):
    """A reduction that cannot start: no files, two instruments, no such recipe."""


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
    drpkg: str = "geminidr"
    upload: Any = None
    output_filenames: list[str] | None = None
    processed_filenames: list[str] | None = None

    def runr(self) -> None:
        """Run the recipe and write the product. Raises errors of pipeline.errors, and OSError."""
        log = logutils.get()
        _one_of("mode", self.mode, MODES)
        _one_of("preset", self.preset, PRESETS)
        frames = open_all(self.files)
        recipe = find_recipe(self.recipename, frames[0], self.mode)
        self.recipename = recipe.name
        plan = plan_run(
            recipe,
            frames,
            overrides=dict(self.uparms),
            user=user_calibrations(self.ucals),
            where=cal_service.databases(self.config_file),
            preset=self.preset,
            mode=self.mode,
        )
        names = [source.name for source in plan.inputs]
        log.info("recipe", text=f"{recipe.name}: {len(names)} frames, {names[0]} to {names[-1]}")
        for source in plan.calibrations:
            log.info("calibration", text=f"  {source.role}: {_short(source.path)}")
        for warning in plan.warnings:
            log.warning("note", text=warning)
        paths = plan.execute(Path(self.out), self.suffix, self.preview, self.overwrite)
        stored = plan.store(paths)
        for path in paths:
            into = f", registered in {', '.join(_short(place) for place in stored)}" if stored else ""
            log.info("written", text=f"  wrote {path}{into}")
        self.output_filenames = [str(path) for path in paths]
        self.processed_filenames = list(self.output_filenames) if recipe.makes or recipe.needs else []


@dataclass(frozen=True)
class Plan:
    """Everything decided: what goes in, with which parameters; nothing read yet."""

    bound: BoundRecipe
    inputs: tuple[Source, ...]
    calibrations: tuple[Source, ...]
    where: tuple[stores.Database, ...]
    warnings: tuple[str, ...]
    time_stamp: str
    mode: str = "sq"

    def execute(
        self, folder: Path, suffix: str | None = None, preview: bool = False, overwrite: bool = False
    ) -> list[Path]:
        """Read, reduce, write; the paths of the products. Raises WouldOverwrite, before a pixel is read."""
        recipe = self.bound.recipe
        if suffix is None:  # Gemini's products of the other modes say so, as _ql_image
            suffix = recipe.suffix if self.mode == "sq" else f"_{self.mode}{recipe.suffix}"
        self._check_names(folder, suffix, overwrite)
        with threads(cores()), _Progress(self.bound) as progress:
            frames, cals = produce.load(self.inputs, self.calibrations)
            product = run_recipe(
                self.bound, frames, cals, progress.step, produce.intermediates(folder, self.inputs, overwrite)
            )
        cards = {
            "RECIPE": (recipe.name, "recipe that made this file"),
            "PRESET": (self.bound.preset, "preset of its parameters"),
        }
        written = []
        for number, frame in enumerate(product.frames):
            stem = folder / (frame.root + suffix)
            done = produce.write(
                stem,
                product,
                self.inputs,
                self.calibrations,
                time_stamp=self.time_stamp,
                cards=cards,
                notes=self.warnings,
                preview=preview,
                number=number,
                overwrite=overwrite,
            )
            written.append(done.fits)
        return written

    def _check_names(self, folder: Path, suffix: str, overwrite: bool) -> None:
        """Whichever of the frames gives the product its name."""
        taken = [source.path for source in (*self.inputs, *self.calibrations)]
        for source in self.inputs:
            path = folder / f"{root_of(source.name)}{suffix}.fits"
            outputs.check(path, "product", inputs=taken, overwrite=overwrite)

    def store(self, paths: Sequence[Path]) -> list[Path]:
        """Register a new calibration in the databases with `store`; returns those."""
        stored: list[Path] = []
        for path in paths:
            if self.bound.recipe.makes or cal_service.kind_of(Dataset(path)) is CalKind.ZERO_POINT:
                stored = stores.store_in_all(cal_service.as_calibration(path), self.where)
        return stored


# --- before a pixel is read ---------------------------------------------------------------------------
def open_all(files: Sequence[str | os.PathLike[str]]) -> list[Dataset]:
    """The files that can be read, each once. Raises ReduceError without any, or with another instrument."""
    if isinstance(files, str | os.PathLike):
        files = [files]
    if not files:
        raise ReduceError("no files to reduce")
    opened: dict[str, Dataset] = {}
    problems = []
    for name in files:
        try:
            opened.setdefault(os.path.realpath(name), Dataset(name))
        except CannotOpen as error:
            problems.append(str(error))
    if not opened:
        raise ReduceError(f"none of {len(files)} files can be read: {problems[0]}")
    for problem in problems:
        logutils.get().warning("left_out", text=f"{problem}; left out")
    by_instrument = {ad.instrument(): ad for ad in reversed(opened.values())}
    if len(by_instrument) > 1:
        what = " and ".join(f"{name} ({ad.filename})" for name, ad in reversed(by_instrument.items()))
        raise ReduceError(f"files of {len(by_instrument)} instruments: {what}; reduce them apart")
    first = next(iter(opened.values()))
    if "NIRI" not in first.tags:
        raise ReduceError(f"{first.filename} is of {first.instrument()}, and only NIRI is reduced here")
    return list(opened.values())


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
        return Recipe(name, version=1, suffix=produce.suffix_of(name), steps=(PRIMITIVES[name](),))
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


def user_calibrations(ucals: Mapping[str, str]) -> dict[str, str]:
    """Role -> path of the calibrations given by a person. Raises ReduceError for an unknown kind."""
    roles = {kind.value: kind.value for kind in CalKind} | {CalKind.MADE_BPM.value: "user_bpm"}
    for kind in ucals:
        if kind not in roles:
            raise ReduceError(f"no kind of calibration {kind}{suggest(kind, roles)}")
    return {roles[kind]: os.fspath(path) for kind, path in ucals.items()}


def plan_run(
    recipe: Recipe,
    frames: Sequence[Dataset],
    *,
    overrides: Mapping[str, Any],
    user: Mapping[str, str],
    where: Sequence[stores.Database],
    preset: str,
    mode: str = "sq",
) -> Plan:
    """Decide everything.

    user : role -> path, before any database
    mode : in "sq" a calibration that the recipe needs must be there, unless its step is told to do without
    Raises OverrideError, CalibrationNotFound, CannotOpen.
    """
    steps = [step.name for step in recipe.steps]
    overrides, by_path = produce.take_paths(overrides, steps)
    if mode != "sq" and "prepare" in steps:
        overrides = {"prepare:mode": mode, **overrides}
    given, warnings = {**user, **by_path}, list[str]()
    bound = recipe.bind(overrides, preset)
    stores.check(where)
    frames = sorted(frames, key=lambda ad: (ad.facts.ut_datetime is None, ad.facts.ut_datetime, ad.filename))
    chosen = [_given(role, path) for role, path in given.items() if path]
    for kind in sorted(recipe.takes - set(given)):
        if kind is CalKind.MADE_BPM and given.get("user_bpm"):
            continue  # what a person gives comes before any database
        if kind is CalKind.ZERO_POINT and _is_standard(frames[0]):
            continue  # it is to give one
        if kind is CalKind.ZERO_POINT:  # all of the night go in, and are compared
            zeros = stores.find_zero_points(frames[0].facts, where)
            chosen += [Source(c.path, os.path.basename(c.path), c.sha256, kind.value) for c in zeros]
            continue
        step = USED_BY.get(kind)
        if step and _does_without(bound, step):
            continue
        match = stores.find(kind, frames[0].facts, where)
        if isinstance(match, Found):
            found = match.candidate
            chosen.append(Source(found.path, os.path.basename(found.path), found.sha256, kind.value))
        elif step:
            insist = mode == "sq" or _value(bound, step, "do_cal") == "force"
            warnings.append(_missing(kind, step, match, frames[0], insist, preset))
            overrides[f"{step}:do_cal"] = "skip"
    inputs = [Source(ad.path, _plain(ad.filename), hash_file(Path(ad.path))) for ad in frames]
    ends = [ad.facts.ut_end for ad in frames if ad.facts.ut_end]
    return Plan(
        recipe.bind(overrides, preset),
        tuple(inputs),
        tuple(chosen),
        tuple(where),
        tuple(warnings),
        max(ends).isoformat() if ends else "",
        mode,
    )


def _missing(kind: CalKind, step: str, match: Match, frame: Dataset, insist: bool, preset: str) -> str:
    """The warning when it goes on without; raises CalibrationNotFound when it must not."""
    if isinstance(match, NotApplicable):
        return f"{step} skipped: {match.why}"
    if kind is CalKind.DARK and preset == "nirid" and _is_standard(frame):
        return f"{step} skipped for the standard star {frame.object()}: {match.why}"
    if insist:
        raise CalibrationNotFound(
            f"{frame.filename}: {match.why}; add one to the calibration store, give one as "
            f"{kind.value}, or set {step}:do_cal=skip"
        )
    return f"{step} skipped: {match.why}"


def _is_standard(frame: Dataset) -> bool:
    return frame.observation_class() in ("partnerCal", "progCal") or bool(
        standards.find(frame.object() or "")
    )


def _given(role: str, path: str) -> Source:
    """A calibration from a person: it must be of the kind that it is given as."""
    ad = Dataset(path)
    kind = cal_service.kind_of(ad)
    if role in (CalKind.DARK.value, CalKind.FLAT.value, CalKind.ZERO_POINT.value) and kind != role:
        raise ReduceError(f"{path} is given as {role}, and is {kind or ' '.join(sorted(ad.tags))}")
    return Source(ad.path, ad.filename, hash_file(Path(ad.path)), role)


def _value(bound: BoundRecipe, step: str, name: str) -> Any:
    return next((getattr(s.params, name, None) for s in bound.steps if s.step.name == step), None)


def _does_without(bound: BoundRecipe, step: str) -> bool:
    return any(s.skip for s in bound.steps if s.step.name == step) or _value(bound, step, "do_cal") == "skip"


def _short(path: str | Path) -> str:
    """A path below the working directory as it is seen from there."""
    return os.path.relpath(path) if Path(path).absolute().is_relative_to(Path.cwd()) else str(path)


def _plain(filename: str) -> str:
    for ending in (".gz", ".bz2", ".fz"):
        filename = filename.removesuffix(ending)
    return filename


def _one_of(name: str, value: str, allowed: Sequence[str]) -> None:
    if value not in allowed:
        raise ReduceError(f"{name} {value!r}: must be one of {', '.join(allowed)}")


class _Progress:
    """Tells what runs: a line for each step in the log and, at a terminal, what is being done now."""

    def __init__(self, bound: BoundRecipe) -> None:
        self.steps = [step.step.name for step in bound.steps if not step.skip]
        self.done, self.began = 0, 0.0
        self.status: Any = None
        self.display: AbstractContextManager[Any] = nullcontext()

    def __enter__(self) -> _Progress:
        if logutils.at_terminal():
            from rich.console import Console

            self.display = Console(stderr=True).status("reading")
        self.status = self.display.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self.display.__exit__(*error)

    def step(self, name: str, done: bool, frames: Frames, notes: tuple[str, ...]) -> None:
        """Called before and after every step of the recipe."""
        if not done:
            self.began = time.monotonic()
            if self.status is not None:
                self.status.update(f"{name} ({self.done + 1} of {len(self.steps)})")
            return
        self.done += 1
        log, seconds = logutils.get(), time.monotonic() - self.began
        plural = "frame" if len(frames) == 1 else "frames"
        log.info("step", text=f"  {name:<26}{seconds:7.2f} s  {len(frames):3d} {plural}")
        for text in notes:
            log.info("note", text=f"    {text}")
