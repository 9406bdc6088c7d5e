"""Two pictures in a real browser: blink, difference; one that is made anew; browsers that hide pixels."""

import re

import numpy as np
import pytest

from docs.screenshots import wait
from tests.e2e.test_page_pictures import (  # noqa: F401  (fixtures)
    BOX,
    PAINTED,
    greys,
    looks,
    made,
    opened,
    over,
    planes,
    said,
    scale_line,
)
from tests.pixels import CENTRE

FIGURE = BOX.replace(".pic canvas", ".pic")
NOISE = """CanvasRenderingContext2D.prototype.getImageData = function (x, y, w, h) {
  return new ImageData(w, h); }"""


def test_a_difference_of_two_versions_is_what_numpy_says(opened, made):  # noqa: F811
    page = opened(f"{made.address}/thing/N20160102S0271_image")
    versions = [page.locator(f"[data-key={key}]").inner_text()[:9] for key in "fs"]
    assert versions == ["version 3", "version 2"]
    page.keyboard.press("d")
    wait(page, PAINTED.format("difference"))
    new, old = (planes(made.path(name))[0] for name in ("N20160102S0271_image", "N20160102S0271_image.v0002"))
    both = ((new["DQ"] | old["DQ"]) & (1 | 16 | 64)) == 0
    wanted = new["SCI"].astype(float) - old["SCI"]
    wanted -= np.median(wanted[both])
    sigma = 1.4826 * np.median(np.abs(wanted[both]))
    seen = greys(page)
    assert np.abs(seen - (128 + 108 * np.clip(wanted / sigma / 5, -1, 1)))[both].max() <= 1
    assert (seen[~both] == 0).all()
    line = scale_line(page)
    assert line.startswith("difference version 3 - version 2, less its median ")
    assert "grey 0" in line
    assert "aligned by the coordinates of both" in line
    over(page, 130, 140, both.shape)
    wait(page, "document.getElementById('values').textContent.includes('130, 140 (from 1): difference ')")
    told = re.search(r"difference (\S+) electron", page.inner_text("#values"))[1].replace("−", "-")
    assert float(told) == pytest.approx(wanted[139, 129], rel=2e-3, abs=0.02)


def test_blink_old_against_new_by_key_and_by_button(opened, made):  # noqa: F811
    page = opened(f"{made.address}/thing/N20160102S0271_image")
    first = page.evaluate("document.querySelector('.pic canvas').dataset.of")
    for blink in (lambda: page.keyboard.press("b"), lambda: page.locator("[data-key=b]").click()):
        blink()
        assert page.locator("[data-key=b]").get_attribute("aria-pressed") == "true"
        wait(page, f"document.querySelector('.pic canvas').dataset.of !== {first!r}")
        wait(page, PAINTED.format(first))
        page.keyboard.press("Escape")
        assert page.locator("[data-key=b]").get_attribute("aria-pressed") == "false"
        wait(page, PAINTED.format(first))


def test_while_frame_and_stack_blink_a_star_stays_where_it_is(opened, looks):  # noqa: F811
    page = opened(looks.address)
    page.keyboard.press("b")
    places = {}
    for what in ("firstlook", "running"):
        path = looks.path({"firstlook": "N20160102S0275_firstlook"}.get(what, "N20160102S0271_running"))
        found, sky = planes(path)
        ny, nx = found["SCI"].shape
        x, y = sky.all_world2pix(*CENTRE, 0)
        shown = f"document.querySelector('.pic figcaption').textContent.endsWith({what!r})"
        painted = f"document.querySelector('.pic canvas').width === {nx}"
        wait(page, f"{shown} && {painted} && (window.boxes = [{BOX}, {FIGURE}])")
        box, figure = page.evaluate("window.boxes")  # parts above may be made anew meanwhile
        places[what] = (
            box["x"] - figure["x"] + (x + 0.5) / nx * box["width"],
            box["y"] - figure["y"] + (ny - y - 0.5) / ny * box["height"],
        )
    assert places["firstlook"] == pytest.approx(places["running"], abs=0.5)


def test_the_newest_frame_less_its_stack_and_back(opened, looks):  # noqa: F811
    page = opened(looks.address)
    assert page.locator("[data-key=s]").get_attribute("aria-pressed") == "true", "the stack came last"
    page.locator("[data-key=d]").click()
    wait(page, PAINTED.format("difference"))
    assert scale_line(page).startswith("difference frame - stack, less its median 30")
    seen = greys(page)
    assert np.median(seen[seen > 0]) == pytest.approx(128, abs=1)
    assert np.std(seen[seen > 0]) < 40
    page.keyboard.press("d")
    wait(page, "document.querySelector('.pic figcaption').textContent === 'N20160102S0275_firstlook'")


def test_where_there_is_no_difference_a_sentence_says_so(opened, made):  # noqa: F811
    page = opened(f"{made.address}/thing/N20160102S0423_dark")
    page.keyboard.press("d")
    assert scale_line(page) == "no difference: there is no other picture to compare this one with"


def test_why_there_is_no_difference_is_what_the_server_says(opened, looks):  # noqa: F811
    page = opened(looks.address)
    why = "no difference: the filters differ: K and J"
    page.route("**/difference/**", lambda route: route.fulfill(status=409, json={"error": why}))
    page.keyboard.press("d")
    wait(page, f"document.getElementById('scale').textContent === {why!r}")
    assert page.locator("[data-key=d]").get_attribute("aria-pressed") == "false"


def test_a_new_picture_is_seen_as_the_one_before_it(opened, looks):  # noqa: F811
    """Scale, zoom, and the pixel that is looked at stay when the part of the page is made anew."""
    page = opened(looks.address)
    for key in ("f", "a", "2"):
        page.keyboard.press(key)
    wait(page, "document.querySelector('.pic canvas').dataset.of.endsWith('full')")
    over(page, 105, 95, planes(looks.path("N20160102S0275_firstlook"))[0]["SCI"].shape)
    before = said(page, 105, 95).group(0)
    transform = page.locator(".pic img").get_attribute("style")
    page.evaluate("fetch('/parts?names=newest').then(a => a.json()).then(all => put('newest', all.newest))")
    wait(page, "document.querySelector('.pic canvas').dataset.of.endsWith('full')")
    assert page.locator(".pic img").get_attribute("style") == transform
    assert said(page, 105, 95).group(0) == before
    assert scale_line(page).startswith("automatic: ")
    assert page.inner_text(".pic figcaption") == "N20160102S0275_firstlook"


def test_a_browser_that_gives_noise_for_pixels_shows_pictures_as_they_are(opened, looks):  # noqa: F811
    page = opened(looks.address, init=NOISE)
    assert scale_line(page).startswith("fixed -2 to +10 sigma of the sky; this browser")
    assert not page.locator(".pic canvas").is_visible()
    page.keyboard.press("a")
    wait(page, "document.getElementById('scale').textContent.startsWith('automatic; this browser')")
    page.keyboard.press("d")
    wait(page, PAINTED.format("difference"))
    assert page.locator(".pic canvas").is_visible()


def test_the_file_can_be_opened_elsewhere(opened, looks):  # noqa: F811
    page = opened(looks.address)
    path = looks.path("N20160102S0271_running")
    assert page.inner_text(".file code") == f"ds9 {path}"
    page.keyboard.press("f")
    assert page.inner_text(".file code") == f"ds9 {looks.path('N20160102S0275_firstlook')}"
    href = page.locator(".file a").get_attribute("href")
    with page.expect_download() as download:
        page.locator(".file a").click()
    assert download.value.path().read_bytes() == looks.path("N20160102S0275_firstlook").read_bytes()
    assert href.startswith("/fits/look/")
    page.locator(".copy").click()
    wait(page, "document.querySelector('.copy').textContent !== 'copy'")
