"""How long a frame takes: exposure, readout, writing, and the telescope's move to the next place.

of(facts).total                   # by Gemini's own numbers
pace(facts, starts, counted)      # as the sequence goes, where that is known
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from pipeline.headers.descriptors import Descriptors

# Seconds a coadd by read mode and rows of the array, as measured in 2017-12, and to write a file, of before
# (NiriReadoutTime.java of Gemini's Observing Tool).
READOUT = {
    "Low Background": {1024: 11.16, 768: 6.48, 512: 3.10, 256: 0.98},
    "Medium Background": {1024: 0.71, 768: 0.41, 512: 0.21, 256: 0.078},
    "High Background": {1024: 0.20, 768: 0.11, 512: 0.056, 256: 0.044},
}
WRITE = {1024: 2.78, 768: 2.50, 512: 2.38, 256: 2.96}
# A move of the telescope; 160 arcsec take one second more (OffsetOverheadCalculator.java, the same).
OFFSET = 7.0
SEEN = 3  # intervals between frames that tell how a sequence goes


@dataclass(frozen=True)
class Overheads:
    """Seconds of one frame. exposure : all coadds"""

    exposure: float
    readout: float
    write: float
    offset: float

    @property
    def total(self) -> float:
        return self.exposure + self.readout + self.write + self.offset


def of(facts: Descriptors) -> Overheads:
    """By Gemini's numbers; of an unknown read mode that of medium background, as its read noise."""
    rows = min(WRITE, key=lambda side: abs(side - (facts.shape[0] if facts.shape else 1024)))
    coadd = READOUT.get(facts.read_mode, READOUT["Medium Background"])[rows]
    return Overheads(facts.exposure_time or 0.0, coadd * facts.coadds, WRITE[rows], OFFSET)


def pace(facts: Descriptors, starts: Sequence[float], counted: int) -> tuple[float, bool]:
    """(seconds for each frame that counts, whether the sequence has shown it).

    starts : of its frames, seconds since the epoch, those of sky and spoilt ones among them; counted : how
        many of these are in the stack. The first is left out of most stacks.
    """
    own = of(facts)
    share = max((len(starts) - 1) / counted, 1.0) if counted and starts else 1.0
    steps = [later - earlier for earlier, later in pairwise(sorted(starts))]
    # No frame is shorter than its exposure: clocks that say so are wrong.
    believed = [step for step in steps if step >= own.exposure]
    seen = len(believed) >= SEEN
    return (statistics.median(believed) if seen else own.total) * share, seen
