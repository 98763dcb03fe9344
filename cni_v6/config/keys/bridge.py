"""Keys of the bridge plugin's configuration, and the part of any main plugin's that ``cni-v6-ipam`` reads."""

from __future__ import annotations

from cni_v6.config.keys import Anything, Flag, Flags, Items, Key, Level, Named, Nested, Number, Text
from cni_v6.config.keys.firewall import FIREWALL
from cni_v6.config.keys.ipam import IPAM
from cni_v6.config.keys.runtime import BANDWIDTH, BRIDGE_ARGS, BRIDGE_RUNTIME, CAPABILITIES, IPAM_ARGS, IPAM_RUNTIME

MAX_VLAN = 4094  # linux/if_vlan.h: VLAN_N_VID, less the reserved 4095
MAX_IDLE = 31_536_000  # a year
AUTO_MTU = -1  # what ``mtu`` ``auto`` is read as
MAX_MTU = 65535  # linux/if_ether.h: ETH_MAX_MTU

MAX_QUEUE = 2**31 - 1

DNS = Level("dns", "dns", (
    Key(
        "nameservers", Items(Text("nameserver", blank=False)), "Name servers, the preferred one first.", "The same.",
        default=[], example=["fd42:1:2:3::1"],
    ),
    Key("domain", Text("word"), "Local domain.", "The same.", default="", example="example.org"),
    Key(
        "search", Items(Text("word", blank=False)), "Search domains.", "The same.",
        default=[], example=["example.org"],
    ),
    Key(
        "options", Items(Text("word", blank=False)), "Resolver options.", "The same.",
        default=[], example=["ndots:5"],
    ),
))

TUNING = (
    Key(
        "sysctl", Named(Text("plain")),
        "Sysctls below `net` in the container's namespace; `IFNAME` stands for its interface. If "
        "`/etc/cni/tuning/allowlist.conf` exists, a line of it, a regular expression, must match the key.",
        "No such key; `tuning` has it.", default={},
        example={"net.core.somaxconn": "512", "net.ipv4.conf.IFNAME.arp_filter": "1"},
    ),
    Key(
        "promisc", Flag(), "The container's interface takes frames for others too (promiscuous).",
        "No such key; `tuning` has it.", default=False, example=True,
    ),
    Key(
        "allmulti", Flag(), "The container's interface takes all multicast frames.", "No such key; `tuning` has it.",
        default=False, example=True,
    ),
    Key(
        "txQLen", Number(0, MAX_QUEUE), "Length of the queue of the container's interface, in packets. Absent: the "
        "kernel's default.", "No such key; `tuning` has it.", example=500,
    ),
)

SOURCE_ROUTING = Key(
    "sourceBasedRouting", Flag(),
    "What the container sends from its addresses of this network leaves through this network, by a routing table of "
    "its own. Absent: on for a container that publishes ports and has its default route through another network.",
    "No such key; `sbr` does it.", example=True,
)

TRUNK = Level("vlanTrunk", "vlanTrunk[]", (
    Key("minID", Number(1, MAX_VLAN), "First VLAN of a range; goes with `maxID`.", "The same.", example=200),
    Key("maxID", Number(1, MAX_VLAN), "Last VLAN of a range; goes with `minID`.", "The same.", example=299),
    Key("id", Number(1, MAX_VLAN), "A single VLAN; can be used with a range.", "The same.", example=100),
))

_STRICT = Key(
    "strict", Flag(),
    "Refuse every unknown key instead of logging it, except keys of the specification and the runtime, and every key "
    "that is written twice.",
    "No such key.", default=False, example=True,
)

_ENGINE = (
    Key(
        "engine", Text("engine"),
        "`auto`: an engine handles the call, if one listens or can be started; `off`: the executable's own process "
        "handles it and starts no engine. `CNI_V6_ENGINE=off` in the environment means the same as `off`.",
        "No such key.", default="auto", example="off",
    ),
    Key(
        "engineIdle", Number(1, MAX_IDLE),
        "Seconds without a call after which an engine ends that a call has started.", "No such key.",
        default=300, example=3600,
    ),
)

_LOG = Key(
    "log", Text("logFile"),
    "File for [one line of JSON a call](observing.md#the-log-of-calls), with or without an engine, in a folder that "
    "exists; it ends with `.jsonl`. Absent: an engine writes to `calls.jsonl` in its run folder, and a call without an "
    "engine to no file.",
    "No such key.", default="", example="/var/log/cni-v6.jsonl",
)

# What the specification, libcni and runtimes put beside the plugin's own keys (SPEC.md, section 1).
_PROTOCOL = (
    Key(
        "cniVersion", Text("plain"), "Version of the specification that the configuration and the results follow.",
        "The same.", example="1.1.0",
    ),
    Key("name", Text("plain"), "The network's name; leases are kept under it.", "The same.", example="pods"),
    Key("type", Text("plugin"), "The plugin: `cni-v6`.", "`bridge`", example="cni-v6"),
    Key(
        "capabilities", Flags(CAPABILITIES),
        "What the runtime shall write into `runtimeConfig`: `ips`, `mac`, `ipRanges`, `dns`, `portMappings`, "
        "`bandwidth`, `delegate`.",
        "`mac`; host-local `ips`, `ipRanges`; portmap `portMappings`; bandwidth `bandwidth`.",
        default={}, example={"ips": True, "mac": True, "portMappings": True},
    ),
    Key("prevResult", Anything(), "The result of the plugins before this one; written by the runtime.", "The same."),
    Key("cniVersions", Anything(), "For the runtime, in a network configuration list.", "Ignored."),
    Key("disableCheck", Anything(), "For the runtime, in a network configuration list.", "Ignored."),
    Key("disableGC", Anything(), "For the runtime, in a network configuration list.", "Ignored."),
    Key("loadOnlyInlinedPlugins", Anything(), "For the runtime, in a network configuration list.", "Ignored."),
    Key("plugins", Anything(), "For the runtime, in a network configuration list.", "Ignored."),
)

BRIDGE = Level("bridge", "", (
    *_PROTOCOL,
    Key(
        "bridge", Text("interface", blank=False), "Name of the bridge; created if it does not exist.", "The same.",
        default="cni0", example="cni-v6",
    ),
    Key(
        "isGateway", Flag(), "The bridge gets the gateway's address of each family, and forwarding is turned on.",
        "The same, but turns forwarding on for the whole node, which then ignores router advertisements.",
        default=False, example=True,
    ),
    Key(
        "isDefaultGateway", Flag(), "As `isGateway`, and the container gets a default route of each family.",
        "The same.", default=False, example=True,
    ),
    Key(
        "forceAddress", Flag(),
        "On a bridge that cni-v6 did not make: replace an address that does not match, instead of failing. On its own "
        "bridges both addresses [stay](renumbering.md) while containers need them.",
        "On any bridge.", default=False, example=True,
    ),
    Key(
        "overlap", Text("overlap"),
        "What to do if a subnet overlaps with another network or interface of the node: `refuse` the first ADD, or "
        "`allow` it.", "No such key; allows it.", default="refuse", example="allow",
    ),
    *FIREWALL,
    Key(
        "mtu", Number(0, MAX_MTU, words=(("auto", AUTO_MTU),)),
        "MTU of both ends of the veth pair, and of a bridge that cni-v6 makes; at least 1280 with IPv6. "
        "0: the MTU of the bridge, otherwise the kernel's default. `auto`: the smallest MTU of the interfaces of the "
        "node's default routes; without a default route as 0.",
        "The same; accepts any number.", default=0, example=9000,
    ),
    Key(
        "ndpProxy", Text("interface", blank=False),
        "The node answers neighbour solicitations for the containers' IPv6 addresses. An interface: there, for all "
        "addresses. `auto`: on the interface of the IPv6 default route, for the addresses in its on-link prefixes. "
        "Needs `isGateway`.",
        "No such key.", example="auto",
    ),
    Key(
        "hairpinMode", Flag(), "A container may reach itself through the bridge; not with `promiscMode`.",
        "The same.", default=False, example=True,
    ),
    Key(
        "promiscMode", Flag(), "The bridge is promiscuous; not with `hairpinMode`.", "The same.",
        default=False, example=True,
    ),
    Key(
        "vlan", Number(0, MAX_VLAN), "VLAN of the port, untagged towards the container; 0: none.", "The same.",
        default=0, example=100,
    ),
    Key(
        "vlanTrunk", Items(Nested(TRUNK)), "VLANs that reach the container tagged; can be used with `vlan`.",
        "The same; until v1.7 not with `vlan`.", default=[], example=[{"id": 100}, {"minID": 200, "maxID": 299}],
    ),
    Key(
        "preserveDefaultVlan", Flag(), "With a VLAN: the port also stays in the bridge's default VLAN (1).",
        "The same; the default is true in its documentation and until v1.7, false since v1.8.",
        default=True, example=False,
    ),
    Key(
        "enabledad", Flag(), "Duplicate address detection for the container's addresses; takes a second.",
        "The same.", default=False, example=True,
    ),
    Key(
        "disableContainerInterface", Flag(), "Leave the container's interface down; not with an `ipam`.",
        "The same.", default=False, example=True,
    ),
    Key(
        "portIsolation", Flag(), "Containers reach the gateway, not each other (bridge port isolation).", "The same.",
        default=False, example=True,
    ),
    Key(
        "multicastSnooping", Flag(),
        "IGMP and MLD snooping on a bridge that cni-v6 makes. Snooping without a querier can drop neighbour discovery.",
        "No such key; the kernel's default, on.", default=False, example=True,
    ),
    Key(
        "netfilter", Flag(),
        "Frames on the bridge pass the node's rules for packets (`br_netfilter`), so that services answer and network "
        "policies hold between containers of one node. Other bridges stay as they are.",
        "No such key.", default=False, example=True,
    ),
    SOURCE_ROUTING,
    BANDWIDTH,
    *TUNING,
    Key(
        "dns", Nested(DNS), "Name service for the result; has precedence over `ipam.resolvConf`.", "The same.",
        example={"nameservers": ["fd42:1:2:3::1"], "search": ["example.org"]},
    ),
    Key(
        "ipam", Nested(IPAM, later=True), "Address allocation. Absent or empty: layer 2 only.", "The same.",
        default={}, example={"type": "cni-v6-ipam", "ranges": [[{"subnet": "fd42:1:2:3::/64"}]]},
    ),
    Key(
        "args", Nested(BRIDGE_ARGS), "Written by the runtime.", "The same.",
        default={}, example={"cni": {"ips": ["fd42:1:2:3::5"]}},
    ),
    Key(
        "runtimeConfig", Nested(BRIDGE_RUNTIME), "Written by the runtime, for `capabilities`.", "The same.",
        default={}, example={"mac": "02:00:5e:10:00:01"},
    ),
    _STRICT,
    *_ENGINE,
    _LOG,
))

# Unguarded: everything else here belongs to the main plugin, whatever that is.
MAIN_OF_IPAM = Level("mainOfIpam", "", (
    Key(
        "ipam", Nested(IPAM), "Address allocation, with `type` `cni-v6-ipam`.", "The same.", required=True,
        example={"type": "cni-v6-ipam", "ranges": [[{"subnet": "fd42:1:2:3::/64"}]]},
    ),
    Key(
        "args", Nested(IPAM_ARGS), "Written by the runtime.", "The same.",
        default={}, example={"cni": {"ips": ["fd42:1:2:3::5"]}},
    ),
    Key(
        "runtimeConfig", Nested(IPAM_RUNTIME), "Written by the runtime, for `capabilities`.", "The same.",
        default={}, example={"ips": ["fd42:1:2:3::5"]},
    ),
    _STRICT,
    *_ENGINE,
), guarded=False)
