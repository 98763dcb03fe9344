"""What the agent is told of leases: the fake, and a network's folder on a real disk."""

from __future__ import annotations

import os
import select
import shutil
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import pytest

from cni_v6.cluster.capacity import Leases, Used
from cni_v6.cluster.config import Pool
from cni_v6.cluster.fake import FakeLeases
from cni_v6.cluster.lease_folder import LeaseFolder
from cni_v6.errors import CniError

POOLS = Pool("fd42::/48", 122), Pool("10.244.0.0/16", 28)
SIX, FOUR, NEXT = "fd42::/122", "10.244.0.0/28", "10.244.0.16/28"


def is_full(own: object, used: Used) -> object:
    """A situation for tests: which blocks have two leases or more."""
    return own, [block for block in used if used[block] > 1]


class Bench(Protocol):
    @property
    def leases(self) -> Leases: ...

    def lease(self, address: str) -> None: ...

    def free(self, address: str) -> None: ...

    def remove(self) -> None: ...

    def has_news(self) -> bool: ...


@dataclass
class Fake:
    leases: FakeLeases

    def lease(self, address: str) -> None:
        self.leases.addresses.add(address)

    def free(self, address: str) -> None:
        self.leases.addresses.discard(address)

    def remove(self) -> None:
        self.leases.addresses.clear()
        self.leases.there = False

    def has_news(self) -> bool:
        return self.leases.drain()


@dataclass
class Real:
    leases: LeaseFolder
    folder: Path

    def lease(self, address: str) -> None:
        self.folder.mkdir(exist_ok=True, parents=True)
        (self.folder / address).touch()

    def free(self, address: str) -> None:
        (self.folder / address).unlink()

    def remove(self) -> None:
        shutil.rmtree(self.folder)

    def has_news(self) -> bool:
        """inotify tells before the system call ends: nothing is waited for."""
        return bool(select.select([self.leases], [], [], 0)[0]) and self.leases.drain()


@pytest.fixture(params=["fake", "folder"])
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bench]:
    if request.param == "fake":
        yield Fake(FakeLeases(POOLS, is_full))
        return
    folder = tmp_path / "networks" / "pods"
    folder.mkdir(parents=True)
    with closing(LeaseFolder(str(folder), POOLS, is_full)) as made:
        yield Real(made, folder)


def test_leases_are_counted_by_blocks(bench: Bench) -> None:
    """Those of other prefixes are not, nor those of other pools."""
    assert bench.leases.used() == {}
    for address in ("fd42::2", "fd42::3f", "fd43::2", "10.244.0.2", "10.244.0.17", "10.245.0.2", "lock"):
        bench.lease(address)
    assert bench.leases.used() == bench.leases.look() == {SIX: 2, FOUR: 1, NEXT: 1}
    bench.free("fd42::2")
    bench.free("10.244.0.17")
    assert bench.leases.used() == bench.leases.look() == {SIX: 1, FOUR: 1}
    bench.leases.attend([FOUR])
    bench.remove()
    assert bench.has_news() and bench.leases.used() is None and bench.leases.look() is None


def test_only_what_decides_something_is_news(bench: Bench) -> None:
    bench.leases.used()
    bench.leases.attend([FOUR])
    bench.lease("10.244.0.2")
    bench.leases.used()
    bench.leases.attend([FOUR])
    assert not bench.has_news()
    bench.lease("10.244.0.17")
    assert not bench.has_news()
    bench.lease("10.244.0.3")
    assert bench.has_news()
    bench.leases.attend([FOUR])
    bench.lease("10.244.0.4")
    assert not bench.has_news()
    bench.free("10.244.0.2")
    bench.free("10.244.0.3")
    assert bench.has_news() and bench.leases.used() == {FOUR: 1, NEXT: 1}
    bench.leases.attend([FOUR, NEXT])
    assert not bench.has_news()


# The folder alone


@pytest.fixture
def real(tmp_path: Path) -> Iterator[Real]:
    folder = tmp_path / "a" / "networks" / "pods"
    with closing(LeaseFolder(str(folder), POOLS, is_full)) as made:
        yield Real(made, folder)


def test_the_folder_comes_and_goes(real: Real) -> None:
    """Whatever is missing of the way to it."""
    for _ in range(2):
        assert real.leases.used() is None
        real.leases.attend([FOUR])
        for folder in (real.folder.parent.parent, real.folder.parent, real.folder):
            folder.mkdir()
            assert real.has_news() and real.leases.used() == ({} if folder == real.folder else None)
            real.leases.attend([FOUR])
        for number in range(2, 5):
            real.lease(f"10.244.0.{number}")
        assert real.has_news() and real.leases.used() == {FOUR: 3}
        real.leases.attend([FOUR])
        for address in os.listdir(real.folder):
            real.free(address)
        real.folder.rmdir()
        assert real.has_news()
        real.folder.parent.rmdir()
        real.folder.parent.parent.rmdir()


def test_another_folder_in_its_place(real: Real) -> None:
    real.lease("10.244.0.2")
    assert real.leases.used() == {FOUR: 1}
    real.leases.attend([FOUR])
    real.folder.rename(real.folder.with_name("old"))
    real.folder.mkdir()
    assert real.has_news() and real.leases.used() == {}
    for address in ("10.244.0.5", "10.244.0.6"):
        real.lease(address)
    assert real.has_news() and real.leases.used() == {FOUR: 2}


def test_a_folder_that_is_made_while_the_agent_begins_to_listen(real: Real) -> None:
    class Meanwhile(LeaseFolder):
        tried = 0

        def _add(self, folder: str) -> bool:
            self.tried += 1
            found = super()._add(folder)
            if self.tried == 1:
                real.lease("10.244.0.2")
            return found

    with closing(Meanwhile(str(real.folder), POOLS, is_full)) as leases:
        assert leases.used() == {FOUR: 1} and leases.tried > 2
        real.lease("10.244.0.3")
        assert leases.used() == {FOUR: 2}


def test_what_cannot_be_counted(real: Real) -> None:
    real.folder.parent.mkdir(parents=True)
    real.folder.touch()
    with pytest.raises(CniError, match=str(real.folder)):
        real.leases.used()
    assert real.leases.drain()
    real.folder.unlink()
    assert real.leases.used() is None and not real.has_news()
