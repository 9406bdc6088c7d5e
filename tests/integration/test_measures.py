"""Measures are kept with what they are of; verdicts follow an edited request, and no job does."""

import time
from dataclasses import replace

import pytest
from click.testing import CliRunner

from daemon.cli import verdict as commands
from daemon.config.options import ConditionsRequest
from daemon.ledger import measures
from daemon.people import trends, verdicts
from tests.beside import Settings
from tests.night import FakeEngine, example1, sha, static_bpm

SEEING = {"N20160102S0274.fits": 0.8}


class Engine(FakeEngine):
    """Measures 0.5 arcsec of FWHM, in the fifth frame more; of the product the transparency of each frame."""

    def stage(self, spec):
        result = super().stage(spec)
        seeing = SEEING.get(spec.inputs[-1].name, 0.5) if spec.name.endswith("_firstlook") else 0.5
        rows = [{"NAME": i.name, "TRANSPARENCY": 0.7 if n > 3 else 1.0, "TRANSP_ERR": 0.01, "FWHM": None}
                for n, i in enumerate(spec.inputs)]  # fmt: skip
        result["quality"] |= {
            "MEANFWHM": seeing,
            "MFWHMERR": 0.01,
            "NSTARS": 9,
            "CLOUDEXT": 0.2,
            "MAGZERR": 0.03,
        }
        if spec.name.endswith("_image"):
            result["quality"] |= {"frames": rows}
        elif spec.name.endswith("_dark"):
            result["quality"] |= {
                "measures": {"read_noise": (12.2, 0.1, "electron"), "odd": (None, None, "")}
            }
        return result


@pytest.fixture
def daemon(daemons):
    return daemons(engine=Engine(), looks=True)


def asked(daemon, *requests):
    return daemon.ask(verdicts.answer, None, requests, time.time())["sequences"]


def test_measures_are_of_what_they_say(daemon):
    daemon.land(*example1()[:5])
    daemon.run(5, step=1)
    first = daemon.ask(lambda db: measures.trend(db, "fwhm", key="f6 K(prime)"))
    assert [p.measure.value for p in first if p.of == "frame"][-1] == 0.8
    assert {p.of for p in first} >= {"frame", "look"}
    daemon.land(*example1()[5:], static_bpm())
    daemon.run(3600)
    light = daemon.ask(lambda db: measures.trend(db, "transparency"))
    assert [p.of for p in light] == ["frame"] * len(light)
    assert {p.measure.value for p in light} == {0.7, 1.0}
    noise = daemon.ask(lambda db: measures.trend(db, "read_noise"))
    assert [(p.of, p.measure.value, p.measure.error) for p in noise] == [("product", 12.2, 0.1)]
    assert noise[0].key.startswith("processed_dark:")
    assert daemon.ask(measures.names) == sorted(daemon.ask(measures.names))
    assert "odd" not in daemon.ask(measures.names)


def test_each_question_goes_by_index(daemon):
    daemon.land(*example1()[:3])
    for sql in (
        "SELECT * FROM measure WHERE subject = 'frame' AND number = 1",
        "SELECT * FROM measure WHERE name = 'fwhm' AND key = 'f6 J' AND at >= 0 ORDER BY at DESC",
        "SELECT * FROM measure WHERE name = 'fwhm' AND at >= 0 ORDER BY at DESC",
    ):
        plan = daemon.ask(lambda db, sql=sql: [row[3] for row in db.execute(f"EXPLAIN QUERY PLAN {sql}")])
        assert all("USING" in line and "INDEX" in line for line in plan), plan


def test_an_edited_request_changes_the_verdict_and_makes_no_job(daemon):
    night = example1()
    daemon.land(*night, static_bpm())
    daemon.run(3600)
    (before,) = [row for row in asked(daemon) if row["object"] and row["first"] == "N20160102S0270.fits"]
    assert before["verdicts"]["IQ"]["state"] == "not asked"
    jobs = daemon.ask(lambda db: db.execute("SELECT COUNT(*), MAX(changed) FROM job").fetchone()[:])
    edited = [
        replace(
            record,
            file_sha=sha(f"edited {n}"),
            descriptors=replace(record.descriptors, req_iq=20, raw_iq=70),
            signature=record.signature._replace(size=200 + n),
        )
        for n, record in enumerate(night[:10])
    ]
    daemon.land(*edited)
    daemon.run(3600)
    (after,) = [row for row in asked(daemon) if row["first"] == "N20160102S0270.fits"]
    assert after["verdicts"]["IQ"]["state"] == "not met"
    assert after["suggested"] == "Usable"
    assert daemon.ask(lambda db: db.execute("SELECT COUNT(*), MAX(changed) FROM job").fetchone()[:]) == jobs


def test_the_configuration_asks_and_the_last_table_counts(daemon):
    daemon.land(*example1(), static_bpm())
    daemon.run(3600)
    loose, strict = ConditionsRequest("GN-*", iq=85), ConditionsRequest("GN-*", iq_arcsec=0.3, cc=50)
    (row,) = [r for r in asked(daemon, loose, strict) if r["first"] == "N20160102S0270.fits"]
    assert row["verdicts"]["IQ"]["state"] == "not met"
    assert row["verdicts"]["CC"]["state"] == "not met"  # 0.2 +- 0.03 mag against 0.08
    assert row["light_lost"]["magnitudes"] == pytest.approx(0.39, abs=0.01)
    said = " | ".join(verdicts.lines(row))
    assert "0.4 mag down since" in said
    assert "suggested: Usable" in said
    assert "fail" not in said.lower()
    (row,) = [r for r in asked(daemon, strict, loose) if r["first"] == "N20160102S0270.fits"]
    assert row["verdicts"]["IQ"]["state"] == "met"


def test_commands(daemon, tmp_path):
    daemon.land(*example1(), static_bpm())
    daemon.run(3600)
    nothing = daemon.ask(trends.nothing, "fwmh", None, None)
    assert nothing == "no measure 'fwmh' of anything yet; did you mean fwhm?"

    def said(command, *words):
        return CliRunner().invoke(command, words, obj=Settings(tmp_path), catch_exceptions=False).output

    assert "delivered, none asked" in said(commands.verdict)
    assert "N20160102S0274.fits" in said(commands.verdict, "N20160102S0271_image")
    assert "values" in said(commands.trend, "fwhm", "--picture", str(tmp_path / "t.png"))
    assert (tmp_path / "t.png").read_bytes()[:4] == b"\x89PNG"
