"""Primitives, steps and recipes: what is done to the frames, and the loop that does it.

A primitive is a function with a name from Gemini's vocabulary and one parameters dataclass; calling
it in a recipe makes a Step with the parameters that this recipe fixes; a recipe is a tuple of steps.
`Recipe.bind` resolves every parameter before any pixel is read.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

from pipeline import params
from pipeline.association import CalKind
from pipeline.errors import NotEnoughFrames, OverrideError, ReductionError
from pipeline.frame import Frame, Frames, Keep, for_each, in_memory
from pipeline.headers.zeropoint import ZeroPoint
from pipeline.parallel import run_all
from pipeline.travel import once

# Accepted for every step, outside its own parameters.
COMMON = {"skip_primitive": bool, "write_outputs": bool}
# Calibrations by path; whoever reads the files removes these parameters before `bind`.
PATHS = {"darkCorrect": ("dark",), "flatCorrect": ("flat",)}


@dataclasses.dataclass(frozen=True)
class Calibrations:
    """What one run has for each of its steps: its calibrations, None where there is none.

    Masks are frames whose `dq` holds the bits. `user_bpm` is given by hand, the others by association.
    `zero_points` are those of all standards of the night that may serve; `warnings` what was wrong with any
    of the calibrations, each with its name before it: they are notes of all that is made with these.
    of_frame : by name, of frames that have others; keep : puts planes where those of the run are kept
    """

    dark: Frame | None = None
    flat: Frame | None = None
    static_bpm: Frame | None = None
    made_bpm: Frame | None = None
    user_bpm: Frame | None = None
    zero_points: tuple[ZeroPoint, ...] = ()
    warnings: tuple[str, ...] = ()
    of_frame: Mapping[str, Calibrations] = dataclasses.field(default_factory=dict)
    keep: Keep = in_memory

    def of(self, frame: Frame) -> Calibrations:
        """Those for one frame."""
        return self.of_frame.get(frame.name, self)


NO_CALIBRATIONS = Calibrations()


class Body(Protocol):
    """The function of a primitive: frames in, frames out."""

    def __call__(self, frames: Frames, params: Any, cals: Calibrations) -> Frames: ...


@dataclasses.dataclass(frozen=True)
class Primitive:
    """One named operation on a list of frames."""

    name: str
    params: type
    body: Body
    doc: str
    of_one: Callable[[Frame, Any, Calibrations], Frame] | None = None  # where it works on one frame at a time

    def __call__(self, **fixed: Any) -> Step:
        """A step of a recipe, with the parameters that the recipe fixes."""
        return Step(self, fixed)

    def run(
        self, frames: Frames, params: Any = None, cals: Calibrations = NO_CALIBRATIONS, **values: Any
    ) -> Frames:
        """Run it directly: `stack_darks.run(frames, operation="median")`."""
        return self.body(frames, params or self.params(**values), cals)


def primitive(name: str, parameters: type = params.NoParams) -> Callable[[Body], Primitive]:
    """Make a primitive of a function of a list of frames."""

    def wrap(body: Body) -> Primitive:
        primitive = Primitive(name, parameters, body, (body.__doc__ or "").strip())
        _known(primitive)
        return primitive

    return wrap


def per_frame(
    name: str, parameters: type = params.NoParams
) -> Callable[[Callable[[Frame, Any, Calibrations], Frame]], Primitive]:
    """Make a primitive of a function of one frame, applied to each."""

    def wrap(function: Callable[[Frame, Any, Calibrations], Frame]) -> Primitive:
        def body(frames: Frames, params: Any, cals: Calibrations) -> Frames:
            return for_each(lambda frame: function(frame, params, cals), frames, cals.keep)

        primitive = Primitive(name, parameters, body, (function.__doc__ or "").strip(), function)
        _known(primitive)
        return primitive

    return wrap


PRIMITIVES: dict[str, Primitive] = {}


def _known(primitive: Primitive) -> None:
    if primitive.name in PRIMITIVES:
        raise ValueError(f"two primitives are called {primitive.name}")
    PRIMITIVES[primitive.name] = primitive


@dataclasses.dataclass(frozen=True)
class Step:
    """A primitive in a recipe. `fixed` cannot be overridden by anyone."""

    primitive: Primitive
    fixed: Mapping[str, Any]

    @property
    def name(self) -> str:
        return self.primitive.name


@dataclasses.dataclass(frozen=True)
class BoundStep:
    """A step with every parameter resolved."""

    step: Step
    params: Any
    skip: bool = False
    write: bool = False

    def values(self) -> dict[str, Any]:
        """The parameters used, for the product's provenance."""
        return {f.name: getattr(self.params, f.name) for f in dataclasses.fields(self.params)}


@dataclasses.dataclass(frozen=True)
class BoundRecipe:
    """A recipe that can run: all parameters known and checked."""

    recipe: Recipe
    steps: tuple[BoundStep, ...]
    preset: str


@dataclasses.dataclass(frozen=True)
class Recipe:
    """What is done to a list of frames, top to bottom.

    version : raised by hand whenever the pixels that the recipe makes change
    suffix : of the product's name, as `_dark`
    makes : the kind of calibration that the product is; None for science
    needs, prefers, wants : calibrations to wait for without end, for a time, not at all
    modes : in which of Gemini's modes it is offered: science quality, quick look, quality assessment
    last_only : the product is of the last frame given; those before it are there to be compared with
    """

    name: str
    version: int
    suffix: str
    steps: tuple[Step, ...]
    makes: CalKind | None = None
    needs: frozenset[CalKind] = frozenset()
    prefers: frozenset[CalKind] = frozenset()
    wants: frozenset[CalKind] = frozenset()
    modes: tuple[str, ...] = ("sq", "ql", "qa")
    last_only: bool = False

    def __post_init__(self) -> None:
        for step in self.steps:
            _, problems = params.build(step.primitive.params, step.fixed)
            if problems:
                raise OverrideError(f"recipe {self.name}, {step.name}:{problems[0]}")

    @property
    def takes(self) -> frozenset[CalKind]:
        """Every kind of calibration that it uses in any way."""
        return self.needs | self.prefers | self.wants

    def has(self, parameter: str) -> bool:
        """True for a `step:parameter` that the recipe has and does not fix."""
        where, _, name = parameter.rpartition(":")
        return any(
            step.name == where and name in params.type_hints(step.primitive.params) and name not in step.fixed
            for step in self.steps
        )

    def bind(self, overrides: Mapping[str, Any] | None = None, preset: str = "nirid") -> BoundRecipe:
        """Resolve all parameters. Raises OverrideError with one line for every problem.

        overrides : `step:parameter` or bare `parameter` (every step that has one) -> value
        """
        given: dict[str, dict[str, Any]] = {step.name: {} for step in self.steps}
        problems: list[str] = []
        for key, value in (overrides or {}).items():
            problems += self._assign(given, key, value)
        bound = []
        for step in self.steps:
            values = given[step.name]
            common = {name: values.pop(name) for name in COMMON if name in values}
            built, wrong = params.build(step.primitive.params, {**step.fixed, **values}, preset=preset)
            problems += [f"{step.name}:{line}" for line in wrong]
            bound.append(BoundStep(step, built, **self._flags(step.name, common, problems)))
        if problems:
            raise OverrideError("\n".join(dict.fromkeys(problems)))
        return BoundRecipe(self, tuple(bound), preset)

    def _assign(self, given: dict[str, dict[str, Any]], key: str, value: Any) -> list[str]:
        """Put one override where it belongs; returns the problems."""
        where, _, name = key.rpartition(":")
        if where and where not in given:
            return [f"{key}: recipe {self.name} has no step {where}{params.suggest(where, given)}"]
        asked = [step for step in self.steps if where in ("", step.name)]
        takers = [step for step in asked if name in params.type_hints(step.primitive.params)]
        if not takers and name in COMMON and where:
            given[where][name] = value
            return []
        if not takers:
            known = {
                n for s in asked for n in (*params.type_hints(s.primitive.params), *PATHS.get(s.name, ()))
            }
            known |= COMMON.keys() if where else set()
            nobody = f"{key}: no such parameter" if where else f"{key}: no step of {self.name} takes it"
            return [nobody + params.suggest(name, known)]
        for step in takers:
            if name in step.fixed:
                return [f"{step.name}:{name}: fixed to {step.fixed[name]} by recipe {self.name}"]
            # `step:name` is more particular than a bare `name`, whichever comes first.
            if where or name not in given[step.name]:
                given[step.name][name] = value
        return []

    @staticmethod
    def _flags(step: str, common: Mapping[str, Any], problems: list[str]) -> dict[str, bool]:
        flags = {"skip_primitive": False, "write_outputs": False}
        for name, value in common.items():
            try:
                flags[name] = params.coerce(COMMON[name], value)
            except ValueError as error:
                problems.append(f"{step}:{name}={value!r}: {error}")
        return {"skip": flags["skip_primitive"], "write": flags["write_outputs"]}


@dataclasses.dataclass(frozen=True)
class StepRecord:
    """What one step did, for the product's HISTORY table."""

    step: str
    parameters: Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Product:
    """What a recipe made.

    frames : usually one; several where the recipe ends before a stack
    used : names of the input frames that are in it, in order
    """

    frames: tuple[Frame, ...]
    recipe: Recipe
    notes: tuple[str, ...]
    history: tuple[StepRecord, ...]
    used: tuple[str, ...]

    @property
    def frame(self) -> Frame:
        """The product, where it is one frame."""
        return self.frames[0]


def apply_step(step: BoundStep, frames: Frames, cals: Calibrations) -> Frames:
    """The frames after a step. One by one where it can be: the planes of each make room for the next."""
    of_one = step.step.primitive.of_one
    if of_one is None:
        return [frame.kept(cals.keep) for frame in step.step.primitive.body(frames, step.params, cals)]

    def replace(place: int) -> None:
        frames[place] = of_one(frames[place], step.params, cals).kept(cals.keep)

    run_all(replace, range(len(frames)))
    return frames


OnStep = Callable[[str, bool, Frames, tuple[str, ...]], None]


def note(frames: Frames, text: str) -> Frames:
    """The frames, each with a note of what a person should know (a frame left out, a fallback)."""
    return [frame.evolve(note=text) for frame in frames]


def run_recipe(
    bound: BoundRecipe,
    inputs: Iterable[Frame],
    cals: Calibrations = NO_CALIBRATIONS,
    on_step: OnStep | None = None,
    write: Callable[[str, Frames], None] | None = None,
    keep: Keep = in_memory,
) -> Product:
    """Run a recipe on frames that are in order of time.

    inputs : an iterator that keeps no frame it has handed out frees the raw pixels as soon as possible
    on_step : called with (step, done, frames, new notes) before (done False) and after each step;
        it may raise StopRequested
    write : called with the frames after a step that has write_outputs set
    keep : puts each plane that a step makes where those of this run are kept

    When a step raises, the step's name is put before the error's message.
    """
    history, notes, frames = [], list(dict.fromkeys(cals.warnings)), list(inputs)
    cals = dataclasses.replace(cals, keep=keep)
    for bound_step in bound.steps:
        name = bound_step.step.name
        if bound_step.skip:
            frames = note(frames, f"{name} skipped: skip_primitive is set")
            history.append(StepRecord(name, {"skip_primitive": True}))
            continue
        if on_step:
            on_step(name, False, frames, ())
        try:
            frames = apply_step(bound_step, frames, cals)
            if not frames:
                raise NotEnoughFrames("no frame is left")
        except ReductionError as error:
            error.args = (f"{name}: {error}", *error.args[1:])
            raise
        new = [text for frame in frames for text in frame.notes if text not in notes]
        notes += dict.fromkeys(new)
        history.append(StepRecord(name, bound_step.values()))
        if on_step:
            on_step(name, True, frames, tuple(dict.fromkeys(new)))
        if bound_step.write and write:
            write(name, frames)
    used = [str(value) for frame in frames for value in frame.header.get("IMCMB*", {}).values()]
    return Product(
        tuple(frames),
        bound.recipe,
        tuple(once(notes)),
        tuple(history),
        tuple(used or [str(f.header.get("ORIGNAME", f.name)) for f in frames]),
    )
