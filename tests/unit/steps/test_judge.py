"""Frames are judged before they are used: what is odd is told, and nothing else is touched."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest

from pipeline.algorithms import oddness
from pipeline.algorithms.figures import figures
from pipeline.algorithms.spots import bright_spots
from pipeline.errors import NotEnoughFrames
from pipeline.frame import NON_LINEAR, SATURATED
from pipeline.headers.tangent import tangent
from pipeline.steps.judge import compare_with_earlier, judge_frames
from pipeline.steps.judgeclouds import clouded
from pipeline.steps.judgeimages import judge_images, judge_look
from pipeline.steps.limits import LIMITS
from pipeline.steps.photometry import measure_quality
from pipeline.verdict import LEFT_OUT, SCALED, USED, Verdict, merged, plain
from tests.skyframes import FIVE, READ, TARGET, add_star, calibrated, star_field

BOTH = frozenset({"object", "sky"})
STARS = star_field(14, seed=3, radius=11.0, faintest=4e4)


def dimmed(light):
    return [(east, north, light * flux) for east, north, flux in STARS]


def sequence(count=5, **of_frame):
    """Dithered frames of a field; of_frame : what is different, of all or, as _2=dict(sky=...), of one."""
    common = {k: v for k, v in of_frame.items() if not k.startswith("_")}
    frames = []
    for k in range(count):
        other = {"stars": STARS, "sky": 2000.0} | common | of_frame.get(f"_{k}", {})
        frame = calibrated(k + 1, FIVE[k % 5], roles=BOTH, **other)
        frames.append(frame.evolve(cards={"DARKCORR": "2016"}))
    return frames


def verdict_of(frames, number):
    return {v.frame: v for v in frames[0].verdicts}.get(f"N20160102S{number + 1:04d}.fits")


def dead(frame):
    """What a closed shutter leaves: read-out noise about zero."""
    noise = np.random.default_rng(99).normal(0, READ, frame.shape).astype(np.float32)
    return frame.evolve(sci=noise, var=np.full(frame.shape, READ**2, np.float32))


def test_nothing_is_said_of_good_frames():
    frames = sequence(_1={"sky": 4000.0}, _3={"sky": 1000.0})
    kept = judge_frames.run(frames)
    assert [f.name for f in kept] == [f.name for f in frames]
    assert all(not f.notes and not f.verdicts and f.roles == BOTH for f in kept)


@pytest.mark.parametrize("count", [3, 4, 9])
@pytest.mark.parametrize("which", [0, 2])
@pytest.mark.parametrize("fault", ["dead", "saturated", "not linear", "constant", "nothing good"])
def test_a_frame_that_is_no_image_is_left_out(count, which, fault):
    frames = sequence(count)
    bad = frames[which]
    if fault == "dead":
        bad = dead(bad)
    elif fault == "saturated":
        bad = bad.evolve(sci=np.full_like(bad.sci, 2e5), dq=bad.dq | SATURATED)
    elif fault == "not linear":
        bad = bad.evolve(sci=bad.sci + 1e5, dq=bad.dq | NON_LINEAR)
    elif fault == "constant":
        bad = bad.evolve(sci=np.full_like(bad.sci, 1500.0))
    else:
        bad = bad.evolve(dq=bad.dq | np.uint16(16))
    frames[which] = bad
    kept = judge_frames.run(frames)
    assert len(kept) == count - 1
    assert bad.name not in [f.name for f in kept]
    verdict = verdict_of(kept, which)
    assert (verdict.use, verdict.sky, verdict.weight) == (LEFT_OUT, LEFT_OUT, 0.0)
    assert bad.name in kept[0].notes[0]
    assert any(str(round(verdict.limit, 1))[:3] in n for n in kept[0].notes) or fault == "nothing good"


@pytest.mark.parametrize("fault", ["saturated", "constant"])
def test_frames_that_are_no_image_are_no_measure_of_the_others(fault):
    frames = sequence(5)
    for k in (1, 2, 4):
        full = np.full_like(frames[k].sci, 190000.0)
        dq = np.full_like(frames[k].dq, 4 if fault == "saturated" else 0)
        frames[k] = frames[k].evolve(sci=full, dq=dq)
    kept = judge_frames.run(frames)
    assert [f.name for f in kept] == [frames[0].name, frames[3].name]


def test_the_noise_of_a_dark_made_of_few_does_not_hide_closed_shutters():
    frames = sequence(5, sky=6000.0)
    frames = [f.evolve(var=f.var + np.float32(READ**2)) for f in frames]
    for k in (1, 2, 4):
        frames[k] = dead(frames[k])
        noise = np.random.default_rng(k).normal(0, np.sqrt(2) * READ, frames[k].shape)
        frames[k] = frames[k].evolve(
            sci=noise.astype(np.float32), var=np.full_like(frames[k].var, 2 * READ**2)
        )
    kept = judge_frames.run(frames)
    assert [f.name for f in kept] == [frames[0].name, frames[3].name]


def test_twilight_in_most_frames_does_not_make_the_others_dark():
    frames = sequence(5, **{f"_{k}": {"sky": 24000.0} for k in (1, 2, 4)})
    kept = judge_frames.run(frames)
    assert len(kept) == 5
    assert "twilight" in verdict_of(kept, 1).reason
    assert verdict_of(kept, 0) is None


def test_most_frames_without_light_leave_the_one_that_has_it():
    frames = sequence(4)
    for k in (0, 1, 3):
        frames[k] = dead(frames[k])
    assert [f.name for f in judge_frames.run(frames)] == [frames[2].name]


def test_all_frames_alike_are_all_used_with_a_warning():
    frames = [f.evolve(dq=f.dq | SATURATED) for f in sequence(3)]
    kept = judge_frames.run(frames)
    assert len(kept) == 3
    assert "so are all" in kept[0].notes[0]


@pytest.mark.parametrize("count", [1, 3])
def test_no_product_is_made_of_nothing(count):
    void = [f.evolve(dq=np.full_like(f.dq, 16), sci=f.sci * 0) for f in sequence(count)]
    with pytest.raises(NotEnoughFrames, match=f"no pixel of {count} image frames has a value"):
        judge_frames.run(void)


def test_darks_of_a_mask_that_were_never_read_are_told_though_nothing_is_known_of_their_noise():
    frames = [f.evolve(sci=np.full_like(f.sci, 9.0), var=None) for f in darks([137.0] * 3)]
    kept = judge_frames.run(frames)
    assert len(kept) == 3
    assert "never read out; so are all" in kept[0].notes[0]


def test_the_last_objects_stay_beside_good_skies():
    object_only, sky_only = frozenset({"object"}), frozenset({"sky"})
    frames = [dead(f).evolve(roles=object_only) for f in sequence(2)]
    frames += [f.evolve(roles=sky_only) for f in sequence(5)[2:]]
    kept = judge_frames.run(frames)
    assert [f.roles for f in kept] == [object_only] * 2 + [sky_only] * 3
    assert "so are all" in kept[0].notes[0]


def test_a_pedestal_does_not_hide_a_closed_shutter_where_no_dark_was_subtracted():
    frames = [f.evolve(cards={"DARKCORR": None}, sci=f.sci + np.float32(300)) for f in sequence(sky=900.0)]
    frames[2] = dead(frames[2]).evolve(sci=dead(frames[2]).sci + np.float32(300))
    kept = judge_frames.run(frames)
    assert len(kept) == 4
    assert verdict_of(kept, 2).use == LEFT_OUT
    # A sky of half the brightness is no closed shutter.
    half = calibrated(3, FIVE[2], roles=BOTH, sky=450.0, stars=STARS)
    frames[2] = half.evolve(sci=half.sci + np.float32(300))
    assert not judge_frames.run(frames)[0].verdicts


def test_twilight_is_used_for_less_and_is_no_sky():
    kept = judge_frames.run(sequence(_4={"sky": 9000.0}))
    assert kept[4].roles == {"object"}
    verdict = verdict_of(kept, 4)
    assert verdict.sky == LEFT_OUT
    assert verdict.weight == pytest.approx((2000 + READ**2) / (9000 + READ**2), rel=0.1)


def test_electronic_noise():
    frames = sequence()
    extra = np.random.default_rng(8).normal(0, 150, frames[1].shape).astype(np.float32)
    frames[1] = frames[1].evolve(sci=frames[1].sci + extra)
    kept = judge_frames.run(frames)
    assert kept[1].roles == {"object"}
    assert 0.05 < verdict_of(kept, 1).weight < 0.3


def test_a_clouded_frame_is_no_sky_for_others():
    faint = dimmed(0.3)
    kept = judge_frames.run(sequence(_2={"stars": faint}))
    assert [f.roles for f in kept] == [BOTH, BOTH, {"object"}, BOTH, BOTH]
    assert verdict_of(kept, 2).figure == pytest.approx(0.3, abs=0.08)
    # In all but one: a sky of one clear frame would be worse.
    most = judge_frames.run(sequence(**{f"_{k}": {"stars": faint} for k in (0, 1, 2, 4)}))
    assert all(f.roles == BOTH for f in most)


def test_a_person_wants_it_used():
    frames = sequence()
    frames[2] = dead(frames[2])
    kept = judge_frames.run(frames, accept=("S0003",))
    assert len(kept) == 5
    assert "a person" in kept[0].notes[0]
    assert verdict_of(kept, 2).use == USED


def test_the_last_sky_stays_one():
    frames = sequence(3, _0={"sky": 9000.0})
    frames = [frames[0], *(f.evolve(roles=frozenset({"object"})) for f in frames[1:])]
    assert judge_frames.run(frames)[0].roles == BOTH


def kind(frame, **cards):
    return frame.evolve(roles=frozenset(), cards=cards)


def darks(levels):
    return [kind(calibrated(k + 1, kind="dark", sky=level)) for k, level in enumerate(levels)]


@pytest.mark.parametrize("count", [3, 4, 10])
def test_a_dark_of_another_level_is_left_out(count):
    levels = [137.0 + 0.3 * k for k in range(count)]
    assert len(judge_frames.run(darks(levels))) == count
    for other in (137 + 6000, 137 + 60, 20):
        kept = judge_frames.run(darks([*levels[:-1], other]))
        assert len(kept) == count - 1
        assert "dark" in kept[0].notes[0]


@pytest.mark.parametrize("noise", [10.0, 35.0, 70.0])
@pytest.mark.parametrize("level", [120.0, 129.15, 135.3])
def test_darks_in_whole_counts_of_12_electrons_are_not_told_apart_by_one(noise, level):
    rng = np.random.default_rng(3)
    frames = darks([level] * 12)
    for k, frame in enumerate(frames):
        counts = np.rint(rng.normal(level + rng.normal(0, 0.3), noise, frame.shape) / 12.3)
        frames[k] = frame.evolve(sci=(12.3 * counts).astype(np.float32))
    assert len(judge_frames.run(frames)) == 12


@pytest.mark.parametrize(
    "levels", [[137, 700], [137, 700, 1300], [137, 137, 700, 1300], [137] * 5 + [700] * 5]
)
def test_darks_that_differ_with_no_majority_are_used_and_it_is_said(levels):
    kept = judge_frames.run(darks([float(level) for level in levels]))
    assert len(kept) == len(levels)
    assert (
        "S0001.fits used: the levels of the dark frames differ, and none can be told wrong"
        in kept[0].notes[0]
    )
    assert verdict_of(kept, 0).use == USED


@pytest.mark.parametrize("good", [1, 2, 3])
@pytest.mark.parametrize("bad", [1, 2, 7])
@pytest.mark.parametrize("value", [0.0, 137.0, 9000.0])
def test_darks_that_were_never_read_are_no_measure_of_the_others(good, bad, value):
    frames = darks([137.0] * (bad + good))
    frames[:bad] = [f.evolve(sci=np.full_like(f.sci, value)) for f in frames[:bad]]
    kept = judge_frames.run(frames)
    assert len(kept) == good
    assert all(verdict_of(kept, k).use == LEFT_OUT for k in range(bad))
    assert len(kept[0].verdicts) == bad


def test_a_copy_that_only_its_pixels_tell_is_left_out():
    frames = darks([137.0] * 3)
    copies = [frame.evolve(name=f"re_{k}.fits") for k, frame in enumerate(frames)]
    kept = judge_frames.run([copies[0], *frames, *copies[1:]])
    assert [f.name for f in kept] == [f.name for f in frames]
    assert "re_0.fits left out: the same exposure as N20160102S0001.fits" in kept[0].notes
    other = copies[2].evolve(sci=copies[2].sci + np.float32(0.5))
    kept = judge_frames.run([*frames, other])
    assert len(kept) == 4
    assert (
        "re_2.fits has the data label and the time of N20160102S0003.fits, and other pixels"
        in kept[0].notes[0]
    )


def test_lamps():
    def flats(on, off):
        lit = [kind(calibrated(k + 1, kind="flaton", sky=v, size=128)) for k, v in enumerate(on)]
        return lit + [kind(calibrated(k + 51, kind="flatoff", sky=v, size=128)) for k, v in enumerate(off)]

    on, off = [50000.0 * (1 + 0.005 * k) for k in range(5)], [1500.0] * 5
    assert len(judge_frames.run(flats(on, off))) == 10
    for wrong in (1500.0, 5000.0, 70000.0):
        kept = judge_frames.run(flats([*on[:2], wrong, *on[3:]], off))
        assert len(kept) == 9
        assert "lamp-on" in kept[0].notes[0]
    kept = judge_frames.run(flats(on, [*off[:4], 50000.0]))
    assert len(kept) == 9
    assert "lamp-off" in kept[0].notes[0]


# -- after registration --------------------------------------------------------------------------------------


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


# -- the parts -----------------------------------------------------------------------------------------------


def test_figures_of_a_frame():
    frame = calibrated(1, sky=2000.0)
    found = figures(frame.sci, frame.var, frame.dq)
    assert found.level == pytest.approx(2000, abs=15)
    assert found.noise == pytest.approx(np.sqrt(2000 + READ**2), rel=0.05)
    assert found.expected == pytest.approx(found.noise, rel=0.05)
    assert found.saturated == 0


def test_bright_spots_are_the_stars():
    rng = np.random.default_rng(2)
    image = rng.normal(3000, 50, (256, 256))
    stars = [(60.0, 80.0, 3e5), (150.3, 201.8, 1e5), (200.0, 40.0, 5e4)]
    for x, y, flux in stars:
        add_star(image, x, y, flux, 4.5)
    found = bright_spots(image.astype(np.float32), np.zeros(image.shape, bool), 50.0)
    assert len(found.x) == 3
    for k, (x, y, flux) in enumerate(stars):
        assert np.hypot(found.x[k] - x, found.y[k] - y) < 1.5
        assert found.flux[k] == pytest.approx(flux, rel=0.2)


def test_fewer_than_three_frames_are_not_compared_for_cloud():
    frames = sequence(2)
    assert clouded(frames, [figures(f.sci, f.var, f.dq) for f in frames], 0.7) == {}


def test_far_from_usual():
    assert oddness.far_from_usual(np.array([1.0, 1.1, 0.9, 9.0]), 1.0) == [
        None,
        None,
        None,
        pytest.approx(7.95),
    ]
    assert oddness.far_from_usual(np.array([1.0, 9.0]), 1.0) == [None, None]
    assert not any(oddness.far_from_usual(np.array([1.0, 1.1, 9.0, 9.2]), 1.0))


def test_the_harder_of_two_verdicts_is_kept():
    soft, hard = Verdict("a", sky=LEFT_OUT), Verdict("a", LEFT_OUT)
    kept = replace(hard, sky=LEFT_OUT)
    assert merged((soft,), (hard,)) == merged((hard,), (soft,)) == (kept,)
    assert merged((soft,), (replace(soft, frame="b"),)) == (soft, replace(soft, frame="b"))
    (both,) = merged((soft,), (Verdict("a", SCALED, weight=0.4),))
    assert (both.use, both.sky, both.weight) == (SCALED, LEFT_OUT, 0.4)


def test_every_limit_is_told_with_reason_and_source():
    for name, limit in LIMITS.items():
        assert limit.value > 0, name
        assert len(limit.reason) > 10, name
        assert limit.source, name
