"""judgeImages: what the same stars say of each frame."""

from __future__ import annotations

import re

import numpy as np
import pytest

from pipeline.headers.tangent import tangent
from pipeline.steps.judge import compare_with_earlier, judge_frames
from pipeline.steps.judgeimages import judge_images, judge_look
from pipeline.steps.photometry import measure_quality
from pipeline.verdict import LEFT_OUT, SCALED, USED, Verdict, plain
from tests.skyframes import FIVE, TARGET, calibrated
from tests.unit.steps.judging import STARS, dead, dimmed, sequence, verdict_of


def registered(frames):
    from pipeline.steps.register import adjust_wcs_to_reference
    from pipeline.steps.sources import detect_sources

    sky = [f.evolve(sci=f.sci - np.float32(np.median(f.sci))) for f in frames]
    return adjust_wcs_to_reference.run(detect_sources.run(sky))


def test_clean_frames_are_measured_and_left_alone():
    frames = judge_images.run(registered(sequence(_1={"fwhm": 4.2}, _3={"fwhm": 4.9})))
    assert not frames[0].verdicts
    assert len(frames) == 5
    for frame in frames:
        assert frame.header["TRANSP"] == pytest.approx(1, abs=0.03)
        assert "SCALEBY" not in frame.header


@pytest.mark.parametrize("magnitudes", [0.4, 0.8])
def test_cloud_is_scaled_and_weighted(magnitudes):
    light = 10 ** (-0.4 * magnitudes)
    thin = dimmed(light)
    frames = judge_images.run(registered(sequence(_2={"stars": thin})))
    assert frames[2].header["TRANSP"] == pytest.approx(light, rel=0.03)
    assert frames[2].header["SCALEBY"] == pytest.approx(1 / light, rel=0.03)
    assert verdict_of(frames, 2).weight == pytest.approx(light**2, rel=0.06)
    assert "SCALEBY" not in frames[1].header


def test_thick_cloud_is_left_out_unless_it_is_in_most_frames():
    thick, clear = {"stars": dimmed(0.15)}, {"stars": STARS}
    assert len(judge_images.run(registered(sequence(_1=thick)))) == 4
    most = sequence(**({f"_{k}": thick for k in range(5)} | {"_1": clear}))
    kept = judge_images.run(registered(most))
    assert len(kept) == 5
    assert "most frames are odd" in " ".join(kept[0].notes)
    assert verdict_of(kept, 0).weight == pytest.approx(0.0225, rel=0.1)


def test_what_is_not_scaled_beside_scaled_frames_is_told():
    star = [(0.0, 1.0, 3e5)]
    dim = {"stars": [(0.0, 1.0, 1.2e5)]}
    frames = registered(sequence(stars=star, _1=dim, _3={"stars": [(0.0, 1.0, 4e5)]}))
    frames[2] = frames[2].evolve(cards={"REGMETH": "offsets"})  # nothing is measured of it
    kept = judge_images.run(frames)
    assert len(kept) == 5
    assert verdict_of(kept, 1).use == SCALED
    assert (verdict_of(kept, 3).use, verdict_of(kept, 2).use) == (USED, USED)
    assert "brighter than the frames taken for clear" in verdict_of(kept, 3).text
    assert "not known" in verdict_of(kept, 2).text
    assert len(kept[0].verdicts) == 3


def trailed(frame, length):
    """The frame as the telescope sweeps it along x, with its noise as it was."""
    light = frame.sci.astype(float)
    steps = np.linspace(-0.5, 0.5, 9) * length
    swept = sum(np.roll(light, round(s), axis=1) for s in steps) / len(steps)
    noise = np.random.default_rng(5).normal(0, 1, light.shape) * np.sqrt(frame.var * 8 / 9)
    return frame.evolve(sci=(swept + noise).astype(np.float32))


@pytest.mark.parametrize("fault", ["trail", "double", "blur"])
@pytest.mark.parametrize("which", [0, 2])
def test_spoilt_images_are_left_out(fault, which):
    frames = sequence()
    if fault == "trail":
        frames[which] = trailed(frames[which], 9)
    elif fault == "double":
        image = 0.5 * (frames[which].sci + np.roll(frames[which].sci, (6, 8), (0, 1)))
        frames[which] = frames[which].evolve(sci=image)
    else:
        frames = sequence(**{f"_{which}": {"fwhm": 11.0}})
    kept = judge_images.run(registered(frames))
    assert len(kept) == 4
    verdict = verdict_of(kept, which)
    assert verdict.use == LEFT_OUT
    assert {"trail": "trailed", "double": "double", "blur": "blurred"}[fault] in verdict.reason


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("which", [0, 2])
def test_a_long_trail_of_few_stars_is_left_out(which, count):
    frames = sequence(stars=[(0.0, 1.0, 3e5), (-5.0, -4.0, 2e5)][:count])
    frames[which] = trailed(frames[which], 12)
    kept = judge_images.run(registered(frames))
    assert len(kept) == 4
    assert "trailed" in verdict_of(kept, which).reason


def test_a_frame_that_shows_only_a_star_with_a_neighbour_is_not_double():
    east, north, flux = min(STARS, key=lambda star: np.hypot(star[0] - FIVE[2][0], star[1] - FIVE[2][1]))
    frames = registered(sequence(stars=[*STARS, (east + 1.7, north, 0.5 * flux)]))
    ra, dec = TARGET
    x, y = tangent(frames[2].header).to_pixel(ra + east / 3600 / np.cos(np.radians(dec)), dec + north / 3600)
    rows, columns = np.indices(frames[2].shape)
    other = np.hypot(rows - y, columns - x) > 30
    frames[2] = frames[2].evolve(dq=np.where(other, frames[2].dq | 1, frames[2].dq).astype(np.uint16))
    assert len(judge_images.run(frames)) == 5


@pytest.mark.parametrize("fault", ["none", "trail", "double"])
def test_a_first_look_says_that_its_stars_are_no_points(fault):
    frame = sequence(1)[0]
    if fault == "trail":
        frame = trailed(frame, 11)
    elif fault == "double":
        frame = frame.evolve(sci=0.5 * (frame.sci + np.roll(frame.sci, (6, 8), (0, 1))))
    look = judge_look.run(measure_quality.run([frame]))[0]
    assert look.header.get("VERDICT") == (None if fault == "none" else LEFT_OUT)
    assert look.header.get("VREASON", "none").startswith(fault)


def test_a_first_look_is_not_compared_with_a_frame_without_light():
    """Warm pixels of a frame that no dark was taken off look like stars, and are none."""
    frames = sequence(3, _2={"stars": dimmed(0.25)})
    frames[1] = dead(frames[1])
    y, x = np.random.default_rng(4).integers(8, 248, (2, 200))
    warm = frames[1].sci.copy()
    warm[y, x] += 5000.0
    frames[1] = frames[1].evolve(sci=warm)
    (look,) = compare_with_earlier.run(frames)
    assert look.header["TRANSP"] == pytest.approx(0.25, abs=0.05)
    assert "no sky for others: cloud or blur" in look.notes[0]
    assert "VERDICT" not in compare_with_earlier.run(frames[:1])[0].header


def test_a_lamp_that_was_off_is_said_to_be_so_and_not_never_read():
    """In a mask's flats without a variance all that is known of their noise is that of the others."""

    def flats(levels, scatter):
        rng = np.random.default_rng(8)
        for k, level in enumerate(levels):
            sci = (level * (1 + scatter * rng.normal(0, 1, (256, 256)))).astype(np.float32)
            frame = calibrated(k + 1, FIVE[k], size=256, stars=[])
            cards = {"OBSTYPE": "FLAT", "GCALLAMP": "IRhigh", "GCALSHUT": "OPEN"}
            yield frame.evolve(sci=sci, var=None, cards=cards)

    kept = judge_frames.run(list(flats([50000.0, 1000.0, 50000.0, 50100.0], 0.02)))
    assert len(kept) == 3
    (below,) = re.findall(r"below the level of the other lamp-on frames \((\d+) electron", kept[0].notes[0])
    assert float(below) == pytest.approx(49000, rel=0.01)


def test_figures_are_for_people():
    assert Verdict("a", LEFT_OUT, LEFT_OUT, "below", 48671.1, 10044.18, "electron").text == (
        "a left out: below (48671 electron, limit 10044 electron)"
    )
    assert plain(-0.0002518) == "0"
    assert [plain(v) for v in (0.95, 0.2632, 2.125, 491.97, 1e6)] == [
        "0.95",
        "0.263",
        "2.125",
        "492",
        "1000000",
    ]
