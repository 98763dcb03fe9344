"""Keys that runtimes write: ``args`` and ``runtimeConfig``, as CONVENTIONS.md of containernetworking/cni has them.

What else they write there is none of our business and passed by.
"""

from __future__ import annotations

from cni_v6.config.keys import Items, Key, Level, Nested, Number, Refusal, Text
from cni_v6.config.keys.firewall import ARGS_EGRESS, PORT_MAPPINGS
from cni_v6.config.keys.ipam import RUNTIME_RANGE

CAPABILITIES = (
    "aliases", "bandwidth", "cgroupPath", "delegate", "deviceID", "dns", "infinibandGUID", "ipRanges", "ips", "mac",
    "portMappings",
)

_ARGS_IPS = Key(
    "ips", Items(Text("request", blank=False)),
    "Addresses to allocate, at most one per set of ranges. A prefix length is ignored.",
    "The same.", default=[], example=["fd42:1:2:3::5", "10.1.0.5/16"],
)
_ARGS_MAC = Key(
    "mac", Text("mac"), "MAC for the container's interface; `runtimeConfig.mac` has precedence.",
    "The same.", example="02:00:5e:10:00:01",
)

_IP_RANGES = Key(
    "ipRanges", Items(Items(Nested(RUNTIME_RANGE))), "Sets of ranges, put before those of `ipam`.",
    "The same.", default=[], example=[[{"subnet": "fd42:1:2:4::/64"}]],
)
_IPS = Key(
    "ips", Items(Text("request", blank=False)), "Addresses to allocate, as `args.cni.ips`.", "The same.",
    default=[], example=["fd42:1:2:3::5"],
)

_DELEGATE = Key(
    "delegate", Number(64, 127), "Length of the prefix for this container, as `ipam.delegate`.", "No such key.",
    example=80,
)

MOST_BITS = 2**63 - 1


_BANDWIDTH = Level("bandwidth", "bandwidth", tuple(
    key for direction, does in (("ingress", "receives"), ("egress", "sends")) for key in (
        Key(
            f"{direction}Rate", Number(0, MOST_BITS),
            f"Bits a second that the container {does}. 0, or 2^35 and more: no limit.", "The same.",
            default=0, example=100_000_000,
        ),
        Key(
            f"{direction}Burst", Number(0, MOST_BITS),
            "Bits that may pass at once, before the rate holds; of a larger burst, those of 4.29 seconds. Goes with "
            "the rate.", "The same.", default=0, example=10_000_000,
        ),
    )
), guarded=False)

BANDWIDTH = Key(
    "bandwidth", Nested(_BANDWIDTH),
    "How fast a container receives and sends; `runtimeConfig.bandwidth` has precedence.",
    "Ignores it; `bandwidth` has these keys at the top of its configuration.",
    default={}, example={"ingressRate": 100_000_000, "ingressBurst": 10_000_000},
)

_DNS = Level("runtimeDns", "runtimeConfig.dns", (
    Key(
        "servers", Items(Text("nameserver", blank=False)), "Name servers.", "The reference bridge ignores it.",
        default=[], example=["fd00:10:96::a"],
    ),
    Key(
        "searches", Items(Text("word", blank=False)), "Search domains.", "The reference bridge ignores it.",
        default=[], example=["cluster.local"],
    ),
    Key(
        "options", Items(Text("word", blank=False)), "Resolver options.", "The reference bridge ignores it.",
        default=[], example=["ndots:5"],
    ),
), guarded=False, fold=True)

BRIDGE_ARGS = Level("args", "args", (
    Key(
        "cni", Nested(Level("argsCni", "args.cni", (_ARGS_IPS, _ARGS_MAC, _DELEGATE, ARGS_EGRESS), guarded=False)),
        "What CONVENTIONS.md defines.", "The same.", default={}, example={"ips": ["fd42:1:2:3::5"]},
    ),
), guarded=False)

IPAM_ARGS = Level("ipamArgs", "args", (
    Key(
        "cni", Nested(Level("ipamArgsCni", "args.cni", (_ARGS_IPS, _DELEGATE), guarded=False)),
        "What CONVENTIONS.md defines.", "The same.", default={}, example={"ips": ["fd42:1:2:3::5"]},
    ),
), guarded=False)

BRIDGE_RUNTIME = Level("runtimeConfig", "runtimeConfig", (
    _IPS,
    Key(
        "mac", Text("mac"), "MAC for the container's interface.", "The same.", example="02:00:5e:10:00:01",
    ),
    _IP_RANGES,
    _DELEGATE,
    Key(
        "dns", Nested(_DNS), "Name service; if not empty, it has precedence over `dns` and `ipam.resolvConf`.",
        "Ignores it.", default={}, example={"servers": ["fd00:10:96::a"], "searches": ["cluster.local"]},
    ),
    Key(
        "infinibandGUID", Text("plain"), "Refused: a veth has none.", "Ignores it.",
        example="c2:11:22:33:44:55:66:77",
        refusal=Refusal(
            "is not supported", "a veth interface has no InfiniBand GUID; take infinibandGUID out of capabilities",
        ),
    ),
    Key(
        "bandwidth", Nested(_BANDWIDTH), "As `bandwidth` of the configuration.",
        "Ignores it; `bandwidth` shapes.", default={}, example={"egressRate": 100_000_000, "egressBurst": 10_000_000},
    ),
    PORT_MAPPINGS,
), guarded=False)

IPAM_RUNTIME = Level("ipamRuntimeConfig", "runtimeConfig", (_IPS, _IP_RANGES, _DELEGATE), guarded=False)
