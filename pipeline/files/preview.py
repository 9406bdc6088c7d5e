"""Pictures of products: a PNG beside every one, and the raw frame beside the stack for the README.

    write_preview(path, frame)                      # stretch by kind, caption strip below
    raw_beside_stack(raw_path, product_path, path)

North is not turned up: row 0 is at the bottom, as every FITS viewer has it. The same frame gives the
same bytes (of one release of Pillow, for the caption). Pillow is imported only when a picture is made.
"""

from __future__ import annotations

import struct
import zlib
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from pipeline.files.disk import write_whole
from pipeline.files.outputs import PICTURE_MARK
from pipeline.files.structure import Path
from pipeline.frame import NO_DATA, FloatImage, Frame
from pipeline.names import bare

if TYPE_CHECKING:
    from PIL.Image import Image

Grey = npt.NDArray[np.uint8]

EMPTY = 20  # grey of pixels without data
STRIP = 26  # height of the caption in pixels
PANEL = 640  # height of a panel of the README's picture
_STEPS = 4096  # of the stretch


def write_preview(path: Path, frame: Frame, *, caption: str = "") -> None:
    """Write the picture of a product at full size.

    path : written through a new file beside it, so that a half-written picture is never seen
    caption : replaces the one made from the header
    """
    write_whole(path, drawn(frame, caption=caption))


def drawn(frame: Frame, *, caption: str = "") -> bytes:
    """The picture, as PNG."""
    return _png(np.asarray(_captioned(_grey(frame), caption or caption_of(frame))))


def raw_beside_stack(raw_path: Path, product_path: Path, path: Path) -> None:
    """One raw frame on the left, the stack made from it and others on the right, at one height."""
    from PIL import Image

    from pipeline.files.read import read_frame

    frames = [read_frame(raw_path), read_frame(product_path)]
    titles = ["as the detector saw it", "as nirid made it"]
    panels = []
    for frame, title in zip(frames, titles, strict=True):
        picture = Image.fromarray(_grey(frame))
        scale = PANEL / picture.height
        size = (max(1, round(picture.width * scale)), PANEL)
        panels.append(
            _captioned(np.asarray(picture.resize(size, Image.Resampling.BOX)), f"{title}: {frame.name}")
        )
    both = Image.new("L", (panels[0].width + 8 + panels[1].width, PANEL + STRIP), 255)
    both.paste(panels[0], (0, 0))
    both.paste(panels[1], (panels[0].width + 8, 0))
    write_whole(path, _png(np.asarray(both)))


def kind_of(frame: Frame) -> str:
    """ "bpm", "dark", "flat", or "image" for everything else."""
    header = frame.header
    if "BPMASK" in header or "PROCBPM" in header:
        return "bpm"
    kind = str(header.get("OBSTYPE", "")).strip().lower()
    return kind if kind in ("dark", "flat") else "image"


def caption_of(frame: Frame) -> str:
    """Name, object, filter, number of frames and seeing, as far as the header has them."""
    facts, header = frame.descriptors, frame.header
    parts = [bare(frame.name)]
    if kind_of(frame) == "image":
        parts += [facts.object or "", facts.filter_pretty]
    elif kind_of(frame) != "dark":
        parts.append(facts.filter_pretty)
    if facts.exposure_time:
        parts.append(f"{facts.exposure_time:.3g} s")
    if isinstance(count := header.get("NCOMBINE"), int):
        parts.append(f"{count} frames")
    if isinstance(fwhm := header.get("MEANFWHM"), int | float):
        parts.append(f'FWHM {fwhm:.2f}"')
    if why := str(header.get("VREASON", "")).strip():  # of a first look: somebody may be watching
        parts.append(why)
    if str(header.get("PROCMODE", "sq")) != "sq":
        missing = [word for key, word in (("DARKIM", "dark"), ("FLATIM", "flat")) if key not in header]
        parts.append("quick look" + (f" without {' and '.join(missing)}" if missing else ""))
    if kind_of(frame) == "bpm":
        parts.append(f"{int(np.count_nonzero(frame.dq))} bad pixels")
    return "   ".join(part for part in parts if part)


# ---------------------------------------------------------------------------------------- stretch


def _grey(frame: Frame) -> Grey:
    """(ny, nx) uint8, first row at the top."""
    kind = kind_of(frame)
    if kind == "bpm":
        return np.where(frame.dq[::-1] != 0, 255, EMPTY).astype(np.uint8)
    low, high, softening = _limits(frame, kind)
    steps = np.linspace(0.0, 1.0, _STEPS)
    if softening:
        steps = np.arcsinh(steps / softening) / np.arcsinh(1.0 / softening)
    levels = np.rint(EMPTY + steps * (255 - EMPTY)).astype(np.uint8)
    index = (frame.sci - np.float32(low)) * np.float32((_STEPS - 1) / (high - low))
    grey = levels.take(np.clip(index, 0, _STEPS - 1, out=index).astype(np.intp))
    grey[(frame.dq & NO_DATA) != 0] = EMPTY
    return np.ascontiguousarray(grey[::-1])


def _limits(frame: Frame, kind: str) -> tuple[float, float, float]:
    """(black, white, softening of the asinh or 0 for a linear stretch) from every seventh good pixel."""
    flat = slice(None, None, 7)
    values = frame.sci.ravel()[flat][frame.dq.ravel()[flat] == 0]
    if values.size < 16:
        values = frame.sci.ravel()
    if kind in ("dark", "flat"):
        low, high = np.percentile(values, (0.5, 99.5))
        return (*_spread(float(low), float(high)), 0.0)
    low, sky, high = np.percentile(values, (2.0, 50.0, 99.8))
    sigma = max(_sigma(values, float(sky)), 1e-6)
    black, white = _spread(float(sky - 2.5 * sigma), max(float(high), float(sky + 12 * sigma)))
    return black, white, min(1.0, 4.0 * sigma / (white - black))


def _sigma(values: FloatImage, centre: float) -> float:
    """Noise from the lower half, where there are no sources: 1.4826 x the median distance below."""
    below = values[values < centre]
    return 1.4826 * float(np.median(centre - below)) if below.size else 0.0


def _spread(low: float, high: float) -> tuple[float, float]:
    return (low, high) if high > low else (low - 0.5, low + 0.5)


# ---------------------------------------------------------------------------------------- drawing


def _captioned(grey: Grey, caption: str) -> Image:
    from PIL import Image, ImageDraw, ImageFont

    height, width = grey.shape
    picture = Image.new("L", (width, height + STRIP), 0)
    picture.paste(Image.fromarray(grey), (0, 0))
    font: Any = ImageFont.load_default()
    for size in range(15, 7, -1):  # as large as fits
        font = ImageFont.load_default(size)
        if font.getlength(caption) <= width - 12:
            break
    drawing = ImageDraw.Draw(picture)
    drawing.text((6, height + STRIP // 2), caption, fill=230, font=font, anchor="lm")
    return picture


def _png(grey: Grey) -> bytes:
    """A grey picture as PNG: each pixel less the one before it, compressed by run lengths and Huffman codes.

    Pillow tries five filters on every row, for three times as long: of noise nothing more can be saved.
    """
    rows = np.ones((grey.shape[0], grey.shape[1] + 1), np.uint8)  # a row begins with the filter's number
    rows[:, 1] = grey[:, 0]
    np.subtract(grey[:, 1:], grey[:, :-1], out=rows[:, 2:])
    packer = zlib.compressobj(1, strategy=zlib.Z_RLE)
    shape = struct.pack(">IIBBBBB", grey.shape[1], grey.shape[0], 8, 0, 0, 0, 0)  # 8 bits, grey
    chunks = (
        (b"IHDR", shape),
        (b"tEXt", PICTURE_MARK),
        (b"IDAT", packer.compress(rows.data) + packer.flush()),
        (b"IEND", b""),
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in chunks
    )
