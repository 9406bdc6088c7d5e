"""The simulator does what it says it does: otherwise every other test's truth would be a fiction."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import sep
from astropy.io import fits
from astropy.wcs import WCS

from pipeline import niri
from pipeline.headers.descriptors import describe
from pipeline.headers.merged import merge
from pipeline.headers.tags import tags_of
from pipeline.simulate import PRESETS, Shot, detector, simulate_night, sky
from pipeline.simulate.night import Options, night_shots
from pipeline.simulate.truth import Product, Truth, spread
from pipeline.simulate.verify import check_products
from pipeline.simulate.verify_image import expect_image


@pytest.fixture(scope="module")
def night(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny")
    simulate_night(folder, "tiny")
    return folder


def digest(folder: Path) -> str:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return hashlib.sha256(b"".join(path.name.encode() + path.read_bytes() for path in files)).hexdigest()


# --- nights -------------------------------------------------------------------------------------------


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


# --- the detector -------------------------------------------------------------------------------------


def test_constants_agree_with_those_the_pipeline_reduces_with() -> None:
    assert detector.GAIN == niri.GAIN
    assert detector.WELL == niri.WELL_ELECTRONS
    assert {k: tuple(v) for k, v in detector.NONLINEARITY.items()} == {
        k: tuple(v) for k, v in niri.LINEARITY.items()
    }
    assert detector.READ_NOISE.items() <= niri.READ_NOISE_ELECTRONS.items()
    assert {reads: mode for mode, reads in detector.READS.items()} == niri.READ_MODES


def test_nonlinearity_is_the_exact_inverse_of_the_published_correction() -> None:
    curve = detector.NONLINEARITY["High Background", 1024, "Shallow"]
    # Published example: 61500 e- measured are 63148.332 e-.
    assert float(curve.apply(61_500.0)) == pytest.approx(63_148.332, abs=0.01)
    for curve in detector.NONLINEARITY.values():
        measured = np.linspace(0, 2.02e5, 5000, dtype=np.float32)
        np.testing.assert_allclose(curve.invert(curve.apply(measured)), measured, rtol=3e-7, atol=0.02)


@pytest.mark.parametrize(
    ("mode", "seconds", "coadds", "rate"),
    [
        ("Medium Background", 20.002, 1, 1500.0),
        ("High Background", 2.0, 5, 300.0),
        ("Low Background", 60.0, 2, 0.25),
    ],
)
def test_level_and_noise(mode: str, seconds: float, coadds: int, rate: float) -> None:
    shot = (
        Shot(read_mode=mode, exposure=seconds, coadds=coadds).with_dark(0.25, pedestal=130.0).with_sky(rate)
    )
    raw = shot.render(1)
    electrons = raw.adu * 12.3
    curve = detector.NONLINEARITY.get((mode, 256, "Shallow"), detector.LINEAR)
    light = (rate + 0.25) * (seconds + curve.time_delta)
    collected = light + 130 * (seconds + curve.time_delta) / seconds
    measured = float(curve.invert(np.float32(collected))) * coadds
    assert float(electrons.mean()) == pytest.approx(measured, abs=float(4 * electrons.std() / 256 + 0.1))
    slope = 1 + collected * (2 * curve.gamma + 3 * curve.eta * collected)
    noise = np.sqrt(light * coadds / slope**2 + detector.READ_NOISE[mode] ** 2 * coadds)
    assert float(electrons.std()) == pytest.approx(noise, rel=0.01)
    assert np.array_equal(raw.adu, np.rint(raw.adu))
    np.testing.assert_allclose(raw.electrons, ((rate + 0.25) * seconds + 130) * coadds, rtol=1e-5)


def test_the_well_fills_and_a_burnt_out_star_has_a_hole() -> None:
    raw = Shot(shape=(64, 64)).with_sources([(32.0, 32.0, 4e6)]).render(2)
    full = 200_000 / 12.3
    assert raw.adu.max() == pytest.approx(1.01 * full, rel=0.003)
    assert raw.adu[32, 32] < 0.1 * full
    assert raw.saturated[32, 32]
    assert (raw.adu[raw.saturated] >= niri_saturation())[1:].mean() > 0.5
    one = Shot(shape=(64, 64), well="Deep").with_sources([(32.0, 32.0, 4e5)]).render(2)
    assert 16_260 < one.adu.max() < 23_100


def niri_saturation() -> int:
    return int(200_000 / 12.3)


def test_defects_are_clear_cases() -> None:
    array = detector.make_detector(np.random.default_rng(5), 256)
    good = ~array.hot & ~array.dead
    assert array.response[array.dead].max() < 0.31
    assert 0.85 < array.response[good].min() <= array.response[good].max() < 1.2
    assert float(np.median(array.response[good])) == pytest.approx(1, abs=2e-3)
    assert array.dark_rate[good].max() < 20
    hot = array.dark_rate[array.hot]
    assert not ((hot > 1001) & (hot < 1449)).any()
    assert not (array.static_bpm & good).any()
    assert 0.4 < array.static_bpm.sum() / (~good).sum() < 0.9


# --- the sky ------------------------------------------------------------------------------------------


def test_a_star_has_its_flux_and_its_place() -> None:
    stars = np.array([(30.3, 33.8, 1000.0), (80.0, 40.49, 500.0)])
    image = sky.render_stars((100, 128), stars, fwhm=4.2, floor=1e-6)
    assert float(image.sum()) == pytest.approx(1500, rel=3e-3)
    flux = sep.sum_circle(image, stars[:, 0], stars[:, 1], 10.0, subpix=0)[0]
    # Light of the other star: too little to matter. The pixel's width: less than 3e-4.
    np.testing.assert_allclose(flux, stars[:, 2] * sky.moffat_inside(10.0, 4.2), rtol=5e-4)
    x, y, _ = sep.winpos(image, stars[:, 0] + 0.3, stars[:, 1] - 0.3, 1.8)
    np.testing.assert_allclose(np.stack([x, y]).T, stars[:, :2], atol=2e-3)


@pytest.mark.parametrize(("port", "pa"), [(1, 0.0), (3, 0.0), (1, 77.0), (3, 200.0)])
def test_header_agrees_with_where_the_light_falls(port: int, pa: float) -> None:
    base = Shot(port=port, pa=pa, target=(148.97, 69.68), offset=(4.0, -3.0))
    x, y, rate = 40.0, 200.0, 1e5
    wcs = WCS(base.headers()[1])
    ra, dec = wcs.all_pix2world([x], [y], 0)
    mag = 26.40 - 2.5 * np.log10([rate])
    field = sky.Field("f", base.target, ra, dec, mag)
    lit = base.with_field(field).with_pointing_error(1.5, -0.5).light_rate()
    found_x, found_y, _ = sep.winpos(lit, [x + 1.5], [y - 0.5], 1.8)
    assert (found_x[0], found_y[0]) == (pytest.approx(x + 1.5, abs=0.01), pytest.approx(y - 0.5, abs=0.01))
    parity = np.linalg.det(wcs.pixel_scale_matrix)
    assert (parity > 0) == (port == 1)
    # Offsets move a star as the descriptors expect, to half a percent (the scale differs in x and y).
    header = merge(*base.headers())
    facts = describe(header, shape=base.shape)
    target = np.array(_pixel(wcs, base.target)) - _pixel(
        WCS(replace(base, offset=(0, 0)).headers()[1]), base.target
    )
    assert facts.detector_x_offset is not None
    assert facts.detector_y_offset is not None
    np.testing.assert_allclose(target, (facts.detector_x_offset, facts.detector_y_offset), rtol=6e-3)


def _pixel(wcs: WCS, position: tuple[float, float]) -> tuple[float, float]:
    x, y = wcs.all_world2pix(*position, 0)
    return float(x), float(y)


def test_a_galaxy_lies_along_its_position_angle() -> None:
    field = sky.Field(
        "g", (30.0, 10.0), *np.zeros((3, 0)), galaxy=sky.Galaxy(15.0, 3.0, 0.7, 60.0, (5.0, -4.0))
    )
    shot = Shot(port=3).with_field(field)
    image = shot.light_rate()
    centre = sky.offset_position(*field.target, 5.0, -4.0)
    x, y = shot.true_pointing.pixels(*(np.array([v]) for v in centre))
    peak = np.unravel_index(np.argmax(image), image.shape)
    assert (peak[1], peak[0]) == (pytest.approx(x[0], abs=1), pytest.approx(y[0], abs=1))
    along = sky.offset_position(*centre, 4 * np.sin(np.deg2rad(60)), 4 * np.cos(np.deg2rad(60)))
    across = sky.offset_position(*centre, -4 * np.cos(np.deg2rad(60)), 4 * np.sin(np.deg2rad(60)))
    levels = []
    for position in (along, across):
        px, py = shot.true_pointing.pixels(*(np.array([v]) for v in position))
        levels.append(image[round(py[0]), round(px[0])])
    assert levels[0] > 3 * levels[1]


def test_fs17_gives_the_published_zero_point() -> None:
    field = PRESETS["example1"].fields(np.random.default_rng(0))["FS 17"]
    standard = next(run.shot for run in PRESETS["example1"].runs if run.shot.kind == "standard")
    rate = (standard.with_field(field).light_rate()).sum(dtype=float)
    brightest = 10 ** (0.4 * (26.40 - 12.306))
    assert field.mag.min() == pytest.approx(12.306, abs=0.001)
    assert brightest < rate < 1.5 * brightest


# --- headers ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "tags", "absent"),
    [
        ("object", {"IMAGE", "SIDEREAL", "RAW", "NIRI"}, {"CAL"}),
        ("standard", {"IMAGE", "SIDEREAL", "RAW", "NIRI"}, {"CAL"}),
        ("flaton", {"IMAGE", "FLAT", "LAMPON", "GCALFLAT"}, {"LAMPOFF"}),
        ("flatoff", {"IMAGE", "FLAT", "LAMPOFF", "GCALFLAT"}, {"LAMPON"}),
        ("dark", {"DARK", "CAL", "AT_ZENITH"}, {"IMAGE", "FLAT"}),
    ],
)
def test_kinds_are_what_their_headers_say(kind: str, tags: set[str], absent: set[str]) -> None:
    shot = Shot(kind=kind, coadds=2, exposure=10.001, read_mode="Low Background", well="Deep")
    phu, ext = shot.headers()
    cards = merge(phu, ext)
    found = tags_of(cards)
    assert tags <= found
    assert not absent & found
    facts = describe(cards, shape=shot.shape)
    assert (facts.read_mode, facts.well_depth, facts.coadds) == ("Low Background", "Deep", 2)
    assert facts.exposure_time == pytest.approx(20.002)
    assert facts.filter_name == ("blank" if kind == "dark" else "Kprime_G0206")
    assert facts.ut_datetime == shot.start
    assert facts.data_section == "[1:256,1:256]"
    assert facts.qa_state == "Undefined"


def test_quirks_of_real_files(night: Path) -> None:
    with fits.open(night / "N20160102S0366.fits") as units:
        assert len(units) == 2
        phu, ext = units[0].header, units[1].header
        assert units[1].data.dtype == np.dtype(">f4")
    raw = (night / "N20160102S0366.fits").read_bytes()[:2880].decode()
    assert raw[80:110].split() == ["BITPIX", "=", "16"]
    assert phu.count("FRAME") == 2
    assert (phu.cards["FRAME", 0].value, phu.cards["FRAME", 1].value) == ("AZEL_TOPO", "FK5")
    assert ext["EXTVER"] == -1
    assert not {"EXTNAME", "BUNIT", "GAIN"} & (set(phu) | set(ext))
    assert (ext["LOWROW"], ext["HIROW"], ext["LOWCOL"], ext["HICOL"]) == (0, 255, 0, 255)
    assert phu["GCALLAMP"] == fits.getval(night / "N20160102S0363.fits", "GCALLAMP") == "IRhigh"
    dark = fits.getheader(night / "N20160102S0423.fits")
    assert not any(key.startswith("GCAL") for key in dark)
    assert (dark["FILTER3"], dark["WINDCOVR"], dark["EQUINOX"]) == ("blank", "closed", 0)


@pytest.mark.parametrize(
    ("name", "kind"),
    [("N20150404S0726", "standard"), ("N20150404S0872", "dark"), ("N20150405S0028", "flatoff")],
)
def test_cards_are_those_of_real_frames(shared: Path, name: str, kind: str) -> None:
    """Keys, their order and comments, in both headers; a real frame also describes its guide star."""
    text = (shared / "realdata" / "headers" / "raw" / f"{name}.fits.header").read_text(encoding="utf-8")
    for real, made in zip(text.split("XTENSION", 1), Shot(kind=kind).headers(), strict=True):
        lines = [line for line in real.splitlines() if line[8:10] == "= "]
        wanted = [line[:8].strip() for line in lines if not line.startswith(("P2A", "P2F"))]
        keys = [key for key in made if key != "XTENSION"]
        assert keys == wanted
        comments = {line[:8].strip(): line.rstrip().split(" / ", 1)[1].strip() for line in lines}
        for card in made.cards:
            if card.keyword in comments:
                assert card.comment == comments[card.keyword]


def test_sidereal_time_and_airmass_of_a_real_frame() -> None:
    """P330E on 2015-04-04 (a real header): ST 13:42:16.6, elevation 50.42, azimuth 66.43, airmass 1.297."""
    start = Shot().start.replace(
        year=2015, month=4, day=4, hour=11, minute=14, second=20, microsecond=100_000
    )
    phu, _ = Shot(
        start=start,
        target=(247.89104167, 30.14641667),
        kind="standard",
        exposure=20.001,
        read_mode="Low Background",
    ).headers()
    assert phu["ST"][:7] == "13:42:1"
    assert phu["HA"][:6] == "-02:49"
    assert phu["ELEVATIO"] == pytest.approx(50.4235875, abs=0.15)  # refraction and precession are left out
    assert phu["AZIMUTH"] == pytest.approx(66.4275, abs=0.3)
    assert phu["AMSTART"] == pytest.approx(1.297, abs=0.004)
    assert phu["UTEND"] == "11:14:52.1"
    assert phu["MJD_OBS"] == pytest.approx(57116.4694392525, abs=2e-5)
    assert phu["OBSEPOCH"] == pytest.approx(2015.25521779, abs=3e-3)


# --- products against the truth -----------------------------------------------------------------------


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
