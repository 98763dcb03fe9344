"""What the tables of the carriers have dropped, for ``cni-v6ctl metrics``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import closing

from cni_v6.cluster.tables import (
    BY_ANOTHER,
    FOR_OTHERS,
    SRV6_OF_STRANGERS,
    SRV6_TABLE,
    TUNNEL_TABLE,
    UNENCRYPTED,
    VXLAN_OF_STRANGERS,
    WIREGUARD_TABLE,
    rules,
)
from cni_v6.kernel.netfilter import counters
from cni_v6.kernel.netfilter.socket import open_netfilter

# Why packets are dropped, by the start of the comment of each rule that counts them.
REASONS = {
    BY_ANOTHER: "it came in by another interface than that to the other nodes",
    VXLAN_OF_STRANGERS: "its source is no other node",
    FOR_OTHERS: "a container, or a host beyond this node, sent it to another node",
    SRV6_OF_STRANGERS: "its source is no other node",
    UNENCRYPTED: "it says that a container of another node has sent it, and is not encrypted",
}


def dropped() -> Iterator[tuple[str, str, int]]:
    """(table, reason, packets); nothing where there is no such table.

    :raises CniError: KERNEL_REFUSED.
    """
    with closing(open_netfilter()) as netfilter:
        for name in (SRV6_TABLE, TUNNEL_TABLE, WIREGUARD_TABLE):
            found = Counter[str]()  # several rules may have one reason
            for comment, packets in counters.of_remarked(rules(netfilter, name).messages):
                found.update({reason: packets for start, reason in REASONS.items() if comment.startswith(start)})
            yield from ((name, reason, packets) for reason, packets in found.items())
