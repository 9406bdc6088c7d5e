"""An alert is the same as long as it is the same thing, however its numbers change."""

from daemon.web.alerts import _alert, in_order


def test_time_that_passes_makes_no_new_alert_but_another_job_does():
    one, later = (
        _alert("daemon", "critical", f"the daemon has not moved for {n}") for n in ("45 s", "2 min")
    )
    assert one.number == later.number
    first, second = (_alert("jobs", "critical", f"job {n} was killed 3 times") for n in (7, 8))
    assert first.number != second.number


def test_what_nobody_knows_of_comes_first():
    some = [
        _alert("disk", "critical", "full"),
        _alert("frames", "warning", "late"),
        _alert("jobs", "critical", "x"),
    ]
    known = {some[0].number: {"user": "ada", "reason": "on its way", "more": {"until": 5.0}}}
    told = in_order(some, known)
    assert [alert.what for alert in told] == ["jobs", "frames", "disk"]
    assert (told[-1].known_to, told[-1].known_until) == ("ada", 5.0)
