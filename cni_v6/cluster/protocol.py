"""Numbers by which the agent knows its own in the kernel, and other nodes' packets."""

from __future__ import annotations

PROTOCOL = 166  # of routes; no other program's: /etc/iproute2/rt_protos, linux/rtnetlink.h
METRIC = 2048  # IPv6 routes that are added without one have 1024 (IP6_RT_PRIO_USER), and IPv4 ones 0
LAST_METRIC = 0xFFFF_FFFE  # of unreachable ones; the routed plugin's have the number after it
TABLE = 166  # of routes for SRv6, and the priority of the rules that lead to it: before the main table (32766)
VNI = 166  # of the tunnel
PORT = 4789  # UDP, as RFC 7348 assigns it
WIREGUARD_PORT = 51820  # UDP; what its documentation has everywhere
