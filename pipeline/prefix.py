"""The per-frame prefix of a recipe, done once for each frame: what is in the cache is not done again.

    known = Prefix.of(bound, inputs, calibrations, cache)
    product = run_recipe(bound, known.headers, cals, on_step, apply=known.apply)

The frames begin as headers without pixels. Steps that look at headers only are applied to all of them. At
addDQ each frame gets a key: its prepared header, the digest of its raw pixels, the same of the frames
whose saturation it remembers, the steps with their parameters, the calibrations, and our code. A frame
that the cache has goes through the other steps as a header, is noted again for what it was noted for, and
has its pixels at the end. The rest is read and worked on. A product is the same bits either way.

Of a frame that is only remembered by others a trace is enough: its saturated pixels.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits

from pipeline.association import CalKind
from pipeline.fitsio import card_of, read_header
from pipeline.frame import NON_LINEAR, SATURATED, Frame, Frames
from pipeline.framecache import FrameCache
from pipeline.parallel import each
from pipeline.primitive import BoundRecipe, BoundStep, Calibrations, apply_step
from pipeline.produce import ROLES, Source, of_the_frame, read_input
from pipeline.steps.quality import before

PIXEL_ROLES = ROLES.keys() - {CalKind.ZERO_POINT}


@dataclass
class _Work:
    """A frame that comes out of the prefix. done : as it is at the end, but for its notes, when known

    notes : step -> what it noted on this frame
    """

    key: str
    done: Frame | None = None
    notes: dict[str, list[str]] = field(default_factory=dict)


@dataclass
class Prefix:
    """One run of a recipe on raw frames. headers : the inputs without pixels; apply : for `run_recipe`"""

    steps: tuple[BoundStep, ...]
    sources: dict[str, Source]
    calibrations: list[list[str]]
    store: FrameCache
    headers: Frames
    last_only: bool = False
    _work: dict[str, _Work] = field(default_factory=dict)

    @classmethod
    def of(
        cls, bound: BoundRecipe, inputs: Sequence[Source], calibrations: Iterable[Source], store: FrameCache
    ) -> Prefix | None:
        """None where it cannot be: a step of the prefix skipped or shown, an input that is no raw frame.

        calibrations : with their hashes; inputs with the digest of their pixels. Raises as `produce.load`.
        """
        sources = {source.name: source for source in inputs if source.data_sha}
        if not bound.prefix or len(sources) < len(inputs) or any(s.skip or s.write for s in bound.prefix):
            return None
        headers = each(lambda s: of_the_frame(s, partial(read_header, s.path, name=s.name)), sources.values())
        frames = [frame for frame in headers if frame is not None]
        used = sorted([c.role, c.sha256, Path(c.path).name] for c in calibrations if c.role in PIXEL_ROLES)
        if len(frames) < len(inputs):
            return None
        return cls(bound.prefix, sources, used, store, frames, bound.recipe.last_only)

    def apply(self, step: BoundStep, frames: Frames, cals: Calibrations) -> Frames:
        """The frames after a step, in the list given where that can be: their old pixels are let go."""
        of_one = step.step.primitive.each
        if not any(step is own for own in self.steps) or step.step.primitive.headers_only:
            return apply_step(step, frames, cals)
        flagged: dict[str, Frame] = {}
        if of_one is None:
            flagged = self._begin(step, frames, cals)

        def replace(place: int) -> None:
            frame = frames[place]
            work = self._work.get(frame.name)
            if work is None:  # is here to be remembered by others
                return
            if work.done is None:
                made = flagged.pop(frame.name) if of_one is None else of_one(frame, step.params, cals)
                work.notes[step.step.name] = list(made.notes[len(frame.notes) :])
                frames[place] = made
            for text in work.notes.get(step.step.name, ()):
                frames[place] = frames[place].evolve(note=text)
            if step is self.steps[-1]:
                frames[place] = self._end(frames[place], work)

        each(replace, range(len(frames)))
        return frames

    def _begin(self, step: BoundStep, frames: Frames, cals: Calibrations) -> dict[str, Frame]:
        """Look up every frame that will be left at the end; addDQ of those that are not known."""
        left = list(frames)
        for other in self.steps[self.steps.index(step) + 1 :]:
            if other.step.primitive.headers_only:
                left = apply_step(other, left, cals)
        own = {frame.name: self._key(frame, step) for frame in frames}
        earlier = {frame.name: before(frame, frames, step.params) for frame in left}
        rest = [[s.step.name, s.values()] for s in self.steps if s.step.primitive.each]

        def look_up(frame: Frame) -> _Work:
            seen = [own[other.name] for other in earlier[frame.name]]
            # What was taken before the frames that are compared with is not here: they are no one else's.
            compared = self.last_only and frame is not left[-1]
            if not own[frame.name] or not all(seen) or compared:
                return _Work("")
            key = _digest(["calibrated", own[frame.name], seen, rest])
            found = self.store.get(key)
            done = _calibrated(frame, *found) if found else None
            return _Work(key, done, found[0]["notes"]) if found and done is not None else _Work(key)

        self._work = dict(zip((frame.name for frame in left), each(look_up, left), strict=True))
        new = {name for name, work in self._work.items() if work.done is None}
        remembered = {other.name for name in new for other in earlier[name]} - new
        given = each(
            lambda f: self._with_pixels(f) if f.name in new else self._traced(f, own[f.name]),
            [frame for frame in frames if frame.name in new | remembered],
        )
        flagged = {frame.name: frame for frame in apply_step(step, given, cals)}
        for name in new:
            self._keep_trace(flagged[name], own[name])
        for frame in given:
            if frame.name in remembered and frame.sci.strides[0]:  # was read
                self._keep_trace(flagged[frame.name], own[frame.name])
        return flagged

    def _end(self, frame: Frame, work: _Work) -> Frame:
        """The frame at the end of the prefix: put into the cache, or as it came out of it."""
        if work.done is not None:
            return work.done.evolve(notes=frame.notes)
        cards = _cards(frame.header)
        if work.key and cards is not None:
            planes = {"sci": frame.sci, "var": frame.var, "dq": frame.dq}
            there = {name: plane for name, plane in planes.items() if plane is not None}
            data = {"header": cards, "unit": frame.unit, "notes": work.notes}
            self.store.put(work.key, data, there)
        return frame

    def _key(self, frame: Frame, step: BoundStep) -> str:
        """Of what a frame is before the first step that looks at its pixels; "" where no text can say it."""
        cards, pixels = _cards(frame.header), self.sources[frame.name].data_sha
        if cards is None:
            return ""
        first = [step.step.name, step.values(), self.calibrations]
        return _digest([code(), frame.name, pixels, frame.unit, cards, first])

    def _with_pixels(self, frame: Frame) -> Frame:
        raw = read_input(self.sources[frame.name])
        return frame.evolve(sci=raw.sci, dq=raw.dq)

    def _traced(self, frame: Frame, own: str) -> Frame:
        """A frame with nothing but its saturated pixels, if these are known; else with all."""
        found = self.store.get(_digest(["trace", own])) if own else None
        if found is None:
            return self._with_pixels(frame)
        dq = np.zeros(frame.shape, np.uint16)
        try:
            dq.reshape(-1)[found[1]["places"]] = found[1]["bits"]
        except (KeyError, IndexError, TypeError, ValueError):  # an entry that makes no sense is none
            return self._with_pixels(frame)
        return frame.evolve(dq=dq)

    def _keep_trace(self, frame: Frame, own: str) -> None:
        if own:
            bits = frame.dq.reshape(-1) & (SATURATED | NON_LINEAR)
            places = np.flatnonzero(bits).astype(np.int32)
            self.store.put(_digest(["trace", own]), {}, {"places": places, "bits": bits[places]})


def _calibrated(frame: Frame, data: Mapping[str, Any], planes: Mapping[str, Any]) -> Frame | None:
    """The frame as the cache has it; None for an entry that makes no sense."""
    try:
        header = fits.Header([card_of(*card) for card in data["header"]])
        notes, unit = data["notes"], data["unit"]
        if not isinstance(notes, dict) or {"sci", "dq"} - set(planes) or set(planes) - {"sci", "var", "dq"}:
            return None
        if any(plane.shape != frame.shape for plane in planes.values()):
            return None
        return frame.evolve(header=header, unit=str(unit), **planes)
    except (KeyError, TypeError, ValueError):
        return None


def _cards(header: fits.Header) -> list[list[Any]] | None:
    """The header as plain data, from which the very same can be made; None where there is more in it."""
    cards = [[card.keyword, card.value, card.comment] for card in header.cards]
    plain = all(type(value) in (str, int, float, bool) for _, value, _ in cards)
    return cards if plain else None


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, separators=(",", ":")).encode()).hexdigest()


@cache
def code() -> str:
    """Digest of all that turns the same numbers into others: our sources, and what they compute with."""
    digest = hashlib.sha256()
    for source in sorted(Path(__file__).parent.rglob("*.py")):
        digest.update(source.read_bytes())
    for package in ("numpy", "numba", "astropy"):
        digest.update(metadata.version(package).encode())
    return digest.hexdigest()
