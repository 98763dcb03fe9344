"""How long a call may wait, by a clock that the test sets."""

from __future__ import annotations

import math

from cni_v6.kernel.deadline import Limits, Patience

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
