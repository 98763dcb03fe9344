"""What a container may say on its segment: the rules of ``table bridge cni_v6``."""

from __future__ import annotations

CHAINS = """
    chain speaking {
        type filter hook prerouting priority -300; policy accept;
        jump spoken
    }

    # What is sent to the bridge itself passes no prerouting hook, but the bridge learns from it where a MAC is, and
    # the port's own interface receives it (br_handle_frame, net/bridge/br_input.c).
    chain unforwarded {
        type filter hook input priority -200; policy accept;
        ether daddr & ff:ff:ff:ff:ff:f0 == 01:80:c2:00:00:00 jump spoken
    }

    # What is said to multicast routers alone (reports: RFC 3810, section 5.2.14; RFC 3376, section 4.2.14) no container
    # needs to hear, as none is a router. Without a querier a bridge would carry each newcomer's into all of them.
    chain heard {
        type filter hook forward priority -200; policy accept;
        meta pkttype multicast ip6 daddr ff02::16 oifname @guarded drop
        meta pkttype multicast ip daddr 224.0.0.22 oifname @guarded drop
    }

    chain spoken {
        iifname @bound iifname . ether saddr != @macs counter drop
        iifname @guarded jump guarded
        iifname @pinned jump pinned
    }

    # No router, no redirect, no querier (MLD 130, IGMP 17), which on a snooping bridge decides who hears what, no DHCP
    # server, in a VLAN (its tag is not in the frame any more) as without one; and nothing behind a second tag or one
    # without a VLAN, where it could not be seen (CVE-2021-27853). A client of DHCP listens at its port to whoever sends
    # there: nobody but a server does.
    chain guarded {
        meta protocol { 8021q, 8021ad } counter drop
        ether type 8021q vlan id 0 counter drop
        meta protocol ip6 meta l4proto ipv6-icmp @th,0,8 { 130, 134, 137 } counter drop
        meta protocol ip meta l4proto icmp @th,0,8 { 5, 9 } counter drop
        meta protocol ip meta l4proto igmp @th,0,8 17 counter drop
        meta protocol { ip, ip6 } meta l4proto udp @th,0,16 { 67, 547 } counter drop
        meta protocol { ip, ip6 } meta l4proto udp @th,16,16 { 68, 546 } counter drop
    }

    chain pinned {
        ether type vmap { arp : goto pinned_arp, ip : goto pinned4, ip6 : goto pinned6 }
        counter drop
    }

    # 0.0.0.0 is a probe, RFC 5227; for another's address, it would have the other take it for a conflict.
    chain pinned_arp {
        iifname . arp saddr ether != @macs counter drop
        iifname . arp saddr ip @sources4 accept
        arp saddr ip 0.0.0.0 iifname . arp daddr ip @sources4 accept
        counter drop
    }

    chain pinned4 {
        iifname . ip saddr @sources4 accept
        ip saddr 0.0.0.0 udp sport 68 udp dport 67 accept
        counter drop
    }

    # 136: neighbour advertisement, whose target is the address it speaks for; 135 from :: is duplicate address
    # detection (RFC 4862, section 5.4.2), 143 from :: a listener report (RFC 3810, section 5.2.13).
    chain pinned6 {
        meta l4proto ipv6-icmp @th,0,8 136 iifname . @th,64,128 != @targets6 counter drop
        iifname . ip6 saddr @sources6 accept
        iifname . ip6 saddr @source_prefixes6 accept
        ip6 saddr :: meta l4proto ipv6-icmp @th,0,8 135 iifname . @th,64,128 @targets6 accept
        ip6 saddr :: meta l4proto ipv6-icmp @th,0,8 143 accept
        counter drop
    }
"""
