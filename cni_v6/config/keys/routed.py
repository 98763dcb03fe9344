"""Keys of the routed plugin's configuration: those of the bridge plugin that have nothing to do with a bridge."""

from __future__ import annotations

from dataclasses import replace

from cni_v6.config.keys import Key, Level, Number, Text
from cni_v6.config.keys.bridge import AUTO_MTU, BRIDGE, MAX_MTU

_OF_A_BRIDGE = frozenset((
    "bridge", "isGateway", "isDefaultGateway", "forceAddress", "macspoofchk", "hairpinMode", "promiscMode", "vlan",
    "vlanTrunk", "preserveDefaultVlan", "enabledad", "disableContainerInterface", "portIsolation", "multicastSnooping",
))
_NONE = "No such key."

_OTHER = {
    key.name: key for key in (
        Key("type", Text("plugin"), "The plugin: `cni-v6-routed`.", "`ptp`", example="cni-v6-routed"),
        Key(
            "guard", next(key.kind for key in BRIDGE.keys if key.name == "guard"),
            "A container sends only from its own addresses.", _NONE, default=True, example=False,
        ),
        Key(
            "mtu", Number(0, MAX_MTU, words=(("auto", AUTO_MTU),)),
            "MTU of both ends of the veth pair; at least 1280 with IPv6. 0: the kernel's default. `auto`: the smallest "
            "MTU of the interfaces of the node's default routes; without a default route as 0.",
            "The same; accepts any number.", default=0, example=9000,
        ),
        Key(
            "ndpProxy", Text("interface", blank=False),
            "The node answers neighbour solicitations for the containers' IPv6 addresses. An interface: there, for all "
            "addresses. `auto`: on the interface of the IPv6 default route, for the addresses in its on-link prefixes.",
            _NONE, example="auto",
        ),
    )
}
_IPAM, _EGRESS = (next(key for key in BRIDGE.keys if key.name == name) for name in ("ipam", "egress"))
_OTHER |= {
    "ipam": replace(_IPAM, meaning="Address allocation.", default=None, required=True),
    "egress": replace(
        _EGRESS, meaning="What a container may reach, its network's other containers included. `[]`: nothing. Absent: "
        "everything.",
    ),
}
_OWN = (
    Key(
        "ipv4Gateway", Text("address"),
        "IPv4 address of the node on each container's link, for programs that cannot read an IPv6 next hop of an IPv4 "
        "route. Absent: the next hop of IPv4 is `fe80::1`, or `169.254.1.1` in a container without IPv6.",
        "The gateway of the subnet.", default="", example="169.254.1.1",
    ),
)


def _reference(key: Key) -> Key:
    """The reference plugin is ``ptp`` here, which knows fewer keys than ``bridge``."""
    return replace(key, reference=_NONE) if key.name in ("args", "runtimeConfig") else key


ROUTED = Level("routed", "", (
    *(_OTHER.get(key.name, _reference(key)) for key in BRIDGE.keys if key.name not in _OF_A_BRIDGE), *_OWN,
))
