"""The data folders of this node, and the networks in each.

All networks share one firewall, wherever their leases are (``ipam.dataDir``). So a reload of the firewall must find all
data folders, and so must ``cni-v6ctl gc``.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from hashlib import blake2s

from cni_v6.config.keys.ipam import DEFAULT_DATA_DIR
from cni_v6.errors import STORE_FAILED, CniError
from cni_v6.kernel.privilege import needs_root
from cni_v6.leases.disk.store import ATTACHMENTS
from cni_v6.leases.disk.transaction import MEMO
from cni_v6.leases.records import safe

RUN_DIR = "/run/cni-v6"  # gone with a reboot, as the firewall is
FOLDER = "data-dirs"


class DiskDataDirs:
    """See ``context.DataDirs``. A folder other than the default is remembered as a symbolic link to it.

    :param run_dir: the folder that holds the links. A reboot empties it.
    """

    def __init__(self, run_dir: str) -> None:
        self._links = os.path.join(run_dir, FOLDER)

    def known(self) -> Sequence[str]:
        folders = {DEFAULT_DATA_DIR}
        try:
            with os.scandir(self._links) as entries:
                folders.update(os.readlink(entry.path) for entry in entries if entry.is_symlink())
        except FileNotFoundError:
            pass
        except OSError as error:
            raise CniError(STORE_FAILED, f"{needs_root(error)}cannot read {self._links}", str(error)) from error
        return sorted(folders)

    def remember(self, data_dir: str) -> None:
        link = os.path.join(self._links, blake2s(data_dir.encode(), digest_size=8).hexdigest())
        if data_dir == DEFAULT_DATA_DIR or os.path.lexists(link):
            return
        try:
            os.makedirs(self._links, mode=0o700, exist_ok=True)
            os.symlink(data_dir, link)
        except FileExistsError:
            pass  # a concurrent call made the link
        except OSError as error:
            words = f"{needs_root(error)}cannot note in {self._links} that there are leases in {data_dir}"
            raise CniError(STORE_FAILED, words, str(error)) from error

    def recorded(self, data_dir: str) -> Sequence[str]:
        networks = self.networks(data_dir)
        return [network for network in networks if os.path.isdir(os.path.join(data_dir, network, ATTACHMENTS))]

    def memos(self) -> Iterator[tuple[str, bytes]]:
        for folder in self.known():
            for network in self.recorded(folder):
                with suppress(FileNotFoundError), open(os.path.join(folder, network, ATTACHMENTS, MEMO), "rb") as file:
                    yield network, file.read()

    def leased_elsewhere(self, network: str, addresses: Iterable[str]) -> frozenset[str]:
        wanted = frozenset(addresses)
        others = (
            os.path.join(folder, other)
            for folder in (self.known() if wanted else ()) for other in self.recorded(folder) if other != network
        )
        return frozenset(
            address for other in others for address in wanted if os.path.lexists(os.path.join(other, address))
        )

    def networks(self, data_dir: str) -> Sequence[str]:
        try:
            with os.scandir(data_dir) as entries:
                folders = [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
                return sorted(filter(safe, folders))
        except FileNotFoundError:
            return []
        except OSError as error:
            raise CniError(STORE_FAILED, f"{needs_root(error)}cannot read {data_dir}", str(error)) from error
