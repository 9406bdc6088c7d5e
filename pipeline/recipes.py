"""Every recipe: what is done to the frames, as a list that reads top to bottom.

Each also says what it makes and which calibrations it must have (needs), would rather have
(prefers: worth waiting hours for) or uses when they are there (wants: never waited for).
Raise a recipe's version whenever a change alters the pixels that it makes.
"""

from __future__ import annotations

from pipeline.association import CalKind
from pipeline.headers.tags import Tags
from pipeline.primitive import Recipe, Step
from pipeline.steps.align import resample_to_common_frame, scale_counts_to_reference
from pipeline.steps.badpixels import make_bpm, stack_bpm_darks
from pipeline.steps.counts import add_var, adu_to_electrons, nonlinearity_correct
from pipeline.steps.darks import dark_correct, stack_darks
from pipeline.steps.flats import flat_correct, make_lamp_flat, normalize_flat, threshold_flatfield
from pipeline.steps.judge import compare_with_earlier, judge_frames
from pipeline.steps.judgeimages import judge_images, judge_look
from pipeline.steps.photometry import measure_quality
from pipeline.steps.prepare import prepare
from pipeline.steps.quality import add_dq, keep_last_frames, remove_first_frame
from pipeline.steps.readout import clean_readout
from pipeline.steps.register import adjust_wcs_to_reference
from pipeline.steps.sky import associate_sky, separate_sky, sky_correct
from pipeline.steps.skyflat import make_sky_flat
from pipeline.steps.sources import detect_sources
from pipeline.steps.stack import stack_frames
from pipeline.steps.ultradeep import mask_from_stack

BOTH_BPMS = frozenset({CalKind.STATIC_BPM, CalKind.MADE_BPM})

MAKE_PROCESSED_DARK = Recipe(
    "makeProcessedDark",
    version=3,
    suffix="_dark",
    makes=CalKind.DARK,
    steps=(
        prepare(),
        add_dq(),
        nonlinearity_correct(),
        adu_to_electrons(),
        add_var(read_noise=True, poisson_noise=True),
        judge_frames(),
        stack_darks(),
    ),
)

MAKE_PROCESSED_FLAT = Recipe(
    "makeProcessedFlat",
    version=3,
    suffix="_flat",
    makes=CalKind.FLAT,
    wants=BOTH_BPMS,
    steps=(
        prepare(),
        add_dq(),
        nonlinearity_correct(),
        adu_to_electrons(),
        add_var(read_noise=True, poisson_noise=True),
        judge_frames(),
        make_lamp_flat(),
        normalize_flat(),
        threshold_flatfield(),
    ),
)

# Lamp flats show what does not respond, short darks what glows: takes both kinds of frames.
MAKE_PROCESSED_BPM = Recipe(
    "makeProcessedBPM",
    version=3,
    suffix="_bpm",
    makes=CalKind.MADE_BPM,
    modes=("sq",),
    steps=(
        prepare(),
        adu_to_electrons(),
        judge_frames(),
        stack_bpm_darks(),
        make_lamp_flat(),
        normalize_flat(),
        make_bpm(),
    ),
)

_ELECTRONS: tuple[Step, ...] = (
    adu_to_electrons(),
    add_var(read_noise=True, poisson_noise=True),
    nonlinearity_correct(),
    dark_correct(),
)

_TO_DARK: tuple[Step, ...] = (prepare(), add_dq(), remove_first_frame(), *_ELECTRONS)

# Of a first look: two frames before it are calibrated, too, to be compared with.
_LOOK: tuple[Step, ...] = (prepare(), add_dq(), keep_last_frames(), *_ELECTRONS, flat_correct())

_CALIBRATE: tuple[Step, ...] = (*_TO_DARK, flat_correct())

_ALIGN_AND_STACK: tuple[Step, ...] = (
    detect_sources(),
    adjust_wcs_to_reference(),
    judge_images(),
    resample_to_common_frame(),
    scale_counts_to_reference(),
    stack_frames(),
)

REDUCE = Recipe(
    "reduce",
    version=3,
    suffix="_image",
    needs=frozenset({CalKind.FLAT}),
    prefers=frozenset({CalKind.DARK}),
    wants=BOTH_BPMS | {CalKind.ZERO_POINT},
    steps=(
        *_CALIBRATE,
        separate_sky(),
        judge_frames(),
        associate_sky(),
        sky_correct(),  # first pass, find objects, second pass with the objects masked
        clean_readout(),
        *_ALIGN_AND_STACK,
        measure_quality(),
    ),
)

# A picture of one frame a moment after it has landed: calibrated as `reduce` does it, with
# the sky still in it. The last input is the one; those taken within 120 s before it may
# be given, in order, so that what they saturated is flagged and its light is compared with theirs. They do
# not go into the product.
FIRST_LOOK = Recipe(
    "firstLook",
    version=2,
    suffix="_firstlook",
    wants=BOTH_BPMS | {CalKind.FLAT, CalKind.DARK, CalKind.ZERO_POINT},
    steps=(*_LOOK, compare_with_earlier(), measure_quality(), judge_look()),
    last_only=True,
)

# For objects in every frame that are fainter than any single frame shows: what a first, complete reduction
# finds in its stack is masked when the skies of the second are made.
ULTRADEEP = Recipe(
    "ultradeep",
    version=3,
    suffix="_image",
    needs=frozenset({CalKind.FLAT}),
    prefers=frozenset({CalKind.DARK}),
    wants=BOTH_BPMS | {CalKind.ZERO_POINT},
    modes=("sq",),
    steps=(
        *_CALIBRATE,
        separate_sky(),
        judge_frames(),
        mask_from_stack(),
        associate_sky(),
        sky_correct(first_pass="given"),
        *_ALIGN_AND_STACK,
        measure_quality(),
    ),
)

# Of frames that have been through the steps before, as write_outputs leaves them.
ALIGN_AND_STACK = Recipe("alignAndStack", version=3, suffix="_stack", steps=_ALIGN_AND_STACK)

# A flat of dithered science frames, for thermal filters: there the sky outshines any lamp.
MAKE_SKY_FLAT = Recipe(
    "makeSkyFlat",
    version=3,
    suffix="_skyflat",
    makes=CalKind.FLAT,
    prefers=frozenset({CalKind.DARK}),
    wants=BOTH_BPMS,
    modes=("sq",),
    steps=(*_TO_DARK, judge_frames(), make_sky_flat(), normalize_flat(), threshold_flatfield()),
)

RECIPES = {
    recipe.name: recipe
    for recipe in (
        MAKE_PROCESSED_DARK,
        MAKE_PROCESSED_FLAT,
        MAKE_PROCESSED_BPM,
        REDUCE,
        FIRST_LOOK,
        ULTRADEEP,
        ALIGN_AND_STACK,
        MAKE_SKY_FLAT,
    )
}


def default_recipe(tags: Tags) -> Recipe | None:
    """The recipe for a frame of these tags; None where there is none."""
    if "NIRI" not in tags:
        return None
    if {"CAL", "DARK"} <= tags:
        return MAKE_PROCESSED_DARK
    if {"IMAGE", "CAL", "FLAT"} <= tags:
        return MAKE_PROCESSED_FLAT
    return REDUCE if "IMAGE" in tags else None
