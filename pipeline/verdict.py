"""What the pipeline finds of a frame before it is used, and what becomes of it.

A verdict is the pipeline's own. A decision of a person and a QA state come before it, and win.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

USED, SCALED, WEIGHTED, LEFT_OUT = "used", "scaled", "weighted", "left out"
_WORSE = (USED, WEIGHTED, SCALED, LEFT_OUT)


@dataclass(frozen=True)
class Verdict:
    """What was found of one frame of a group.

    frame : its name; reason : what is odd, in words, "" where nothing is
    use : as an object, one of USED, SCALED (brought to the transparency of the others), WEIGHTED (counts for
        less) and LEFT_OUT; sky : as a sky for others, USED or LEFT_OUT
    figure, limit : the number that decided, and the limit it was compared with, in the same `unit`
    weight : in the stack, relative to a good frame; of a frame left out 0
    person : the pipeline would have it otherwise, but a person wants the frame used
    cards : of its header, for the row of a frame that is not there any more when FRAMES is written
    """

    frame: str
    use: str = USED
    sky: str = USED
    reason: str = ""
    figure: float = math.nan
    limit: float = math.nan
    unit: str = ""
    weight: float = 1.0
    person: bool = False
    cards: tuple[tuple[str, Any], ...] = ()

    @property
    def text(self) -> str:
        """One line for a person: frame, what becomes of it, figure and limit."""
        what = self.use
        if self.person:
            what = "used, since a person has accepted it"
        elif self.use == USED:
            what = "no sky for others" if self.sky == LEFT_OUT else "used"
        elif self.use in (SCALED, WEIGHTED):
            what += f", weight {self.weight:.2g}"
        known = math.isfinite(self.figure) and math.isfinite(self.limit)
        unit = f" {self.unit}" if self.unit else ""
        figures = f" ({plain(self.figure)}{unit}, limit {plain(self.limit)}{unit})" if known else ""
        return f"{self.frame} {what}: {self.reason}{figures}"


def plain(figure: float) -> str:
    """A figure for a person: four digits, and never 4.867e+04 for 48670 nor -0.0003 electrons for none."""
    if abs(figure) >= 1000:
        return f"{figure:.0f}"
    return f"{round(figure, 3) + 0.0:.4g}" if abs(figure) < 1 else f"{figure:.4g}"


def merged(old: tuple[Verdict, ...], new: tuple[Verdict, ...]) -> tuple[Verdict, ...]:
    """Verdicts of frames, one a frame: of two the stricter, the old one where they are equal; a frame that
    either of them bars as a sky is no sky."""
    found = {verdict.frame: verdict for verdict in old}
    for verdict in new:
        before = found.get(verdict.frame, verdict)
        harder = verdict if _hardness(verdict) > _hardness(before) else before
        no_sky = LEFT_OUT in (verdict.sky, before.sky) and not (verdict.person or before.person)
        found[verdict.frame] = replace(harder, sky=LEFT_OUT if no_sky else harder.sky)
    return tuple(found.values())


def _hardness(verdict: Verdict) -> tuple[int, int, float]:
    return _WORSE.index(verdict.use), int(verdict.sky == LEFT_OUT), -verdict.weight
