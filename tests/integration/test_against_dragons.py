"""A small night against the stack that Gemini's DRAGONS made of the same frames, with its settings."""

from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from pipeline.files.read import read_frame
from pipeline.frame import Frame
from pipeline.primitive import Calibrations, run_recipe
from pipeline.recipes import RECIPES
from pipeline.steps.align import resample_to_common_frame
from pipeline.steps.stack import stack_frames

# Where DRAGONS put the reference's pixel (0, 0) on its second and third frame, fitted to its stack: it
# matched the frames by their sources, a quarter of a pixel from the truth.
SHIFTS = ((-75.47731, -0.60147), (-67.47387, 59.40820))


@pytest.fixture(scope="module")
def night(shared: Path) -> Path:
    return shared / "reference" / "dragons-tiny"


def raw(night: Path, *numbers: int, day: str = "20160102") -> list[Frame]:
    return [read_frame(str(night / "raw" / f"N{day}S{number:04d}.fits.gz")) for number in numbers]


def made(recipe: str, frames: list[Frame], cals: Calibrations, **overrides: object) -> Frame:
    return run_recipe(RECIPES[recipe].bind(overrides, preset="dragons"), frames, cals).frame


@pytest.fixture(scope="module")
def subtracted(night: Path) -> list[Frame]:
    """The sky-subtracted frames, from raw frames and calibrations made here."""
    static = read_frame(str(night / "raw" / "bpm_20010317_niri_niri_11_full_1amp.fits.gz"))
    flats = raw(night, *range(363, 369))
    bpm = made("makeProcessedBPM", flats + raw(night, 463, 464, 465, day="20160103"), Calibrations())
    masks = Calibrations(static_bpm=static, user_bpm=bpm)
    dark = made("makeProcessedDark", raw(night, 423, 424, 425), Calibrations())
    flat = made("makeProcessedFlat", flats, masks)
    cals = Calibrations(dark=dark, flat=flat, static_bpm=static, user_bpm=bpm)
    seen: dict[str, list[Frame]] = {}
    settings = {"skyCorrect:scale_sky": False, "skyCorrect:write_outputs": True}
    bound = RECIPES["reduce"].bind(settings, preset="dragons")
    run_recipe(bound, raw(night, *range(270, 278)), cals, write=seen.__setitem__)
    return seen["skyCorrect"]


def test_stack_is_that_of_dragons(night: Path, subtracted: list[Frame]) -> None:
    first = subtracted[0].header
    frames = [subtracted[0]]
    for frame, (dx, dy) in zip(subtracted[1:], SHIFTS, strict=True):
        cards = {key: first[key] for key in ("CRVAL1", "CRVAL2", "CD1_1", "CD1_2", "CD2_1", "CD2_2")}
        cards |= {"CRPIX1": first["CRPIX1"] + dx, "CRPIX2": first["CRPIX2"] + dy}
        frames.append(frame.evolve(cards=cards))
    aligned = resample_to_common_frame.run(frames, interpolant="poly3", dq_threshold=0.001)
    (stack,) = stack_frames.run(aligned, reject_method="sigclip", exact_median=False)
    with fits.open(night / "products" / "N20160102S0271_image.fits") as units:
        sci, var, dq = (units[name].data for name in ("SCI", "VAR", "DQ"))
        assert (stack.header["CRPIX1"], stack.header["CRPIX2"]) == (
            units["SCI"].header["CRPIX1"],
            units["SCI"].header["CRPIX2"],
        )
    assert stack.shape == sci.shape
    np.testing.assert_array_equal(stack.dq, dq)
    good = dq == 0
    off = np.abs(stack.sci - sci)[good] / np.sqrt(var[good])
    assert np.percentile(off, 99) < 1e-3  # wanted: 0.1
    assert np.mean(np.abs(stack.var / np.where(good, var, 1) - 1)[good] < 0.01) > 0.99
