"""Keys of the plugins whose containers have a child of one of the node's interfaces: macvlan, ipvlan, vlan.

They are the bridge plugin's that need no host interface, and those that all three have. Keys that need one are refused:
without a word they would look like protection.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from cni_v6.config.keys import Flag, Key, Level, Nested, Number, Refusal, Text
from cni_v6.config.keys.bridge import BRIDGE, MAX_MTU
from cni_v6.config.keys.runtime import BRIDGE_RUNTIME
from cni_v6.values import dataclass

OTHER_TYPES = 'use "type": "cni-v6-routed" or "cni-v6", or remove it'
NONE = "No such key."
MODE = "mode"

_OF_A_BRIDGE = frozenset((
    "bridge", "forceAddress", "overlap", "ipMasqBackend", "hairpinMode", "promiscMode", "vlan", "vlanTrunk",
    "preserveDefaultVlan", "enabledad", "disableContainerInterface", "portIsolation", "multicastSnooping", "netfilter",
))
_OF_THE_GATEWAY = ("isGateway", "isDefaultGateway")
_OF_A_HOST_INTERFACE = (
    "ipMasq", "masquerade", "nonMasquerade", "snat", "nptv6", "ingress", "guard", "macspoofchk", "egress", "ndpProxy",
    "portMappings", "bandwidth",
)


@dataclass(frozen=True, slots=True)
class Words:
    """What the messages and the documentation call a child: ``macvlan``, ``a macvlan``."""

    kind: str
    a_child: str

    @property
    def no_host_interface(self) -> Refusal:
        """The refusal of a key that needs an interface of the container on the node."""
        return Refusal(
            f"needs an interface of the container on the node: {self.a_child} has none, its packets pass none of our "
            "rules", OTHER_TYPES,
        )

    @property
    def not_the_gateway(self) -> Refusal:
        """The refusal of a key that needs the node as router."""
        return Refusal(
            f"has no effect: the node does not route for {self.a_child}, a router on the link does",
            f"write the router as gateway of the range, and the routes into ipam.routes; or {OTHER_TYPES}",
        )


ANY = Words("child", "a macvlan, ipvlan or vlan")


def _refused(key: Key, refusal: Refusal, words: Words) -> Key:
    meaning = "Refused: the node is not the gateway." if key.name in _OF_THE_GATEWAY else "Refused: see `ingress`."
    if key.name == "ingress":
        meaning = f"Refused: {words.a_child} has no interface on the node, so its packets pass none of our rules."
    return replace(key, meaning=meaning, reference=NONE, default=None, refusal=refusal)


_NO_GUID = Refusal("is not supported", f"{ANY.a_child} has no InfiniBand GUID; take infinibandGUID out of capabilities")
_RUNTIME = Level("childRuntime", BRIDGE_RUNTIME.where, tuple(
    _refused(key, ANY.no_host_interface, ANY) if key.name in _OF_A_HOST_INTERFACE
    else replace(key, meaning="Refused: the interface has none.", refusal=_NO_GUID) if key.name == "infinibandGUID"
    else key
    for key in BRIDGE_RUNTIME.keys
), guarded=False)


def child_level(words: Words, own: tuple[Key, ...], other: dict[str, dict[str, Any]]) -> Level:
    """All keys of one of these plugins.

    :param own: the keys that no other plugin has, or not with that meaning.
    :param other: what differs from the bridge's keys, beside what is common to these plugins.
    """
    kind = words.kind
    changed: dict[str, dict[str, Any]] = {
        "type": {"meaning": f"The plugin: `cni-v6-{kind}`.", "reference": f"`{kind}`", "example": f"cni-v6-{kind}"},
        "mtu": {
            "kind": Number(0, MAX_MTU),
            "meaning": "MTU of the container's interface: at most the master's, at least 1280 with IPv6. 0: the "
            "master's.",
            "reference": "The same.", "example": 1400,
        },
        "sourceBasedRouting": {
            "meaning": "What the container sends from its addresses of this network leaves through this network, by a "
            "routing table of its own. Not with `ipam.type` `cni-v6-slaac`.",
            "default": False,
        },
        "runtimeConfig": {"kind": Nested(_RUNTIME)},
        **other,
    }
    refused = {**dict.fromkeys(_OF_THE_GATEWAY, words.not_the_gateway),
               **dict.fromkeys(_OF_A_HOST_INTERFACE, words.no_host_interface)}
    return Level(kind, "", (
        *(
            _refused(key, refused[key.name], words) if key.name in refused
            else replace(key, **changed.get(key.name, {}))
            for key in BRIDGE.keys if key.name not in _OF_A_BRIDGE
        ),
        *own,
    ))


def master(meaning: str, reference: str, **changed: Any) -> Key:
    return Key("master", Text("interface"), meaning, reference, example="eth0", **changed)


MASTER = master(
    "The interface that the containers share. Absent or `auto`: that of the node's default route.",
    "The same, without `auto`.", default="auto",
)
LINK_IN_CONTAINER = Key(
    "linkInContainer", Flag(), "`master` is an interface of the container, and has to be named.",
    "The same; `master` may be absent.", default=False, example=True,
)
MAC = Key(
    "mac", Text("mac"), "MAC of the container's interface, for a network of one container; the runtime's has "
    "precedence.", "The same.", example="02:00:5e:10:00:01",
)
ACCEPT_RA = Key(
    "acceptRa", Flag(),
    "The container takes routes from router advertisements. Addresses come from `ipam` alone.",
    "No such key; the kernel's default, which takes addresses too.", default=False, example=True,
)


def host_access(words: Words, when: str = "") -> Key:
    """``hostAccess`` where there is.

    :param when: what else the meaning says.
    """
    meaning = f"The node has {words.a_child} of its own on the master, by which node and containers reach each other."
    return Key("hostAccess", Flag(), meaning + when, NONE, default=False, example=True)


def no_host_access(why: str) -> Key:
    """``hostAccess`` where there is none.

    :param why: as the reason of a refusal.
    """
    return Key("hostAccess", Flag(), "Refused: the node does not reach the container through the master.", NONE,
               refusal=Refusal(why, 'use "type": "cni-v6-macvlan", or remove it'))
