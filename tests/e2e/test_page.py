"""The page in a real browser: what it costs, whom it asks, by keyboard, on a phone, without its server."""

import contextlib
import http.client
import json
import shutil
import signal
import socket
import subprocess
import threading
import time

import pytest

from docs import screenshots
from docs.screenshots import wait
from tests.e2e.test_night import TINY, Place, frames, tiny_night  # noqa: F401  (fixture)

pytest.importorskip("starlette")
pytest.importorskip("playwright", reason="the browser's driver is not here: pip install playwright")
if not screenshots.chromium():
    pytest.skip("there is no browser: apt-get install chromium", allow_module_level=True)

LIVE = "document.getElementById('live').textContent.startsWith('live')"


@pytest.fixture(scope="module")
def night(tiny_night, tmp_path_factory):  # noqa: F811
    """A night that was reduced, with its state folder."""
    place = Place(tmp_path_factory.mktemp("page"))
    for path in frames(tiny_night):
        shutil.copy(path, place.drop)
    place.run()
    return place


@pytest.fixture(scope="module")
def address(night):
    with screenshots.served(night.state) as (where, _):
        yield where


@pytest.fixture
def page(chromium, address):
    """The page of the night, live; `page.log` is what the browser says, `page.asked` what it asks for."""
    found = opened(chromium, address)
    yield found
    assert found.log == []
    found.close()


def opened(chromium, address, **more):
    found = chromium.new_page(**{"viewport": {"width": 1360, "height": 860}, "color_scheme": "dark", **more})
    found.log, found.asked = [], []
    found.on("console", lambda message: found.log.append(message.text))
    found.on("pageerror", lambda error: found.log.append(str(error)))
    found.on("request", lambda request: found.asked.append(request))
    found.goto(address, wait_until="load")
    wait(found, LIVE)
    return found


def is_picture(request):
    return request.resource_type == "image"


def test_the_first_load_is_small_and_asks_nobody_else(page, address):
    page.wait_for_timeout(500)
    assert all(request.url.startswith(address) for request in page.asked)
    others = [request for request in page.asked if not is_picture(request)]
    assert len(others) <= 6
    sizes = [r.sizes()["responseBodySize"] for r in others if "stream" not in r.url and r.response()]
    assert sum(sizes) < 45_000
    painted = page.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime")
    assert painted < 2000  # 0.4 s by itself; a test shares its machine


def test_what_a_glance_must_find_is_there(page):
    text = page.inner_text("body")
    for word in (
        "night 20160102",
        "IQ",
        "CC",
        "Newest picture".upper(),
        "Missing tonight".upper(),
        "K(prime)",
    ):
        assert word in text
    assert page.locator(".pic img").evaluate("image => image.naturalWidth") > 100
    assert page.locator("#products img").count() == len(TINY)
    assert page.locator(".compass text").all_text_contents() == ["N", "E", "10″"]


def test_everything_by_keyboard(page):
    page.keyboard.press("j")
    page.keyboard.press("j")
    row = page.locator("tr.here")
    assert row.count() == 1
    page.keyboard.press("k")
    first = page.locator("tr.here a").get_attribute("href")
    page.keyboard.press("2")
    assert "scale(2)" in page.locator(".pic img").get_attribute("style")
    page.keyboard.press("0")
    page.keyboard.press("f")  # the night is over: the newest picture is the stack, and s has no other to show
    assert "_image" in page.locator(".pic figcaption").inner_text()
    page.keyboard.press("n")
    assert page.evaluate("document.body.className") == "night"
    page.keyboard.press("n")
    page.keyboard.press("m")
    assert page.evaluate("document.activeElement.id") == "missing"
    page.keyboard.press("?")
    assert page.locator("dialog").is_visible()
    page.keyboard.press("Escape")
    assert not page.locator("dialog").is_visible()
    page.keyboard.press("/")
    page.keyboard.type("N20160102S0271_image")
    page.keyboard.press("Enter")
    page.wait_for_url("**/thing/N20160102S0271_image")
    assert "nirid explain" in page.inner_text("body")
    page.keyboard.press("Escape")
    page.wait_for_url("**/")
    wait(page, LIVE)
    for key in ("j", "Enter"):
        page.keyboard.press(key)
    page.wait_for_url(f"**{first}")
    page.keyboard.press("Escape")
    page.wait_for_url("**/")
    page.keyboard.press("r")
    page.wait_for_url("**/night/20160102")


def test_a_phone_does_not_scroll_sideways_and_sees_the_picture(chromium, address):
    phone = opened(chromium, address, viewport={"width": 360, "height": 740})
    assert phone.evaluate("document.documentElement.scrollWidth") == 360
    assert phone.locator("#strip").bounding_box()["y"] < 300
    assert phone.locator(".pic").bounding_box()["y"] < 600
    for path in ("/thing/N20160102S0271_image", "/night/20160102", "/nights", "/calibrations", "/health"):
        phone.goto(address.rstrip("/") + path)
        assert phone.evaluate("document.documentElement.scrollWidth") == 360, path
    assert phone.log == []
    phone.close()


def test_without_javascript_it_is_a_page(chromium, address):
    context = chromium.new_context(java_script_enabled=False)
    still = context.new_page()
    still.goto(address)
    text = still.inner_text("body")
    for word in ("night 20160102", " × dark", "GN-2015B", "made anew every 30 s"):
        assert word in text
    assert still.locator("meta[http-equiv=refresh]").count() == 1
    context.close()


CONTRAST = """() => {
  const lum = (c) => { const v = c.map((x) => { x /= 255; return x <= .03928 ? x / 12.92 : ((x + .055) / 1.055) ** 2.4; });
    return .2126 * v[0] + .7152 * v[1] + .0722 * v[2]; };
  const rgb = (s) => s.match(/[\\d.]+/g).map(Number);
  const ground = (e) => { for (; e; e = e.parentElement) { const c = rgb(getComputedStyle(e).backgroundColor); if (c.length < 4 || c[3] > 0) return c; } return [255, 255, 255]; };
  const low = [];
  for (const e of document.querySelectorAll("main *, header *, .strip *")) {
    if (![...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim()) || e.closest("svg, figure")) continue;
    const a = lum(rgb(getComputedStyle(e).color)), b = lum(ground(e)), ratio = (Math.max(a, b) + .05) / (Math.min(a, b) + .05);
    if (ratio < 4.5) low.push([e.className, e.textContent.slice(0, 30), ratio]);
  }
  return low; }"""  # noqa: E501


@pytest.mark.parametrize("scheme", ["dark", "light"])
def test_every_text_can_be_read(chromium, address, scheme):
    found = opened(chromium, address, color_scheme=scheme)
    assert found.evaluate(CONTRAST) == []
    assert found.locator("img:not([alt])").count() == 0
    nameless = "!(e.textContent.trim() || e.ariaLabel || e.querySelector('img'))"
    all_ = "[...document.querySelectorAll('button, input, a')]"
    assert found.evaluate(f"{all_}.filter(e => {nameless}).length") == 0
    found.close()


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return str(found.getsockname()[1])


def test_a_server_that_is_gone_is_said_and_what_happened_meanwhile_comes_without_a_reload(chromium, night):
    port = free_port()
    with screenshots.served(night.state, "--port", port) as (where, process):
        found = opened(chromium, where)
        found.evaluate("window.mark = 1")
        process.send_signal(signal.SIGKILL)
        process.wait()
        wait(found, "document.getElementById('live').textContent.includes('no connection since')", seconds=30)
        assert "lost-page" in found.evaluate("document.body.className")
    night.nirid("reject", "N20160102S0277.fits", "--reason", "trailed")
    night.run()
    with screenshots.served(night.state, "--port", port):
        wait(found, LIVE, seconds=30)
        wait(found, "document.getElementById('frames').textContent.includes('excluded')", seconds=15)
        assert found.evaluate("window.mark") == 1
        labels = found.locator("#frames a.name").all_inner_texts()
        assert len(labels) == len(set(labels))
        found.close()


class Line:
    """A line to the server that can be cut: what was open then stays open, and nothing comes through it."""

    def __init__(self, address):
        self.port = int(address.rstrip("/").rpartition(":")[2])
        self.cut = threading.Event()
        self.door = socket.create_server(("127.0.0.1", 0))
        self.address = f"http://127.0.0.1:{self.door.getsockname()[1]}/"
        self.sockets, self.threads = [self.door], []
        self._run(self._take)

    def _run(self, what, *words):
        self.threads.append(threading.Thread(target=what, args=words, daemon=True))
        self.threads[-1].start()

    def _take(self):
        with contextlib.suppress(OSError):
            while True:
                near = self.door.accept()[0]
                self.sockets.append(near)
                if self.cut.is_set():
                    continue  # and is never answered
                far = socket.create_connection(("127.0.0.1", self.port))
                self.sockets.append(far)
                dead = threading.Event()
                self._run(self._pass, near, far, dead)
                self._run(self._pass, far, near, dead)

    def _pass(self, one, other, dead):
        with contextlib.suppress(OSError):
            while piece := one.recv(65536):
                if self.cut.is_set():
                    dead.set()
                if not dead.is_set():
                    other.sendall(piece)
            if not dead.is_set():
                other.shutdown(socket.SHUT_WR)

    def close(self):
        for one in self.sockets:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
        for thread in self.threads:
            thread.join(timeout=5)
        for one in self.sockets:
            one.close()


def test_a_line_that_is_cut_without_a_word_is_said_and_made_good(chromium, address, night):
    """As when a laptop sleeps, or changes its network: no end of any connection is ever seen."""
    line = Line(address)
    found = opened(chromium, line.address)
    found.evaluate("window.mark = 1")
    line.cut.set()
    began = time.monotonic()
    wait(found, "document.getElementById('live').textContent.includes('no connection since')", seconds=30)
    assert time.monotonic() - began < 18
    night.nirid("reject", "N20160102S0276.fits", "--reason", "clouded")
    night.run()
    time.sleep(6)  # beats are lost on the way, so that the old stream is dead for good
    line.cut.clear()
    wait(found, LIVE, seconds=30)
    row = "[...document.querySelectorAll('#frames tr')].find((row) => row.textContent.includes('S0276'))"
    wait(found, f"{row}.textContent.includes('excluded')", seconds=30)
    assert found.evaluate("window.mark") == 1
    found.close()
    line.close()


def test_an_answer_on_a_kept_connection_is_not_held_back(address):
    """A head and a body in two packets wait 40 ms for the other side's word, unless they are sent at once."""
    asked = http.client.HTTPConnection(address.split("/")[2])
    took = []
    for _ in range(9):
        began = time.perf_counter()
        asked.request("GET", "/healthz")
        asked.getresponse().read()
        took.append(time.perf_counter() - began)
    asked.close()
    assert min(took) < 0.03


def test_twenty_streams_do_not_keep_it_from_ending(night):
    with screenshots.served(night.state) as (where, process):
        port = int(where.rstrip("/").rpartition(":")[2])
        streams = []
        for n in range(20):
            stream = socket.create_connection(
                ("127.0.0.1", port), source_address=(f"127.0.0.{10 + n // 4}", 0)
            )
            stream.sendall(b"GET /api/v1/stream HTTP/1.1\r\nHost: localhost\r\n\r\n")
            streams.append(stream)
        for stream in streams:
            assert b"200" in stream.recv(4096)
        began = time.monotonic()
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=5) == 0
        assert time.monotonic() - began < 1.5
        for stream in streams:
            stream.close()


def test_an_address_of_others_is_refused_as_a_mistake_of_the_configuration(night, tmp_path):
    config = tmp_path / "nirid.toml"
    config.write_text('[web]\nhosts = ["0.0.0.0"]\n')
    done = subprocess.run(night.command("web", config=config), capture_output=True, text=True, timeout=60)
    assert done.returncode == 78
    assert "0.0.0.0" in done.stderr


def test_the_pictures_of_the_readme_can_be_made(chromium, address, tmp_path):
    for path in screenshots.take(chromium, address, tmp_path):
        assert path.stat().st_size > 20_000


def test_slow_and_many_connections_do_not_stop_it(night):
    """A head that does not end, a client that only connects: others are answered meanwhile."""
    with screenshots.served(night.state) as (where, _):
        port = int(where.rstrip("/").rpartition(":")[2])
        idle = [socket.create_connection(("127.0.0.1", port)) for _ in range(80)]
        for one in idle[:20]:
            one.sendall(b"GET / HTTP/1.1\r\nHost: loc")
        with socket.create_connection(("127.0.0.1", port), source_address=("127.0.0.9", 0)) as other:
            other.sendall(b"GET /api/v1/tonight HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            answer = b""
            while piece := other.recv(65536):
                answer += piece
        assert json.loads(answer.partition(b"\r\n\r\n")[2])["night"] == "20160102"
        for one in idle:
            one.close()
