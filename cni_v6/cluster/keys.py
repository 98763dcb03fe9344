"""The keys of the node agent's configuration, as ``config.keys`` has them: for the parser and the JSON Schema."""

from __future__ import annotations

from dataclasses import replace

from cni_v6.config.keys import Flag, Items, Key, Level, Nested, Number, Text

DIRECT, VXLAN, SRV6, WIREGUARD, BGP = "direct", "vxlan", "srv6", "wireguard", "bgp"
CARRIERS = (DIRECT, VXLAN, SRV6, WIREGUARD, BGP)
STATE_DIR = "/var/lib/cni/cluster"
BIRD_FILE, BIRD_SOCKET = "/var/lib/cni/bird/cni-v6.conf", "/run/bird/bird.ctl"
AUTO = "auto"
OPEN = "open"  # of ``ingress``
MAX_BLOCKS = 20  # of a pool
LAST_AS = 0xFFFF_FFFE  # the one after it is reserved (RFC 7300), as 0 is (RFC 7607)

POOL = Level("pool", "pools[]", (
    Key("cidr", Text("subnet", blank=False), "The prefix that the nodes share.", "", required=True,
        example="fd42:8e1f:6a00::/48"),
    Key("block", Number(1, 126), "Prefix length of a node's block: as long as that of the pool or longer.", "",
        required=True, example=64),
    Key("podCIDRs", Flag(), "Take the block that Kubernetes gives the node (`spec.podCIDRs`), and no other one.", "",
        default=False, example=True),
    Key("spare", Number(1, 65_536), "A node claims another block once fewer addresses than this are free in those that "
        "it has. Absent: an eighth of a block.", "", example=16),
    Key("maxBlocks", Number(1, 1024), "The most blocks that a node has. `1`: it never claims another one.", "",
        default=MAX_BLOCKS, example=4),
))

OTHER_POOL = Level("clusterPool", "clusters[].pools[]", tuple(
    replace(key, meaning="The prefix that its nodes share.", example="fd42:8e1f:6a01::/48") if key.name == "cidr"
    else key
    for key in POOL.keys if key.name in ("cidr", "block")
))

CLUSTER = Level("cluster", "clusters[]", (
    Key("name", Text("word", blank=False), "What the agent calls it in what it says, and in its folder.", "",
        required=True, example="east"),
    Key("store", Text("plain", blank=False), "Its store, as `--cluster` has it. It is read, and never written.", "",
        required=True, example="etcd:http://[fd00:12::ff]:2379/east"),
    Key("pools", Items(Nested(OTHER_POOL)), "Its pools. Blocks of other prefixes get no routes, whatever its store "
        "says.", "", required=True, example=[{"cidr": "fd42:8e1f:6a01::/48", "block": 64}]),
    Key("ingress", Text("clusterIngress"), "Who of it may reach this cluster's containers. `published`: nobody, but "
        "for published ports, as `ingress` of a network; `open`: all of it, or `from`.", "",
        default="published", example="open"),
    Key("from", Items(Text("route", blank=False)), "With `open`: the prefixes of its pools that may reach this "
        "cluster's containers. Absent: all.", "", default=[], example=["fd42:8e1f:6a01:7::/64"]),
))

CONFLIST = Level("conflist", "conflist", (
    Key("template", Text("path", blank=False), "A configuration list without `ipam.ranges`: the agent adds the "
        "node's blocks to its first plugin, and `mtu`.", "", required=True,
        example="/etc/cni/cni-v6-cluster.conflist"),
    Key("target", Text("path", blank=False), "The file to write for the container runtime.", "", required=True,
        example="/etc/cni/net.d/10-cni-v6.conflist"),
))

PEER = Level("peer", "bgp.peers[]", (
    Key("address", Text("peer", blank=False), "Its IPv6 address, on the link of `underlay`; also a link-local one. "
        "`unnumbered`: whatever link-local one it has; the link is theirs alone, and it begins the session.", "",
        required=True, example="fd00:11::fe"),
    Key("as", Number(1, LAST_AS), "Its AS number. That of the node itself: it reflects routes.", "", required=True,
        example=64512),
    Key("bfd", Flag(), "Notice within a second that it, or the way to it, is gone. It must do the same, and BIRD needs "
        "`protocol bfd`.", "", default=False, example=True),
    Key("ttlSecurity", Flag(), "Take only packets that no router has forwarded (RFC 5082). It must do the same. With "
        "`false`, a container can speak to it as if it were the node.", "", default=True, example=True),
    Key("include", Text("path"), "A file of your own, which BIRD reads as part of the protocol of this peer, such as "
        "one with a `password`.", "", example="/etc/bird/cni-v6-peer.conf"),
))

SPEAKER = Level("bgp", "bgp", (
    Key("as", Number(1, LAST_AS), "The AS number of the node. Required.", "", example=64512),
    Key("peers", Items(Nested(PEER)), "The routers to announce the node's blocks to, and to learn the others' from. "
        "Required.", "", example=[{"address": "fd00:11::fe", "as": 64512}]),
    Key("file", Text("path"), "What the agent writes for BIRD, whose own configuration must include it.", "",
        default=BIRD_FILE, example=BIRD_FILE),
    Key("socket", Text("path"), "BIRD's control socket.", "", default=BIRD_SOCKET, example=BIRD_SOCKET),
))

AGENT = Level("agent", "", (
    Key("pools", Items(Nested(POOL)), "The prefixes to take blocks from, one a family at most. Containers get an "
        "address of each, in this order.", "", required=True,
        example=[{"cidr": "fd42:8e1f:6a00::/48", "block": 64}, {"cidr": "10.244.0.0/16", "block": 26}]),
    Key("carrier", Text("carrier"), "How packets get to the containers of other nodes. `direct`: by routes; all nodes "
        "are on one link. `vxlan`: by a tunnel over IPv6; any links. `srv6`: by routes and segment routing; one link. "
        "`wireguard`: encrypted; any links. `bgp`: by routes that BIRD announces and learns.",
        "", default=DIRECT, example=DIRECT),
    Key("underlay", Text("interface"), "The interface to the other nodes. `auto`: that of the default route, IPv6 "
        "first.", "", default=AUTO, example="eth0"),
    Key("bgp", Nested(SPEAKER), "For `carrier` `bgp`: who the node is, and whom it speaks to.", ""),
    Key("conflist", Nested(CONFLIST), "What the agent writes for the container runtime.", "", required=True),
    Key("clusters", Items(Nested(CLUSTER)), "Other clusters whose containers are reached without NAT.", "", default=[],
        example=[{"name": "east", "store": "etcd:http://[fd00:12::ff]:2379/east",
                  "pools": [{"cidr": "fd42:8e1f:6a01::/48", "block": 64}]}]),
    Key("reportEvery", Text("duration", blank=False), "How often the agent measures how full its blocks are, and "
        "whether a few other nodes answer. It writes what has changed, for `cni-v6ctl nodes`. `0s`: never.", "",
        default="1m", example="5m"),
    Key("giveBackAfter", Text("duration", blank=False), "For how long a block that the node can do without must be "
        "empty before it leaves the configuration list, and for how long after that before other nodes can have it. "
        "Less than half of `ipam.reuseAfter` counts as that half. `0s`: never.", "", default="30m", example="1h"),
    Key("stateDir", Text("path"), "The agent's folder: what it knows of the cluster, for a start without it.", "",
        default=STATE_DIR, example=STATE_DIR),
))
