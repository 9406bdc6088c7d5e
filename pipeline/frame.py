"""Frame: one NIRI image with its variance and data quality, the one type that every step passes along."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from copy import copy
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

from pipeline.errors import FrameMismatch
from pipeline.headers.descriptors import Descriptors, describe, describes
from pipeline.headers.merged import wcs_of
from pipeline.headers.tags import Tags, retags, tags_of
from pipeline.headers.tangent import Tangent, tangent
from pipeline.names import root_of
from pipeline.parallel import run_all
from pipeline.quickcards import quick_cards
from pipeline.verdict import Verdict, merged

if TYPE_CHECKING:  # the daemon knows frames by name only, and starts in half the time without it
    from astropy.io import fits
    from astropy.wcs import WCS

T = TypeVar("T")

FloatImage: TypeAlias = npt.NDArray[np.float32]
MaskImage: TypeAlias = npt.NDArray[np.uint16]
BoolImage: TypeAlias = npt.NDArray[np.bool_]
Unit: TypeAlias = Literal["adu", "electron", ""]  # "" is a ratio, as a flat

# Data-quality bits, Gemini's convention; 0 is good. Plain uint16 constants: an IntFlag would turn
# a uint16 mask into int64.
BAD_PIXEL = np.uint16(1)
NON_LINEAR = np.uint16(2)
SATURATED = np.uint16(4)
COSMIC_RAY = np.uint16(8)  # or latency: light that does not belong to this exposure
NO_DATA = np.uint16(16)
OVERLAP = np.uint16(32)
UNILLUMINATED = np.uint16(64)
# What each bit is called where people read it; of two bits on one pixel the later says more.
FLAGS = (
    (NO_DATA, "no data"),
    (UNILLUMINATED, "not illuminated"),
    (OVERLAP, "overlap"),
    (BAD_PIXEL, "bad pixel"),
    (NON_LINEAR, "not linear"),
    (COSMIC_RAY, "cosmic ray or latent light"),
    (SATURATED, "saturated"),
)

_PLANES = ("sci", "var", "dq", "objmask", "coverage")
_DTYPES = {"sci": np.float32, "var": np.float32, "dq": np.uint16, "objmask": np.bool_, "coverage": np.uint16}


Keep: TypeAlias = Callable[[npt.NDArray[Any]], npt.NDArray[Any]]  # the same pixels, where a run keeps them


def in_memory(plane: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The `Keep` of a run whose planes stay where they were made."""
    return plane


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """One NIRI image and everything known about its pixels.

    sci : (ny, nx) float32, in `unit`
    var : (ny, nx) float32, in `unit` squared; None until addVAR has run
    dq  : (ny, nx) uint16, DQ bits, 0 is good
    objmask : (ny, nx) bool, True on detected objects; None until detectSources has run
    coverage : (ny, nx) uint16, frames that contributed to each pixel; stacks only
    catalog : structured array of the sources, one row a source; None until detectSources has run
    members : structured array of the frames that were stacked, one row a frame; stacks only

    Frames are immutable: planes are read-only views, `evolve` makes a new frame that shares every
    plane that it does not replace. A bad pixel is marked in `dq`, never by NaN or a sentinel value.
    """

    sci: FloatImage
    dq: MaskImage
    header: fits.Header
    unit: Unit
    name: str
    var: FloatImage | None = None
    objmask: BoolImage | None = None
    coverage: MaskImage | None = None
    catalog: npt.NDArray[np.void] | None = None
    members: npt.NDArray[np.void] | None = None
    roles: frozenset[str] = frozenset()  # subset of {"object", "sky"}, set by separateSky
    skies: tuple[str, ...] = ()  # names of its sky frames, set by associateSky
    notes: tuple[str, ...] = ()  # what a person should know of how it was made
    verdicts: tuple[Verdict, ...] = ()  # of every frame of its group that is odd, itself among them
    _descriptors: Descriptors | None = field(default=None, repr=False)
    _tangent: Tangent | None = field(default=None, repr=False)
    _tags: Tags | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        for name in _PLANES:
            plane = getattr(self, name)
            if plane is None:
                continue
            if plane.dtype != _DTYPES[name] or plane.shape != self.sci.shape or plane.ndim != 2:
                raise FrameMismatch(
                    f"{self.name}: {name} is {plane.dtype} {plane.shape}, "
                    f"wanted {np.dtype(_DTYPES[name])} {self.sci.shape}"
                )
            if plane.flags.writeable:
                view = plane.view()
                view.flags.writeable = False
                object.__setattr__(self, name, view)

    @property
    def shape(self) -> tuple[int, int]:
        """(ny, nx) pixels."""
        return self.sci.shape[0], self.sci.shape[1]

    @property
    def descriptors(self) -> Descriptors:
        """What the header says, computed once for each header."""
        if self._descriptors is None:
            facts = describe(self.header, shape=self.shape, filename=self.name)
            object.__setattr__(self, "_descriptors", facts)
        assert self._descriptors is not None
        return self._descriptors

    @property
    def tags(self) -> Tags:
        """What kind of frame it is, in Gemini's vocabulary; found once for each header."""
        if self._tags is None:
            object.__setattr__(self, "_tags", tags_of(self.header))
        assert self._tags is not None
        return self._tags

    @property
    def tangent(self) -> Tangent | None:
        """Its world coordinates as plain arithmetic, read once for each header; None without usable ones."""
        if self._tangent is None:
            object.__setattr__(self, "_tangent", tangent(self.header))
        return self._tangent

    @property
    def root(self) -> str:
        """The name without folder, extension and suffix: N20160102S0270."""
        return root_of(self.name)

    def evolve(
        self,
        *,
        cards: Mapping[str, Any] | None = None,
        history: str | None = None,
        note: str | None = None,
        verdicts: tuple[Verdict, ...] = (),
        **changes: Any,
    ) -> Frame:
        """A new frame with these planes or fields replaced.

        cards : header cards to set, value or (value, comment); a value of None removes the card
        history : a HISTORY card to add
        note : something a person should know; kept with the frame and shown with the product
        verdicts : more of them; of two on one frame the stricter is kept
        """
        if "header" in changes or changes.get("sci", self.sci).shape != self.shape or describes(cards or ()):
            changes["_descriptors"] = changes["_tangent"] = None
        if "header" in changes or retags(self.header, cards or {}):
            changes["_tags"] = None
        if cards or history:
            with quick_cards():
                header = _with_cards(changes.get("header", self.header), cards or {})
                if history:
                    header.add_history(history)
            changes["header"] = header
        if note and note not in self.notes:
            changes["notes"] = (*self.notes, note)
        if verdicts:
            changes["verdicts"] = merged(self.verdicts, verdicts)
        return replace(self, **changes)

    def kept(self, keep: Keep) -> Frame:
        """The same frame, its planes where `keep` puts them; itself where that is where they are."""
        moved: dict[str, Any] = {}
        for name in _PLANES:
            plane = getattr(self, name)
            if plane is not None and (there := keep(plane)) is not plane:
                moved[name] = there
        return replace(self, **moved) if moved else self

    def stamped(self, key: str, **changes: Any) -> Frame:
        """`evolve` that also marks the header with a step's keyword (and Gemini's GEM-TLM).

        Gemini stamps wall time there. Products must be the same bits whenever they are made, so the
        stamp is the end of the exposure; when a product was made is in the log and the ledger.
        """
        cards = dict(changes.pop("cards", None) or {})
        cards.setdefault(key, (self.stamp, f"UT time stamp for {key}"))
        cards["GEM-TLM"] = (self.stamp, "UT last modification with GEMINI")
        return self.evolve(cards=cards, **changes)

    @property
    def wcs(self) -> WCS:
        """Celestial coordinates of the pixels."""
        return wcs_of(self.header)

    @property
    def stamp(self) -> str:
        """ISO time of the end of the exposure, the time that steps stamp into the header."""
        end = self.descriptors.ut_end or datetime(1970, 1, 1, tzinfo=UTC)
        return end.replace(tzinfo=None).isoformat(timespec="milliseconds")

    def __sub__(self, other: Frame) -> Frame:
        """self - other: variances add, masks are ORed."""
        from pipeline.algorithms import calibrate

        self._check(other)
        if self.unit != other.unit:
            raise FrameMismatch(f"{self.name} is in {self.unit}, {other.name} in {other.unit}")
        sci, var, dq = calibrate.subtract(self.sci, self.var, self.dq, other.sci, other.var, other.dq)
        return self.evolve(sci=sci, var=var, dq=dq)

    def __truediv__(self, other: Frame) -> Frame:
        """self / other (a flat, without unit): VAR_a/f² + a²·VAR_f/f⁴, masks are ORed."""
        from pipeline.algorithms import calibrate

        self._check(other)
        sci, var, dq = calibrate.divide(self.sci, self.var, self.dq, other.sci, other.var, other.dq)
        return self.evolve(sci=sci, var=var, dq=dq)

    def __mul__(self, factor: float) -> Frame:
        """self times a number without error: VAR times its square."""
        var = None if self.var is None else self.var * np.float32(factor * factor)
        return self.evolve(sci=self.sci * np.float32(factor), var=var)

    def _check(self, other: Frame) -> None:
        if self.shape != other.shape:
            raise FrameMismatch(f"{self.name} has {self.shape} pixels, {other.name} has {other.shape}")


Frames: TypeAlias = list[Frame]


def for_each(function: Callable[[T], Frame], items: Iterable[T], keep: Keep) -> Frames:
    """A frame of each item, several at a time; the planes of each are kept as soon as they are made.

    For every step that gives each of its frames new planes: those of a large group do not fit into memory,
    not even until the step is over.
    """
    return run_all(lambda item: function(item).kept(keep), items)


def _with_cards(header: fits.Header, changes: Mapping[str, Any]) -> fits.Header:
    """The header with these cards set or, where the value is None, removed.

    Cards that stay are shared with the old header: nobody changes a frame's header in place, and
    `header.copy()`, which copies every card, would take a third of the time of a flat.
    """
    from astropy.io import fits

    cards: list[fits.Card | None] = list(header.cards)
    place: dict[str, int] = {}
    for number, keyword in enumerate(header):
        place.setdefault(keyword, number)
    new = {}
    for key, value in changes.items():
        number = place.get(fits.Card.normalize_keyword(key), -1)
        if number < 0:
            new[key] = value
        elif value is None:
            cards[number] = None
        else:
            card = cards[number] = copy(header.cards[number])
            card.value, comment = value if isinstance(value, tuple) else (value, None)
            if comment is not None:
                card.comment = comment
    made = fits.Header([card for card in cards if card is not None])
    for key, value in new.items():
        if value is not None:
            made[key] = value
    return made
