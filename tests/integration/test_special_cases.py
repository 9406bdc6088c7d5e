"""Whole reductions of the cases that are not the usual one, each held to what truly fell on the detector."""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import timedelta
from functools import cache
from typing import NamedTuple

import numpy as np
import pytest
from astropy.io import fits

from pipeline import niri
from pipeline.errors import NotEnoughFrames
from pipeline.files.read import read_frame
from pipeline.frame import Frame
from pipeline.headers.merged import merge
from pipeline.headers.tangent import tangent
from pipeline.primitive import Calibrations, run_recipe
from pipeline.recipes import MAKE_PROCESSED_DARK, MAKE_PROCESSED_FLAT, REDUCE
from pipeline.simulate import Shot
from pipeline.simulate.detector import make_detector
from pipeline.simulate.sky import ZERO_POINTS, Field, offset_position
from pipeline.steps.sky import associate_sky, separate_sky, sky_correct
from tests.skyframes import calibrated

TARGET = (148.9255, 20.0)
OFFSETS = ((0.0, 0.0), (3.1, 2.0), (-2.6, 2.2), (-2.1, -2.7), (2.4, -3.0))
# Pixels by which stars lie away from where headers say, frame by frame; nothing tells it for the first.
ERRORS = ((0.0, 0.0), (1.3, -0.8), (-1.1, 0.6), (0.4, 1.7), (-0.7, -1.2))
SKY = (100.0, -90.0)  # arcsec, to where there is nothing but sky
SECONDS = 20.002
FWHM = 4.3


class Star(NamedTuple):
    east: float  # arcsec
    north: float
    mag: float


STARS = (Star(1.0, -2.0, 14.2), Star(-7.5, 5.0, 14.8), Star(6.0, 7.5, 15.3), Star(-4.5, -8.0, 15.0))


def field(stars=STARS, scale=1.0):
    places = [offset_position(*TARGET, s.east * scale, s.north * scale) for s in stars]
    ra, dec = np.array(places).T
    return Field("stars", TARGET, ra, dec, np.array([s.mag for s in stars]))


@cache
def array():
    return make_detector(np.random.default_rng(11))


def shots(offsets=OFFSETS, *, size=256, **changes):
    """Dithered exposures of the stars, 30 s apart, on a detector with a response and faults of its own."""
    base = Shot(
        shape=(size, size), port=3, light=700.0, exposure=SECONDS, fwhm=FWHM, field=field(), target=TARGET
    )
    base = replace(base, **changes).with_detector(array())
    return [
        replace(
            base,
            name=f"N20160102S{k:04d}",
            number=k,
            start=base.start + k * timedelta(seconds=30),
            offset=offset,
            pointing_error=ERRORS[(k - 1) % 5],
        )
        for k, offset in enumerate(offsets, 1)
    ]


def frame_of(shot, seed=0):
    raw = shot.render(1000 * seed + shot.number)
    header = fits.Header(list(merge(raw.phu, raw.ext).items()))
    return Frame(raw.adu, np.zeros(shot.shape, np.uint16), header, "adu", f"{shot.name}.fits")


@cache
def dark(size=256, **changes):
    some = shots(((0, 0),) * 3, size=size, kind="dark", field=None, light=0.0, **changes)
    return run_recipe(MAKE_PROCESSED_DARK.bind(), [frame_of(s, 1) for s in some]).frame


@cache
def flat(size=256, well="Shallow"):
    how = {"size": size, "field": None, "exposure": 2.001, "well": well}
    on = shots(((0, 0),) * 3, kind="flaton", light=24_000.0, **how)
    off = [replace(s, number=s.number + 3, name=f"{s.name[:-1]}9") for s in
           shots(((0, 0),) * 3, kind="flatoff", light=700.0, **how)]  # fmt: skip
    return run_recipe(MAKE_PROCESSED_FLAT.bind(), [frame_of(s, 2) for s in (*on, *off)]).frame


def reduced(frames, cals=None, **parameters):
    """The product of `reduce`, with every frame in it."""
    told = {"removeFirstFrame:remove_first": False} | {k.replace("__", ":"): v for k, v in parameters.items()}
    size = frames[0].shape[0]
    return run_recipe(REDUCE.bind(told), frames, cals or Calibrations(dark=dark(size), flat=flat(size)))


def found(stack, stars=STARS, scale=1.0):
    """Rows of the stack's catalogue nearest to the stars, and how far away they are, pixels."""
    wcs = tangent(stack.header)
    truth = field(stars, scale)
    x, y = wcs.to_pixel(truth.ra, truth.dec)
    table = stack.catalog
    away = np.hypot(table["X_FIT"][:, None] - 1 - x, table["Y_FIT"][:, None] - 1 - y)
    return table[away.argmin(axis=0)], away.min(axis=0)


def right(stack, stars=STARS, *, seconds=SECONDS, filter="Kprime", scale=1.0, within=0.1):
    """Every star where it should be, as sharp as in one frame, with all its electrons; the sky at zero."""
    rows, away = found(stack, stars, scale)
    assert away.max() < within
    np.testing.assert_allclose(rows["FWHM_FIT"], FWHM, rtol=0.06)
    electrons = np.array([10 ** (0.4 * (ZERO_POINTS[filter] - s.mag)) * seconds for s in stars])
    # A Kron aperture holds some 0.95 of a star with wide wings.
    np.testing.assert_allclose(rows["FLUX_AUTO"] / electrons, 0.95, atol=0.05)
    empty = (stack.dq == 0) & (stack.coverage == stack.coverage.max())
    pull = stack.sci[empty] / np.sqrt(stack.var[empty])
    assert abs(np.median(pull)) < 0.12


# --- which part of the array is read ---


@pytest.mark.parametrize("size", [256, 512, 768])
def test_sub_arrays(size):
    bpm = Frame(
        np.zeros((1024, 1024), np.float32),
        array().static_bpm.astype(np.uint16),
        fits.Header(),
        "adu",
        "bpm.fits",
    )
    cals = Calibrations(dark=dark(size), flat=flat(size), static_bpm=bpm)
    product = reduced([frame_of(s) for s in shots(OFFSETS[:4], size=size)], cals)
    right(product.frame)
    # A wrong cut of the mask would take good pixels out and leave bad ones in.
    wanted = array().cut(size)
    first = frame_of(shots(size=size)[0])
    from pipeline.steps.quality import add_dq

    (marked,) = add_dq.run([first], None, cals)
    assert ((marked.dq & 1) > 0).sum() == wanted.static_bpm.sum()
    assert ((marked.dq & 1) > 0)[wanted.static_bpm].all()
    told = "no linearity coefficients" in " ".join(product.notes)
    assert told is (size != 256)


def test_whole_numbers_give_the_same_pixels(tmp_path):
    made = []
    for dtype in ("int32", "float32"):
        frames = []
        for shot in shots(dtype=dtype):
            shot.render(shot.number).write(tmp_path / f"{shot.name}.{dtype}.fits")
            frames.append(read_frame(tmp_path / f"{shot.name}.{dtype}.fits", name=f"{shot.name}.fits"))
        made.append(reduced(frames).frame)
    assert fits.getheader(tmp_path / "N20160102S0001.int32.fits", 1)["BITPIX"] == 32
    right(made[0])
    np.testing.assert_array_equal(made[0].sci, made[1].sci)
    np.testing.assert_array_equal(made[0].var, made[1].var)


def test_fifty_coadds():
    """EXPTIME is of one coadd; pedestal, read noise and linearity are those of fifty."""
    how = {"coadds": 50, "exposure": 0.4, "read_mode": "Medium Background"}
    cals = Calibrations(dark=dark(**how), flat=flat())
    product = reduced([frame_of(s) for s in shots(**how)], cals)
    stack = product.frame
    right(stack, seconds=20.0)
    assert stack.header["EXPTIME"] == pytest.approx(20.0)
    assert stack.header["RDNOISE"] == pytest.approx(niri.READ_NOISE_ELECTRONS["Medium Background"] * 50**0.5)
    empty = (stack.dq == 0) & (stack.coverage == 5)
    ny, nx = (8 * (n // 8) for n in stack.shape)
    blocks = np.where(empty, stack.sci, np.nan)[:ny, :nx].reshape(ny // 8, 8, nx // 8, 8)
    sums = blocks.sum(axis=(1, 3))
    noise = np.where(empty, stack.var, np.nan)[:ny, :nx].reshape(blocks.shape).sum(axis=(1, 3)) ** 0.5
    pulls = (sums / noise)[np.isfinite(sums)]
    spread = 1.4826 * np.median(np.abs(pulls - np.median(pulls)))
    assert spread == pytest.approx(1.0, abs=0.2)


# --- where the frames point ---


@pytest.mark.parametrize(("port", "pa"), [(1, 0.0), (1, 30.0), (3, 30.0)])
def test_mirrored_parity_and_position_angles(port, pa):
    """On the bottom port east is right; positions on the sky come out the same."""
    frames = [frame_of(s) for s in shots(port=port, pa=pa)]
    wcs = tangent(frames[0].header)
    assert np.sign(np.linalg.det(wcs.cd)) == (1 if port == 1 else -1)
    right(reduced(frames).frame)


def no_wcs(frame):
    return frame.evolve(cards=dict.fromkeys(("CD1_1", "CD1_2", "CD2_1", "CD2_2", "CTYPE1", "CTYPE2")))


def test_a_frame_whose_wcs_did_not_follow_and_one_without_any():
    frames = [frame_of(s) for s in shots()]
    home = frames[0].header
    frames[2] = frames[2].evolve(cards={key: home[key] for key in ("CRVAL1", "CRVAL2", "CRPIX1", "CRPIX2")})
    frames[3] = no_wcs(frames[3])
    product = reduced(frames)
    right(product.frame)
    assert product.frame.header["NCOMBINE"] == 5
    said = " ".join(product.notes)
    for name in ("N20160102S0003", "N20160102S0004"):
        assert f"{name}.fits: " in said
        assert f"rebuilt from {frames[0].name} and the telescope offsets" in said


def test_no_frame_has_a_wcs():
    """It is made of target, angle and camera; the stars agree with each other, not with the sky's zero."""
    product = reduced([no_wcs(frame_of(s)) for s in shots()])
    stack = product.frame
    assert "made from target, position angle and camera scale" in " ".join(product.notes)
    rows = stack.catalog[: len(STARS)]
    np.testing.assert_allclose(rows["FWHM_FIT"], FWHM, rtol=0.06)
    brightness = sorted(10 ** (0.4 * (ZERO_POINTS["Kprime"] - s.mag)) * SECONDS for s in STARS)
    np.testing.assert_allclose(sorted(rows["FLUX_AUTO"]) / np.array(brightness), 0.95, atol=0.05)
    truth = field()
    x, y = tangent(stack.header).to_pixel(truth.ra, truth.dec)
    near = [
        np.argmin(np.hypot(rows["X_FIT"] - 1 - a, rows["Y_FIT"] - 1 - b)) for a, b in zip(x, y, strict=True)
    ]
    dx, dy = rows["X_FIT"][near] - 1 - x, rows["Y_FIT"][near] - 1 - y
    # The camera's scales along x and y differ by half a percent, which the nominal one cannot know.
    assert np.ptp(dx) < 1.0
    assert np.ptp(dy) < 1.0


def test_with_two_frames_left_it_says_so():
    frames = [frame_of(s) for s in shots(OFFSETS[:3])]
    frames = [no_wcs(f).evolve(cards={"RA": None, "DEC": None}) for f in frames]
    with pytest.raises(NotEnoughFrames, match="0 frames have a usable WCS, wanted 3"):
        reduced(frames)


def test_a_moving_target_is_stacked_on_itself():
    """The telescope follows it; the stars drift by 0.9 arcsec a frame and are left behind."""
    cards = (("FRAME", "APPT"), ("TRKFRAME", "APPT"), ("RATRACK", 0.002), ("DECTRACK", 0.0))
    target = Star(0.0, 0.0, 14.0)
    frames = []
    for k, shot in enumerate(shots(cards=cards)):
        stars = (target, *(Star(s.east + 6 + 0.9 * k, s.north, s.mag + 1) for s in STARS))
        frames.append(frame_of(replace(shot, field=field(stars))))
    product = reduced(frames)
    stack = product.frame
    rows, away = found(stack, (target,))
    assert away[0] < 0.1
    assert rows["FWHM_FIT"][0] == pytest.approx(FWHM, rel=0.04)
    electrons = 10 ** (0.4 * (ZERO_POINTS["Kprime"] - target.mag)) * SECONDS
    assert rows["FLUX_AUTO"][0] == pytest.approx(0.95 * electrons, rel=0.05)


# --- what is missing ---


def on_and_off(order):
    """Object (O) and sky (S) pointings."""
    offsets = [
        (p, q) if kind == "O" else (p + SKY[0], q + SKY[1])
        for kind, (p, q) in zip(order, OFFSETS * 2, strict=False)
    ]
    return [frame_of(replace(s, guided=kind == "O")) for kind, s in zip(order, shots(offsets), strict=True)]


def test_two_sky_frames_only():
    product = reduced(on_and_off("OSOOSO"))
    right(product.frame)
    assert product.frame.header["NCOMBINE"] == 4


def test_one_sky_frame_only():
    product = reduced(on_and_off("OOSO"))
    _rows, away = found(product.frame)
    assert away.max() < 0.1
    assert "one sky frame only" in " ".join(product.notes)


def test_no_dark():
    """The skies bring the dark along, so that it goes with them; the note says what was not done."""
    frames = [frame_of(s) for s in shots()]
    product = reduced(frames, Calibrations(flat=flat()), darkCorrect__do_cal="skip")
    right(product.frame)
    assert "no dark subtracted, as told by darkCorrect:do_cal=skip" in product.notes


# --- a thermal sky ---


def test_a_thermal_sky_that_changes_its_shape_is_taken_from_the_nearest_frames():
    """A slope of 0.3 % of the sky that turns once in 12 minutes: four skies leave half of what all leave, and
    a tenth is left where the slopes are brought to one first."""
    rows, columns = np.indices((128, 128)) / 128 - 0.5
    frames = []
    for k in range(9):
        place = (4 * math.cos(2.1 * k) + 0.3 * k, 4 * math.sin(2.1 * k))
        frame = calibrated(k + 1, place, sky=1e6, filter="Lprime", size=128)
        angle = 2 * math.pi * k * 30 / 720
        slope = 3e3 * (columns * math.cos(angle) + rows * math.sin(angle))
        frames.append(frame.evolve(sci=frame.sci + slope.astype(np.float32)))
    ready, left = separate_sky.run(frames), []
    for how, gradient in (({}, False), ({"thermal_skies": 0}, False), ({"thermal_skies": 0}, True)):
        associated = associate_sky.run(ready, **how)
        out = sky_correct.run(associated, gradient=gradient)
        left.append(np.mean([f.sci.reshape(8, 16, 8, 16).mean((1, 3)).std() for f in out]))
    assert left[0] < 0.6 * left[1]
    assert left[2] < 0.2 * left[1]  # of which most is noise
    assert {len(f.skies) for f in associate_sky.run(ready)} == {4}
    kprime = separate_sky.run([f.evolve(cards={"FILTER1": "Kprime_G0206"}) for f in frames])
    assert min(len(f.skies) for f in associate_sky.run(kprime)) > 4


def test_a_sky_whose_shape_changes_beyond_measure_has_a_level_all_the_same():
    """A slope is no Gaussian: where the fit of one runs away, the median has to do."""
    from pipeline.algorithms.background import _fit_histogram

    counts = np.ones(1600)
    level = _fit_histogram(counts, counts * (np.arange(1600) + 0.5), 0.0, 1.0, 800.0, 600.0, 3.0, 1.5)
    assert 400 < level.level < 1200
    assert level.sigma < 1600
    for step, sigma in ((np.r_[np.zeros(799), 1e4, np.zeros(800)], 50.0), (np.r_[1e4, np.zeros(1599)], 20.0)):
        narrow = _fit_histogram(step, step * (np.arange(1600) + 0.5), 0.0, 1.0, 800.0, sigma, 3.0, 1.5)
        assert np.isfinite(narrow.level)


# --- f/32 with the AO field lens ---


def distorted(x, y, size, k=1.32e-5):
    """Where the detector sees what an undistorted one would have at (x, y): r_true = r + k r²."""
    middle = (size - 1) / 2
    r = np.hypot(x - middle, y - middle)
    ratio = 1.0 if r == 0 else (np.sqrt(1 + 4 * k * r) - 1) / (2 * k * r)
    return middle + (x - middle) * ratio, middle + (y - middle) * ratio


@pytest.mark.parametrize("corrected", [True, False])
def test_the_distortion_of_f32_with_ao(corrected):
    size, scale = 256, niri.PIXEL_SCALE_F32_AO
    stars = tuple(Star(s.east * 0.21, s.north * 0.21, s.mag) for s in STARS)
    truth, frames = field(stars), []
    cd = np.array([[-scale, 0.0], [0.0, scale]])
    for shot in shots([(0.34 * p, 0.34 * q) for p, q in OFFSETS], size=size, field=None):
        ideal = shot.header_pointing._replace(x=127.5, y=127.5, cd=cd)
        x, y = ideal.pixels(truth.ra, truth.dec)
        rate = 10 ** (0.4 * (ZERO_POINTS["Kprime"] - truth.mag))
        places = [distorted(a, b, size) for a, b in zip(x, y, strict=True)]
        sources = [(a, b, r) for (a, b), r in zip(places, rate, strict=True)]
        frame = frame_of(shot.with_sources(sources))
        cards = {"CAMERA": "f32", "AOFOLD": "IN", "CRPIX1": 128.5, "CRPIX2": 128.5}
        cards |= {f"CD{i}_{j}": cd[i - 1, j - 1] / 3600 for i in (1, 2) for j in (1, 2)}
        frames.append(frame.evolve(cards=cards))
    # Calibrations of another camera: of the detector alone, which is the same.
    name = {"filter_name": frames[0].descriptors.filter_name}
    assert flat().descriptors.filter_name == name["filter_name"]
    product = reduced(
        frames, resampleToCommonFrame__distortion=corrected, adjustWCSToReference__distortion=corrected
    )
    stack = product.frame
    _rows, away = found(stack, stars)
    if corrected:
        assert away.max() < 0.08
        right(stack, stars)
    else:
        assert away.max() > 0.12  # so the test would see it
