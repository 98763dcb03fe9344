"""Keys of the routed plugin's configuration: those of the bridge plugin that have nothing to do with a bridge."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from cni_v6.config.keys import Key, Level, Text
from cni_v6.config.keys.bridge import BRIDGE

_OF_A_BRIDGE = frozenset((
    "bridge", "isGateway", "isDefaultGateway", "forceAddress", "macspoofchk", "hairpinMode", "promiscMode", "vlan",
    "vlanTrunk", "preserveDefaultVlan", "enabledad", "disableContainerInterface", "portIsolation", "multicastSnooping",
    "netfilter",
))
_NONE = "No such key."

_OTHER: dict[str, dict[str, Any]] = {  # what differs from the bridge's key
    "type": {"meaning": "The plugin: `cni-v6-routed`.", "reference": "`ptp`", "example": "cni-v6-routed"},
    "guard": {"meaning": "A container sends only from its own addresses.", "reference": _NONE},
    "mtu": {
        "meaning": "MTU of both ends of the veth pair; at least 1280 with IPv6. 0: the kernel's default. `auto`: the "
        "smallest MTU of the interfaces of the node's default routes; without a default route as 0.",
    },
    "ndpProxy": {
        "meaning": "The node answers neighbour solicitations for the containers' IPv6 addresses. An interface: there, "
        "for all addresses. `auto`: on the interface of the IPv6 default route, for the addresses in its on-link "
        "prefixes.",
    },
    "ipam": {"meaning": "Address allocation.", "default": None, "required": True},
    "egress": {
        "meaning": "What a container may reach, its network's other containers included. `[]`: nothing. Absent: "
        "everything.",
    },
    # The reference plugin is ``ptp`` here, which knows fewer keys than ``bridge``.
    "args": {"reference": _NONE},
    "runtimeConfig": {"reference": _NONE},
}
_OWN = (
    Key(
        "ipv4Gateway", Text("address"),
        "IPv4 address of the node on each container's link, for programs that cannot read an IPv6 next hop of an IPv4 "
        "route. Absent: the next hop of IPv4 is `fe80::1`, or `169.254.1.1` in a container without IPv6.",
        "The gateway of the subnet.", default="", example="169.254.1.1",
    ),
)


ROUTED = Level("routed", "", (
    *(replace(key, **_OTHER.get(key.name, {})) for key in BRIDGE.keys if key.name not in _OF_A_BRIDGE), *_OWN,
))
