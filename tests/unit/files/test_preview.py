"""Previews: the right size, the sky grey, stars bright, bad pixels seen, the same bytes each time."""

import numpy as np
import pytest
from astropy.io import fits
from PIL import Image

from pipeline.files import legend, preview
from pipeline.files.preview import EMPTY, caption_of, kind_of, raw_beside_stack, write_preview
from pipeline.frame import Frame
from tests.fitsfiles import DARK, frame_bytes


def frame(sci=None, dq=None, **cards) -> Frame:
    if sci is None:
        sci = np.random.default_rng(0).normal(1000, 10, (120, 200)).astype("f4")
        sci[100:104, 20:24] += 5000  # a star near the top left, where row 0 is at the bottom
    header = fits.Header(list({**DARK, "OBSTYPE": "OBJECT", "OBJECT": "M 82", **cards}.items()))
    dq = np.zeros(sci.shape, "u2") if dq is None else dq
    return Frame(sci=sci, dq=dq, header=header, unit="electron", name="N20160102S0271_image.fits")


def pixels(path, shape) -> np.ndarray:
    with Image.open(path) as picture:
        assert (picture.format, picture.mode, picture.width) == ("PNG", "L", shape[1])
        assert picture.height > shape[0] + legend.LINE, "the strip hides no pixel"
        return np.asarray(picture)[: shape[0]][::-1]


def test_sky_is_grey_stars_are_white_and_the_rest_is_dark(tmp_path):
    dq = np.zeros((120, 200), "u2")
    dq[:10] = 16
    write_preview(tmp_path / "a.png", frame(dq=dq))
    grey = pixels(tmp_path / "a.png", (120, 200))
    assert grey[101, 21] == 255
    assert 40 < np.median(grey[20:90]) < 140
    assert (grey[:10] == EMPTY).all()


def test_the_same_frame_gives_the_same_bytes_and_nothing_is_left_beside_it(tmp_path):
    write_preview(tmp_path / "a.png", frame())
    write_preview(tmp_path / "b.png", frame())
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.png", "b.png"]


def test_a_mask_shows_its_bad_pixels(tmp_path):
    dq = np.zeros((64, 64), "u2")
    dq[3, 5] = 1
    mask = frame(np.zeros((64, 64), "f4"), dq, BPMASK="x")
    write_preview(tmp_path / "a.png", mask)
    assert np.argwhere(pixels(tmp_path / "a.png", (64, 64)) == 255).tolist() == [[3, 5]]
    assert "1 bad pixels" in caption_of(mask)


@pytest.mark.parametrize("kind", ["DARK", "FLAT"])
def test_darks_and_flats_use_the_whole_range(tmp_path, kind):
    sci = np.random.default_rng(0).normal(1, 0.02, (64, 64)).astype("f4")
    write_preview(tmp_path / "a.png", frame(sci, OBSTYPE=kind))
    grey = pixels(tmp_path / "a.png", (64, 64))
    assert grey.min() == EMPTY
    assert grey.max() == 255
    assert kind_of(frame(OBSTYPE=kind)) == kind.lower()


@pytest.mark.parametrize("value", [0.0, 7.0])
def test_a_constant_image_is_a_picture_too(tmp_path, value):
    write_preview(tmp_path / "a.png", frame(np.full((40, 40), value, "f4")))
    assert np.ptp(pixels(tmp_path / "a.png", (40, 40))) == 0


def test_a_frame_that_is_all_bad_is_a_picture_too(tmp_path):
    write_preview(tmp_path / "a.png", frame(np.zeros((8, 8), "f4"), np.full((8, 8), 16, "u2")))
    assert (pixels(tmp_path / "a.png", (8, 8)) == EMPTY).all()


def test_the_caption_says_what_it_is():
    cards = {"FILTER1": "K_G0204", "FILTER3": "pupil38_G5207", "NCOMBINE": 4, "MEANFWHM": 0.5123}
    assert caption_of(frame(**cards)) == [
        "N20160102S0271_image.fits", "M 82", "K", "4 frames of 20 s", 'FWHM 0.51"',
    ]  # fmt: skip
    assert caption_of(frame(**cards), so_far=9)[3:5] == ["4 of 9 frames so far", "20 s"]
    alone = caption_of(frame(MAGZPT=25.913, MAGZERR=0.02, TRANSP=0.25))
    assert alone[3:] == [
        "single frame",
        "20 s",
        "zero point 25.91 +- 0.02",
        "stars at 25 % of earlier frames",
    ]


def field(light=1.0, **cards):
    """A field of stars that a cloud has left this part of."""
    sci = np.random.default_rng(1).normal(0, 10, (300, 420)).astype("f4")
    rows, columns = np.indices(sci.shape)
    for x, y, flux in ((60, 60, 4000), (200, 150, 1500), (350, 240, 600)):
        sci += light * flux * np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / 8).astype("f4")
    return frame(sci, **cards)


def test_a_clouded_look_is_as_dim_as_its_stars_and_says_so(tmp_path):
    write_preview(tmp_path / "clear.png", field())
    write_preview(tmp_path / "cloud.png", field(0.2, TRANSP=0.2, VERDICT="used", VREASON="cloud"))
    clear, cloud = (pixels(tmp_path / name, (300, 420)) for name in ("clear.png", "cloud.png"))
    for x, y in ((200, 150), (350, 240)):
        assert clear[y, x] - np.median(clear) > 1.4 * (float(cloud[y, x]) - np.median(cloud))
    assert (cloud[-8:, :20] == 255).all(), "a band across the top"
    assert (clear[-8:, :20] < 200).all()
    assert preview.band_of(field(VREASON="cloud", VERDICT="used")) == "CLOUD"


def test_a_dead_look_cannot_be_taken_for_a_good_one(tmp_path):
    dead = field(0.0, VERDICT="left out", VREASON="no light: closed shutter?")
    write_preview(tmp_path / "dead.png", dead)
    write_preview(tmp_path / "good.png", field())
    grey, good = (pixels(tmp_path / name, (300, 420)) for name in ("dead.png", "good.png"))
    assert np.percentile(grey[:250], 99.9) < np.median(good)
    assert preview.band_of(dead) == "WOULD BE LEFT OUT, no light: closed shutter?"


SKY = {
    "CTYPE1": "RA---TAN",
    "CTYPE2": "DEC--TAN",
    "CRPIX1": 210.0,
    "CRPIX2": 150.0,
    "CRVAL1": 30.0,
    "CRVAL2": 20.0,
}


@pytest.mark.parametrize("turn", [0, 90, 180])
def test_the_compass_points_north_and_the_bar_is_as_long_as_it_says(tmp_path, turn):
    scale, angle = 0.1168 / 3600, np.radians(turn)
    cd = scale * np.array([[-np.cos(angle), np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    cards = SKY | {f"CD{i + 1}_{j + 1}": cd[i, j] for i in (0, 1) for j in (0, 1)}
    look = field(**cards)
    write_preview(tmp_path / "a.png", look)
    with Image.open(tmp_path / "a.png") as picture:
        strip = np.asarray(picture)[300:]
    ra, dec = look.tangent.to_sky(210, 150)
    x, y = look.tangent.to_pixel(ra, dec + 10 / 3600)  # where 10 arcsec north is
    north = np.array([x - 210, y - 150]) / np.hypot(x - 210, y - 150)
    wanted = {0: (0, 1), 90: (1, 0), 180: (0, -1)}[turn]
    assert north == pytest.approx(wanted, abs=1e-6)
    square = strip[:, -legend.COMPASS - 4 :] > 100
    half = square.shape[0] // 2
    more = {0: square[:half], 90: square[:, square.shape[1] // 2 :], 180: square[half:]}[turn]
    assert more.sum() > 40, "an arrow and its letter"
    arcsec, length = legend.bar_length(look.tangent.pixel_scale)
    assert length == pytest.approx(arcsec / 0.1168, rel=1e-3)
    runs = (strip[:, : -legend.COMPASS] > 200).sum(axis=1)
    assert runs.max() >= round(length), "a line as long as the bar"


def test_flags_are_in_colour_on_demand(tmp_path):
    dq = np.zeros((300, 420), "u2")
    dq[10, 20], dq[40, 50] = 1, 4
    look = field()
    (tmp_path / "a.png").write_bytes(preview.with_flags(look.evolve(dq=dq)))
    with Image.open(tmp_path / "a.png") as picture:
        assert picture.mode == "RGB"
        colours = np.asarray(picture)[:300][::-1]
    assert tuple(colours[10, 20]) == preview.COLOURS["red"]
    assert tuple(colours[40, 50]) == preview.COLOURS["yellow"]
    assert np.ptp(colours[100, 100]) == 0, "all others are grey"


def test_raw_beside_stack(tmp_path):
    for name in ("raw.fits", "stack.fits"):
        (tmp_path / name).write_bytes(frame_bytes())
    raw_beside_stack(tmp_path / "raw.fits", tmp_path / "stack.fits", tmp_path / "both.png")
    with Image.open(tmp_path / "both.png") as picture:
        assert picture.width > 2 * preview.PANEL
