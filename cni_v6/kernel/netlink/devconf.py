"""Interface settings that rtnetlink can change as well as a sysctl, for a node whose /proc/sys is read-only.

These are all IPv4 settings (inet_set_link_af, net/ipv4/devinet.c), and of IPv6 only the way in which link-local
addresses are made (inet6_set_link_af, net/ipv6/addrconf.c).
"""

from __future__ import annotations

from cni_v6.kernel.netlink.message import Message, nest, u8, u32
from cni_v6.kernel.netlink.requests import IFINFOMSG
from cni_v6.kernel.netlink.uapi import AF_INET, AF_INET6, AF_UNSPEC, IFLA_AF_SPEC, RTM_SETLINK

IFLA_INET_CONF, IFLA_INET6_ADDR_GEN_MODE = 1, 8  # linux/if_link.h
# IPV4_DEVCONF_*, linux/ip.h; only those that we set
IPV4 = {"rp_filter": 8, "arp_ignore": 19, "arp_notify": 22, "accept_local": 23, "route_localnet": 26}


def interface_of(key: str) -> str:
    """The interface of a sysctl; "" if it belongs to none, to ``all`` or to ``default``."""
    parts = key.split("/")
    return parts[2] if len(parts) == 4 and parts[1] == "conf" and parts[2] not in ("all", "default") else ""


def setting(key: str, value: str, index: int) -> Message | None:
    """The request with the effect of a sysctl of the interface with this index; None if there is none."""
    family, _, name = key.partition("/")
    name = name.rpartition("/")[2]
    if family == "ipv4" and name in IPV4:
        spec = nest(AF_INET, nest(IFLA_INET_CONF, u32(IPV4[name], int(value))))
    elif family == "ipv6" and name == "addr_gen_mode":
        spec = nest(AF_INET6, u8(IFLA_INET6_ADDR_GEN_MODE, int(value)))
    else:
        return None
    return Message(RTM_SETLINK, 0, IFINFOMSG.pack(AF_UNSPEC, 0, index, 0, 0) + nest(IFLA_AF_SPEC, spec))
