"""Pictures of products: a PNG beside every one, and the raw frame beside the stack for the README.

    write_preview(path, frame)                      # stretch by kind, strip with words, compass, scale below
    with_flags(frame)                               # the same with DQ in colour
    raw_beside_stack(raw_path, product_path, path)

North is not turned up: row 0 is at the bottom, as every FITS viewer has it. The same frame gives the
same bytes (of one release of Pillow, for the caption). Pillow is imported only when a picture is made.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from pipeline.files import legend, thumbnails
from pipeline.files.disk import write_whole
from pipeline.files.outputs import PICTURE_MARK
from pipeline.files.stretch import DIMMED, EMPTY, Stretch, between, fixed_scale
from pipeline.files.structure import Path
from pipeline.frame import FLAGS, NO_DATA, FloatImage, Frame
from pipeline.headers.tangent import Tangent
from pipeline.names import bare
from pipeline.verdict import LEFT_OUT

if TYPE_CHECKING:
    from PIL.Image import Image

Grey = npt.NDArray[np.uint8]

PANEL = 640  # height of a panel of the README's picture
COLOURS = {
    "red": (230, 40, 40), "orange": (240, 150, 30), "yellow": (250, 240, 60), "magenta": (230, 60, 230),
    "blue": (50, 70, 200), "green": (60, 200, 90), "cyan": (60, 200, 230),
}  # fmt: skip
# Of two bits on one pixel the later is seen.
COLOUR_OF = ("blue", "cyan", "green", "red", "orange", "magenta", "yellow")
COLOURED = tuple((int(bit), words, colour) for (bit, words), colour in zip(FLAGS, COLOUR_OF, strict=True))


def write_preview(path: Path, frame: Frame, *, so_far: int = 0, job: str = "") -> None:
    """Write the picture of a product at full size.

    path : written through a new file beside it, so that a half-written picture is never seen
    """
    write_whole(path, drawn(frame, so_far=so_far, job=job))


def drawn(frame: Frame, *, so_far: int = 0, job: str = "") -> bytes:
    """The picture, as PNG.

    so_far : of a running stack, the frames of its sequence that have landed
    job : JOBKEY of the product, where its header is not yet written
    """
    automatic, fixed = stretches_of(frame)
    grey = _grey(frame, automatic)
    if words := band_of(frame):
        grey = legend.banded(grey, words)
    dimmed = DIMMED if _left_out(frame) else 1
    table = between(automatic, fixed, dimmed) if automatic and fixed else None
    told = about(frame, automatic, fixed)
    if job := job or str(frame.header.get("JOBKEY", "")):
        told["job"] = job
    small = tuple(thumbnails.small_copies(grey, told, table))
    return _png(np.asarray(_captioned(grey, caption_of(frame, so_far=so_far), _sky_of(frame))), small)


def about(frame: Frame, automatic: Stretch | None, fixed: Stretch | None) -> dict[str, Any]:
    """What is kept with the picture: where it lies on the sky, and how its greys become values again.

    shape (ny, nx); unit; dimmed : what its greys are divided by
    automatic, fixed : [black, white, softening] of the two scales (`stretch`), where it has them
    job : JOBKEY of its product, so that nobody takes it for the picture of another version
    """
    told: dict[str, Any] = {
        **sky_of(frame),
        "shape": list(frame.shape),
        "unit": frame.unit,
        "dimmed": DIMMED if _left_out(frame) else 1,
    }
    for name, scale in (("automatic", automatic), ("fixed", fixed)):
        if scale is not None:
            told[name] = scale.plain()
    return told


def sky_of(frame: Frame) -> dict[str, Any]:
    """Where the picture lies on the sky; {} of what has no coordinates.

    scale : arcsec per pixel; north, east : unit vectors in the picture (x to the right, y down)
    crpix (from 1, FITS), crval (degrees), cd (degrees per pixel)
    """
    found = _sky_of(frame)
    if found is None or not found.pixel_scale:
        return {}
    inverse = np.linalg.inv(found.cd)
    arrows = {}
    for name, way in (("north", inverse[:, 1]), ("east", inverse[:, 0])):
        x, y = way / np.hypot(*way)
        arrows[name] = [round(float(x), 4), round(-float(y), 4)]
    return {
        "scale": round(found.pixel_scale, 5),
        **arrows,
        "crpix": [float(v) + 1 for v in found.crpix],
        "crval": [float(v) for v in np.degrees(found.crval)],
        "cd": [[float(v) for v in row] for row in np.degrees(found.cd)],
    }


def with_flags(frame: Frame) -> bytes:
    """The same picture with what DQ says in colour over it, as PNG, and what each colour means below."""
    from io import BytesIO

    from PIL import Image

    here = [(bit, name, colour) for bit, name, colour in COLOURED if (frame.dq & np.uint16(bit)).any()]
    parts = [*caption_of(frame), *(f"{name}: {colour}" for _, name, colour in here)]
    colours = np.repeat(_grey(frame)[:, :, None], 3, axis=2)
    for bit, _, colour in here:
        colours[(frame.dq[::-1] & np.uint16(bit)) != 0] = COLOURS[colour]
    strip = np.asarray(_captioned(colours[:, :, 0], parts, _sky_of(frame)))[frame.shape[0] :]
    whole = np.concatenate([colours, np.repeat(strip[:, :, None], 3, axis=2)])
    out = BytesIO()
    Image.fromarray(whole).save(out, "PNG", pnginfo=_mark())
    return out.getvalue()


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
            _captioned(
                np.asarray(picture.resize(size, Image.Resampling.BOX)), [f"{title}: {frame.name}"], None
            )
        )
    height = max(panel.height for panel in panels)
    both = Image.new("L", (panels[0].width + 8 + panels[1].width, height), 255)
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


def caption_of(frame: Frame, *, so_far: int = 0) -> list[str]:
    """What the strip says, in parts: file, object, filter, frames, exposure, seeing, zero point, as far as
    the header has them."""
    facts, header, kind = frame.descriptors, frame.header, kind_of(frame)
    parts = [f"{bare(frame.name)}.fits"]
    if kind == "image":
        parts += [facts.object or "", facts.filter_pretty]
    elif kind != "dark":
        parts.append(facts.filter_pretty)
    count = header.get("NCOMBINE")
    frames = count if isinstance(count, int) else 1
    each = f"{facts.exposure_time:.3g} s" if facts.exposure_time else ""
    if so_far:
        parts += [f"{frames} of {so_far} frames so far", each]
    elif isinstance(count, int):
        parts.append(f"{count} frames of {each}" if each else f"{count} frames")
    else:
        parts += ["single frame" if kind == "image" else "", each]
    for key, error, text in (
        ("MEANFWHM", "MFWHMERR", 'FWHM {:.2f}"'),
        ("MAGZPT", "MAGZERR", "zero point {:.2f}"),
    ):
        if isinstance(value := header.get(key), int | float):
            told = text.format(value)
            around = header.get(error)
            parts.append(f"{told} +- {around:.2f}" if key == "MAGZPT" and isinstance(around, float) else told)
    if isinstance(light := header.get("TRANSP"), int | float) and not isinstance(count, int):
        parts.append(f"stars at {100 * light:.0f} % of earlier frames")
    if str(header.get("PROCMODE", "sq")) != "sq":
        missing = [word for key, word in (("DARKIM", "dark"), ("FLATIM", "flat")) if key not in header]
        parts.append("quick look" + (f" without {' and '.join(missing)}" if missing else ""))
    if kind == "bpm":
        parts.append(f"{int(np.count_nonzero(frame.dq))} bad pixels")
    return [part for part in parts if part]


def band_of(frame: Frame) -> str:
    """What stands across the picture of a single frame that is odd; "" for all others."""
    why = str(frame.header.get("VREASON", "")).strip()
    if not why:
        return ""
    return f"WOULD BE LEFT OUT, {why}" if _left_out(frame) else why.upper()


def _left_out(frame: Frame) -> bool:
    return str(frame.header.get("VERDICT", "")).strip() == LEFT_OUT


# ---------------------------------------------------------------------------------------- stretch


def _grey(frame: Frame, stretch: Stretch | None = None) -> Grey:
    """(ny, nx) uint8, first row at the top."""
    stretch = stretch or stretches_of(frame)[0]
    if stretch is None:
        return np.where(frame.dq[::-1] != 0, 255, EMPTY).astype(np.uint8)
    grey = stretch.greys(frame.sci)
    grey[(frame.dq & NO_DATA) != 0] = EMPTY
    if _left_out(frame):  # it must not look like one that can be used
        grey = (grey // DIMMED).astype(np.uint8)
    return np.ascontiguousarray(grey[::-1])


def stretches_of(frame: Frame) -> tuple[Stretch | None, Stretch | None]:
    """(automatic, fixed) from every seventh good pixel; a mask has neither, and only an image has a sky."""
    kind = kind_of(frame)
    if kind == "bpm":
        return None, None
    flat = slice(None, None, 7)
    values = frame.sci.ravel()[flat][frame.dq.ravel()[flat] == 0]
    if values.size < 16:
        values = frame.sci.ravel()
    if kind in ("dark", "flat"):
        low, high = np.percentile(values, (0.5, 99.5))
        return Stretch(*_spread(float(low), float(high)), 0.0), None
    sky, high = np.percentile(values, (50.0, 99.97))
    sigma = max(_sigma(values, float(sky)), 1e-6)
    white = max(float(high), float(sky + 25 * sigma))
    # Behind a cloud stars are as faint as they are: white is what it would be without.
    light = frame.header.get("TRANSP")
    if isinstance(light, float) and 0.02 < light < 1 and "NCOMBINE" not in frame.header:
        white = float(sky) + (white - float(sky)) / light
    black, white = _spread(float(sky - 2.5 * sigma), white)
    automatic = Stretch(black, white, min(1.0, 4.0 * sigma / (white - black)))
    return automatic, fixed_scale(float(sky), sigma)


def _sigma(values: FloatImage, centre: float) -> float:
    """Noise from the lower half, where there are no sources: 1.4826 x the median distance below."""
    below = values[values < centre]
    return 1.4826 * float(np.median(centre - below)) if below.size else 0.0


def _spread(low: float, high: float) -> tuple[float, float]:
    return (low, high) if high > low else (low - 0.5, low + 0.5)


# ---------------------------------------------------------------------------------------- drawing


def _captioned(grey: Grey, parts: Sequence[str], sky: Tangent | None) -> Image:
    from PIL import Image

    return legend.below(Image.fromarray(grey), parts, sky)


def _sky_of(frame: Frame) -> Tangent | None:
    """Where north is: on images only, since calibrations are taken with the telescope parked."""
    return frame.tangent if kind_of(frame) == "image" else None


def _mark() -> Any:
    from PIL.PngImagePlugin import PngInfo

    key, _, text = PICTURE_MARK.partition(b"\0")
    made = PngInfo()
    made.add_text(key.decode("ascii"), text.decode("ascii"))
    return made


def _png(grey: Grey, more: Sequence[tuple[bytes, bytes]] = ()) -> bytes:
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
        *more,
        (b"IDAT", packer.compress(rows.data) + packer.flush()),
        (b"IEND", b""),
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in chunks
    )
