"""Rules that answer packets to addresses that nobody on a segment has, before the kernel resolves the address.

A packet to an address that nobody has creates an entry in the kernel's neighbour table. All namespaces share that
table, and it has room for 1,024 entries (``gc_thresh3``). So a scan of one network would take the gateway from all
containers (RFC 6583, section 3). The containers' addresses are known (``home4``, ``home6``). For all others a rule
answers before the entry is made, which is after these hooks (ip_finish_output2 in net/ipv4 and net/ipv6/ip*_output.c).

The link group of an interface (``policy.CLOSED_SEGMENT``) tells whether the rules apply to it. The group ends with the
interface, unlike a name, which another interface may get. A rule compares it as a number.
"""

from __future__ import annotations

from cni_v6.firewall.policy import CLOSED_SEGMENT, SHARED_SEGMENT

TRIED = 128  # unknown addresses that the kernel may resolve on shared segments in 10 seconds

# ``from_segment``: if a packet goes back to its segment, the kernel resolves its target before the forward hook, to
# redirect the sender (ip6_forward, net/ipv6/ip6_output.c: ndisc_send_redirect). IPv4 does not.
CHAINS = """
    set tried4 {
        type ipv4_addr . ifname
        size %(tried)s
        flags dynamic,timeout
        timeout 10s
    }

    set tried6 {
        type ipv6_addr . ifname
        size %(tried)s
        flags dynamic,timeout
        timeout 10s
    }

    set onto_now {
        type iface_index
        size 1024
        flags dynamic,timeout
        timeout 10s
    }

    # Packets that come from a segment of ours.
    chain from_segment {
        meta nfproto 2 accept
        ct state established,related accept
        ip6 daddr . iifname @home6 accept
        ip6 daddr ff00::/8 accept
        fib daddr . iif oif missing accept
        ip6 daddr . iifname @home_prefixes6 accept
        meta iifgroup %(shared)s update @tried6 { ip6 daddr . iifname } accept
        goto unknown_address
    }

    # Packets of the node itself, perhaps answers to a forged source. Link-local destinations are not tested.
    chain output_known {
        type filter hook output priority 0; policy accept;
        meta oifgroup & 0xfffffffe != %(closed)s accept
        ip6 daddr fe80::/10 accept
        jump known_address
    }

    # Packets routed to a segment of ours. From elsewhere, the source must not be an address of that segment: the
    # container would resolve it for its answer, in the same neighbour table. The set serves only to compare two
    # interfaces, which a rule cannot do.
    chain to_segment {
        meta iifgroup & 0xfffffffe == %(closed)s goto known_address
        update @onto_now { oif }
        fib saddr oif @onto_now counter drop
        goto known_address
    }

    # The destinations to accept: a container, a multicast group or a broadcast address.
    chain known_address {
        ip daddr . oifname @home4 return
        ip6 daddr . oifname @home6 return
        ip6 daddr . oifname @home_prefixes6 return
        ip daddr 224.0.0.0/4 return
        ip6 daddr ff00::/8 return
        fib daddr type broadcast return
        meta oifgroup %(shared)s update @tried4 { ip daddr . oifname } return
        meta oifgroup %(shared)s update @tried6 { ip6 daddr . oifname } return
        goto unknown_address
    }

    chain unknown_address {
        limit rate 50/second burst 50 packets reject with icmpx type host-unreachable
        counter drop
    }
""" % {"tried": TRIED, "closed": CLOSED_SEGMENT, "shared": SHARED_SEGMENT}
