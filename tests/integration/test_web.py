"""The page over a ledger: what it says is what commands say, and nothing that comes in can do harm."""

import asyncio
import hashlib
import html
import json
import re
from dataclasses import replace
from datetime import UTC, datetime
from urllib.parse import quote

import numpy as np
import pytest

from daemon.config.options import Config, Products, State
from daemon.people import missing, nightsheet, tonight, verdicts
from daemon.web import app, assets, panels
from daemon.web.pages import SCRIPTS
from pipeline.files import preview, thumbnails
from tests.asgi import ask
from tests.fitsfiles import DARK, frame_bytes
from tests.night import FakeEngine, example1, frame, static_bpm
from tests.unit.service.test_markup import parsed

NOW = 1.6e9 + 2000.0
SKY = {"scale": 0.117, "north": [0.0, -1.0], "east": [-1.0, 0.0], "shape": [60, 60]}
HOSTILE = "<img src=x onerror=alert(1)>\u202e'\"" + "x" * 1000


class Engine(FakeEngine):
    """Every image has stars of 0.9 arcsec, and a picture with its copies in small."""

    def stage(self, spec):
        result = super().stage(spec)
        if spec.name.endswith(("_image", "_firstlook", "_running")):
            result["quality"] |= {"MEANFWHM": 0.9, "MFWHMERR": 0.01, "NSTARS": 12, "BGMAG": 13.9}
        grey = np.full((60, 60), 90, np.uint8)
        picture = preview._png(grey, tuple(thumbnails.small_copies(grey, SKY)))
        product = frame_bytes({**DARK, "JOBKEY": spec.key})
        for name, content in (("png", picture), ("fits", product)):
            with open(result[name], "wb") as file:
                file.write(content)
        return result | {"sha256": hashlib.sha256(product).hexdigest()}


def landed(daemons, *, until=600, records=None):
    daemon = daemons(engine=Engine(), looks=True)
    daemon.land(*(records or example1()), static_bpm())
    daemon.run(until)
    return daemon


def page_of(daemon):
    """The page of this daemon, whose heart is not looked for."""
    config = Config(
        state=State(str(daemon.ledger.path.parent)),
        products=Products(str(daemon.products)),
        base=str(daemon.folder),
    )
    page = app.build(config)
    page.source.clock = lambda: NOW
    return page


@pytest.fixture
def night(daemons):
    return landed(daemons)


@pytest.fixture
def page(night):
    return page_of(night)


def tonight_of(page):
    return ask(page.app, "/api/v1/tonight").json()


def test_what_the_page_says_is_what_commands_say(night, page):
    told = tonight_of(page)
    named, rows = night.ask(tonight.sequences, None, NOW)
    assert told["night"] == named
    assert told["sequences"] == json.loads(json.dumps(rows))
    said = night.ask(verdicts.of_group, told["sequence"]["group"], ())
    assert told["verdicts"] == json.loads(json.dumps(said))
    needs = night.ask(missing.answer, page.source.setting.rules, named, datetime.fromtimestamp(NOW, UTC))
    assert told["missing"]["missing"] == needs["missing"]
    assert len(told["frames"]) == 45
    assert {one["name"] for one in told["products"]} == {p["name"] for p in rows if p["name"]}


def test_a_stack_is_of_the_frames_that_are_in_use_only(page):
    told = tonight_of(page)["sequence"]
    assert told["stack"]["kind"] == "product"
    assert told["stacked"] == told["used"] == told["frames"] - 1, "the first one was left out"


def test_who_needs_a_calibration_is_named_once(page):
    told = tonight_of(page)["missing"]
    users = [{"program": "P-1", "filter": name} for name in ("J", "J", "H")]
    need = {"what": "flats", "state": "missing", "how": "", "taken": "", "for": users}
    assert "for P-1 J, P-1 H<" in str(panels.missing({**told, "needs": [need]}))
    assert nightsheet._for(need) == "P-1 J, P-1 H"


def test_a_page_without_javascript_has_everything(page):
    answer = ask(page.app, "/")
    assert answer.status == 200
    seen = parsed(answer.text)
    for word in ("SN2014J", "GN-2015B-Q-1-1-270", "10 × dark", "0.9", "Missing tonight"):
        assert word in seen.data
    assert ("noscript", {}) in seen.tags
    scripts = [attributes for name, attributes in seen.tags if name == "script"]
    assert [script["src"].partition("?")[0] for script in scripts] == [f"/static/{name}" for name in SCRIPTS]
    assert all(set(script) == {"src", "defer"} for script in scripts)
    assert not [a for _, a in seen.tags if any(k.startswith("on") or k == "style" for k in a)]


def test_no_byte_names_another_place(page):
    """Not in the pages, the script, the style sheet or the icon; the name space of SVG is no address."""
    for path in (
        "/",
        *(f"/static/{name}" for name in assets.FILES),
        "/nights",
        "/calibrations",
        "/night/20160102",
        "/health",
    ):
        text = ask(page.app, path).text.replace("http://www.w3.org/2000/svg", "")
        assert not re.search(r"(https?:)?//[a-z0-9-]+\.[a-z]", text, re.I), path


def test_every_link_of_the_page_leads_somewhere(page):
    seen = parsed(ask(page.app, "/").text)
    links = {a[k] for _, a in seen.tags for k in ("href", "src") if a.get(k)}
    told = [json.loads(a[k]) for _, a in seen.tags for k in ("data-first", "data-second") if a.get(k)]
    assert told
    links |= {f"/image/{one['where']}?w={size}" for one in told for size in ("fixed", "512", "full")}
    assert len(links) > 30
    for target in sorted(links):
        assert ask(page.app, target).status in (200, 303), target


@pytest.mark.parametrize("size", ["96", "256", "512", "full"])
def test_pictures_come_in_four_sizes_and_for_ever(page, size):
    newest = tonight_of(page)["newest"]
    answer = ask(page.app, f"{newest['picture']}?w={size}")
    assert answer.status == 200
    assert answer.headers["content-type"] == ("image/png" if size == "full" else "image/jpeg")
    assert "immutable" in answer.headers["cache-control"]
    assert newest["sky"] == SKY


def test_what_is_newest_is_a_picture_of_the_sky(daemons):
    """Darks of the morning are products, too, but nobody asks whether the last frame was any good by them."""
    daemon = landed(daemons)
    page = page_of(daemon)
    before = tonight_of(page)["newest"]["name"]
    daemon.land(*(frame("dark", n, 21000 + 9 * n, exposure_time=7.0, coadds=1) for n in range(601, 611)))
    daemon.run(4000)
    told = tonight_of(page)
    assert told["products"][0]["name"] == "N20160102S0601_dark"
    assert told["newest"]["name"] == before


class Dark(Engine):
    """The shutter was closed at the fifth frame: its first look says so, and the stack is made without it."""

    def stage(self, spec):
        result = super().stage(spec)
        dead, names = "N20160102S0274.fits", [each.name for each in spec.inputs]
        if (spec.name.endswith("_firstlook") and names[-1] == dead) or (
            spec.name.endswith("_image") and dead in names
        ):
            why = {"VERDICT": "left out", "AS_SKY": "left out", "REASON": "without light"}
            result["quality"] |= {"frames": [{"NAME": dead, **why}]}
        return result


def test_a_frame_that_is_not_in_the_stack_is_not_shown_as_in_use(daemons):
    daemon = daemons(engine=Dark(), looks=True)
    page = page_of(daemon)
    for record in example1()[:8]:
        daemon.land(record)
        daemon.run(2)

    def left_out():
        rows = ask(page.app, "/api/v1/frames?night=20160102").json()["rows"]
        return {row["name"]: row["left_out"] for row in rows if row["left_out"]}

    assert left_out() == {"N20160102S0274.fits": {"by": "first look", "reason": "without light"}}
    assert "looks bad: without light" in ask(page.app, "/").text
    daemon.land(*example1())
    daemon.run(6000)
    said = left_out()
    assert said["N20160102S0274.fits"] == {"by": "product", "reason": "without light"}
    first = "the first exposure of a sequence is often bad"
    assert said["N20160102S0270.fits"] == {"by": "product", "reason": first}
    assert "N20160102S0273.fits" not in said
    assert "left out: without light" in ask(page.app, "/").text


def test_where_only_calibrations_are_one_of_them_is_shown(daemons):
    daemon = landed(daemons, records=[r for r in example1() if "N20160102S04" in r.path], until=6000)
    assert tonight_of(page_of(daemon))["newest"]["name"] == "N20160102S0423_dark"


def test_fits_files_are_handed_over_whole(night, page):
    product = tonight_of(page)["products"][0]
    answer = ask(page.app, product["fits"])
    with open(product["path"], "rb") as file:
        assert answer.body == file.read()
    assert answer.headers["content-disposition"].startswith("attachment")


@pytest.mark.parametrize(
    "target",
    [
        "/image/product/1/0000000000000000?w=96",
        "/image/product/999/aaaa?w=96",
        "/image/look/x/aaaa",
        "/image/file/1/a",
        "/image/product/1/..%2f..%2fetc%2fpasswd",
        "/static/..%2fapp.py",
        "/static/../app.py",
        "/static/%2e%2e/app.py",
        "/fits/product/1/x",
        "/fits/../../etc/passwd",
        "/nothing",
        "/night/20161332",
        *(
            f"{where}{night}{rest}"
            for night in ("00010101", "10000101", "19491231", "21000101", "99991231")
            for where, rest in (
                ("/night/", ""),
                ("/night/", "/print"),
                ("/frames/", ""),
                ("/api/v1/night/", ""),
                ("/api/v1/frames?night=", ""),
                ("/api/v1/products?night=", ""),
                ("/api/v1/missing?night=", ""),
            )
        ),
        "/night/..%2f",
        "/frames/x",
        "/image/product/99999999999999999999999/a",
    ],
)
def test_no_path_comes_from_a_client(page, target):
    assert ask(page.app, target).status in (400, 404)


def test_a_picture_that_is_a_link_out_of_the_products_is_not_shown(night, page, tmp_path):
    product = tonight_of(page)["products"][0]
    secret = tmp_path / "secret.png"
    secret.write_bytes(b"\x89PNG secret")
    path = night.products / product["night"] / f"{product['name']}.png"
    path.unlink()
    path.symlink_to(secret)
    assert ask(page.app, f"{product['picture']}?w=full").status == 404


@pytest.mark.parametrize("field", ["object", "program_id", "data_label", "filter_name"])
def test_a_hostile_header_is_text_everywhere(daemons, field):
    """Nothing that a frame says becomes markup, on any page that shows it."""
    records = [replace(r, descriptors=replace(r.descriptors, **{field: HOSTILE})) for r in example1()[:10]]
    records = [
        replace(r, data_label=f"{HOSTILE}{n}" if field == "data_label" else r.data_label)
        for n, r in enumerate(records)
    ]
    page = page_of(landed(daemons, records=records))
    told = tonight_of(page)
    group = told["sequence"]["group"]
    for target in (
        "/",
        f"/thing/group:{group}",
        "/night/20160102",
        "/frames/20160102",
        "/thing/N20160102S0270.fits",
    ):
        text = ask(page.app, target).text
        assert "<img src=x" not in text
        assert "\u202e" not in text
        assert not [a for name, a in parsed(text).tags if "onerror" in a], target
    assert all(len(str(row["what"])) <= 201 for row in told["frames"])


@pytest.mark.parametrize("word", ["N20160102S0270.fits", "N20160102S0271_image", "group:1", "job:1", "look"])
def test_a_thing_is_explained_as_the_command_does(night, page, word):
    if word == "look":
        word = night.rows("SELECT name FROM look WHERE kind = 'firstlook' ORDER BY id DESC LIMIT 1")[0][
            "name"
        ]
    answer = ask(page.app, f"/thing/{quote(word, safe='')}")
    told = ask(page.app, f"/api/v1/thing/{quote(word, safe='')}").json()
    assert answer.status == 200
    assert html.escape(told["name"]) in answer.text
    assert f"nirid explain {told['target']}" in parsed(answer.text).data


def test_a_picture_of_something_else_is_named_on_the_page_of_a_frame(page):
    newest = ask(page.app, "/thing/N20160102S0274.fits").text
    assert re.search(r"newest picture: <a [^>]*>N20160102S0271_image</a>", newest)
    assert "newest picture: " not in ask(page.app, "/thing/N20160102S0271_image").text


def test_a_frame_is_found_by_the_label_that_the_page_lists_it_by(page):
    for row in tonight_of(page)["frames"][:3]:
        assert row["label"]
        found = ask(page.app, f"/api/v1/thing/{quote(row['label'], safe='')}")
        assert (found.status, found.json()["name"]) == (200, row["name"])


@pytest.mark.parametrize("word", ["274", "S274", "s0274"])
def test_a_number_is_a_frame_of_the_night_that_is_shown(page, word):
    ask(page.app, "/")
    assert ask(page.app, f"/find?q={word}").headers["location"] == "/thing/N20160102S0274.fits"
    assert ask(page.app, "/find?q=20160102").headers["location"] == "/night/20160102"


def test_what_is_not_known_is_told_with_what_to_do(page):
    answer = ask(page.app, "/api/v1/thing/N19990101S0001.fits")
    assert answer.status == 404
    assert set(answer.json()) == {"error", "what_to_do"}
    assert "<script>alert" not in ask(page.app, "/thing/" + quote("<script>alert(1)</script>")).text


def test_who_has_it_already_gets_nothing_again(page):
    first = ask(page.app, "/api/v1/tonight")
    again = ask(page.app, "/api/v1/tonight", if_none_match=first.headers["etag"])
    assert (again.status, again.body) == (304, b"")


def test_a_part_is_made_anew_only_when_it_has_changed(night, page):
    asyncio.run(page.feed.refresh())
    before = dict(page.feed.keys)
    night.now += 10
    night.decide("reject", "N20160102S0279.fits", reason="trailed")
    night.run(100)
    asyncio.run(page.feed.refresh())
    changed = {name for name, key in page.feed.keys.items() if before[name] != key}
    assert {"frames", "products"} <= changed
    assert "missing" not in changed
    part = ask(page.app, "/parts?names=frames,nonsense").json()
    assert set(part) == {"frames"}
    assert part["frames"]["key"] == page.feed.keys["frames"]
    assert "excluded" in part["frames"]["html"]


@pytest.mark.parametrize("after", ["1:-" + "9" * 40, "1:" + "9" * 40, "nan:1", "-inf:0", "1e400:1"])
def test_an_odd_place_to_go_on_from_does_no_harm(page, after):
    assert ask(page.app, f"/api/v1/frames?night=20160102&after={after}").status == 200
    assert ask(page.app, f"/frames/20160102?after={after}").status == 200


def test_older_frames_are_a_page_further(page):
    rows = ask(page.app, "/api/v1/frames?night=20160102&limit=20").json()["rows"]
    last = rows[-1]
    more = ask(page.app, f"/api/v1/frames?night=20160102&limit=200&after={last['at']}:{last['id']}").json()[
        "rows"
    ]
    ids = [row["id"] for row in [*rows, *more]]
    assert len(ids) == len(set(ids)) == 45
    assert [r["at"] for r in [*rows, *more]] == sorted((r["at"] for r in [*rows, *more]), reverse=True)


def test_what_a_viewer_has_missed_comes_once_and_in_order(page):
    asyncio.run(page.feed.refresh())
    everything = [n for n, _, _ in page.feed.missed(0) if n]
    assert everything == sorted(set(everything))
    assert len(everything) > 50
    middle = everything[len(everything) // 2]
    assert [n for n, _, _ in page.feed.missed(middle) if n] == [n for n in everything if n > middle]
    assert page.feed.missed(everything[-1] + 5)[0][1] == "reset"
    assert {kind for _, kind, _ in page.feed.missed(0)} >= {
        "frame",
        "look",
        "product",
        "job",
        "beat",
        "parts",
    }


def test_every_message_is_small(page):
    asyncio.run(page.feed.refresh())
    assert max(len(json.dumps(fields)) for _, _, fields in page.feed.missed(0)) < 1024


def test_all_parts_are_on_the_page(page):
    text = ask(page.app, "/").text
    assert [name for name in panels.NAMES if f'id="{name}"' not in text] == []
