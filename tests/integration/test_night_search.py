"""Nights by programme and object: exactly those in which they were observed, by index, whatever is typed."""

import json
from dataclasses import replace
from urllib.parse import quote

import pytest
from click.testing import CliRunner

from daemon.cli import nights as command
from daemon.ledger import nightsearch, views
from daemon.ledger.store import Ledger
from daemon.people import nightlist
from tests.asgi import ask
from tests.beside import Settings
from tests.integration.test_web import HOSTILE, page_of
from tests.night import Daemon, frame
from tests.unit.service.test_markup import parsed

DAY = 86400
# (days after 2016-01-02, programme, object, frames)
TAKEN = [
    (0, "GN-2016A-Q-1", "SN2014J", 3),
    (0, "GN-2016A-Q-10", "M 82", 2),
    (5, "GN-2016A-Q-1", "sn 2014-j", 4),
    (5, "GN-2016A-Q-10", "SN2014J", 1),
    (9, "GN-2016A-Q-10", "FS 17", 2),
    (9, "GN-2016A-Q-2", "FS 170", 1),
    (30, "GN-2016B-Q-7", "", 2),
]
DATES = {0: "20160102", 5: "20160107", 9: "20160111", 30: "20160201"}


@pytest.fixture(scope="module")
def daemon(tmp_path_factory):
    made = Daemon(tmp_path_factory.mktemp("search"))
    number = 0
    for day, program, name, count in TAKEN:
        for _ in range(count):
            number += 1
            made.land(
                frame(
                    "science",
                    number,
                    DAY * day + 60 * number,
                    day=DATES[day],
                    program_id=program,
                    object=name,
                )
            )
    made.land(frame("dark", 900, DAY * 9 + 9000, day=DATES[9]))
    yield made
    made.close()


def found(daemon, **words):
    return {row["night"]: row["found"] for row in daemon.ask(lambda db: nightlist.rows(db, **words))}


@pytest.mark.parametrize("programme", sorted({p for _, p, _, _ in TAKEN}))
def test_a_programme_has_its_nights_and_no_other(daemon, programme):
    expected = {}
    for day, program, _, count in TAKEN:
        if program == programme:
            expected[DATES[day]] = expected.get(DATES[day], 0) + count
    assert found(daemon, programme=programme) == expected
    assert found(daemon, programme=f" {programme.lower()} ") == expected


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ({"object_": "SN2014J"}, {"20160107": 5, "20160102": 3}),
        ({"object_": "sn_2014-j"}, {"20160107": 5, "20160102": 3}),
        ({"object_": "2014"}, {"20160107": 5, "20160102": 3}),
        ({"object_": "fs17"}, {"20160111": 2}),  # and not FS 170: what is called just so is meant
        ({"object_": "FS 1"}, {"20160111": 3}),
        ({"object_": "dark"}, {"20160111": 1}),
        ({"object_": "SN2014J", "programme": "GN-2016A-Q-10"}, {"20160107": 1}),
        ({"object_": "M82", "programme": "GN-2016A-Q-1"}, {}),
        ({"programme": "2016a-q"}, {"20160111": 3, "20160107": 5, "20160102": 5}),
        ({"programme": "GN-2016A-Q-3"}, {}),
        ({"object_": "--"}, {}),
        ({"object_": "%"}, {}),
        ({"object_": "' OR 1=1 --"}, {}),
    ],
)
def test_what_is_looked_for_is_found_and_nothing_else(daemon, words, expected):
    assert found(daemon, **words) == expected
    assert list(found(daemon, **words)) == sorted(expected, reverse=True)


def test_a_row_says_what_was_found_of_how_many(daemon):
    (row,) = daemon.ask(lambda db: nightlist.rows(db, object_="fs17"))
    told = {"programmes": ["GN-2016A-Q-10"], "objects": ["FS 17"]}
    assert row == {"night": "20160111", "frames": 4, "found": 2, **told}
    assert nightlist.line(row) == "2 of 4 frames: GN-2016A-Q-10, FS 17"


def test_older_ones_follow(daemon):
    first = daemon.ask(lambda db: nightlist.rows(db, programme="2016", limit=2))
    assert [row["night"] for row in first] == ["20160201", "20160111"]
    until = 1452470400.0  # 2016-01-11
    rest = daemon.ask(lambda db: nightlist.rows(db, programme="2016", limit=2, before=until))
    assert [row["night"] for row in rest] == ["20160107", "20160102"]


def test_a_header_that_is_mended_is_found_by_its_new_name(daemons):
    daemon = daemons()
    old = frame("science", 1, 0, object="SN2014K")
    daemon.land(old)
    facts = replace(old.descriptors, object="SN2014L")
    daemon.land(replace(old, descriptors=facts, file_sha="mended", facts="mended", path="/drop/again.fits"))
    daemon.ledger.write(
        lambda tx: tx.run("UPDATE sighting SET present = 0 WHERE path = ?", old.path.encode())
    )
    daemon.land(replace(old, descriptors=facts, file_sha="mended", facts="mended"))
    shown = daemon.rows("SELECT object FROM observed")
    kept = json.loads(daemon.rows("SELECT descriptors FROM frame")[0]["descriptors"])["object"]
    assert [row["object"] for row in shown] == [kept] == ["SN2014L"]


def test_frames_of_an_older_release_are_found_after_a_start(daemons):
    """The table of objects is new: what was there is taken up, a damaged description stops nothing."""
    daemon = daemons()
    daemon.land(*(frame("science", n, 60 * n) for n in range(1, 4)))
    path = daemon.ledger.path
    daemon.ledger.write(lambda tx: tx.run("DROP TABLE observed"))
    with pytest.raises(Exception, match="as soon as the daemon of this release"):
        daemon.ask(lambda db: nightlist.rows(db, object_="SN2014J"))
    daemon.ledger.write(lambda tx: tx.run("UPDATE frame SET descriptors = 'no JSON' WHERE id = 1"))
    again = Ledger(path)
    try:
        with again.read() as db:
            assert [row["found"] for row in nightlist.rows(db, object_="SN2014J")] == [2]
            assert db.execute("SELECT COUNT(*) FROM observed").fetchone()[0] == 3
    finally:
        again.close()


def test_what_an_older_release_writes_and_mends_is_taken_up(daemons):
    """It has worked with the database for a while: it adds frames, and knows nothing of the table."""
    daemon = daemons()
    daemon.land(*(frame("science", n, 60 * n) for n in range(1, 5)))
    for sql in (
        "UPDATE frame SET descriptors = json_set(descriptors, '$.object', 'SN2014L') WHERE id = 1",
        "UPDATE frame SET ut = ut - 86400 WHERE id = 2",
        "DELETE FROM observed WHERE frame_id = 3",
    ):
        daemon.ledger.write(lambda tx, sql=sql: tx.run(sql))
    for _ in range(2):
        again = Ledger(daemon.ledger.path)
        try:
            with again.read() as db:
                rows = nightlist.rows(db, object_="SN2014L")
                assert [(row["night"], row["found"]) for row in rows] == [("20160102", 1)]
                rows = nightlist.rows(db, object_="SN2014J")
                assert [(row["night"], row["found"]) for row in rows] == [("20160102", 2), ("20160101", 1)]
                shown = db.execute("SELECT COUNT(*), COUNT(DISTINCT frame_id) FROM observed").fetchone()
                assert tuple(shown) == (4, 4)
        finally:
            again.close()


def test_a_frame_of_midnight_is_of_the_night_that_begins(daemons, monkeypatch):
    """Each night is asked for once."""
    right, asked = nightsearch._night, []

    def night(db, at, *more):
        asked.append(at)
        assert len(asked) < 5
        return right(db, at, *more)

    monkeypatch.setattr(nightsearch, "_night", night)
    daemon = daemons()
    daemon.land(frame("science", 1, 0), frame("science", 2, 60))
    for table, key in (("frame", "id"), ("observed", "frame_id")):
        sql = f"UPDATE {table} SET ut = 1451692800 WHERE {key} = 1"  # 2016-01-02
        daemon.ledger.write(lambda tx, sql=sql: tx.run(sql))
    daemon.ledger.write(lambda tx: tx.run("UPDATE observed SET object = 'SN2014JX' WHERE frame_id = 1"))
    rows = daemon.ask(lambda db: nightlist.rows(db, object_="N2014J"))
    assert [(row["night"], row["found"]) for row in rows] == [("20160102", 2)]
    assert len(asked) == 1


def test_a_start_writes_nothing_of_what_is_known(daemons):
    daemon = daemons()
    daemon.land(*(frame("science", n, 60 * n) for n in range(1, 4)), frame("dark", 9, 900))
    assert daemon.ledger.write(lambda tx: tx.run(views.OBSERVED)) == 0


def test_every_question_goes_by_an_index(daemon):
    asked = []

    def question(db):
        db.set_trace_callback(asked.append)
        nightsearch.found(db, programme="GN-2016A-Q-10", object_="SN2014J")
        nightsearch.found(db, programme="2016")
        db.set_trace_callback(None)
        return [row[-1] for sql in set(asked) for row in db.execute(f"EXPLAIN QUERY PLAN {sql}")]

    plans = daemon.ask(question)
    assert len(asked) > 8
    walks = [p for p in plans if p.startswith("SCAN") and "next" not in p and "sqlite_master" not in p]
    assert walks == []


# -- on the page, in the API, by the command -------------------------------------------------------


def test_the_page_has_the_search_and_what_it_finds(daemon):
    page = page_of(daemon)
    seen = parsed(ask(page.app, "/nights").text)
    assert {a["name"] for n, a in seen.tags if n == "input" and a.get("name") != "q"} == {
        "programme",
        "object",
    }
    text = ask(page.app, "/nights?programme=GN-2016A-Q-1&object=").text
    links = {a["href"] for n, a in parsed(text).tags if n == "a" and "/night/" in a["href"]}
    assert links == {"/night/20160102", "/night/20160107"}
    assert ("input", "GN-2016A-Q-1") in [(n, a.get("value")) for n, a in parsed(text).tags]
    assert "no such night" in ask(page.app, "/nights?object=nothing").text
    for target in sorted(links):
        assert ask(page.app, target).status == 200


def test_the_api_answers_as_the_command(daemon):
    page = page_of(daemon)
    told = ask(page.app, "/api/v1/nights?programme=2016a&object=sn2014j&limit=1").json()
    assert told["version"] == 1
    words = ["--programme", "2016a", "--object", "sn2014j", "--limit", "1", "--json"]
    done = CliRunner().invoke(command.nights, words, obj=Settings(daemon.folder), catch_exceptions=False)
    assert told["rows"] == json.loads(done.output)
    assert [row["night"] for row in told["rows"]] == ["20160107"]
    done = CliRunner().invoke(command.nights, ["--object", "FS 17"], obj=Settings(daemon.folder))
    assert "20160111" in done.output
    assert "2 of 4 frames: GN-2016A-Q-10, FS 17" in done.output
    done = CliRunner().invoke(command.nights, ["--object", "nothing"], obj=Settings(daemon.folder))
    assert done.output == "no such night is on record\n"
    every = CliRunner().invoke(command.nights, ["--before", "20160111"], obj=Settings(daemon.folder))
    assert [line.split()[0] for line in every.output.splitlines() if "frames" in line][-2:] == [
        "20160107",
        "20160102",
    ]


@pytest.mark.parametrize("word", [HOSTILE, "\0", "x" * 3000, "\ud800", '"><script>', "%00", "NULL"])
def test_what_is_typed_does_no_harm(daemon, word):
    page = page_of(daemon)
    said = quote(word.encode("utf-8", "surrogatepass"), safe="")
    for name in ("programme", "object"):
        answer = ask(page.app, f"/nights?{name}={said}")
        assert answer.status == 200
        assert "<img src=x" not in answer.text
        assert "<script>" not in answer.text
        assert "\u202e" not in answer.text
        assert len(answer.body) < 8000
        assert ask(page.app, f"/api/v1/nights?{name}={said}").json()["rows"] == []


def test_hostile_names_are_found_and_are_text(daemons):
    daemon = daemons()
    daemon.land(frame("science", 1, 0, object=HOSTILE, program_id=HOSTILE))
    text = ask(page_of(daemon).app, "/nights?object=onerror").text
    assert "1 of 1 frames" in parsed(text).data
    assert "<img src=x" not in text
    assert "\u202e" not in text
