"""explain: what it says of files, groups, jobs and products is what happened, and why not otherwise."""

from dataclasses import replace

import pytest

from daemon.ledger import files, questions, targets
from daemon.ledger.store import on_paper
from daemon.ledger.targets import UnknownTarget
from daemon.people import explain as people_explain
from tests.night import FINAL, FakeEngine, example1, frame, static_bpm

DARK, SCIENCE = "N20160102S0423_dark", "N20160102S0271_image"


def explain(daemon, said):
    with on_paper(daemon.ledger.path) as tx:
        target = targets.find(tx.reader, said)
        return people_explain.explain(tx, target, daemon.setting, daemon.main_loop.overrides)


def calibrations(answer):
    return {cal["kind"]: cal for cal in answer["calibrations"]}


def test_a_group_that_waits_says_for_what_and_why_each_candidate_will_not_do(daemons):
    daemon = daemons()
    night = example1()
    daemon.land(*night[:10], *night[35:45])
    lamps = {"exposure_time": 42.0, "coadds": 1, "filter_name": "J_G0202"}
    daemon.land(*(frame("lampoff", n, 7200 + 60 * n, **lamps) for n in range(1, 4)))
    daemon.land(*(frame("lampon", n, 7200 + 60 * n, **lamps) for n in range(4, 7)))
    daemon.run(900)
    assert set(daemon.current()) == {DARK, "N20160102S0004_flat"}
    answer = explain(daemon, "N20160102S0270.fits")
    assert (answer["kind"], answer["state"]) == ("file", "ready")
    assert answer["reason"] == "science: class science"
    (group,) = answer["groups"]
    assert (group["rule"], group["state"]) == ("science", "waiting")
    assert any("no processed_flat for" in text for text in answer["waits_for"])
    answer = explain(daemon, f"group:{group['group']}")
    flat, dark = calibrations(answer)["processed_flat"], calibrations(answer)["processed_dark"]
    assert (flat["status"], flat["wish"], flat["name"]) == ("missing", "needed", None)
    (why_not,) = flat["not_chosen"]
    assert why_not["name"] == "N20160102S0004_flat"
    assert why_not["failed"] == ["filter_name J_G0202, wanted Kprime_G0206"]
    assert (dark["status"], dark["wish"], dark["name"]) == ("chosen", "preferred", DARK)
    assert answer["needs"] == [{"tags": ["IMAGE", "NIRI", "RAW"], "have": 10, "at_least": 3}]
    assert len(answer["frames"]) == 10


def test_a_product_says_what_it_was_made_of_and_what_would_be_better(daemons):
    daemon = daemons()
    daemon.land(*example1(), static_bpm())
    daemon.until_idle()
    far = [frame("dark", n, 20 * 86400 + 30 * n, day="20160122") for n in range(1, 5)]
    daemon.land(*far)
    daemon.until_idle()
    answer = explain(daemon, SCIENCE)
    assert (answer["kind"], answer["state"], answer["version"]) == ("product", "current", 1)
    assert len(answer["inputs"]) == 10
    dark = calibrations(answer)["processed_dark"]
    assert (dark["status"], dark["name"]) == ("used", DARK)
    assert [c["name"] for c in dark["not_chosen"]][:1] == ["N20160122S0001_dark"]
    assert "is preferred" in dark["not_chosen"][0]["failed"][0]
    standard = explain(daemon, "N20160102S0296_image")
    assert calibrations(standard)["processed_dark"]["status"] == "none"
    failed = calibrations(standard)["processed_dark"]["not_chosen"][0]["failed"]
    assert "exposure_time 20.002, wanted 3.0 within 0.01" in failed
    assert not answer["outdated"]
    assert explain(daemon, answer["sha256"][:12])["name"] == SCIENCE
    assert explain(daemon, answer["path"])["name"] == SCIENCE
    assert explain(daemon, f"job:{answer['job']}")["product"] == answer["path"]


def test_a_failed_job_tells_its_attempts_and_their_errors(daemons):
    daemon = daemons(
        engine=FakeEngine(endings={"N20160102S0001_dark": ["died", "io", "timeout", "died", "died"]})
    )
    daemon.land(*(frame("dark", n, 30 * n) for n in (1, 2, 3)))
    daemon.run(60)
    daemon.run(600)
    answer = explain(daemon, "1")
    assert (answer["kind"], answer["state"]) == ("group", "failed")
    answer = explain(daemon, "job:1")
    assert [a["outcome"] for a in answer["attempts"]] == ["died", "io", "timeout", "died", "died"]
    assert answer["state"] == "failed"
    assert "died!" in answer["reason"]


def test_a_group_that_is_short_and_a_frame_that_is_out(daemons):
    daemon = daemons()
    bad = replace(frame("dark", 3, 90), state="excluded", reason="the QA state in the header is Fail")
    daemon.land(frame("dark", 1, 30), frame("dark", 2, 60), bad)
    daemon.run(600)
    answer = explain(daemon, "group:1")
    assert (answer["state"], answer["reason"]) == ("idle", "incomplete: 2 of 3")
    assert (answer["usable"], answer["members"]) == (2, 3)
    assert answer["needs"][0]["have"] == 2
    assert [f["reason"] for f in answer["frames"]] == ["dark", "dark", "the QA state in the header is Fail"]
    daemon.decide("reject", "N20160102S0001", reason="trailed")
    daemon.run(60)
    answer = explain(daemon, "N20160102S0001.fits")
    assert answer["state"] == "excluded"
    assert [(d["action"], d["reason"]) for d in answer["decisions"]] == [("reject", "trailed")]


def test_a_file_that_is_not_whole_yet(daemons):
    daemon = daemons()
    daemon.ledger.write(lambda tx: files.seen(tx, "/drop/N20160102S0900.fits"))
    answer = explain(daemon, "N20160102S0900.fits")
    assert (answer["kind"], answer["state"], answer["reason"]) == ("path", "seen", "not stable yet")


def test_what_is_meant(daemons):
    daemon = daemons()
    daemon.land(*example1())
    daemon.until_idle()
    with on_paper(daemon.ledger.path) as tx:
        assert targets.find(tx.reader, "2").text == "group:2"
        assert "job:2" in targets.find(tx.reader, "2").also
        raw = example1()[0]
        for said in (raw.path, "N20160102S0270.fits", "N20160102S0270", raw.file_sha, raw.file_sha[:10]):
            assert targets.find(tx.reader, said).text == f"sha256:{raw.file_sha}"
        with pytest.raises(UnknownTarget, match="did you mean N20160102S0271_image"):
            targets.find(tx.reader, "N20160102S0271_imgae.fits")
        for said in ("", "'; DROP TABLE job; --", "group:99", "sha256:zz", "%", "0" * 9):
            with pytest.raises(UnknownTarget):
                targets.find(tx.reader, said)


def test_everything_can_be_explained_and_nothing_is_written(daemons):
    daemon = daemons()
    daemon.land(*example1(), static_bpm())
    daemon.until_idle()
    wrote = daemon.ledger.wrote_at
    said = [*FINAL, *(f"group:{n}" for n in range(1, 7)), *(f"job:{n}" for n in range(1, 6))]
    for text in [*said, *(record.path for record in example1()), static_bpm().path]:
        answer = explain(daemon, text)
        assert {"target", "kind", "name", "state", "since", "reason", "waits_for"} <= answer.keys()
        assert answer["state"]
        assert answer["since"]
    assert daemon.ledger.wrote_at == wrote
    with on_paper(daemon.ledger.path) as tx, pytest.raises(Exception, match="readonly"):
        tx.run("DELETE FROM job")


class Standards(FakeEngine):
    """Tells of the science what `zeropoint.choose` would: the first standard was the better one."""

    def stage(self, spec):
        names = [c.name for c in spec.calibrations if c.role == "zero_point"]
        told = super().stage(spec)
        if len(names) > 1:
            told["quality"] = {"MAGZPT": 26.3, "ZPIMAGE": names[0]}
            told["notes"] = [
                f"zero point of {names[0]} (FS 17, 26.30 +- 0.02) used: seen through less cloud",
                f"zero point of {names[1]} (FS 17, 26.00 +- 0.02) not used: in cloud, limit 0.05",
            ]
        return told


def test_of_the_standards_of_a_night_it_says_which_was_taken_and_why_not_another(daemons):
    daemon = daemons(engine=Standards())
    late = [frame("standard", n, 5000 + 10 * n, exposure_time=3.0, coadds=1) for n in range(305, 310)]
    daemon.land(*example1(), *late)
    daemon.until_idle()
    zero = calibrations(explain(daemon, SCIENCE))["zero_point"]
    assert (zero["status"], zero["name"]) == ("used", "N20160102S0296_image")
    assert zero["why"] == "seen through less cloud"
    (other,) = zero["not_chosen"]
    assert other["name"] == "N20160102S0306_image"
    assert other["failed"] == ["in cloud, limit 0.05"]
    assert other["ut"]


def test_the_first_of_a_sequence_is_not_said_to_be_used(daemons):
    daemon = daemons()
    daemon.land(*example1())
    daemon.run(300)
    first, second = (explain(daemon, f"N20160102S{n:04d}.fits")["products"] for n in (270, 271))
    assert {(p["product"], p["judged"]["verdict"]) for p in first} == {("N20160102S0271_image", "left out")}
    assert "first exposure" in first[0]["judged"]["reason"]
    assert {p.get("judged") for p in second} == {None}
    assert explain(daemon, "N20160102S0271_image")["left_out"] == ["N20160102S0270.fits"]


def test_it_says_why_a_version_was_made_again(daemons):
    daemon = daemons()
    night = example1()
    short = [f for f in night if "N20160103" in f.path]
    daemon.land(*(f for f in night if f not in short))
    daemon.run(300)
    assert explain(daemon, "N20160102S0271_image")["again"] == []
    daemon.land(*short)
    daemon.run(300)
    found = explain(daemon, "N20160102S0271_image")["again"]
    assert any(text == "with processed_bpm N20160102S0373_bpm, which came later" for text in found)
    assert any(text == "processed_flat N20160102S0373_flat was made again itself" for text in found)
    daemon.land(frame("science", 280, 300))
    daemon.run(300)
    assert explain(daemon, "N20160102S0271_image")["again"] == ["with N20160102S0280, which came later"]
    daemon.decide("reject", "N20160102S0275.fits", said="x", reason="trailed", user="ada")
    daemon.run(300)
    found = explain(daemon, "N20160102S0271_image")["again"]
    (only,) = found
    assert only.startswith("without N20160102S0275: rejected by ")
    assert only.endswith(": trailed")
    daemon.decide("requeue", "N20160102S0271_image", said="x", reason="better now?", user="ada")
    daemon.run(300)
    (only,) = explain(daemon, "N20160102S0271_image")["again"]
    assert only.startswith("asked for by ")
    assert only.endswith(": better now?")


def test_a_waiting_job_counts_the_frames_that_it_has(daemons):
    daemon = daemons()
    daemon.land(*example1()[:10])
    daemon.run(300)
    job = daemon.ask(questions.jobs, ["waiting"])[0]
    assert len(job["inputs"]) == 10
    assert explain(daemon, f"job:{job['id']}")["inputs"] == job["inputs"]
