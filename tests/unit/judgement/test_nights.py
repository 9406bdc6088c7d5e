"""Since when conditions are not met, and what a sequence is worth: no flicker, the right frame."""

from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.judgement.nights import (
    Judged,
    Request,
    Spell,
    course,
    light_lost,
    of_frame,
    out_of_spec,
    request_of,
    states,
)
from daemon.model.measures import Measure
from pipeline.conditions import Asked
from pipeline.headers.descriptors import Descriptors

J = Descriptors(filter_name="J_G0202", camera="f6", airmass=1.0, pixel_scale=0.1171)
ASKED = Request(iq=Asked(70))


def frames(fwhms, error=0.01, facts=J):
    return [
        Judged(f"f{n}", 60.0 * n, facts, {"fwhm": Measure("fwhm", f, error), "stars": Measure("stars", 9.0)})
        for n, f in enumerate(fwhms)
    ]


@pytest.mark.parametrize("seed", range(20))
def test_a_step_of_the_seeing_is_dated_to_one_frame_and_told_once(seed):
    rng = np.random.default_rng(seed)
    night = frames(np.r_[np.full(5, 0.5), np.full(9, 0.75)] + rng.normal(0, 0.01, 14))
    spells = out_of_spec([(f.at, "met" if f.measures["fwhm"].value < 0.6 else "not met") for f in night])
    assert len(spells) == 1
    assert abs(spells[0].begin - 5 * 60.0) <= 60.0
    assert course(night, ASKED).spell == spells[0]


@pytest.mark.parametrize(
    ("states", "spells"),
    [
        ("mmmm", []),
        ("mmnmmnmm", []),  # single bad frames are no reason to stop
        ("mnnn", [Spell(1, None)]),
        ("nnmn", [Spell(0, None)]),  # three of the last four
        ("nnnmnmm", [Spell(0, 5)]),  # it ends with the first of two that are met
        ("nnnmmnmn", [Spell(0, 3)]),
        ("nnnmmnnn", [Spell(0, 3), Spell(5, None)]),
        ("n-n-n", [Spell(0, None)]),  # frames that tell nothing are passed over
        ("bbbb", []),
    ],
)
def test_spells(states, spells):
    word = {"m": "met", "n": "not met", "b": "borderline", "-": "not measured"}
    assert out_of_spec([(float(n), word[s]) for n, s in enumerate(states)]) == spells


def test_a_sequence_is_judged_on_its_frames_since_the_change():
    assert course(frames([0.5] * 5 + [0.8] * 4), ASKED).verdicts["IQ"].state == "not met"
    assert course(frames([0.8] * 5 + [0.5] * 4), ASKED).verdicts["IQ"].state == "met"
    assert course(frames([0.5] * 8), ASKED).verdicts["IQ"].state == "met"
    assert course([], ASKED).verdicts == {}


def test_cloud_and_sky_come_from_the_product():
    said = {"cloud": Measure("cloud", 0.4, 0.03), "sky_magnitude": Measure("sky_magnitude", 14.9, 0.03)}
    found = course(frames([0.5] * 4), Request(cc=Asked(50)), said).verdicts
    assert found["CC"].state == "not met"
    assert "1.1 × the bright end" in found["BG"].words
    assert found["IQ"].state == "not asked"


def test_pixels_are_judged_where_there_is_nothing_better():
    only = [Judged("f", 0.0, J, {"fwhm_pixels": Measure("fwhm_pixels", 6.0, 0.05)})]
    assert course(only, ASKED).verdicts["IQ"].value == pytest.approx(6.0 * 0.1171, rel=1e-6)


def test_light_that_is_lost_is_told_without_a_standard():
    def seen(values):
        return [
            Judged(f"f{n}", 60.0 * n, J, {"transparency": Measure("transparency", v, 0.01)})
            for n, v in enumerate(values)
        ]

    lost, began = light_lost(seen([1.0, 0.99, 0.72, 0.69]))
    assert lost == pytest.approx(0.40, abs=0.01)
    assert began == 120.0
    assert light_lost(seen([1.0, 0.6, 1.0])) is None
    assert light_lost([]) is None


def test_the_configuration_comes_before_the_header():
    facts = Descriptors(req_iq=70, req_cc=50)
    assert request_of(facts, None) == Request(Asked(70), Asked(50), Asked(), Asked())
    own = request_of(facts, Request(iq=Asked(value=0.6)))
    assert own.iq == Asked(value=0.6)
    assert own.cc == Asked(50)
    assert request_of(Descriptors(ut_datetime=datetime(2016, 1, 2, tzinfo=UTC)), None) == Request()


@given(
    st.lists(
        st.tuples(
            st.floats(0.2, 1.5), st.floats(0.0, 0.2), st.sampled_from([None, 0.0, 0.3]), st.integers(0, 9),
            st.floats(1.0, 2.5), st.booleans(),
        ),
        max_size=8,
    ),
    st.sampled_from([Asked(), Asked(20), Asked(50), Asked(85), Asked(100), Asked(value=0.6)]),
    st.booleans(),
)  # fmt: skip
def test_the_state_of_each_frame_is_that_of_its_verdict(told, asked, ao):
    facts = replace(J, is_ao=ao, ao_seeing=0.5 if ao else None)
    night = []
    for n, (fwhm, error, ellipticity, stars, airmass, measured) in enumerate(told):
        found = {"fwhm": Measure("fwhm", fwhm, error), "stars": Measure("stars", stars)} if measured else {}
        if ellipticity is not None:
            found["ellipticity"] = Measure("ellipticity", ellipticity, 0.01)
        night.append(Judged(f"f{n}", 60.0 * n, facts, found, airmass, 0.4 if ao and n % 2 else None))
    asked = Request(iq=asked)
    assert states(night, asked) == [of_frame(frame, asked)["IQ"].state for frame in night]
    assert course(night, asked).states == Counter(states(night, asked))
