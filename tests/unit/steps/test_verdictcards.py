"""The cards of what was delivered: whoever knows what was asked for finds the verdict in them."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.conditions import AO_LIMITS, CC_LIMITS, IQ_LIMITS, Asked, band_of, cloud, image_quality
from pipeline.headers.descriptors import Descriptors
from pipeline.steps.verdictcards import of_cloud, of_quality

J = Descriptors(filter_name="J_G0202", camera="f6", airmass=1.3, pixel_scale=0.1171)


def found(fwhm, error=0.01, stars=9, **more):
    cards = {"MEANFWHM": fwhm, "MFWHMERR": error, "NSTARS": stars, **more}
    return {key: (value, "a comment") for key, value in cards.items()}


def state_of(probability):
    return "met" if probability >= 0.95 else "not met" if probability <= 0.05 else "borderline"


@given(st.floats(0.1, 2.0), st.floats(0.0, 0.2), st.integers(1, 20), st.floats(1.0, 2.5))
def test_every_request_is_judged_by_them_as_the_verdict_does(fwhm, error, stars, airmass):
    cards = of_quality(replace(J, airmass=airmass), found(fwhm, error, stars))
    for one in IQ_LIMITS["J"]:
        said = image_quality(fwhm, error, band="J", airmass=airmass, stars=stars, asked=Asked(one))
        assert cards[f"IQP{one}"][0] == pytest.approx(said.probability, abs=1e-4)
        assert f"{said.limit:g}" in cards[f"IQP{one}"][1]
        if abs(said.probability - 0.95) > 1e-3 and abs(said.probability - 0.05) > 1e-3:
            assert state_of(cards[f"IQP{one}"][0]) == said.state
    assert cards["IQBIN"][0] == said.delivered
    assert said.delivered in cards["IQDELIV"][0] or error > 0


@given(st.floats(-0.2, 2.0), st.floats(0.0, 0.3))
def test_cloud_too(extinction, error):
    cards = of_cloud(extinction, error)
    for one in CC_LIMITS:
        said = cloud(extinction, error, Asked(one))
        assert cards[f"CCP{one}"][0] == pytest.approx(said.probability, abs=1e-4)
    assert cards["CCDELIV"][0] == said.delivered


def test_near_a_limit_both_bins_are_delivered():
    cards = of_quality(replace(J, airmass=1.0), found(0.6))
    assert cards["IQDELIV"][0] == "IQ70 or IQ85"
    assert cards["IQP70"] == (0.5, "P of FWHM at zenith < 0.6: met from 0.95")
    assert cards["IQERR"][0] == pytest.approx((0.01**2 + 0.012**2) ** 0.5, abs=1e-4)


def test_with_adaptive_optics_the_natural_seeing_is_judged():
    ao = replace(J, is_ao=True, ao_seeing=0.39)
    cards = of_quality(ao, found(0.12))
    assert cards["IQBIN"] == ("IQ20", "Image quality by AOSEEING")
    said = image_quality(0.12, 0.01, band="J", airmass=1.3, asked=Asked(20), natural=0.39, ao=True)
    assert cards["IQP20"][0] == pytest.approx(said.probability, abs=1e-4)
    assert f"{AO_LIMITS[20]:g}" in cards["IQP20"][1]
    assert set(of_quality(replace(ao, ao_seeing=None), found(0.12)).values()) == {None}


def test_without_stars_and_with_trailed_ones_nothing_is_claimed():
    assert set(of_quality(J, {"MEANFWHM": None}).values()) == {None}
    cards = of_quality(J, found(0.6, MEANELLP=0.3, ELLIERR=0.02))
    assert cards["IQDELIV"][0] == "not measured"
    assert cards["IQP70"] is None


@pytest.mark.parametrize(
    ("name", "band"),
    [
        ("J", "J"), ("Kprime", "K"), ("Lprime", "L"), ("H", "H"), ("H2v=1-0S1&K", "K"), ("HeI", "Y"),
        ("Jcon(121)&PK50", "J"), ("FeII&PK50", "H"), ("Bra", "L"), ("Msort", "M"), ("?", "K"),
    ],
)  # fmt: skip
def test_a_narrow_filter_has_the_band_that_its_light_is_in(name, band):
    facts = Descriptors(filter_name=name)
    wavelength = facts.effective_wavelength
    assert band_of(facts.filter_pretty, wavelength * 1e6 if wavelength else None) == band


def test_the_comments_fit_their_cards():
    from astropy.io import fits

    for cards in (of_quality(J, found(0.6)), of_cloud(0.1, 0.02)):
        for key, card in cards.items():
            header = fits.Header([(key, *card)])
            assert header.comments[key] == card[1]
