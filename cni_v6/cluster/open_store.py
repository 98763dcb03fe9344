"""The store that ``--cluster`` names."""

from __future__ import annotations

from cni_v6.cluster.file_store import FileStore
from cni_v6.cluster.store import Watched
from cni_v6.config.reader import wrong


def open_store(text: str) -> Watched:
    """
    :param text: ``file:PATH``.
    :raises CniError: INVALID_CONFIG, IO_FAILURE.
    """
    kind, colon, rest = text.partition(":")
    if kind == "file" and rest:
        return FileStore(rest)
    raise wrong("--cluster", text, "names no store", "write file:PATH")
