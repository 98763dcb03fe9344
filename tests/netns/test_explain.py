"""``cni-v6ctl explain``: what it says is what happens, by packets; and what it says of addresses that nobody has."""

from __future__ import annotations

import fcntl
import json
import select
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Any

import pytest

from cni_v6.plan.reach import NEIGHBOURS, NETWORKS, NO, NODE, OUTSIDE, YES
from tests.netns import networks, nft, traffic, wire
from tests.netns.networks import DUAL, NODE_OUTSIDE, UPLINK, Pod
from tests.sandbox import Node

pytestmark = pytest.mark.xdist_group("explain")
PORT, HOST_PORT = 80, 8080
OTHER = ("fd00:7::/64", "10.67.0.0/24")
EXTERNAL = "2001:db8:e::/64"
SILENCE = 0.5  # seconds after which a call is taken for unanswered, once all that must be answered were
MAPPING = {"hostPort": HOST_PORT, "containerPort": PORT, "protocol": "tcp"}
PORTS = {"runtimeConfig": {"portMappings": [MAPPING]}}


@dataclass(frozen=True)
class Situation:
    """``keys`` of the configuration; ``spoil`` is run after the ADD, ``undo`` at the end: sh on the node, with HOST, A4
    and A6 of the container and its namespace NS. ``closed``: who reaches it over which family no more; ``stays``: the
    families whose packets to the outside do not leave. ``why``: words of the reason. ``ports``: published ones, each
    family counted.
    """

    keys: Mapping[str, Any] = field(default_factory=dict)
    spoil: str = ""
    undo: str = ""
    closed: Mapping[str, Sequence[int]] = field(default_factory=dict)
    stays: Sequence[int] = ()
    why: str = ""
    ports: int = 0


# Those that ``trace`` is run in, too: it takes a second each.
TRACED = ("masquerade", "egress", "no gateway", "host interface down", "another table", "no IPv4 forwarding",
          "unknown to the firewall", "fixed source", "prefix translation", "an egress list that allows it", "open",
          "no default route inside", "no IPv6 forwarding")
OPEN: Mapping[str, Any] = {"ingress": "open"}
BOTH = (4, 6)
DELEGATED: Mapping[str, Any] = {"args": {"cni": {"delegate": 80}}}
TAKE_ONE = "nsenter --net=$NS ip address add $IN/128 dev lo"
BEYOND = {NETWORKS: BOTH, OUTSIDE: BOTH}
NOBODY = {NEIGHBOURS: BOTH, NODE: BOTH, **BEYOND}
FRAMES, FRAMES6 = "sysctl -w net.bridge.bridge-nf-call-iptables=", "net.bridge.bridge-nf-call-ip6tables="
FOREIGN = (
    "nft add table inet other; nft 'add chain inet other f { type filter hook forward priority 0; policy drop; }'"
)
SITUATIONS = {
    "published": Situation(closed=BEYOND, why='ingress "published" closes it'),
    "published port": Situation(PORTS, closed=BEYOND, why='ingress "published" closes it', ports=2),
    "port published at one address": Situation(
        {"runtimeConfig": {"portMappings": [{**MAPPING, "hostIP": NODE_OUTSIDE[4]}]}}, closed=BEYOND, ports=1,
    ),
    "open": Situation(OPEN),
    "isolated": Situation({"ingress": "isolated"}, closed={NEIGHBOURS: BOTH, **BEYOND}, why='"isolated" closes it'),
    "port isolation": Situation({"portIsolation": True, **OPEN}, closed={NEIGHBOURS: BOTH}, why="is isolated"),
    "no firewall": Situation({"guard": False, **OPEN}),
    "masquerade": Situation({"ipMasq": True, **OPEN}),
    "fixed source": Situation({"ipMasq": True, "snat": {"ipv4": "192.0.2.1"}, **OPEN}),
    "prefix translation": Situation({"nptv6": {"internal": networks.SUBNET6, "external": EXTERNAL}, **OPEN}),
    "delegated prefix": Situation(DELEGATED, TAKE_ONE, closed=BEYOND),
    "open prefix": Situation({**DELEGATED, **OPEN}, TAKE_ONE),
    "egress": Situation({"egress": [{"to": "192.0.2.0/24"}], **OPEN}, stays=[6], why="egress list allows nothing"),
    "an egress list that allows it": Situation(
        {"egress": [{"to": f"{address}/{32 if family == 4 else 128}"} for family, address in networks.OUTSIDE.items()],
         **OPEN}),
    "no gateway": Situation(
        {"isDefaultGateway": False, "bridge": "cni9", **OPEN}, closed={NODE: BOTH, **BEYOND}, stays=BOTH,
        why="no default route",
    ),
    "bridge deleted": Situation(OPEN, "ip link delete cni0", closed=NOBODY, stays=BOTH, why="is in no bridge"),
    "bridge down": Situation(
        OPEN, "ip link set cni0 down", "ip link set cni0 up", NOBODY, BOTH, "bridge cni0 is down",
    ),
    "host interface down": Situation(OPEN, "ip link set $HOST down", closed=NOBODY, stays=BOTH, why="is down"),
    "inner interface down": Situation(
        OPEN, "nsenter --net=$NS ip link set eth0 down", closed=NOBODY, stays=BOTH, why="eth0 in the container",
    ),
    "address taken away": Situation(
        OPEN, "nsenter --net=$NS ip address delete $A4/24 dev eth0", why="does not have this address", stays=[4],
        closed={NEIGHBOURS: [4], NODE: [4], NETWORKS: [4], OUTSIDE: [4]},
    ),
    "tables flushed": Situation(spoil="nft flush ruleset", why="nothing closes it"),
    "another table": Situation(
        OPEN, f"{FRAMES}0 {FRAMES6}0; {FOREIGN}", f"nft delete table inet other; {FRAMES}1 {FRAMES6}1", BEYOND,
        BOTH, "chain f of table inet other",
    ),
    "another table, and br_netfilter": Situation(
        OPEN, f"{FRAMES}1 {FRAMES6}1; {FOREIGN}", "nft delete table inet other", {NEIGHBOURS: BOTH, **BEYOND}, BOTH,
        "chain f of table inet other",
    ),
    "no IPv4 forwarding": Situation(
        OPEN, "sysctl -w net.ipv4.ip_forward=0", "sysctl -w net.ipv4.ip_forward=1",
        {NETWORKS: [4], OUTSIDE: [4]}, [4], "IPv4 forwarding is off",
    ),
    "no IPv6 forwarding": Situation(
        OPEN, "sysctl -w net.ipv6.conf.cni0.force_forwarding=0", "sysctl -w net.ipv6.conf.cni0.force_forwarding=1",
        {NETWORKS: [6], OUTSIDE: [6]}, [6], "IPv6 forwarding is off",
    ),
    "unknown to the firewall": Situation(
        OPEN, "nft delete element inet cni_v6 home6 '{ '$A6' . \"cni0\" }'", why="host unreachable",
        closed={NEIGHBOURS: [6], NODE: [6], NETWORKS: [6], OUTSIDE: [6]}, stays=[6],
    ),
    "no default route inside": Situation(
        OPEN, "nsenter --net=$NS ip -6 route delete default", stays=[6], why="no route back",
        closed={NETWORKS: [6], OUTSIDE: [6]},
    ),
}


@pytest.fixture(scope="module")
def node() -> Iterator[Node]:
    """A node with a host beyond it, and a container of another network. No engine, which would repair things."""
    with closing(Node()) as made:
        beyond = networks.outside(made)
        made.run("ip", "route", "add", OTHER[1], "via", NODE_OUTSIDE[4], netns=beyond)
        for prefix in (OTHER[0], EXTERNAL):
            made.run("ip", "route", "add", prefix, "via", NODE_OUTSIDE[6], netns=beyond)
        for family in (4, 6):
            made.run("ip", f"-{family}", "route", "add", "default", "via", networks.OUTSIDE[family], "dev", UPLINK)
        Pod(made, networks.gateway(*OTHER, name="others", bridge="cni1", ingress="open"), "other").add()
        yield made


@contextmanager
def staged(node: Node, situation: Situation) -> Iterator[tuple[Pod, Pod]]:
    config = networks.gateway(*DUAL, **situation.keys)
    plain = {**config, "runtimeConfig": {}}
    pod, neighbour = Pod(node, config, "pod"), Pod(node, plain, "neighbour")
    pod.add()
    neighbour.add()
    prefixes = [inside(each) for each in explained(node, pod.name)["attachments"][0]["prefixes"]]
    variables = {"IN": "".join(prefixes), "HOST": pod.host, "A4": pod.address(4), "A6": pod.address(6), "NS": pod.netns}
    try:
        if situation.spoil:
            node.run("sh", "-ec", situation.spoil, env=variables)
        yield pod, neighbour
    finally:
        if situation.undo:
            node.run("sh", "-ec", situation.undo)
        for each in (pod, neighbour):
            each.delete()
            node.remove_container(each.name)
        nft.ctl(node, "reload")


def explained(node: Node, what: str, status: int = 0) -> Any:
    done = nft.ctl(node, "explain", what, "--json", "--conf-dir", "/nowhere", check=False)
    assert done.returncode == status and not done.stderr, done.stderr
    return json.loads(done.stdout)


def inside(target: str) -> str:
    """An address itself, or one of a delegated prefix."""
    return str(ip_address(target.replace("::/80", "::9")))


def connected(calls: Mapping[Any, socket.socket], wanted: Sequence[Any]) -> set[Any]:
    """Those of the calls that stand: all wanted ones are waited for, the others get a moment of silence."""
    stand: set[Any] = set()
    waiting = dict(calls)
    while waiting:
        patience = wire.PATIENCE if set(wanted) & waiting.keys() else SILENCE
        _, ready, _ = select.select([], waiting.values(), [], patience)
        if not ready:
            break
        for who in [who for who, call in waiting.items() if call in ready]:
            with suppress(OSError):  # one that failed has no peer
                waiting.pop(who).getpeername()
                stand.add(who)
    return stand


@pytest.mark.slow
@pytest.mark.parametrize("name", SITUATIONS)
def test_what_it_says_is_what_happens(node: Node, name: str) -> None:
    """Who reaches it, on its address and on its published ports; and where its own packets leave."""
    situation = SITUATIONS[name]
    with staged(node, situation) as (pod, neighbour), ExitStack() as stack:
        [said] = explained(node, pod.address(6))["attachments"]
        assert situation.why.replace('"', '\\"') in json.dumps(said)
        targets = {4: [pod.address(4)], 6: [pod.address(6), *said["prefixes"]]}
        assert {each["address"] for each in said["reachedFrom"]} == {*targets[4], *targets[6]}
        closed = {(who, target) for who, families in situation.closed.items() for family in families
                  for target in targets[family]}
        assert bool(said["prefixes"]) == ("args" in situation.keys)
        assert {(each["from"], each["address"]) for each in said["reachedFrom"] if each["may"] == NO} == closed
        assert len(said["publishedPorts"]) == situation.ports
        stack.enter_context(traffic.serving(pod.netns, PORT))
        calls, wanted = callers(node, said, neighbour, stack)
        assert connected(calls, wanted) == set(wanted)
        leaves(node, said, pod, situation)
        if name in TRACED:
            traced(node, said, pod, situation)
        for each in said["leaves"]:  # a fixed source is the node's, a translated one leads to the container
            if each["source"].startswith(EXTERNAL.removesuffix("::/64")):
                assert explained(node, each["source"])["attachments"][0]["containerID"] == pod.name


def traced(node: Node, said: Any, pod: Pod, situation: Situation) -> None:
    """``trace`` sees happen what ``explain`` says of a packet to the outside."""
    family = situation.stays[0] if situation.stays else 6
    [way] = [leaving for leaving in said["leaves"] if leaving["address"] == pod.address(family)]
    patience = ("--timeout", "1") if situation.stays else ()
    done = nft.ctl(node, "trace", pod.name, "--to", networks.OUTSIDE[family], "--json", *patience, check=False)
    seen = json.loads(done.stdout)
    assert (done.returncode == 0) == seen["arrived"] == (not situation.stays), seen
    assert (seen["predicted"]["may"], seen["predicted"]["why"]) == (way["may"], way["why"])
    if situation.stays:
        words = seen["why"]
        assert way["why"] in words or any(step["verdict"] == "drop" and step["why"] in words for step in seen["steps"])
    else:
        assert seen["seenAs"]["source"] in (way["source"], "")
        assert UPLINK in {step["out"] for step in seen["steps"]}


def callers(
    node: Node, said: Any, neighbour: Pod, stack: ExitStack
) -> tuple[dict[tuple[str, str], socket.socket], list[tuple[str, str]]]:
    """A call from each place to each address, and to each published port; and those that are to be answered."""
    places = {NEIGHBOURS: neighbour.netns, NODE: node.path, NETWORKS: node.containers["other"],
              OUTSIDE: node.containers["outside"]}
    calls, wanted = {}, []
    for each in said["reachedFrom"]:
        who = each["from"], each["address"]
        calls[who] = stack.enter_context(traffic.calling(places[each["from"]], inside(each["address"]), PORT))
        wanted += [who] * (each["may"] == YES)
    for port in said["publishedPorts"]:
        target = NODE_OUTSIDE[traffic.family_of(port["address"])]
        who = "port", port["address"]
        calls[who] = stack.enter_context(traffic.calling(places[OUTSIDE], target, port["hostPort"]))
        wanted += [who] * (not port["problem"])
    return calls, wanted


def leaves(node: Node, said: Any, pod: Pod, situation: Situation) -> None:
    ways = {traffic.family_of(each["address"]): each for each in said["leaves"] if "/" not in each["address"]}
    wanted = [family for family, way in ways.items() if way["may"] != NO]
    assert set(ways) - set(wanted) == set(situation.stays)
    with traffic.serving(node.containers["outside"], PORT) as servers, ExitStack() as stack:
        calls = {family: stack.enter_context(traffic.calling(pod.netns, networks.OUTSIDE[family], PORT))
                 for family in ways}
        assert connected(calls, wanted) == set(wanted)
        for family in wanted:
            with servers[family].accept()[0] as server:
                assert server.getpeername()[0] == ways[family]["source"]
            assert ways[family]["interface"] == UPLINK
        for each in (each for each in said["leaves"] if "/" in each["address"]):
            own = inside(each["address"])
            seen, _ = traffic.called(pod.netns, (networks.OUTSIDE[6], PORT), servers[6], source=own)
            assert (seen.address, each["source"], each["may"]) == (own, each["address"], YES)


# Who has it, and why nobody has it


CONFIG = networks.gateway(networks.SUBNET6, ipam={
    "ranges": [[{"subnet": networks.SUBNET6}],
               [{"subnet": networks.SUBNET4, "rangeStart": "10.66.0.2", "rangeEnd": "10.66.0.9"}]],
    "exclude": ["10.66.0.3"], "reserve": {"team/web": ["10.66.0.4"]},
})


@pytest.mark.slow
def test_who_has_it_and_why_nobody_has_it(quiet_node: Node, tmp_path: Any) -> None:
    node = quiet_node
    (tmp_path / "10-pods.conf").write_text(json.dumps(CONFIG))
    pod, gone = Pod(node, CONFIG, "0123456789ab" * 5), Pod(node, CONFIG, "gone")
    pod.add()
    gone.add()
    gone.delete()

    def said(what: str, status: int) -> str:
        done = nft.ctl(node, "explain", what, "--conf-dir", str(tmp_path), check=False)
        assert done.returncode == status, done
        assert max(map(len, done.stdout.splitlines()), default=0) <= 80
        return " ".join(done.stdout.split())

    with node.unchanged():
        mapped = f"::ffff:{pod.address(4)}"  # how a program with a socket for both families logs it
        for what in (pod.address(4), pod.address(6), "0123", pod.host, f"pods/{pod.name}/eth0", f"{pod.address(4)}/31",
                     mapped):
            assert f"container {pod.name} interface eth0, MAC {pod.mac} " in said(what, 0)
        assert f"cni0 (bridge, up, 1 port) with {networks.GATEWAY4}/24" in said("cni0", 0)
        assert "fd00:6::1/64 on cni0, the gateway of network pods" in said(networks.GATEWAY6, 0)
        assert "network pods why it is the gateway" not in said(networks.GATEWAY6, 0)
        assert "why it was released at" in said(gone.address(4), 1) and "waits until" in said(gone.address(4), 1)
        assert "why a container had it, and this set gives no address twice" in said(gone.address(6), 1)
        assert "why ipam.exclude, or the node's own" in said("10.66.0.3", 1)
        assert "why ipam.reserve keeps it for team/web gives it an ADD of team/web" in said("10.66.0.4", 1)
        assert "but outside its range from 10.66.0.2 to 10.66.0.9" in said("10.66.0.77", 1)
        assert "is the broadcast address of 10.66.0.0/24" in said("10.66.0.255", 1)
        assert "why it is free, and was not given yet" in said("::ffff:10.66.0.8", 1)
        assert "why no range has it: fd00:6::/64" in said("203.0.113.7", 1)
        assert "no container id begins so" in said("nosuch", 1)
        assert said("no\x1b[7msuch", 1).startswith("nobody has no?[7msuch ")  # pasted, perhaps from a hostile name
        assert "no range overlaps with it" in said("203.0.113.0/24", 1)
    other = Pod(node, CONFIG, "0123zz")
    other.add()
    done = nft.ctl(node, "explain", "0123", check=False)
    assert done.returncode == 1 and "2 container ids begin with 0123: write more of it" in done.stderr


def test_on_a_store_that_is_read_only_while_somebody_holds_its_lock(quiet_node: Node) -> None:
    """And in another data folder than the usual one, as podman's is."""
    node = quiet_node
    data_dir = f"/run/leases-{node.name}"
    run = {"CNI_V6_RUN_DIR": f"/run/rundir-{node.name}"}
    node.environment.update(run)
    config = networks.gateway(*DUAL, ipam={"dataDir": data_dir})
    pod = Pod(node, config, "a")
    pod.add()
    node.run("mount", "--bind", data_dir, data_dir)
    node.run("mount", "-o", "remount,bind,ro", data_dir)
    try:
        lock = node.file(f"{data_dir}/pods/lock")
        with open(lock, "rb") as held:
            fcntl.flock(held, fcntl.LOCK_EX)
            assert pod.host in nft.ctl(node, "list", pod.address(4)).stdout
            assert pod.host in nft.ctl(node, "list").stdout
            assert explained(node, pod.address(6))["attachments"][0]["dataDir"] == data_dir
    finally:
        node.run("umount", "--lazy", data_dir)
