"""How long a call may wait, by a clock that the test sets."""

from __future__ import annotations

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Event

import pytest

from cni_v6.kernel.deadline import Limits, Patience, Token, without_token

LIMITS = Limits(delegate=60, work=70, undo=20)


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_a_wait_takes_no_longer_than_the_call_has() -> None:
    clock = Clock()
    patience = Patience(LIMITS, clock=clock, caller=5)
    assert patience.left(60) == 60
    clock.now += 30
    assert patience.left(60) == 40 and patience.left(30) == 30
    assert patience.caller == 5 and not patience.is_over


def test_the_time_in_the_queue_counts() -> None:
    assert Patience(LIMITS, clock=Clock(), started=950.0).left(60) == 20


def test_a_call_that_is_late_has_time_to_undo_what_it_did() -> None:
    clock = Clock()
    patience = Patience(LIMITS, clock=clock, caller=5)
    clock.now += 71
    assert patience.is_over
    assert patience.left(60) == 19, "of a call's 90 seconds"
    assert patience.caller is None, "nobody need be there for it"
    clock.now += 25
    assert patience.left(60) == 0


def test_who_gives_up_early_has_no_longer_for_it() -> None:
    clock = Clock()
    patience = Patience(LIMITS, clock=clock, caller=5)
    clock.now += 10
    patience.give_up()
    assert patience.left(60) == 20
    clock.now += 5
    patience.give_up()
    assert patience.left(60) == 15, "once a call"


def test_without_an_engine_there_is_no_end_but_that_of_each_wait() -> None:
    clock = Clock()
    patience = Patience(clock=clock)
    clock.now += 10_000
    assert patience.left(60) == 60 and patience.left(math.inf) == math.inf
    patience.give_up()
    assert patience.left(60) == 20


# The token of those that compute


def test_one_call_computes_and_others_follow_when_it_waits_or_ends() -> None:
    token, said = Token(seconds=60), list[str]()
    waits, goes_on = Event(), Event()

    def first() -> None:
        with token.held():
            said.append("first computes")
            with without_token():
                with without_token():  # it has none to give away
                    waits.set()
                    assert goes_on.wait(60)
            said.append("first goes on")

    def second() -> None:
        assert waits.wait(60)
        with token.held():
            goes_on.set()
            said.append("second computes")

    run(first, second)
    assert said == ["first computes", "second computes", "first goes on"]


def test_a_call_that_holds_it_for_long_loses_it() -> None:
    token, passed = Token(seconds=0.01), Event()

    def stuck() -> None:
        with token.held():
            assert passed.wait(60)

    def others() -> None:
        for _ in range(3):
            with token.held():
                pass
        passed.set()

    run(stuck, others, others)
    with token.held():
        pass


def test_a_failure_gives_it_back() -> None:
    token = Token(seconds=60)
    for _ in range(2):
        with pytest.raises(ZeroDivisionError), token.held(), without_token():
            raise ZeroDivisionError
    with token.held():
        pass


def test_who_has_none_waits_as_ever() -> None:
    with pytest.raises(ZeroDivisionError), without_token():
        raise ZeroDivisionError


def run(*calls: Callable[[], None]) -> None:
    """Each in a thread of its own; a failure of any is raised."""
    with ThreadPoolExecutor(len(calls)) as threads:
        for started in [threads.submit(call) for call in calls]:
            started.result()
