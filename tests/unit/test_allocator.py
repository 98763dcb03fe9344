"""Which address is next: what the contract of the stores does not come by."""

from __future__ import annotations

from cni_v6.allocation import allocator
from cni_v6.allocation.allocator import BACKLOG, AllocatorInput, AllocatorState
from cni_v6.allocation.policy import AFTER, SEQUENTIAL, AllocationPolicy
from cni_v6.allocation.release_queue import MemoryQueue, Released
from cni_v6.allocation.used import UsedAddresses
from cni_v6.net import intervals
from cni_v6.net.addresses import to_text
from tests.stores import pool

WIDE = pool("10.0.0.0/8")
FIRST = WIDE.ranges[0].first
NOW = 1_790_000_000.0
WAIT = AllocationPolicy(SEQUENTIAL, AFTER, 3600)


def with_backlog(oldest: float) -> AllocatorState:
    """Nothing is held, and more waits than has to."""
    queue = MemoryQueue()
    for number in range(BACKLOG + 1):
        queue.append(Released(to_text(4, FIRST + 1 + number), oldest + number / 1000))
    return AllocatorState(UsedAddresses(), ((FIRST, FIRST + BACKLOG + 1),), queue)


def choose(state: AllocatorState) -> allocator.Chosen:
    return allocator.choose(
        state, WIDE, WAIT, AllocatorInput(None, NOW, lambda order: next(order, None), set(), bytes, bytes)
    )


def test_a_round_of_a_wide_set_ends_before_too_many_wait() -> None:
    assert choose(with_backlog(NOW - 3700)) == (FIRST + 1, True, "")


def test_but_nobody_is_given_an_address_before_its_time() -> None:
    assert choose(with_backlog(NOW - 3500)) == (FIRST + BACKLOG + 2, False, "")


def test_a_queue_that_lost_its_end_is_no_backlog() -> None:
    state = with_backlog(NOW - 3700)
    state.queue = MemoryQueue()
    assert choose(state).value == FIRST + BACKLOG + 2
    assert intervals.total(state.round) > BACKLOG
