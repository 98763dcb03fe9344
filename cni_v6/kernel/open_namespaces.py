"""The namespaces that an invocation has open, and the interface indices that it knows."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from cni_v6.kernel.netlink import answers, requests
from cni_v6.kernel.netlink.socket import Answer
from cni_v6.kernel.netns.enter import Namespace, lasting_identity, open_namespace
from cni_v6.kernel.ops import HOST
from cni_v6.kernel.sysctl import Folders, Proc


class Spaces:
    """Opens a namespace at its first use.

    :param host: the node's own namespace, if the caller keeps it open between invocations; ``close`` keeps it open.
        This thread is in it.
    :param given: descriptors of namespaces that the caller has open, by path; the caller closes them.
    :param rules_watched: the engine looks at the firewall's rules whenever they change, so their mark tells enough.
    :param proc: where the sysctls of containers are looked for (``Folders``); None: in /proc.

    ``has_elements``: elements of the firewall were added, so its tables are in use. ``made``: the indices of the
    interfaces that this ADD has made in containers, which may rename them.
    """

    def __init__(
        self,
        host: Namespace | None = None,
        given: Mapping[str, int] | None = None,
        *,
        rules_watched: bool = False,
        proc: Proc | None = None,
    ) -> None:
        self.rules_watched = rules_watched
        self.has_elements = False
        self._kept = host
        self._proc = proc
        self._home = host.file if host else None
        self._given = given or {}
        self._open: dict[str, Namespace] = {HOST: host} if host else {}
        self._indices: dict[tuple[str, str], int] = {}
        self.made: dict[tuple[str, str], int] = {}

    def get(self, netns: str) -> Namespace:
        if netns not in self._open:
            self._open[netns] = self._opened(netns)
        return self._open[netns]

    def with_sysctls(self, netns: str, work: Callable[[Folders], None]) -> None:
        """See ``Namespace.with_sysctls``. If the namespace is not open yet, it is opened in the same visit."""
        if netns in self._open:
            self._open[netns].with_sysctls(work)
        else:
            self._open[netns] = self._opened(netns, work)

    def _opened(self, netns: str, work: Callable[[Folders], None] = lambda _: None) -> Namespace:
        proc = None if netns == HOST else self._proc
        return open_namespace(netns, self._given.get(netns), work, home=self._home, proc=proc)

    def identity(self, netns: str) -> tuple[int, int]:
        """See ``kernel.Kernel.netns_id``."""
        space = self._open.get(netns)
        return space.identity() if space else lasting_identity(netns, self._given.get(netns))

    def close(self) -> None:
        for space in self._open.values():
            if space is not self._kept:
                space.close()
        self._open = {HOST: self._kept} if self._kept else {}
        self._indices.clear()

    def index(self, netns: str, ifname: str) -> int | None:
        """The interface's index, from the kernel unless it is known; None if there is no such interface."""
        if (netns, ifname) not in self._indices:
            [answer] = self.get(netns).route.request([requests.get_link(ifname)])
            self.learn(netns, ifname, answer)
        return self._indices.get((netns, ifname))

    def learn(self, netns: str, ifname: str, answer: Answer) -> None:
        """Remember the index in an answer to ``requests.get_link``."""
        if answer.messages:
            self._indices[netns, ifname] = answers.index_of(answer.messages[0])

    def learn_pair(self, host: str, netns: str, ifname: str, answer: Answer) -> None:
        """Remember both indices of a veth pair, from the answer to ``get_link`` of its end on the node."""
        self.learn(HOST, host, answer)
        peer = answers.peer_of(answer.messages[0]) if answer.messages else 0
        if peer:
            self._indices[netns, ifname] = peer

    def forget_indices(self) -> None:
        """Forget all indices after a deletion: another interface may get the name."""
        self._indices.clear()
