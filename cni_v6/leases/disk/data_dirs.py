"""Which data folders there are on this node, and which networks in each.

The firewall is one for all networks, wherever their leases are (``ipam.dataDir``), so it must find them all again, and
so must ``cni-v6ctl gc``.
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
    """See ``node.DataDirs``. A folder other than the usual one is remembered as a symbolic link to it.

    :param run_dir: where; gone with a reboot.
    """

    def __init__(self, run_dir: str) -> None:
        self._links = os.path.join(run_dir, FOLDER)

    def known(self) -> Sequence[str]:
        found = {DEFAULT_DATA_DIR}
        try:
            with os.scandir(self._links) as entries:
                found.update(os.readlink(each.path) for each in entries if each.is_symlink())
        except FileNotFoundError:
            pass
        except OSError as error:
            raise CniError(STORE_FAILED, f"{needs_root(error)}cannot read {self._links}", str(error)) from error
        return sorted(found)

    def remember(self, data_dir: str) -> None:
        link = os.path.join(self._links, blake2s(data_dir.encode(), digest_size=8).hexdigest())
        if data_dir == DEFAULT_DATA_DIR or os.path.lexists(link):
            return
        try:
            os.makedirs(self._links, mode=0o700, exist_ok=True)
            os.symlink(data_dir, link)
        except FileExistsError:
            pass  # another call was faster
        except OSError as error:
            words = f"{needs_root(error)}cannot note in {self._links} that there are leases in {data_dir}"
            raise CniError(STORE_FAILED, words, str(error)) from error

    def recorded(self, data_dir: str) -> Sequence[str]:
        return [each for each in self.networks(data_dir) if os.path.isdir(os.path.join(data_dir, each, ATTACHMENTS))]

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
                return sorted(each.name for each in entries if each.is_dir(follow_symlinks=False) and safe(each.name))
        except FileNotFoundError:
            return []
        except OSError as error:
            raise CniError(STORE_FAILED, f"{needs_root(error)}cannot read {data_dir}", str(error)) from error
