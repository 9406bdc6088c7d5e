"""judgeFrames: what is odd in a frame before the sky is made."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.errors import NotEnoughFrames
from pipeline.frame import NON_LINEAR, SATURATED
from pipeline.steps.judge import judge_frames
from pipeline.verdict import LEFT_OUT, USED
from tests.skyframes import FIVE, READ, calibrated
from tests.unit.steps.judging import BOTH, STARS, dead, dimmed, sequence, verdict_of


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
        "S0001.fits used: the levels of the dark frames differ, and which are wrong is not clear"
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
