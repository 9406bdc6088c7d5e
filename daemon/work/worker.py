"""One job, in a child process: read frames and calibrations by path, run the recipe, stage the product.

    result = run({**spec.to_json(), "job_id": 7}, should_stop)

The worker never sees the database. It writes the product beside others that are staged, reads it back,
and answers with path, hash and what was found; the daemon alone publishes. The same function runs on
another machine when the engine is a cluster: it needs nothing but the paths.
"""

from __future__ import annotations

import contextlib
import errno
import importlib
import math
import resource
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from daemon import logs
from daemon.engine import software
from daemon.model.jobs import QUALITY, SHOWN, JobSpec, Ticket, input_key
from daemon.work import depthmeasures, mastermeasures
from daemon.work.mastermeasures import Measures
from pipeline import levels, produce
from pipeline.association import CalKind
from pipeline.errors import StopRequested
from pipeline.files import preview
from pipeline.files.disk import write_whole
from pipeline.files.read import plain_rows
from pipeline.files.scratch import planes_on_disk
from pipeline.files.structure import hash_file, read_structure
from pipeline.frame import Frame, Frames, Keep, in_memory
from pipeline.parallel import run_all, threads
from pipeline.primitive import Product, Recipe, run_recipe
from pipeline.produce import Source
from pipeline.quickcards import quick_cards
from pipeline.recipes import RECIPES

# What the steps and the preview import when they run. What only some data need is left out.
_ALGORITHMS = (
    "background", "calibrate", "combine", "flagging", "grids", "interpolate", "levels", "matching",
    "objectmasks", "photometry", "profiles", "resampling", "sources",
)  # fmt: skip
_OF_JOBS = (*(f"pipeline.algorithms.{name}" for name in _ALGORITHMS), "PIL.ImageDraw", "PIL.ImageFont")

PLANE_BYTES = 11  # of a pixel: SCI, VAR, DQ and the mask of objects
# Of what a worker may have; a step needs up to twice as much, and room to work in. Thirty full frames, as
# of a bad-pixel mask, must fit into the default 1500 MB: through a file that job takes 0.4 s longer.
MEMORY_FOR_PLANES = 0.25


def warm_up(compiled: bool) -> None:
    """Get ready for the first job.

    compiled : every loop is on disk already; each is loaded when it is first called, in milliseconds.
        Otherwise all are compiled now.
    """
    for name in _OF_JOBS:
        importlib.import_module(name)
    if compiled:
        from pipeline.algorithms.calibrate import noise

        # The compiler's own start, 0.15 s. It would look for scipy's matrix products, for 0.13 s more of each
        # worker, to offer them to loops; none of ours has any.
        with _hidden("scipy.linalg"):
            noise(np.zeros((1, 1), np.float32), 1.0, 1.0, 0.0)
    else:
        from daemon.work.warmup import run_every_recipe

        run_every_recipe()


@contextlib.contextmanager
def _hidden(module: str) -> Iterator[None]:
    """As if a module that nobody has imported yet could not be imported."""
    if module in sys.modules:
        yield
        return
    sys.modules[module] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules[module]


def run(job: Mapping[str, Any], should_stop: Callable[[], bool]) -> dict[str, Any]:
    """Make one product and say what it is.

    job : a JobSpec as JSON, and `job_id`, the engine's number of it, for the logs; `cache`, a folder on a
        disk of this machine, for the planes of large groups; `threads`, how many may work on it;
        `places`, {path in the parameters: where these bytes lie now}, for a product that is made again
    Answers with fits and png (the staged paths), sha256, name, descriptors, tags, quality, notes, steps,
    processor, seconds. Raises ReductionError when these data cannot be reduced so, StopRequested when asked
    to stop, OSError when a file cannot be read or written now. Nothing stays behind then.
    """
    spec = JobSpec.from_json(job)
    inputs = _told_apart([Source(i.path, i.name, i.file_sha, data_sha=i.data_sha) for i in spec.inputs])
    calibrations = [Source(c.path, c.name, c.sha, c.role) for c in spec.calibrations]
    ticket = Ticket.of(job.get("job_id", 0))
    scratch = Path(job.get("cache") or Path(spec.staging).parent)
    told = logs.job_context(ticket.shown, spec.recipe, spec.group_id)
    with told, _room_for(inputs, scratch) as keep, threads(job.get("threads", 1)), quick_cards():
        began = time.monotonic()
        progress = _Progress(should_stop, RECIPES[spec.recipe])
        bound = RECIPES[spec.recipe].bind(spec.parameters, preset=spec.preset)
        with progress.timed("read"):
            _unchanged(calibrations)
            calibrations = _with_those_of_a_person(spec, calibrations, job.get("places") or {})
            frames, cals = produce.load(inputs, calibrations, keep)
        show = produce.intermediates(Path(spec.products) / spec.night / "intermediate", inputs)
        product = run_recipe(bound, _handed_over(frames), cals, progress, show, keep)
        with progress.timed("write"):
            measures = _measures_of(product, progress.measures, RECIPES[spec.recipe])
            written = produce.write(
                Path(spec.staging),
                product,
                inputs,
                calibrations,
                time_stamp=spec.time_stamp,
                name=spec.name,
                cards=_cards(spec, calibrations),
                notes=spec.notes,
                measures=measures,
            )
            # What depends on the masks of other nights is no part of the product.
            compared = mastermeasures.against(product.frames[0], spec.compare)
            if ticket.kind == "look" and not RECIPES[spec.recipe].last_only:
                _draw_running(spec, written.frame)
        return {
            "fits": str(written.fits),
            "png": str(written.png),
            "sha256": written.sha256,
            "name": spec.name,
            "descriptors": written.frame.descriptors.to_json(),
            "tags": sorted(written.frame.tags),
            "quality": _quality(written.frame) | ({"measures": measures | compared} if measures else {}),
            "notes": list(dict.fromkeys((*spec.notes, *product.notes))),
            "steps": progress.steps,
            "processor": software.processor(),
            "seconds": round(time.monotonic() - began, 3),
        }


def _draw_running(spec: JobSpec, frame: Frame) -> None:
    """A running stack may become the product: its own picture, called as the file it is shown beside."""
    named = frame.evolve(name=f"{spec.name.rpartition('_')[0]}_running.fits")
    write_whole(Path(f"{spec.staging}{SHOWN}"), preview.drawn(named, so_far=len(spec.inputs), job=spec.key))


def _room_for(inputs: Sequence[Source], folder: Path) -> contextlib.AbstractContextManager[Keep]:
    """Where the planes of these frames go: memory, or, where all of them would take too much, a file."""
    limit = resource.getrlimit(resource.RLIMIT_DATA)[0]
    if limit == resource.RLIM_INFINITY or len(inputs) < 2:
        return contextlib.nullcontext(in_memory)
    first = produce.of_the_frame(inputs[0], lambda: read_structure(inputs[0].path))
    shape = first.hdus[first.image].shape if first.image is not None else ()
    planes = len(inputs) * math.prod(shape) * PLANE_BYTES
    large = planes > limit * MEMORY_FOR_PLANES
    return planes_on_disk(folder) if large else contextlib.nullcontext(in_memory)


def _quality(frame: Frame) -> dict[str, Any]:
    """What the product, and each frame in it, is worth."""
    quality: dict[str, Any] = {key: frame.header[key] for key in QUALITY if key in frame.header}
    return quality | ({"frames": plain_rows(frame.members)} if frame.members is not None else {})


def _measures_of(product: Product, found: Measures, recipe: Recipe) -> Measures:
    """Those of the frames, and of a stack of them; a first look is none."""
    if recipe.makes is not None or recipe.last_only:
        return found
    return found | depthmeasures.of_stack(product.frame, found)


def _handed_over(frames: Frames) -> Iterator[Frame]:
    """Hands over the frames one by one, so that no list keeps the raw pixels in memory until the end."""
    while frames:
        yield frames.pop(0)


@dataclass
class _Progress:
    """Called around every step: times it, logs what a person should know, and stops between two steps.

    Masters and images are measured, of the frames that the stack is made of, while they are stacked.
    """

    should_stop: Callable[[], bool]
    recipe: Recipe
    steps: list[dict[str, Any]] = field(default_factory=list)
    measures: Measures = field(default_factory=dict)
    _began: float = 0.0
    _beside: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1))
    _measured: Future[dict[str, Any]] | None = None

    def __call__(self, step: str, done: bool, frames: Frames, notes: tuple[str, ...]) -> None:
        if not done:
            self._begin(step)
            if measure := self._measure():
                self._measured = self._beside.submit(measure, step, frames)
            return
        if self._measured and (found := self._measured.result()):
            self.measures = found
        if self.recipe.makes is CalKind.MADE_BPM and step == "makeBPM":
            self.measures = mastermeasures.of_mask(frames[0])
        for note in notes:
            logs.get().info("note", step=step, text=note)
        self._finish(step, frames=len(frames))

    def _measure(self) -> Callable[[str, Frames], Measures] | None:
        if self.recipe.makes in (CalKind.DARK, CalKind.FLAT):
            return mastermeasures.of_step
        return depthmeasures.of_step if self.recipe.makes is None else None

    @contextlib.contextmanager
    def timed(self, step: str) -> Iterator[None]:
        """The same for what happens before and after the recipe."""
        self._begin(step)
        yield
        self._finish(step)

    def _begin(self, step: str) -> None:
        self._began = time.monotonic()
        if self.should_stop():
            raise StopRequested(f"before {step}")

    def _finish(self, step: str, **more: Any) -> None:
        seconds = round(time.monotonic() - self._began, 3)
        self.steps.append({"step": step, "seconds": seconds})
        logs.get().info("step_finished", step=step, seconds=seconds, **more)


def _unchanged(calibrations: list[Source]) -> None:
    """Raises OSError when a calibration has been made again at its path since the job was planned.

    The daemon plans again; an OSError does not count this attempt as a failure.
    """

    def compare(source: Source) -> None:
        if hash_file(source.path) != source.sha256:
            raise OSError(errno.ESTALE, "replaced since this job was planned", source.path)

    run_all(compare, calibrations)


def _told_apart(inputs: list[Source]) -> list[Source]:
    """The inputs with unique names: files of the same name get the beginning of their hash added."""
    count = Counter(source.name for source in inputs)
    return [
        replace(source, name=f"{source.name.removesuffix('.fits')}-{source.data_sha[:8]}.fits")
        if count[source.name] > 1
        else source
        for source in inputs
    ]


def _with_those_of_a_person(
    spec: JobSpec, calibrations: list[Source], places: Mapping[str, str]
) -> list[Source]:
    """With masks named by path in the configuration: user_bpm beside the chosen, static_bpm instead."""
    _, paths = produce.take_paths(spec.parameters, ["addDQ"])
    lie = {role: (path, places.get(path, path)) for role, path in paths.items() if path}
    given = [Source(at, Path(path).name, hash_file(at), role) for role, (path, at) in lie.items()]
    return [source for source in calibrations if source.role not in paths] + given


def _cards(spec: JobSpec, calibrations: Sequence[Source] = ()) -> dict[str, Any]:
    chosen = {c.path for c in spec.calibrations}
    by_hand = any(c.role in produce.MASKS and c.path not in chosen for c in calibrations)
    return {
        "RECIPE": (spec.recipe, "recipe that made this file"),
        "VERSION": (spec.recipe_version, "version of the recipe"),
        "PRESET": (spec.preset, "preset of its parameters"),
        "JOBKEY": spec.key,  # all 64 digits; there is no room for a comment
        "GROUPID": (spec.group, "group of frames that it was made of"),
        "INPUTKEY": input_key(spec.inputs),
        **software.cards(),
        **levels.cards(spec.levels, RECIPES[spec.recipe].takes, mask_by_hand=by_hand),
    }
