"""The store that ``--cluster`` names."""

from __future__ import annotations

from cni_v6.cluster.file_store import FileStore
from cni_v6.cluster.store import Watched
from cni_v6.config.reader import wrong
from cni_v6.errors import INVALID_CONFIG, CniError

OPTION = "--cluster"
FORMS = "file:PATH, etcd:URL[,URL]/PREFIX or kubernetes[:KUBECONFIG]"
HELP = f"what all nodes share: {FORMS}"


def open_store(text: str, key: str = OPTION) -> Watched:
    """
    :param text: as FORMS.
    :param key: where it is written, for messages.
    :raises CniError: INVALID_CONFIG, IO_FAILURE.
    """
    try:
        return _open(text)
    except CniError as error:
        raise CniError(error.code, error.msg.replace(OPTION, key, 1), error.details) from error


def _open(text: str) -> Watched:
    kind, _, rest = text.partition(":")
    if kind == "file" and rest:
        return FileStore(rest)
    if kind == "etcd":
        from cni_v6.cluster.etcd_store import EtcdStore  # only for this: it imports http.client and ssl

        return EtcdStore(rest)
    if kind == "kubernetes" and (rest or text == kind):
        return _kubernetes(rest)
    raise wrong(OPTION, text, "names no store", f"write {FORMS}")


def _kubernetes(path: str) -> Watched:
    try:
        from cni_v6.cluster.kubernetes_store import KubernetesStore
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("cni_v6"):
            raise
        raise CniError(
            INVALID_CONFIG, f"--cluster: kubernetes needs the Python package {error.name}",
            "install it: pip install 'cni-v6[cluster]'",
        ) from None
    return KubernetesStore(path)
