"""The pixels of a loaded FITS file: converted in one copy; values that mean "no value" are recognised.

A pixel without a value is spelled in many ways: NaN and infinity in float images, the BLANK of a header in
integer images (FITS standard 4.0, section 4.4.2.5), and the same numbers once other software has turned
integers into floats; +-1e30 and +-3e38 are used as well. All of them are known here, before any arithmetic.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Sequence
from threading import Lock
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.errors import DamagedFile, RefusedFile
from pipeline.files.structure import Hdu, Path, load
from pipeline.frame import BoolImage, FloatImage, MaskImage
from pipeline.headers.values import number

KINDS = {8: "u1", 16: "i2", 32: "i4", 64: "i8", -32: "f4", -64: "f8"}

# No pixel holds as much: a NIRI pixel is full at 2e5 counts, and 1000 coadds of that are a tenth. The limit
# lies just below 2**31, so that the lowest and the highest 32-bit integer are none either, as floats or not.
MOST_COUNTS = 2.147e9
LOWEST_16 = -32768  # of 16-bit integers, the usual BLANK of theirs; exactly this is no count of a pixel
MOST_VARIANCE = 1e29
MASK_BITS = 16

_alone = Lock()  # one thread at a time decompresses: the filters of warnings are shared by all threads


class Pixels:
    """Image data of a loaded file, by HDU number."""

    def __init__(self, path: Path, hdus: list[Hdu], data: memoryview) -> None:
        self._path, self._hdus, self._data = path, hdus, data

    def stored(self, index: int) -> npt.NDArray[Any]:
        """As in the file, without scaling; tiles decompressed."""
        hdu = self._hdus[index]
        if hdu.tiled:
            return self._decompressed(index)
        flat = np.frombuffer(
            self._data, f">{KINDS[hdu.bitpix]}", count=hdu.length * 8 // abs(hdu.bitpix), offset=hdu.offset
        )
        return flat.reshape(hdu.shape)

    def values(self, index: int) -> tuple[FloatImage, BoolImage | None]:
        """Pixels as native float32, and which of them have no value (these are 0); None when all have one."""
        stored = self.stored(index)
        image = self._scaled(stored, index)
        void = self._blank(stored, index)
        # Two reductions tell whether there is anything to look for: NaN goes through both.
        if not (image.min() > LOWEST_16 and image.max() < MOST_COUNTS):
            beyond = ~(np.abs(image) < MOST_COUNTS) | (image == LOWEST_16)
            void = beyond if void is None else void | beyond
        if void is not None:
            image[void] = 0.0
        return image, void

    def variances(self, index: int) -> tuple[FloatImage, BoolImage | None]:
        """The same of a variance, which cannot be negative either."""
        stored = self.stored(index)
        image = self._scaled(stored, index)
        void = self._blank(stored, index)
        if not (image.min() >= 0 and image.max() < MOST_VARIANCE):
            beyond = ~((image >= 0) & (image < MOST_VARIANCE))
            void = beyond if void is None else void | beyond
        if void is not None:
            image[void] = 0.0
        return image, void

    def masks(self, index: int) -> MaskImage:
        """Integers as uint16, whatever they are stored as; never as true and false.

        Raises RefusedFile, with how many there are, for values that are no 16 bits.
        """
        stored, (scale, zero) = self.stored(index), self._scaling(index)
        if stored.dtype.kind == "u" and (scale, zero) == (1.0, 0.0):
            return stored.astype(np.uint16)
        if stored.dtype.itemsize == 2 and (scale, zero) == (1.0, 32768.0):  # uint16, as FITS has it
            return (stored.astype(np.int32) + np.int32(32768)).astype(np.uint16)
        whole = stored.dtype.kind != "f" and scale == 1.0 and zero == int(zero)
        values = stored.astype(np.int64) + int(zero) if whole else stored * scale + zero
        # A value that is no number compares as false, so that it is no mask either.
        sound = (values >= 0) & (values < 2**MASK_BITS)
        if values.dtype.kind == "f":
            sound &= values == np.floor(values)
        if not sound.all():
            bad = values[~sound]
            raise RefusedFile(
                f"{os.fspath(self._path)}: {bad.size} values of a mask are no {MASK_BITS} bits, such as "
                f"{float(bad.flat[0])!r}"
            )
        return values.astype(np.uint16)

    def _scaled(self, stored: npt.NDArray[Any], index: int) -> FloatImage:
        scale, zero = self._scaling(index)
        with np.errstate(over="ignore", invalid="ignore"):  # what is too large is no value, as infinity is
            if (scale, zero) == (1.0, 0.0):
                return stored.astype(np.float32)
            return (stored * scale + zero).astype(np.float32)

    def _blank(self, stored: npt.NDArray[Any], index: int) -> BoolImage | None:
        """Pixels that hold the BLANK of the header; None without any.

        In a float image the standard has no such card; where it is there, it was left from integers.
        """
        # In the primary header of an image extension it is out of place, and says the same.
        holders = {index} if self._hdus[0].shape else {0, index}
        blanks = {number(self._hdus[i].cards, key) for i in holders for key in ("BLANK", "ZBLANK")} - {None}
        void = None
        for blank in blanks:
            held: BoolImage = stored == blank
            if stored.dtype.kind == "f":  # other software has turned stored or true numbers into floats
                held |= stored == np.float32(blank or 0.0)
            if held.any():
                void = held if void is None else void | held
        return void

    def _scaling(self, index: int) -> tuple[float, float]:
        cards = self._hdus[index].cards
        found = {"BSCALE": 1.0, "BZERO": 0.0}
        for key in found:
            if cards.get(key) is not None:
                value = number(cards, key)
                if value is None or (key == "BSCALE" and value == 0.0):
                    raise DamagedFile(f"{os.fspath(self._path)}: {key} is {cards[key]!r}, wanted a number")
                found[key] = value
        return found["BSCALE"], found["BZERO"]

    def _decompressed(self, index: int) -> npt.NDArray[Any]:
        """By astropy; `structure` has held the sizes that the header claims to its limits."""
        with _alone, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                with self._opened() as file:
                    pixels = np.asarray(file[index].data)
            except OSError:
                raise
            except Exception as error:
                raise DamagedFile(f"{os.fspath(self._path)}: cannot be decompressed: {error}") from None
        if pixels.shape != self._hdus[index].shape:
            raise DamagedFile(f"{os.fspath(self._path)}: decompresses to {pixels.shape} pixels")
        return pixels

    def _opened(self) -> Any:
        from astropy.io import fits

        return fits.open(self._path, memmap=False, do_not_scale_image_data=True)


# --- the planes of a file ---------------------------------------------------------------------------------
def planes_of(hdus: Sequence[Hdu]) -> dict[str, int]:
    """EXTNAME -> HDU number of the first image of that name; "" is the first image without a known name."""
    known = ("SCI", "VAR", "DQ", "COVERAGE", "OBJMASK")
    planes: dict[str, int] = {}
    for index, hdu in enumerate(hdus):
        if hdu.is_image:
            planes.setdefault(hdu.name if hdu.name in known else "", index)
    if "" in planes and "SCI" not in planes:
        planes["SCI"] = planes[""]
    return planes


def same_size(path: Path, hdus: Sequence[Hdu], indices: Iterable[int]) -> None:
    """Raises RefusedFile for planes of one file that do not belong to one image."""
    sizes = {hdus[i].shape: hdus[i].name or "the image" for i in indices}
    if len(sizes) > 1:
        told = ", ".join(f"{name} has {nx}x{ny} pixels" for (ny, nx), name in sizes.items())
        raise RefusedFile(f"{os.fspath(path)}: {told}")


def mask_of(path: Path, hdus: list[Hdu], data: memoryview) -> MaskImage:
    """The values of a mask, of all images in its file together. Raises RefusedFile for what is none."""
    held = dict.fromkeys(i for key, i in planes_of(hdus).items() if key in ("SCI", "DQ", ""))
    if not held:
        raise RefusedFile(f"{os.fspath(path)}: has no image")
    same_size(path, hdus, held)
    mask, *others = (Pixels(path, hdus, data).masks(index) for index in held)
    for other in others:
        mask |= other
    return mask


def check_planes(path: Path, *, is_mask: bool, follow: bool = True) -> None:
    """Whether a calibration is one, by its pixels. Raises RefusedFile with the reason."""
    hdus, data = load(path, follow=follow)
    if is_mask:
        mask_of(path, hdus, data)
        return
    planes = {name: index for name, index in planes_of(hdus).items() if name}
    same_size(path, hdus, planes.values())
    if planes.get("DQ", planes.get("SCI")) != planes.get("SCI"):
        Pixels(path, hdus, data).masks(planes["DQ"])
