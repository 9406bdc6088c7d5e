"""What is wrong in a calibration is said of everything that is made with it."""

from dataclasses import replace

from pipeline import produce
from pipeline.association import CalKind
from pipeline.files.read import read_notes
from pipeline.primitive import Recipe, run_recipe
from pipeline.produce import Source
from pipeline.steps.quality import keep_last_frames
from pipeline.travel import once, travelling
from tests.skyframes import calibrated

OFF = (
    "no frame with the lamp off: background and dark stay in the flat, and whoever divides by it should know"
)
FIRST = "N20160102S0270.fits left out: the first exposure of a sequence is often bad"


def made(folder, name, notes=(), calibrations=()):
    """A product that says something, made with these; the path and what it says."""
    mask = {"BPMASK": True} if name.endswith("_bpm") else None
    frame = calibrated(1, size=64).evolve(notes=tuple(notes), cards=mask)
    _, cals = produce.load([], calibrations)
    product = run_recipe(Recipe("x", 1, "_x", (keep_last_frames(),)).bind(), [frame], cals)
    product = replace(product, notes=(*product.notes, *notes))
    inputs = [Source("", "raw.fits", "0" * 64)]
    path = produce.write(folder / name, product, inputs, time_stamp="2016-01-02T05:00:00", preview=False).fits
    return Source(str(path), f"{name}.fits", "1" * 64, CalKind.FLAT.value), read_notes(path)


def test_a_warning_reads_like_a_path_to_its_cause(tmp_path):
    mask, _ = made(tmp_path, "N1_bpm", ["only one dark: cosmic rays in it stay", FIRST])
    mask = replace(mask, role=CalKind.MADE_BPM.value)
    flat, said = made(tmp_path, "N2_flat", [OFF], [mask])
    assert said == ("N1_bpm: only one dark: cosmic rays in it stay", OFF)
    _, said = made(tmp_path, "N3_image", [], [flat])
    assert said == ("N2_flat: N1_bpm: only one dark: cosmic rays in it stay", f"N2_flat: {OFF}")
    _, said = made(tmp_path, "N4_image", [FIRST], [flat, mask])  # told once, in the fewest words
    assert said == (
        f"N2_flat: {OFF}",
        "N1_bpm: only one dark: cosmic rays in it stay",
        FIRST,
    )


def test_what_is_ordinary_stays_where_it_is():
    ordinary = (
        FIRST,
        "first frame N1.fits kept: only 3 would remain",
        "first frame N1.fits left out",
        "sky borrowed from N1.fits,N2.fits",
        "no dark subtracted, as told by darkCorrect:do_cal=skip",
        "zero point of N1_image (FS 17, 26.40 +- 0.01) not used: impossible, 0.50 mag above nominal",
        "the night was not photometric: its standards differ by up to 0.39 mag",
    )
    odd = ("N3.fits left out: no light (3 e-, limit 100 e-)", "warning: fewer frames than wanted: 2 of 3")
    assert travelling("N4_flat.fits", (*ordinary, *odd)) == tuple(f"N4_flat: {text}" for text in odd)
    assert travelling("external.fits", ()) == ()


def test_what_is_true_of_the_product_itself_is_not_said_again_of_each_calibration(tmp_path):
    linear = "no linearity coefficients are known for these settings: counts are not corrected"
    flat, _ = made(tmp_path, "N2_flat", [linear, OFF])
    _, cals = produce.load([], [flat])
    frame = calibrated(1, size=64).evolve(notes=(linear,))
    product = run_recipe(Recipe("x", 1, "_x", (keep_last_frames(),)).bind(), [frame], cals)
    assert product.notes == (f"N2_flat: {OFF}", linear)
    assert once(["A: B: why", "B: why", "C: other"]) == ["B: why", "C: other"]
