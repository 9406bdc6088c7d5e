"""What is given to be reduced is looked at, every file of it, before a pixel is read.

    frames, notes = open_all(files)              # readable, of NIRI
    frames = raw_only(frames)                    # without the products that lie among them
    check_kinds(recipe, frames)                  # of one kind
    frames, notes = once_each(frames)            # no exposure twice

All raise errors that name the file.
"""

from __future__ import annotations

import hashlib
import os
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from pipeline import logutils
from pipeline.errors import FrameMismatch, NiridError
from pipeline.files.read import read_frame
from pipeline.names import canonical_first, told_apart
from pipeline.primitive import Recipe
from pipeline.toolkit.dataset import CannotOpen, Dataset


class ReduceError(NiridError):
    """A reduction that cannot start: no files, two instruments, no such recipe."""


# What a recipe is made of; those that are not here take what a person gives them.
MADE_OF = {
    "makeProcessedDark": ("DARK",),
    "makeProcessedFlat": ("FLAT",),
    "makeProcessedBPM": ("FLAT", "DARK"),
    "reduce": ("IMAGE",),
    "firstLook": ("IMAGE",),
    "ultradeep": ("IMAGE",),
    "makeSkyFlat": ("IMAGE",),
    "alignAndStack": ("IMAGE",),
}
# Descriptors that the frames of one product have in common, by what it is made of. What else must agree
# (exposures of darks, read modes) the steps themselves see to.
ALIKE = {
    ("DARK",): ("shape",),
    ("FLAT",): ("shape", "filter_name", "camera", "focal_plane_mask", "well_depth"),
    ("IMAGE",): ("shape", "filter_name", "camera", "focal_plane_mask", "is_ao"),
    ("FLAT", "DARK"): ("shape", "well_depth"),
}


def open_all(files: Any) -> tuple[list[Dataset], list[str]]:
    """The files that can be read, each once, and a note for each that cannot.

    Raises ReduceError without any, or with another instrument.
    """
    if isinstance(files, str | os.PathLike):
        files = [files]
    files = list(files or ())
    if not files:
        raise ReduceError("no files to reduce")
    opened: dict[str, Dataset] = {}
    problems = []
    for name in files:
        try:
            if not os.fspath(name):
                raise ValueError("it is empty")
            opened.setdefault(os.path.realpath(name), Dataset(name))
        except CannotOpen as error:
            problems.append(str(error))
        except (TypeError, ValueError) as error:  # 5, None; a name with a NUL
            problems.append(f"{name!r} is no file name: {error}")
    if not opened:
        raise ReduceError(f"none of {len(files)} files can be read: {problems[0]}")
    by_instrument = {ad.instrument(): ad for ad in reversed(opened.values())}
    if len(by_instrument) > 1:
        what = " and ".join(f"{name} ({ad.filename})" for name, ad in reversed(by_instrument.items()))
        raise ReduceError(f"files of {len(by_instrument)} instruments: {what}; reduce them apart")
    first = next(iter(opened.values()))
    if "NIRI" not in first.tags:
        raise ReduceError(f"{first.filename} is of {first.instrument()}, and only NIRI is reduced here")
    return list(opened.values()), [f"{problem}; left out" for problem in problems]


def is_raw(ad: Dataset) -> bool:
    """True for a frame as it came from the telescope."""
    return {"RAW", "UNPREPARED"} <= ad.tags and "PROCESSED" not in ad.tags


def raw_only(frames: Sequence[Dataset]) -> list[Dataset]:
    """The raw frames; all, where there is no raw one. What is left out is reported: `*.fits` in a working
    directory also means the products that lie there."""
    raw = [ad for ad in frames if is_raw(ad)]
    if not raw or len(raw) == len(frames):
        return list(frames)
    for ad in frames:
        if not is_raw(ad):
            what = " ".join(sorted(ad.tags & {"PROCESSED", "PREPARED", "BPM", "DARK", "FLAT", "IMAGE"}))
            text = f"{ad.filename} left out: it is no raw frame ({what}), and the others are"
            logutils.get().warning("left_out", text=text)
    return raw


def kind_of(ad: Dataset) -> str:
    """DARK, ARC, SPECT, FLAT, BPM, IMAGE or "other": what a recipe takes a frame for."""
    kinds = ("DARK", "ARC", "SPECT", "FLAT", "BPM", "IMAGE")
    return next((kind for kind in kinds if kind in ad.tags), "other")


def check_kinds(recipe: Recipe, frames: Sequence[Dataset]) -> None:
    """Raises ReduceError, with names, for frames of another kind than the recipe is made of."""
    takes = MADE_OF.get(recipe.name)
    if takes is None:
        return
    wrong = [ad for ad in frames if kind_of(ad) not in takes]
    if wrong:
        raise ReduceError(
            f"{recipe.name} is made of {' and '.join(takes)} frames, and {_some(wrong)} "
            f"{'is' if len(wrong) == 1 else 'are'} {'/'.join(sorted({kind_of(ad) for ad in wrong}))}; "
            "reduce them apart"
        )


def check_alike(recipe: Recipe, frames: Sequence[Dataset]) -> None:
    """Raises FrameMismatch, with names, for frames that differ in what one product must have in common."""
    for name in ALIKE.get(MADE_OF.get(recipe.name, ()), ()):
        usual = getattr(frames[0].facts, name)
        other = [ad for ad in frames if getattr(ad.facts, name) != usual]
        if other:
            raise FrameMismatch(
                f"{_some(other)}: {name} {getattr(other[0].facts, name)}, wanted {usual} as in "
                f"{frames[0].filename}; reduce them apart"
            )


def _some(frames: Sequence[Dataset]) -> str:
    """One name, and how many more there are."""
    more = f" and {len(frames) - 1} more" if len(frames) > 1 else ""
    return f"{frames[0].filename}{more}"


# --- one exposure, however often it is given ----------------------------------------------------------
def once_each(frames: Sequence[Dataset]) -> tuple[list[Dataset], list[str]]:
    """The frames without copies, and a note for each that is left out.

    Two files are of one exposure when their pixels have the same values, however these are stored, and their
    data label or their time is the same as well. The file with Gemini's name stays, else the first by name.
    Pixels are only compared where the headers agree: two exposures never begin at once.
    """
    suspects = _alike_in_header(frames)
    called = dict(zip(map(id, frames), told_apart([ad.path for ad in frames], plain=False), strict=True))
    by_pixels: dict[tuple[int, str], list[Dataset]] = defaultdict(list)
    for number, group in enumerate(suspects):
        for ad in group:
            by_pixels[number, _pixels(ad)].append(ad)
    notes, gone = [], set()
    for same in by_pixels.values():
        kept, *copies = sorted(same, key=lambda ad: (canonical_first(ad.filename), ad.path))
        for ad in copies:
            if id(ad) not in gone:
                gone.add(id(ad))
                notes.append(f"{called[id(ad)]} left out: the same exposure as {called[id(kept)]}")
    return [ad for ad in frames if id(ad) not in gone], notes


def _alike_in_header(frames: Sequence[Dataset]) -> list[list[Dataset]]:
    """Frames that share a data label or a time with another, by what they share."""
    groups: dict[tuple[str, Any], list[Dataset]] = defaultdict(list)
    for ad in frames:
        groups["label", ad.facts.data_label].append(ad)
        groups["time", ad.facts.ut_datetime].append(ad)
    return [group for group in groups.values() if len(group) > 1]


def _pixels(ad: Dataset) -> str:
    """Digest of the values, however they are compressed and of whatever type they are stored."""
    frame = read_frame(ad.path)
    return hashlib.sha256(frame.sci.tobytes() + frame.dq.tobytes()).hexdigest()
