"""Rules by which published ports answer at ::1, as they do at 127.0.0.1.

IPv6 has no route_localnet: the kernel takes no packet for ::1 from another interface than loopback (ip6_rcv_core,
net/ipv6/ip6_input.c), not even an answer that it has translated itself. So a client at ::1 has another source before
the connection is tracked, and the answer gets ::1 back after the translation, which comes at 100.
"""

from __future__ import annotations

# It stands for ::1 between the client and the translation, and is no address of the node's: a route leads it to itself.
# It is of the prefix for addresses that are no host's, and that no router forwards (RFC 9780, section 7.1).
STANDS_FOR = "100:0:0:1::1"

CHAINS = """
    chain output_loopback {
        type filter hook output priority -300; policy accept;
        ip6 saddr ::1 ip6 daddr ::1 meta l4proto { %(tcp)s, %(udp)s, %(sctp)s } jump from_loopback
    }

    chain from_loopback {
        meta l4proto . th dport @loopback_at6 ip6 saddr set %(for_loopback)s return
        meta l4proto . th dport @loopback6 ip6 saddr set %(for_loopback)s
    }

    chain input_loopback {
        type filter hook input priority 110; policy accept;
        ip6 saddr ::1 ip6 daddr %(for_loopback)s ip6 daddr set ::1
    }
"""
