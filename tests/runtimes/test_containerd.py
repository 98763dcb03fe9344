"""containerd runs real containers on a network of ours, as ``ctr run --cni`` and nerdctl do."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import takewhile

import pytest

from . import networks
from .containerd import COMMANDS, IMAGE, Containerd, containerd
from .images import PAUSE
from .node import SETTLE, node

pytestmark = [pytest.mark.runtimes, pytest.mark.xdist_group("containerd")]

NETWORK = "ctr"


@pytest.fixture(scope="module")
def runtime(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Containerd]:
    networks.need_commands(*COMMANDS)
    with node() as machine:
        networks.install(machine)
        machine.path("/etc/cni/net.d/10-ctr.conflist").write_text(networks.conflist(NETWORK, "1.0.0"))
        with containerd(machine, tmp_path_factory.mktemp("containerd")) as started:
            yield started


@contextmanager
def container(runtime: Containerd, name: str) -> Iterator[dict[str, str]]:
    """A running container; gives its addresses, family -> address. At the end it is killed and gone.

    ``ctr`` stays in the foreground as containerd 1.6 needs it to: only then does it call DEL. It does so without a
    namespace: by then the container, hence its namespace, is gone. The container's first lines say that ADD is done.
    """
    show = f"ip -o address show dev eth0 scope global; echo ready; {PAUSE[-1]}"
    options = ("--rm", "--cni", "--snapshotter", "native")
    command = ("run", *options, IMAGE, name, "/bin/sh", "-c", show)
    with subprocess.Popen(runtime.ctr_argv(*command), stdout=subprocess.PIPE, text=True) as ctr:
        assert ctr.stdout
        lines = list(takewhile("ready\n".__ne__, ctr.stdout))
        assert lines, f"ctr run ended before its container said anything: exit {ctr.wait(timeout=SETTLE)}"
        try:
            yield {words[2]: words[3].partition("/")[0] for words in map(str.split, lines)}
        finally:
            runtime.ctr("task", "kill", "--signal", "KILL", name)
            ctr.wait(timeout=SETTLE)


def ping(runtime: Containerd, name: str, address: str) -> None:
    runtime.ctr("task", "exec", "--exec-id", "ping", name, "ping", "-c", "1", "-W", "5", address)


def leases(runtime: Containerd) -> set[str]:
    return networks.leases(runtime.node.path(networks.STORE), NETWORK)


def test_two_containers_ping_each_other_and_leave_nothing(runtime: Containerd) -> None:
    before = runtime.node.state()
    with container(runtime, "one") as one, container(runtime, "two") as two:
        assert one.keys() == two.keys() == {"inet", "inet6"}
        assert leases(runtime) == {*one.values(), *two.values()}
        for family in one:
            ping(runtime, "one", two[family])
            ping(runtime, "two", one[family])
    assert leases(runtime) == set()
    assert runtime.ctr("container", "list", "--quiet") == ""
    assert runtime.node.left_behind(before) == []
