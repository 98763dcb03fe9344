"""Keys of the firewall: masquerade, prefix translation, published ports, who may reach whom, the guard of the bridge.

The reference plugins are ``bridge`` for ``ipMasq``, ``ipMasqBackend`` and ``macspoofchk``, and ``portmap``.
"""

from __future__ import annotations

from cni_v6.config.keys import Flag, Items, Key, Level, Nested, Number, Text

MAX_PORT = 65535

_MODE_MEANING = "`on`, `off`, or `auto`: private addresses only ({})."

MASQUERADE = Level("masquerade", "masquerade", (
    Key(
        "ipv4", Text("masquerade"), _MODE_MEANING.format("RFC 1918 and 100.64.0.0/10"), "No such key.",
        default="auto", example="on",
    ),
    Key(
        "ipv6", Text("masquerade"), _MODE_MEANING.format("`fc00::/7`"), "No such key.", default="auto", example="off",
    ),
))

SNAT = Level("snat", "snat", (
    Key("ipv4", Text("source"), "An IPv4 address of the node.", "No such key.", example="192.0.2.7"),
    Key("ipv6", Text("source"), "An IPv6 address of the node.", "No such key.", example="2001:db8::7"),
))

NPTV6 = Level("nptv6", "nptv6", (
    Key(
        "internal", Text("translated"), "The prefix that the containers have; needs `external`.", "No such key.",
        example="fd42:1:2:3::/64",
    ),
    Key(
        "external", Text("translated"), "The prefix that the outside sees: of the same length, routed to the node.",
        "No such key.", example="2001:db8:1:2::/64",
    ),
))

EGRESS = Level("egress", "egress[]", (
    Key(
        "to", Text("route", blank=False), "A destination prefix.", "No such key.", required=True,
        example="2001:db8:5::/48",
    ),
    Key(
        "ports", Items(Text("ports", blank=False)),
        "`tcp`, `udp` or `sctp`, alone or with a port or a range of ports. Absent: any protocol.", "No such key.",
        example=["tcp/443", "udp/5000-5010", "sctp"],
    ),
))

_EGRESS_EXAMPLE = [{"to": "2001:db8:5::/48", "ports": ["tcp/443"]}]

ARGS_EGRESS = Key(
    "egress", Items(Nested(EGRESS)),
    "As `egress` of the configuration; with both, a container reaches what both allow.", "Ignores it.",
    example=_EGRESS_EXAMPLE,
)

PORT_MAPPING = Level("portMapping", "runtimeConfig.portMappings[]", (
    Key("hostPort", Number(1, MAX_PORT), "The node's port.", "The same.", required=True, example=8080),
    Key("containerPort", Number(1, MAX_PORT), "The container's port.", "The same.", required=True, example=80),
    Key(
        "protocol", Text("protocol"), "`tcp`, `udp` or `sctp`, in any case.", "The same.",
        default="tcp", example="udp",
    ),
    Key(
        "hostIP", Text("hostAddress"),
        "The node's address where the port is published; `0.0.0.0` or `::`: all of that family. Absent: all addresses "
        "of each family that the container has. Not in `fe80::/10`.",
        "The same.", default="", example="2001:db8::7",
    ),
), guarded=False, fold=True)

PORT_MAPPINGS = Key(
    "portMappings", Items(Nested(PORT_MAPPING)), "Ports to publish, each once.", "Ignores it; `portmap` publishes.",
    default=[], example=[{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}],
)

FIREWALL = (
    Key(
        "ipMasq", Flag(), "Masquerade what leaves the network, in both families; excludes `masquerade`.",
        "The same.", default=False, example=True,
    ),
    Key(
        "ipMasqBackend", Text("backend"), "Only `nftables`.", "`iptables` or `nftables`.",
        default="nftables", example="nftables",
    ),
    Key(
        "masquerade", Nested(MASQUERADE), "Masquerade what leaves the network, per family. Absent: as `ipMasq` says.",
        "No such key.", example={"ipv4": "on", "ipv6": "auto"},
    ),
    Key(
        "nonMasquerade", Items(Text("route", blank=False)),
        "Destinations towards which the container's address is not translated.", "No such key.",
        default=[], example=["10.0.0.0/8", "fd00::/8"],
    ),
    Key(
        "snat", Nested(SNAT), "The source address of masqueraded packets. Absent: that of the outgoing interface.",
        "No such key.", example={"ipv4": "192.0.2.7"},
    ),
    Key(
        "nptv6", Nested(NPTV6), "Translate an IPv6 prefix to another, one to one, in both directions.", "No such key.",
        example={"internal": "fd42:1:2:3::/64", "external": "2001:db8:1:2::/64"},
    ),
    Key(
        "ingress", Text("ingress"),
        "Who may reach a container. `published`: from outside the network only its published ports; `open`: everyone; "
        "`isolated`: as `published`, and the other containers of the network count as outside.",
        "No such key; open.", default="published", example="open",
    ),
    Key(
        "guard", Flag(),
        "A container sends only from its own MAC and addresses, and neither as a router nor as a DHCP server.",
        "No such key.", default=True, example=False,
    ),
    Key(
        "macspoofchk", Flag(), "Drop frames with another source MAC; part of `guard`.", "The same.",
        default=False, example=True,
    ),
    Key(
        "egress", Items(Nested(EGRESS)),
        "What a container may reach outside its network. `[]`: nothing. Absent: everything.", "No such key.",
        example=_EGRESS_EXAMPLE,
    ),
)
