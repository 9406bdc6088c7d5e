"""A program is told of each new alert once, with limits on its number and its time, and never by a shell."""

import asyncio
import json
import sys
import time

from daemon.config.options import Alerting
from daemon.web.alerts import Alert
from daemon.web.bell import HOUR, Bell


def alert(key, **more):
    return Alert(key, "warning", f"{key} $(touch /tmp/evil)", "why", "do", **more)


def program(path, body):
    path.write_text(f"import sys, time\n{body}\n")
    return (sys.executable, str(path))


def test_the_alert_comes_whole_on_standard_input(tmp_path):
    out = tmp_path / "out"
    command = program(tmp_path / "p.py", f"open({str(out)!r}, 'w').write(sys.stdin.read())")
    assert asyncio.run(Bell(Alerting(command)).tell(alert("disk"))) == 0
    told = json.loads(out.read_text())
    assert told["what"] == "disk $(touch /tmp/evil)"
    assert told["alert"] == f"alert:{alert('disk').number}"


def test_a_program_that_hangs_is_killed(tmp_path):
    bell = Bell(Alerting(program(tmp_path / "p.py", "time.sleep(60)"), seconds=0.3))
    began = time.monotonic()
    assert asyncio.run(bell.tell(alert("disk"))) is None
    assert time.monotonic() - began < 10


def test_a_program_that_is_not_there_is_no_end_of_the_page():
    assert asyncio.run(Bell(Alerting(("/nowhere/at/all",))).tell(alert("disk"))) is None


def waiting(bell):
    return [one.key for one in bell._waiting]


def test_an_alert_is_told_once_while_it_lasts():
    bell = Bell(Alerting(("x",)))
    bell.hear([alert("a"), alert("b", known_to="ada")])
    bell.hear([alert("a"), alert("b", known_to="ada")])
    assert waiting(bell) == ["a"]
    bell.hear([alert("b")])  # nobody knows of it any more, and the other one is over
    assert waiting(bell) == ["b"]
    bell.hear([alert("a"), alert("b")])
    assert waiting(bell) == ["b", "a"]


def test_nobody_is_told_where_no_program_is_named():
    bell = Bell(Alerting())
    bell.hear([alert("a")])
    assert waiting(bell) == []


def test_there_are_so_many_in_an_hour_and_no_more():
    now = [0.0]
    bell = Bell(Alerting(("x",), per_hour=3), clock=lambda: now[0])
    assert [bell.is_too_many() for _ in range(4)] == [False, False, False, True]
    now[0] = HOUR
    assert not bell.is_too_many()
