"""Pictures in a real browser: values under the pointer, one scale for all, differences, by keys and by touch.

The night is `tests.pixels`: real files and pictures of one sky, whose values astropy reads here.
"""

import re

import numpy as np
import pytest
from astropy import units
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.wcs import WCS

from docs import screenshots
from docs.screenshots import wait
from pipeline.files.stretch import Stretch, fixed_scale
from tests.night import example1
from tests.pixels import Night

pytest.importorskip("starlette")
pytest.importorskip("playwright", reason="the browser's driver is not here: pip install playwright")
if not screenshots.chromium():
    pytest.skip("there is no browser: apt-get install chromium", allow_module_level=True)

LIVE = "document.getElementById('live').textContent.startsWith('live')"
PAINTED = "document.querySelector('.pic canvas').dataset.of === {!r}"


@pytest.fixture(scope="module")
def looks(tmp_path_factory):
    """A sequence that is being taken."""
    night = Night(tmp_path_factory.mktemp("looks"), records=example1()[:6], seconds=2.0)
    with night.served() as (where, _):
        night.address = where.rstrip("/")
        yield night


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A night that is over, with a stack that was made again."""
    place = tmp_path_factory.mktemp("made")
    night = Night(place, records=example1(), seconds=600, reject="N20160102S0273.fits")
    with night.served() as (where, _):
        night.address = where.rstrip("/")
        yield night


@pytest.fixture
def opened(chromium):
    """opened(address) is a page whose picture is painted; at the end nothing was wrong in any."""
    pages, log = [], []

    def opened(address, init="", **more):
        page = chromium.new_page(
            **{"viewport": {"width": 1360, "height": 1400}, "color_scheme": "dark", **more}
        )
        page.asked = []
        page.add_init_script(init)
        page.on("console", lambda message: "409" in message.text or log.append(message.text))
        page.on("pageerror", lambda error: log.append(str(error)))
        page.on("request", lambda request: page.asked.append(request.url))
        page.goto(address, wait_until="load")
        wait(page, "!!document.querySelector('.pic canvas').dataset.of")
        if page.locator("#live").count():
            wait(page, LIVE)
            page.wait_for_timeout(300)  # parts that have changed since are put in place: nothing moves then
        pages.append(page)
        return page

    yield opened
    for page in pages:
        page.close()
    assert log == []


def planes(path):
    with fits.open(path) as file:
        found = {name: file[name].data.copy() for name in ("SCI", "VAR", "DQ")}
        return found, WCS(file["SCI"].header)


BOX = "document.querySelector('.pic canvas').getBoundingClientRect().toJSON()"
SAID = re.compile(
    r"pixel (\d+), (\d+) \(from 1\): (\S+) ± (\S+) electron(?: · ([a-z ,]+))?"
    r" · RA ([\d .]+) Dec ([−+][\d .]+)"
)


def said(page, x, y):
    """What the page says once it speaks of this pixel."""
    wait(page, f"document.getElementById('values').textContent.startsWith('pixel {x}, {y} (from 1): ')")
    return SAID.fullmatch(page.inner_text("#values").replace("\n", " "))


def agrees(page, path, x, y):
    """That what stands below the picture is what the file has there."""
    found, place = planes(path)
    told = said(page, x, y)
    value, error, flags, ra, dec = told.groups()[2:]
    here = (y - 1, x - 1)
    assert float(value.replace("−", "-")) == pytest.approx(float(found["SCI"][here]), rel=2e-6, abs=1e-4)
    assert float(error) == pytest.approx(float(np.sqrt(found["VAR"][here])), rel=1e-2)
    bits = int(found["DQ"][here])
    words = {1: "bad pixel", 2: "not linear", 4: "saturated", 8: "cosmic ray or latent light", 16: "no data"}
    assert set((flags or "").split(", ")) - {""} == {word for bit, word in words.items() if bits & bit}
    seen = SkyCoord(ra, dec.replace("−", "-"), unit=(units.hourangle, units.deg))
    true = SkyCoord(*place.all_pix2world(x, y, 1), unit="deg")
    assert seen.separation(true).arcsec < 0.117 / 2


def over(page, x, y, shape):
    """Put the pointer on a pixel, by where the picture lies on the screen."""
    box, (ny, nx) = page.evaluate(BOX), shape
    left, top = box["x"] + (x - 0.5) / nx * box["width"], box["y"] + (ny - y + 0.5) / ny * box["height"]
    page.mouse.move(left, top)


def greys(page):
    """The canvas as it is, the lowest row first."""
    made = page.evaluate(
        "(() => { const c = document.querySelector('.pic canvas');"
        " const d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data;"
        " return [c.height, c.width, Array.from({length: c.width * c.height}, (_, i) => d[4 * i])]; })()"
    )
    return np.array(made[2], float).reshape(made[0], made[1])[::-1]


# -- values ------------------------------------------------------------------------------------------------


def test_the_value_under_the_pointer_is_the_pixel_of_the_file(opened, looks):
    page = opened(looks.address)
    path = looks.path("N20160102S0271_running")
    ny, nx = planes(path)[0]["SCI"].shape
    for x, y in ((1, 1), (nx, 1), (1, ny), (nx, ny), (120, 130), (nx // 2 + 8, ny // 2 + 1), (60, 200)):
        over(page, x, y, (ny, nx))
        agrees(page, path, x, y)


def test_zoomed_and_panned_it_is_the_pixel_that_is_seen_there(opened, looks):
    page = opened(looks.address)
    path = looks.path("N20160102S0271_running")
    shape = planes(path)[0]["SCI"].shape
    page.keyboard.press("3")
    wait(page, "document.querySelector('.pic canvas').dataset.of.endsWith('full')")
    box = page.locator(".pic").bounding_box()
    middle = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(*middle)
    page.mouse.down()
    page.mouse.move(middle[0] + 90, middle[1] - 60, steps=5)
    page.mouse.up()
    for x, y in ((110, 125), (100, 140), (125, 118)):
        over(page, x, y, shape)
        agrees(page, path, x, y)
    page.mouse.wheel(0, -300)
    over(page, 112, 128, shape)
    agrees(page, path, 112, 128)
    star = greys(page)[shape[0] // 2 - 1, shape[1] // 2 - 1]  # the brightest stands in the middle
    assert star > 240


def test_moving_within_a_cut_out_costs_nothing(opened, looks):
    page = opened(looks.address)
    shape = planes(looks.path("N20160102S0271_running"))[0]["SCI"].shape
    for x in range(66, 90, 3):
        over(page, x, 100, shape)
        said(page, x, 100)
    assert len([url for url in page.asked if "/cutout/" in url]) == 1


def test_arrow_keys_move_a_cross_hair_in_the_picture_that_has_the_focus(opened, looks):
    page = opened(looks.address)
    path = looks.path("N20160102S0271_running")
    over(page, 100, 100, planes(path)[0]["SCI"].shape)
    said(page, 100, 100)
    page.locator(".pic").focus()
    page.keyboard.press("ArrowRight")  # shows it where the pointer was
    for key, x, y in (
        ("ArrowRight", 101, 100),
        ("ArrowUp", 101, 101),
        ("Shift+ArrowUp", 101, 111),
        ("ArrowLeft", 100, 111),
    ):
        page.keyboard.press(key)
        agrees(page, path, x, y)
    assert page.locator(".cross").get_attribute("hidden") is None
    assert page.locator("#values").get_attribute("aria-live") == "polite"
    page.keyboard.press("Escape")
    assert page.locator(".cross").get_attribute("hidden") == ""


def test_a_tap_does_the_same_and_what_is_tapped_is_large(chromium, opened, looks):
    context = {"viewport": {"width": 360, "height": 740}, "has_touch": True, "is_mobile": True}
    page = opened(looks.address, **context)
    path = looks.path("N20160102S0271_running")
    ny, nx = planes(path)[0]["SCI"].shape
    box = page.locator(".pic").bounding_box()
    page.touchscreen.tap(box["x"] + 100.5 / nx * box["width"], box["y"] + (ny - 60.5) / ny * box["height"])
    agrees(page, path, 101, 61)
    assert page.locator(".cross").get_attribute("hidden") is None
    sizes = page.locator(".bar button").evaluate_all(
        "all => all.map(e => e.getBoundingClientRect()).map(b => [b.width, b.height])"
    )
    assert len(sizes) == 12
    assert min(min(size) for size in sizes) >= 44
    assert page.evaluate("document.documentElement.scrollWidth") == 360
    page.locator("[data-key=f]").tap()
    wait(page, "document.querySelector('.pic figcaption').textContent.endsWith('_firstlook')")


# -- scale ---------------------------------------------------------------------------------------------------


def scale_line(page):
    return page.inner_text("#scale").replace("−", "-").replace("\n", " ")


def at_fixed_scale(page, path):
    """(greys of the picture, greys that numpy gives, how far they may differ)"""
    page.keyboard.press("2")
    wait(page, "document.querySelector('.pic canvas').dataset.of.endsWith('full')")
    found, _ = planes(path)
    about = page.evaluate("JSON.parse(document.querySelector('.view').dataset.first).about")
    automatic, fixed = Stretch(*about["automatic"]), Stretch(*about["fixed"])
    values = found["SCI"].astype(float)
    part = lambda v: fixed.levels(np.clip((v - fixed.black) / (fixed.white - fixed.black), 0, 1))  # noqa: E731
    grey = automatic.greys(found["SCI"].copy()).astype(float)
    off = np.maximum(
        *(np.abs(part(automatic.values(grey + d)) - part(automatic.values(grey))) for d in (-1, 1))
    )
    good = (found["DQ"] & 16) == 0
    return greys(page)[good], part(values)[good], off[good] + 1.5, fixed


def test_the_fixed_scale_is_the_same_for_two_frames(opened, looks):
    scales = []
    for name in ("N20160102S0272_firstlook", "N20160102S0275_firstlook"):
        page = opened(f"{looks.address}/thing/{name}")
        seen, wanted, off, fixed = at_fixed_scale(page, looks.path(name))
        assert (np.abs(seen - wanted) <= off).mean() > 0.999
        sky, noise = (5 * fixed.black + fixed.white) / 6, (fixed.white - fixed.black) / 12
        assert (sky, noise) == (pytest.approx(3000, abs=3), pytest.approx(20, rel=0.1))
        scales.append(fixed_scale(0, 1).levels(np.array([1.0])) - np.median(seen))
        black, white = re.search(
            r"fixed -2 to \+10 sigma of the sky: black (\S+), white (\S+) electron", scale_line(page)
        ).groups()
        assert (float(black), float(white)) == (
            pytest.approx(fixed.black, rel=1e-3),
            pytest.approx(fixed.white, rel=1e-3),
        )
    assert scales[0] == pytest.approx(scales[1], abs=2)


def test_automatic_fixed_brightness_and_contrast(opened, looks):
    page = opened(f"{looks.address}/thing/N20160102S0272_firstlook")
    page.keyboard.press("2")
    wait(page, "document.querySelector('.pic canvas').dataset.of.endsWith('full')")
    fixed = greys(page)
    page.keyboard.press("a")
    assert scale_line(page).startswith("automatic: black ")
    automatic, about = (
        greys(page),
        page.evaluate("JSON.parse(document.querySelector('.view').dataset.first).about"),
    )
    found = planes(looks.path("N20160102S0272_firstlook"))[0]["SCI"]
    wanted = Stretch(*about["automatic"]).greys(found.copy())
    off = np.abs(automatic - wanted)
    assert off.max() <= 1, "nothing is lost where nothing is changed, but for the seventh digit of black"
    assert (off > 0).mean() < 1e-3
    assert np.std(fixed) > 1.3 * np.std(automatic)
    page.keyboard.press("+")
    assert np.median(greys(page)) > 1.1 * np.median(automatic)
    assert "white" in scale_line(page)
    page.keyboard.press("-")
    page.locator("[data-key='.']").click()
    harder = scale_line(page)
    assert np.std(greys(page)) > 1.1 * np.std(automatic)
    page.locator("[data-key=',']").click()
    assert scale_line(page) != harder
    assert np.array_equal(greys(page), automatic)
    page.locator("[data-key=a]").click()
    assert np.array_equal(greys(page), fixed)


def test_a_frame_without_light_stays_dark_and_a_master_has_its_own_scale(opened, looks, made):
    dead = opened(f"{looks.address}/thing/N20160102S0274_firstlook")
    assert np.percentile(greys(dead)[:180], 99) < 90
    dead.keyboard.press("a")
    wait(dead, "document.getElementById('scale').textContent.startsWith('automatic')")
    assert np.percentile(greys(dead)[:180], 99) < 90
    dark = opened(f"{made.address}/thing/N20160102S0423_dark")
    assert scale_line(dark).startswith("automatic (it has no sky): black ")
