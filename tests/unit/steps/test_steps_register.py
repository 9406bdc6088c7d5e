"""adjustWCSToReference, resampleToCommonFrame and scaleCountsToReference on fields of known shifts."""

import numpy as np
import pytest

from pipeline.errors import FrameMismatch
from pipeline.frame import NO_DATA, SATURATED
from pipeline.headers.tangent import tangent
from pipeline.steps.align import resample_to_common_frame, scale_counts_to_reference, with_common_noise
from pipeline.steps.register import adjust_wcs_to_reference
from pipeline.steps.sources import detect_sources
from pipeline.steps.stack import stack_frames
from tests.skyframes import FIVE, TARGET, calibrated, star_field

ERRORS = ((0.0, 0.0), (1.6, -1.2), (-2.1, 0.7), (0.4, 1.9), (-0.3, -0.4))


def field(stars, count=3, detect=True, **choices):
    frames = [
        calibrated(k, o, stars=stars, sky=0.0, error=e, **choices)
        for k, (o, e) in enumerate(zip(FIVE[:count], ERRORS, strict=False), 1)
    ]
    return detect_sources.run(frames) if detect else frames


def misplaced(frames, errors=ERRORS):
    """By how many pixels the WCS of each frame is off, relative to the reference."""
    out = []
    for frame, error in zip(frames, errors, strict=False):
        x, y = tangent(frame.header).to_pixel(*TARGET)
        u, v = tangent(before(frame).header).to_pixel(*TARGET)
        out.append(np.hypot(x - u - error[0], y - v - error[1]))
    return np.array(out)


def before(frame):
    number = int(frame.name[10:14])
    return calibrated(number, FIVE[number - 1], sky=0.0)


@pytest.mark.parametrize(
    ("stars", "within"),
    [
        (star_field(40, faintest=2e4), 0.02),
        ([(0.0, 1.0, 1e5)], 0.05),
        ([(0.0, 1.0, 1e5), (4.0, -6.0, 5e4)], 0.05),
    ],
    ids=["rich", "one", "two"],
)
def test_registration_by_sources(stars, within):
    out = adjust_wcs_to_reference.run(field(stars))
    assert misplaced(out).max() < within
    assert {f.header["REGMETH"] for f in out[1:]} == {"sources"}
    assert all(f.header["REGERR"] < within for f in out[1:])
    assert out[1].header["REGNUM"] >= (10 if len(stars) > 2 else len(stars))
    assert out[1].header["REGDX"] == pytest.approx(1.6, abs=0.05)


def test_registration_by_pixels_where_there_is_no_source():
    def nebula(x, y):
        wave = np.sin(x / 6.3) * np.cos(y / 7.1) + np.sin((x + y) / 11.0)
        return 120 * wave * np.exp(-(x * x + y * y) / 8000)

    frames = [
        calibrated(k, o, sky=0.0, scene=nebula, error=e)
        for k, (o, e) in enumerate(zip(FIVE[:3], ERRORS, strict=False), 1)
    ]
    frames = [f.evolve(catalog=None) for f in frames]
    out = adjust_wcs_to_reference.run(frames)
    assert {f.header["REGMETH"] for f in out[1:]} == {"pixels"}
    assert misplaced(out).max() < 0.1


def test_an_empty_field_falls_back_to_offsets_and_says_so():
    out = adjust_wcs_to_reference.run(field([]))
    assert [f.header["REGMETH"] for f in out] == ["reference", "offsets", "offsets"]
    assert any("aligned by telescope offsets" in text for text in out[0].notes)
    np.testing.assert_allclose(misplaced(out), np.hypot(*np.array(ERRORS[:3]).T), atol=0.3)
    assert len(adjust_wcs_to_reference.run(field([]), fallback=None)) == 1


def test_with_geminis_settings_two_stars_are_too_few():
    out = adjust_wcs_to_reference.run(field([(0.0, 1.0, 1e5), (4.0, -6.0, 5e4)]), min_sources=3, pixels=False)
    assert out[1].header["REGMETH"] == "offsets"


def test_a_turned_frame_is_turned_back_when_asked():
    frames = field(star_field(40, faintest=2e4))
    cd = np.array([[frames[1].header[f"CD{i}_{j}"] for j in (1, 2)] for i in (1, 2)])
    turn = np.array([[1, 0.003], [-0.003, 1]])
    wrong = cd @ turn
    frames[1] = frames[1].evolve(cards={f"CD{i}_{j}": wrong[i - 1, j - 1] for i in (1, 2) for j in (1, 2)})
    out = adjust_wcs_to_reference.run(frames, rotate=True)
    back = np.array([[out[1].header[f"CD{i}_{j}"] for j in (1, 2)] for i in (1, 2)])
    np.testing.assert_allclose(back, cd, atol=3e-4 * np.abs(cd).max())


def test_a_moving_target_is_matched_by_itself():
    moving = {"FRAME": "APPT", "TRKFRAME": "APPT", "RATRACK": 0.01, "DECTRACK": 0.02}
    stars = star_field(30)
    frames = []
    for k in (1, 2):
        stars_then = [(0.0, 0.0, 6e5)] + [(e + 1.5 * (k - 1), n, f / 4) for e, n, f in stars]
        frame = calibrated(k, FIVE[k - 1], stars=stars_then, sky=0.0, error=ERRORS[k - 1])
        frames.append(frame.evolve(cards=moving))
    out = adjust_wcs_to_reference.run(detect_sources.run(frames))
    assert out[1].header["REGMETH"] == "target"
    assert misplaced(out).max() < 0.05


def test_one_frame_stays_as_it_is():
    frames = field(star_field(5), count=1)
    assert adjust_wcs_to_reference.run(frames)[0] is frames[0]
    assert resample_to_common_frame.run(frames)[0] is frames[0]


# --- resampleToCommonFrame ---


def test_aligned_frames_agree_on_one_grid():
    stars = star_field(30)
    out = resample_to_common_frame.run(adjust_wcs_to_reference.run(field(stars)))
    assert len({f.shape for f in out}) == 1
    assert out[0].shape > (256, 256)
    assert out[0].header["NOISECOR"] == 1.0
    assert 0.6 < out[1].header["NOISECOR"] < 1.0
    good = (out[0].dq | out[1].dq) == 0
    difference = (out[1].sci - out[0].sci)[good] / np.sqrt(out[0].var + out[1].var)[good]
    assert np.abs(np.median(difference)) < 0.02
    assert np.percentile(np.abs(difference), 99.9) < 4
    for f in out:
        assert f.header["CRPIX1"] == out[0].header["CRPIX1"]
        assert ((f.dq & NO_DATA) != 0).any()
    for row in out[1].catalog[:5]:
        x, y = tangent(out[1].header).to_pixel(row["X_WORLD"], row["Y_WORLD"])
        assert (
            np.hypot(x - row["X_IMAGE"] + 1 - 1.6, y - row["Y_IMAGE"] + 1 + 1.2) < 0.5
        )  # detected before correction


def test_stars_keep_their_flux_place_and_width_in_the_stack():
    stars = [(0.0, 1.0, 2e5), (5.0, -6.0, 1e5), (-6.0, 4.0, 1.5e5)]
    frames = resample_to_common_frame.run(adjust_wcs_to_reference.run(field(stars, count=5)))
    (stack,) = detect_sources.run(stack_frames.run(frames))
    (alone,) = field(stars, count=1)
    x, y = tangent(stack.header).to_pixel(stack.catalog["X_WORLD"], stack.catalog["Y_WORLD"])
    assert len(stack.catalog) == 3
    for row, (east, north, _) in zip(stack.catalog, [stars[0], stars[2], stars[1]], strict=True):
        ra = TARGET[0] + east / 3600 / np.cos(np.radians(TARGET[1]))
        x, y = tangent(stack.header).to_pixel(ra, TARGET[1] + north / 3600)
        assert np.hypot(row["X_FIT"] - 1 - x, row["Y_FIT"] - 1 - y) < 0.03
    np.testing.assert_allclose(stack.catalog["FLUX_AUTO"], alone.catalog["FLUX_AUTO"], rtol=0.03)
    np.testing.assert_allclose(stack.catalog["FWHM_FIT"], alone.catalog["FWHM_FIT"], rtol=0.05)


def test_var_and_noisecor_of_a_stack():
    pixels, blocks = [], []
    for seed in range(4):
        frames = [
            calibrated(100 + 10 * seed + k, o, error=e)
            for k, (o, e) in enumerate(zip(FIVE, ERRORS, strict=True))
        ]
        (stack,) = stack_frames.run(resample_to_common_frame.run(frames), reject_method="none")
        full = stack.coverage == 5
        pull = np.where(
            full, (stack.sci - np.median(stack.sci[full])) / np.sqrt(np.maximum(stack.var, 1)), np.nan
        )
        pixels.append(np.nanstd(pull) / stack.header["NOISECOR"])
        tiles = pull[: pull.shape[0] // 8 * 8, : pull.shape[1] // 8 * 8].reshape(pull.shape[0] // 8, 8, -1, 8)
        blocks.append(np.nanstd(tiles.sum((1, 3)) / 8))
    assert np.mean(pixels) == pytest.approx(1.0, abs=0.03)
    assert np.mean(blocks) == pytest.approx(1.0, abs=0.05)


@pytest.mark.parametrize("dithered", [False, True])
def test_a_sky_that_all_frames_share_does_not_average_unless_they_are_dithered(dithered):
    """Four objects less one and the same sky: VAR of the stack is right for blocks of pixels."""
    rng = np.random.default_rng(1)
    blocks, covariance = [], 0.0
    for seed in range(6):
        sky = rng.normal(0, 40, (256, 256)).astype(np.float32)
        frames = []
        for k in range(4):
            offset = FIVE[k] if dithered else (0.0, 0.0)
            frame = calibrated(300 + 10 * seed + k, offset, error=(0.2 * k, -0.1 * k), skies=("a", "b"))
            frames.append(
                frame.evolve(sci=frame.sci - sky, var=frame.var + np.float32(1600), cards={"SKYVAR": 1600.0})
            )
        aligned = resample_to_common_frame.run(frames)
        covariance = aligned[0].header["SKYCOV"]
        (stack,) = stack_frames.run(aligned, reject_method="none")
        full = stack.coverage == 4
        pull = np.where(
            full, (stack.sci - np.median(stack.sci[full])) / np.sqrt(np.maximum(stack.var, 1)), np.nan
        )
        tiles = pull[: pull.shape[0] // 8 * 8, : pull.shape[1] // 8 * 8].reshape(pull.shape[0] // 8, 8, -1, 8)
        blocks.append(np.nanstd(tiles.sum((1, 3)) / 8))
    assert np.mean(blocks) == pytest.approx(1.0, abs=0.05)
    assert covariance == pytest.approx(0.0 if dithered else 1600, rel=0.05)


def test_only_frames_of_one_shape_go_together():
    with pytest.raises(FrameMismatch, match=r"\(128, 128\) pixels"):
        resample_to_common_frame.run([calibrated(1), calibrated(2, size=128)])


def test_geminis_spline_and_the_reference_field_only():
    frames = adjust_wcs_to_reference.run(field(star_field(20)))
    spline = resample_to_common_frame.run(frames, interpolant="poly3", dq_threshold=0.001)
    cubic = resample_to_common_frame.run(frames)
    good = (spline[1].dq | cubic[1].dq) == 0
    assert np.median(np.abs(spline[1].sci - cubic[1].sci)[good]) < 0.3 * np.median(
        np.sqrt(cubic[1].var[good])
    )
    trimmed = resample_to_common_frame.run(frames, trim_data=True)
    assert {f.shape for f in trimmed} == {(256, 256)}
    np.testing.assert_array_equal(trimmed[0].sci, frames[0].sci)


def test_distortion_of_f32_with_ao_is_taken_out():
    ao = {"CAMERA": "f32", "AOFOLD": "IN"}
    star = (6.0, 6.5, 3e5)  # far from the middle, arcsec
    frames = [calibrated(1, (0.0, 0.0), stars=[star], sky=0.0).evolve(cards=ao)]
    (out,) = resample_to_common_frame.run(frames)
    (found,) = detect_sources.run([out])
    (raw,) = detect_sources.run(frames)
    x, y = raw.catalog["X_FIT"][0] - 1 - 127.5, raw.catalog["Y_FIT"][0] - 1 - 127.5
    r = np.hypot(x, y)
    stretch = 1 + 1.32e-5 * r
    at = found.catalog["X_WORLD"][0], found.catalog["Y_WORLD"][0]
    px, py = tangent(frames[0].header).to_pixel(*at)
    assert px - 127.5 == pytest.approx(x * stretch, abs=0.02)
    assert py - 127.5 == pytest.approx(y * stretch, abs=0.02)
    assert resample_to_common_frame.run(frames, distortion=False)[0] is frames[0]


# --- scaleCountsToReference ---


def test_counts_follow_the_exposure_time():
    frames = [calibrated(1), calibrated(2, exposure=10.0)]
    out = scale_counts_to_reference.run(frames)
    assert out[0] is frames[0]
    np.testing.assert_allclose(out[1].sci, frames[1].sci * np.float32(20.002 / 10.0), rtol=1e-5)
    np.testing.assert_allclose(out[1].var, frames[1].var * np.float32((20.002 / 10.0) ** 2), rtol=1e-5)
    assert out[1].header["EXPTIME"] == out[0].header["EXPTIME"]
    assert out[1].header["ORIGTEXP"] == pytest.approx(10.0)


def test_counts_follow_the_stars_within_the_tolerance():
    stars = [(0.0, 1.0, 2e5), (5.0, -6.0, 1e5)]
    (first,), (second,) = field(stars, count=1), field(stars, count=1)
    dimmed = detect_sources.run(
        [second.evolve(sci=second.sci * np.float32(0.9), name="N20160102S0009.fits")]
    )[0]
    out = scale_counts_to_reference.run([first, dimmed], tolerance=0.2)
    assert out[1].header["SCALEFAC"] == pytest.approx(1 / 0.9, rel=2e-3)
    assert scale_counts_to_reference.run([first, dimmed], tolerance=0.05)[1] is dimmed
    assert scale_counts_to_reference.run([first, dimmed])[1] is dimmed


def test_saturated_stars_do_not_steer():
    stars = [(0.0, 1.0, 1e5), (5.0, -6.0, 8e4), (-6.0, 5.0, 6e4), (2.0, 8.0, 3e5)]
    frames = field(stars, detect=False)
    burnt = [f.evolve(dq=np.where(f.sci > 5000, SATURATED, np.uint16(0))) for f in frames]
    burnt = [f.evolve(sci=np.minimum(f.sci, np.float32(5000))) for f in burnt]
    out = adjust_wcs_to_reference.run(detect_sources.run(burnt))
    assert misplaced(out).max() < 0.04


def test_common_noise_without_alignment_is_nothing():
    frame = calibrated(1)
    assert with_common_noise(frame, [frame, frame]) is frame


def test_inputs_are_not_modified_and_results_repeat():
    frames = field(star_field(10))
    copies = [f.sci.copy() for f in frames]
    one, two = (resample_to_common_frame.run(adjust_wcs_to_reference.run(frames)) for _ in range(2))
    for a, b in zip(one, two, strict=True):
        np.testing.assert_array_equal(a.sci, b.sci)
        assert a.header.tostring() == b.header.tostring()
    for frame, copy in zip(frames, copies, strict=True):
        np.testing.assert_array_equal(frame.sci, copy)
