"""The queue of released addresses: the same assertions on disk and in memory."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from cni_v6.allocation.release_queue import MemoryQueue, Queue, Released
from cni_v6.leases.disk.directory import Folder
from cni_v6.leases.disk.release_queue_file import SLACK, WIDTH, QueueFile

LONGEST = "2001:db8:ffff:ffff:ffff:ffff:ffff:ffff"


@pytest.fixture(params=["disk", "memory"])
def queue(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Queue]:
    if request.param == "memory":
        yield MemoryQueue()
        return
    with closing(Folder(str(tmp_path / "cursors"))) as folder, closing(QueueFile(folder, "released", ".new")) as file:
        yield file


def one(number: int, time: float = 7.0) -> Released:
    return Released(f"10.0.{number >> 8}.{number & 255}", time)


def test_the_oldest_comes_first(queue: Queue) -> None:
    assert (list(queue), len(queue), queue.find("10.0.0.1")) == ([], 0, None)
    for number in range(200):
        queue.append(one(number, number))
    assert list(queue) == [one(number, number) for number in range(200)]
    assert len(queue) == 200


def test_what_was_removed_is_gone_and_the_others_are_found(queue: Queue) -> None:
    for number in range(100):
        queue.append(one(number))
    for number in (0, 1, 50, 99):
        queue.remove(one(number))
    assert [each.address for each in queue] == [one(number).address for number in range(100) if number not in (
        0, 1, 50, 99)]
    assert queue.find("10.0.0.50") is None
    assert queue.find("10.0.0.5") == one(5)
    queue.append(one(50, 9))
    assert queue.find("10.0.0.50") == one(50, 9)
    queue.remove(one(77))  # neither seen nor found before
    queue.remove(one(77))
    assert queue.find("10.0.0.77") is None


def test_a_mark_and_the_longest_address_are_kept(queue: Queue) -> None:
    queue.append(Released(LONGEST, 2**33, "0123abcd"))
    assert list(queue) == [Released(LONGEST, 2**33, "0123abcd")]
    assert queue.find(LONGEST) == Released(LONGEST, 2**33, "0123abcd")
    assert queue.find(LONGEST[:-1]) is None


def test_any_order_of_steps_against_a_list(queue: Queue) -> None:
    lot = random.Random(7)
    known: dict[int, Released] = {}
    for step in range(3000):
        number = lot.randrange(300)
        if number in known:
            queue.remove(known.pop(number))
        else:
            queue.append(one(number, step))
            known[number] = one(number, step)
        if step % 100 == 0:
            assert list(queue) == list(known.values())


def files(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_a_file_shrinks_again_and_is_read_by_the_next(tmp_path: Path) -> None:
    with closing(Folder(str(tmp_path))) as folder, closing(QueueFile(folder, "released", ".new")) as queue:
        for number in range(SLACK + 100):
            queue.append(one(number))
        for number in range(SLACK + 90):
            queue.remove(one(number))
        left = [one(number) for number in range(SLACK + 90, SLACK + 100)]
        assert list(queue) == left
        assert (tmp_path / "released").stat().st_size < 200 * WIDTH
        with closing(QueueFile(folder, "released", ".new")) as again:
            assert list(again) == left
        for each in left:
            queue.remove(each)
        assert (list(queue), (tmp_path / "released").stat().st_size) == ([], 0)
        queue.append(one(1))
        assert list(queue) == [one(1)]
    assert files(tmp_path) == {"released"}


def test_an_entry_that_stays_does_not_let_the_file_grow(tmp_path: Path) -> None:
    with closing(Folder(str(tmp_path))) as folder, closing(QueueFile(folder, "released", ".new")) as queue:
        queue.append(one(0))
        for number in range(1, 3 * SLACK):
            queue.append(one(number))
            queue.remove(one(number))
        assert (list(queue), len(queue)) == ([one(0)], 1)
        assert (tmp_path / "released").stat().st_size <= (SLACK + 2) * WIDTH


@pytest.mark.parametrize("damage", [b"", b"\0" * WIDTH, b"head x", b"10.0.0.300 5", b"10.0.0.1 noon", b"10.0.0.1 5 a b",
                                    b"\xff" * WIDTH])
def test_lines_that_a_power_failure_left_half_of_are_passed_over(tmp_path: Path, damage: bytes) -> None:
    with closing(Folder(str(tmp_path))) as folder, closing(QueueFile(folder, "released", ".new")) as queue:
        queue.append(one(1))
        with open(tmp_path / "released", "ab") as file:
            file.write(damage)
        queue.append(one(2))
        assert [each.address for each in queue if each.address != "10.0.0.1" or each.time == 7] == [
            "10.0.0.1", "10.0.0.2"]
        with open(tmp_path / "released", "r+b") as file:
            file.write(damage)
        assert one(2) in list(queue)
