"""A table of nftables for SRv6: connections are tracked where the node sees them, at SRV6, and not at SRV6_IN too.

Tracked twice, a connection that is translated would have two entries for the same answers. NAT would then give the
second one another port, and write it into what is an outer header by then.
"""

from __future__ import annotations

import errno

from cni_v6.cluster.facts import SRV6_IN, Op
from cni_v6.cluster.srv6 import SIDS
from cni_v6.errors import KERNEL_REFUSED, CniError
from cni_v6.kernel.netfilter import untracked as nft
from cni_v6.kernel.netfilter.events import Changes
from cni_v6.kernel.netfilter.messages import rule_comment
from cni_v6.kernel.netfilter.socket import NO_NETFILTER, NoNetfilter, open_netfilter
from cni_v6.kernel.netlink.message import Message
from cni_v6.kernel.netlink.socket import explain

TABLE = "cni_v6_srv6"
RULES = {  # by comment
    comment: make(TABLE, what, comment) for make, what, comment in (
        (nft.from_interface, SRV6_IN, "tracked at the other end"), (nft.to_prefix, SIDS, "encapsulated"),
    )
}


class Untracked:
    """The table in the network namespace that this is made in.

    ``news``: what tells that it has changed; None for a kernel without netfilter, where no carrier but ``srv6`` misses
    it.
    """

    def __init__(self) -> None:
        self._netfilter = open_netfilter()
        self.news = None if isinstance(self._netfilter, NoNetfilter) else TableNews(self)
        self._seen = self.look()  # after that, so that no change is missed

    def look(self) -> bool | None:
        """Whether the table is whole; None if it is not there, or has no rule."""
        answer = self._netfilter.dump(nft.dump_rules(TABLE))
        if answer.error and answer.error not in (errno.ENOENT, *NO_NETFILTER):
            raise CniError(KERNEL_REFUSED, f"cannot list table {TABLE} of nftables", explain(answer))
        found = [rule_comment(data) for data in answer.messages]
        self._seen = found == list(RULES) if found else None
        return self._seen

    def load(self, operation: Op) -> None:
        """
        :raises CniError: KERNEL_REFUSED.
        """
        self._transact(operation, nft.make(TABLE, RULES.values()))

    def remove(self, operation: Op) -> None:
        """
        :raises CniError: KERNEL_REFUSED.
        """
        if self.look() is not None:
            self._transact(operation, nft.remove(TABLE))

    def _transact(self, operation: Op, messages: list[Message]) -> None:
        for answer in self._netfilter.transact(messages):
            remedy = f"table {TABLE} of nftables: {explain(answer)}"
            raise CniError(KERNEL_REFUSED, f"cannot {operation}", remedy)

    def is_changed(self) -> bool:
        """Whether the table is another than it was at the last look."""
        return self._seen != self.look()

    def close(self) -> None:
        if self.news:
            self.news.close()
        self._netfilter.close()


class TableNews:
    """Notifications of nftables. Other programs change their own tables all the time: only changes of ours are news."""

    def __init__(self, table: Untracked) -> None:
        self._table = table
        self._changes = Changes()

    def fileno(self) -> int:
        return self._changes.fileno()

    def drain(self) -> bool:
        self._changes.read()
        return self._table.is_changed()

    def close(self) -> None:
        self._changes.close()
