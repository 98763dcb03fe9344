"""The units of the Debian package under systemd as process 1: what they start, what they forbid, what they leave.

On the running kernel, in namespaces (``boot.py``): Debian's user-mode kernel has no module for NAT in nftables.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.bare.root import Root, bare
from tests.bare.test_bare import attach, call
from tests.pages import Block, blocks
from tests.sandbox import ROOT

pytestmark = [pytest.mark.timeout(900), pytest.mark.xdist_group("bare trixie")]

PACKAGE, LOCK, CONSOLE, UP = "/tmp/cni-v6.deb", "/var/tmp/running", "/var/tmp/console", "/var/tmp/up"
ENGINE = "cni-v6.service"
RIGHTS = {"net_admin": 12, "net_raw": 13, "sys_admin": 21, "sys_chroot": 18, "sys_ptrace": 19, "dac_read_search": 2,
          "dac_override": 1}  # capability.h
BRIDGE: dict[str, Any] = {
    "cniVersion": "1.1.0", "name": "bridged", "type": "cni-v6", "isDefaultGateway": True, "ipMasq": True,
    "ipam": {"type": "cni-v6-ipam", "ranges": [[{"subnet": "fd00:1::/64"}], [{"subnet": "10.1.0.0/24"}]]},
}
ROUTED: dict[str, Any] = {
    "cniVersion": "1.1.0", "name": "routed", "type": "cni-v6-routed", "ipMasq": True,
    "ipam": {"type": "cni-v6-ipam", "ranges": [[{"subnet": "fd00:2::/64"}], [{"subnet": "10.2.0.0/24"}]]},
}
# A connection from a container to a published port, over each family.
CONNECT = """
import os, socket
def enter(name):
    os.setns(os.open(f"/run/netns/{name}", os.O_RDONLY), os.CLONE_NEWNET)
enter("SERVER")
listener = socket.create_server(("::", 80), family=socket.AF_INET6, dualstack_ipv6=True)
enter("CLIENT")
for address in ADDRESSES:
    with socket.create_connection((address, 8080), 10) as client:
        listener.accept()[0].sendall(b"served")
        print(client.recv(9).decode())
"""


class Machine(Root):
    """A root whose systemd runs: ``run`` and ``own`` are in it."""

    def __init__(self, root: Root) -> None:
        self._root = root
        self.boot()

    def boot(self) -> None:
        """Start systemd, and wait until it is up."""
        self._root.run(f"rm -f {UP} && mkfifo {UP}")
        boot = f"python3 tests/bare/boot.py {LOCK} >{UP} 2>{CONSOLE} &"
        self._pid = self._root.run(f"{boot}\ntimeout 120 head --lines 1 {UP} | grep . || {{ cat {CONSOLE}; exit 1; }}")
        self.run("mkdir /run/netns")

    def crash(self) -> None:
        """As if the power failed: nothing is told, nothing is stopped."""
        self._root.run(f"kill -KILL {self._pid.strip()} 2>/dev/null || true; flock {LOCK} true")

    def run(self, command: str) -> str:
        return self._root.run(f"nsenter --target {self._pid.strip()} --all sh -euc {shlex.quote(command)}")

    own = run

    def container(self, name: str) -> str:
        path = f"/run/netns/{name}"
        self.run(f"touch {path} && unshare --net={path} true")
        return path

    def call(self, command: str, config: dict[str, Any], name: str, result: Any = None) -> Any:
        said = call(self, command, config, config, f"/run/netns/{name}", result, name)
        return json.loads(said) if said else None

    def add(self, config: dict[str, Any], name: str) -> Any:
        self.container(name)
        return self.call("ADD", config, name)

    def state(self, unit: str) -> str:
        return self.run(f"systemctl is-active {unit} || true").strip()

    def attached(self) -> list[str]:
        return [json.loads(line)["containerID"] for line in self.run("cni-v6ctl list --json").splitlines()]

    def log(self) -> list[dict[str, Any]]:
        """What the engine has said to the journal, to its end: a line may come after the answer to its call."""
        self.run(f"systemctl stop {ENGINE} && journalctl --sync")
        return [json.loads(line) for line in self.run(f"journalctl --boot --unit {ENGINE} --output cat").splitlines()
                if line.startswith("{")]


@pytest.fixture(scope="module")
def root(package: Path) -> Iterator[Root]:
    with bare("trixie") as made:
        cgroups = "mount -t cgroup2 none /mnt && mkdir /mnt/cni-v6-bare-$$ && rmdir /mnt/cni-v6-bare-$$"
        if made.run(f"unshare --mount sh -ec '{cgroups}' && echo they are there || true") != "they are there\n":
            pytest.skip("this machine gives nobody control groups of version 2, without which systemd does not start")
        made.bring(package, PACKAGE)
        made.run("tools/packages systemd nftables iproute2")
        yield made


@pytest.fixture
def machine(root: Root) -> Iterator[Machine]:
    """The package, installed, without any network, and systemd, as just booted."""
    root.run(f"rm -rf /var/lib/cni /etc/cni\ndpkg --status cni-v6 >/dev/null 2>&1 || dpkg --install {PACKAGE}")
    made = Machine(root)
    try:
        yield made
    finally:
        made.crash()


def published(config: dict[str, Any], port: int) -> dict[str, Any]:
    mapping = {"hostPort": port, "containerPort": 80, "protocol": "tcp"}
    return {**config, "runtimeConfig": {"portMappings": [mapping]}}


@pytest.mark.parametrize("config", [BRIDGE, ROUTED], ids=lambda config: str(config["name"]))
def test_the_first_call_starts_the_engine_which_can_do_what_it_must(machine: Machine, config: dict[str, Any]) -> None:
    """Every command, with masquerade and a published port, by an engine with the rights of its unit and no others."""
    assert machine.run("systemctl list-units --failed --plain --no-legend 'cni-v6*'") == ""
    assert [machine.state(unit) for unit in ("cni-v6.socket", ENGINE)] == ["active", "inactive"]
    server = published(config, 8080)
    result = machine.add(server, "one")
    assert machine.state(ENGINE) == "active"
    machine.add(config, "two")
    assert machine.call("CHECK", server, "one", result) is None
    assert machine.call("STATUS", config, "one") is None
    machine.run("ip address add 192.0.2.1 dev lo && ip address add 2001:db8::1 dev lo")
    connect = CONNECT.replace("SERVER", "one").replace("CLIENT", "two")
    connect = connect.replace("ADDRESSES", repr(("192.0.2.1", "2001:db8::1")))
    assert machine.run(f"python3 -c {shlex.quote(connect)}") == "served\nserved\n"

    pid = machine.run(f"systemctl show --property MainPID --value {ENGINE}").strip()
    status = dict(line.split(":\t") for line in machine.run(f"cat /proc/{pid}/status").splitlines() if ":\t" in line)
    assert int(status["CapBnd"], 16) == int(status["CapEff"], 16) == sum(1 << right for right in RIGHTS.values())
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")

    valid = [{"containerID": "one", "ifname": "eth0"}]
    machine.call("GC", {**config, "cni.dev/valid-attachments": valid}, "one")
    assert machine.attached() == ["one"]
    machine.call("DEL", server, "one")
    log = machine.log()
    assert [(said["command"], said["container"]) for said in log if "command" in said] == [
        ("ADD", "one"), ("ADD", "two"), ("CHECK", "one"), ("GC", "one"), ("DEL", "one"),
    ]
    assert {said["pid"] for said in log} == {int(pid)} and not [said for said in log if "error" in said]
    assert [json.loads(line) for line in machine.run("cni-v6ctl log --json").splitlines()] == log


def test_the_exposure_is_what_the_page_says(machine: Machine) -> None:
    """As systemd rates what the units leave to their processes: from 0 (nothing) to 10 (all)."""
    [block] = [block for block in blocks(ROOT / "docs/runtimes.md") if "test_systemd.py" in block.mark]
    steps = list(Block("run", block.kind, block.text).steps())
    assert len(steps) == len(list(ROOT.glob("conf/systemd/*.service")))
    assert "".join(step.difference(machine.run(step.command)) for step in steps) == ""


def test_a_restart_loses_nothing(machine: Machine) -> None:
    """Calls that come meanwhile succeed; what is attached stays so, with and without the service."""
    result = machine.add(BRIDGE, "first")
    names = [f"c{number}" for number in range(12)]
    for name in names:
        machine.container(name)
    config = shlex.quote(json.dumps(BRIDGE))
    variables = "CNI_COMMAND=ADD CNI_CONTAINERID=$name CNI_NETNS=/run/netns/$name CNI_IFNAME=eth0 CNI_PATH=/usr/lib/cni"
    adds = f"for name in {' '.join(names)}; do echo {config} | {variables} /usr/lib/cni/cni-v6 || exit 1; done"
    machine.run(f"({adds}) >/tmp/said 2>&1 & calls=$!\n"
                f"systemctl restart {ENGINE}; systemctl restart {ENGINE}\n"
                "wait $calls || { cat /tmp/said; exit 1; }")
    assert machine.run("cni-v6ctl check") == "nothing differs on 1 network\n"
    assert sorted(machine.attached()) == sorted([*names, "first"])
    machine.run(f"systemctl stop {ENGINE}")
    assert [machine.state(unit) for unit in ("cni-v6.socket", ENGINE)] == ["active", "inactive"]
    assert machine.call("CHECK", BRIDGE, "first", result) is None
    assert machine.state(ENGINE) == "active"
    machine.run(f"systemctl stop cni-v6.socket {ENGINE}")
    for name in ("first", *names):
        machine.call("DEL", BRIDGE, name)
    assert machine.attached() == []


def test_a_boot_frees_what_a_crash_has_left(machine: Machine) -> None:
    addresses = [ip["address"].partition("/")[0] for ip in machine.add(BRIDGE, "one")["ips"]]
    machine.crash()
    machine.boot()
    assert machine.run("systemctl show --property Result --value cni-v6-gc.service") == "success\n"
    machine.run("journalctl --sync")
    said = machine.run("journalctl --boot --unit cni-v6-gc.service --output cat").splitlines()
    assert f"freed bridged  one  eth0  {' '.join(addresses)}  (it is of an earlier boot)" in said
    assert machine.run("ls /var/lib/cni/networks/bridged/attachments") == ""
    machine.add(BRIDGE, "one")
    assert machine.run("cni-v6ctl check") == "nothing differs on 1 network\n"


def test_the_agent_says_when_it_is_ready(machine: Machine) -> None:
    """Its unit is started when there is a configuration, with which a container is attached."""
    machine.run("mkdir -p /etc/cni/cluster /etc/cni/net.d && cp /usr/share/cni-v6/cluster/*.* /etc/cni/cluster/")
    machine.run("ip link add eth0 type veth peer name wire && ip link set wire up && ip link set eth0 up\n"
                "ip address add 2001:db8::1/64 dev eth0 nodad && ip route add default via 2001:db8::2\n"
                "echo CNI_V6_CLUSTER=file:/var/lib/store.json >/etc/default/cni-v6-agent")
    machine.run("systemctl start cni-v6-clusters.service || { journalctl --unit cni-v6-clusters; exit 1; }")
    machine.run("systemctl start cni-v6-agent.service || { journalctl --unit cni-v6-agent; exit 1; }")
    assert machine.state("cni-v6-agent.service") == "active"
    attach(machine, json.loads(machine.run("cat /etc/cni/net.d/10-cni-v6.conflist")))
    machine.run("systemctl stop cni-v6-agent.service")
    assert machine.run("systemctl show --property Result --value cni-v6-agent.service") == "success\n"


def test_removal_leaves_nothing(machine: Machine) -> None:
    machine.add(BRIDGE, "one")
    machine.call("DEL", BRIDGE, "one")
    machine.run("dpkg --purge cni-v6")
    assert machine.run("systemctl list-units --all --plain --no-legend 'cni-v6*'") == ""
    assert machine.run("systemctl list-unit-files --no-legend 'cni-v6*' || true") == ""
    assert machine.run("nft list tables") == ""
    assert machine.run("cat /proc/[0-9]*/comm | grep cni || true") == ""
    assert machine.run("ls -d /run/cni-v6 2>/dev/null || true") == ""
