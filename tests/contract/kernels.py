"""A node with two containers, once of the fake kernel and once of the real one, for the same assertions."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

from cni_v6.kernel.fake.kernel import FakeKernel
from cni_v6.kernel.linux import LinuxKernel
from cni_v6.kernel.ops import Op
from cni_v6.kernel.questions import Question
from cni_v6.kernel.snapshot import Kernel, Snapshot
from tests.sandbox import Node

CLONE_NEWNET = 0x40000000  # linux/sched.h
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class KernelTestbed:
    """A kernel whose node has nothing but a loopback interface, and the namespaces of two containers on it.

    ``remove_container`` ends the namespace of one of them, ``gone`` is the path of one that never was.
    """

    kernel: Kernel
    a: str
    b: str
    remove_container: Callable[[str], None]
    gone: str = "/run/netns/never-was"


@dataclass(frozen=True, slots=True, kw_only=True)
class LinuxTestbed(KernelTestbed):
    """``node`` runs commands on it; ``elsewhere`` is its kernel."""

    node: Node
    elsewhere: Elsewhere


class Elsewhere:
    """A LinuxKernel whose node is another network namespace: it lives in a thread that has entered that for good.

    So the thread that runs the tests never moves, and what the kernel does to "the node" is done as in production.
    """

    def __init__(self, path: str) -> None:
        self._thread = ThreadPoolExecutor(1, "node", initializer=_enter, initargs=(path,))
        self.kernel = LinuxKernel()

    def netns_id(self, path: str) -> tuple[int, int]:
        return self.run(lambda: self.kernel.netns_id(path))

    def observe(self, questions: Iterable[Question]) -> Snapshot:
        return self.run(lambda: self.kernel.observe(questions))

    def apply(self, ops: Iterable[Op]) -> Mapping[Op, Op | None]:
        return self.run(lambda: self.kernel.apply(ops))

    def remove(self, ops: Iterable[Op]) -> None:
        self.run(lambda: self.kernel.remove(ops))

    def close(self) -> None:
        self.run(self.kernel.close)

    def run(self, work: Callable[[], T]) -> T:
        """Run ``work`` in the node's namespace."""
        return self._thread.submit(work).result()

    def end(self) -> None:
        """Close everything and end the thread."""
        self.close()
        self._thread.shutdown()


def fake_testbed() -> KernelTestbed:
    """A testbed with a FakeKernel."""
    kernel = FakeKernel()
    kernel.add_netns("/run/netns/a")
    kernel.add_netns("/run/netns/b")
    return KernelTestbed(kernel, "/run/netns/a", "/run/netns/b", kernel.remove_netns)


@contextmanager
def linux_testbed() -> Iterator[LinuxTestbed]:
    """A testbed with a LinuxKernel, on a throwaway node."""
    node = Node()
    try:
        elsewhere = Elsewhere(node.path)
        try:
            yield LinuxTestbed(
                elsewhere, node.container("a"), node.container("b"), _remover(node), node=node, elsewhere=elsewhere
            )
        finally:
            elsewhere.end()
    finally:
        node.close()


def _remover(node: Node) -> Callable[[str], None]:
    return lambda path: node.remove_container(path.rpartition("-")[2])


def _enter(path: str) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    file = os.open(path, os.O_RDONLY)
    try:
        if libc.setns(file, CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), "setns")
    finally:
        os.close(file)
