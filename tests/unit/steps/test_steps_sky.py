"""separateSky, associateSky and skyCorrect on frames of a known sky."""

from dataclasses import replace

import numpy as np
import pytest

from pipeline.errors import BadFrame
from pipeline.frame import BAD_PIXEL, COSMIC_RAY, SATURATED
from pipeline.primitive import Calibrations
from pipeline.steps.sky import associate_sky, separate_sky, sky_correct
from pipeline.steps.skysubtract import SkyCorrectParams
from tests.skyframes import FIVE, calibrated, star_field

FAR = (330.0, 210.0)


def dithers(**choices):
    return [calibrated(k, offset, **choices) for k, offset in enumerate(FIVE, 1)]


def on_and_off(order="OOOSSS", **choices):
    """Objects (O) and skies (S), all dithered, 30 s apart."""
    frames = []
    for k, kind in enumerate(order, 1):
        p, q = FIVE[k % 5]
        frames.append(
            calibrated(k, (p, q) if kind == "O" else (FAR[0] + p, FAR[1] + q), guided=kind == "O", **choices)
        )
    return frames


def ready(frames, **params):
    return associate_sky.run(separate_sky.run(frames), **params)


# --- separateSky ---


def test_one_pointing_serves_as_both():
    out = separate_sky.run(dithers())
    assert all(f.roles == {"object", "sky"} for f in out)
    assert {f.header["EXPGROUP"] for f in out} == {1}


def test_unguided_frames_apart_are_sky():
    out = separate_sky.run(on_and_off())
    assert [sorted(f.roles) for f in out] == [["object"]] * 3 + [["sky"]] * 3
    assert [f.header["EXPGROUP"] for f in out] == [1, 1, 1, 2, 2, 2]
    assert "SKYFRAME" in out[3].header
    assert "SKYFRAME" not in out[0].header


def test_an_unguided_frame_among_guided_ones_stays_object():
    frames = on_and_off("OOSS")
    frames[1] = calibrated(2, (5.0, 3.0), guided=False)
    assert separate_sky.run(frames)[1].roles == {"object"}
    assert separate_sky.run(frames, unguided="always")[1].roles == {"sky"}


def test_without_guiding_the_group_nearer_the_target_is_object():
    frames = [calibrated(k, o) for k, o in enumerate([(400.0, 0.0), (0.0, 0.0), (0.0, 5.0), (405.0, 0.0)])]
    assert [sorted(f.roles) for f in separate_sky.run(frames)] == [["sky"], ["object"], ["object"], ["sky"]]


def test_names_decide_and_spread_over_their_group():
    out = separate_sky.run(on_and_off(), ref_obj=("N20160102S0005",))
    assert [sorted(f.roles) for f in out] == [["sky"]] * 3 + [["object"]] * 3


def test_what_is_neither_is_left_out_with_a_note():
    frames = [calibrated(1), calibrated(2, FAR), calibrated(3, (-400.0, 0.0))]
    out = separate_sky.run(frames, ref_obj=("S0001",), ref_sky=("S0002",))
    assert [f.name for f in out] == ["N20160102S0001.fits", "N20160102S0002.fits"]
    assert "S0003.fits left out" in out[0].notes[0]


# --- associateSky ---


def test_dithers_are_each_others_sky():
    out = ready(dithers())
    assert out[0].skies == tuple(f.name for f in out[1:])
    assert out[2].skies == tuple(f.name for f in out if f is not out[2])


def test_skies_within_the_time_or_at_least_three():
    frames = [calibrated(k, FIVE[k % 5], seconds=400.0 * k) for k in range(1, 9)]
    out = ready(frames)
    assert [n[11:14] for n in out[0].skies] == ["002", "003", "004"]
    assert [n[11:14] for n in out[3].skies] == ["002", "003", "005", "006"]
    assert len(ready(frames, max_skies=2)[3].skies) == 2
    assert len(ready(frames, use_all=True)[0].skies) == 7


def test_other_exposures_and_equal_pointings_are_no_sky():
    frames = dithers()
    frames[1] = calibrated(2, FIVE[1], exposure=10.0)
    frames[2] = calibrated(3, (0.3, 0.0))
    assert [n[11:14] for n in ready(frames)[0].skies] == ["004", "005"]


def test_an_object_without_sky_is_left_out_unless_none_has_one():
    frames = dithers()
    frames[1] = calibrated(2, FIVE[1], exposure=10.0)
    out = ready(frames)
    assert len(out) == 4
    assert "S0002.fits left out" in out[0].notes[0]
    assert all(not f.skies for f in ready([calibrated(1)]))


# --- skyCorrect ---


@pytest.mark.parametrize("preset", ["nirid", "dragons"])
def test_dithered_star_field_is_left_at_zero(preset):
    stars = star_field(25)
    drift = [2000.0, 2040.0, 1980.0, 2010.0, 2060.0]
    frames = [
        calibrated(k, o, stars=stars, sky=s) for k, (o, s) in enumerate(zip(FIVE, drift, strict=True), 1)
    ]
    truth = [calibrated(k, o, stars=stars, sky=0.0).var - 35.0**2 for k, o in enumerate(FIVE, 1)]
    out = sky_correct.body(ready(frames), params(preset), Calibrations())
    levels = []
    for frame, light in zip(out, truth, strict=True):
        empty = (frame.dq == 0) & (light < 2)
        levels.append(np.mean(frame.sci[empty] - light[empty]))
        assert frame.header["SKYHOW"] == "scaled"
    assert abs(np.mean(levels)) < (0.3 if preset == "nirid" else 2.0)  # one frame's mean is known to 0.25
    assert np.std(levels) < (0.8 if preset == "nirid" else 4.0)


def params(preset, **values):
    from pipeline.params import build

    return build(SkyCorrectParams, values, preset=preset)[0]


def test_stars_keep_their_light():
    stars = [(0.0, 0.0, 2e5), (6.0, -5.0, 1e5)]
    frames = dithers(stars=stars)
    for frame in sky_correct.run(ready(frames)):
        light = frame.var * 0
        light += calibrated(int(frame.name[10:14]), offset_of(frame), stars=stars, sky=0.0).var - 35.0**2
        inside = light > 20
        assert frame.sci[inside].sum() == pytest.approx(light[inside].sum(), rel=0.02)


def offset_of(frame):
    return FIVE[int(frame.name[10:14]) - 1]


def test_noise_is_what_var_says():
    out = sky_correct.run(ready(dithers()))
    pulls = np.concatenate([(f.sci / np.sqrt(f.var))[f.dq == 0] for f in out])
    assert np.std(pulls) == pytest.approx(1.0, abs=0.015)


def test_the_noise_of_a_common_flat_and_dark_is_not_counted():
    rng = np.random.default_rng(3)
    flat, dark = calibrated(80, sky=1.0), calibrated(81, sky=0.0)
    errors = rng.normal(0, 0.01, flat.shape).astype(np.float32)
    offsets = rng.normal(0, 20, flat.shape).astype(np.float32)
    flat = replace(flat, sci=1 + 0 * errors, var=np.full_like(errors, 1e-4))
    dark = replace(dark, sci=0 * errors, var=np.full_like(errors, 400.0))
    frames = []
    for frame in dithers(sky=20000.0):
        sci = (frame.sci + offsets) * (1 + errors)
        var = frame.var + np.float32(400) + frame.sci**2 * np.float32(1e-4)
        frames.append(
            frame.evolve(sci=sci.astype(np.float32), var=var, cards={"FLATCORR": "yes", "DARKCORR": "yes"})
        )
    cals = Calibrations(flat=flat, dark=dark)
    out = sky_correct.body(ready(frames), SkyCorrectParams(), cals)
    plain = sky_correct.body(ready(frames), SkyCorrectParams(common_noise=False), cals)
    good = out[0].dq == 0
    assert np.std((out[0].sci / np.sqrt(out[0].var))[good]) == pytest.approx(1.0, abs=0.02)
    assert np.std((plain[0].sci / np.sqrt(plain[0].var))[good]) < 0.8


def test_offset_skies_are_not_scaled_and_the_galaxy_stays():
    galaxy = lambda x, y: 3000 * np.exp(-np.hypot(x, y) / 60)  # noqa: E731
    frames = [
        calibrated(k, o, scene=galaxy if far == (0, 0) else None, guided=far == (0, 0))
        for k, (o, far) in enumerate(
            [((p + f[0], q + f[1]), f) for f in ((0, 0), FAR) for p, q in FIVE[:3]], 1
        )
    ]
    for frame in sky_correct.run(ready(frames)):
        light = calibrated(int(frame.name[10:14]), FIVE[int(frame.name[10:14]) - 1], scene=galaxy, sky=0.0)
        assert np.median(frame.sci - (light.var - 35.0**2)) == pytest.approx(0, abs=1.5)
        assert frame.header["SKYHOW"] == "nearest"


def test_a_drifting_sky_is_interpolated_between_its_frames_only():
    level = lambda t: 2000 + 2.0 * t / 10  # noqa: E731 - electrons; 30 s apart
    frames = []
    for k, kind in enumerate("SOSOSO", 1):
        p, q = FIVE[k % 5]
        offset = (p, q) if kind == "O" else (FAR[0] + p, FAR[1] + q)
        frames.append(calibrated(k, offset, sky=level(30 * k), guided=kind == "O"))
    out = sky_correct.run(ready(frames))
    assert [f.header["SKYHOW"] for f in out] == ["interpolated", "interpolated", "nearest"]
    assert abs(np.median(out[0].sci)) < 1.0
    assert np.median(out[2].sci) == pytest.approx(6.0, abs=1.5)  # 30 s of drift, not extrapolated
    fixed = sky_correct.run(ready(frames), interpolate=0.0)
    assert abs(np.median(fixed[0].sci)) > 3.0


@pytest.mark.parametrize("rise", [0.0, 0.3, 30.0])
@pytest.mark.parametrize("order", ["OOOSSS", "SSSOOO"])
def test_a_sky_that_changes_fast_and_is_not_seen_on_both_sides_is_told(order, rise):
    frames = []
    for k, kind in enumerate(order, 1):
        p, q = FIVE[k % 5]
        offset = (p, q) if kind == "O" else (FAR[0] + p, FAR[1] + q)
        frames.append(calibrated(k, offset, sky=2000 + rise * k, guided=kind == "O"))
    out = sky_correct.run(ready(frames))
    told = [text for text in out[0].notes if "background may be off" in text]
    assert len(told) == (rise > 1)
    if told:
        off = -90 if order == "OOOSSS" else 90  # three steps at the first or the last object, of 2100
        assert (
            f"{off:+.0f} electron" in told[0]
            or f"{off + 1:+.0f} electron" in told[0]
            or f"{off - 1:+.0f} electron" in told[0]
        )
        assert "(limit 2 %)" in told[0]


def test_two_skies_are_enough_and_a_star_on_one_does_no_harm():
    stars = [(-3.0, 2.0, 3e5)]
    frames = [calibrated(k, o, stars=stars) for k, o in enumerate(FIVE[:3], 1)]
    out = sky_correct.run(ready(frames))
    assert len(out[0].skies) == 2
    for frame in out:
        light = calibrated(int(frame.name[10:14]), offset_of(frame), stars=stars, sky=0.0).var - 35.0**2
        left = (frame.sci - light)[frame.dq == 0]
        assert left.min() > -8 * np.sqrt(2 * 3225)
        assert abs(np.median(left)) < 3


def test_of_two_skies_the_one_with_a_cosmic_ray_is_not_believed():
    frames = dithers()[:3]
    hit = frames[1].sci.copy()
    hit[60:62, 70] += 3000
    frames[1] = frames[1].evolve(sci=hit)
    out = sky_correct.run(ready(frames), mask_objects=False)
    assert np.abs(out[0].sci[60:62, 70]).max() < 400


def test_one_sky_is_a_sound_result_with_a_note():
    out = sky_correct.run(ready([calibrated(1), calibrated(2, FIVE[1])]))
    assert abs(np.median(out[0].sci)) < 2
    assert any("one sky frame only" in text for text in out[0].notes)


def test_without_sky_frames_the_sky_is_a_model_with_a_note():
    stars = star_field(10)
    frame = calibrated(1, stars=stars)
    (out,) = sky_correct.run(ready([frame]))
    light = calibrated(1, stars=stars, sky=0.0).var - 35.0**2
    assert np.median((out.sci - light)[light < 2]) == pytest.approx(0, abs=3.0)
    assert out.header["SKYHOW"] == "model"
    assert any("its sky is a smooth model" in text for text in out.notes)
    (plain,) = sky_correct.run(ready([frame]), model=False)
    np.testing.assert_array_equal(plain.sci, frame.sci)
    assert any("not subtracted" in text for text in plain.notes)


@pytest.mark.parametrize("preset", ["nirid", "dragons"])
def test_a_frame_without_a_good_pixel_is_named(preset):
    frames = dithers()
    frames[3] = frames[3].evolve(dq=np.full_like(frames[3].dq, SATURATED))
    with pytest.raises(BadFrame, match=frames[3].name):
        sky_correct.body(ready(frames), params(preset), Calibrations())


def test_bad_pixels_stay_flagged_and_do_not_count():
    frames = dithers()
    frames = [f.evolve(sci=np.where(bad(f), np.float32(1e5), f.sci), dq=bad(f) * BAD_PIXEL) for f in frames]
    frames[1] = frames[1].evolve(
        dq=frames[1].dq | np.where(np.eye(256, dtype=bool), COSMIC_RAY, np.uint16(0))
    )
    out = sky_correct.run(ready(frames))
    assert all((f.dq[100, 100] & BAD_PIXEL) for f in out)
    assert np.abs(out[0].sci[out[0].dq == 0]).max() < 8 * 60 * 1.2
    assert (out[1].dq.diagonal() & COSMIC_RAY).all()
    assert not (out[0].dq.diagonal()[:90] & COSMIC_RAY).any()


def bad(frame):
    mask = np.zeros(frame.shape, np.uint16)
    mask[100, 90:110] = 1
    return mask


def test_offset_and_reset_of_the_sky():
    frames = dithers()
    zero = sky_correct.run(ready(frames), scale_sky=False, offset_sky=True)
    assert abs(np.mean(zero[0].sci)) < 1.0
    again = sky_correct.run(ready(frames), reset_sky=True)
    assert np.median(again[0].sci) == pytest.approx(2000, abs=2)


def test_same_pixels_again_and_inputs_untouched():
    frames = ready(dithers(stars=star_field(10)))
    before = [f.sci.copy() for f in frames]
    first, second = sky_correct.run(frames), sky_correct.run(frames)
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a.sci, b.sci)
        np.testing.assert_array_equal(a.var, b.var)
        assert a.header.tostring() == b.header.tostring()
    for frame, was in zip(frames, before, strict=True):
        np.testing.assert_array_equal(frame.sci, was)


def test_many_frames_are_searched_with_one_sky(monkeypatch):
    """Whether a frame's own skies or those of its neighbours too: the same objects, the same level."""
    from pipeline.steps import skyobjects

    stars = star_field(6, radius=6.0)
    frames = ready([calibrated(k, FIVE[k % 5], stars=stars, size=128) for k in range(1, 11)])
    own = sky_correct.run(frames)
    monkeypatch.setattr(skyobjects, "MANY", 5)
    together = sky_correct.run(frames)
    for a, b in zip(own, together, strict=True):
        assert a.header["SKYLEVEL"] == pytest.approx(b.header["SKYLEVEL"], rel=2e-4)
        assert np.abs(a.sci - b.sci).mean() < 0.05 * np.sqrt(a.var).mean()
    assert any((a.sci != b.sci).any() for a, b in zip(own, together, strict=True))
