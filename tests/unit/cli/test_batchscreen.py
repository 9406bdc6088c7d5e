"""How long a batch run will take, as it is shown."""

import pytest

from daemon.cli import batchscreen
from daemon.cli.batchscreen import Screen, in_words, time_left
from daemon.ledger.batchwork import Work


def test_the_time_left_goes_by_the_frames_that_are_done():
    half = Work(done=3, left=3, frames_done=60, frames_left=60)
    assert time_left(half, 40.0) == pytest.approx(40.0)
    assert time_left(Work(done=1, left=3, frames_done=7, frames_left=81), 10.0) == pytest.approx(90.0)
    assert time_left(half, 1.0) is None, "too early to tell"
    assert time_left(Work(left=4, frames_left=30), 60.0) is None, "nothing is done"


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (None, ""),
        (2.0, "about 5 s left"),
        (43.0, "about 45 s left"),
        (200.0, "about 3 min left"),
        (9000.0, "about 2.5 h left"),
    ],
)
def test_a_time_is_told_as_roughly_as_it_is_known(seconds, words):
    assert in_words(seconds) == words


def test_elsewhere_than_at_a_terminal_there_is_a_line_now_and_then(monkeypatch):
    now, said = [0.0], []

    class Log:
        def info(self, event, **fields):
            said.append((event, fields["doing"], fields["done"], fields["of"], fields["left"]))

    monkeypatch.setattr(batchscreen.logs, "get", Log)
    with Screen(clock=lambda: now[0]) as screen:
        assert not screen.at_a_terminal
        for second in range(0, 100, 10):
            now[0] = float(second)
            if second < 40:
                screen.reading(second, 100)
            else:
                screen.working(Work(done=second // 10, left=10, frames_done=second, frames_left=100))
    assert [line[:4] for line in said] == [
        ("progress", "reading files", 30, 100),
        ("progress", "reducing", 6, 16),
        ("progress", "reducing", 9, 19),
    ]
    assert said[-1][4] is not None
