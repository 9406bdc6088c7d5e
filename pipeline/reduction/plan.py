"""A reduction, decided: `plan_run` looks at headers only, `PlannedRun.execute` reads, reduces and writes."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline import cal_service, levels, logutils, produce
from pipeline.association import CalKind
from pipeline.calibrations import stores
from pipeline.errors import OverrideError
from pipeline.files import outputs
from pipeline.files.read import read_header
from pipeline.files.structure import hash_file
from pipeline.frame import Frames
from pipeline.names import is_named, root_of, stems, told_apart
from pipeline.parallel import cores, run_all, threads
from pipeline.params import suggest
from pipeline.primitive import BoundRecipe, Recipe, run_recipe
from pipeline.produce import Source
from pipeline.quickcards import quick_cards
from pipeline.reduction.chosen import choose
from pipeline.reduction.inputs import check_alike
from pipeline.toolkit.dataset import Dataset


@dataclass(frozen=True)
class PlannedRun:
    """Everything decided: what goes in, with which parameters; nothing read yet."""

    bound: BoundRecipe
    inputs: tuple[Source, ...]
    calibrations: tuple[Source, ...]
    where: tuple[stores.Database, ...]
    warnings: tuple[str, ...]
    time_stamp: str
    mode: str = "sq"
    levels: Mapping[str, tuple[int, str]] = field(default_factory=dict)  # cards of its calibrations

    def execute(
        self, folder: Path, suffix: str | None = None, preview: bool = False, overwrite: bool = False
    ) -> list[Path]:
        """Read, reduce, write; the paths of the products. Raises WouldOverwrite, before a pixel is read."""
        recipe = self.bound.recipe
        if suffix is None:  # Gemini's products of the other modes say so, as _ql_image
            suffix = recipe.suffix if self.mode == "sq" else f"_{self.mode}{recipe.suffix}"
        self._check_names(folder, suffix, overwrite)
        with threads(cores()), quick_cards(), _Progress(self.bound) as progress:
            frames, cals = produce.load(self.inputs, self.calibrations)
            product = run_recipe(
                self.bound, frames, cals, progress.step, produce.intermediates(folder, self.inputs, overwrite)
            )
        cards = {
            "RECIPE": (recipe.name, "recipe that made this file"),
            "PRESET": (self.bound.preset, "preset of its parameters"),
            **self.levels,
        }
        written = []
        for number, stem in enumerate(stems(frame.name for frame in product.frames)):
            done = produce.write(
                produce.place_of(folder, stem, suffix, product.frames[number], self.inputs),
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


def plan_run(
    recipe: Recipe,
    frames: Sequence[Dataset],
    *,
    overrides: Mapping[str, Any],
    user: Mapping[str, str],
    where: Sequence[stores.Database],
    preset: str,
    mode: str = "sq",
    strict: bool = False,
    warnings: Sequence[str] = (),
) -> PlannedRun:
    """Decide everything.

    user : role -> path, before any database
    mode : in "sq" a calibration that the recipe needs must be there, unless its step may do without
    strict : calibrations that a person gives must match; warnings : of the files, for the product
    Raises OverrideError, CalibrationNotFound, FrameMismatch, CannotOpen.
    """
    steps = [step.name for step in recipe.steps]
    frames = sorted(frames, key=lambda ad: (ad.facts.ut_datetime is None, ad.facts.ut_datetime, ad.filename))
    names = dict(zip((ad.path for ad in frames), told_apart([ad.path for ad in frames]), strict=True))
    overrides, by_path = produce.take_paths(overrides, steps)
    overrides = {key: _as_names(value, names) for key, value in overrides.items()}
    if mode != "sq" and "prepare" in steps:
        overrides = {"prepare:mode": mode, **overrides}
    bound = recipe.bind(overrides, preset)
    stores.check(where)
    _check_words(bound, list(names.values()))
    used = _used(bound, frames, names)
    check_alike(recipe, used)
    choice = choose(bound, used, names, {**user, **by_path}, where, mode=mode, strict=strict)
    by_hand = any(
        source.role in produce.MASKS and source.role not in choice.levels for source in choice.calibrations
    )
    inputs = run_all(lambda ad: Source(ad.path, names[ad.path], hash_file(Path(ad.path))), frames)
    ends = [ad.facts.ut_end for ad in frames if ad.facts.ut_end]
    return PlannedRun(
        recipe.bind({**overrides, **choice.without}, preset),
        tuple(inputs),
        tuple(choice.calibrations),
        tuple(where),
        (*warnings, *choice.warnings),
        max(ends).isoformat() if ends else "",
        mode,
        levels.cards(choice.levels, recipe.takes, mask_by_hand=by_hand),
    )


def _as_names(value: Any, names: Mapping[str, str]) -> Any:
    """A parameter in which paths of frames are what these are called; any other value as it is."""
    if isinstance(value, list | tuple):
        return [_as_names(item, names) for item in value]
    text = os.fspath(value) if isinstance(value, str | os.PathLike) else None
    if not isinstance(text, str) or os.sep not in text or "\0" in text:
        return value
    called = {os.path.realpath(path): name for path, name in names.items()}
    words = text.split(",")
    return ",".join(called.get(os.path.realpath(word.strip()), word) for word in words)


def _check_words(bound: BoundRecipe, names: Sequence[str]) -> None:
    """Raises OverrideError, with the nearest, for a name in a parameter that no frame has."""
    for step in bound.steps:
        for key, words in step.values().items():
            for word in words if isinstance(words, tuple) else ():
                if not any(is_named(name, (word,)) for name in names):
                    near = suggest(word, names)
                    raise OverrideError(f"{step.step.name}:{key}: no frame is called {word}{near}")


def _used(bound: BoundRecipe, frames: Sequence[Dataset], names: Mapping[str, str]) -> list[Dataset]:
    """The frames that removeFirstFrame leaves, which looks at headers alone."""
    step = next((s for s in bound.steps if s.step.name == "removeFirstFrame" and not s.skip), None)
    headers = [read_header(ad.path, name=names[ad.path]) for ad in frames] if step else []
    if step is None or None in headers:
        return list(frames)
    left = {frame.name for frame in step.step.primitive.run([h for h in headers if h], step.params)}
    return [ad for ad in frames if names[ad.path] in left] or list(frames)


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
