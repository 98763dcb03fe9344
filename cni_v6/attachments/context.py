"""The world a plugin works in, as one argument: kernel, leases, other plugins, files, clock.

``engine`` makes the real one; tests make it of the fakes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from cni_v6.kernel.questions import Kernel
from cni_v6.leases.store import Leases
from cni_v6.protocol.invocation import Invocation

# (invocation, plugin type, command) -> what the plugin printed, {} for a command that prints nothing.
Delegate = Callable[[Invocation, str, str], Mapping[str, Any]]


class DataDirs(Protocol):
    """The folders that leases are in, ``ipam.dataDir`` of all networks since the node was started."""

    def known(self) -> Sequence[str]:
        """All that were remembered, and the usual one; sorted."""
        ...

    def remember(self, data_dir: str) -> None:
        """Keep in mind that there are leases in a folder.

        :raises CniError: STORE_FAILED.
        """
        ...

    def networks(self, data_dir: str) -> Sequence[str]:
        """The networks with leases in a folder, the reference plugin's too, sorted; none where there is no such folder.

        :raises CniError: STORE_FAILED.
        """
        ...

    def memos(self) -> Iterator[tuple[str, bytes]]:
        """Of every network with attachments of ours on record: its name, and its ``Transaction.memo`` of this moment.

        Without the networks' locks: whoever asks holds one.
        """
        ...

    def leased_elsewhere(self, network: str, addresses: Iterable[str]) -> frozenset[str]:
        """Those of some addresses that another network on this node has leased too: networks may overlap.

        Without the other networks' locks.
        """
        ...

    def recorded(self, data_dir: str) -> Sequence[str]:
        """Those of them that have attachments of ours on record: to look into the others would make them so."""
        ...


@dataclass(frozen=True, slots=True)
class Context:
    """``boot`` is /proc/sys/kernel/random/boot_id; ``id`` the machine id; ``now`` gives seconds since the epoch;
    ``remarks`` what the kernel's side has to say when all is done, for the log."""

    kernel: Kernel
    leases: Callable[[str, str], Leases]  # (network, data_dir)
    data_dirs: DataDirs
    delegate: Delegate
    read_file: Callable[[str], str]
    boot: str
    id: str
    now: Callable[[], float]
    remarks: Callable[[], Sequence[str]] = tuple
