"""Products judged against the truth of a simulated night."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from pipeline.simulate import PRESETS, simulate_night
from pipeline.simulate.truth import Product, Truth, spread
from pipeline.simulate.verify import check_products
from pipeline.simulate.verify_image import expect_image


def write_product(path: Path, inputs: list[str], header: fits.Header, **planes: np.ndarray) -> Path:
    phu = fits.Header([(f"IMCMB{k:03d}", f"{name}.fits") for k, name in enumerate(inputs, 1)])
    keys = ("CTYPE1", "CTYPE2", "CRPIX1", "CRPIX2", "CRVAL1", "CRVAL2", "CD1_1", "CD1_2", "CD2_1", "CD2_2")
    wcs = fits.Header([(key, header[key]) for key in keys])
    units = [fits.ImageHDU(plane, wcs, name=name.upper()) for name, plane in planes.items()]
    fits.HDUList([fits.PrimaryHDU(header=phu), *units]).writeto(path)
    return path


def linear_electrons(night: Path, name: str) -> tuple[np.ndarray, np.ndarray, fits.Header]:
    """Electrons and variance by the published formula, written once more and apart from all other code."""
    with fits.open(night / f"{name}.fits") as units:
        c = units[1].data.astype(float) * 12.3
        seconds = units[0].header["EXPTIME"]
        header = units[1].header.copy()
    scale = seconds / (seconds + 0.01029262589)
    return c * (1 + 5.540988347e-07 * c + 1.404726339e-12 * c * c) * scale, c + 35.0**2, header


def failing(night: Path, **products: Path) -> set[str]:
    return {check.name for check in check_products(night, products) if not check.ok}


def test_a_right_dark_passes_and_a_wrong_one_does_not(night: Path, tmp_path: Path) -> None:
    names = [f"N20160102S{number:04d}" for number in (423, 424, 425)]
    sci, var, headers = zip(*(linear_electrons(night, name) for name in names), strict=True)
    mean = np.mean(sci, axis=0).astype(np.float32)
    variance = (np.mean(var, axis=0) / 3).astype(np.float32)
    dq = (np.ptp(sci, axis=0) > 6 * 35).astype(np.uint16)
    planes = {"sci": mean, "var": variance, "dq": dq}
    right = write_product(tmp_path / "right_dark.fits", names, headers[0], **planes)
    assert failing(night, dark=right) == set()
    off = write_product(tmp_path / "off_dark.fits", names, headers[0], **(planes | {"sci": mean + 1}))
    assert failing(night, processed_dark=off) == {"processed_dark: median residual"}
    sure = write_product(tmp_path / "sure_dark.fits", names, headers[0], **(planes | {"var": variance / 2}))
    assert failing(night, dark=sure) == {"dark: pull"}


def test_a_right_flat_and_mask_pass_and_wrong_ones_do_not(night: Path, tmp_path: Path) -> None:
    on = [linear_electrons(night, f"N20160102S{number:04d}") for number in (366, 367, 368)]
    off = [linear_electrons(night, f"N20160102S{number:04d}") for number in (363, 364, 365)]
    lamp = np.mean([f[0] for f in on], axis=0) - np.mean([f[0] for f in off], axis=0)
    var = (np.mean([f[1] for f in on], axis=0) + np.mean([f[1] for f in off], axis=0)) / 3
    hot, dead = Truth(night).defects(256)
    bad = (hot > 0) | dead
    level = np.median(lamp[~bad])
    names = ["N20160102S0366"]
    planes = {
        "sci": (lamp / level).astype("f4"),
        "var": (var / level**2).astype("f4"),
        "dq": bad.astype("u2"),
    }
    flat = write_product(tmp_path / "a_flat.fits", names, on[0][2], **planes)
    mask = write_product(tmp_path / "a_bpm.fits", names, on[0][2], dq=((hot > 1300) | dead).astype("u2"))
    assert failing(night, flat=flat, bpm=mask) == set()
    tilted = planes | {"sci": (planes["sci"] * np.linspace(0.99, 1.01, 256)).astype("f4")}
    wrong = write_product(tmp_path / "b_flat.fits", names, on[0][2], **tilted)
    assert {"flat: scatter of the ratio", "flat: pull"} <= failing(night, flat=wrong)
    missing = (hot > 1300) | dead
    missing[tuple(np.argwhere(dead)[0])] = False
    missing[tuple(np.argwhere(~bad)[0])] = True
    poor = write_product(tmp_path / "b_bpm.fits", names, on[0][2], dq=missing.astype("u2"))
    assert failing(night, bpm=poor) == {"bpm: dead pixels found, fraction", "bpm: good pixels flagged"}


def stacked(
    night: Path, path: Path, *, flux: float = 1.0, shift: int = 0, level: float = 0.0, hits: bool = False
) -> Path:
    """A perfect stack of three frames: the truth itself plus noise, with faults as asked."""
    names = [f"N20160108S{number:04d}" for number in (110, 111, 112)]
    header = fits.getheader(night / f"{names[0]}.fits", 1)
    blank = np.zeros((header["NAXIS2"], header["NAXIS1"]), np.float32)
    var = np.full_like(blank, 60.0**2)
    expected = expect_image(
        Truth(night), Product.read(write_product(path.with_suffix(".0"), names, header, sci=blank))
    )
    noise = 60 * np.random.default_rng(3).standard_normal(blank.shape, np.float32)
    sci = np.roll(expected.star_image, shift, axis=1) * np.float32(flux) + noise + np.float32(level)
    if hits:
        for name, (x0, y0) in zip(names, expected.origins, strict=True):
            for row, column, electrons in Truth(night).frames[name]["cosmic_ray_pixels"]:
                y, x = round(row + y0), round(column + x0)
                if 0 <= y < len(sci) and 0 <= x < len(sci):
                    sci[y, x] += electrons / 3
    return write_product(path, names, header, sci=sci, var=var, dq=blank.astype("u2"))


def test_a_right_stack_passes_and_wrong_ones_do_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = PRESETS["two-programs"]
    few = replace(plan, runs=(replace(plan.runs[0], offsets=((0.0, 0.0),) * 3),))
    monkeypatch.setattr("pipeline.simulate.night.PRESETS", {"few": few})
    folder = tmp_path / "night"
    simulate_night(folder, "few", size=512)
    names = {
        check.name for check in check_products(folder, {"science": stacked(folder, tmp_path / "right.fits")})
    }
    assert {"science: pull of star fluxes", "science: scatter of positions in x"} <= names
    assert any("cosmic rays left" in name for name in names)
    assert failing(folder, science=tmp_path / "right.fits") == set()
    bright = failing(folder, science=stacked(folder, tmp_path / "bright.fits", flux=1.02))
    assert "science: star flux / truth" in bright
    moved = failing(folder, science=stacked(folder, tmp_path / "moved.fits", shift=1))
    assert "science: offset of stars in x" in moved
    assert "science: offset of stars in y" not in moved
    assert failing(folder, science=stacked(folder, tmp_path / "high.fits", level=3.0)) == {
        "science: background"
    }
    dirty = failing(folder, science=stacked(folder, tmp_path / "dirty.fits", hits=True))
    assert any("cosmic rays left" in name for name in dirty)


def test_reads_the_truth_of_another_simulator(shared: Path) -> None:
    """A small night that is not ours, and what DRAGONS made of it: same keys, sane results."""
    folder = shared / "reference" / "dragons-tiny"
    made = folder / "products"
    checks = check_products(
        folder / "raw",
        {
            "dark": made / "N20160102S0423_dark.fits",
            "bpm": made / "N20160102S0366_bpm.fits",
            "science": made / "N20160102S0271_image.fits",
        },
    )
    wrong = {check.name for check in checks if not check.ok}
    # Its VAR knows nothing of the resampling, and it has no card that says so.
    assert wrong == {"science: pixel noise / sqrt(VAR) / NOISECOR"}
    assert {"bpm: hot pixels found, fraction", "science: star flux / truth"} <= {
        check.name for check in checks
    }


def test_spread_is_a_standard_deviation() -> None:
    assert spread(np.random.default_rng(0).normal(5, 2, 40_000)) == pytest.approx(2, rel=0.02)
