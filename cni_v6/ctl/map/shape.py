"""What ``map --json`` prints: ``drawing.document`` writes it."""

from __future__ import annotations

from cni_v6.allocation.policy import RANDOM, SEQUENTIAL, STABLE
from cni_v6.ctl.output import (
    HELD,
    OWNER,
    Output,
    choice,
    flag,
    listed,
    number,
    object_of,
    or_null,
    text,
    texts,
    whole,
)
from cni_v6.drawing import cluster, node, space

FAMILY = choice("IPv4 or IPv6", 4, 6)
STATES = {state: whole(f"addresses that are {space.LABELS[state]}: {meaning}")
          for state, meaning in space.MEANINGS.items()}

UPLINK = object_of({
    "interface": text("of the node"), "up": flag("whether it is up"), "mtu": whole("0 if it is not on the node"),
    "addresses": texts("with their prefix lengths"),
    "defaultRoutes": listed(object_of({"family": FAMILY, "gateway": text("empty for none")}), "through it"),
})
ATTACHMENT = object_of({
    **OWNER, **HELD,
    "hostInterface": text("the node's end of the link; empty for none"),
    "created": number("seconds since the epoch; 0 if it is not known"),
    "state": choice("whether packets can reach it, or why there is nothing to reach", *node.STATES),
    "problem": text("why it is not up; empty if it is"),
    "publishedPorts": listed(object_of({
        "protocol": text("tcp, udp or sctp"), "hostIP": text("empty for every address of the node"),
        "hostPort": whole("of the node"), "containerPort": whole("of the container"),
    }), "of the container"),
    "policies": texts("in a few words each"),
})
SEGMENT = object_of({
    "kind": choice("a bridge, a routed network, the master of macvlans, ipvlans and vlans, or leases only",
                   node.BRIDGE, node.ROUTED, node.MASTER, node.LEASES),
    "name": text("of the interface, or of the network"), "up": flag("whether it is up"),
    "mtu": whole("0 if it has no interface of its own"), "addresses": texts("of the node there"),
    "networks": texts("of its containers"),
    "leaves": listed(object_of({
        "family": FAMILY, "uplinks": texts("empty if packets do not leave"), "how": texts("in a few words each"),
    }), "how packets to the outside leave"),
    "policies": listed(object_of({"policy": text("in a few words"), "containers": whole("that it applies to")}),
                       "of its containers"),
    "attachments": listed(ATTACHMENT, "on it"),
})
SPACE = object_of({
    "network": OWNER["network"], "prefix": text("the subnet"), "set": whole("the number of its range set, from 0"),
    "order": choice("ipam.allocation", SEQUENTIAL, RANDOM, STABLE), "reused": flag("whether addresses are given again"),
    "counts": object_of(STATES, meaning="each address of the subnet counts once"),
    "notShown": whole("addresses that are spent, but not counted as such"),
    "given": listed({"type": "array", "items": {"type": "number"}},
                    "pairs of seconds since the epoch and a number of addresses"),
    "givenIsComplete": flag("whether given counts the released addresses too, and not only those that are held"),
    "ratePerSecond": or_null(number("observed; null if it is not known")),
    "years": or_null(number("that the set lasts; null if it is not known")),
})
MEMBER = object_of({
    "node": text("its name"), "state": choice("what the others say of it", *cluster.KINDS),
    "carrier": text("how it is reached"), "addresses": texts("at which it is reached"),
    "blocks": listed(object_of({
        "prefix": text("of the block"), "room": whole("for containers"),
        "leases": or_null(whole("that containers have; null if nobody has counted them")),
    }), "IPv6 first"),
    "answers": texts("the same as state, for each family in words"),
})
OUTPUT = Output(object_of({
    "time": number("of the look, in seconds since the epoch"), "node": text("its host name"),
    "firewallLoaded": or_null(flag("whether the tables are as they were loaded; null if that cannot be seen")),
    "uplinks": listed(UPLINK, "interfaces by which packets leave the node"),
    "segments": listed(SEGMENT, "what containers are connected by"),
    "addressSpaces": listed(SPACE, "of the networks with a configuration"),
    "networksWithoutConfiguration": texts("with attachments; their address spaces are not known"),
    "cluster": or_null(listed(MEMBER, "the nodes of the cluster; null without --cluster")),
}))
