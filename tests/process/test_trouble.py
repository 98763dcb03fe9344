"""One network in trouble: its calls come to an end, and those of other networks do not notice."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from typing import Any

import pytest

from cni_v6 import wire
from cni_v6.engine import fair_shares
from cni_v6.engine.fair_shares import WORKERS
from cni_v6.engine.incoming import HELD_BYTES, LARGE_BYTES
from cni_v6.leases.disk.directory import Folder
from tests.netns import networks
from tests.netns.networks import Pod
from tests.netns.stepped_engine import SteppedEngine
from tests.process.test_engine import ended, request, running, socket_of, wait_for_connection
from tests.sandbox import PLUGIN_PATH, Node, make_call, reply

HANGS = """#!/bin/sh
echo "$CNI_COMMAND" >>/var/lib/cni/plugins/calls
[ "$CNI_COMMAND" = "$STOPS_AT" ] || [ "$STOPS_AT" = all ] || exit 0
echo "it waits for its server" >&2
echo begun >/var/lib/cni/plugins/begun
read answer </var/lib/cni/plugins/never
"""
PLUGINS = "/var/lib/cni/plugins"
OTHER = {**networks.gateway("fd00:9::/64", "10.9.0.0/24"), "name": "others", "bridge": "br9"}
HUNG = {**networks.gateway(), "ipam": {"type": "hangs"}}
LIMITS = {"delegate": 0.5, "work": 20.0, "undo": 0.5}


class Begun:
    """Tells how many of the plugin's calls hang."""

    def __init__(self, node: Node) -> None:
        folder = node.file(PLUGINS)
        folder.mkdir()
        (folder / "hangs").write_text(HANGS)
        (folder / "hangs").chmod(0o755)
        for name in ("begun", "never"):
            os.mkfifo(folder / name)
        self._fifo = os.open(folder / "begun", os.O_RDWR)
        self._calls = folder / "calls"

    def wait(self, count: int) -> None:
        heard = b""
        while heard.count(b"\n") < count:
            heard += os.read(self._fifo, 1 << 12)
        assert heard.count(b"\n") == count

    def calls(self) -> list[str]:
        return self._calls.read_text().split()

    def close(self) -> None:
        os.close(self._fifo)


@pytest.fixture
def begun(warm_node: Node) -> Iterator[Begun]:
    with closing(Begun(warm_node)) as made:
        yield made


def start(node: Node, config: dict[str, Any], name: str, stops_at: str = "ADD") -> subprocess.Popen[bytes]:
    """An ADD under way."""
    netns = node.containers.get(name) or node.container(name)
    each = make_call(
        "cni-v6", "ADD", config, container_id=name, ifname="eth0", netns=netns, path=(PLUGINS, *PLUGIN_PATH),
        env={"STOPS_AT": stops_at},
    )
    process = node.start(each)
    assert process.stdin
    process.stdin.write(each.stdin)
    process.stdin.close()
    process.stdin = None
    return process


def more_than_workers(node: Node) -> list[str]:
    """Containers, more than calls of one network have workers."""
    names = [f"c{number}" for number in range(WORKERS + 4)]
    for name in names:
        node.container(name)
    return names


@contextmanager
def hanging(node: Node, begun: Begun, names: Sequence[str]) -> Iterator[None]:
    """An ADD of each of these containers hangs, or waits for those that do; in the end their callers are gone."""
    callers = [start(node, HUNG, name) for name in names]
    begun.wait(WORKERS)
    for caller in callers:
        wait_for_connection(caller.pid)
    yield
    for caller in callers:
        caller.kill()
        caller.communicate()


def others_work(node: Node) -> None:
    """ADD, packets, CHECK and DEL of another network."""
    pod = Pod(node, OTHER, "other")
    pod.add()
    assert pod.ping("fd00:9::1") and pod.ping("10.9.0.1")
    pod.check()
    pod.delete()


def drain(node: Node) -> None:
    """End the engine once all is done."""
    wait = ended(running(node))
    os.kill(running(node), signal.SIGTERM)
    wait()


def test_calls_that_hang_keep_no_other_network_waiting_and_end_with_their_callers(
    warm_node: Node, begun: Begun
) -> None:
    others_work(warm_node)
    Pod(warm_node, {**HUNG, "ipam": {}}, "first").add()
    names = more_than_workers(warm_node)
    with warm_node.unchanged():
        with hanging(warm_node, begun, names):
            others_work(warm_node)
        others_work(warm_node)
        drain(warm_node)
    calls = begun.calls()
    # One may have been killed before it said that it had begun.
    assert WORKERS <= calls.count("ADD") <= calls.count("DEL")


@pytest.mark.slow
def test_a_plugin_that_always_hangs_has_an_end_in_its_undoing_too(warm_node: Node, begun: Begun) -> None:
    Pod(warm_node, {**HUNG, "ipam": {}}, "first").add()
    warm_node.container("a")
    with closing(SteppedEngine(warm_node)) as stepped:
        assert stepped.stop()
        stepped.start("", 0, LIMITS)
        with warm_node.unchanged():
            caller = start(warm_node, HUNG, "a", stops_at="all")
            out, err = caller.communicate()
            message = reply(out, err, caller.returncode).error(106)
            assert "hangs ADD did not end within 0.5 seconds" in message and f"{PLUGINS}/hangs" in message
            assert "it waits for its server" in err.decode()
            assert "undoing the failed ADD: hangs DEL did not end within 0.5 seconds" in err.decode()
        assert begun.calls() == ["ADD", "DEL"]
        others_work(warm_node)


def test_a_call_that_had_to_wait_too_long_is_not_begun(warm_node: Node) -> None:
    pod = Pod(warm_node, OTHER, "other")
    pod.add()
    with closing(SteppedEngine(warm_node)) as stepped:
        assert stepped.stop()
        stepped.start("", 0, {"work": 0.0})
        with warm_node.unchanged():
            assert "calls of network others before this one took" in pod.call("DEL").error(11)


@pytest.mark.slow
def test_a_call_that_finds_too_many_before_it_is_told_so(warm_node: Node, begun: Begun) -> None:
    others_work(warm_node)
    Pod(warm_node, {**HUNG, "ipam": {}}, "first").add()
    names = [f"c{number}" for number in range(WORKERS + 2)]
    for name in names:
        warm_node.container(name)
    with closing(SteppedEngine(warm_node)) as stepped:
        assert stepped.stop()
        stepped.start("", 0, room=fair_shares.Room(2 * WORKERS, 4 * WORKERS, queue=1))
        with warm_node.unchanged():
            callers = [start(warm_node, HUNG, name) for name in names[:WORKERS]]
            begun.wait(WORKERS)
            callers.append(start(warm_node, HUNG, names[WORKERS]))
            wait_for_connection(callers[-1].pid)
            last = start(warm_node, HUNG, names[-1])
            out, err = last.communicate()
            assert "1 calls of network pods wait already" in reply(out, err, last.returncode).error(11)
            others_work(warm_node)
            for caller in reversed(callers):
                caller.kill()
                caller.communicate()
            assert stepped.stop()


@pytest.mark.slow
def test_an_engine_with_few_descriptors_takes_no_more_than_it_can(warm_node: Node) -> None:
    """The others wait at its door, until those inside have said what they want or their time is over."""
    config = networks.gateway(*networks.DUAL)
    room = fair_shares.Room(workers=WORKERS, calls=WORKERS, queue=4)
    with closing(SteppedEngine(warm_node)) as stepped, ExitStack() as stack:
        stepped.start("", 0, room=room)
        for _ in range(WORKERS + 4):
            connection = stack.enter_context(socket.socket(socket.AF_UNIX))
            connection.connect(str(socket_of(warm_node)))
        callers = [start(warm_node, config, f"c{number}") for number in range(4)]
        for caller in callers:
            out, err = caller.communicate()
            reply(out, err, caller.returncode).ok()


def test_who_holds_a_networks_lock_keeps_no_other_network_waiting(warm_node: Node) -> None:
    config = networks.gateway(*networks.DUAL)
    pod = Pod(warm_node, config, "first")
    pod.add()
    names = [f"c{number}" for number in range(WORKERS + 4)]
    with closing(Folder(str(warm_node.file("/var/lib/cni/networks/pods")))) as store:
        lock = store.lock("lock", 0)
        assert lock is not None
        callers = [start(warm_node, config, name) for name in names]
        for caller in callers:
            wait_for_connection(caller.pid)
        others_work(warm_node)
        assert pod.ping(networks.GATEWAY6), "the network itself works"
        os.close(lock)
    for caller in callers:
        out, err = caller.communicate()
        reply(out, err, caller.returncode).ok()


def test_callers_that_say_nothing_keep_nobody_waiting(warm_node: Node) -> None:
    others_work(warm_node)
    with saying_nothing(warm_node):
        others_work(warm_node)


@contextmanager
def saying_nothing(node: Node) -> Iterator[None]:
    with ExitStack() as stack:
        for part in (b"", wire.MAGIC, wire.pack(b"x" * 100)[:50]) * 100:
            connection = stack.enter_context(socket.socket(socket.AF_UNIX))
            connection.connect(str(socket_of(node)))
            connection.sendall(part)
        yield


def test_what_requests_hold_of_the_engines_memory_has_a_bound(warm_node: Node) -> None:
    """One that would go beyond it is sent back to its caller, which handles it itself."""
    others_work(warm_node)
    with ExitStack() as stack:
        for _ in range(HELD_BYTES // wire.LIMIT):
            connection = stack.enter_context(socket.socket(socket.AF_UNIX))
            connection.connect(str(socket_of(warm_node)))
            connection.sendall(wire.MAGIC + (wire.LIMIT - wire.HEADER).to_bytes(4, "big") + b"x" * LARGE_BYTES)
        each = make_call("cni-v6", "VERSION", b" " * LARGE_BYTES)
        with stack.enter_context(socket.socket(socket.AF_UNIX)) as last:
            last.connect(str(socket_of(warm_node)))
            last.sendall(request(warm_node, each)[: 1 << 16])
            answer = last.recv(1 << 16)
            assert wire.unpack(answer[wire.HEADER :], 4)[0] == wire.HANDLE_LOCALLY
    others_work(warm_node)


@pytest.mark.parametrize("file", ["fifo", "/dev/zero", "large", "/var/lib/cni"])
def test_a_file_of_the_configuration_that_would_never_end(node: Node, file: str) -> None:
    """``node``: with an engine and without."""
    node.container("a")
    with endless_file(node, file) as path:
        for key in ("resolvConf", "secretFile"):
            with node.unchanged(ignore=r"attachments/\.seen|" + networks.TABLES):
                refused_for_its_file(node, "a", key, path)


@contextmanager
def endless_file(node: Node, name: str) -> Iterator[str]:
    """Such a file of the node, or one there that is no end to; its path."""
    path = name if name.startswith("/") else f"/var/lib/cni/{name}"
    if name == "fifo":
        os.mkfifo(node.file(path))
    elif name == "large":
        with node.file(path).open("wb") as made:
            made.truncate(1 << 35)
    yield path
    if name in ("fifo", "large"):
        node.file(path).unlink()


def refused_for_its_file(node: Node, name: str, key: str, path: str) -> None:
    more = {"allocation": "stable"} if key == "secretFile" else {}
    pod = Pod(node, networks.gateway(*networks.DUAL, ipam={key: path, **more}), name)
    message = pod.call("ADD").error(5)
    assert f"cannot read ipam.{key} {path}" in message and ("no plain file" in message or "longer" in message)
