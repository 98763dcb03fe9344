"""The tables of nftables that go with the carriers' interfaces, one for each.

Those of the carriers have the IPv6 addresses of the other nodes in a set, ``nodes``. With ``srv6`` and ``vxlan``, what
is encapsulated and comes from anybody else is dropped and counted: who can reach a node's tunnel, or its SIDs, could
otherwise send to containers as another node. A host on the nodes' own link can still take the address of a node.
Connections in a tunnel are tracked, and the tunnel between nodes is not: a container that publishes the tunnel's port
would get what is the tunnel's, and each source port of the tunnel would be an entry of its own.

``srv6``: connections are tracked where the node sees them, at SRV6, and not at SRV6_IN too. Tracked twice, a connection
that is translated would have two entries for the same answers. NAT would then give the second one another port, and
write it into what is an outer header by then. The kernel takes any address of the node as the source of that header
(set_tun_src, net/ipv6/seg6_iptunnel.c): a rule makes it the one that the other nodes know.

``vxlan``: the tunnel takes what comes in by the interface to the other nodes, and nothing that a container or a host
beyond the node sends goes to the tunnel of another node. Masquerade would give that the node's address, so the other
node could not tell it from the node's own.

``wireguard``: nothing gets in beside the tunnel, unencrypted, that says that a container of another node has sent it.

Another one, ``gate``, says who of other clusters may reach this one's containers. It is there while somebody may not.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable, Iterator, Sequence

from cni_v6.cluster.facts import SRV6, SRV6_IN, TUNNEL, Device, Op, Passage, SetGate, SetNodes, SetTable, Tunnel
from cni_v6.cluster.protocol import PORT, WIREGUARD_PORT
from cni_v6.cluster.srv6 import SIDS
from cni_v6.cluster.wireguard_values import WIREGUARD, Encrypted
from cni_v6.errors import KERNEL_REFUSED, CniError
from cni_v6.kernel.netfilter import small_rules as rule, small_table as nft
from cni_v6.kernel.netfilter.events import Changes
from cni_v6.kernel.netfilter.messages import rule_comment
from cni_v6.kernel.netfilter.socket import NO_NETFILTER, NetfilterSocket, open_netfilter
from cni_v6.kernel.netlink.message import Message
from cni_v6.kernel.netlink.socket import Answer, explain

SRV6_TABLE, TUNNEL_TABLE, GATE_TABLE = "cni_v6_srv6", "cni_v6_vxlan", "cni_v6_clusters"
WIREGUARD_TABLE = "cni_v6_wireguard"
SENT_FROM = "sent from "
BY_ANOTHER, VXLAN_OF_STRANGERS, FOR_OTHERS = "VXLAN not by ", "VXLAN of strangers", "VXLAN for other nodes, not by "
OF_NODES, TO_NODES = "tunnel of other nodes", "tunnel to other nodes"
SRV6_OF_STRANGERS = "encapsulated by strangers"
UNENCRYPTED, OWN = "unencrypted from ", "own "
# Before all passages. With ``srv6`` what comes in is forwarded twice: first to SRV6_IN, where nothing is tracked.
ALWAYS = ("forwarded once more", "answers", "published", "echo requests of IPv6", "echo requests of IPv4")


def comments(device: Device) -> tuple[str, ...]:
    """Those of the rules of a device's table: rules with them are as they must be."""
    if isinstance(device, Tunnel):
        return (f"{BY_ANOTHER}{device.underlay}", VXLAN_OF_STRANGERS, f"{FOR_OTHERS}{device.underlay}",
                OF_NODES, TO_NODES)
    if isinstance(device, Encrypted):
        return tuple(comment for comment, _ in _encrypted_rules(device))
    return SRV6_OF_STRANGERS, "tracked at the other end", "encapsulated", f"{SENT_FROM}{device.source}"


def encrypted(mtu: int, comments_found: tuple[str, ...]) -> Encrypted:
    """The device with a table of these rules; for a table that somebody has changed it is no device's."""
    pools = [found.removeprefix(UNENCRYPTED).split(" by ") for found in comments_found if found.startswith(UNENCRYPTED)]
    by = [found for found in pools if len(found) == 2]
    blocks = tuple(found.removeprefix(OWN) for found in comments_found if found.startswith(OWN))
    device = Encrypted(mtu, by[0][1] if by else "", tuple(pool for pool, _ in by), blocks)
    return device if comments(device) == comments_found else device.interface


def source(comments_found: Sequence[str]) -> str:
    """The source of encapsulated packets by the rules of the table for SRv6; "" if none says it."""
    return next((found.removeprefix(SENT_FROM) for found in comments_found if found.startswith(SENT_FROM)), "")


def messages(device: Device) -> list[Message]:
    """What makes a device's table, as one transaction."""
    said = comments(device)
    if isinstance(device, Tunnel):
        name, by = TUNNEL_TABLE, device.underlay
        return nft.make(name, (nft.INPUT, nft.FORWARD, nft.UNTRACKED, nft.SENT_UNTRACKED), (
            rule.drop_udp(name, nft.INPUT, PORT, said[0], not_by=by), rule.drop_udp_of_strangers(name, PORT, said[1]),
            rule.drop_udp(name, nft.FORWARD, PORT, said[2], not_by=by, out_by=by),
            rule.untracked_udp_of_nodes(name, PORT, said[3]), rule.untracked_udp_to_nodes(name, PORT, said[4]),
        ), nodes=True)
    if isinstance(device, Encrypted):
        rules_of = (message for _, message in _encrypted_rules(device))
        return nft.make(WIREGUARD_TABLE, (nft.UNTRACKED, nft.SENT_UNTRACKED), rules_of, nodes=True)
    name = SRV6_TABLE
    return nft.make(name, (nft.UNTRACKED, nft.FORWARD), (
        rule.drop_strangers_to(name, SIDS, said[0]), rule.untracked_from(name, SRV6_IN, said[1]),
        rule.untracked_to(name, SIDS, said[2]), rule.set_source_to(name, SIDS, device.source, said[3]),
    ), nodes=True)


def _encrypted_rules(device: Encrypted) -> Iterator[tuple[str, Message]]:
    """The rules of a WireGuard interface, with their comments."""
    for pool in device.pools:
        said = f"{UNENCRYPTED}{pool} by {device.underlay}"
        yield said, rule.drop_from(WIREGUARD_TABLE, pool, said, by=device.underlay)
    for block in device.blocks:
        said = f"{OWN}{block}"
        yield said, rule.accept_from(WIREGUARD_TABLE, block, said)
    for pool in device.pools:
        said = f"{UNENCRYPTED}{pool}"
        yield said, rule.drop_from(WIREGUARD_TABLE, pool, said, not_by=WIREGUARD)
    port = WIREGUARD_PORT  # of both ends
    yield OF_NODES, rule.untracked_udp_of_nodes(WIREGUARD_TABLE, port, OF_NODES, source=port)
    yield TO_NODES, rule.untracked_udp_to_nodes(WIREGUARD_TABLE, port, TO_NODES, source=port)


def gate_messages(passages: Sequence[Passage]) -> list[Message]:
    """What makes the table of the gate, as one transaction."""
    name, (again, answers, published, echo6, echo4) = GATE_TABLE, ALWAYS
    return nft.make(name, (nft.FORWARD,), (
        rule.accept_out_by(name, SRV6_IN, again), rule.accept_answers(name, answers),
        rule.accept_translated(name, published), rule.accept_echo_requests(name, 6, echo6),
        rule.accept_echo_requests(name, 4, echo4),
        *(rule.between(name, passage.source, passage.target, str(passage), accept=passage.is_open)
          for passage in passages),
    ))


def rules(netfilter: NetfilterSocket, table: str) -> Answer:
    """The rules of a table; nothing if it is not there.

    :raises CniError: KERNEL_REFUSED.
    """
    answer = netfilter.dump(nft.dump_rules(table))
    if answer.error not in (0, errno.ENOENT, *NO_NETFILTER):
        raise CniError(KERNEL_REFUSED, f"cannot list table {table} of nftables", explain(answer))
    return answer


class Table:
    """One of the tables in the network namespace that this is made in.

    ``without``: the kernel has no nftables.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.without = False
        self._netfilter = open_netfilter()
        self._seen: tuple[str, ...] = ()
        self._nodes: frozenset[str] = frozenset()

    def look(self) -> tuple[str, ...]:
        """The comments of its rules; () if it is not there, or has none.

        :raises CniError: KERNEL_REFUSED.
        """
        answer = rules(self._netfilter, self.name)
        self.without = answer.error in NO_NETFILTER
        self._seen = tuple(rule_comment(data) for data in answer.messages)
        return self._seen

    def nodes(self) -> frozenset[str]:
        """The addresses in its set; none if it is not there, or has none.

        :raises CniError: KERNEL_REFUSED.
        """
        answer = self._netfilter.dump(nft.dump_nodes(self.name))
        if answer.error not in (0, errno.ENOENT, *NO_NETFILTER):
            raise CniError(KERNEL_REFUSED, f"cannot list the nodes in table {self.name} of nftables", explain(answer))
        self._nodes = frozenset(address for data in answer.messages for address in nft.read_nodes(data))
        return self._nodes

    def has(self, device: Device) -> bool:
        """Whether it is what a device needs."""
        return self.look() == comments(device)

    def load(self, operation: Op, what: list[Message]) -> None:
        """Make it anew.

        :raises CniError: KERNEL_REFUSED.
        """
        self._transact(operation, what)

    def remove(self, operation: Op) -> None:
        """
        :raises CniError: KERNEL_REFUSED.
        """
        if self.look():
            self._transact(operation, nft.remove(self.name))

    def _transact(self, operation: Op, what: list[Message]) -> None:
        for answer in self._netfilter.transact(what):
            remedy = f"table {self.name} of nftables: {explain(answer)}"
            raise CniError(KERNEL_REFUSED, f"cannot {operation}", remedy)

    def is_changed(self) -> bool:
        """Whether it is another than it was at the last look."""
        before = self._seen, self._nodes
        return before != (self.look(), self.nodes())

    def close(self) -> None:
        self._netfilter.close()


class Tables:
    """All of them.

    ``news``: what tells that one has changed; None for a kernel without netfilter, where no carrier but ``srv6`` and
    ``wireguard`` needs one.
    """

    def __init__(self) -> None:
        self.srv6, self.tunnel, self.wireguard, self._gate = self._all = (
            Table(SRV6_TABLE), Table(TUNNEL_TABLE), Table(WIREGUARD_TABLE), Table(GATE_TABLE))
        self.news = _news(self._all)
        for table in self._all:
            table.is_changed()  # after that, so that no change is missed

    def gate(self) -> tuple[str, ...]:
        """The passages in words; something else for a table that somebody has changed.

        :raises CniError: KERNEL_REFUSED.
        """
        found = self._gate.look()
        return found[len(ALWAYS):] or found if found[:len(ALWAYS)] == ALWAYS else found

    def set_gate(self, operation: SetGate) -> None:
        """
        :raises CniError: KERNEL_REFUSED.
        """
        if operation.passages:
            self._gate.load(operation, gate_messages(operation.passages))
        else:
            self._gate.remove(operation)

    def nodes(self) -> frozenset[str] | None:
        """The other nodes that the carriers' tables know; None if there is none.

        :raises CniError: KERNEL_REFUSED.
        """
        there = [*self._of_carriers()]
        return frozenset().union(*(table.nodes() for table in there)) if there else None

    def set_nodes(self, operation: SetNodes) -> None:
        """
        :raises CniError: KERNEL_REFUSED.
        """
        for table in self._of_carriers():
            table.load(operation, nft.set_nodes(table.name, sorted(operation.addresses)))

    def set_table(self, operation: SetTable) -> None:
        """
        :raises CniError: KERNEL_REFUSED.
        """
        table = self.of(operation.device.ifname)
        table.load(operation, [*messages(operation.device), *nft.set_nodes(table.name, sorted(operation.nodes))])

    def of(self, ifname: str) -> Table:
        """That of a device, by the name of its interface."""
        return {TUNNEL: self.tunnel, SRV6: self.srv6, WIREGUARD: self.wireguard}[ifname]

    def _of_carriers(self) -> Iterable[Table]:
        return (table for table in (self.srv6, self.tunnel, self.wireguard) if table.look())

    def close(self) -> None:
        if self.news:
            self.news.close()
        for table in self._all:
            table.close()


class TableNews:
    """Notifications of nftables. Other programs change their own tables all the time: only changes of ours are news."""

    def __init__(self, tables: tuple[Table, ...]) -> None:
        self._tables = tables
        self._changes = Changes()

    def fileno(self) -> int:
        return self._changes.fileno()

    def drain(self) -> bool:
        self._changes.read()
        return any([table.is_changed() for table in self._tables])

    def close(self) -> None:
        self._changes.close()


def _news(tables: tuple[Table, ...]) -> TableNews | None:
    try:
        return TableNews(tables)
    except OSError as error:
        if error.errno != errno.EPROTONOSUPPORT:
            raise
        return None
