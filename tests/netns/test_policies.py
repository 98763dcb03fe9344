"""Network policies of another program hold between containers of one node.

kube-network-policies decides at one hook: postrouting, priority srcnat - 5, in a table of its own. It drops there what
no policy allows, the first packet of a connection; the others are established. That program itself needs NFQUEUE.
"""

from __future__ import annotations

import pytest

from tests.netns import networks, traffic
from tests.netns.networks import DUAL
from tests.netns.test_services import SERVICE, of_bridge, translate
from tests.sandbox import Node

ALLOWED, DENIED = 80, 81
POLICIES = """
table inet policies {
    chain postrouting {
        type filter hook postrouting priority srcnat - 5;
        icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept
        ct state established,related accept
        ip saddr %(from4)s ip daddr %(to4)s meta l4proto { tcp, udp } th dport != %(port)d counter drop
        ip6 saddr %(from6)s ip6 daddr %(to6)s meta l4proto { tcp, udp } th dport != %(port)d counter drop
    }
}
"""


@pytest.mark.usefixtures("main_plugin")
@pytest.mark.core
def test_a_policy_holds_on_one_node(node: Node) -> None:
    """It sees the containers' own addresses, through a service too, though the node's own setting of br_netfilter
    leaves bridged frames alone. Others are not concerned."""
    network = networks.gateway(*DUAL, **of_bridge())
    server, client, other = networks.pods(node, network, "server", "client", "other")
    with traffic.no_br_netfilter(node):
        translate(node, server, -100)
        node.run("nft", POLICIES % {
            "from4": client.address(4), "from6": client.address(6), "to4": server.address(4), "to6": server.address(6),
            "port": ALLOWED,
        })
        for family in (6, 4):
            targets = [(server.address(family), DENIED), (server.address(family), ALLOWED), (SERVICE[family], ALLOWED)]
            denied = targets[0]
            with (traffic.listening(server.netns, family, ALLOWED) as allowed,
                  traffic.listening(server.netns, family, DENIED) as closed):
                with traffic.unanswered(client.netns, denied):
                    for target in targets[1:]:
                        assert traffic.called(client.netns, target, allowed)[0].address == client.address(family)
                assert traffic.called(other.netns, denied, closed)[0].address == other.address(family)
            with (traffic.udp(server.netns, family, port=ALLOWED) as allowed,
                  traffic.udp(server.netns, family, port=DENIED) as closed,
                  traffic.udp(client.netns, family) as sender, traffic.udp(other.netns, family) as stranger):
                sender.sendto(b"no policy allows this", denied)
                assert traffic.asked(sender, targets[1], allowed).address == client.address(family)
                assert traffic.asked(stranger, denied, closed).address == other.address(family)  # the first to arrive
        assert "packets 0 " not in node.run("nft", "list", "table", "inet", "policies").stdout
