"""From paths to a written product: what `Reduce` and the daemon's worker have in common.

    frames, cals = load(inputs, calibrations)                     # read
    product = run_recipe(bound, frames, cals, on_step, intermediates(folder, inputs))
    written = write(stem, product, inputs, calibrations, time_stamp=...)

`write` completes the header, writes the FITS file with its provenance, reads it back, and draws the
preview. Nothing is decided here: the caller chooses files, calibrations and parameters.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from pipeline import logutils
from pipeline.association import CalKind
from pipeline.errors import BadFrame, CalibrationNotFound, DamagedFile, OverrideError, RefusedFile
from pipeline.files import disk, outputs
from pipeline.files import preview as pictures
from pipeline.files.read import read_frame, read_notes
from pipeline.files.structure import read_structure
from pipeline.files.write import verify_product, write_product
from pipeline.frame import Frame, Frames, Keep, in_memory
from pipeline.headers import zeropoint
from pipeline.headers.merged import merge
from pipeline.headers.values import ascii_name
from pipeline.headers.zeropoint import ZeroPoint
from pipeline.names import file_name, stems, suffix_of
from pipeline.parallel import run_all, run_both
from pipeline.primitive import Calibrations, Product
from pipeline.toolkit.dataset import Dataset
from pipeline.travel import travelling

T = TypeVar("T")

# Which field of `Calibrations` a role fills.
ROLES = {
    CalKind.DARK.value: "dark",
    CalKind.FLAT.value: "flat",
    CalKind.STATIC_BPM.value: "static_bpm",
    CalKind.MADE_BPM.value: "made_bpm",
    "user_bpm": "user_bpm",
    CalKind.ZERO_POINT.value: "zero_points",  # all of the night
}

# Where frames have different ones, that of the first stands for what a step asks of no frame in particular.
USED_BY_ALL = (CalKind.DARK.value, CalKind.FLAT.value)
MASKS = ("user_bpm", CalKind.STATIC_BPM.value, CalKind.MADE_BPM.value)

# Calibrations that may be given as parameters, by path.
BY_PATH = {
    "addDQ:user_bpm": "user_bpm",
    "addDQ:static_bpm": CalKind.STATIC_BPM.value,
    "darkCorrect:dark": CalKind.DARK.value,
    "flatCorrect:flat": CalKind.FLAT.value,
}


@dataclass(frozen=True)
class Source:
    """A file that goes in.

    path : where it is; name : what it is called in headers and provenance; sha256 : of its bytes
    role : "input" or a key of ROLES; data_sha : when given, other pixels are refused
    frames : names of the frames that a calibration is for; () is all
    """

    path: str
    name: str
    sha256: str
    role: str = "input"
    data_sha: str = ""
    frames: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", ascii_name(self.name))


@dataclass(frozen=True)
class Written:
    """What is on disk. png : None without preview; frame : as written, header and all."""

    fits: Path
    png: Path | None
    sha256: str
    frame: Frame


def take_paths(parameters: Mapping[str, Any], steps: Iterable[str]) -> tuple[dict[str, Any], dict[str, str]]:
    """Parameters as `bind` takes them, and role -> path of the calibrations among them.

    A path of "" means none, not even by association.
    steps : names of the recipe's steps; what is meant for another step is left for `bind` to tell
    Raises OverrideError for what is no path.
    """
    rest, paths = dict(parameters), {}
    for key, role in BY_PATH.items():
        step, _, name = key.partition(":")
        for spelling in (key, name):
            if step not in steps or spelling not in rest:
                continue
            value = rest[spelling]
            if value is not None and not isinstance(value, str | os.PathLike):
                raise OverrideError(f"{spelling}={value!r}: must be a path or None")
            path = "" if value is None else os.fspath(value)
            if path == "default":
                continue
            paths[role] = "" if path.strip().lower() in ("none", "") else path
            if step != "addDQ":  # whose parameters these are
                del rest[spelling]
    return rest, paths


def load(
    inputs: Sequence[Source], calibrations: Iterable[Source] = (), keep: Keep = in_memory
) -> tuple[Frames, Calibrations]:
    """Read everything that a recipe needs.

    inputs : in order of time; keep : puts each plane, as it is read, where those of the run are kept
    Raises BadFrame for a frame and CalibrationNotFound for a calibration that is damaged or is not what
    it was; OSError.
    """
    frames = run_all(lambda source: read_input(source).kept(keep), inputs)
    sources = list(calibrations)
    found = run_all(lambda source: _read_calibration(source, keep), sources)
    zeros = tuple(held for _, held in found if isinstance(held, ZeroPoint))
    planes: dict[str, Any] = {}
    of_frame: dict[str, dict[str, Any]] = {}
    for source, (field, held) in zip(sources, found, strict=True):
        if isinstance(held, Frame):
            for frame in source.frames:
                of_frame.setdefault(frame, {})[field] = held
            if not source.frames or source.role in USED_BY_ALL:
                planes.setdefault(field, held)
    told = [text for _, c in found if isinstance(c, Frame) for text in travelling(c.name, c.notes)]
    # The mask is used here too, and has said it in fewer words than the flat that was made with it.
    warnings = tuple(text for text in told if not any(text.endswith(f": {other}") for other in told))
    # A standard was made with most of what the image is made with: said once is enough.
    zeros = tuple(
        replace(zero, notes=tuple(text for text in zero.notes if text not in warnings)) for zero in zeros
    )
    own = {frame: Calibrations(**{**planes, **held}) for frame, held in of_frame.items()}
    return frames, Calibrations(**planes, zero_points=zeros, warnings=warnings, of_frame=own)


def _read_calibration(source: Source, keep: Keep) -> tuple[str, Frame | ZeroPoint]:
    try:
        if source.role == CalKind.ZERO_POINT:
            return ROLES[source.role], _zero_point(source)
        frame = read_frame(source.path, name=file_name(source.name))  # not where it lies, which may change
        if source.role in MASKS and not {"BPMASK", "PROCBPM"} & set(frame.header):
            raise CalibrationNotFound(f"{source.role} {source.path}: it is no bad-pixel mask")
        return ROLES[source.role], frame.kept(keep)
    except (DamagedFile, RefusedFile) as error:
        raise CalibrationNotFound(f"{source.role} {error}") from error


def read_input(source: Source) -> Frame:
    """One frame with its pixels. Raises BadFrame, also for other pixels than those that were planned with."""
    expect = source.data_sha or None
    return of_the_frame(source, lambda: read_frame(source.path, name=source.name, expect_data_sha=expect))


def of_the_frame(source: Source, read: Callable[[], T]) -> T:
    """What `read` returns; what it finds wrong with the file becomes a note of the frame."""
    try:
        return read()
    except (DamagedFile, RefusedFile) as error:
        raise BadFrame(source.name, f"cannot be used any more: {error}") from error


def _zero_point(source: Source) -> ZeroPoint:
    found = zeropoint.read(merge(read_structure(Path(source.path)).phu, {}), source.name)
    if found is None:
        raise CalibrationNotFound(f"{source.role} {source.path}: no zero point of a standard in its header")
    return replace(found, notes=read_notes(source.path))


def intermediates(
    folder: Path, inputs: Sequence[Source], overwrite: bool = False
) -> Callable[[str, Frames], None]:
    """For `run_recipe`: writes the frames after a step that has write_outputs set, with the step's suffix.

    What writes raises WouldOverwrite as `write` does.
    """

    def write_outputs(step: str, frames: Frames) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        named = zip(frames, stems(frame.name for frame in frames), strict=True)
        places = [place_of(folder, stem, suffix_of(step), frame, inputs) for frame, stem in named]
        paths = [place.with_name(f"{place.name}.fits") for place in places]
        for path in paths:  # all before the first is written
            outputs.check(path, "product", inputs=[i.path for i in inputs], overwrite=overwrite)
        for path, frame in zip(paths, frames, strict=True):
            _write(path, frame, _provenance(inputs), [(step, {}, version())], frame.stamp)

    return write_outputs


def place_of(folder: Path, stem: str, suffix: str, frame: Frame, inputs: Sequence[Source]) -> Path:
    """Where a product goes, without .fits: beside one of another exposure of its name, with a warning."""
    place = folder / f"{stem}{suffix}"
    there = _of_another(Path(f"{place}.fits"), frame)
    if there is None:
        return place
    digest = hashlib.sha256("".join(source.sha256 for source in inputs).encode()).hexdigest()
    apart = folder / f"{stem}-{digest[:8]}{suffix}"
    logutils.get().warning("note", text=f"{place}.fits is {there} and stays; this one is {apart}.fits")
    return apart


def _of_another(path: Path, frame: Frame) -> str | None:
    """What the file at the place of a product is, where it is a product of another exposure."""
    if not path.is_file() or not outputs.is_ours(path, "product"):
        return None
    there = Dataset(path).facts.ut_datetime
    if there == frame.descriptors.ut_datetime:
        return None
    return f"of the exposure of {there:%Y-%m-%d %H:%M:%S}" if there else "of an exposure of no known time"


def write(
    stem: Path,
    product: Product,
    inputs: Sequence[Source],
    calibrations: Sequence[Source] = (),
    *,
    time_stamp: str,
    name: str = "",
    cards: Mapping[str, Any] | None = None,
    notes: Sequence[str] = (),
    preview: bool = True,
    number: int = 0,
    overwrite: bool = False,
    measures: Mapping[str, Sequence[Any]] | None = None,
) -> Written:
    """Write STEM.fits, flushed and verified, and STEM.png; a product that lay there before is replaced.

    time_stamp : ISO, the end of the latest input: the only time inside a product
    name : what the product is called, where the file is called otherwise for a while
    cards : more for the primary header; notes : of the caller, put before those of the recipe
    number : which of the product's frames, where a recipe ends before a stack
    measures : {name: (value, error or None, unit)}, for the table MEASURES
    overwrite : replace also a file that nirid did not make, but no input, raw frame or database
    Nothing half written is ever at the names. Raises OSError; WouldOverwrite, and then nothing was written;
    DamagedFile when the file does not read back.
    """
    frame = finished(product, number).evolve(name=f"{name or stem.name}.fits")
    notes = tuple(dict.fromkeys(ascii_name(text) for text in (*notes, *product.notes)))
    for note in notes:
        frame = frame.evolve(history=note)
    fits, png = stem.with_name(f"{stem.name}.fits"), stem.with_name(f"{stem.name}.png")
    taken = [source.path for source in (*inputs, *calibrations)]
    outputs.check(fits, "product", inputs=taken, overwrite=overwrite)
    if preview:
        outputs.check(png, "picture", inputs=taken, overwrite=overwrite)
    history = [(record.step, record.parameters, version()) for record in product.history]
    stem.parent.mkdir(parents=True, exist_ok=True)
    sources = _provenance([*inputs, *calibrations])
    shown = png if preview else None
    sha = _write(fits, frame, sources, history, time_stamp, cards, shown, notes, measures)
    return Written(fits, png if preview else None, sha, frame)


def _write(
    path: Path,
    frame: Frame,
    provenance: Any,
    history: Any,
    stamp: str,
    cards: Any = None,
    png: Path | None = None,
    notes: Sequence[str] = (),
    measures: Mapping[str, Sequence[Any]] | None = None,
) -> str:
    """Write under a hidden name, verify, rename: a reader sees the old file or the new one.

    png : where its picture goes; when that fails, the old file stays
    """
    with disk.replacing(path, flush=False) as part:  # it is flushed by what writes it

        def written() -> str:
            sha = write_product(
                part,
                frame,
                provenance=provenance,
                history=history,
                time_stamp=stamp,
                cards=cards,
                notes=notes,
                measures=measures,
            )
            verify_product(part, sha)
            return sha

        if not png:
            return written()
        sha, picture = run_both(
            written, lambda: pictures.drawn(frame, job=str((cards or {}).get("JOBKEY", "")))
        )
        disk.write_whole(png, picture)
        return sha


def _provenance(sources: Sequence[Source]) -> list[tuple[str, str, str]]:
    return [(source.name, source.sha256, source.role) for source in sources]


# What Gemini's store primitives stamp, and put at the end of the data label.
_STAMPS = {
    CalKind.DARK: ("PROCDARK", "DARK"),
    CalKind.FLAT: ("PROCFLAT", "FLAT"),
    CalKind.MADE_BPM: ("PROCBPM", "BPM"),
}


def finished(product: Product, number: int = 0) -> Frame:
    """A frame of the product with the cards by which Gemini's tools, and ours, know what it is."""
    frame, recipe = product.frames[number], product.recipe
    science = recipe.suffix in ("_image", "_firstlook")
    if recipe.makes not in _STAMPS and not science:
        return frame
    stamp, word = ("PROCSCI", "IMAGE") if science else _STAMPS[CalKind(recipe.makes or "")]
    label = re.sub(r"(-STACK|_stack)+$", "", frame.descriptors.data_label or frame.root)
    mode = str(frame.header.get("PROCMODE", "sq"))
    cards: dict[str, Any] = {
        "DATALAB": f"{label}-{mode.upper()}-{word}",
        "PROCSVER": (version().split()[-1], "Version of the processing software"),
    }
    if science:
        cards[stamp] = (mode, "Processed science, in this mode")
    return frame.stamped(stamp, cards=cards)


@cache
def version() -> str:
    """This release, as provenance has it."""
    from importlib import metadata

    return f"nirid {metadata.version('nirid')}"
