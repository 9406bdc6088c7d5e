"""The bench of rough nights: its measures pass where nothing is wrong, and see what is."""

from dataclasses import replace

import numpy as np
import pytest

from bench import rough
from bench.roughfigures import fluxes, left_out, reduced, registration, stars_in_place, transparencies
from bench.roughnights import Case, calibrations
from pipeline.simulate import Fault

VICTIM = "N20160120S0105"


@pytest.fixture(scope="module")
def cloudy(tmp_path_factory):
    """Nine frames, one of them behind 1.5 magnitudes of cloud, reduced."""
    cals = calibrations(tmp_path_factory.mktemp("data"), 0)
    return reduced(Case("cloud", {4: Fault(cloud=1.5)}), 0, cals, tmp_path_factory.mktemp("work"))


def missed(figures):
    return {figure.what for figure in figures if not figure.ok}


def test_a_cloud_in_one_frame_is_measured_and_taken_off(cloudy):
    figures = [*registration(cloudy), *fluxes(cloudy), *stars_in_place(cloudy), *transparencies(cloudy)]
    assert missed(figures) == set()
    assert cloudy.noted(VICTIM)
    assert float(cloudy.row(VICTIM)["TRANSPARENCY"]) == pytest.approx(10**-0.6, rel=0.05)


def test_what_is_wrong_is_seen(cloudy):
    """Each measure fails when what it measures is spoilt."""
    product = cloudy.product
    assert missed(left_out(cloudy)) == {"used against the table"}
    bright = product.sci > np.median(product.sci) + 30 * np.sqrt(product.var)
    bent = replace(cloudy, product=replace(product, sci=np.where(bright, 0.9 * product.sci, product.sci)))
    assert missed(fluxes(bent)) == {"fluxes against each other"}
    shifted = replace(cloudy, product=replace(product, sci=np.roll(product.sci, 1, axis=1)))
    assert "stars of the stack off their place, pix" in missed(stars_in_place(shifted))
    members = product.members.copy()
    members["TRANSPARENCY"][2] *= 1.1
    wrong = replace(cloudy, product=replace(product, members=members))
    assert "transparency of a frame, mag" in missed(transparencies(wrong))
    frames = [
        f.evolve(cards={"CRPIX1": f.header["CRPIX1"] + 3.0}) if VICTIM in f.name else f for f in cloudy.frames
    ]
    assert "registration, farthest frame, pix" in missed(registration(replace(cloudy, frames=frames)))


def test_every_row_has_a_name_of_its_own_and_cases():
    assert len(set(rough.NAMES)) == len(rough.ROWS)
    cases = [case.name for row in rough.ROWS for case in row.cases]
    assert len(set(cases)) == len(cases)
    assert all(row.cases for row in rough.ROWS)
