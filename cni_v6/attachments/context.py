"""The injected dependencies of a command, as one argument: kernel, leases, other plugins, files, clock.

``engine`` makes the real one; tests make one from the fakes.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol

from cni_v6.kernel.snapshot import Kernel
from cni_v6.leases.attachment import Attachment
from cni_v6.leases.store import Leases
from cni_v6.protocol.invocation import Invocation, Report
from cni_v6.protocol.names import Owner
from cni_v6.values import dataclass

# (invocation, plugin type, command) -> the plugin's output; {} for a command that prints nothing
Delegate = Callable[[Invocation, str, str], Mapping[str, Any]]


class DataDirs(Protocol):
    """The data directories with leases: ``ipam.dataDir`` of all networks that had an ADD since the node booted."""

    def known(self) -> Sequence[str]:
        """All remembered data directories and the default one, sorted."""
        ...

    def remember(self, data_dir: str) -> None:
        """Remember that a data directory has leases.

        :raises CniError: STORE_FAILED.
        """
        ...

    def networks(self, data_dir: str) -> Sequence[str]:
        """The networks with leases in a data directory, sorted; () if it does not exist.

        Networks with leases of the reference plugin alone are included.

        :raises CniError: STORE_FAILED.
        """
        ...

    def memos(self) -> Iterator[tuple[str, bytes]]:
        """The name and the present ``Transaction.memo`` of every network with attachments of ours on record.

        Takes no lock of a network: the caller holds one.
        """
        ...

    def leased_elsewhere(self, network: str, addresses: Iterable[str]) -> frozenset[str]:
        """Those of some addresses that another network on this node has leased too: networks may overlap.

        Without the other networks' locks.
        """
        ...

    def recorded(self, data_dir: str) -> Sequence[str]:
        """Those of ``networks`` that have attachments of ours on record.

        To open the store of another one would create records for it.
        """
        ...


@dataclass(frozen=True, slots=True)
class Look:
    """A look at the containers of a network that has begun.

    ``owners``: whose record, links or routes may have changed since all of the network's containers were in order; None
    where any may have. ``interfaces``: the names that the node's interfaces with such an owner have had since.
    ``others``: whether others of the network run. ``fresh``: how many interfaces the node may have, of whomever, that
    it had not when all were last looked at. ``note``: what the last look was settled with. ``token``: its keeper's.
    """

    owners: frozenset[Owner] | None = None
    interfaces: frozenset[str] = frozenset()
    others: bool = False
    fresh: int = 0
    note: object = None
    token: object = None


class InOrder(Protocol):
    """Which containers a network had when all of them were last found in order, and what has changed since."""

    def begin(self, network: str, data_dir: str, mark: object) -> Look:
        """Begin a look, under the lock of the network's leases.

        :param mark: what else the judgement of a container depends on.
        """
        ...

    def unlisted(self, network: str, data_dir: str, valid: frozenset[str]) -> Look:
        """The containers that GC must look at, under that lock: those that have changed, and those that were in order
        and are not in its list. Nothing is begun.

        :param valid: as of ``Invocation``.
        """
        ...

    def settle(self, look: Look, records: Iterable[Attachment], present: Container[str], note: object = None) -> None:
        """All containers of the network are in order, as far as the kernel had told of changes when the look began.

        :param records: those that were looked at: of the look's owners, or all of the network.
        :param present: the host interfaces of those that run.
        :param note: for the next look.
        """
        ...


@dataclass(frozen=True, slots=True)
class Context:
    """``boot`` is /proc/sys/kernel/random/boot_id, ``id`` the machine id. ``now`` returns seconds since the epoch.
    ``read_file`` is ``kernel.text_file.read``. ``remarks`` returns the kernel's remarks for the log, at the end of a
    call. ``report`` is filled for the log of calls, ``in_order`` is kept between calls; None where there is none."""

    kernel: Kernel
    leases: Callable[[str, str], Leases]  # (network, data_dir)
    data_dirs: DataDirs
    delegate: Delegate
    read_file: Callable[[str], str]
    boot: str
    id: str
    now: Callable[[], float]
    remarks: Callable[[], Sequence[str]] = tuple
    report: Report | None = None
    in_order: InOrder | None = None
