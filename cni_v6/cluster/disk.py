"""The agent's files on the real disk, and the locks that let only one agent run."""

from __future__ import annotations

import hashlib
import os
from base64 import b64decode, b64encode
from collections.abc import Sequence
from contextlib import suppress

from netaddr import IPNetwork

from cni_v6.cluster import files
from cni_v6.cluster.records import KEY_BYTES
from cni_v6.cluster.state import State, decode_state, encode_state
from cni_v6.errors import NODE_CONFLICT, STORE_FAILED, TRY_AGAIN, CniError
from cni_v6.leases.disk import lock
from cni_v6.net.addresses import values

BOOT_ID = "/proc/sys/kernel/random/boot_id"
STATE, READY, LOCK, KEY = "state.json", "ready", "lock", "wireguard.key"


class RealDisk:
    """
    :param folder: the agent's own; it is made.
    :param target: the configuration list; its folder is made, as a runtime may be installed later.
    """

    def __init__(self, folder: str, target: str) -> None:
        files.make_folder(folder)
        files.make_folder(os.path.dirname(target), 0o755)
        self._folder = folder
        self._target = target
        self._written: State | None = None

    def load(self) -> State | None:
        path = self._path(STATE)
        content = files.read(path)
        if content is None:
            return None
        try:
            self._written = decode_state(content, path)
        except CniError as error:
            raise CniError(
                STORE_FAILED, f"the agent's state is damaged: {error}",
                f"remove {path}: the node then needs its cluster's store, and another name or cni-v6ctl nodes --remove",
            ) from None
        return self._written

    def save(self, state: State) -> None:
        if state != self._written:
            files.replace(self._path(STATE), encode_state(state), 0o600)
            self._written = state

    def read_conflist(self) -> str | None:
        content = files.read(self._target)
        return None if content is None else content.decode("utf-8", "surrogateescape")

    def write_conflist(self, text: str | None) -> None:
        if text is None:
            files.remove(self._target)
        else:
            files.replace(self._target, text.encode())

    def set_ready(self, ready: bool) -> None:
        path = self._path(READY)
        if not ready:
            files.remove(path)
        elif not os.path.exists(path):
            files.replace(path, b"")

    def _path(self, name: str) -> str:
        return f"{self._folder}/{name}"


def new_id() -> str:
    """The id of a new node: 128 random bits."""
    return os.urandom(16).hex()


def private_key(folder: str) -> bytes:
    """The node's private key of WireGuard, which is made where it is absent. The file has it in base64.

    :param folder: the agent's.
    :raises CniError: IO_FAILURE; STORE_FAILED for a file with something else. No message has what is in it.
    """
    path = f"{folder}/{KEY}"
    content = files.read(path)
    with files.naming(path), suppress(FileNotFoundError):
        os.chmod(path, 0o600)  # a copy that somebody has put back may be for all to read
    if content is None:
        made = _clamped(os.urandom(KEY_BYTES))
        files.replace(path, b64encode(made) + b"\n", 0o600)
        return made
    try:
        found = b64decode(content.strip(), validate=True)
    except ValueError:
        found = b""
    if len(found) != KEY_BYTES:
        raise CniError(STORE_FAILED, f"{path} has no private key of WireGuard",
                       "remove it: the agent makes another one, and the other nodes learn of it")
    return _clamped(found)


def _clamped(key: bytes) -> bytes:
    """As the kernel keeps it (RFC 7748, 5)."""
    return bytes((key[0] & 248, *key[1:-1], key[-1] & 127 | 64))


def leased(folder: str, blocks: Sequence[str]) -> dict[str, int]:
    """How many leases a network has in each of these blocks: each is a file with the name of the address.

    :param folder: of the network; without it, nobody has had an address of it.
    :raises CniError: IO_FAILURE.
    """
    found = {}
    with files.naming(folder), suppress(FileNotFoundError):
        names = os.listdir(folder)
        for block in blocks:
            network = IPNetwork(block)
            found[block] = sum(network.first <= value <= network.last for value in values(names, network.version))
    return found or dict.fromkeys(blocks, 0)


def boot(namespace: int) -> str:
    """What no copy of the machine has: this boot of the kernel, and the network namespace, which is the node's.

    :raises CniError: IO_FAILURE.
    """
    with files.naming(BOOT_ID), open(BOOT_ID, encoding="ascii") as file:
        return hashlib.sha256(f"{file.read().strip()} {namespace}".encode()).hexdigest()[:16]


def only_one(path: str, where: str) -> int:
    """A descriptor that holds a lock while it is open: one agent a state folder, and one a network namespace.

    :param where: what the lock is of, for the message.
    :raises CniError: NODE_CONFLICT if another agent holds it.
    """
    fd = files.open_lock(path)
    try:
        lock.acquire(fd, path, 0.0)
    except CniError as error:
        os.close(fd)
        if error.code != TRY_AGAIN:
            raise
        raise CniError(NODE_CONFLICT, f"an agent runs already {where}", error.msg) from None
    return fd
