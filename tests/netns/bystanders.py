"""Fifty containers that go on working while something else goes wrong on their node, and must not notice.

The referee counts answers to echo requests that it makes by itself, of the gateway and of the next container. Beside
it, calls of the same network come one after the other, as a runtime makes them.
"""

from __future__ import annotations

import os
import select
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field

from tests.client import Client
from tests.netns import frames, networks, traffic
from tests.netns.networks import Pod
from tests.sandbox import Node

COUNT = 50
CONFIG = {**networks.gateway("fd00:9::/64", "10.9.0.0/24"), "name": "others", "bridge": "br9"}
GATEWAY = {4: "10.9.0.1", 6: "fd00:9::1"}
PATIENCE = 10.0  # seconds, after which an echo request has no answer any more
PAUSE = 0.05  # seconds between two rounds
REQUEST, REPLY = {4: 8, 6: 128}, {4: 0, 6: 129}  # RFC 792; RFC 4443, section 4
PROTOCOL = {4: socket.IPPROTO_ICMP, 6: socket.IPPROTO_ICMPV6}
SOL_RAW, ICMP_FILTER, ICMP6_FILTER = 255, 1, 1  # linux/icmp.h, linux/icmpv6.h: a bit that is set blocks its type


@dataclass
class Pinger:
    """One container and family: asks the gateway and a neighbour, each under an identifier of its own."""

    name: str
    family: int
    socket: socket.socket
    targets: Sequence[str]
    awaited: set[int] = field(default_factory=set)  # identifiers of this round's requests that have no answer yet

    def ask(self, number: int) -> Iterator[str]:
        """Send this round's requests. Yields what could not be sent."""
        self.awaited = set(range(len(self.targets)))
        for identifier, target in enumerate(self.targets):
            body = struct.pack("!HH", identifier, number)
            message = frames.icmp(REQUEST[4], 0, body) if self.family == 4 else bytes((REQUEST[6], 0, 0, 0)) + body
            try:
                self.socket.sendto(message, (target, 0))
            except OSError as error:
                self.awaited.discard(identifier)
                yield f"{self.name} to {target}: {error}"

    def hear(self, number: int) -> Iterator[str]:
        """Read the answers that have come. Yields the errors that came instead."""
        try:
            while True:
                data = self.socket.recv(1500)
                message = data[(data[0] & 0xF) * 4 :] if self.family == 4 else data
                kind, identifier, answered = struct.unpack_from("!BxxxHH", message)
                if (kind, answered) == (REPLY[self.family], number):
                    self.awaited.discard(identifier)
        except BlockingIOError:
            return
        except OSError as error:
            yield f"{self.name}: {error}"

    def silent(self) -> Iterator[str]:
        """Who has not answered."""
        return (f"{self.name} to {self.targets[identifier]}: no answer" for identifier in sorted(self.awaited))


class Referee:
    """Rounds of echo requests from all containers at once, in a thread, until it is closed."""

    def __init__(self, pods: Sequence[Pod]) -> None:
        self.lost: list[str] = []
        self._rounds = 0
        self._turned = threading.Condition()
        self._ended = threading.Event()
        self._stack = ExitStack()
        self._pingers = [
            Pinger(pod.name, family, self._stack.enter_context(_raw(pod.netns, family)),
                   (GATEWAY[family], following.address(family)))
            for pod, following in zip(pods, [*pods[1:], pods[0]]) for family in (4, 6)
        ]
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def whole_round(self) -> None:
        """Wait until a round has ended that began after now."""
        with self._turned:
            wanted = self._rounds + 2
            self._turned.wait_for(lambda: self._rounds >= wanted)

    def close(self) -> None:
        self._ended.set()
        self._thread.join()
        self._stack.close()

    def _run(self) -> None:
        while not self._ended.wait(PAUSE):
            self._round(self._rounds & 0xFFFF)
            with self._turned:
                self._rounds += 1
                self._turned.notify_all()

    def _round(self, number: int) -> None:
        by_descriptor = {pinger.socket.fileno(): pinger for pinger in self._pingers}
        for pinger in self._pingers:
            self.lost += pinger.ask(number)
        deadline = time.monotonic() + PATIENCE
        poll = select.poll()
        for descriptor in by_descriptor:
            poll.register(descriptor, select.POLLIN)
        while any(pinger.awaited for pinger in self._pingers):
            ready = poll.poll(1000 * max(0.0, deadline - time.monotonic()))
            for descriptor, _ in ready:
                self.lost += by_descriptor[descriptor].hear(number)
            if not ready:
                break
        for pinger in self._pingers:
            self.lost += pinger.silent()


class Bystanders:
    """The containers on a node with an engine, who asks after them, and their calls."""

    def __init__(self, node: Node, count: int = COUNT) -> None:
        self.node = node
        self._before = networks.veths(node)
        networks.set_up(node, CONFIG)
        path = f"{node.environment['CNI_V6_RUN_DIR']}/engine-{os.stat(node.path).st_ino}.sock"
        self._client = Client(path, os.stat(node.path).st_ino, CONFIG)
        self.pods = [Pod(node, CONFIG, f"bystander{number}") for number in range(count)]
        for pod in self.pods:
            pod.result = self._client.call("ADD", pod.name, pod.netns)
        self._newcomer = Pod(node, CONFIG, "newcomer")
        # Of a namespace that whoever made it has prepared: so it can join where /proc/sys is read-only.
        networks.set_sysctl(node, "ipv6/conf/default/accept_ra", "0", self._newcomer.netns)
        self._turns = 0
        self.referee = Referee(self.pods)

    @contextmanager
    def unaware(self) -> Iterator[None]:
        """Whatever happens in this block, none of them loses an echo, and none of their calls fails."""
        ended = threading.Event()
        with ThreadPoolExecutor(1) as pool:
            calling = pool.submit(self._call, ended.is_set)
            try:
                yield
                self.referee.whole_round()
            finally:
                ended.set()
                calling.result()
        assert not self.referee.lost, f"{len(self.referee.lost)} lost: {self.referee.lost[:10]}"

    def all_call(self) -> None:
        """A CHECK of each, all at once."""
        with ThreadPoolExecutor(len(self.pods)) as pool:
            for reply in pool.map(Pod.check, self.pods):
                assert reply.ok() is None

    def close(self) -> None:
        """End them all: then nothing of them is left."""
        self.referee.close()
        for pod in self.pods:
            pod.delete() if pod is self.pods[0] else self._client.call("DEL", pod.name, pod.netns)
            self.node.remove_container(pod.name)
        self.node.remove_container(self._newcomer.name)
        assert networks.leases(self.node, str(CONFIG["name"])) == set()
        assert networks.veths(self.node) == self._before

    def _call(self, is_over: Callable[[], bool]) -> None:
        """A container more that comes, finds its gateway and goes, and a CHECK of one that stays; again and again."""
        while True:
            self._newcomer.add()
            for family in traffic.FAMILIES:
                assert self._newcomer.ping(GATEWAY[family])
            assert self.pods[self._turns % len(self.pods)].check().ok() is None
            self._newcomer.delete()
            self._turns += 1
            if is_over():
                return


@contextmanager
def _raw(netns: str, family: int) -> Iterator[socket.socket]:
    """A socket that hears echo replies alone."""
    with traffic.opened(netns, family, socket.SOCK_RAW, PROTOCOL[family]) as made:
        made.setblocking(False)
        if family == 4:
            made.setsockopt(SOL_RAW, ICMP_FILTER, struct.pack("=I", 0xFFFFFFFF & ~(1 << REPLY[4])))
        else:
            words = [0xFFFFFFFF] * 8
            words[REPLY[6] // 32] &= ~(1 << REPLY[6] % 32)
            made.setsockopt(socket.IPPROTO_ICMPV6, ICMP6_FILTER, struct.pack("=8I", *words))
        yield made


@contextmanager
def at_work(node: Node) -> Iterator[Bystanders]:
    with closing(Bystanders(node)) as made:
        yield made
