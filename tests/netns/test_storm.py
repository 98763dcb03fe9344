"""Many calls at once, as a node meets them when it boots: nothing is lost, given twice, or left behind."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pytest

from tests.netns import networks
from tests.netns.networks import DUAL, GATEWAY4, GATEWAY6, Pod
from tests.sandbox import Node, Reply

pytestmark = [pytest.mark.slow, pytest.mark.every_way]

CROWD = 100
SEED = 20260823


def at_once(calls: Sequence[Any]) -> list[Reply]:
    """Make all calls together, each in a thread that waits for its answer."""
    with ThreadPoolExecutor(len(calls)) as pool:
        return list(pool.map(lambda call: call(), calls))


def test_a_hundred_adds_and_a_hundred_dels_at_once(node: Node) -> None:
    config = networks.gateway(*DUAL)
    pods = [Pod(node, config, f"c{number}") for number in range(CROWD)]
    replies = at_once([lambda pod=pod: pod.call("ADD") for pod in pods])
    for pod, reply in zip(pods, replies):
        pod.result = reply.ok()
    for family in (4, 6):
        given = {pod.address(family) for pod in pods}
        assert len(given) == CROWD
        assert given <= networks.leases(node)
    assert len(networks.leases(node)) == 2 * CROWD
    assert networks.veths(node) == {pod.host for pod in pods}
    for pod in random.Random(SEED).sample(pods, 3):
        assert pod.ping(GATEWAY4) and pod.ping(GATEWAY6) and pods[0].ping(pod.address(6))
        assert pod.check().ok() is None
    replies = at_once([lambda pod=pod: pod.call("DEL") for pod in pods])
    assert [reply.ok() for reply in replies] == [None] * CROWD
    assert networks.leases(node) == set() == networks.veths(node)
    assert {name for pod in pods[::25] for name in networks.veths(node, pod.netns)} == set()
    assert list((node.file(networks.STORE) / "pods" / "attachments").glob("c*")) == []


def test_a_full_set_gives_each_address_once_under_pressure(node: Node) -> None:
    """13 addresses, 24 containers: exactly 13 succeed, the others are told why."""
    config = networks.gateway("10.66.0.0/28")
    pods = [Pod(node, config, f"c{number}") for number in range(24)]
    replies = at_once([lambda pod=pod: pod.call("ADD") for pod in pods])
    given = [reply.stdout["ips"][0]["address"] for reply in replies if reply.code == 0]
    assert len(given) == len(set(given)) == 13
    assert {reply.stdout["code"] for reply in replies if reply.code != 0} == {101}
    assert len(networks.veths(node)) == 13


@dataclass
class Actor:
    """One container whose calls follow each other, as a runtime makes them; ``attached`` is what must be true."""

    pod: Pod
    choices: random.Random
    attached: bool = False

    def act(self) -> tuple[str, Reply]:
        """The next call, drawn from those that make sense, and what it must have changed."""
        if not self.attached:
            command = self.choices.choice(("ADD", "ADD", "DEL"))
        else:
            command = self.choices.choice(("CHECK", "DEL", "ADD", "CHECK"))
        reply = self.pod.check() if command == "CHECK" else self.pod.call(command)
        if command == "ADD" and not self.attached:
            self.pod.result = reply.ok()
        elif command == "ADD":
            reply.error(107)
        else:
            assert reply.ok() is None
        self.attached = command != "DEL" if command != "CHECK" else self.attached
        return command, reply


def test_a_mixed_storm_ends_as_its_model_says(node: Node) -> None:
    """Twelve containers that come, go and are checked while the garbage collector runs again and again.

    GC's list names all of them, and those that were there before and are nowhere in it must be gone at the end.
    """
    config = networks.gateway(*DUAL)
    networks.set_up(node, config)
    stale = networks.pods(node, config, "stale1", "stale2")
    actors = [Actor(Pod(node, config, f"c{number}"), random.Random(SEED + number)) for number in range(12)]
    valid = [{"containerID": actor.pod.name, "ifname": "eth0"} for actor in actors]

    def live(actor: Actor) -> list[str]:
        return [actor.act()[0] for _ in range(6)]

    def collect() -> list[Any]:
        return [node.plugin("cni-v6", "GC", {**config, "cni.dev/valid-attachments": valid}).ok() for _ in range(5)]

    with ThreadPoolExecutor(len(actors) + 1) as pool:
        collecting = pool.submit(collect)
        commands = [command for done in pool.map(live, actors) for command in done]
        assert collecting.result() == [None] * 5
    assert {"ADD", "DEL", "CHECK"} <= set(commands)
    attached = [actor.pod for actor in actors if actor.attached]
    assert 0 < len(attached) < len(actors), "the draw must leave some of both"
    assert networks.veths(node) == {pod.host for pod in attached}
    assert networks.leases(node) == {pod.address(family) for pod in attached for family in (4, 6)}
    assert len(networks.leases(node)) == 2 * len(attached)
    assert set(records(node)) == {(pod.name, "eth0") for pod in attached}
    for pod in attached:
        assert pod.check().ok() is None and pod.ping(GATEWAY6)
    assert not {name for pod in stale for name in networks.veths(node, pod.netns)}


def records(node: Node) -> Iterator[tuple[str, str]]:
    """(container id, ifname) of every attachment in the store."""
    for path in (node.file(networks.STORE) / "pods" / "attachments").iterdir():
        if not path.name.startswith("."):
            written: Mapping[str, str] = json.loads(path.read_text())
            yield written["containerID"], written["ifname"]
