"""Keys of ``ipam`` as our own allocation reads them: those of the reference ``host-local``, and ``link-local``."""

from __future__ import annotations

from cni_v6.config.keys import Items, Key, Level, Named, Nested, Number, Text

DELEGATE = Key(
    "delegate", Number(64, 127),
    "Each container also gets a whole IPv6 prefix of this length, which the node routes to it: from the first IPv6 set "
    "that uses no address twice. Needs `isGateway`.",
    "No such key.", example=80,
)

DEFAULT_DATA_DIR = "/var/lib/cni/networks"
DEFAULT_REUSE_AFTER = "1h"
SLAAC_IPAM = "cni-v6-slaac"  # ``keys.slaac``
UINT32 = 2**32 - 1

_RANGE_KEYS = (
    Key(
        "subnet", Text("subnet", blank=False),
        "The prefix of the addresses: network address and length, at least a /30 or a /126. Required without "
        "`from`.", "The same; required.", example="fd42:1:2:3::/64",
    ),
    Key(
        "from", Text("interface"),
        "Instead of `subnet`: an interface of the node. The range follows the IPv6 prefix that the interface has at "
        "each ADD ([renumbering](renumbering.md)). The gateway is link-local then.",
        "No such key.", example="eth0",
    ),
    Key(
        "subnetId", Text("hex"),
        "With `from`: which subnet of that prefix, in hexadecimal digits. They fill the bits up to `length`. "
        "Absent: 0.", "No such key.", example="ab00",
    ),
    Key("length", Number(1, 126), "With `from`, required: the subnet's length.", "No such key.", example=72),
    Key(
        "rangeStart", Text("address"),
        "The first address of the range. Absent: the one after the network address. The network address itself is "
        "never used: a range that begins there begins one later.",
        "The same, but uses the network address if the range begins there.", example="fd42:1:2:3::1000",
    ),
    Key(
        "rangeEnd", Text("address"),
        "The last address of the range. Absent: the last of the subnet, for IPv4 the one before the broadcast address.",
        "The same, but uses the IPv4 broadcast address if the range ends there.", example="fd42:1:2:3::1fff",
    ),
    Key(
        "gateway", Text("gateway"),
        "The containers' gateway; no container gets it. Absent: the first host address of the subnet. Must be in the "
        "subnet, or for IPv6 in `fe80::/10`; `\"link-local\"` means `fe80::1`.",
        "The same except for `\"link-local\"`, and accepts a gateway outside the subnet.", example="link-local",
    ),
)

RANGE = Level("range", "ipam.ranges[][]", _RANGE_KEYS, one_of=("subnet", "from"))
RUNTIME_RANGE = Level("runtimeRange", "runtimeConfig.ipRanges[][]", _RANGE_KEYS, guarded=False, fold=True)

ROUTE = Level("route", "ipam.routes[]", (
    Key(
        "dst", Text("destination", blank=False),
        "Destination prefix. Left out, with a warning, where the network has no range of its family; host bits are "
        "cleared, with a warning.",
        "Must be of a family of the network; IPv6 host bits fail in the kernel.", example="64:ff9b::/96", required=True,
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
        "`cni-v6-ipam` or `host-local`: allocated in-process. Any other: that plugin is executed from `CNI_PATH` and "
        "reads `ipam` itself. Absent: the bridge is layer 2 only; for `cni-v6-ipam` itself an error.",
        "Always executes the plugin.", example="cni-v6-ipam",
    ),
    Key(
        "ranges", Items(Items(Nested(RANGE))),
        "A list of sets of ranges. A container gets one address from each set; when a range is full, the next range "
        "of its set is used. A set is of one family, and no two ranges overlap.",
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
        "Prefixes and addresses of both families that no container gets; at most 512.",
        "No such key.", default=[], example=["fd42:1:2:3::/112", "10.1.0.53"],
    ),
    Key(
        "reserve", Named(Text("address", blank=False)),
        "Addresses for one workload alone, at most one per set. The workload is the `namespace/name` of a pod, the "
        "name of a container, or a container id. At most 512, together with `exclude`.",
        "No such key.", default={}, example={"shop/db-0": ["fd42:1:2:3::d0", "10.1.0.100"], "proxy": "10.1.0.101"},
    ),
    Key(
        "allocation", Text("allocation"),
        "Which address of a set is next. `sequential`: the one after the last; `random`: any; `stable`: the same one "
        "for the same workload and interface.",
        "`sequential`.", default="sequential", example="stable",
    ),
    Key(
        "secretFile", Text("path"),
        "With `stable`: a file with at least 16 bytes of text. With the same file on all nodes, a workload has the "
        "same address on each. Absent: each node makes a secret for the network.",
        "No such key.", default="", example="/etc/cni/stable.secret",
    ),
    Key(
        "reuse", Text("reuse"),
        "Whether a released address is used again. `never`; `after`: the address released first, and not before "
        "`reuseAfter`; `auto`: `never` in a set of 2^32 addresses or more, otherwise `after`. `stable` excludes "
        "`never`.",
        "Uses it again after all others.", default="auto", example="never",
    ),
    Key(
        "reuseAfter", Text("duration"),
        "How long a released address stays unused, in `s`, `m`, `h` or `d`; less if no other address is left.",
        "No such key.", default=DEFAULT_REUSE_AFTER, example="7d",
    ),
    Key(
        "required", Items(Text("family", blank=False)),
        "The families of which a container must get an address. If another family is exhausted, or off on the node, "
        "the container is attached without it. Absent: all families that have ranges.",
        "All.", example=["ipv6"],
    ),
    DELEGATE,
    Key(
        "routes", Items(Nested(ROUTE)), "Routes for the container, besides the default route of `isDefaultGateway`.",
        "The same.", default=[], example=[{"dst": "::/0"}],
    ),
    Key(
        "dataDir", Text("path"), "Folder of the leases, with a folder for each network; absolute and without `..`.",
        "The same; accepts any path.", default=DEFAULT_DATA_DIR, example="/run/cni-v6",
    ),
    Key(
        "resolvConf", Text("path"), "A file in the format of resolv.conf for the result's `dns`; absolute.",
        "The same; accepts any path.", default="", example="/etc/cni/resolv.conf",
    ),
))
