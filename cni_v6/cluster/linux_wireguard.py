"""WireGuard on the real kernel: the interface, its peers. The node's private key goes from here to the kernel alone."""

from __future__ import annotations

import errno
from base64 import b64decode, b64encode
from collections.abc import Iterator, Sequence

from cni_v6.cluster.facts import Add, Op, Remove
from cni_v6.cluster.linux_asked import Asked, refusal
from cni_v6.cluster.protocol import WIREGUARD_PORT
from cni_v6.cluster.tables import Table, messages as table_of
from cni_v6.cluster.wireguard_values import WIREGUARD, Encrypted, Peer
from cni_v6.errors import KERNEL_REFUSED, CniError
from cni_v6.kernel import ops
from cni_v6.kernel.netlink import answers, requests, wireguard
from cni_v6.kernel.netlink.message import Message
from cni_v6.kernel.netlink.socket import Answer, NetlinkSocket, explain, open_netlink

ABSENT = (errno.ENOENT, errno.ENODEV, errno.EOPNOTSUPP)  # the family; the interface; one of another kind


class WireGuard:
    """That of the network namespace that this is made in.

    :param private_key: the node's; b"" for a node with another carrier.
    """

    def __init__(self, asked: Asked, private_key: bytes) -> None:
        self._asked = asked
        self._private_key = private_key
        self._generic = NetlinkSocket(open_netlink(wireguard.NETLINK_GENERIC))
        self._family = 0
        self._messages: Sequence[bytes] = ()
        self.public_key = ""  # of the interface at the last look, if it has the node's private key

    def forget(self) -> None:
        """The interface may be gone since the last look."""
        self.public_key, self._messages = "", ()

    def look(self, data: bytes) -> int | None:
        """The MTU of the interface as it must be, whatever its table is; None for one that is not.

        :param data: the RTM_NEWLINK message about it.
        """
        if not self._private_key or not self._find():
            return None
        link, _ = answers.read_link(data)
        answer = self._generic.dump(wireguard.get_device(self._family, WIREGUARD))
        if answer.error and answer.error not in ABSENT:
            raise CniError(KERNEL_REFUSED, f"cannot list the peers of {WIREGUARD}", explain(answer))
        private, public, port = wireguard.read_device(answer.messages)
        if not link.up or private != self._private_key or port != WIREGUARD_PORT:
            return None
        self.public_key, self._messages = b64encode(public).decode(), answer.messages
        return link.mtu

    def peers(self) -> Iterator[Peer]:
        """Those that it had at the last look."""
        for found in wireguard.read_peers(self._messages):
            endpoint = found.address if found.port in (0, WIREGUARD_PORT) else f"{found.address} port {found.port}"
            yield Peer(b64encode(found.key).decode(), endpoint, tuple(sorted(found.allowed)))

    def add(self, operation: Op, device: Encrypted, table: Table) -> None:
        """The interface first, down: a kernel without WireGuard then has nothing of it. Its table before it is up.

        :raises CniError: KERNEL_REFUSED.
        """
        self._asked.do(operation, wireguard.create(WIREGUARD, device.mtu))
        if not self._find():
            raise refusal(operation, Answer(errno.EOPNOTSUPP))
        table.load(operation, table_of(device))
        self._do(operation, [wireguard.set_device(
            self._family, WIREGUARD, private_key=self._private_key, port=WIREGUARD_PORT)])
        self._asked.do(operation, requests.set_link(ops.SetLink(ops.HOST, WIREGUARD, up=True)))

    def set_peer(self, operation: Add | Remove, peer: Peer) -> None:
        """
        :raises CniError: KERNEL_REFUSED.
        """
        key = b64decode(peer.key)
        if not self._find():
            raise refusal(operation, Answer(errno.EOPNOTSUPP))
        self._do(operation, [wireguard.remove_peer(self._family, WIREGUARD, key)] if isinstance(operation, Remove) else
                 wireguard.set_peer(self._family, WIREGUARD, key, endpoint=peer.endpoint, port=WIREGUARD_PORT,
                                    allowed=peer.blocks))

    def close(self) -> None:
        self._generic.close()

    def _find(self) -> bool:
        """Whether the kernel has WireGuard, as far as is known now: it may get it later."""
        if not self._family:
            [answer] = self._generic.request([wireguard.get_family()])
            self._family = wireguard.read_family(answer.messages[0]) if answer.messages else 0
        return self._family != 0

    def _do(self, operation: Op, messages: Sequence[Message]) -> None:
        for answer in self._generic.request(messages):
            if answer.error and not (isinstance(operation, Remove) and answer.error in ABSENT):
                raise refusal(operation, answer)
