"""Verdicts from the ledger: measures of a night against what was asked, and what an edited header changes."""

import json
from dataclasses import replace

import pytest
from click.testing import CliRunner

from daemon.cli import Settings, verdict
from daemon.config.options import ConditionsRequest
from daemon.judgement import nights
from daemon.ledger import measures
from daemon.people import verdicts
from tests.night import FakeEngine, example1, static_bpm

FIRST_SCIENCE = "N20160102S0270.fits"


class Engine(FakeEngine):
    """Every image has stars of 0.9 arcsec."""

    def stage(self, spec):
        result = super().stage(spec)
        if spec.name.endswith(("_image", "_firstlook", "_running")):
            result["quality"] |= {"MEANFWHM": 0.9, "MFWHMERR": 0.01, "NSTARS": 12}
        return result


@pytest.fixture
def daemon(daemons):
    made = daemons(engine=Engine(), looks=True)
    made.land(*asking(example1(), req_iq=70), static_bpm())
    made.run(600)
    return made


def asking(records, **asked):
    """The same pixels and facts with other cards for what was asked: another file."""
    word = "".join(map(str, asked.values()))
    return [
        replace(r, file_sha=f"{word:0>4}{r.file_sha[4:]}", descriptors=replace(r.descriptors, **asked))
        for r in records
    ]


def of_science(daemon, *requests):
    rows = daemon.ask(verdicts.answer, "20160102", requests, 0.0)["sequences"]
    return next(row for row in rows if row["first"] == FIRST_SCIENCE)


def test_a_night_is_held_against_what_its_headers_ask(daemon):
    found = of_science(daemon)
    assert found["verdicts"]["IQ"]["state"] == "not met"
    assert found["verdicts"]["IQ"]["asked"] == "IQ70"
    assert found["suggested"] == "Usable"


def test_what_is_asked_edited_in_place_changes_the_verdict_and_makes_no_job(daemon):
    jobs = daemon.rows("SELECT id FROM job")
    daemon.land(*asking(example1(), req_iq=100))
    daemon.run(600)
    assert daemon.rows("SELECT id FROM job") == jobs
    assert of_science(daemon)["verdicts"]["IQ"]["state"] == "met"
    assert of_science(daemon)["verdicts"]["IQ"]["asked"] == "IQAny"


def test_the_configuration_asks_where_it_says_something(daemon):
    program = of_science(daemon)["program"]
    assert of_science(daemon, ConditionsRequest(program, iq=85))["verdicts"]["IQ"]["asked"] == "IQ85"
    assert of_science(daemon, ConditionsRequest("GN-1999A-Q-1", iq=85))["verdicts"]["IQ"]["asked"] == "IQ70"


def test_standards_and_science_of_one_filter_are_one_setting(daemon):
    """Seeing is of the night: a trend that lacks the standards lacks its best points."""
    points = daemon.ask(measures.trend, "fwhm")
    assert sum(point.of == "product" for point in points) >= 2
    assert daemon.ask(measures.keys, "fwhm") == ["f6 K(prime)"]
    known = daemon.rows("SELECT DISTINCT name FROM measure ORDER BY name")
    assert daemon.ask(measures.names) == [row["name"] for row in known]


def test_a_trend_has_each_frame_once(daemon):
    points = daemon.ask(measures.trend, "fwhm")
    first = {row["id"] for row in daemon.rows("SELECT id FROM look WHERE kind = 'firstlook'")}
    assert len(first) >= 5
    assert {point.number for point in points if point.of == "frame"}
    assert not first & {point.number for point in points if point.of == "look"}


def test_nothing_measured_has_no_names(daemons):
    empty = daemons()
    assert empty.ask(measures.names) == []
    assert empty.ask(measures.keys, "fwhm") == []


def test_the_measures_of_a_group_are_those_of_its_frames_alone(daemon):
    group = of_science(daemon)["group"]
    _, found = daemon.ask(measures.of_groups, [group], nights.USED)[group]
    ids = {row["name"]: row["id"] for row in daemon.rows("SELECT id, name FROM frame")}
    assert len(found) == 10
    for frame in found:
        known = daemon.ask(measures.of, "frame", ids[frame.name])
        assert frame.measures == {name: one for name, one in known.items() if name in nights.USED}
    assert sum(bool(frame.measures) for frame in found) >= 8


def test_the_command_says_it(daemon):
    settings = Settings(state=str(daemon.ledger.path.parent))
    done = CliRunner().invoke(verdict.verdict, ["--night", "20160102"], obj=settings)
    assert done.exit_code == 0, done.output
    assert "IQ70 asked: not met" in done.output
    assert "limit 0.55″; 8 of 8 frames)" in done.output
    assert "suggested: Usable" in done.output
    assert "fail" not in done.output.lower()
    done = CliRunner().invoke(verdict.verdict, [FIRST_SCIENCE, "--json"], obj=settings)
    assert json.loads(done.output)["verdicts"]["IQ"]["state"] == "not met"
