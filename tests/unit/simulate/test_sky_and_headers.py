"""The simulated sky and its headers, against each other and real ones."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import sep
from astropy.io import fits
from astropy.wcs import WCS

from pipeline.headers.descriptors import describe
from pipeline.headers.merged import merge
from pipeline.headers.tags import tags_of
from pipeline.simulate import PRESETS, Shot, sky


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
