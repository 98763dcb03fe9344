"""Reads what ``plan.health.kernel`` judges. What the kernel can do is tried in a namespace that ends with the trial."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterable, Mapping
from contextlib import closing
from functools import partial
from threading import Thread

from cni_v6.attachments.context import Context
from cni_v6.errors import CniError
from cni_v6.firewall.sets import TABLE
from cni_v6.kernel.netfilter.listing import GETCHAIN, NFTA_CHAIN_NAME, NFTA_CHAIN_TABLE, attributes, requests
from cni_v6.kernel.netfilter.messages import NFGENMSG
from cni_v6.kernel.netfilter.socket import open_netfilter
from cni_v6.kernel.netlink.message import Message, as_text
from cni_v6.kernel.netns.enter import CLONE_NEWNET, libc
from cni_v6.kernel.ops import HOST
from cni_v6.kernel.questions import GetLinks, GetSurroundings, GetSysctl, GetUplinks
from cni_v6.plan.bridge_port import FRAMES
from cni_v6.plan.health.kernel import CONNTRACK, CONNTRACK_MAX, THRESHOLD, KernelFacts

RTPROT_RA = 9  # linux/rtnetlink.h


def read(node: Context, homes: Iterable[str], children: Iterable[str]) -> KernelFacts:
    """The facts of the kernel and its network.

    :param homes: gateway interfaces of the configured networks.
    :param children: the kinds of their containers' interfaces that have a master.
    """
    seen = node.kernel.observe([GetLinks(), GetUplinks(), GetSurroundings()])
    names = {"all", *homes, *(uplink.ifname for uplink in seen.uplinks()),
             *(link.name for link in seen.links() if link.kind == "bridge")}
    keys = [CONNTRACK, CONNTRACK_MAX, *THRESHOLD.values(), *FRAMES.values()]
    for name in sorted(names):
        keys += [f"ipv4/conf/{name}/rp_filter", f"ipv6/conf/{name}/forwarding", f"ipv6/conf/{name}/accept_ra"]
    sysctls = node.kernel.observe([GetSysctl(HOST, key) for key in keys])
    return KernelFacts(
        _features(children), {key: sysctls.sysctl(HOST, key) for key in keys}, seen.uplinks(), _learnt(),
        seen.surroundings().addresses, seen.links(), _chains(), node.boot, node.now(),
    )


def _features(children: Iterable[str]) -> Mapping[str, str]:
    """What an ADD asks of the kernel, tried by a thread in a network namespace of its own, which ends with it."""
    found: dict[str, str] = {}

    def work() -> None:
        if libc().unshare(CLONE_NEWNET) != 0:
            found.update(dict.fromkeys(("bridge", "veth", "nf_tables"), "no network namespace can be made"))
            return
        found.update({"bridge": _tried(_bridge), "veth": _tried(_veth), "nf_tables": _tried(_nf_tables)})
        if not found["veth"]:
            found.update({kind: _tried(partial(_child, kind)) for kind in children})

    thread = Thread(target=work)
    thread.start()
    thread.join()
    return found


def _tried(work: Callable[[], None]) -> str:
    from pyroute2.netlink.exceptions import NetlinkError

    try:
        work()
    except NetlinkError as error:
        return os.strerror(error.code)
    except (OSError, CniError) as error:
        return str(error)
    return ""


def _bridge() -> None:
    from pyroute2 import IPRoute

    with IPRoute() as route:
        route.link("add", ifname="br0", kind="bridge")


def _veth() -> None:
    from pyroute2 import IPRoute

    with IPRoute() as route:
        route.link("add", ifname="veth0", kind="veth", peer={"ifname": "veth1"})


def _child(kind: str) -> None:
    """On an interface of its own: one has macvlans or ipvlans, not both."""
    from pyroute2 import IPRoute

    with IPRoute() as route:
        route.link("add", ifname=f"{kind}-a", kind="veth", peer={"ifname": f"{kind}-b"})
        [master] = route.link_lookup(ifname=f"{kind}-a")
        options = {"vlan_id": 1} if kind == "vlan" else {}
        route.link("add", ifname=f"{kind}0", kind=kind, link=master, **options)


def _nf_tables() -> None:
    with closing(open_netfilter()) as netfilter:
        answer = netfilter.dump(requests("inet")[0])
        if answer.error:
            raise OSError(answer.error, os.strerror(answer.error))


def _learnt() -> frozenset[str]:
    """The interfaces of IPv6 default routes that router advertisements made."""
    from pyroute2 import IPRoute

    with IPRoute() as route:
        names = {link["index"]: str(link.get("ifname")) for link in route.get_links()}
        routes = list(route.get_routes(family=socket.AF_INET6)) if socket.has_ipv6 else []
    return frozenset(names.get(default.get("oif"), "") for default in routes
                     if default["dst_len"] == 0 and default["proto"] == RTPROT_RA) - {""}


def _chains() -> frozenset[str]:
    """The names of all chains of tables that are not ours; iptables-nft's are among them."""
    with closing(open_netfilter()) as netfilter:
        dump = netfilter.dump(Message(GETCHAIN, 0, NFGENMSG.pack(0, 0, 0))).messages
    others = (chain for chain in map(attributes, dump) if as_text(chain.get(NFTA_CHAIN_TABLE)) != TABLE)
    return frozenset(as_text(chain.get(NFTA_CHAIN_NAME)) for chain in others)
