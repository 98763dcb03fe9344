"""What a container with CAP_NET_ADMIN can do to the node itself, and what takes it away: facts of the kernel on which
docs/security.md stands, and none of ours.

An interface tells a number for the namespace of its other end (IFLA_LINK_NETNSID, rtnl_fill_link_netnsid in
net/core/rtnetlink.c): so the container's has one for the node. A request with that number as its target
(IFLA_TARGET_NETNSID) is done there, if whoever asks has CAP_NET_ADMIN over the user namespace of the node
(rtnl_get_net_ns_capable). Root of a container without a user namespace of its own has.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.netns import networks
from tests.netns.networks import DUAL, Pod
from tests.sandbox import Node

NETWORK = networks.gateway(*DUAL)

# The container's own program: what it is given to do in the namespace of its interface's other end, and the answer.
ATTACK = """
import errno
import socket
import struct
import sys
from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

RTM_DELLINK, RTM_GETLINK, NLM_F_REQUEST_AND_ACK, NLMSG_ERROR, IFLA_TARGET_NETNSID = 17, 18, 5, 2, 46
what, index = sys.argv[1], int(sys.argv[2])

with IPRoute() as kernel:
    [own] = kernel.get_links(kernel.link_lookup(ifname="eth0")[0])
    node = own.get_attr("IFLA_LINK_NETNSID")
    if what == "wire":
        try:
            kernel.link("add", ifname="wire", kind="macvlan", link=index, link_netnsid=node)
        except NetlinkError as error:
            sys.exit(errno.errorcode[error.code])
        sys.exit()

body = struct.pack("=BxHiII", 0, 0, index, 0, 0) + struct.pack("=HHi", 8, IFLA_TARGET_NETNSID, node)
kind = RTM_GETLINK if what == "look" else RTM_DELLINK
with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as raw:
    raw.send(struct.pack("=IHHII", 16 + len(body), kind, NLM_F_REQUEST_AND_ACK, 1, 0) + body)
    answer = raw.recv(65536)
failed = struct.unpack_from("=xxxxH10xi", answer)
if failed[0] == NLMSG_ERROR and failed[1]:
    sys.exit(errno.errorcode[-failed[1]])
print("seen" if what == "look" and sys.argv[3].encode() + bytes(1) in answer else "done")
"""

WITHOUT = ("setpriv", "--bounding-set=-net_admin", "--inh-caps=-net_admin", "--")


@pytest.fixture
def node(quiet_node: Node) -> Node:
    """Without an engine, which would bring a bridge back at once (tests/netns/test_watch.py)."""
    return quiet_node


def attack(pod: Pod, what: str, ifname: str, *being: str) -> str:
    """Let the container try something with an interface of the node; returns what its program says, or the error's
    name.

    :param being: a command under which the program runs.
    """
    index = str(networks.link(pod.node, ifname)["ifindex"])
    argv = (*being, sys.executable, "-c", ATTACK, what, index, ifname)
    done = pod.node.run(*argv, netns=pod.netns, check=False)
    assert "Traceback" not in done.stderr, done.stderr
    return (done.stdout + done.stderr).strip()


def interfaces(node: Node) -> set[str]:
    return {link["ifname"] for link in node.ip_json("link", "show")}


@pytest.mark.parametrize("ifname", ["cni0", networks.UPLINK])
def test_it_sees_and_deletes_what_the_node_has(node: Node, ifname: str) -> None:
    networks.uplink(node)
    [pod] = networks.pods(node, NETWORK, "a")
    assert attack(pod, "look", ifname) == "seen"
    assert attack(pod, "delete", ifname) == "done"
    assert ifname not in interfaces(node)


def test_it_makes_itself_an_interface_on_the_nodes_wire(node: Node) -> None:
    """No frame of that one passes our rules, and no ADD or CHECK of ours knows of it."""
    beyond = networks.outside(node)
    [pod] = networks.pods(node, NETWORK, "a")
    assert attack(pod, "wire", networks.UPLINK) == ""
    node.run("ip", "address", "add", "192.0.2.77/24", "dev", "wire", netns=pod.netns)
    node.run("ip", "link", "set", "wire", "up", netns=pod.netns)
    done = node.run("ping", "-c1", "-W10", "-n", "-I", "wire", networks.OUTSIDE[4], netns=pod.netns, check=False)
    assert done.returncode == 0, done.stdout
    neighbours = {entry["dst"]: entry for entry in node.ip_json("neighbour", "show", netns=beyond)}
    assert neighbours["192.0.2.77"]["lladdr"] == networks.link(node, "wire", pod.netns)["address"]


def is_refused(pod: Pod, *being: str) -> None:
    with pod.node.unchanged():
        tried = {what: attack(pod, what, networks.UPLINK, *being) for what in ("look", "delete", "wire")}
    assert set(tried.values()) <= {"EACCES", "EPERM"}, tried


def test_without_the_capability_it_can_do_nothing_of_that(node: Node) -> None:
    networks.uplink(node)
    [pod] = networks.pods(node, NETWORK, "a")
    is_refused(pod, *WITHOUT)


@contextmanager
def container_with_users_of_its_own() -> Iterator[int]:
    """A process that is root, with all capabilities, of a user namespace and of a network namespace of that."""
    command = ("unshare", "--user", "--map-root-user", "--net", "sh", "-c", "echo ready; read -r line")
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout and process.stdout.readline() == b"ready\n"
        yield process.pid  # leaving closes its input, with which it ends


def test_in_a_user_namespace_its_own_interfaces_are_all_it_has(node: Node) -> None:
    networks.uplink(node)
    pod = Pod(node, NETWORK, "a")
    with container_with_users_of_its_own() as pid:
        pod.netns = f"/proc/{pid}/ns/net"
        pod.add()
        being = ("nsenter", f"--user=/proc/{pid}/ns/user", "--preserve-credentials", "--")
        node.run(*being, "ip", "link", "add", "mine", "type", "veth", netns=pod.netns)
        assert pod.ping(networks.GATEWAY6)
        is_refused(pod, *being)
