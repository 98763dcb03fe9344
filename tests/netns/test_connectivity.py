"""``cni-v6ctl connectivity``: its lines are right where a network is, and where it is broken; it leaves nothing."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.netns import networks, nft, wire
from tests.netns.networks import BRIDGE, DUAL, NODE_OUTSIDE, OUTSIDE, ROUTED, SUBNET4, SUBNET6, UPLINK
from tests.processes import interruptible
from tests.sandbox import ROOT, Node

pytestmark = pytest.mark.xdist_group("connectivity")
GREEN, AMBER, RED = "green", "amber", "red"
FRAMES = "sysctl -w net.bridge.bridge-nf-call-iptables={0} net.bridge.bridge-nf-call-ip6tables={0}"
FOREIGN = (
    "nft add table inet other; nft 'add chain inet other f { type filter hook forward priority 0; policy drop; }'"
)
SMALL = (
    "nft add table inet small; nft 'add chain inet small f { type filter hook input priority 0; }'; "
    "nft add rule inet small f meta length '>' 1400 drop"
)
BOTH = ("IPv4", "IPv6")
EVERY = ("neighbour", "node", "outside", "beyond the node", "from outside", "port from the node", "port from outside",
         "port from itself", "spoofed source", "MTU")
OF_A_BRIDGE = (*EVERY, "gateway", "spoofed MAC")
OF_IPV6 = {f"IPv6 {check}" for check in (*OF_A_BRIDGE, "router advertisement")}


def of_both(*checks: str) -> set[str]:
    return {f"{family} {check}" for family in BOTH for check in checks}


@dataclass(frozen=True)
class Case:
    """``keys`` of the configuration; ``spoil`` and ``undo``: sh on the node. ``refused``: green, since it is not let
    through. ``red``, ``amber``: checks of these levels. ``there``: all checks, but for those that depend on nothing."""

    main: str = BRIDGE
    subnets: Sequence[str] = DUAL
    keys: Mapping[str, Any] = field(default_factory=dict)
    spoil: str = ""
    undo: str = ""
    refused: Sequence[str] = ()
    red: set[str] = field(default_factory=set)
    amber: set[str] = field(default_factory=set)
    there: set[str] = field(default_factory=lambda: of_both(*OF_A_BRIDGE) | {"IPv6 router advertisement"})


SPOOFED = ("spoofed source", "spoofed MAC", "router advertisement")
USUAL = ("from outside", *SPOOFED)
OF_ROUTED = of_both(*EVERY) | {"IPv6 gateway", "IPv6 router advertisement"}
SIX: Any = {"subnets": (SUBNET6,), "there": OF_IPV6}
EXTERNAL = "2001:db8:e::/64"
TRIAL6 = "2001:2:0:c6::2"  # the throwaway host beyond the node


def dropping(hook: str, rule: str, red: str, family: str = "inet") -> Case:
    """A table of somebody else that drops one thing, of a network with IPv6 alone; which is noticed as ``red``."""
    chain = f"nft 'add chain {family} other c {{ type filter hook {hook} priority 0; }}'"
    added = f"nft 'add rule {family} other c {rule} drop'"
    spoil = f"{FRAMES.format(0)}; nft add table {family} other; {chain}; {added}"
    undo = f"{FRAMES.format(1)}; nft delete table {family} other"
    return Case(spoil=spoil, undo=undo, refused=USUAL, red={f"IPv6 {red}"}, **SIX)


PING = "icmpv6 type echo-request"
CASES = {
    "a bridge": Case(refused=USUAL),
    "routed": Case(
        ROUTED, keys={"ipMasq": True}, refused=("from outside", "spoofed source", "router advertisement"),
        there=OF_ROUTED,
    ),
    "closed and limited": Case(
        keys={"ingress": "isolated", "egress": [{"to": "192.0.2.0/24"}], "dns": {"nameservers": [OUTSIDE[4]]}},
        refused=("neighbour", "IPv6 outside", "IPv6 node", "beyond the node", "gateway", "from outside", *SPOOFED),
        red={"IPv4 DNS"},
        there=of_both(*set(OF_A_BRIDGE) - {"port from itself", "MTU"}) | {"IPv6 router advertisement", "IPv4 DNS"},
    ),
    "open, not guarded": Case(
        keys={"ingress": "open", "guard": False}, refused=("router advertisement",),
        there=of_both(*set(OF_A_BRIDGE) - {"spoofed source", "spoofed MAC"}) | {"IPv6 router advertisement"},
    ),
    "masqueraded": Case(keys={"ipMasq": True}, refused=USUAL),
    "a fixed source": Case(
        keys={"ipMasq": True, "snat": {"ipv4": NODE_OUTSIDE[4]}}, subnets=(SUBNET4,), refused=USUAL,
        there={f"IPv4 {check}" for check in OF_A_BRIDGE},
    ),
    "prefix translation": Case(
        keys={"nptv6": {"internal": SUBNET6, "external": EXTERNAL}}, refused=USUAL, **SIX),
    "not masqueraded there": Case(
        keys={"ipMasq": True, "nonMasquerade": [f"{TRIAL6}/128"]}, refused=USUAL, **SIX),
    "isolated ports": Case(
        keys={"portIsolation": True}, subnets=(SUBNET6,), refused=("neighbour", *USUAL),
        there=OF_IPV6 - {"IPv6 port from itself"},
    ),
    "one port of one host": Case(
        keys={"egress": [{"to": f"{TRIAL6}/128", "ports": ["tcp/7"]}]},
        refused=("gateway", "node", "outside", *USUAL), **SIX,
    ),
    "routed and open": Case(
        ROUTED, keys={"ingress": "open"}, refused=("spoofed source", "router advertisement"), there=OF_ROUTED),
    "routed and isolated": Case(
        ROUTED, keys={"ingress": "isolated"}, there=OF_ROUTED - {"IPv4 MTU"},
        refused=("neighbour", "from outside", "spoofed source", "router advertisement"),
    ),
    "no pings to the node": dropping("input", f"ip6 daddr {NODE_OUTSIDE[6]} {PING}", "node"),
    "no pings to the gateway": dropping("input", f"ip6 daddr fd00:6::1 {PING} meta length < 1200", "gateway"),
    "no pings to neighbours": dropping("forward", PING, "neighbour", "bridge"),
    "no pings to the outside": dropping("forward", PING, "outside"),
    "no connections to the outside": dropping("forward", "oifname != cni0 tcp dport 7", "beyond the node"),
    "no connections from the outside": dropping("forward", "iifname != cni0 tcp dport 7", "port from outside"),
    "no connections of the node": dropping("output", "tcp dport 7", "port from the node"),
    "no way back to itself": dropping("forward", "iifname cni0 oifname cni0", "port from itself"),
    "another table translates": Case(
        spoil="nft add table ip6 other; nft 'add chain ip6 other c { type nat hook postrouting priority 0; }'; "
        f"nft add rule ip6 other c ip6 daddr {TRIAL6} masquerade", undo="nft delete table ip6 other",
        refused=USUAL, red={"IPv6 beyond the node"}, **SIX,
    ),
    "nobody answers for names": Case(
        keys={"dns": {"nameservers": [OUTSIDE[6]]}}, refused=USUAL, red={"IPv6 DNS"}, subnets=(SUBNET6,),
        there=OF_IPV6 | {"IPv6 DNS"},
    ),
    "another table drops": Case(
        spoil=f"{FRAMES.format(0)}; {FOREIGN}", undo=f"{FRAMES.format(1)}; nft delete table inet other",
        refused=USUAL, subnets=(SUBNET6,), there=OF_IPV6,
        red={"IPv6 outside", "IPv6 beyond the node", "IPv6 port from outside", "IPv6 port from itself"},
    ),
    "large packets are lost, and there is no default route": Case(
        spoil=f"{SMALL}; ip -6 route delete default dev {UPLINK}", refused=USUAL,
        undo=f"nft delete table inet small; ip -6 route add default via {OUTSIDE[6]} dev {UPLINK}",
        subnets=(SUBNET6,), there=OF_IPV6, red={"IPv6 MTU"}, amber={"IPv6 outside"},
    ),
}


@pytest.fixture(scope="module")
def node() -> Iterator[Node]:
    """A node with a host beyond it that is its router. No engine."""
    with closing(Node()) as made:
        beyond = networks.outside(made)
        made.run("ip", "route", "add", EXTERNAL, "via", NODE_OUTSIDE[6], netns=beyond)
        for family in (4, 6):
            made.run("ip", f"-{family}", "route", "add", "default", "via", OUTSIDE[family], "dev", UPLINK)
        yield made


def configured(folder: Path, keys: Mapping[str, Any], subnets: Sequence[str] = DUAL) -> dict[str, Any]:
    config = networks.gateway(*subnets, capabilities={"portMappings": True}, **keys)
    (folder / "10-pods.conf").write_text(json.dumps(config))
    return config


# What belongs to the network stays after its last container: what never comes twice, gateways of routed networks.
STAYS = r"cni_v6(?!.*elements)|route_localnet|/pods/|\blo\b|force_forwarding|fd00:6::/64|10\.66\.0\.0/24"


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_what_it_says_is_so(node: Node, tmp_path: Path, name: str) -> None:
    case = CASES[name]
    token = networks.main.set(case.main)
    try:
        networks.set_up(node, configured(tmp_path, case.keys, case.subnets))
    finally:
        networks.main.reset(token)
    if case.spoil:
        node.run("sh", "-ec", case.spoil)
    try:
        with node.unchanged(ignore=STAYS):
            patience = ("--timeout", "3") if case.red else ()  # what must not come is waited for
            command = "connectivity", "pods", "--conf-dir", str(tmp_path), "--json", *patience
            done = nft.ctl(node, *command, check=False)
    finally:
        if case.undo:
            node.run("sh", "-ec", case.undo)
    assert not done.stderr and networks.leases(node) == set()
    found = json.loads(done.stdout)
    levels = {line["check"]: line["level"] for line in found}
    assert set(levels) == case.there and len(levels) == len(found)
    wrong = {line["check"]: line for line in found if line["level"] == RED}
    assert set(wrong) == case.red, wrong
    assert {check for check, level in levels.items() if level == AMBER} == case.amber
    refused = {line["check"] for line in found if line["message"].startswith("refused: ")}
    assert refused == {check for check in levels if {check, check.partition(" ")[2]} & set(case.refused)}
    assert all(line["why"] and line["remedy"] for line in found if line["level"] != GREEN)
    assert done.returncode == (2 if case.red else 1 if case.amber else 0)


@contextmanager
def held(node: Node, folder: Path) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """The command, with both containers there, and held at its first line: the pipe that it prints to is full. And the
    other end of that pipe, behind the bytes that fill it."""
    reading, writing = os.pipe2(os.O_CLOEXEC)
    os.write(writing, bytes(fcntl.fcntl(writing, fcntl.F_GETPIPE_SZ)))
    before = len(networks.veths(node))
    argv = [*node._enter(node.path), str(ROOT / "bin/cni-v6ctl"), "connectivity", "pods", "--conf-dir", str(folder)]
    env = {**os.environ, **node.environment}
    with interruptible(), subprocess.Popen(argv, stdout=writing, stderr=subprocess.PIPE, env=env) as process:
        os.close(writing)
        try:  # the containers' links, and that of the host beyond
            wire.await_state(node.path, lambda: len(networks.veths(node)) == before + 3, "both containers")
            yield process, reading
        finally:
            process.kill()
            os.close(reading)


def printed(reading: int) -> str:
    """All that comes until the pipe is closed."""
    with open(reading, "rb", closefd=False) as file:
        return file.read().decode().lstrip("\0")


@pytest.mark.slow
def test_rules_of_ours_that_let_too_much_through(node: Node, tmp_path: Path) -> None:
    """They are put in while it runs: an ADD would load the tables anew."""
    networks.set_up(node, configured(tmp_path, {}, (SUBNET6,)))
    with held(node, tmp_path) as (process, reading):
        for chain in ("bridge cni_v6 bridge_guard", "inet cni_v6 published6"):
            node.run("sh", "-ec", f"nft insert rule {chain} accept")
        out = printed(reading)
        assert process.wait(60) == 2
    nft.ctl(node, "reload")
    red = [line.split(": ")[0].split(maxsplit=1)[1] for line in out.splitlines() if line.startswith(RED)]
    assert set(red) == {f"IPv6 {check}" for check in (*SPOOFED, "from outside")}


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_it_leaves_nothing_however_it_ends(node: Node, tmp_path: Path, number: signal.Signals) -> None:
    """After SIGKILL the addresses are held until gc, as of any container that ended without a DEL."""
    networks.set_up(node, configured(tmp_path, {}))
    before = networks.veths(node)
    with node.unchanged(ignore=STAYS):
        with held(node, tmp_path) as (process, reading):
            os.kill(process.pid, number)
            if number == signal.SIGKILL:
                process.wait(60)
            else:
                printed(reading)
                assert process.stderr and b"ended by SIGINT; the containers are gone" in process.stderr.read()
                assert process.wait(60) == 128 + number
        if number == signal.SIGKILL:
            wire.await_state(node.path, lambda: networks.veths(node) == before, "the end of the namespaces")
            assert networks.leases(node)
            nft.ctl(node, "gc", "--older-than", "0")
        assert networks.leases(node) == set() and networks.veths(node) == before


def test_a_network_that_is_not_there(node: Node, tmp_path: Path) -> None:
    configured(tmp_path, {})
    done = nft.ctl(node, "connectivity", "nosuch", "--conf-dir", str(tmp_path), check=False)
    assert done.returncode == 1 and "no network nosuch of cni-v6 or cni-v6-routed is" in done.stderr
    assert "there is pods" in done.stderr
