"""nirid status in 80 columns: what is said of a night, and that it fits."""

import pytest

from daemon.cli.status import lines

DAEMON = {"pid": 7, "links": 0, "moved": 1.0, "engine": "", "paused": "", "stalled": ""}
SEQUENCE = {
    "group": 12, "rule": "science", "role": "science", "night": "20160102", "state": "done", "reason": "",
    "first": "N20160102S0270.fits", "last": "N20160102S0279.fits", "what": "a very long name of an object",
    "filter": "K(prime)", "exposure_time": 20.002, "frames": 10, "used": 7, "better": "",
    "name": "N20160102S0271-1a2b3c4d_image", "path": "/p/20160102/N20160102S0271-1a2b3c4d_image.fits",
    "version": 1, "seeing": 0.512, "zero_point": 26.4167, "zero_point_error": 0.277, "of": "product",
    "levels": {"DARKLEV": 1}, "poor": "",
}  # fmt: skip
LISTS = (
    "running",
    "planned",
    "waiting",
    "failed",
    "looking",
    "needs",
    "sequences",
    "looks",
    "conditions",
    "enough",
    "held",
)
ANSWER = {
    "daemon": DAEMON, "now": "2026-11-28T01:36:36.123+00:00", "requests": 0, "outdated": 0, "refused": 0,
    "waits": {"arrival": None, "name": ""}, "night": "20160102", "elsewhere": 0, "product_folder": "/p",
    "counts": {"files": {"ready": 3}, "jobs": {"done": 2, "failed": 1}},
    **{name: [] for name in LISTS},
}  # fmt: skip


def said(**more):
    return "\n".join(str(line).rstrip() for line in lines({**ANSWER, **more}, 80))


def test_a_quiet_night():
    text = said()
    assert text.startswith("clock     2026-11-28 01:36:36 UTC; daemon running, process 7\n")
    assert "needs you nothing" in text
    assert "no frame yet" in text
    assert "failed" not in text, "the job that failed was made good since"


def test_a_sequence_is_one_line_with_seeing_zero_point_and_what_was_left_out():
    (line,) = [line for line in said(sequences=[SEQUENCE]).splitlines() if line.startswith(" 12 ")]
    assert line == ' 12 N20160102S0271-1a2b3… a very … K(prime) 20s  7/10 done     0.51"  26.42±0.28'
    early = {**SEQUENCE, "name": "", "path": None, "of": "look", "zero_point_error": None, "state": "waiting"}
    text = said(sequences=[early])
    assert 'N20160102S0270-0279   a very … K(prime) 20s  7/10 waiting ~0.51"      ~26.42' in text


@pytest.mark.parametrize(
    ("more", "wanted"),
    [
        ({"needs": [{"level": "critical", "check": "x", "text": "no worker"}]}, "NEEDS YOU no worker"),
        (
            {"sequences": [{**SEQUENCE, "poor": "dark level 2, usable"}, {**SEQUENCE, "group": 13}]},
            "levels    group 12: dark level 2, usable\n",
        ),
        ({"daemon": None}, "daemon not running"),
        ({"daemon": {**DAEMON, "moved": None}}, "daemon starting"),
        ({"daemon": {**DAEMON, "links": 3}}, "note      3 links in the drop folders are not followed"),
        ({"elsewhere": 2, "sequences": [SEQUENCE]}, "2 groups of other nights have something to do"),
        ({"outdated": 2}, "2 products of an older release or configuration"),
        ({"requests": 2}, "2 decisions wait"),
        ({"sequences": [SEQUENCE | {"state": "idle", "reason": "2 of 3"}]}, "group 12: 2 of 3"),
    ],
)
def test_what_there_may_be_to_say(more, wanted):
    assert wanted in said(**more)


def job(number, group, **more):
    given = {"id": number, "group": group, "name": "N1_image", "recipe": "reduce", "inputs": ["N1.fits"]}
    return {**given, "reason": "complete", "error": "", **more}


def test_of_a_traceback_only_what_went_wrong():
    error = "Traceback (most recent call last):\n  File ...\nFileNotFoundError: no such file\n"
    assert "failed    job 7, N1_image: FileNotFoundError: no such file" in said(
        failed=[job(7, 3, error=error)]
    )
    assert "failed    job 7, N1_image: complete" in said(failed=[job(7, 3)])


def test_reasons_are_short_and_what_waits_for_the_same_is_one_line():
    long = "no processed_flat for data_section [1:512,1:512], well_depth Shallow, filter_name Kprime_G0206"
    making = (
        "processed_flat N1_flat is being made; processed_bpm N1_bpm is being made; no processed_dark for x y"
    )
    text = said(waiting=[job(1, 3, reason=long), job(2, 9, reason=long), job(3, 4, reason=making)])
    assert "waits     groups 3, 9: no processed_flat\n" in text + "\n"
    assert "waits     group 4: no processed_dark; N1_flat, N1_bpm being made" in text


def test_what_runs_and_what_there_is_to_see():
    look = {
        "group": 3,
        "name": "N2_running",
        "path": "/p/20160102/quicklook/N2_running.fits",
        "frames": ["a", "b"],
    }
    look["calibrations"] = {"processed_dark": "N3_dark"}
    text = said(
        running=[job(1, 3, inputs=["a", "b"])], looking=[{**look, "name": "N5_running"}], looks=[look]
    )
    assert "runs      job 1, N1_image, 2 frames" in text
    assert "runs      N5_running, 2 frames, to look at" in text
    assert "to look at, in /p/20160102/quicklook/" in text
    assert "    N2_running.fits" in text
    assert "group 3, 2 frames, without flat" in text


def test_it_fits_whatever_there_is():
    """Names and reasons may hold anything; only paths are not cut, and stand at the end of lines."""
    much = "word \x1b[31m" * 90
    many = [job(n, n, reason=f"{n} {much}", error=much, name="N" * 70, inputs=["a"] * 3) for n in range(30)]
    needs = [{"level": "warning", "check": "x", "text": much}] * 30
    rows = [{**SEQUENCE, "group": n, "what": much, "filter": "H2(2-1)S(1)" * 2} for n in range(30)]
    text = said(running=many, waiting=many, failed=many, planned=many, needs=needs, sequences=rows)
    assert "\x1b" not in text
    assert max(map(len, text.splitlines())) <= 100
    assert len(text.splitlines()) < 170
    assert "more" in text


def test_on_a_small_screen_what_is_done_gives_way():
    rows = [{**SEQUENCE, "group": n, "role": "science" if n < 20 else ""} for n in range(30)]
    rows[0]["state"] = rows[25]["state"] = "running"
    text = [str(line) for line in lines({**ANSWER, "sequences": rows}, 80, 24)]
    assert len(text) <= 24
    groups = [int(line[:3]) for line in text if line[:3].strip().isdigit()]
    assert {0, 25, 19} <= set(groups)
    assert 1 not in groups
    assert "    and 16 more that are done" in text
