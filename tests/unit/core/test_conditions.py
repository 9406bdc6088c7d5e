"""Verdicts on conditions: the bin is right, a near limit is borderline, and a header's word is a word."""

import numpy as np
import pytest

from pipeline.conditions import (
    IQ_LIMITS,
    Asked,
    background,
    cloud,
    image_quality,
    percentile,
    percentile_of_nights,
    water,
)
from pipeline.headers.descriptors import describe


@pytest.mark.parametrize(
    ("word", "wanted"),
    [
        ("20-percentile", 20), ("70-percentile", 70), ("Any", 100), ("UNKNOWN", None), ("        ", None),
        ("", None), (None, None), ("any", None), ("85", None), ("7-percentile", None), ("IQ70", None),
    ],
)  # fmt: skip
def test_words_of_headers(word, wanted):
    assert percentile(word) == wanted


@pytest.mark.parametrize("band", list(IQ_LIMITS))
@pytest.mark.parametrize("airmass", [1.0, 1.5, 2.0])
@pytest.mark.parametrize("asked", [20, 70, 85])
def test_verdicts_are_right_for_true_values_near_each_limit(band, airmass, asked):
    """200 measured fields at each distance from the limit: right when far, never sure when near."""
    rng, limit, error = np.random.default_rng(5), IQ_LIMITS[band][asked], 0.03
    for away, wanted in ((-4.5, "met"), (4.5, "not met")):
        sigma = np.hypot(error, 0.02 * limit)
        measured = (limit + away * sigma) * airmass**0.6 + rng.normal(0, error * airmass**0.6, 200)
        states = [
            image_quality(m, error * airmass**0.6, band=band, airmass=airmass, asked=Asked(asked)).state
            for m in measured
        ]
        assert np.mean([s == wanted for s in states]) > 0.97
    close = image_quality(limit * airmass**0.6 * 1.01, error, band=band, airmass=airmass, asked=Asked(asked))
    assert close.state == "borderline"
    assert 0.05 < close.probability < 0.95


def test_what_the_page_wants_to_say():
    said = image_quality(0.71 * 1.3**0.6, 0.01, band="J", airmass=1.3, asked=Asked(70), wavelength=1.25)
    assert said.words.startswith("IQ85 delivered, IQ70 asked: not met (0.71 ± 0.02″ at zenith, ")
    assert "limit 0.60″" in said.words
    assert "percentile 8" in said.words
    assert image_quality(0.5, 0.01, band="J", airmass=1, asked=Asked()).state == "not asked"
    assert image_quality(3.0, 0.01, band="J", airmass=1, asked=Asked(100)).state == "met"
    assert (
        image_quality(None, None, band="J", airmass=1, asked=Asked(70)).words == "IQ not measured, IQ70 asked"
    )
    assert image_quality(0.7, 0.01, band="J", airmass=1, asked=Asked(value=0.6)).state == "not met"
    assert image_quality(0.57, 0.0, band="J", airmass=1, asked=Asked(70), stars=1).state == "borderline"
    assert (
        image_quality(0.5, 0.01, band="J", airmass=1, asked=Asked(50)).asked == "IQ50"
    )  # an old bin: as IQ70
    assert image_quality(0.55, 0.01, band="J", airmass=1, asked=Asked(50)).limit == 0.60


def test_a_trailed_image_has_no_bin_of_seeing():
    trailed = image_quality(
        0.9, 0.01, band="K", airmass=1, asked=Asked(70), ellipticity=0.18, ellipticity_error=0.01
    )
    assert trailed.state == "not measured"
    assert trailed.words.startswith("guiding or wind, ellipticity 0.18")


def test_with_adaptive_optics_the_natural_seeing_is_judged():
    good = image_quality(0.12, 0.01, band="K", airmass=1.2, asked=Asked(70), natural=0.39, ao=True)
    assert good.state == "met"
    assert good.value == 0.39
    assert "0.12″ delivered" in good.words
    assert image_quality(0.12, 0.01, band="K", airmass=1, asked=Asked(70), ao=True).state == "not measured"


def test_cloud():
    assert cloud(0.02, 0.02, Asked(50)).state == "met"
    assert cloud(0.09, 0.05, Asked(50)).state == "borderline"
    assert (
        cloud(0.4, 0.05, Asked(70)).words
        == "CC80 delivered, CC70 asked: not met (0.40 ± 0.05 mag, limit 0.30 mag)"
    )
    assert cloud(None, None, Asked(50)).words == "CC absolute not measured, CC50 asked"


def test_nothing_is_no_minus_nothing():
    assert "(0.00 ± " in cloud(-0.001, 0.005, Asked(50)).words


@pytest.mark.parametrize("asked", [20, 50, 80, 100, None])
@pytest.mark.parametrize("magnitude", np.arange(12.0, 18.1, 0.5))
def test_the_background_is_never_not_met(asked, magnitude):
    assert background(magnitude, (15.0, 16.0), Asked(asked)).state in ("not measured", "not asked")


def test_background_and_water_in_words():
    assert background(14.9, (15.0, 16.0), Asked()).words == (
        "BG 14.9 mag/arcsec², usual 15 to 16: 1.1 × the bright end"
    )
    assert water(Asked(20)).words == "WV20 asked: cannot be seen in images"


def test_the_fit_of_twenty_years():
    """The percentiles of Gemini's old limits by that fit, as the design has computed them."""
    for wavelength, limits in ((1.25, (20, 63, 92)), (1.65, (32, 75, 96)), (2.2, (36, 82, 98))):
        band = {1.25: "J", 1.65: "H", 2.2: "K"}[wavelength]
        found = [percentile_of_nights(z, wavelength) for z in IQ_LIMITS[band].values()]
        assert np.allclose(found, limits, atol=1.0)
    assert percentile_of_nights(0.5, 3.8) is None


@pytest.mark.parametrize(("asked", "limit"), [(75, 0.5), (90, 1.5), (95, 2.0)])
def test_percentiles_of_cloud_that_are_no_bin_have_their_own_limit(asked, limit):
    assert cloud(limit + 0.2, 0.03, Asked(asked)).state == "not met"
    assert cloud(limit - 0.2, 0.03, Asked(asked)).state == "met"


@pytest.mark.parametrize(
    "card", [None, "", "        ", "UNKNOWN", "any", "85", 85, 70.0, True, "IQ70", "x" * 70]
)
def test_a_card_that_is_no_request_asks_for_nothing(card):
    cards = {} if card is None else {f"REQ{name}": card for name in ("IQ", "CC", "BG", "WV")}
    facts = describe(cards)
    assert (facts.req_iq, facts.req_cc, facts.req_bg, facts.req_wv) == (None, None, None, None)


def test_cards_of_real_headers_ask_for_what_they_say():
    facts = describe(
        {"REQIQ": "Any", "REQCC": "50-percentile ", "REQBG": "80-percentile", "RAWIQ": "UNKNOWN"}
    )
    assert (facts.req_iq, facts.req_cc, facts.req_bg, facts.req_wv, facts.raw_iq) == (100, 50, 80, None, None)


def test_cloud_near_a_limit_names_every_bin_that_it_may_be():
    said = cloud(0.09, 0.05, Asked(50)).words
    assert said == "CC50 or CC70 delivered, CC50 asked: borderline (0.09 ± 0.05 mag, limit 0.08 mag)"
    assert cloud(-0.02, 0.02, Asked()).delivered == "CC50"
    assert cloud(2.5, 0.05, Asked()).delivered == "CCAny"
    assert cloud(0.5, 2.0, Asked()).delivered.count("CC") >= 3
