"""Every page for people who read with their ears, with a keyboard, or with other colours: axe's rules."""

import re
import shutil

import pytest

from docs import screenshots
from tests.e2e.test_night import Place, frames, tiny_night  # noqa: F401  (fixture)

pytest.importorskip("starlette")
axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe is not here: nirid[browser]")
if not screenshots.chromium():
    pytest.skip("there is no browser: apt-get install chromium", allow_module_level=True)


@pytest.fixture(scope="module")
def address(tiny_night, tmp_path_factory):  # noqa: F811
    """A night with a frame that waits for a person, so that no part of the page is empty."""
    place = Place(tmp_path_factory.mktemp("access"))
    for path in frames(tiny_night):
        shutil.copy(path, place.drop)
    (place.drop / "N20160102S0999.fits").write_bytes(b"no FITS file")
    place.run()
    with screenshots.served(place.state) as (where, _):
        yield where.rstrip("/")


PAGES = (
    "/",
    "/thing/N20160102S0271_image",
    "/thing/N20160102S0270.fits",
    "/night/20160102",
    "/night/20160102/print",
    "/nights",
    "/nights?programme=GN-2015B-Q-1",
    "/calibrations",
    "/health",
    "/login",
    "/absent",
)


def violations(page):
    return [
        (found["id"], found["impact"], [node["html"][:120] for node in found["nodes"][:3]])
        for found in axe.Axe().run(page).response["violations"]
    ]


@pytest.mark.parametrize("scheme", ["dark", "light"])
@pytest.mark.parametrize("path", PAGES)
def test_axe_finds_nothing(chromium, address, path, scheme):
    page = chromium.new_page(viewport={"width": 1360, "height": 860}, color_scheme=scheme)
    answer = page.goto(address + path, wait_until="load")
    assert answer.status == (404 if path == "/absent" else 200)
    assert violations(page) == []
    page.close()


def test_axe_would_find_something(chromium, address):
    page = chromium.new_page()
    page.goto(address, wait_until="load")
    page.evaluate(
        "document.querySelector('main').innerHTML += '<img src=\"/static/icon.svg\"><button></button>'"
    )
    assert {name for name, *_ in violations(page)} >= {"image-alt", "button-name"}
    page.close()


def test_the_report_prints_on_two_pages_with_its_own_style_and_pictures(chromium, address):
    """From the page and from the file that the command writes: the same policy stands in both."""
    page = chromium.new_page()
    said, asked = [], []
    page.on("console", lambda message: said.append(message.text))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(f"{address}/night/20160102/print", wait_until="load")
    assert [url for url in asked if not url.startswith("data:")] == [f"{address}/night/20160102/print"]
    assert said == []
    assert page.evaluate("getComputedStyle(document.querySelector('.n')).textAlign") == "right"
    drawn = page.evaluate("[...document.images].map(image => image.naturalWidth)")
    assert len(drawn) == 4
    assert all(drawn)
    assert 1 <= len(re.findall(rb"/Type /Page\b", page.pdf(prefer_css_page_size=True))) <= 2
    page.close()
