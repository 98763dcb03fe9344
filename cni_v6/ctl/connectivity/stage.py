"""The throwaway containers of ``connectivity``, and the host beyond the node: made, and always taken away again.

All of it is in namespaces without a name. If this process is killed, the kernel deletes the interfaces with them, and
``cni-v6ctl gc`` frees the addresses, as of any container that ended without a DEL.
"""

from __future__ import annotations

import json
import os
import socket
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any

from cni_v6.attachments.context import Context
from cni_v6.engine.handle import handle
from cni_v6.errors import CniError
from cni_v6.kernel import awaits, ops
from cni_v6.kernel.netns.throwaway import Throwaway
from cni_v6.kernel.ops import HOST, Op
from cni_v6.kernel.questions import GetSurroundings, GetSysctl
from cni_v6.net.addresses import overlap, version
from cni_v6.plan import forwarding
from cni_v6.plan.promises import SERVICE
from cni_v6.protocol.invocation import Request
from cni_v6.protocol.result import Result, from_json

IFNAME, VERSION = "eth0", "1.1.0"
# Networks for tests of equipment (RFC 2544, RFC 5180), the node's address first.
TRIAL = {4: ("198.18.198.1", "198.18.198.2", 30), 6: ("2001:2:0:c6::1", "2001:2:0:c6::2", 64)}
SHORT = 8
DEFAULT = {4: "0.0.0.0/0", 6: "::/0"}
FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}


@dataclass(frozen=True, slots=True)
class Container:
    """An attached container."""

    place: Throwaway
    result: Result

    def address(self, family: int) -> str:
        """Its address of a family, "" for none."""
        return next((ip.ip for ip in self.result.ips if ip.family == family), "")

    @property
    def mac(self) -> str:
        return next(interface.mac for interface in self.result.interfaces if interface.sandbox)

    @property
    def host(self) -> str:
        """Its host interface: the one before its own."""
        inside = next(number for number, interface in enumerate(self.result.interfaces) if interface.sandbox)
        return self.result.interfaces[inside - 1].name


@dataclass(frozen=True, slots=True)
class Beyond:
    """A host beyond the node. ``families``: of which it has an address."""

    place: Throwaway
    families: tuple[int, ...]


def parameters(config: Mapping[str, Any], port: int) -> dict[str, Any]:
    """The configuration as a runtime sends it: with the published port, where the list declares that capability."""
    runtime = {"portMappings": [{"hostPort": port, "containerPort": SERVICE, "protocol": "tcp"}]} if port else {}
    return {**config, "cniVersion": VERSION, "runtimeConfig": runtime}


def free_port() -> int:
    """A TCP port of the node that no socket uses; a published port is not a socket."""
    with socket.socket(socket.AF_INET6 if socket.has_ipv6 else socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.bind(("", 0))
        return int(probe.getsockname()[1])


@contextmanager
def attached(config: Mapping[str, Any], number: int, path: Sequence[str]) -> Iterator[Container]:
    """A container of the network: ADD, and DEL whatever happens.

    :param config: see ``parameters``.
    :param path: CNI_PATH, for IPAM plugins of others.
    :raises CniError: of the ADD, or of the DEL.
    """
    with Throwaway() as place:
        environment = {
            "CNI_CONTAINERID": f"connectivity-{os.getpid()}-{number}", "CNI_NETNS": place.path, "CNI_IFNAME": IFNAME,
            "CNI_PATH": os.pathsep.join(path),
        }
        _call("loopback", "ADD", {"cniVersion": VERSION, "name": "lo", "type": "loopback"}, environment)
        try:
            answer = _call(str(config["type"]), "ADD", config, environment)
            yield Container(place, from_json(answer, VERSION))
        finally:
            _call(str(config["type"]), "DEL", config, environment)


def _call(plugin: str, command: str, config: Mapping[str, Any], environment: Mapping[str, str]) -> Any:
    request = Request(plugin, {**environment, "CNI_COMMAND": command}, json.dumps(config).encode())
    reply = handle(request)
    if reply.code:
        error = json.loads(reply.stdout)
        raise CniError(error["code"], f"{command} of a throwaway container: {error['msg']}", error.get("details", ""))
    return json.loads(reply.stdout) if reply.stdout else None


@contextmanager
def beyond(node: Context) -> Iterator[Beyond]:
    """A host on a link of its own to the node, which is its default gateway, as the node is a container's."""
    seen = node.kernel.observe([GetSurroundings(), GetSysctl(HOST, forwarding.SUPPORTED)])
    known = seen.surroundings()
    taken = [*(text for _, text in known.addresses), *(route.dst for _, route in known.routes)]
    there = tuple(filter(_has_family, TRIAL))
    families = tuple(family for family in there if not _is_taken(family, taken))
    for family in set(there) - set(families):
        words = f"the node uses {_prefix(family)} itself, so there is no throwaway host beyond it with IPv{family}"
        print(f"cni-v6ctl: note: {words}", file=sys.stderr)
    name = f"veth{os.urandom(5).hex()}"
    with Throwaway() as place:
        try:
            node.kernel.apply(_link(place, name, families, forces=seen.sysctl(HOST, forwarding.SUPPORTED) is not None))
            yield Beyond(place, families)
        finally:
            node.kernel.remove([ops.DeleteLink(HOST, name)])


def _link(place: Throwaway, name: str, families: Sequence[int], *, forces: bool) -> Iterator[Op]:
    macs = [f"02{os.urandom(5).hex()}" for _ in range(2)]
    here, there = (":".join(mac[at:at + 2] for at in range(0, 12, 2)) for mac in macs)
    yield ops.CreateVeth(name, here, "", place.path, IFNAME, there, 0)
    if 6 in families:
        yield ops.SetSysctl(HOST, f"ipv6/conf/{name}/accept_ra", "0")
        if forces:
            yield ops.SetSysctl(HOST, f"ipv6/conf/{name}/force_forwarding", "1")
    yield ops.SetLink(place.path, IFNAME, up=True)
    for family in families:
        node, host, length = TRIAL[family]
        yield ops.AddAddress(HOST, name, f"{node}/{length}")
        yield ops.AddAddress(place.path, IFNAME, f"{host}/{length}")
        # Nothing is resolved: the node would not ask before its own link-local address is known to be unique, which
        # takes seconds (ndisc_send_ns, net/ipv6/ndisc.c).
        yield ops.SetNeighbour(HOST, name, host, there)
        yield ops.SetNeighbour(place.path, IFNAME, node, here)
        yield ops.AddRoute(place.path, IFNAME, DEFAULT[family], node)
    yield awaits.AwaitCarrier(name)


def _prefix(family: int) -> str:
    return f"{TRIAL[family][0]}/{TRIAL[family][2]}"


def _is_taken(family: int, prefixes: Sequence[str]) -> bool:
    """Whether the node has something there. A shorter prefix is the way to all that is outside, not a network."""
    return any(version(text) == family and int(text.rpartition("/")[2]) >= SHORT and overlap(text, _prefix(family))
               for text in prefixes)


def _has_family(family: int) -> bool:
    """Whether the node speaks it: IPv6 may be switched off."""
    try:
        with closing(socket.socket(FAMILIES[family], socket.SOCK_DGRAM)) as probe:
            probe.bind(("127.0.0.1" if family == 4 else "::1", 0))
    except OSError:
        return family == 4
    return True
