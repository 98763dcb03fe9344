"""Keys of the macvlan plugin's configuration: its own, and those of the bridge plugin that need no host interface.

Keys that need one are refused: without a word they would look like protection. The reference plugin is ``macvlan``.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from cni_v6.config.keys import Flag, Key, Level, Nested, Number, Refusal, Text
from cni_v6.config.keys.bridge import BRIDGE, MAX_MTU
from cni_v6.config.keys.runtime import BRIDGE_RUNTIME

OTHER_TYPES = 'use "type": "cni-v6-routed" or "cni-v6", or remove it'
REFUSAL = Refusal(
    "needs an interface of the container on the node: a macvlan has none, its packets pass no rule of the node",
    OTHER_TYPES,
)
_NOT_THE_GATEWAY = Refusal(
    "has no effect: the node does not route for a macvlan, a router on the link does",
    "write the router as gateway of the range, and the routes into ipam.routes; or " + OTHER_TYPES,
)
_NO_GUID = Refusal(
    "is not supported", "a macvlan has no InfiniBand GUID; take infinibandGUID out of capabilities",
)
_NONE = "No such key."

_OF_A_BRIDGE = frozenset((
    "bridge", "forceAddress", "overlap", "ipMasqBackend", "hairpinMode", "promiscMode", "vlan", "vlanTrunk",
    "preserveDefaultVlan", "enabledad", "disableContainerInterface", "portIsolation", "multicastSnooping", "netfilter",
))
_REFUSED = {
    "isGateway": _NOT_THE_GATEWAY, "isDefaultGateway": _NOT_THE_GATEWAY,
    **dict.fromkeys(("ipMasq", "masquerade", "nonMasquerade", "snat", "nptv6", "ingress", "guard", "macspoofchk",
                     "egress", "ndpProxy", "portMappings", "bandwidth"), REFUSAL),
}


def _refused(key: Key) -> Key:
    refusal = _REFUSED[key.name]
    meaning = "Refused: the node is not the gateway." if refusal is _NOT_THE_GATEWAY else "Refused: see `ingress`."
    if key.name == "ingress":
        meaning = "Refused: a macvlan has no interface on the node, so its packets pass no rule of the node."
    return replace(key, meaning=meaning, reference=_NONE, default=None, refusal=refusal)


_RUNTIME = Level("macvlanRuntime", BRIDGE_RUNTIME.where, tuple(
    _refused(key) if key.name in _REFUSED
    else replace(key, meaning="Refused: a macvlan has none.", refusal=_NO_GUID) if key.name == "infinibandGUID"
    else key
    for key in BRIDGE_RUNTIME.keys
), guarded=False)

_OTHER: dict[str, dict[str, Any]] = {  # what differs from the bridge's key
    "type": {"meaning": "The plugin: `cni-v6-macvlan`.", "reference": "`macvlan`", "example": "cni-v6-macvlan"},
    "mtu": {
        "kind": Number(0, MAX_MTU),
        "meaning": "MTU of the container's interface: at most the master's, at least 1280 with IPv6. 0: the master's.",
        "reference": "The same.", "example": 1400,
    },
    "sourceBasedRouting": {
        "meaning": "What the container sends from its addresses of this network leaves through this network, by a "
        "routing table of its own. Not with `ipam.type` `cni-v6-slaac`.",
        "default": False,
    },
    "runtimeConfig": {"kind": Nested(_RUNTIME)},
}
_OWN = (
    Key(
        "master", Text("interface"),
        "The interface that the containers share. Absent or `auto`: that of the node's default route.",
        "The same, without `auto`.", default="auto", example="eth0",
    ),
    Key(
        "mode", Text("macvlanMode"),
        "`bridge`: containers of a master reach each other; `private`: they do not; `vepa`: through the switch, if "
        "that sends frames back; `passthru`: one container has the whole master.",
        "The same.", default="bridge", example="private",
    ),
    Key(
        "linkInContainer", Flag(), "`master` is an interface of the container, and has to be named.",
        "The same; `master` may be absent.", default=False, example=True,
    ),
    Key(
        "mac", Text("mac"), "MAC of the container's interface, for a network of one container; the runtime's has "
        "precedence.", "The same.", example="02:00:5e:10:00:01",
    ),
    Key(
        "hostAccess", Flag(),
        "The node has a macvlan of its own on the master, by which node and containers reach each other. With `mode` "
        "`bridge` only.",
        "No such key.", default=False, example=True,
    ),
    Key(
        "acceptRa", Flag(),
        "The container takes routes from router advertisements. Addresses come from `ipam` alone.",
        "No such key; the kernel's default, which takes addresses too.", default=False, example=True,
    ),
)

MACVLAN = Level("macvlan", "", (
    *(
        _refused(key) if key.name in _REFUSED else replace(key, **_OTHER.get(key.name, {}))
        for key in BRIDGE.keys if key.name not in _OF_A_BRIDGE
    ),
    *_OWN,
))
