"""What an engine was given, told apart by one number; and the waits between its tries."""

import math

import pytest

from daemon.model.jobs import FIRST_LOOK_NUMBER, Outcome, Ticket
from daemon.work.backoff import BackOff

KINDS = [
    (Ticket("job", 7), 7, 7),
    (Ticket("part", 7), -7, 7),
    (Ticket("look", 7), FIRST_LOOK_NUMBER + 7, FIRST_LOOK_NUMBER + 7),
]


@pytest.mark.parametrize(("ticket", "number", "shown"), KINDS)
def test_a_ticket_goes_through_an_engine_as_one_number(ticket, number, shown):
    assert ticket.engine_number == number
    assert Ticket.of(number) == ticket == Outcome(number, 1, "stopped", 0.0).ticket
    assert ticket.shown == shown


def test_waits_double_and_a_part_is_no_job():
    now = 100.0
    waits = BackOff(lambda: now)
    ends = []
    for _ in range(10):
        waits.later(Ticket("job", 3), "no space")
        ends.append(waits.next_end())
    assert ends == [1, 2, 4, 8, 16, 32, 64, 128, 256, 300]
    waits.later(Ticket("part", 4), "killed")
    assert (waits.waiting(), waits.waiting("part"), waits.given_up()) == ([3], [4], [])
    assert waits.in_words([Ticket("part", 4), Ticket("job", 3)]) == ["job 4: killed", "job 3: no space"]
    assert waits.in_words([Ticket("job", 4), Ticket("job", 3)]) == ["job 3: no space"]
    now = 101.0  # the end of a wait is no wait
    assert (waits.waiting(), waits.waiting("part"), waits.next_end()) == ([3], [], 299)
    waits.forget(Ticket("job", 3))
    assert waits.next_end() is None


def test_what_runs_until_idle_tries_at_once_and_gives_up_the_third_time():
    waits = BackOff(lambda: 100.0, batch=True)
    for given_up in ([], [], [3]):
        waits.later(Ticket("job", 3), "no space")
        assert waits.given_up() == waits.waiting() == given_up
    assert waits.next_end() == math.inf
