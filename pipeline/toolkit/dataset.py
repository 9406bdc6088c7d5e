"""`pipeline.open(path)`: one file, opened lazily, with tags, descriptors, header and planes.

    ad = pipeline.open("N20160102S0270.fits")
    ad.tags, ad.exposure_time(), ad.filter_name(pretty=True)     # read headers only
    ad.sci, ad.var, ad.dq                                        # read the pixels, once

A NIRI file has one image, so `len(ad)` is 1, and `ad[0]` is that extension: the same thing, but what a
detector has per extension (gain, sections ...) is a value there and a list for the file.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.errors import NiridError
from pipeline.files.structure import FileFacts, read_structure
from pipeline.headers.merged import merge, wcs_of
from pipeline.headers.values import Cards
from pipeline.toolkit.methods import DESCRIPTORS, Described

if TYPE_CHECKING:
    from astropy.io import fits
    from astropy.nddata import CCDData
    from astropy.table import Table
    from astropy.wcs import WCS

    from pipeline.frame import FloatImage, Frame, MaskImage


class CannotOpen(NiridError):
    """A file that was asked for and cannot be read: absent, no FITS file, broken."""


class Dataset(Described):
    """One FITS file. Raises CannotOpen when it is none; of what instrument it is, the tags tell."""

    def __init__(self, path: str | os.PathLike[str] | Dataset) -> None:
        self.path: str = path.path if isinstance(path, Dataset) else os.fspath(path)
        if "\0" in self.path:
            raise CannotOpen(f"{self.path!r} holds a NUL, which no file name does")
        self.filename = os.path.basename(self.path)
        self._file  # noqa: B018  (a file that is none must be found here, not at the first question)

    @cached_property
    def _file(self) -> FileFacts:
        with _named(self.path):
            return read_structure(Path(self.path))

    @cached_property
    def _cards(self) -> Cards:  # type: ignore[override]
        image = self._file.image
        return merge(self._file.phu, {} if image is None else self._file.hdus[image].cards)

    @cached_property
    def _shape(self) -> tuple[int, int] | None:  # type: ignore[override]
        shape = () if self._file.image is None else self._file.hdus[self._file.image].shape
        return (shape[0], shape[1]) if len(shape) == 2 else None

    @cached_property
    def header(self) -> fits.Header:
        """All cards of the frame as one header: the primary's, and those of the image that belong to it."""
        return self._astropy(self._cards)

    @cached_property
    def phu(self) -> fits.Header:
        """The primary header as it is in the file."""
        return self._astropy(self._file.phu)

    @cached_property
    def hdr(self) -> fits.Header:
        """The header of the image extension as it is in the file."""
        return self._astropy({} if self._file.image is None else self._file.hdus[self._file.image].cards)

    def _astropy(self, cards: Cards) -> fits.Header:
        from pipeline.files.read import as_header

        comments = {key: text for hdu in reversed(self._file.hdus) for key, text in hdu.comments.items()}
        return as_header(cards, comments)

    @cached_property
    def frame(self) -> Frame:
        """The frame as the steps of a recipe take it."""
        from pipeline.files.read import read_frame

        with _named(self.path):
            return read_frame(Path(self.path))

    @property
    def sci(self) -> FloatImage:
        """The pixels, (ny, nx) float32, ADU or electrons; read-only."""
        return self.frame.sci

    @property
    def var(self) -> FloatImage | None:
        """Their variance, (ny, nx) float32, in the unit of `sci` squared; None in raw frames."""
        return self.frame.var

    @property
    def dq(self) -> MaskImage:
        """Data quality, (ny, nx) uint16 of bits, 0 is good (all 0 in raw frames)."""
        return self.frame.dq

    data, variance, mask = sci, var, dq  # by the names of Gemini's package

    def to_ccddata(self) -> CCDData:
        """The image as astropy's CCDData: data in its unit (of a mask its bits), variance, `flags` the bits
        of DQ, `mask` True where any is set, world coordinates, header.

        The planes are read-only views. `CCDData.read(path, hdu="SCI", hdu_uncertainty="VAR", hdu_mask="DQ")`
        gives the same of a product, but for the flags. Raises CannotOpen.
        """
        from astropy.nddata import CCDData, VarianceUncertainty

        frame = self.frame
        mask = "BPMASK" in frame.header or "PROCBPM" in frame.header
        variance = None if frame.var is None else VarianceUncertainty(frame.var)
        return CCDData(
            frame.dq if mask else frame.sci, unit="bit" if mask else frame.unit, uncertainty=variance,
            mask=frame.dq != 0, flags=frame.dq, wcs=self.wcs, meta=self.header,
        )  # fmt: skip

    @property
    def nddata(self) -> CCDData:
        """The image as astropy's NDData: what `to_ccddata` gives."""
        return self.to_ccddata()

    def table(self, name: str) -> Table:
        """A table of a product by its name (OBJCAT, FRAMES ...), with units. Raises CannotOpen without it."""
        from astropy.table import Table

        held = [hdu.name for hdu in self._file.hdus[1:] if hdu.name]
        if name not in held:
            there = ", ".join(held) or "no other"
            raise CannotOpen(f"{_shown(self.path)}: has no extension {name}; it has {there}")
        with _named(self.path):
            return Table.read(self.path, hdu=name)

    @property
    def OBJCAT(self) -> Table:
        """The catalogue of an image's sources, as an astropy table."""
        return self.table("OBJCAT")

    @property
    def shape(self) -> tuple[int, int] | None:
        """(ny, nx) pixels, from the header; None without an image."""
        return self._shape

    @cached_property
    def wcs(self) -> WCS:
        """World coordinates of the image."""
        return wcs_of(self._cards)

    @property
    def descriptors(self) -> tuple[str, ...]:
        """The names of all descriptors."""
        return DESCRIPTORS

    def info(self) -> None:
        """Print what the file is and holds."""
        print(f"Filename: {self.path}")
        print(f"Tags: {' '.join(sorted(self.tags)) or 'none'}\n")
        print(f"{'HDU':<5}{'Name':<14}{'Shape':<14}{'Type'}")
        kinds = {8: "uint8", 16: "int16", 32: "int32", 64: "int64", -32: "float32", -64: "float64"}
        for number, hdu in enumerate(self._file.hdus):
            table = hdu.cards.get("XTENSION") == "BINTABLE" and not hdu.tiled
            name = hdu.name or ("PRIMARY" if number == 0 else "")
            shape = f"{hdu.cards.get('NAXIS2')} rows" if table else str(hdu.shape or "")
            kind = "table" if table else kinds[hdu.bitpix] if hdu.shape else ""
            print(f"{number:<5}{name:<14}{shape:<14}{kind}".rstrip())

    def __len__(self) -> int:
        return 0 if self._shape is None else 1

    def __iter__(self) -> Iterator[Extension]:
        return (self[i] for i in range(len(self)))

    def __getitem__(self, number: int) -> Extension:
        if number not in range(-len(self), len(self)):
            raise IndexError(f"{self.filename} has {len(self)} image, counted from 0; there is no {number}")
        return Extension(self)

    def __repr__(self) -> str:
        return f"<{self.filename}: {' '.join(sorted(self.tags))}>"


class Extension(Dataset):
    """The image of a file: as the file, with one value where that has a list."""

    _is_file = False

    def __init__(self, parent: Dataset) -> None:
        self._parent = parent
        super().__init__(parent)

    @property
    def _file(self) -> FileFacts:
        return self._parent._file

    @property
    def frame(self) -> Frame:
        return self._parent.frame  # so that the pixels are read once, whoever asks


@contextmanager
def _named(path: str) -> Iterator[None]:
    """Errors about a file become CannotOpen, with its name."""
    try:
        yield
    except OSError as error:
        raise CannotOpen(f"{_shown(path)}: {(error.strerror or str(error)).lower()}") from error
    except NiridError as error:
        told = str(error).removeprefix(f"{path}: ")  # some name the file themselves
        raise CannotOpen(f"{_shown(path)}: {told}") from error


def _shown(path: str) -> str:
    """A path in one line of a message, whatever it is made of."""
    return path if path.isprintable() else repr(path)
