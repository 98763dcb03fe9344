"""Of whatever goes wrong on a node, fifty containers that have nothing to do with it notice nothing: no echo of theirs
is lost, no call of theirs fails. Each situation is that of another test, which says what becomes of its own calls."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from cni_v6.engine.fair_shares import WORKERS
from tests.netns import bystanders, frames, networks, nft, test_absent, test_rootless, wire
from tests.netns.bystanders import Bystanders
from tests.netns.frames import IPV4, IPV6
from tests.netns.networks import DUAL, Pod
from tests.netns.test_failures import make_sysctls_read_only, refused_for_read_only_sysctls
from tests.process import test_hung_engine, test_inheritance, test_large, test_trouble
from tests.process.test_engine import ended, running
from tests.sandbox import Node

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("bystanders")]

MADE = 3000  # addresses that a container makes up


@pytest.fixture(scope="module")
def crowd() -> Iterator[Bystanders]:
    """All situations follow each other on one node, beside the same containers."""
    with closing(Node(engine=True)) as node, bystanders.at_work(node) as made:
        yield made


@pytest.fixture
def node(crowd: Bystanders) -> Iterator[Node]:
    """Their node; what a test attaches to other networks is gone after it, and so are their bridges."""
    made = crowd.node
    before = set(made.containers)
    yield made
    for record in made.file(networks.STORE).glob("*/attachments/*:eth0"):
        name, network = record.name.partition(":")[0], record.parts[-3]
        if name not in before:
            Pod(made, {**networks.gateway(), "name": network}, name).delete()
    for name in set(made.containers) - before:
        made.remove_container(name)
    for link in made.ip_json("link", "show", "type", "bridge"):
        if link["ifname"] != bystanders.CONFIG["bridge"]:
            made.run("ip", "link", "delete", link["ifname"])


@pytest.fixture(scope="module")
def outside(crowd: Bystanders) -> str:
    return test_absent.beyond(crowd.node)


@pytest.mark.parametrize("keys", [{}, {"ingress": "open"}], ids=["closed", "open"])
def test_of_scans(crowd: Bystanders, node: Node, outside: str, keys: dict[str, Any]) -> None:
    with crowd.unaware():
        test_absent.scan_from_outside(node, outside, test_absent.network(**keys))


def test_of_scans_by_a_container(crowd: Bystanders, node: Node, outside: str) -> None:
    with crowd.unaware():
        test_absent.scan_by_a_container(node, test_absent.network())


def test_of_sources_that_nobody_has(crowd: Bystanders, node: Node, outside: str) -> None:
    with crowd.unaware():
        test_absent.sources_of_nobody(node, outside)


def test_of_calls_that_hang(crowd: Bystanders, node: Node) -> None:
    Pod(node, {**test_trouble.HUNG, "ipam": {}}, "first").add()
    names = test_trouble.more_than_workers(node)
    with closing(test_trouble.Begun(node)) as begun, crowd.unaware(), test_trouble.hanging(node, begun, names):
        crowd.all_call()


@pytest.mark.parametrize("file", ["fifo", "/dev/zero"])
def test_of_files_without_end(crowd: Bystanders, node: Node, file: str) -> None:
    names = test_trouble.more_than_workers(node)
    with test_trouble.endless_file(node, file) as path, crowd.unaware(), ThreadPoolExecutor(WORKERS) as pool:
        for _ in pool.map(lambda name: test_trouble.refused_for_its_file(node, name, "resolvConf", path), names):
            pass


def test_of_callers_that_say_nothing(crowd: Bystanders, node: Node) -> None:
    with crowd.unaware(), test_trouble.saying_nothing(node):
        crowd.all_call()


def test_of_input_without_end(crowd: Bystanders, node: Node) -> None:
    node.container("a")
    with crowd.unaware(), ThreadPoolExecutor(2) as pool:
        for message in pool.map(lambda command: test_large.endless(node, command, "{"), ("ADD", "DEL", "GC")):
            assert "bytes" in message


def test_of_an_engine_that_is_stopped(crowd: Bystanders, node: Node, tmp_path: Path) -> None:
    """Their calls wait, and are answered once it goes on."""
    impatient = test_hung_engine.impatient_in_python(tmp_path / "bin")
    engine = running(node)
    with crowd.unaware():
        os.kill(engine, signal.SIGSTOP)
        assert "not answered" in test_hung_engine.refused(node, impatient, "ADD", "a")
        crowd.referee.whole_round()
        os.kill(engine, signal.SIGCONT)
        crowd.all_call()


def test_of_an_engine_that_an_odd_caller_left_behind(crowd: Bystanders, node: Node) -> None:
    """Of few descriptors and a tiny stack: all of them call it at once."""
    wait = ended(running(node))
    nft.ctl(node, "engine", "--stop")
    wait()
    test_inheritance.start_oddly(node, [], test_inheritance.FEW)
    with crowd.unaware():
        crowd.all_call()


def test_of_sysctls_that_are_read_only(crowd: Bystanders, node: Node) -> None:
    config = networks.gateway(*DUAL)
    networks.set_up(node, config)
    pod = Pod(node, config, "a")
    make_sysctls_read_only(node)
    try:
        with crowd.unaware():
            refused_for_read_only_sysctls(pod)
    finally:
        node.run("umount", "--lazy", "/proc/sys")


def test_of_addresses_that_a_container_makes_up(crowd: Bystanders, node: Node) -> None:
    """It announces thousands of them, and asks its gateway as each of them."""
    [pod] = networks.pods(node, test_absent.network(), "a")
    gateway = networks.link(node, "cni0")["address"]
    with crowd.unaware(), wire.packets(pod.netns, "eth0", 0) as sender, wire.in_order():
        for number in range(MADE):
            sender.send(frames.ethernet(pod.mac, gateway, IPV6, made_up6(number)))
            sender.send(frames.ethernet(pod.mac, frames.ALL_NODES_MAC, IPV6, announced6(pod.mac, number)))
            sender.send(frames.ethernet(pod.mac, gateway, IPV4, made_up4(number)))
        assert pod.ping(networks.GATEWAY6) and pod.ping(networks.GATEWAY4)
        assert test_absent.neighbours(node, pod) == set()


def made_up6(number: int) -> bytes:
    source = f"fd00:6::7000:{number:x}"
    return frames.ip(source, networks.GATEWAY6, frames.ICMPV6, frames.icmpv6(source, networks.GATEWAY6, 128, bytes(4)))


def made_up4(number: int) -> bytes:
    source = f"10.66.{128 + number // 256}.{number % 256}"
    return frames.ip(source, networks.GATEWAY4, frames.ICMP, frames.icmp(8, 0, bytes(4)))


def announced6(mac: str, number: int) -> bytes:
    subject = f"fd00:6::7000:{number:x}"
    return frames.ip(subject, frames.ALL_NODES, frames.ICMPV6,
                     frames.advertisement(subject, frames.ALL_NODES, subject, mac))


@pytest.mark.parametrize("engine", ["auto", "off"])
def test_of_a_node_in_a_user_namespace(crowd: Bystanders, engine: str) -> None:
    with crowd.unaware():
        test_rootless.test_it_works_in_a_user_namespace(engine)
