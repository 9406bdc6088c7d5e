"""The limits by which frames are judged: one table, each with its reason and where its number is from.

They are the defaults of the parameters of judgeFrames and judgeImages, and can be set like any other.
"simulated" means chosen with the simulator so that no frame of a clean night is touched and every fault of
the kind is found; `python bench/rough.py` does it again.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from pipeline.params import bounded


class Limit(NamedTuple):
    """value : in `unit`; reason : what it tells apart; source : of the number"""

    value: float
    unit: str
    reason: str
    source: str


LIMITS = {
    # -- before the sky is made -------------------------------------------------------------------------
    "no_light": Limit(
        0.2, "", "of the light of the others: less is a closed shutter, a dark, a lamp that was off",
        "airglow changes by a factor of 2 to 3 in a night (Gemini, observing condition constraints)",
    ),
    "saturated": Limit(
        0.3, "", "of the pixels saturated: what is left is no image", "a burnt-out star takes less than 0.01"
    ),
    "constant": Limit(
        0.2, "", "of the noise expected: less is a frame that was never read out", "simulated"
    ),
    "noisy": Limit(
        1.5, "", "times the noise expected, and the others have it: electronic noise", "simulated"
    ),
    "bright_sky": Limit(
        3.0, "", "times the level of the others: twilight or moonlit cloud, which is no sky for others",
        "airglow changes by a factor of 2 to 3; twilight by more (Gemini, as above)",
    ),
    "sky_cloud": Limit(
        0.7, "", "of the light of the others' stars: cloud, which is no sky for others",
        "0.4 magnitudes: beyond CC70 (Gemini's observing constraints)",
    ),
    "dark_level": Limit(
        0.05, "", "of the level of the other darks, and 5 electrons: more is another exposure or stray light",
        "darks of one setting agree within 1 electron (simulated); ESO's health check takes 3 sigma",
    ),
    "lamp_level": Limit(
        0.2, "", "of the level of the other lamp-on frames: another lamp, filter or shutter",
        "a lamp drifts by 2 percent in a sequence; neutral densities differ by a factor of 2 at least",
    ),
    "lamp_off_level": Limit(
        0.02, "", "of the light of the lamp: a lamp-off frame that differs by more saw some lamp",
        "repeatability of flats, 0.003 (Gemini, NIRI detector page)",
    ),
    # -- after registration -----------------------------------------------------------------------------
    "thin_cloud": Limit(
        0.95, "", "of the light of the clear frames: below it the counts are scaled",
        "photometric is 0.05 magnitudes (Gemini's CC50 takes 0.08)",
    ),
    "least_weight": Limit(
        0.05, "", "of a good frame's weight: a frame that counts for less is left out", "adds 2 % at most"
    ),
    "blurred": Limit(
        1.25, "", "times the FWHM of the others: a frame counts for less beyond it",
        "FWHM of one sequence in simulated and real seeing scatters by a tenth",
    ),
    "too_blurred": Limit(
        1.5, "", "times the FWHM of the others: beyond it a frame is left out",
        "simulated: star fluxes of 15 to 18.8 mag then agree within 0.5 %",
    ),
    "elongated": Limit(
        0.07, "", "ellipticity beyond that of the others: wind, lost guiding, a trail",
        "a trail of 3 pixels on 4.2 pixels of FWHM gives 0.10; Gemini comments from 0.1 on",
    ),
    "second_peak": Limit(
        0.15, "", "of the stars' peak in a second one: the telescope moved during the exposure", "simulated"
    ),
    "repeated": Limit(
        0.4, "", "of the sources with a companion at one distance, beyond the others': as above, farther",
        "chance gives 0.1 to 0.2 of 40 sources (simulated)",
    ),
    "misplaced": Limit(
        2.0, "", "times the FWHM that a frame may be off its place: farther, its stars are ghosts",
        "the images of one star are parted at 2 FWHM",
    ),
    "unfound": Limit(
        0.1, "", "of the expected sources found: fewer means thick cloud, no light or another field",
        "simulated"
    ),
}  # fmt: skip


def limit(name: str, **bounds: float) -> Any:
    """The field of a step's parameters for this limit."""
    value, unit, reason, source = LIMITS[name]
    return bounded(value, doc=f"{unit} {reason} ({source})".strip(), **(bounds or {"ge": 0}))
