"""Keys of ``ipam`` as our own allocation reads them: those of the reference ``host-local``, and ``link-local``."""

from __future__ import annotations

from cni_v6.keys import Items, Key, Level, Nested, Number, Text

DEFAULT_DATA_DIR = "/var/lib/cni/networks"
UINT32 = 2**32 - 1

_RANGE_KEYS = (
    Key(
        "subnet", Text("subnet", blank=False),
        "The prefix the addresses are of: its network address and length, a /30 or a /126 at least.",
        "The same.", example="fd42:1:2:3::/64", required=True,
    ),
    Key(
        "rangeStart", Text("address"),
        "The first address to hand out. Absent: the one after the network address. Of the network address itself, "
        "which is never handed out, the range begins one later.",
        "The same, but hands out the network address when told to begin there.", example="fd42:1:2:3::1000",
    ),
    Key(
        "rangeEnd", Text("address"),
        "The last address to hand out. Absent: the subnet's last, for IPv4 the one before the broadcast address.",
        "The same, but hands out the IPv4 broadcast address when told to end there.", example="fd42:1:2:3::1fff",
    ),
    Key(
        "gateway", Text("gateway"),
        "The containers' gateway; never handed out. Absent: the subnet's first host address. IPv6 also takes any "
        "address in `fe80::/10`, and `\"link-local\"` for `fe80::1`. Must lie in the subnet otherwise.",
        "The same but for `\"link-local\"`, and accepts a gateway outside the subnet.", example="link-local",
    ),
)

RANGE = Level("range", "ipam.ranges[][]", _RANGE_KEYS)
RUNTIME_RANGE = Level("runtimeRange", "runtimeConfig.ipRanges[][]", _RANGE_KEYS, guarded=False, fold=True)

ROUTE = Level("route", "ipam.routes[]", (
    Key(
        "dst", Text("route", blank=False), "Destination prefix. A range of its family must be there.",
        "The same; host bits fail in the kernel.", example="64:ff9b::/96", required=True,
    ),
    Key(
        "gw", Text("address"), "Next hop, of the family of `dst`. Absent: the family's gateway.",
        "The same.", example="fd42:1:2:3::53",
    ),
    Key("mtu", Number(0, UINT32), "MTU of the path; 0: not set.", "The same.", example=1280),
    Key("advmss", Number(0, UINT32), "MSS to advertise to the destination; 0: not set.", "The same.", example=1220),
    Key("priority", Number(0, UINT32), "The route's metric; 0: the kernel's default.", "The same.", example=100),
    Key("table", Number(0, UINT32), "Routing table. Absent: main (254).", "The same.", example=100),
    Key(
        "scope", Number(0, 255), "0 universe, 253 link, 254 host. Absent: universe.", "The same.", example=253,
    ),
))

IPAM = Level("ipam", "ipam", (
    Key(
        "type", Text("plugin"),
        "`cni-v6-ipam` or `host-local`: allocated in-process. Any other: that plugin, executed from `CNI_PATH`, and "
        "`ipam` is its own matter. Absent: the bridge is layer 2 only; for `cni-v6-ipam` itself an error.",
        "Always executes the plugin.", example="cni-v6-ipam",
    ),
    Key(
        "ranges", Items(Items(Nested(RANGE))),
        "A list of sets of ranges: one address is taken from each set; the ranges of a set spill over in order. "
        "A set is of one family, and no two ranges overlap.",
        "The same.", default=[], example=[[{"subnet": "fd42:1:2:3::/64"}], [{"subnet": "10.1.0.0/16"}]],
    ),
    Key(
        "subnet", Text("subnet"), "A single range, put before `ranges` as a set of its own (the older form).",
        "The same.", example="10.1.0.0/16",
    ),
    Key(
        "rangeStart", Text("address"), "As in a range, for `subnet`; refused without one.",
        "The same; ignored without `subnet`.", example="10.1.1.0",
    ),
    Key(
        "rangeEnd", Text("address"), "As in a range, for `subnet`; refused without one.",
        "The same; ignored without `subnet`.", example="10.1.1.255",
    ),
    Key(
        "gateway", Text("gateway"), "As in a range, for `subnet`; refused without one.",
        "The same; ignored without `subnet`.", example="10.1.0.1",
    ),
    Key(
        "exclude", Items(Text("span", blank=False)),
        "Prefixes and addresses, of both families, that are handed out by none of the ranges; at most 512.",
        "No such key.", default=[], example=["fd42:1:2:3::/112", "10.1.0.53"],
    ),
    Key(
        "routes", Items(Nested(ROUTE)), "Routes for the container, besides the default route of `isDefaultGateway`.",
        "The same.", default=[], example=[{"dst": "::/0"}],
    ),
    Key(
        "dataDir", Text("path"), "Folder of the leases, absolute and without `..`; a folder per network within.",
        "The same; takes any path.", default=DEFAULT_DATA_DIR, example="/run/cni-v6",
    ),
    Key(
        "resolvConf", Text("path"), "A file in the form of resolv.conf, the source of the result's `dns`; absolute.",
        "The same; takes any path.", default="", example="/etc/cni/resolv.conf",
    ),
))
