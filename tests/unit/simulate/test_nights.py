"""Simulated nights: their files, names and truth."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS

from pipeline.simulate import PRESETS, detector, simulate_night
from pipeline.simulate.night import Options, night_shots


def digest(folder: Path) -> str:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return hashlib.sha256(b"".join(path.name.encode() + path.read_bytes() for path in files)).hexdigest()


def test_same_seed_same_bytes(night: Path, tmp_path: Path) -> None:
    simulate_night(tmp_path / "again", "tiny")
    assert digest(tmp_path / "again") == digest(night)
    simulate_night(tmp_path / "other", "tiny", seed=7)
    first = "N20160102S0270.fits"
    assert (tmp_path / "other" / first).read_bytes() != (night / first).read_bytes()


def test_files_come_in_order_and_nothing_else_looks_like_a_frame(night: Path, tmp_path: Path) -> None:
    seen: list[tuple[str, int, int]] = []

    def look(path: Path, number: int, total: int) -> None:
        assert path.stat().st_size % 2880 == 0
        seen.append((path.name, number, total))

    target = simulate_night(tmp_path, "tiny", on_file=look)
    assert target == tmp_path / "truth.json"
    assert [number for _, number, _ in seen] == list(range(1, 22))
    assert {total for _, _, total in seen} == {21}
    names = [name for name, _, _ in seen]
    assert names[0].startswith("bpm_20010317")
    assert names[1:] == [frame["file"] for frame in json.loads(target.read_text())["frames"]]
    visible = {path.name for path in tmp_path.iterdir() if not path.name.startswith(".")}
    assert visible == {*names, "truth.json"}


@pytest.mark.parametrize(("preset", "options"), [("nowhere", {}), ("tiny", {"moon": 1})])
def test_a_name_that_is_not_known_is_refused(tmp_path: Path, preset: str, options: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="there are: "):
        simulate_night(tmp_path, preset, **options)
    assert not list(tmp_path.iterdir())


def test_example1_has_the_structure_of_the_tutorial() -> None:
    plan, rng = PRESETS["example1"], np.random.default_rng(1)
    blank = detector.perfect_detector((1024, 1024))
    shots = list(night_shots(plan, plan.fields(rng), blank, Options(), rng))
    assert [shot.start for shot in shots] == sorted(shot.start for shot in shots)

    def names(first: str, count: int) -> list[str]:
        return [f"{first[:10]}{int(first[10:]) + k:04d}" for k in range(count)]

    expected = {
        ("object", 20.002): names("N20160102S0270", 10),
        ("standard", 3.001): names("N20160102S0295", 5),
        ("flatoff", 2.001): names("N20160102S0363", 10),
        ("flaton", 2.001): names("N20160102S0373", 10),
        ("dark", 20.002): names("N20160102S0423", 10),
        ("dark", 1.001): names("N20160103S0463", 10),
    }
    for (kind, seconds), wanted in expected.items():
        assert [s.name for s in shots if (s.kind, s.exposure) == (kind, seconds)] == wanted
    assert len(shots) == 55
    science = [shot for shot in shots if shot.kind == "object"]
    assert [shot.guided for shot in science] == [True] * 5 + [False] * 5
    assert len({shot.light for shot in science}) == 10  # the sky drifts


def test_every_preset_has_its_calibrations() -> None:
    for plan in PRESETS.values():
        shots = [run.shot for run in plan.runs]
        for shot in shots:
            if shot.kind == "object":
                same = [s for s in shots if s.shape == shot.shape and s.well == shot.well]
                keys = {(s.kind, s.exposure, s.coadds, s.read_mode) for s in same}
                assert ("dark", shot.exposure, shot.coadds, shot.read_mode) in keys
                assert any(s.kind == "dark" and s.exposure * s.coadds <= 2 for s in same)
                if shot.filter != "Lprime":  # no lamp outshines its sky
                    assert {"flaton", "flatoff"} <= {s.kind for s in same if s.filter == shot.filter}
        files = [
            f"{run.first[:10]}{int(run.first[10:]) + k}" for run in plan.runs for k in range(len(run.offsets))
        ]
        assert len(set(files)) == len(files)


def test_truth_says_what_was_put_in(night: Path) -> None:
    truth = json.loads((night / "truth.json").read_text())
    frame = next(f for f in truth["frames"] if f["file"] == "N20160102S0423.fits")
    dark = fits.getdata(night / frame["file"]).astype(float)
    image = detector.centre_of(fits.getdata(night / truth["dark"]), 256)
    for row, column, electrons in frame["cosmic_ray_pixels"]:
        quiet = image[row, column] * frame["exptime"] + truth["pedestal_median_e"]
        assert dark[row, column] * 12.3 - quiet == pytest.approx(electrons, abs=6 * 35 + 0.05 * electrons)
    for f in truth["frames"]:
        if f["kind"] == "object":
            x, y = _to_pixel(night / f["file"], *truth["fields"][0]["target"])
            shift = np.subtract(f["target_xy"], (x, y))
            np.testing.assert_allclose(shift, f["wcs_error_pix"], atol=1e-4)
            assert np.abs(shift).max() <= 2 + 1e-4
            # The position that truly fell on the reference pixel lies the opposite way.
            x, y = _to_pixel(night / f["file"], *f["true_radec"])
            header = fits.getheader(night / f["file"], 0)
            back = (header["CRPIX1"] - 1 - x, header["CRPIX2"] - 1 - y)
            np.testing.assert_allclose(back, f["wcs_error_pix"], atol=1e-3)


def _to_pixel(path: Path, ra: float, dec: float) -> tuple[float, float]:
    x, y = WCS(fits.getheader(path, 1)).all_world2pix(ra, dec, 0)
    return float(x), float(y)


def test_saturated_stars_leave_an_image_for_two_minutes(night: Path) -> None:
    frames = [f for f in json.loads((night / "truth.json").read_text())["frames"] if f["kind"] == "object"]
    assert frames[0]["saturated_pixels"] > 20
    assert frames[0]["latent_pixels"] == 0
    assert all(frame["latent_pixels"] > 20 for frame in frames[1:5])
    assert frames[3]["latent_pixels"] > 1.5 * frames[1]["latent_pixels"]  # of three pointings, not of one
    image = detector.latent_image(
        [(34.0, np.eye(4, dtype=bool)), (121.0, ~np.eye(4, dtype=bool))], "Shallow", (4, 4)
    )
    assert image[0, 1] == 0
    assert 0.003 * 200_000 < image[0, 0] < 0.01 * 200_000


def test_old_integer_frames(tmp_path: Path) -> None:
    simulate_night(tmp_path, "tiny", dtype="int32", cosmic=False, pattern=3.0)
    with fits.open(tmp_path / "N20160102S0271.fits") as units:
        assert units[1].data.dtype == np.dtype(">i4")
    assert all(f["cosmic_rays"] == 0 for f in json.loads((tmp_path / "truth.json").read_text())["frames"])
