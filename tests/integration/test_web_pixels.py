"""Cut-outs and differences over a ledger: the values of the file that is meant, and of no other."""

import json
import os
import shutil
from pathlib import Path
from threading import Thread

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS
from scipy.ndimage import map_coordinates

from daemon.web import pictures
from pipeline.files import preview, thumbnails
from pipeline.files.read import read_frame
from tests.asgi import ask
from tests.integration.test_web import page_of, tonight_of
from tests.night import example1, static_bpm
from tests.pixels import Pixels
from tests.schemas import wrong


def landed(daemons, *, until=600.0, step=10.0, records=None):
    daemon = daemons(engine=Pixels(), looks=True)
    daemon.land(*(records or example1()), static_bpm())
    daemon.run(until, step)
    return daemon


@pytest.fixture
def night(daemons):
    """A sequence that is being taken: looks, and a stack so far."""
    return landed(daemons, until=2.0, step=0.5, records=example1()[:6])


@pytest.fixture
def page(night):
    return page_of(night)


def shown(page, what="stack"):
    """(address after /image/, path) of the newest look, or of the stack."""
    one = tonight_of(page)["sequence"][what]
    return one["picture"].removeprefix("/image/"), Path(one["path"])


def cutout(page, where, **query):
    return ask(page.app, f"/cutout/{where}?" + "&".join(f"{k}={v}" for k, v in query.items()))


def test_answers_have_the_form_that_is_published(page):
    """Of pictures that keep all that pictures keep."""
    assert {"crpix", "fixed", "job"} <= set(tonight_of(page)["newest"]["sky"])
    assert wrong("tonight", tonight_of(page)) == []
    for what in ("look", "stack"):
        assert wrong("cutout", cutout(page, shown(page, what)[0], x=2, y=3).json()) == []
    answer = ask(page.app, f"/difference/{shown(page, 'look')[0]}/{shown(page)[0]}?step=2")
    assert wrong("difference", json.loads(answer.body.partition(b"\n")[0])) == []
    assert wrong("error", ask(page.app, f"/cutout/{shown(page)[0]}").json()) == []


@pytest.mark.parametrize("what", ["look", "stack"])
@pytest.mark.parametrize("corner", [(1, 1), (100, 37), (-1, 1), (1, -1), (-1, -1)])
def test_a_cut_out_is_what_astropy_reads_there(page, what, corner):
    where, path = shown(page, what)
    with fits.open(path) as file:
        sci, var, dq = (file[name].data for name in ("SCI", "VAR", "DQ"))
        ny, nx = sci.shape
        x, y = corner[0] % (nx + 1), corner[1] % (ny + 1)  # -1 is the last
        answer = cutout(page, where, x=x, y=y, w=16)
        told = answer.json()
        here = np.s_[y - 1 : y + 15, x - 1 : x + 15]
        assert (answer.status, told["x"], told["y"], told["size"]) == (200, x, y, [nx, ny])
        assert np.array_equal(np.array(told["values"], "f4"), sci[here])
        np.testing.assert_allclose(told["errors"], np.sqrt(var[here]), rtol=1e-4)
        assert told["flags"] == dq[here].tolist()
        assert told["unit"] == "electron"
        place = WCS(file["SCI"].header)
    ours = WCS(naxis=2)
    ours.wcs.ctype, ours.wcs.crpix = ["RA---TAN", "DEC--TAN"], told["sky"]["crpix"]
    ours.wcs.crval, ours.wcs.cd = told["sky"]["crval"], told["sky"]["cd"]
    np.testing.assert_allclose(ours.all_pix2world(x, y, 1), place.all_pix2world(x, y, 1), atol=1e-9)
    assert "immutable" in answer.headers["cache-control"]


def test_what_a_flag_means_is_said_in_words(page):
    where, path = shown(page)
    ny, nx = fits.getdata(path, "SCI").shape
    told = cutout(page, where, x=nx, y=ny).json()
    bits = told["flags"][0][0]
    words = [word for bit, word in told["meaning"].items() if bits & int(bit)]
    assert words == ["cosmic ray or latent light", "saturated"]


@pytest.mark.parametrize(
    "query",
    [
        "", "x=1", "x=1&y=0", "x=-1&y=1", "x=1&y=1&w=65", "x=1&y=1&w=0", "x=241&y=1", "x=1&y=261",
        "x=1000000000000000000000000000000&y=1", "x=nan&y=1", "x=%D9%A1&y=1", "x=1&y=1&w=1000000000",
        "x=&y=1", "x=1.5&y=1",
    ],
)  # fmt: skip
def test_odd_places_are_refused_in_words(page, query):
    answer = ask(page.app, f"/cutout/{shown(page)[0]}?{query}")
    assert answer.status == 400
    told = answer.json()
    assert set(told) == {"error", "what_to_do"}
    assert len(told["error"]) > 10


@pytest.mark.parametrize(
    "where",
    [
        "look/1/0", "look/999999/aaaa", "product/1/0000000000000000", "file/1/a",
        "look/9999999999999999999/a", "product/..%2f..%2fetc/passwd", "look/1/..%2f..%2fetc%2fpasswd",
    ],
)  # fmt: skip
def test_what_is_not_meant_is_not_there(page, where):
    answer = ask(page.app, f"/cutout/{where}?x=1&y=1")
    assert answer.status == 404
    stack = shown(page)[0]
    assert ask(page.app, f"/difference/{where}/{stack}").status == 404
    assert ask(page.app, f"/difference/{stack}/{where}").status == 404


def test_a_link_out_of_the_products_is_not_followed(page, tmp_path):
    where, path = shown(page)
    other = tmp_path / "other.fits"
    shutil.copy(path, other)
    path.unlink()
    path.symlink_to(other)
    assert cutout(page, where, x=1, y=1).status == 404


def test_a_file_that_is_gone_or_damaged_is_said(page):
    where, path = shown(page)
    path.write_bytes(path.read_bytes()[:20000])
    answer = cutout(page, where, x=1, y=1)
    assert answer.status == 404
    assert "cannot be read" in answer.json()["error"]
    path.write_bytes(b"secret of another program" * 400)
    assert b"secret" not in cutout(page, where, x=1, y=1).body
    path.unlink()
    assert "replaced" in cutout(page, where, x=1, y=1).json()["error"]


def test_a_product_that_was_replaced_while_the_ledger_does_not_know_gives_no_values(daemons):
    """Between the rename and the commit the path has another file already: its job says so."""
    page = page_of(landed(daemons))
    where, path = shown(page)
    assert where.startswith("product/")
    addresses = (
        f"/cutout/{where}?x=1&y=1",
        f"/fits/{where}",
        f"/image/{where}?w=fixed",
        f"/image/{where}?w=full",
    )
    assert [ask(page.app, address).status for address in addresses] == [200] * 4
    made = read_frame(str(path))
    with fits.open(path) as file:
        file[0].header["JOBKEY"] = "0" * 64
        file.writeto(path.with_name("new.fits"))
    os.replace(path.with_name("new.fits"), path)
    preview.write_preview(path.with_suffix(".png"), made, job="0" * 64)
    page.cache = pictures.Cache()  # of another process, or a picture that was asked for long ago
    answers = [ask(page.app, address) for address in addresses]
    assert [answer.status for answer in answers] == [404] * 4
    assert all("replaced" in answer.text for answer in answers)
    preview.write_preview(path.with_suffix(".png"), made)
    assert ask(page.app, addresses[-1]).status == 200, "its own again, as it is drawn of the product"


def test_a_look_that_was_replaced_while_the_ledger_does_not_know_gives_no_values(night, page):
    """A later look at its path has begun, and what lies there was written after this one had ended."""
    where, path = shown(page)
    number = int(where.split("/")[1])
    same = "group_id, kind, name, night, path, frames, calibrations, notes, quality, error"
    again = (
        f"INSERT INTO look ({same}, state, began) SELECT {same}, 'running', began + 1 FROM look WHERE id = ?"
    )
    night.ledger.write(lambda tx: tx.run(again, number))
    ended = night.rows("SELECT ended FROM look WHERE id = ?", number)[0]["ended"]
    for shift, status in ((-1, 200), (1, 404)):
        for file in (path, path.with_suffix(".png")):
            os.utime(file, (ended + shift, ended + shift))
        page.cache = pictures.Cache()
        for address in (f"/cutout/{where}?x=1&y=1", f"/fits/{where}", f"/image/{where}?w=256"):
            assert ask(page.app, address).status == status, address


# -- differences ------------------------------------------------------------------------------------------


def difference(page, one, other, step=1):
    answer = ask(page.app, f"/difference/{one}/{other}?step={step}")
    if answer.status != 200:
        return answer.json(), None
    line, _, rest = answer.body.partition(b"\n")
    told = json.loads(line)
    values = np.frombuffer(rest, "<f2").reshape(told["ny"], told["nx"]).astype(float) * told["sigma"]
    return told, values


def expected(path, other, step):
    """By astropy and scipy: (difference less its median, that median)."""
    with fits.open(path) as a, fits.open(other) as b:
        first, second = a["SCI"].data.astype(float), b["SCI"].data.astype(float)
        first[(a["DQ"].data & (1 | 16 | 64)) != 0] = np.nan
        second[(b["DQ"].data & (1 | 16 | 64)) != 0] = np.nan
        rows, columns = np.indices(first.shape)
        sky = WCS(a["SCI"].header).all_pix2world(columns, rows, 0)
        x, y = WCS(b["SCI"].header).all_world2pix(*sky, 0)
    found = first - map_coordinates(second, [y, x], order=1, cval=np.nan, prefilter=False)
    high, wide = (-(-n // step) * step for n in found.shape)
    padded = np.full((high, wide), np.nan)
    padded[: found.shape[0], : found.shape[1]] = found
    with np.errstate(all="ignore"):
        blocks = np.nanmean(
            padded.reshape(high // step, step, wide // step, step)
            .swapaxes(1, 2)
            .reshape(high // step, wide // step, -1),
            axis=2,
        )
    return blocks - np.nanmedian(blocks), np.nanmedian(blocks)


@pytest.mark.filterwarnings("ignore:Mean of empty slice")
@pytest.mark.parametrize("step", [1, 3])
def test_a_difference_is_what_numpy_says_where_both_see_the_sky(page, step):
    (frame, path), (stack, other) = shown(page, "look"), shown(page, "stack")
    told, values = difference(page, frame, stack, step)
    wanted, level = expected(path, other, step)
    assert values.shape == wanted.shape
    assert told["level"] == pytest.approx(level, abs=0.05)
    both = np.isfinite(values) & np.isfinite(wanted)
    assert (np.isfinite(values) != np.isfinite(wanted)).mean() < 0.01  # edges: by a 1e-4 of a pixel
    # 16-bit floats are good to 1/2048 of a value; the mapping, to 1e-4 of a pixel, where a star is steepest.
    allowed = np.abs(wanted) / 2000 + told["sigma"] / 500 + 1.0
    assert (np.abs(values - wanted)[both] < allowed[both]).all()
    assert told["overlap"] > 0.8
    assert np.nanstd(values) < 40, "stars are gone: both are at one place"


def test_what_cannot_be_compared_is_said(page):
    (frame, path), (stack, _) = shown(page, "look"), shown(page, "stack")
    with fits.open(path) as file:
        file[0].header["FILTER1"] = "K_G0204"
        file.writeto(path, overwrite=True)
    told, _ = difference(page, frame, stack)
    assert told["error"] == "no difference: the filters differ: K and J"
    assert ask(page.app, f"/difference/{frame}/{stack}?step=0").status == 400
    assert ask(page.app, f"/difference/{frame}/{stack}?step=1000").status == 400


ODD_SKIES = (
    {"cd": 3}, {"cd": [[0, 0], [0, 0]], "crpix": [1, 1], "crval": [1, 1]}, {"cd": [[1e-5, 0], [0, 1e-5]]},
    {"cd": "x", "crpix": "y", "crval": None},
    {"cd": [[1e-5, 0], [0, 1e-5]], "crpix": [1, 1], "crval": [1e5, 1e5]},
    {"cd": [[1e300, 0], [0, 1e-300]], "crpix": [1e300, 1], "crval": [10, 1]},
    {"cd": [[1, 2], [3, 4]], "crpix": [1, 1, 1], "crval": [1]},
    {"cd": [[float("nan")] * 2] * 2, "crpix": [1, 1], "crval": [1, 1]},
    {"cd": [["1e-5", "0"], ["0", "1e-5"]], "crpix": [{}, []], "crval": [True, None]},
)  # fmt: skip


@pytest.mark.parametrize("odd", ODD_SKIES)
def test_a_picture_that_says_odd_things_of_its_sky_is_no_error(page, monkeypatch, odd):
    frame, stack = shown(page, "look")[0], shown(page, "stack")[0]
    said = json.dumps(odd).encode()
    monkeypatch.setattr(thumbnails, "_ours", lambda fd: iter([(thumbnails.SKY, said)]))
    pictures._known.clear()
    assert difference(page, frame, stack)[0]["error"].startswith("no difference: ")
    answer = cutout(page, stack, x=1, y=1)
    assert answer.status == 200
    json.loads(answer.body, parse_constant=pytest.fail)
    assert ask(page.app, "/").status == 200


def test_a_picture_that_is_a_pipe_is_waited_for_by_nobody(night, page):
    """Nor one that is a link, of which something else would be said."""
    where, path = shown(page)
    picture, told = path.with_suffix(".png"), []
    for make in (os.mkfifo, lambda name: os.symlink(shown(page, "look")[1].with_suffix(".png"), name)):
        picture.unlink()
        make(picture)
        pictures._known.clear()
        told.clear()
        thread = Thread(target=lambda: told.append(cutout(page, where, x=1, y=1)), daemon=True)
        thread.start()
        thread.join(5)
        assert [answer.json()["sky"] for answer in told] == [{}]


def test_what_another_thread_forgets_meanwhile_is_answered(page, monkeypatch):
    """As if 200 others were asked for between the two: it is not looked up again."""
    monkeypatch.setattr(pictures, "MOST_KNOWN", 0)
    pictures._known.clear()
    assert "cd" in pictures.known(str(shown(page)[1]), "key")
    assert not pictures._known


def test_a_frame_elsewhere_on_the_sky_is_not_compared(page):
    (frame, path), (stack, _) = shown(page, "look"), shown(page, "stack")
    away = read_frame(str(path)).evolve(cards={"CRPIX1": 2000.0})
    preview.write_preview(path.with_suffix(".png"), away)
    pictures._known.clear()
    assert (
        difference(page, frame, stack)[0]["error"]
        == "no difference: they do not see the same part of the sky"
    )
