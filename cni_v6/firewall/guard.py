"""What a container may send on its segment: the rules of ``table bridge cni_v6``.

A frame passes as few rules as possible. Most frames are TCP or UDP with the right source, and need one lookup.
"""

from __future__ import annotations

# Protocols and ports are numbers: nft looks names up in /etc, which a node may lack.
CHAINS = """
    # Accept TCP (6), and UDP (17) other than that of DHCP servers and routers, from the port's MAC and address. UDP
    # between ports above all of theirs comes first: two comparisons instead of two lookups. (In a VLAN the ether type
    # is that of the tag.)
    chain bridge_guard {
        type filter hook prerouting priority -300; policy accept;
        ether type 0x86dd ip6 nexthdr 6 iifname . ether saddr . ip6 saddr @sources6 accept
        ether type 0x0800 ip protocol 6 iifname . ether saddr . ip saddr @sources4 accept
        ether type 0x86dd ip6 nexthdr 17 th sport >547 th dport >2029 iifname . ether saddr . ip6 saddr @sources6 accept
        ether type 0x0800 ip protocol 17 th sport >547 th dport >2029 iifname . ether saddr . ip saddr @sources4 accept
        ether type 0x86dd ip6 nexthdr 17 jump guard_usual_udp
        ether type 0x0800 ip protocol 17 jump guard_usual_udp
        goto guard_source
    }

    chain guard_usual_udp {
        @th,0,16 { 67, 547 } return
        @th,16,16 { 68, 546, 520, 521, 1985, 2029 } return
        iifname . ether saddr . ip6 saddr @sources6 accept
        iifname . ether saddr . ip saddr @sources4 accept
    }

    # Frames to a bridge group address pass no prerouting hook. But the bridge learns a MAC from them, and the port's
    # own interface receives them (br_handle_frame, net/bridge/br_input.c).
    chain bridge_local_guard {
        type filter hook input priority -200; policy accept;
        ether daddr & ff:ff:ff:ff:ff:f0 == 01:80:c2:00:00:00 jump guard_source
    }

    # Messages for multicast routers only (reports: RFC 3810, section 5.2.14; RFC 3376, section 4.2.14). No container is
    # one. A bridge without a querier would deliver each new container's reports to all others.
    chain bridge_reports {
        type filter hook forward priority -200; policy accept;
        meta pkttype != 2 accept
        ip6 daddr ff02::16 oifname @guarded drop
        ip daddr 224.0.0.22 oifname @guarded drop
    }

    chain guard_source {
        iifname != @bound accept
        iifname . ether saddr != @macs counter goto drop_source
        iifname @guarded jump guard_link
        iifname @pinned goto guard_address
    }

    # What a host may send, with or without a VLAN (the bridge has removed its tag). Drop a second tag and a tag of VLAN
    # 0, behind which the rules could not see the packet (CVE-2021-27853). Drop spanning tree.
    chain guard_link {
        meta protocol { 0x8100, 0x88a8 } counter goto drop_router
        ether type 0x8100 vlan id 0 counter goto drop_router
        meta protocol 0x86dd goto guard_ipv6
        meta protocol 0x0800 goto guard_ipv4
        ether daddr 01:80:c2:00:00:00 counter goto drop_router
    }

    # Drop a router's messages (134, 137, 138), a querier's (130: on a snooping bridge it decides who receives what), a
    # multicast router's (151, 153: RFC 4286) and certification paths (149).
    chain guard_ipv6 {
        meta protocol 0x86dd exthdr frag exists jump guard_fragments
        meta l4proto 58 @th,0,8 { 130, 134, 137, 138, 149, 151, 153 } counter goto drop_router
        meta l4proto 17 goto guard_udp
        meta l4proto { 88, 89, 103, 112 } counter goto drop_router
    }

    # Drop ICMP redirects and router advertisements. Of IGMP (2) a host sends reports of versions 1 to 3 and leave
    # messages; queries, DVMRP, PIM and router discovery (RFC 4286) are a router's.
    chain guard_ipv4 {
        meta l4proto 1 @th,0,8 { 5, 9 } counter goto drop_router
        meta l4proto 2 @th,0,8 != { 0x12, 0x16, 0x17, 0x22 } counter goto drop_router
        meta l4proto 17 goto guard_udp
        meta l4proto { 88, 89, 103, 112 } counter goto drop_router
    }

    # Only DHCP servers send to a client's port, and a client accepts packets from anybody there. RIP and HSRP are for
    # routers; so are EIGRP, OSPF, PIM and VRRP in the chains above.
    chain guard_udp {
        @th,0,16 { 67, 547 } counter goto drop_router
        @th,16,16 { 68, 546 } counter goto drop_router
        meta pkttype 2 @th,16,16 { 520, 521, 1985, 2029 } counter goto drop_router
    }

    # Neighbour discovery must not be fragmented (RFC 6980), and a first fragment must contain the upper-layer header
    # (RFC 7112, section 5): "@th,0,8 & 0 == 0" matches if that header has a first byte.
    chain guard_fragments {
        meta l4proto 58 @th,0,8 { 130-138, 143, 149, 151-153 } counter goto drop_router
        meta protocol 0x86dd frag frag-off != 0 return
        @th,0,8 & 0 == 0 return
        counter goto drop_router
    }

    chain guard_address {
        ether type vmap { 0x0806 : goto guard_arp, 0x0800 : goto guard_address4, 0x86dd : goto guard_address6 }
        counter goto drop_source
    }

    # 0.0.0.0 is an ARP probe (RFC 5227). A probe for another's address would look like a conflict to its owner.
    chain guard_arp {
        iifname . arp saddr ether . arp saddr ip @sources4 accept
        arp saddr ip 0.0.0.0 iifname . arp saddr ether . arp daddr ip @sources4 accept
        counter goto drop_source
    }

    chain guard_address4 {
        iifname . ether saddr . ip saddr @sources4 accept
        ip saddr 0.0.0.0 ip protocol 17 @th,0,32 0x00440043 accept
        counter goto drop_source
    }

    # 135 from :: is duplicate address detection (RFC 4862, section 5.4.2); 143 from :: is a listener report (RFC 3810,
    # section 5.2.13).
    chain guard_address6 {
        meta l4proto 58 @th,0,8 { 133, 135, 136 } jump guard_discovery
        iifname . ether saddr . ip6 saddr @sources6 accept
        iifname . ip6 saddr @source_prefixes6 accept
        ip6 saddr :: meta l4proto 58 @th,0,8 135 iifname . @th,64,128 @targets6 accept
        ip6 saddr :: meta l4proto 58 @th,0,8 143 accept
        counter goto drop_source
    }

    # Solicitations and advertisements as hosts send them: no extension header; the target of an advertisement is an
    # address of the port; the options are none, the port's MAC, a nonce (RFC 7527), or both in this order, 8 bytes
    # each. Any other option could contain another MAC.
    chain guard_discovery {
        ip6 nexthdr != 58 counter goto drop_source
        @th,0,8 136 iifname . @th,64,128 != @targets6 counter goto drop_source
        @th,0,8 133 ip6 length 8 return
        @th,0,8 133 ip6 length 16 @th,64,16 0x0101 iifname . @th,80,48 @options6 return
        @th,0,8 133 counter goto drop_source
        ip6 length 24 return
        @th,0,8 135 ip6 length 32 @th,192,16 0x0e01 return
        @th,0,8 135 ip6 length 40 @th,256,16 != 0x0e01 counter goto drop_source
        @th,0,8 135 ip6 length { 32, 40 } @th,192,16 0x0101 iifname . @th,208,48 @options6 return
        @th,0,8 136 ip6 length 32 @th,192,16 0x0201 iifname . @th,208,48 @options6 return
        counter goto drop_source
    }
"""
