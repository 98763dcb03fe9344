"""How the addresses of a set are handed out: in which order, and when again. Values, from the configuration."""

from __future__ import annotations

from dataclasses import dataclass

from cni_v6.allocation import ranges
from cni_v6.allocation.ranges import RangeSet

# ``ipam.allocation``: the order of addresses.
SEQUENTIAL, RANDOM, STABLE = "sequential", "random", "stable"

# ``ipam.reuse``: whether an address that was released is given again.
NEVER, AFTER, AUTO = "never", "after", "auto"

PROBED = "probed"  # in a record: given again, in no sequence

DEFAULT_WAIT = 3600.0  # seconds


@dataclass(frozen=True, slots=True)
class AllocationPolicy:
    """How the addresses of a network's sets are handed out.

    ``order``: SEQUENTIAL, RANDOM or STABLE; ``reuse``: NEVER, AFTER or AUTO; ``wait``: seconds from an address's
    release to its next holder, where it is given again. ``identity``: whom a stable address belongs to, the workload
    and its interface; "" where the order is another. ``secret``: what a stable address is derived with; empty for one
    that the store makes for the network.
    """

    order: str = SEQUENTIAL
    reuse: str = AUTO
    wait: float = DEFAULT_WAIT
    identity: str = ""
    secret: bytes = b""

    def never_reuses(self, addresses: RangeSet) -> bool:
        """Whether no address of a set is given twice. Of a large set there are enough for that."""
        if self.order == STABLE:
            return False
        return self.reuse == NEVER or (self.reuse == AUTO and ranges.size(addresses) >= ranges.LARGE)

    def reuse_mode(self, addresses: RangeSet) -> str:
        """How an address of a set is given again, for the record (``leases.Attachment.reuse``)."""
        return NEVER if self.never_reuses(addresses) else AFTER if self.order == SEQUENTIAL else PROBED


DEFAULT = AllocationPolicy()
