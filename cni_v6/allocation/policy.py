"""The allocation policy of a network: the order of addresses, and their reuse. Values, from the configuration."""

from __future__ import annotations


from cni_v6.allocation import ranges
from cni_v6.allocation.ranges import RangeSet
from cni_v6.values import dataclass

# ``ipam.allocation``: the order of addresses.
SEQUENTIAL, RANDOM, STABLE = "sequential", "random", "stable"

# ``ipam.reuse``: whether a released address is handed out again.
NEVER, AFTER, AUTO = "never", "after", "auto"

PROBED = "probed"  # only in a record: the address is reused, but the set has no sequence

DEFAULT_WAIT = 3600.0  # seconds


@dataclass(frozen=True, slots=True)
class AllocationPolicy:
    """How the addresses of a network's sets are handed out.

    ``order``: SEQUENTIAL, RANDOM or STABLE. ``reuse``: NEVER, AFTER or AUTO. ``wait``: seconds from an address's
    release to its reuse. ``identity``: the owner of a stable address, which is the workload and its interface; "" for
    another order. ``secret``: the secret key of stable addresses; if it is empty, the store creates one for the
    network.
    """

    order: str = SEQUENTIAL
    reuse: str = AUTO
    wait: float = DEFAULT_WAIT
    identity: str = ""
    secret: bytes = b""

    def never_reuses(self, addresses: RangeSet) -> bool:
        """Whether no address of a set is handed out twice. AUTO means that for a set of ``LARGE`` addresses or more."""
        if self.order == STABLE:
            return False
        return self.reuse == NEVER or (self.reuse == AUTO and ranges.size(addresses) >= ranges.LARGE)

    def reuse_mode(self, addresses: RangeSet) -> str:
        """How an address of a set is reused, for the record (``Attachment.reuse``)."""
        return NEVER if self.never_reuses(addresses) else AFTER if self.order == SEQUENTIAL else PROBED


DEFAULT = AllocationPolicy()
