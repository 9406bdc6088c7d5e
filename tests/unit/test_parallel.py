"""Threads of a job: what comes out is what one thread would have made, and nobody waits for ever."""

import gc
import threading
import time
import weakref
from contextvars import ContextVar

import pytest

from pipeline import parallel
from pipeline.parallel import Memo, run_all, run_both, shares, threads

SECONDS = 20.0  # after which somebody waits for somebody who does not come


@pytest.mark.parametrize("number", [0, 1, 2, 3, 40])
def test_what_comes_out_is_in_the_order_of_the_items(number):
    def slow_at_first(k):
        time.sleep(0.02 if k == 0 else 0.0)
        return k * k

    with threads(number):
        assert run_all(slow_at_first, range(7)) == [0, 1, 4, 9, 16, 25, 36]
        assert run_all(slow_at_first, ()) == []
        assert [list(part) for part in shares([])] == []


def test_two_threads_work_at_the_same_time_and_one_is_the_callers_own():
    meet = threading.Barrier(2, timeout=SECONDS)
    with threads(2):
        assert sorted(run_all(lambda _: meet.wait(), range(2))) == [0, 1]
        assert sorted(run_both(meet.wait, meet.wait)) == [0, 1]
    assert run_all(lambda _: threading.current_thread(), range(2)) == [threading.current_thread()] * 2


def test_there_are_never_more_than_the_most_of_a_job():
    with threads(40):
        assert len(shares(range(100))) == parallel.MOST_THREADS
        assert len({t.ident for t in run_all(lambda _: _me(), range(50))}) <= parallel.MOST_THREADS


def _me():
    time.sleep(0.002)
    return threading.current_thread()


def test_what_is_called_from_a_thread_uses_no_others():
    def inner(k):
        return run_all(lambda m: threading.current_thread() is here, range(3)) if (here := _me()) else k

    with threads(2):
        assert run_all(inner, range(8)) == [[True] * 3] * 8


def test_the_first_failure_is_raised_when_nothing_runs_any_more():
    running, meet = set(), threading.Barrier(2, timeout=SECONDS)

    def fail(k):
        running.add(k)
        if k < 2:
            meet.wait()
        time.sleep(0.05 * (k == 0))
        running.discard(k)
        raise ValueError(k)

    def all_of_them():
        try:
            run_all(fail, range(6))
        finally:
            assert not running

    with threads(2), pytest.raises(ValueError, match="0"):
        all_of_them()


@pytest.mark.parametrize("fails", [0, 3, 5])
def test_a_failure_keeps_nothing_in_memory_until_the_collector_comes(fails):
    class Plane:
        pass

    made = []

    def work(k):
        if k == fails:
            raise ValueError(k)
        made.append(weakref.ref(plane := Plane()))
        return plane

    def job():
        try:
            run_all(work, range(6))
        except ValueError as error:
            return str(error)

    gc.disable()
    try:
        with threads(2):
            assert job() == str(fails)
        assert made
        assert [plane() for plane in made] == [None] * len(made)
    finally:
        gc.enable()


def test_threads_know_what_the_caller_has_set():
    said = ContextVar("said", default="nothing")
    said.set("hear")
    with threads(2):
        assert run_all(lambda _: said.get(), range(4)) == ["hear"] * 4


@pytest.mark.parametrize("items", [1, 2, 7])
def test_shares_are_all_of_it_in_order(items):
    with threads(3):
        parts = shares(range(items))
    assert [k for part in parts for k in part] == list(range(items))
    assert [len(part) > 0 for part in parts] == [True] * min(3, items)


def test_a_memo_is_made_once_however_many_ask():
    made, memo = [], Memo()

    def make():
        time.sleep(0.05)
        made.append(1)
        return object()

    with threads(4):
        assert len({id(found) for found in run_all(lambda _: memo.get("sky", make), range(8))}) == 1
    assert made == [1]


def test_a_memo_keeps_so_many_and_makes_the_others_again():
    memo, made = Memo(2), []
    for key in "abcab":
        assert memo.get(key, lambda key=key: made.append(key) or key) == key
    assert made == list("abcab")
    assert memo.get("b", lambda: made.append("again")) == "b"
    assert memo.get("a", lambda: made.append("again")) == "a"


def test_who_waits_for_a_memo_that_failed_makes_it():
    memo, asked = Memo(), []

    def make():
        asked.append(1)
        if len(asked) == 1:
            raise ValueError("no sky")
        return 7

    def get(_):
        try:
            return memo.get("sky", make)
        except ValueError:
            return None

    with threads(2):
        assert sorted(map(str, run_all(get, range(2)))) == ["7", "None"]
