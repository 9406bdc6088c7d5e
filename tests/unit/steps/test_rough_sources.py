"""Registration by sources on rough nights: wrong headers, clouds, lone and faint stars."""

import numpy as np
import pytest

from bench import registration
from pipeline.algorithms import matching as mt
from pipeline.algorithms.faint import faint_sources
from pipeline.headers.tangent import tangent
from pipeline.steps.align import resample_to_common_frame
from pipeline.steps.judgeimages import judge_images
from pipeline.steps.reference import candidates, reference_of
from pipeline.steps.register import adjust_wcs_to_reference
from pipeline.steps.sources import detect_sources
from tests.skyframes import FIVE, TARGET, add_star, calibrated, star_field
from tests.unit.steps.rough import CLEAR, JITTER, agreement, left, said

STARS = star_field(25, faintest=2e4)


@pytest.mark.parametrize("kind", list(registration.KINDS))
def test_ten_in_a_hundred_thousand_at_most_are_wrong(kind):
    """The short form of `bench registration`: 300 trials of each kind."""
    rng = np.random.default_rng([7, len(kind)])
    rows = [registration.trial(rng, kind) for _ in range(300)]
    assert [row for row in rows if row["answer"] == "wrong"] == []
    fair = [row for row in rows if row["within"] and registration.half(row)]
    rich = [row for row in fair if row["common"] >= 6]
    assert len(rich) > 80
    assert sum(row["answer"] == "right" for row in rich) >= 0.99 * len(rich)
    few = [row for row in fair if 3 <= row["common"] < 6]
    assert sum(row["answer"] == "right" for row in few) >= 0.85 * len(few)


def test_the_trials_can_tell():
    rng = np.random.default_rng(7)
    rows = [registration.trial(rng, "plain", "votes") for _ in range(60)]
    assert sum(row["answer"] == "wrong" for row in rows) > 6


def test_claimed_errors_are_the_scatter_with_few_sources_and_many():
    rng = np.random.default_rng(5)
    for n in (1, 2, 3, 12):
        pulls = []
        for _ in range(150):
            x, y, flux = rng.uniform(20, 490, (2, n)), None, 10 ** rng.uniform(3, 5, n)
            x, y = x
            error = np.full(n, 0.05)
            a = mt.Points(*(v + rng.normal(0, 0.05, n) for v in (x, y)), error, flux)
            b = mt.Points(*(v + 3.0 + rng.normal(0, 0.05, n) for v in (x, y)), error, flux)
            found = mt.match_sources(a, b, search=40, radius=4, shape=(512, 512))
            if found is not None:
                pulls += [(found.dx - 3.0) / found.error, (found.dy - 3.0) / found.error]
        assert len(pulls) > 200
        assert 0.6 < np.std(pulls) < 1.15, n
        assert np.abs(pulls).max() < 5


def test_a_cloud_is_no_reason_to_take_one_star_for_another():
    rng = np.random.default_rng(2)
    x, y, flux = rng.uniform(0, 512, 40), rng.uniform(0, 512, 40), 10 ** rng.uniform(3, 5.5, 40)
    seen = flux > 10**4.2
    error = np.full(40, 0.03)
    dimmed = mt.Points(x[seen] + 2.0, y[seen] - 1.0, error[seen], flux[seen] * 10 ** (-0.4 * 3.0))
    found = mt.match_sources(mt.Points(x, y, error, flux), dimmed, search=360, radius=4.3, shape=(512, 512))
    assert found.ratio == pytest.approx(np.log(10 ** (-0.4 * 3.0)), abs=0.02)
    assert np.hypot(found.dx - 2.0, found.dy + 1.0) < 0.05


def frames_of(stars=STARS, *, count=5, errors=JITTER, size=256, **each):
    """Detected frames; `each` has a list a keyword, one value a frame (star lists as `stars_of`)."""
    frames = []
    lists = each.pop("stars_of", [stars] * count)
    for k in range(count):
        own = {name: values[k] for name, values in each.items()}
        frames.append(calibrated(k + 1, FIVE[k], stars=lists[k], sky=0.0, error=errors[k], size=size, **own))
    return detect_sources.run(frames)


def with_error(place, error):
    return tuple(error if k == place else e for k, e in enumerate(JITTER))


@pytest.mark.parametrize("wrong", [(64.0, 48.0), (-90.0, 70.0)])
@pytest.mark.parametrize("place", [0, 2])
def test_a_wrong_header_is_found_the_first_one_too(place, wrong):
    errors = with_error(place, wrong)
    out = adjust_wcs_to_reference.run(frames_of(errors=errors))
    assert agreement(out, errors).max() < 0.05
    assert {f.header["REGMETH"] for f in out} == {"reference", "sources"}
    assert said(out, f"N20160102S000{place + 1}.fits", "header's pointing is off by", "limit 5.0 arcsec")
    # The sky is where the first good header has it.
    good = 1 if place == 0 else 0
    np.testing.assert_allclose(left(out, errors)[good], -np.array(JITTER[good]), atol=1e-6)
    assert out[good].header["REGDX"] == pytest.approx(0.0, abs=1e-6)
    assert out[place].header["REGDX"] == pytest.approx(wrong[0] - JITTER[good][0], abs=0.1)


@pytest.mark.parametrize("share", [0.2, 0.35, 0.5])
@pytest.mark.parametrize("apart", [(3.0, -1.0), (6.0, 3.0), (10.0, 4.0)])
def test_a_double_first_frame_does_not_tell_where_the_sky_is(apart, share):
    """Its light is where neither image is, by up to half their distance."""
    east, north = (0.117 * pixels for pixels in apart)
    double = [s for e, n, f in STARS for s in ((e, n, (1 - share) * f), (e + east, n + north, share * f))]
    out = adjust_wcs_to_reference.run(frames_of(stars_of=[double, STARS, STARS, STARS, STARS]))
    assert agreement(out[1:]).max() < 0.05
    np.testing.assert_allclose(left(out)[1], -np.array(JITTER[1]), atol=1e-6)
    assert said(out, "N20160102S0001.fits", "its stars are no points", "the WCS is that of N20160102S0002")


def test_a_wrong_header_of_one_of_two_frames():
    errors = ((0.0, 0.0), (-75.0, 60.0))
    out = adjust_wcs_to_reference.run(frames_of(count=2, errors=errors))
    assert agreement(out, errors).max() < 0.05
    assert said(out, "S0002", "no majority tells which is wrong", "limit 5.0 arcsec")


def test_headers_that_disagree_two_against_two_are_told():
    errors = [(-75.0, 60.0) if k % 2 else JITTER[k] for k in range(4)]
    out = adjust_wcs_to_reference.run(frames_of(count=4, errors=errors))
    assert agreement(out, errors).max() < 0.05
    assert said(out, "no majority tells which is wrong", "the WCS is that of N20160102S0001")
    assert not said(adjust_wcs_to_reference.run(frames_of(count=4)), "arcsec")


@pytest.mark.parametrize("cloud", [0.4, 1.5, 3.0])
@pytest.mark.parametrize("clouded", [(0,), (3,), (0, 1, 2, 4)])
def test_clouds_change_nothing(cloud, clouded):
    dim = [(e, n, f * 10 ** (-0.4 * cloud)) for e, n, f in STARS]
    out = adjust_wcs_to_reference.run(frames_of(stars_of=[dim if k in clouded else STARS for k in range(5)]))
    assert agreement(out).max() < 0.1
    assert all(f.header["REGMETH"] in ("sources", "reference") for f in out)
    assert all(a < 5 * f.header["REGERR"] + 0.05 for a, f in zip(agreement(out), out, strict=True))


def test_a_frame_without_light_goes_by_its_header_and_touches_no_other():
    good = adjust_wcs_to_reference.run(frames_of())
    out = adjust_wcs_to_reference.run(frames_of(stars_of=[[] if k == 3 else STARS for k in range(5)]))
    assert out[3].header["REGMETH"] == "offsets"
    assert out[3].header["REGNUM"] == 0
    assert 1.0 <= out[3].header["REGERR"] < 3.0
    assert agreement(out)[3] < 3 * out[3].header["REGERR"]
    assert said(out, "N20160102S0004.fits", "aligned by telescope offsets", "pixels")
    for k in (0, 1, 2, 4):
        np.testing.assert_allclose(left(out)[k], left(good)[k], atol=0.001)


def test_a_frame_that_is_not_matched_shares_what_the_others_headers_are_off_by():
    errors = with_error(0, (40.0, -30.0))
    out = adjust_wcs_to_reference.run(
        frames_of(errors=errors, stars_of=[[] if k == 3 else STARS for k in range(5)]), reference="first"
    )
    assert out[3].header["REGMETH"] == "offsets"
    assert agreement(out, errors)[3] < 4.0


def test_a_header_that_the_only_star_contradicts_is_not_believed_either():
    """One star, 65 pixels from its place: too far to be believed, but neither is the header."""
    errors = with_error(2, (50.0, 42.0))
    out = adjust_wcs_to_reference.run(frames_of([(0.0, 1.0, 1e5)], errors=errors))
    assert out[2].header["REGMETH"] == "offsets"
    assert agreement(out, errors)[2] < 1.2 * out[2].header["REGERR"]
    assert said(out, "N20160102S0003.fits", "its sources are not there")
    assert all(f.header["REGERR"] < 0.1 for f in (out[0], out[1], out[3], out[4]))


LONE = (1.0, 2.0, 2e5)


def lone(light=1.0, beside=0.0):
    """The only star of a field, with this part of its light, and a second image of it with that."""
    e, n, flux = LONE
    return [(e, n, flux * light)] + ([(e + 1.1, n - 0.5, flux * beside)] if beside else [])


@pytest.mark.parametrize("light", [0.7, 0.4, 0.25])
@pytest.mark.parametrize("clouded", [(0,), (3,), (1, 4)])
def test_a_lone_star_is_known_through_cloud_and_brought_to_its_light(clouded, light):
    frames = frames_of(stars_of=[lone(light if k in clouded else 1.0) for k in range(5)])
    out = adjust_wcs_to_reference.run(frames)
    assert all(f.header["REGMETH"] in ("sources", "reference") for f in out)
    assert agreement(out).max() < 0.1
    judged = judge_images.run(out)
    assert len(judged) == 5
    for k in clouded:
        assert judged[k].header["SCALEBY"] == pytest.approx(1 / light, rel=0.05)
        assert said(judged, f"S000{k + 1}.fits scaled", "cloud")


@pytest.mark.parametrize("place", [0, 3])
@pytest.mark.parametrize("share", [0.35, 0.5])
def test_a_lone_star_that_is_double_is_left_out_and_no_reference(place, share):
    images = lone(1 - share, share)
    out = adjust_wcs_to_reference.run(
        frames_of(stars_of=[images if k == place else lone() for k in range(5)])
    )
    assert out[place].header["REGMETH"] != "reference"
    judged = judge_images.run(out)
    assert [int(f.name[10:14]) for f in judged] == [k + 1 for k in range(5) if k != place]
    assert said(judged, f"S000{place + 1}.fits left out: double", "limit")
    row = next(v for v in judged[0].verdicts if v.frame == out[place].name)
    assert "TRANSP" not in dict(row.cards)


def test_a_frame_whose_lone_star_is_elsewhere_is_left_out():
    errors = with_error(2, (50.0, 42.0))
    out = judge_images.run(
        adjust_wcs_to_reference.run(
            frames_of(lone(), errors=errors),
        )
    )
    assert [f.name[10:14] for f in out] == ["0001", "0002", "0004", "0005"]
    assert said(out, "S0003.fits left out: its place is not known", "pixels, limit")


def test_a_cosmic_ray_where_a_lone_star_should_be_is_none():
    frames = frames_of(stars_of=[[] if k == 3 else lone() for k in range(5)])
    plain = adjust_wcs_to_reference.run(frames)
    x, y = (int(v) for v in tangent(plain[3].header).to_pixel(*TARGET))
    sci = np.array(frames[3].sci)
    sci[y - 9 : y - 7, x + 16 : x + 18] += 6e4
    out = adjust_wcs_to_reference.run(
        [*frames[:3], *detect_sources.run([frames[3].evolve(sci=sci)]), frames[4]]
    )
    assert out[3].header["REGMETH"] == "offsets"


def test_a_bad_pixel_in_a_lone_star_makes_it_no_trail():
    frames = frames_of(lone())
    for k in (0, 2, 4):  # none of its sources is surely a star
        frames[k] = frames[k].evolve(cards={"FWHMPIX": None, "ELLIPTIC": None})
    out = adjust_wcs_to_reference.run(frames)
    assert not said(out, "no points")
    assert candidates(frames)[0] == 0


def test_without_fallback_a_first_frame_that_nothing_tells_of_is_left_out():
    out = adjust_wcs_to_reference.run(
        frames_of(stars_of=[[] if k == 0 else STARS for k in range(5)]), fallback=None
    )
    assert [f.name[10:14] for f in out] == ["0002", "0003", "0004", "0005"]
    assert agreement(out).max() < 0.05


def test_the_reference_is_a_good_frame_and_the_order_stays():
    frames = frames_of(fwhm=[6.3, 4.5, 4.4, 4.6, 4.5])
    out = adjust_wcs_to_reference.run(frames)
    assert [f.name for f in out] == [f.name for f in frames]
    reference = reference_of(out)
    assert reference is out[1]
    assert agreement(out).max() < 0.05
    np.testing.assert_allclose(left(out)[0], 0.0, atol=1e-6)  # the sky is the first frame's all the same
    aligned = resample_to_common_frame.run(out)
    assert aligned[1].header["NOISECOR"] == 1.0
    inner = aligned[1].sci[np.nonzero(aligned[1].dq == 0)]
    assert np.isin(inner[:200], out[1].sci).all()
    assert adjust_wcs_to_reference.run(frames, reference="first")[0].header["REGMETH"] == "reference"


def test_a_first_frame_too_blurred_to_be_used_does_not_tell_where_the_sky_is():
    out = adjust_wcs_to_reference.run(frames_of(fwhm=[11.0, 4.5, 4.4, 4.6, 4.5]))
    np.testing.assert_allclose(left(out)[1], -np.array(JITTER[1]), atol=1e-6)


def test_clouded_doubled_and_far_frames_are_no_reference():
    double = [s for e, n, f in STARS for s in ((e, n, f / 2), (e + 1.4, n, f / 2))]
    dim = [(e, n, f / 12) for e, n, f in STARS]
    frames = frames_of(stars_of=[dim, double, STARS, STARS, STARS])
    assert set(candidates(frames)[:3]) == {2, 3, 4}


def test_one_faint_star_is_found_by_a_filter_of_its_profile():
    width = 4.5 / 2.3548
    flux = 12 * 35.0 * np.sqrt(4 * np.pi) * width * 1.15  # signal to noise 12, of which Moffat's wings cost
    frames = frames_of(stars=[(0.0, 1.0, float(flux))], count=4)
    out = adjust_wcs_to_reference.run([f.evolve(catalog=None) for f in frames])
    assert {f.header["REGMETH"] for f in out} == {"reference", "faint"}
    off = left(out) - left(out)[[f.header["REGMETH"] for f in out].index("reference")]
    claimed = np.array([f.header["REGERR"] for f in out])
    assert 0.2 < claimed.max() < 0.6
    assert (np.hypot(*off.T) <= 3.5 * claimed + 1e-6).all()


def test_filtered_peaks_have_the_error_that_they_claim():
    pulls, fluxes = [], []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        image = np.zeros((128, 128))
        place = 60 + rng.uniform(0, 1, 2)
        add_star(image, *place, 4000.0, 4.5, beta=20.0)
        image += rng.normal(0, 35, image.shape)
        found = faint_sources(image.astype(np.float32), CLEAR[:128, :128], 4.5)
        k = int(np.argmin(np.hypot(found.x - place[0], found.y - place[1])))
        pulls += [(found.x[k] - place[0]) / found.error[k], (found.y[k] - place[1]) / found.error[k]]
        fluxes.append(found.flux[k])
    assert 0.75 < np.std(pulls) < 1.3
    assert np.median(fluxes) == pytest.approx(4000, rel=0.1)


def test_noise_and_cosmic_rays_are_no_faint_stars():
    rng = np.random.default_rng(1)
    image = rng.normal(0, 35, (256, 256))
    rows, columns = rng.integers(5, 250, (2, 60))
    image[rows, columns] += rng.uniform(300, 3000, 60)
    assert faint_sources(image.astype(np.float32), CLEAR, 4.5).x.size <= 1
