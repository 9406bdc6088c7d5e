"""Whatever is put into STATE/requests is applied or refused, and the main loop goes on."""

import copy
import json
import os
import random
from dataclasses import replace

import pytest

from daemon.ledger import contents, outdated, questions, targets
from daemon.model.decisions import record_to_json
from daemon.people import explain, requests
from daemon.people.requests import DECISIONS, FOLDER
from tests.night import frame, static_bpm

NOT_UTF8 = "d\udce9cal\udce9"
POISON = (
    None, True, False, 0, -1, 7, 1 << 62, 1 << 63, -(1 << 70), 1.5, 1e300, "", " ", "x", "7",
    "group:7", "job:1", "group:99999999999999999999",
    "sha256:zz", "sha256:", "key:00", "~", "~nobodysuch/x", "/", "../..",
    "\0",    "a\0b", "\n", "\x1b[2J", NOT_UTF8, "\ud800", "\udfff\udc00", "😀", "a" * 70000, "%s%n{}",
    "'; DROP TABLE job; --", [], [[]], {}, {"a": {}}, ["x"], {"x": NOT_UTF8}, [None],
    "2016-01-02T05:00:00", "9999-99-99", "NaN",
)  # fmt: skip
RAW = (
    b"", b" ", b"\0", b"nul", b"null", b"true", b"7", b"1e999", b'"x"', b"[]", b"{", b"{}", b"\xff\xfe\x00",
    b"\xef\xbb\xbf{}", b"[" * 60000, b'{"a":' * 20000, b"[" * 30000 + b"]" * 30000, b"{" * 500 + b"}" * 500,
    b'{"action": "reject", "target": "x", "reason": ' + b"9" * 5000 + b"}",
    b'{"action": "reject", "target": "x", "reason": NaN}', b'{"action": "accept", "target": "x"} trailing',
    b'{"action": "accept", "target": "x", "action": "nonsense"}', b"x" * (1 << 17), bytes(range(256)),
    '{"action": "reject", "target": "x"}'.encode("utf-16"),
    '{"action": "accept", "target": "x"}'.encode("utf-32"),
)  # fmt: skip
NAMES = (
    b"plain", b"no-ending", b".json.json", b"two words.json", b"new\nline.json", b"d\xe9cal\xe9.json",
    b"-rf.json", b"$(reboot).json", b"a" * 250 + b".json", b"\xff\xfe.json", b"\xf0\x9f\x98\x80.json",
    b"'quote\".json",
    b"x.JSON", b"%s%n.json", b"\x1b[31m.json", b"x.json.part", b"*.json", b"same.json", b"a.b.json",
)  # fmt: skip


@pytest.fixture
def small(apart):
    """One group of darks that are made, one frame more to decide about, a mask."""
    daemon = apart()
    daemon.land(*(frame("dark", n, 30 * n) for n in (1, 2, 3, 4)), static_bpm())
    daemon.run(600)
    assert list(daemon.current()) == ["N20160102S0001_dark"]
    return daemon


def templates():
    record = record_to_json(static_bpm())
    return [
        {"action": "reject", "said": "N20160102S0002", "target": "N20160102S0002", "reason": "trailed"},
        {"action": "accept", "said": "N20160102S0002", "target": "N20160102S0002", "reason": ""},
        {"action": "requeue", "said": "group:1", "target": "group:1", "outdated": False, "night": ""},
        {"action": "requeue", "said": "", "outdated": True, "night": "20160102"},
        {"action": "add", "said": "bpm.fits", "record": record},
    ]


def places(value, at=()):
    """Every place in plain data: the whole, each field, each item."""
    yield at
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in inside:
        yield from places(item, (*at, key))


def changed(request, at, poison):
    made = copy.deepcopy(request)
    if not at:
        return poison
    place = made
    for key in at[:-1]:
        place = place[key]
    place[at[-1]] = poison
    return made


def every_mutation():
    """Requests as bytes: each field of each kind with each poison, some without it, some with more."""
    dice = random.Random(20160102)
    for request in templates():
        for at in places(request):
            some = POISON if len(at) < 2 else dice.sample(POISON, 12)
            for poison in some:
                yield json.dumps(changed(request, at, poison)).encode()
            if at and isinstance(at[-1], str):
                without = changed(request, at, None)
                place = without
                for key in at[:-1]:
                    place = place[key]
                del place[at[-1]]
                yield json.dumps({**without, "more": {"deep": [[[]]]}}).encode()
    whole = json.dumps(templates()[0]).encode()
    for _ in range(200):  # torn and rotten files
        spoilt = bytearray(whole[: dice.randrange(len(whole))])
        for _ in range(dice.randrange(4)):
            if spoilt:
                spoilt[dice.randrange(len(spoilt))] = dice.randrange(256)
        yield bytes(spoilt)
    yield from RAW


def folder(daemon):
    place = daemon.folder / "state" / FOLDER
    place.mkdir(parents=True, exist_ok=True)
    return place


def answers(daemon):
    """{request: applied or refused with a reason} as the ledger has it."""
    rows = daemon.rows("SELECT event, fields FROM event WHERE event IN ('decision', 'request_refused')")
    told = [(row["event"], json.loads(row["fields"])) for row in rows]
    assert all(fields["reason"] for event, fields in told if event == "request_refused")
    return [fields["request"] for _, fields in told]


def look(daemon):
    """All that a person may ask must still be answered."""
    for question in (questions.status, questions.products, lambda db: list(contents.everything(db))):
        daemon.ask(question)
    daemon.ledger.write(lambda tx: outdated.groups(tx.reader, daemon.setting, lambda r, d: {}))
    for said in ("group:1", "N20160102S0002.fits"):
        daemon.ledger.write(
            lambda tx, s=said: explain.explain(
                tx, targets.find(tx.reader, s), daemon.setting, lambda r, d: {}
            )
        )


def test_every_field_of_every_request_may_hold_anything(small):
    place, count = folder(small), 0
    for number, content in enumerate(every_mutation()):
        (place / f"{number:06}.json").write_bytes(content)
        count += 1
        if number % 200 == 199:
            small.run(30)
    small.run(1200)
    assert count >= 1000
    assert not requests.waiting(small.folder / "state"), "something was neither applied nor refused"
    assert len(set(answers(small))) == count
    look(small)
    small.decide("reject", "N20160102S0003", reason="trailed")  # and it still listens
    small.run(600)
    states = {r["name"]: r["state"] for r in small.rows("SELECT name, state FROM content")}
    assert states["N20160102S0003.fits"] == "excluded"


def test_any_name_any_kind_of_thing(small):
    place = folder(small)
    good = json.dumps(templates()[2]).encode()
    for name in NAMES:
        with open(os.path.join(os.fsencode(place), name), "wb") as file:
            file.write(good)
    there = len(NAMES) - 1  # .json.json is hidden, as a part is
    (place / "folder.json").mkdir()
    (place / "folder.json" / "inside").touch()
    (place / "link.json").symlink_to(place / "plain")
    (place / "dangling.json").symlink_to("/nowhere")
    os.mkfifo(place / "pipe.json")
    (place / "twice.json").write_bytes(good)
    os.link(place / "twice.json", place / "twice2.json")
    (place / "closed.json").write_bytes(good)
    (place / "closed.json").chmod(0)
    small.run(60)
    assert not requests.waiting(small.folder / "state")
    assert len(answers(small)) == there + 7
    look(small)


def test_a_name_used_again_is_not_taken_for_the_decision_before(small):
    place = folder(small)
    for reason in ("trailed", "clouds"):
        (place / "mine.json").write_text(json.dumps({**templates()[0], "reason": reason}))
        small.run(30)
    (refusal,) = [fields for event, fields in small.events if event == "request_refused"]
    assert "another decision" in refusal["reason"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may remove everything")
def test_what_cannot_be_removed_is_answered_once(small):
    place = folder(small)
    (place / "foreign.json").write_text("nonsense")
    place.chmod(0o555)
    small.run(300)
    place.chmod(0o755)
    assert answers(small) == ["foreign"]


def test_a_reason_and_a_name_with_bytes_that_are_no_text(small):
    strange = "/drop/N\udce9t.fits"
    small.land(replace(frame("dark", 9, 400), path=strange))
    small.decide("reject", strange, reason=NOT_UTF8, said=strange)
    small.run(600)
    (row,) = small.rows("SELECT reason, said FROM decision")
    assert row == {"reason": r"d\xe9cal\xe9", "said": r"/drop/N\xe9t.fits"}
    assert small.rows("SELECT state FROM content WHERE sha256 = ?", frame("dark", 9, 400).file_sha) == [
        {"state": "excluded"}
    ]


@pytest.mark.parametrize("content", RAW)
def test_a_damaged_line_of_the_decisions_file_is_passed_over(small, content):
    small.decide("reject", "N20160102S0002", reason="trailed")
    small.run(60)
    file = small.products / DECISIONS
    whole = file.read_bytes()
    file.write_bytes(content.replace(b"\n", b" ") + b"\n" + whole)
    (line,), _ = requests.read_decisions(small.products)
    assert line["reason"] == "trailed"


def test_a_folder_in_the_place_of_the_decisions_file_makes_room(small):
    file = small.products / DECISIONS
    file.mkdir(parents=True)
    small.decide("reject", "N20160102S0002", reason="trailed")
    small.run(60)
    assert file.is_file()
    assert not requests.waiting(small.folder / "state")
