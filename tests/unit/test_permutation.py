"""A random order without memory."""

from __future__ import annotations

from hypothesis import given, strategies as st

from cni_v6.allocation.permutation import KEY_BYTES, Shuffle

keys = st.binary(min_size=KEY_BYTES, max_size=KEY_BYTES)


@given(keys, st.integers(1, 300))
def test_every_number_comes_once(key: bytes, size: int) -> None:
    order = Shuffle(key, size)
    assert sorted(order.at(index) for index in range(size)) == list(range(size))


@given(keys, st.integers(1, 2**128), st.data())
def test_a_number_is_found_at_its_place(key: bytes, size: int, data: st.DataObject) -> None:
    order = Shuffle(key, size)
    index = data.draw(st.integers(0, size - 1))
    assert 0 <= order.at(index) < size
    assert order.place(order.at(index)) == index


def test_the_order_is_the_keys_and_none_that_could_be_guessed() -> None:
    one, other = (Shuffle(bytes([number] * KEY_BYTES), 2**64 - 2) for number in (1, 2))
    first, second = [[order.at(index) for index in range(1000)] for order in (one, other)]
    assert not set(first) & set(second)
    # Each bit is set in about half of them: 1,000 fair coins fall outside of 400 to 600 once in 10^9.
    assert all(400 < sum(value >> bit & 1 for value in first) < 600 for bit in range(64))
    # So do the bits that change from one to the next.
    changes = [a ^ b for a, b in zip(first, first[1:])]
    assert all(400 < sum(value >> bit & 1 for value in changes) < 600 for bit in range(64))
