"""Nobody is asked for on a segment but who is there: rules, and the mark of the interfaces that they hold for.

What is sent to an address that nobody has leaves an entry in the kernel's neighbour table, which is one for all
namespaces and has room for 1,024 (``gc_thresh3``): a scan of one network would take everybody's gateway away (RFC 6583,
section 3). The containers' addresses are known (``home4``, ``home6``), so all others are answered for before there is
an entry: the kernel makes it after these hooks (ip_finish_output2 in net/ipv4 and net/ipv6/ip*_output.c).

Whether that holds on an interface is its link group (``policy.CLOSED_SEGMENT``): it ends with the interface, whoever
makes another one of its name, and a rule compares a number.
"""

from __future__ import annotations

from cni_v6.firewall.policy import CLOSED_SEGMENT, SHARED_SEGMENT

TRIED = 128  # addresses that nobody is known to have, and that are looked for on shared segments, in 10 seconds

# ``from_segment``: a packet that goes back to where it came from makes the kernel look for its target, to redirect the
# sender there, before it is forwarded (ip6_forward, net/ipv6/ip6_output.c: ndisc_send_redirect). IPv4 does not.
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

    # What comes from a segment of ours.
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

    # What the node itself says, which may be an answer to a forged source. A link-local neighbour is its own affair.
    chain output_known {
        type filter hook output priority 0; policy accept;
        meta oifgroup & 0xfffffffe != %(closed)s accept
        ip6 daddr fe80::/10 accept
        jump known_address
    }

    # What is routed onto a segment of ours; from elsewhere not with an address of that segment, for which the container
    # would look, in the same table, to answer it. That the way back is the way there can be said by a set alone.
    chain to_segment {
        meta iifgroup & 0xfffffffe == %(closed)s goto known_address
        update @onto_now { oif }
        fib saddr oif @onto_now counter drop
        goto known_address
    }

    # A container, a group or everybody.
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
