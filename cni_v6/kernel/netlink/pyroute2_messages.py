"""Requests built, and answers read, with pyroute2's message classes. Our own sockets carry them (``socket``).

This is the codec for all requests except those that a plain bridge network sends at ADD and DEL (``requests``,
``answers``). Add a new request here. docs/design/kernel.md has the reasons, with measurements.

Only message classes are used. pyroute2's own sockets keep an event loop and a socket for each thread.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from threading import Lock
from typing import Any

from cni_v6.kernel import ops
from cni_v6.kernel.facts import FOREVER, Lifetime, TokenBucket
from cni_v6.kernel.netlink.message import HEADER, Message
from cni_v6.kernel.netlink.uapi import (
    AF_BRIDGE,
    AF_INET,
    AF_INET6,
    BRIDGE_VLAN_INFO_PVID,
    BRIDGE_VLAN_INFO_RANGE_BEGIN,
    BRIDGE_VLAN_INFO_RANGE_END,
    BRIDGE_VLAN_INFO_UNTAGGED,
    ETH_P_ALL,
    IFA_F_DEPRECATED,
    IFA_F_NODAD,
    IFA_F_TEMPORARY,
    IFF_ALLMULTI,
    IFF_NOARP,
    IFF_PROMISC,
    IFF_UP,
    NLM_F_CREATE,
    NLM_F_ECHO,
    NLM_F_EXCL,
    NLM_F_REPLACE,
    NTF_PROXY,
    NTF_USE,
    NUD_FAILED,
    NUD_INCOMPLETE,
    NUD_PERMANENT,
    RTEXT_FILTER_BRVLAN,
    RTM_DELLINK,
    RTM_DELNEIGH,
    RTM_GETADDR,
    RTM_GETLINK,
    RTM_GETNEIGH,
    RTM_GETQDISC,
    RTM_GETTFILTER,
    RTM_NEWADDR,
    RTM_NEWLINK,
    RTM_NEWNEIGH,
    RTM_NEWQDISC,
    RTM_NEWTFILTER,
    RTM_SETLINK,
    TC_ACT_STOLEN,
    TC_H_INGRESS,
    TC_H_ROOT,
    TC_LINKLAYER_ETHERNET,
    TC_U32_TERMINAL,
    TCA_EGRESS_REDIR,
)

Attributes = Sequence[tuple[str, Any]]  # (the kernel's name, the value as pyroute2 takes it)


_importing = Lock()


def _class(name: str) -> Any:
    """The message class for a header: ``struct ifinfomsg``, ``ifaddrmsg``, ``rtmsg``, ``ndmsg``, ``tcmsg``,
    ``fib_rule_hdr``.

    Imported here, at the first request: it would double the time of a call without an engine (``tools/imports``). By
    one thread at a time: pyroute2's modules import each other in circles. Where two threads wait for each other there,
    Python ends one import (importlib's ``_DeadlockError``), and a module stays half imported while the process lives.
    """
    with _importing:
        if name == "fib_rule_hdr":  # of few containers
            from pyroute2.netlink.rtnl.fibmsg import fibmsg

            return fibmsg
        from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg
        from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg
        from pyroute2.netlink.rtnl.ndmsg import ndmsg
        from pyroute2.netlink.rtnl.rtmsg import rtmsg
        from pyroute2.netlink.rtnl.tcmsg import tcmsg

    return {"ifaddrmsg": ifaddrmsg, "ifinfomsg": ifinfmsg, "ndmsg": ndmsg, "rtmsg": rtmsg, "tcmsg": tcmsg}[name]


def _message(name: str, kind: int, flags: int, header: Mapping[str, int], attributes: Attributes = ()) -> Message:
    built = _class(name)()
    built.update(header)
    built["attrs"] = list(attributes)
    built.encode()
    return Message(kind, flags, bytes(built.data[HEADER.size :]))


def _read(name: str, data: bytes) -> Any:
    read = _class(name)(data)
    read.decode()
    return read


# NDP proxy entries


def add_proxy(op: ops.AddProxy, index: int) -> Message:
    return _proxy(RTM_NEWNEIGH, NLM_F_CREATE, op.address, index)


def remove_proxy(op: ops.RemoveProxy, index: int) -> Message:
    return _proxy(RTM_DELNEIGH, 0, op.address, index)


def _proxy(kind: int, flags: int, address: str, index: int) -> Message:
    header = {"family": AF_INET6, "ifindex": index, "state": NUD_PERMANENT, "flags": NTF_PROXY}
    return _message("ndmsg", kind, flags, header, [("NDA_DST", address)])


# Lifetimes of IPv6 addresses


def get_lifetimes(index: int) -> Message:
    """A dump of the IPv6 addresses of the interface with this index."""
    return _message("ifaddrmsg", RTM_GETADDR, 0, {"family": AF_INET6, "index": index})


def set_preferred(op: ops.SetPreferred, index: int) -> Message:
    address, _, length = op.address.partition("/")
    header = {"family": AF_INET6, "prefixlen": int(length), "index": index}
    lifetimes = {"ifa_preferred": FOREVER if op.preferred else 0, "ifa_valid": FOREVER}
    attributes = [("IFA_LOCAL", address), ("IFA_ADDRESS", address), ("IFA_FLAGS", IFA_F_NODAD)]
    return _message("ifaddrmsg", RTM_NEWADDR, NLM_F_REPLACE, header, [*attributes, ("IFA_CACHEINFO", lifetimes)])


def read_lifetime(data: bytes) -> tuple[int, Lifetime]:
    """(interface index, lifetime) of an RTM_NEWADDR message of IPv6."""
    read = _read("ifaddrmsg", data)
    address = f"{read.get_attr('IFA_LOCAL') or read.get_attr('IFA_ADDRESS')}/{read['prefixlen']}"
    times, flags = read.get_attr("IFA_CACHEINFO"), int(read.get_attr("IFA_FLAGS"))
    preferred = 0 if flags & IFA_F_DEPRECATED else int(times["ifa_preferred"])
    return int(read["index"]), Lifetime(address, preferred, int(times["ifa_valid"]), bool(flags & IFA_F_TEMPORARY))


# Neighbours that were set for good


def get_neighbours(index: int) -> Message:
    """A dump of the neighbours, both families, of the interface with this index.

    With strict checking the index in the header must be 0 (neigh_valid_dump_req, net/core/neighbour.c).
    """
    return _message("ndmsg", RTM_GETNEIGH, 0, {}, [("NDA_IFINDEX", index)])


def read_neighbour(data: bytes) -> tuple[int, tuple[str, str]] | None:
    """(interface index, (address, MAC)) of an RTM_NEWNEIGH message; None if it was not set for good."""
    read = _read("ndmsg", data)
    if not int(read["state"]) & NUD_PERMANENT:
        return None
    return int(read["ifindex"]), (str(read.get_attr("NDA_DST")), str(read.get_attr("NDA_LLADDR")))


# Neighbours that are asked for


def ask_neighbour(address: str, index: int) -> Message:
    """Have the kernel resolve a neighbour: it sends a solicitation or an ARP request."""
    family = AF_INET6 if ":" in address else AF_INET
    header = {"family": family, "ifindex": index, "flags": NTF_USE}
    return _message("ndmsg", RTM_NEWNEIGH, NLM_F_CREATE, header, [("NDA_DST", address)])


def read_answer(data: bytes) -> tuple[int, str, str | None]:
    """(interface index, address, MAC) of an RTM_NEWNEIGH message; "" if nobody has answered, None: not yet."""
    read = _read("ndmsg", data)
    state = int(read["state"])
    found = "" if state & NUD_FAILED else None if state & NUD_INCOMPLETE else str(read.get_attr("NDA_LLADDR") or "")
    return int(read["ifindex"]), str(read.get_attr("NDA_DST")), found


# Children of an interface: macvlan, ipvlan, vlan


_CHILD_MODES = {"macvlan": "IFLA_MACVLAN_MODE", "ipvlan": "IFLA_IPVLAN_MODE", "vlan": "IFLA_VLAN_ID"}
_IPVLAN_MODES = ("l2", "l3", "l3s")  # linux/if_link.h, enum ipvlan_mode


def create_child_link(op: ops.CreateChildLink, master: int, netns: int | None) -> Message:
    """
    :param master: its interface index.
    :param netns: a descriptor of the child's namespace; None if that is the socket's.
    """
    attribute = _CHILD_MODES[op.kind]
    mode = int(op.mode) if op.kind == "vlan" else _IPVLAN_MODES.index(op.mode) if op.kind == "ipvlan" else op.mode
    kind = {"attrs": [("IFLA_INFO_KIND", op.kind), ("IFLA_INFO_DATA", {"attrs": [(attribute, mode)]})]}
    attributes: list[tuple[str, Any]] = [("IFLA_IFNAME", op.temporary), ("IFLA_LINK", master), ("IFLA_LINKINFO", kind)]
    attributes += [("IFLA_ADDRESS", op.mac)] if op.mac else []
    attributes += [("IFLA_MTU", op.mtu)] if op.mtu else []
    attributes += [("IFLA_NET_NS_FD", netns)] if netns is not None else []
    return _message("ifinfomsg", RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, {}, attributes)


def rename(index: int, ifname: str) -> Message:
    """Give the interface with this index, which is down, another name."""
    return _message("ifinfomsg", RTM_SETLINK, 0, {"index": index}, [("IFLA_IFNAME", ifname)])


def read_child_mode(data: bytes) -> tuple[str, str]:
    """Kind and mode of an RTM_NEWLINK message, see ``questions.GetChildMode``."""
    info = _read("ifinfomsg", data).get_attr("IFLA_LINKINFO")
    kind = info.get_attr("IFLA_INFO_KIND") if info else ""
    if kind not in _CHILD_MODES:
        return "", ""
    mode = info.get_attr("IFLA_INFO_DATA").get_attr(_CHILD_MODES[kind])
    return kind, _IPVLAN_MODES[mode] if kind == "ipvlan" else str(mode)


# What a container's interface takes in and holds


def tune_link(op: ops.TuneLink) -> Message:
    flags = {IFF_PROMISC: op.promisc, IFF_ALLMULTI: op.allmulti, IFF_NOARP: None if op.arp is None else not op.arp}
    change = sum(flag for flag, value in flags.items() if value is not None)
    header = {"flags": sum(flag for flag, value in flags.items() if value), "change": change}
    queue = [] if op.tx_queue is None else [("IFLA_TXQLEN", op.tx_queue)]
    return _message("ifinfomsg", RTM_SETLINK, 0, header, [("IFLA_IFNAME", op.ifname), *queue])


# Ports of a bridge, and their VLANs


def plug_in(op: ops.PlugIn, bridge: int) -> Message:
    return _message("ifinfomsg", RTM_SETLINK, 0, {}, [("IFLA_IFNAME", op.ifname), ("IFLA_MASTER", bridge)])


def set_bridge(op: ops.SetBridge) -> Message:
    passing = op.netfilter
    values = (
        ("IFLA_BR_VLAN_FILTERING", op.vlan_filtering),
        ("IFLA_BR_NF_CALL_IPTABLES", None if passing is None else 4 in passing),
        ("IFLA_BR_NF_CALL_IP6TABLES", None if passing is None else 6 in passing),
    )
    info = {"attrs": [(name, int(value)) for name, value in values if value is not None]}
    kind = {"attrs": [("IFLA_INFO_KIND", "bridge"), ("IFLA_INFO_DATA", info)]}
    return _message("ifinfomsg", RTM_NEWLINK, 0, {}, [("IFLA_IFNAME", op.name), ("IFLA_LINKINFO", kind)])


def get_port_vlans() -> Message:
    """A dump of all bridge ports with their VLANs; the kernel cannot filter it by index."""
    return _message("ifinfomsg", RTM_GETLINK, 0, {"family": AF_BRIDGE}, [("IFLA_EXT_MASK", RTEXT_FILTER_BRVLAN)])


def add_port_vlans(op: ops.AddPortVlans, index: int) -> Message:
    entries = [(op.pvid, BRIDGE_VLAN_INFO_PVID | BRIDGE_VLAN_INFO_UNTAGGED)] if op.pvid else []
    for first, last in op.trunk:
        if first == last:
            entries.append((first, 0))
        else:
            entries += [(first, BRIDGE_VLAN_INFO_RANGE_BEGIN), (last, BRIDGE_VLAN_INFO_RANGE_END)]
    return _port_vlans(RTM_SETLINK, index, entries)


def remove_port_vlan(op: ops.RemovePortVlan, index: int) -> Message:
    return _port_vlans(RTM_DELLINK, index, [(op.vlan, 0)])


def _port_vlans(kind: int, index: int, entries: Sequence[tuple[int, int]]) -> Message:
    vlans = [("IFLA_BRIDGE_VLAN_INFO", {"flags": flags, "vid": vlan}) for vlan, flags in entries]
    attributes = [("IFLA_AF_SPEC", {"attrs": vlans})]
    return _message("ifinfomsg", kind, 0, {"family": AF_BRIDGE, "index": index}, attributes)


def read_port_vlans(data: bytes) -> tuple[tuple[int, bool], ...]:
    """(VLAN, whether it is the untagged PVID) of a message of the VLAN dump, each VLAN of a range separately."""
    found: list[tuple[int, bool]] = []
    begin = 0
    spec = _read("ifinfomsg", data).get_attr("IFLA_AF_SPEC")
    for entry in spec.get_attrs("IFLA_BRIDGE_VLAN_INFO") if spec else ():
        flags, vlan = int(entry["flags"]), int(entry["vid"])
        if flags & BRIDGE_VLAN_INFO_RANGE_BEGIN:
            begin = vlan
            continue
        first = begin if flags & BRIDGE_VLAN_INFO_RANGE_END else vlan
        found += [(number, bool(flags & BRIDGE_VLAN_INFO_PVID)) for number in range(first, vlan + 1)]
    return tuple(found)


# Queues: token buckets, and a filter that sends what an interface receives through the queue of another one

_ROOT_HANDLE, _INGRESS_HANDLE, _FILTER_HANDLE = 0x1_0000, 0xFFFF_0000, 0x8000_0800
# tcm_info: the priority, and the protocol in network byte order
_FIRST_OF_ALL = 1 << 16 | int(struct.unpack("=H", struct.pack("!H", ETH_P_ALL))[0])


def create_ifb(op: ops.CreateIfb) -> Message:
    kind = {"attrs": [("IFLA_INFO_KIND", "ifb")]}
    attributes = [("IFLA_IFNAME", op.ifname), ("IFLA_LINKINFO", kind)]
    header = {"flags": IFF_UP, "change": IFF_UP}
    return _message("ifinfomsg", RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, header, attributes)


def set_bucket(op: ops.SetBucket, index: int) -> Message:
    """The link layer says that the kernel needs no table of rates (tbf_change, net/sched/sch_tbf.c)."""
    header = {"index": index, "handle": _ROOT_HANDLE, "parent": TC_H_ROOT}
    bucket = {"rate": op.bucket.rate, "limit": op.bucket.limit, "buffer": op.bucket.buffer,
              "rate___reserved": TC_LINKLAYER_ETHERNET}
    attributes = [("TCA_KIND", "tbf"), ("TCA_OPTIONS", {"attrs": [("TCA_TBF_PARMS", bucket)]})]
    return _message("tcmsg", RTM_NEWQDISC, NLM_F_CREATE | NLM_F_REPLACE, header, attributes)


def hook_ingress(_: ops.HookIngress, index: int) -> Message:
    header = {"index": index, "handle": _INGRESS_HANDLE, "parent": TC_H_INGRESS}
    return _message("tcmsg", RTM_NEWQDISC, NLM_F_CREATE | NLM_F_EXCL, header, [("TCA_KIND", "ingress")])


def redirect(_: ops.Redirect, index: int, ifb: int) -> Message:
    """A filter ``u32`` that matches everything: kernels without ``matchall`` have it."""
    header = {"index": index, "handle": _FILTER_HANDLE, "parent": _INGRESS_HANDLE, "info": _FIRST_OF_ALL}
    to_ifb = {"action": TC_ACT_STOLEN, "eaction": TCA_EGRESS_REDIR, "ifindex": ifb}
    options = {"attrs": [("TCA_MIRRED_PARMS", to_ifb)]}
    action = {"attrs": [("TCA_ACT_KIND", "mirred"), ("TCA_ACT_OPTIONS", options)]}
    everything = {"keys": ["0x0/0x0+0"], "flags": TC_U32_TERMINAL}
    chosen = [("TCA_U32_SEL", everything), ("TCA_U32_ACT", {"attrs": [("TCA_ACT_PRIO_1", action)]})]
    attributes = [("TCA_KIND", "u32"), ("TCA_OPTIONS", {"attrs": chosen})]
    return _message("tcmsg", RTM_NEWTFILTER, NLM_F_CREATE, header, attributes)


def get_queue(index: int) -> Message:
    """Asks for the queue through which an interface sends. The kernel answers by the echo of a notification."""
    return _message("tcmsg", RTM_GETQDISC, NLM_F_ECHO, {"index": index, "parent": TC_H_ROOT})


def get_filters(index: int) -> Message:
    """A dump of the filters of what an interface receives."""
    return _message("tcmsg", RTM_GETTFILTER, 0, {"index": index, "parent": _INGRESS_HANDLE})


def read_bucket(data: bytes) -> TokenBucket | None:
    """The token bucket of an RTM_NEWQDISC message; None for another queue."""
    read = _read("tcmsg", data)
    if read.get_attr("TCA_KIND") != "tbf":
        return None
    bucket = read.get_attr("TCA_OPTIONS").get_attr("TCA_TBF_PARMS")
    return TokenBucket(int(bucket["rate"]), int(bucket["buffer"]), int(bucket["limit"]))


def read_redirect(data: bytes) -> int:
    """The index of the interface to which a filter in an RTM_NEWTFILTER message redirects; 0 for another filter."""
    read = _read("tcmsg", data)
    options = read.get_attr("TCA_OPTIONS") if read.get_attr("TCA_KIND") == "u32" else None
    actions = options.get_attr("TCA_U32_ACT") if options else None
    action = actions.get_attr("TCA_ACT_PRIO_1") if actions else None
    if action is None or action.get_attr("TCA_ACT_KIND") != "mirred":
        return 0
    return int(action.get_attr("TCA_ACT_OPTIONS").get_attr("TCA_MIRRED_PARMS")["ifindex"])
