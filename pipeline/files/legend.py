"""What is written on a picture: the strip below it, with compass and scale bar; the band across a bad frame.

Compass and bar stand in the strip, so that they hide no pixel. Everything is drawn with Pillow, in grey.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from pipeline.headers.tangent import Tangent

if TYPE_CHECKING:
    from PIL.Image import Image

Grey = npt.NDArray[np.uint8]

LINE, MARGIN = 19, 7  # pixels: of a line of text, around the text
FONT, SMALLEST = 14, 10
COMPASS = 64  # side of the square that the compass stands in
BARS = (1, 2, 5, 10, 20, 30, 60)  # arcsec that a scale bar may be long
LONGEST = 130  # pixels of a scale bar
INK, PALE = 230, 150


def below(picture: Image, parts: Sequence[str], tangent: Tangent | None) -> Image:
    """The picture on top of its strip.

    parts : of the caption, whole on one line each where they fit; the strip grows with them
    tangent : tells where north is and how large a pixel; None draws neither
    """
    from PIL import Image as images
    from PIL import ImageDraw

    marks = COMPASS + LONGEST + 3 * MARGIN if tangent is not None and picture.width >= 400 else 0
    lines, font = _lines(parts, picture.width - marks - 2 * MARGIN)
    height = max(len(lines) * LINE + MARGIN, COMPASS + 4 if marks else 0)
    whole = images.new("L", (picture.width, picture.height + height), 0)
    whole.paste(picture, (0, 0))
    drawing = ImageDraw.Draw(whole)
    top = picture.height + (height - len(lines) * LINE) // 2 + LINE // 2
    for number, line in enumerate(lines):
        ink = INK if number == 0 else 200
        drawing.text((MARGIN, top + number * LINE), line, fill=ink, font=font, anchor="lm")
    if marks and tangent is not None:
        middle = picture.height + height // 2
        _compass(drawing, (picture.width - COMPASS // 2 - 2, middle), tangent)
        _bar(drawing, picture.width - COMPASS - MARGIN, middle, tangent.pixel_scale)
    return whole


def _lines(parts: Sequence[str], width: int) -> tuple[list[str], Any]:
    """The parts packed into lines of this width, and their font: smaller only where one part needs it."""
    from PIL import ImageFont

    for size in range(FONT, SMALLEST - 1, -1):
        font: Any = ImageFont.load_default(size)
        if all(font.getlength(part) <= width for part in parts):
            break
    lines: list[str] = []
    for part in parts:
        longer = f"{lines[-1]}   {part}" if lines else part
        if lines and font.getlength(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(part)
    return lines, font


def _compass(drawing: Any, centre: tuple[int, int], tangent: Tangent) -> None:
    """Arrows to north and east. Rows count upwards in the image, downwards in the picture."""
    from PIL import ImageFont

    font: Any = ImageFont.load_default(12)
    ends = {}
    for name, sky in (("N", (0.0, 1.0)), ("E", (1.0, 0.0))):
        x, y = np.linalg.solve(tangent.cd, np.array(sky))
        length = math.hypot(x, y) or 1.0
        ends[name] = (x / length, -y / length)
    # The middle of both arrows stands in the middle of the square.
    middle = [sum(end[i] for end in ends.values()) / 2 for i in (0, 1)]
    reach = COMPASS * 0.7
    origin = [c - m * reach for c, m in zip(centre, middle, strict=True)]
    for name, (x, y) in ends.items():
        tip = origin[0] + x * reach * 0.72, origin[1] + y * reach * 0.72
        drawing.line([tuple(origin), tip], fill=INK, width=2)
        for turn in (2.6, -2.6):
            cos, sin = math.cos(turn), math.sin(turn)
            barb = tip[0] + 7 * (x * cos - y * sin), tip[1] + 7 * (x * sin + y * cos)
            drawing.line([tip, barb], fill=INK, width=2)
        drawing.text(
            (origin[0] + x * reach, origin[1] + y * reach),
            name,
            fill=INK,
            font=font,
            anchor="mm",
        )


def bar_length(pixel_scale: float) -> tuple[int, float]:
    """(arcsec, pixels) of the longest bar that is not longer than LONGEST."""
    fit = [bar for bar in BARS if bar / pixel_scale <= LONGEST] or [BARS[0]]
    return fit[-1], fit[-1] / pixel_scale


def _bar(drawing: Any, right: int, middle: int, pixel_scale: float) -> None:
    from PIL import ImageFont

    arcsec, length = bar_length(pixel_scale)
    left, y = round(right - length), middle + 8
    drawing.line([(left, y), (right, y)], fill=INK, width=2)
    for x in (left, right):
        drawing.line([(x, y - 5), (x, y + 5)], fill=INK, width=2)
    font: Any = ImageFont.load_default(12)
    drawing.text(((left + right) / 2, y - 14), f'{arcsec}"', fill=INK, font=font, anchor="mm")


def banded(grey: Grey, words: str) -> Grey:
    """A light band with dark words across the top, for a frame that nobody may take for a good one."""
    from PIL import Image as images
    from PIL import ImageDraw, ImageFont

    height, width = grey.shape
    font: Any = ImageFont.load_default(SMALLEST)
    for size in range(max(SMALLEST, width // 18), SMALLEST - 1, -1):
        font = ImageFont.load_default(size)
        if font.getlength(words) <= width - 4 * MARGIN:
            break
    picture = images.fromarray(grey)
    drawing = ImageDraw.Draw(picture)
    band = min(height, round(font.size * 1.7))
    drawing.rectangle([(0, 0), (width, band)], fill=255)
    drawing.text((width // 2, band // 2), words, fill=0, font=font, anchor="mm")
    return np.asarray(picture)
