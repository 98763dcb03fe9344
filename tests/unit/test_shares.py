"""Each network's share of an engine's workers."""

from __future__ import annotations

from cni_v6.engine.fair_shares import OWN, WAITING, WORKING, Room, Shares, room


def test_a_networks_calls_wait_in_order_and_no_others() -> None:
    shares: Shares[str] = Shares(2, 10)
    assert [shares.enter("pods", job) for job in "abcd"] == [True, True, False, False]
    assert shares.enter("other", "e") is True
    assert [shares.leave("pods") for _ in range(4)] == ["c", "d", None, None]
    assert shares.leave("other") is None
    assert shares.enter("pods", "f") is True


def test_too_many_that_wait() -> None:
    shares: Shares[str] = Shares(1, 1)
    assert [shares.enter("pods", job) for job in "abc"] == [True, False, None]
    assert shares.leave("pods") == "b"
    assert shares.enter("pods", "d") is False


def test_a_share_of_another_size() -> None:
    shares: Shares[str] = Shares(16, 16)
    assert [shares.enter("large", job, 1) for job in "ab"] == [True, False]


def test_an_engine_takes_on_what_it_has_descriptors_for() -> None:
    assert room(65536) == Room(256, 256 + 30_688, 1024)
    assert room(1024) == Room(32, 32 + 224, 56)
    for files in (512, 1024, 4096, 65536):
        has = room(files)
        assert OWN + has.workers * WORKING + (has.calls - has.workers) * WAITING <= files
        assert has.workers >= 16 and has.calls - has.workers >= 4 * has.queue > 0
