"""Detection, masks and the choice of stars, on images whose sources are known."""

import numpy as np
import pytest
from scipy import ndimage

from pipeline.algorithms import objectmasks as om
from pipeline.algorithms import sources as so
from tests.skyframes import add_star

SHAPE = (256, 256)
CLEAR = np.zeros(SHAPE, np.uint16)
PLACES = [
    (40.3, 50.7, 2e5),
    (120.5, 200.1, 8e4),
    (200.0, 60.0, 4e4),
    (80.2, 130.9, 3e4),
    (180.6, 180.2, 1.5e5),
]


def image(seed=1, stars=PLACES, noise=60.0, fwhm=4.5):
    light = np.zeros(SHAPE)
    for star in stars:
        add_star(light, *star, fwhm)
    return (light + np.random.default_rng(seed).normal(0, noise, SHAPE)).astype(np.float32)


def found(sci, dq=CLEAR, **how):
    return so.detect(sci, dq, so.Detection(**how), np.full(SHAPE, 3600, np.float32))


def test_every_star_is_found_where_it_is_with_its_light():
    catalogue, labels = found(image())
    assert len(catalogue) == len(PLACES)
    for row, (x, y, flux) in zip(catalogue, sorted(PLACES, key=lambda s: -s[2]), strict=True):
        assert row["X_IMAGE"] - 1 == pytest.approx(x, abs=0.15)
        assert row["Y_IMAGE"] - 1 == pytest.approx(y, abs=0.15)
        assert row["FLUX_AUTO"] == pytest.approx(flux, rel=0.15)
        assert row["PROFILE_FWHM"] == pytest.approx(4.5, rel=0.15)
        assert row["PROFILE_EE50"] > row["PROFILE_FWHM"]
        assert labels[round(y), round(x)] == row["NUMBER"]


def test_noise_has_no_sources():
    catalogue, labels = found(image(stars=[]))
    assert not catalogue.size
    assert not labels.any()


def test_flagged_pixels_are_not_seen_but_saturated_ones_are():
    sci, dq = image(), CLEAR.copy()
    sci[100:108, 100:108], dq[100:108, 100:108] = 5000, 1
    dq[49:53, 39:43] = 4
    catalogue, labels = found(sci, dq)
    assert len(catalogue) == len(PLACES)
    assert labels[104, 104] == 0
    brightest = catalogue[0]
    assert brightest["IMAFLAGS_ISO"] == 4
    assert brightest["NIMAFLAGS_ISO"] == 16
    assert len(found(sci, np.where(dq > 0, dq, CLEAR), hidden_flags=0)[0]) == len(PLACES) + 1


def test_nothing_usable_is_no_source():
    catalogue, labels = found(image(), np.ones(SHAPE, np.uint16))
    assert not catalogue.size
    assert not labels.any()
    assert not found(np.full(SHAPE, np.nan, np.float32))[0].size


def test_neighbours_do_not_add_to_the_flux():
    catalogue, _ = found(image(stars=[(100.0, 100.0, 1e5), (116.0, 100.0, 1e5)]))
    np.testing.assert_allclose(catalogue["FLUX_AUTO"], 1e5, rtol=0.12)


def test_stars_are_told_from_galaxies_and_blends():
    catalogue, _ = found(image())
    catalogue["FWHM_FIT"], catalogue["ELLIP_FIT"] = [4.5, 4.4, 9.0, 4.6, 4.5], 0.05
    assert so.stars(catalogue).tolist() == [True, True, False, True, True]
    catalogue["NIMAFLAGS_ISO"][0] = 3
    catalogue["ELLIP_FIT"][1] = 0.7
    assert so.stars(catalogue).tolist() == [False, False, False, True, True]


def test_dilation_is_by_a_disc():
    mask = np.random.default_rng(2).random((60, 70)) < 0.02
    for radius in (0, 1, 2, 3.5):
        r = int(radius)
        disc = np.hypot(*np.mgrid[-r : r + 1, -r : r + 1]) <= radius
        np.testing.assert_array_equal(om.dilate(mask, radius), ndimage.binary_dilation(mask, disc))


def test_box_sums_are_the_plain_ones():
    total = np.random.default_rng(3).normal(0, 1, (50, 61)).astype(np.float32)
    weight = (np.random.default_rng(4).random((50, 61)) < 0.7).astype(np.float32)
    light, number = om.box_sums(total, weight, 9)
    kernel = np.ones((9, 9))
    np.testing.assert_allclose(light, ndimage.convolve(total, kernel, mode="constant"), atol=1e-4)
    np.testing.assert_allclose(number, ndimage.convolve(weight, kernel, mode="constant"), atol=1e-4)


def test_masks_hold_the_wings_and_spare_the_noise():
    from pipeline.algorithms.background import sky_level

    sci = image(stars=[(128.0, 128.0, 3e5)])
    mask = om.object_mask_of(sci, CLEAR > 0, sky_level(sci, high=1.5))
    y, x = np.indices(SHAPE)
    assert mask[np.hypot(x - 128, y - 128) < 9].all()
    assert mask[np.hypot(x - 128, y - 128) > 40].mean() < 0.002


def test_masks_from_other_frames_leave_the_level_alone():
    """The level under a mask made from the frame itself is too low, under one made from the others not."""
    rng = np.random.default_rng(5)
    places, flux = rng.uniform(5, 250, (2, 250)), rng.uniform(1.5e3, 8e3, 250)
    clean = image(stars=list(zip(*places, flux, strict=True)), noise=0.0)
    frames = [clean + rng.normal(0, 60, SHAPE).astype(np.float32) for _ in range(24)]
    masks = om.masks_from_others(frames, [CLEAR > 0] * 24, [(0, 0)] * 24, 60.0)
    own = [om.deep_mask(f, np.ones(SHAPE, np.float32), 60.0, limit=3.5) for f in frames]

    def noise_left(chosen):
        return np.mean([np.mean((f - clean)[~m]) for f, m in zip(frames, chosen, strict=True)])

    assert abs(noise_left(masks)) < 0.15  # known to 0.06
    assert noise_left(own) < -0.2  # of 60: small, but the same in every frame
    assert all(m[clean > 40].mean() > 0.95 for m in masks)


def test_what_one_frame_alone_shows_is_masked_only_when_bright():
    rng = np.random.default_rng(6)
    frames = [rng.normal(0, 60, SHAPE).astype(np.float32) for _ in range(2)]
    frames[0][96:105, 96:105] += np.float32(
        7 * 60 / 9 - frames[0][96:105, 96:105].mean()
    )  # 7 sigma of a box of 9
    bad = [CLEAR > 0] * 2
    assert not om.masks_from_others(frames, bad, [(0, 0)] * 2, 60.0)[0][100, 100]
    assert om.masks_from_others(frames, bad, [(0, 0)] * 2, 60.0)[1][100, 100]  # whose other frame shows it
    frames[0][96:105, 96:105] += 20
    assert om.masks_from_others(frames, bad, [(0, 0)] * 2, 60.0)[0][100, 100]


def test_inputs_are_not_modified():
    sci, dq = image(), CLEAR.copy()
    before = sci.copy()
    sci.flags.writeable = False
    found(sci, dq)
    np.testing.assert_array_equal(sci, before)
    assert not dq.any()
