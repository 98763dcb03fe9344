"""The node's own blocks from step to step: how full they are, which of them its network has, which it gives back."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence

from cni_v6.cluster import capacity, conflist
from cni_v6.cluster.capacity import Idles, Leases, Used
from cni_v6.cluster.config import AgentConf
from cni_v6.cluster.conflist import Document
from cni_v6.cluster.keys import BGP
from cni_v6.cluster.records import Cluster
from cni_v6.errors import CniError


class Holdings:
    """
    :param leases: those of the network; None if nobody counts them: then each block stays.
    :param now: seconds of a clock that never goes back.
    """

    def __init__(
        self, conf: AgentConf, template: Document, leases: Leases | None, now: Callable[[], float]
    ) -> None:
        self._pools = conf.pools
        # The node's identifier follows from its first block: sessions would begin anew without that.
        self._keeps = conf.pools[:1] if conf.carrier == BGP else ()
        self._leases = leases
        self._now = now
        self.withheld = conflist.withheld(template)
        self._seconds = _seconds(conf, template)
        self.used: Used = {}
        self._counted: Used = {}  # ``used`` as of the beginning of the step: by that the node has claimed
        self._known = False  # ``used`` is what there is: a block without leases is empty
        self._moment = 0.0  # of the step: what becomes due meanwhile is for the next one
        self._idle: Idles = {}
        self._leaving: Collection[str] = ()  # as of ``network``

    def count(self) -> Iterator[str]:
        """The first thing of a step: count the leases; yields why they cannot be counted."""
        self._moment = self._now()
        self._set(None)
        try:
            self._set(self._leases.used() if self._leases else None)
        except CniError as error:
            yield f"leases cannot be counted, so the node claims no more blocks, and gives none back: {error}"
        self._counted = self.used

    def _set(self, used: Used | None) -> None:
        self._known, self.used = used is not None, used or {}

    def network(self, own: Sequence[str]) -> tuple[str, ...]:
        """The blocks that containers get addresses of.

        :param own: all blocks of the node, as below.
        """
        if self._leases:
            self._leases.attend(own)
        unneeded = [block for pool in self._pools for block in self._unneeded(capacity.of_pool(pool, own))]
        self._idle = capacity.observed(self._idle, unneeded, self._moment)
        self._leaving = capacity.leaving(self._idle, self._moment, self._seconds or 0.0)
        return tuple(block for block in own if block not in self._leaving)

    def _unneeded(self, blocks: Sequence[str]) -> list[str]:
        """Of the node's blocks of a pool."""
        if self._seconds is None or not self._known or len(blocks) < 2:
            return []
        [pool] = [pool for pool in self._pools if pool.is_block(blocks[0])]
        kept = blocks[:1] if pool in self._keeps else ()
        return capacity.dispensable(pool, blocks, self.used, self.withheld, kept)

    def _situation(self, own: Sequence[str], used: Used) -> object:
        return capacity.situation(self._pools, own, used, self.withheld)

    def written(self) -> None:
        """The configuration list has the blocks of ``network`` by now."""
        self._idle = capacity.closed(self._idle, self._leaving, self._now())

    def due(self, own: Sequence[str]) -> list[str]:
        """The blocks to give back, after another look at the leases.

        :raises CniError: they cannot be counted.
        """
        found = capacity.due(self._idle, self._moment, self._seconds or 0.0)
        if not found or self._leases is None:
            return []
        self._set(self._leases.look())
        self.network(own)
        return [block for block in found if block in self._idle]

    def wait(self, own: Sequence[str]) -> float | None:
        """For how many seconds there is nothing to do unless somebody tells; None: for ever."""
        if self._situation(own, self._counted) != self._situation(own, self.used):
            return 0.0  # containers have come or gone since the node claimed, and nobody tells of them again
        return capacity.wait(self._idle, self._moment, self._seconds or 0.0)

    def complaints(self, own: Sequence[str], cluster: Cluster, *, joined: bool) -> Iterator[str]:
        """
        :param joined: the node could claim blocks in this step.
        """
        holders = {claim.prefix: claim.node for claim in cluster.claims if claim.prefix in self.used}
        yield from capacity.complaints(self._pools, own, self.used, self.withheld, holders, joined=joined)


def _seconds(conf: AgentConf, template: Document) -> float | None:
    """How long a block must be empty before its first step and before its second one; None: none is given back.

    No address of it is used again sooner than ``reuseAfter`` says, whatever node has the block then.
    """
    reuse = conflist.reuse_seconds(template)
    if not conf.give_back_after or reuse is None:
        return None
    return max(float(conf.give_back_after), reuse / 2)
