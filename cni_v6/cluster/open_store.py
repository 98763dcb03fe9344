"""The store that ``--cluster`` names."""

from __future__ import annotations

from cni_v6.cluster.file_store import FileStore
from cni_v6.cluster.store import Watched
from cni_v6.config.reader import wrong

FORMS = "file:PATH or etcd:URL[,URL]/PREFIX"
HELP = f"what all nodes share: {FORMS}"


def open_store(text: str) -> Watched:
    """
    :param text: ``file:PATH`` or ``etcd:URL[,URL]/PREFIX``.
    :raises CniError: INVALID_CONFIG, IO_FAILURE.
    """
    kind, _, rest = text.partition(":")
    if kind == "file" and rest:
        return FileStore(rest)
    if kind == "etcd":
        from cni_v6.cluster.etcd_store import EtcdStore  # only for this: it imports http.client and ssl

        return EtcdStore(rest)
    raise wrong("--cluster", text, "names no store", f"write {FORMS}")
