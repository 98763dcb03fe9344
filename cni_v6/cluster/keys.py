"""The keys of the node agent's configuration, as ``config.keys`` has them: for the parser and the JSON Schema."""

from __future__ import annotations

from dataclasses import replace

from cni_v6.config.keys import Flag, Items, Key, Level, Nested, Number, Text

DIRECT, VXLAN, SRV6 = "direct", "vxlan", "srv6"
CARRIERS = (DIRECT, VXLAN, SRV6)
STATE_DIR = "/var/lib/cni/cluster"
AUTO = "auto"
OPEN = "open"  # of ``ingress``

POOL = Level("pool", "pools[]", (
    Key("cidr", Text("subnet", blank=False), "The prefix that the nodes share.", "", required=True,
        example="fd42:8e1f:6a00::/48"),
    Key("block", Number(1, 126), "Prefix length of a node's block: as long as that of the pool or longer.", "",
        required=True, example=64),
    Key("podCIDRs", Flag(), "Take the block that Kubernetes gives the node (`spec.podCIDRs`), and no other one.", "",
        default=False, example=True),
))

OTHER_POOL = Level("clusterPool", "clusters[].pools[]", tuple(
    replace(key, meaning="The prefix that its nodes share.") if key.name == "cidr" else key
    for key in POOL.keys if key.name != "podCIDRs"
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

AGENT = Level("agent", "", (
    Key("pools", Items(Nested(POOL)), "The prefixes to take blocks from, one a family at most. Containers get an "
        "address of each, in this order.", "", required=True,
        example=[{"cidr": "fd42:8e1f:6a00::/48", "block": 64}, {"cidr": "10.244.0.0/16", "block": 26}]),
    Key("carrier", Text("carrier"), "How packets get to the containers of other nodes. `direct`: by routes; all nodes "
        "are on one link. `vxlan`: by a tunnel over IPv6; any links. `srv6`: by routes and segment routing; one link.",
        "", default=DIRECT, example=DIRECT),
    Key("underlay", Text("interface"), "The interface to the other nodes. `auto`: that of the default route, IPv6 "
        "first.", "", default=AUTO, example="eth0"),
    Key("conflist", Nested(CONFLIST), "What the agent writes for the container runtime.", "", required=True),
    Key("clusters", Items(Nested(CLUSTER)), "Other clusters whose containers are reached without NAT.", "", default=[],
        example=[{"name": "east", "store": "etcd:http://[fd00:12::ff]:2379/east",
                  "pools": [{"cidr": "fd42:8e1f:6a01::/48", "block": 64}]}]),
    Key("reportEvery", Text("duration", blank=False), "How often the agent measures how full its blocks are, and "
        "whether a few other nodes answer. It writes what has changed, for `cni-v6ctl nodes`. `0s`: never.", "",
        default="1m", example="5m"),
    Key("stateDir", Text("path"), "The agent's folder: what it knows of the cluster, for a start without it.", "",
        default=STATE_DIR, example=STATE_DIR),
))
