"""Faults of simulated frames: each does what it says, and nothing else."""

import json
from dataclasses import replace

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS

from pipeline.simulate import PRESETS, Fault, Motion, Preset, Run, Shot, simulate_night
from pipeline.simulate.faults import drifting_gradient, nods
from pipeline.simulate.runs import at
from pipeline.simulate.sky import Field

SKY = 100.0


def one_star(**changes) -> Shot:
    shot = Shot(shape=(128, 128), port=3, pa=30.0, **changes).with_sky(SKY)
    ra, dec = (np.array([value]) for value in shot.target)
    return shot.with_field(Field("one", shot.target, ra, dec, np.array([15.0])))


def moments(shot: Shot) -> tuple[float, float, float, np.ndarray]:
    """(light, x, y, second moments along x, y and both) of the star, above the sky."""
    image = shot.light_rate().astype(float) - SKY
    y, x = np.mgrid[: image.shape[0], : image.shape[1]]
    total = image.sum()
    x0, y0 = (x * image).sum() / total, (y * image).sum() / total
    near = image * (np.hypot(x - x0, y - y0) < 30)
    square = [
        (near * a * b).sum() / near.sum() for a, b in ((x - x0, x - x0), (y - y0, y - y0), (x - x0, y - y0))
    ]
    return total, x0, y0, np.array(square)


def test_cloud_takes_the_stars_and_leaves_the_sky():
    clear, cloudy = one_star(), one_star().with_fault(cloud=1.5)
    assert moments(cloudy)[0] / moments(clear)[0] == pytest.approx(10**-0.6, rel=2e-3)
    assert cloudy.light_rate()[:10].mean() == pytest.approx(SKY, rel=1e-3)


def test_a_trail_is_as_long_as_asked_and_keeps_light_and_place():
    sharp, trailed = one_star(), one_star().with_fault(trail=12.0, trail_angle=30.0)
    a, b = moments(sharp), moments(trailed)
    assert b[:3] == pytest.approx(a[:3], rel=1e-3)
    wider, c, s = b[3] - a[3], np.cos(np.pi / 6), np.sin(np.pi / 6)
    assert wider == pytest.approx(12.0**2 / 12 * np.array([c * c, s * s, c * s]), rel=0.1)


def test_a_double_image_moves_the_centre_by_its_share():
    sharp, double = moments(one_star()), moments(one_star().with_fault(double=(8.0, 3.0), share=0.3))
    assert double[0] == pytest.approx(sharp[0], rel=1e-3)
    assert np.subtract(double[1:3], sharp[1:3]) == pytest.approx([2.4, 0.9], abs=0.01)


def test_a_wrong_header_leaves_the_light_where_it_was():
    right, wrong = one_star(), one_star().with_fault(header=(40.0, -25.0))
    assert moments(wrong)[:3] == pytest.approx(moments(right)[:3], rel=1e-3)
    for shot, shift in ((right, (0, 0)), (wrong, (40.0, -25.0))):
        x, y = WCS(shot.headers()[1]).wcs_world2pix(*shot.target, 0)
        assert np.subtract(moments(shot)[1:3], (x, y)) == pytest.approx(shift, abs=0.1)
    phu = wrong.headers()[0]
    moved = replace(right, offset=(phu["POFFSET"], phu["QOFFSET"]))
    assert moved.headers()[1]["CRVAL1"] == wrong.headers()[1]["CRVAL1"]


@pytest.mark.parametrize(
    ("wrong", "level", "tolerance"),
    [
        ({"dead": True}, 0.0, 1.0),
        ({"constant": 7.0}, 7.0, 0.0),
        ({"add": 50.0}, SKY * 20.002 / 12.3 + 50, 1.0),
        ({"sky": 2.0}, 2 * SKY * 20.002 / 12.3, 1.0),
        ({"saturated": True}, 202_000 / 12.3, 5.0),
    ],
)
def test_levels_of_spoilt_frames(wrong, level, tolerance):
    raw = one_star().with_fault(**wrong).render(seed=3)
    assert np.median(raw.adu) == pytest.approx(level, abs=tolerance)
    assert raw.saturated.all() == ("saturated" in wrong)


def test_a_dark_with_a_light_on_is_saturated_all_over():
    dark = replace(one_star(), kind="dark")
    assert not dark.render(seed=3).saturated.any()
    assert dark.with_fault(saturated=True).render(seed=3).saturated.all()


def test_a_tilted_sky_has_its_level_and_its_slope():
    faults = drifting_gradient(5, 0.04, angle=0.0)
    image = one_star().with_fault(faults[4]).light_rate()[:20]
    assert image.mean() == pytest.approx(SKY, rel=1e-3)
    assert image[:, -1].mean() - image[:, 0].mean() == pytest.approx(0.04 * SKY, rel=0.02)
    assert faults[0].gradient == 0.0


@pytest.mark.parametrize("wrong", [{"trail": 9.0}, {"double": (6.0, 0.0)}, {"blur": 2.5}])
def test_light_is_spoilt_before_there_is_noise(wrong):
    """A spoilt frame is not smoothed: its noise from pixel to pixel is that of any other."""
    noise = [
        np.diff(shot.render(seed=5).adu[:25, :40], axis=1).std()
        for shot in (one_star(), one_star().with_fault(**wrong))
    ]
    assert noise[1] == pytest.approx(noise[0], rel=0.08)


def test_a_night_tells_what_is_wrong(tmp_path):
    base = PRESETS["tiny"]
    name = "N20160102S0272"
    plan = replace(
        base, runs=(replace(base.runs[0], faults={1: Fault(dead=True)}),), faults={name: Fault(cloud=2.0)}
    )
    clean = json.loads(simulate_night(tmp_path / "clean", replace(base, runs=base.runs[:1])).read_text())
    night = json.loads(simulate_night(tmp_path / "rough", plan).read_text())
    facts = {frame["file"][:14]: frame for frame in night["frames"]}
    assert facts["N20160102S0271"]["fault"] == {"dead": True}
    assert facts[name]["fault"] == {"cloud": 2.0}
    assert "fault" not in facts["N20160102S0270"]
    for before, after in zip(clean["frames"], night["frames"], strict=True):
        assert after["wcs_error_pix"] == before["wcs_error_pix"]
    assert facts[name]["transparency"] == pytest.approx(clean["frames"][2]["transparency"] * 10**-0.8)
    # A fault of one frame is no fault of the others.
    raw = [tmp_path / kind / "N20160102S0270.fits" for kind in ("clean", "rough")]
    assert raw[0].read_bytes() == raw[1].read_bytes()


@pytest.mark.parametrize("follows", ["telescope", "offsets"])
def test_a_moving_target_is_where_the_header_predicts_it(tmp_path, follows):
    """Between two frames it moves by what the offsets say, or stays, while the stars move."""
    shot = Shot(shape=(256, 256), port=3, pa=20.0, exposure=5.001)
    field = Field("one", shot.target, *(np.array([value]) for value in (*shot.target, 14.0)))
    motion = Motion((300.0, -200.0), 13.0, place=(3.0, 2.0), follows=follows)
    run = Run(shot, "N20160102S0001", at("2016-01-02T08:00:00"), ((0.0, 0.0),) * 3, "one", motion=motion)
    plan = Preset("moving", "", (run,), lambda rng: {"one": field})
    night = json.loads(simulate_night(tmp_path, plan, jitter=0.0).read_text())
    first, _, last = night["frames"]
    seconds = (at(last["utc"]) - at(first["utc"])).total_seconds()
    path = np.subtract(last["mover"]["xy"], first["mover"]["xy"])
    stars = np.subtract(last["target_xy"], first["target_xy"])
    moved = np.hypot(300.0, 200.0) / 3600 * seconds / 0.117
    assert np.hypot(*(path - stars)) == pytest.approx(moved, rel=0.01)
    assert (
        path == pytest.approx([0, 0], abs=0.02)
        if follows == "telescope"
        else stars == pytest.approx([0, 0], abs=0.02)
    )
    phu = [fits.getheader(tmp_path / frame["file"]) for frame in (first, last)]
    assert phu[0]["RATRACK"] == pytest.approx(300 / 3600 / 15 / np.cos(np.deg2rad(shot.target[1])), rel=1e-3)
    told = np.subtract(*([h["POFFSET"], h["QOFFSET"]] for h in reversed(phu)))
    at_offset = replace(shot, offset=tuple(told)).header_pointing.pixels(
        *(np.array([v]) for v in shot.target)
    )
    here = shot.header_pointing.pixels(*(np.array([v]) for v in shot.target))
    assert np.ravel(np.subtract(at_offset, here)) == pytest.approx(path, abs=0.1)
    image = fits.getdata(tmp_path / last["file"], 1)
    x, y = last["mover"]["xy"]
    box = image[round(y) - 8 : round(y) + 9, round(x) - 8 : round(x) + 9]
    peak = np.unravel_index(np.argmax(box), box.shape)
    assert np.subtract(peak, 8) == pytest.approx([0, 0], abs=2.5)


def test_nods_lie_evenly_about_the_target():
    assert nods("ABBA", (20.0, -6.0)) == ((-10.0, 3.0), (10.0, -3.0), (10.0, -3.0), (-10.0, 3.0))
