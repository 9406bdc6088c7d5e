"""One job, in a child process: read frames and calibrations by path, run the recipe, stage the product.

    result = run(spec.to_json(), should_stop)

The worker never sees the database. It writes the product beside others that are staged, reads it back,
and answers with path, hash and what was found; the daemon alone publishes. The same function runs on
another machine when the engine is a cluster: it needs nothing but the paths.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

from daemon import logs
from daemon.jobspec import JobSpec
from daemon.logs import printable
from pipeline import fitsio
from pipeline.association import CalKind
from pipeline.errors import BadFrame, CalibrationNotFound, DamagedFile, RefusedFile, StopRequested
from pipeline.frame import Frame, Frames
from pipeline.preview import write_preview
from pipeline.primitive import Calibrations, Product, run_recipe
from pipeline.recipes import RECIPES
from pipeline.tags import tags_of

VERSION = f"nirid {metadata.version('nirid')}"
_FIELDS = {
    CalKind.DARK: "dark",
    CalKind.FLAT: "flat",
    CalKind.STATIC_BPM: "static_bpm",
    CalKind.MADE_BPM: "made_bpm",
}


def run(job: Mapping[str, Any], should_stop: Callable[[], bool]) -> dict[str, Any]:
    """Make one product and say what it is.

    job : a JobSpec as JSON, and `job_id`, its number in the ledger, for the logs
    Answers with fits and png (the staged paths), sha256, name, descriptors, tags, quality, notes, steps,
    seconds.

    Raises ReductionError when these data cannot be reduced so, StopRequested when asked to stop, OSError
    when a file cannot be read or written now. Nothing is left behind then.
    """
    spec = JobSpec.from_json(job)
    with logs.job_context(job.get("job_id", 0), spec.recipe, spec.group):
        began = time.monotonic()
        progress = _Progress(should_stop)
        recipe = RECIPES[spec.recipe]
        bound = recipe.bind(spec.parameters, preset=spec.preset)
        with progress.timed("read"):
            frames = [_input(item.path, item.name, item.data_sha) for item in spec.inputs]
            cals = Calibrations(**{_FIELDS[CalKind(c.role)]: _calibration(c.path) for c in spec.calibrations})
        product = run_recipe(bound, frames, cals, progress, write=_intermediate(spec))
        notes = tuple(dict.fromkeys((*spec.notes, *product.notes)))
        frame = product.frame.evolve(name=f"{spec.name}.fits", notes=notes)
        with progress.timed("write"):
            sha = _stage(spec, frame, product)
        return {
            "fits": f"{spec.staging}.fits",
            "png": f"{spec.staging}.png",
            "sha256": sha,
            "name": spec.name,
            "descriptors": frame.descriptors.to_json(),
            "tags": sorted(tags_of(frame.header)),
            "quality": {},
            "notes": list(notes),
            "steps": progress.steps,
            "seconds": round(time.monotonic() - began, 3),
        }


@dataclass
class _Progress:
    """Called around every step: times it, logs what a person should know, and stops between two steps."""

    should_stop: Callable[[], bool]
    steps: list[dict[str, Any]] = field(default_factory=list)
    _began: float = 0.0

    def __call__(self, step: str, done: bool, frames: Frames, notes: tuple[str, ...]) -> None:
        if not done:
            self._began = time.monotonic()
            if self.should_stop():
                raise StopRequested(f"before {step}")
            return
        for note in notes:
            logs.get().info("note", step=step, text=note)
        self._finished(step, frames=len(frames))

    @contextlib.contextmanager
    def timed(self, step: str) -> Any:
        """The same for what happens before and after the recipe."""
        self(step, False, [], ())
        yield
        self._finished(step)

    def _finished(self, step: str, **more: Any) -> None:
        seconds = round(time.monotonic() - self._began, 3)
        self.steps.append({"step": step, "seconds": seconds})
        logs.get().info("step_finished", step=step, seconds=seconds, **more)


def _input(path: str, name: str, data_sha: str) -> Frame:
    """A raw frame, if its pixels are still those that were planned with."""
    try:
        return fitsio.read_frame(path, name=name, expect_data_sha=data_sha)
    except (DamagedFile, RefusedFile) as error:
        raise BadFrame(name, f"changed since it was registered: {error}") from error


def _calibration(path: str) -> Frame:
    try:
        return fitsio.read_frame(path)
    except (DamagedFile, RefusedFile) as error:
        raise CalibrationNotFound(f"{error}") from error


def _stage(spec: JobSpec, frame: Frame, product: Product) -> str:
    """Write the product with all that is needed to make it again bit for bit, read it back, make its picture.

    Returns the SHA-256 of the product. When anything goes wrong, nothing stays.
    """
    staged, picture = Path(f"{spec.staging}.fits"), Path(f"{spec.staging}.png")
    staged.parent.mkdir(parents=True, exist_ok=True)
    staged.unlink(missing_ok=True)  # of an attempt with the same number, before a crash
    try:
        sha = fitsio.write_product(
            staged,
            _with_history(frame),
            provenance=_provenance(spec) + [(c.name, c.sha, c.role) for c in spec.calibrations],
            history=[(step.step, step.parameters, VERSION) for step in product.history],
            time_stamp=spec.time_stamp,
            cards=_cards(spec),
        )
        fitsio.verify_product(staged, sha)
        write_preview(picture, frame)
    except BaseException:
        staged.unlink(missing_ok=True)
        picture.unlink(missing_ok=True)
        raise
    return sha


def _with_history(frame: Frame) -> Frame:
    """What a person should know stands in the header too."""
    header = frame.header.copy()
    for note in frame.notes:
        header.add_history(printable(note))
    return frame.evolve(header=header)


def _provenance(spec: JobSpec) -> list[tuple[str, str, str]]:
    return [(item.name, item.file_sha, "input") for item in spec.inputs]


def _cards(spec: JobSpec) -> dict[str, Any]:
    return {
        "RECIPE": (spec.recipe, "recipe that made this file"),
        "VERSION": (spec.recipe_version, "version of the recipe"),
        "PRESET": (spec.preset, "preset of its parameters"),
        "JOBKEY": spec.key,  # all 64 digits; there is no room for a comment
        "GROUPID": (spec.group, "group of frames that it was made of"),
    }


def _intermediate(spec: JobSpec) -> Callable[[str, Frames], None]:
    """Where the frames after a step with write_outputs go: PRODUCTS/NIGHT/intermediate/NAME_step.fits."""

    def write(step: str, frames: Frames) -> None:
        folder = Path(spec.products) / spec.night / "intermediate"
        folder.mkdir(parents=True, exist_ok=True)
        for frame in frames:
            path = folder / f"{frame.root}_{step}.fits"
            staged = path.with_name(f".{path.name}.{os.getpid()}")
            staged.unlink(missing_ok=True)
            fitsio.write_product(
                staged,
                frame,
                provenance=_provenance(spec),
                history=[(step, {}, VERSION)],
                time_stamp=spec.time_stamp,
                cards=_cards(spec),
            )
            os.replace(staged, path)

    return write
