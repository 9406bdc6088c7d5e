"""The bench of accuracy, and the checks that only it makes: each tells when what it measures is wrong."""

from dataclasses import replace

import numpy as np
import pytest

from bench import accuracy
from pipeline.simulate.sky import moffat_alpha
from pipeline.simulate.truth import Product, Truth
from pipeline.simulate.verify_frames import check_frames, seen_fwhm


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """(night, its truth, the reduced science) of the smallest night."""
    folder = accuracy.night(tmp_path_factory.mktemp("data"), "tiny", 0)
    *_, science = accuracy.reduce_night(folder, "nirid", tmp_path_factory.mktemp("work"))
    return Truth(folder), [science.seen[step] for step in accuracy.STEPS], Product.read(science.path)


def failing(truth, frames, product):
    return {check.name for check in check_frames(truth, *frames, product) if not check.ok}


def test_right_frames_pass(small):
    truth, frames, product = small
    checks = {check.name for check in check_frames(truth, *frames, product)}
    assert len(checks) == 4
    assert failing(*small) == set()


def test_a_frame_that_is_off_by_a_tenth_of_a_pixel(small):
    truth, (registered, aligned), product = small
    off = registered[1].evolve(cards={"CRPIX1": registered[1].header["CRPIX1"] + 0.1})
    wrong = [registered[0], off, *registered[2:]]
    assert failing(truth, (wrong, aligned), product) == {"registration, farthest frame"}


def test_stars_that_are_measured_too_wide(small):
    truth, (registered, aligned), product = small
    wide = []
    for frame in registered:
        catalog = frame.catalog.copy()
        catalog["FWHM_FIT"] *= 1.05
        wide.append(frame.evolve(catalog=catalog))
    assert failing(truth, (wide, aligned), product) == {"FWHM of single frames / true, median"}


def test_samples_that_are_lost_beside_stars(small):
    truth, frames, product = small
    coverage = product.coverage.copy()
    coverage[::10, ::10] -= (coverage[::10, ::10] > 0).astype(np.uint16)  # 0.3 % of the samples
    assert failing(truth, frames, replace(product, coverage=coverage)) == {"good samples rejected near stars"}


def test_a_pixel_makes_a_star_a_little_wider():
    inside = (np.arange(50) + 0.5) / 50 - 0.5
    alpha = moffat_alpha(4.2)

    def level(x):
        return np.mean((1 + ((x + inside[:, None]) ** 2 + inside**2) / alpha**2) ** -3)

    assert level(seen_fwhm(4.2) / 2) == pytest.approx(level(0) / 2, rel=1e-3)
    assert seen_fwhm(40.0) == pytest.approx(40.0, rel=1e-3)


def test_the_table_has_a_line_for_every_row_and_tells_what_missed():
    one = {
        "night": "n", "seed": 0, "preset": "nirid", "product": "dark", "of": "Low Background, 10 s",
        "quantity": "pull", "value": 0.5, "low": 0.7, "high": 1.03, "ok": False,
    }  # fmt: skip
    found = [one, one | {"value": 0.9, "ok": True}]
    answer = {"nights": ["n"], "seeds": 2, "rows": [accuracy._row(row, found) for row in accuracy.ROWS]}
    (_, columns, rows), (_, _, missed) = accuracy.tables(answer | {"records": found})
    assert len(rows) == len(accuracy.ROWS)
    (row,) = (row for row in rows if row[-1] != "0 of 0")
    assert row == ["dark: pull, Low background", "0.74", "0.70 to 1.03", 0.7, 0.5, 0.9, "1 of 2"]
    assert columns[3:] == ["nirid", "from", "to", "missed"]
    assert [line[4] for line in missed] == [0.5]
