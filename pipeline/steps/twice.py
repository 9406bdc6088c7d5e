"""One exposure among the frames under two names, as other software leaves it: integers turned into floats.

A copy with the same bytes is known by its hash, long before; this compares the pixels.
"""

from __future__ import annotations

from collections import defaultdict
from itertools import combinations
from typing import Any

import numpy as np

from pipeline.frame import Frame, Frames
from pipeline.names import canonical_first
from pipeline.steps.members import name_of
from pipeline.verdict import LEFT_OUT, Verdict


def given_twice(frames: Frames) -> tuple[list[Verdict], list[str]]:
    """A verdict for each copy of a frame, and a note for each pair that only claims to be one exposure.

    Frames of one data label and one time are compared; of equal pixels the one with Gemini's name stays.
    """
    same: dict[Any, list[Frame]] = defaultdict(list)
    for frame in frames:
        facts = frame.descriptors
        if facts.data_label and facts.ut_datetime:
            same[facts.data_label, facts.ut_datetime].append(frame)
    verdicts: dict[str, Verdict] = {}
    notes = []
    for members in same.values():
        for first, other in combinations(sorted(members, key=lambda f: canonical_first(name_of(f))), 2):
            one, two = name_of(first), name_of(other)
            if one in verdicts or two in verdicts:
                continue
            if np.array_equal(first.sci, other.sci):
                verdicts[two] = Verdict(two, LEFT_OUT, LEFT_OUT, f"the same exposure as {one}", weight=0.0)
            else:
                notes.append(
                    f"{two} has the data label and the time of {one}, and other pixels: both are used"
                )
    return list(verdicts.values()), notes
