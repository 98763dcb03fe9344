"""Of a node and its copy, made with its disk, the one that was there first goes on.

A node that starts cannot tell whether its record is of the boot before or of another machine, and replaces it. The
other one, if there is one, replaces it in turn. That tells the node, and it ends. It does so when that has happened
twice: a store that is restored from a backup has the old record again, too.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from cni_v6.cluster import membership
from cni_v6.cluster.records import Cluster
from cni_v6.cluster.state import Disk, State
from cni_v6.errors import NODE_CONFLICT, CniError


class Unwritten(Exception):
    """The disk does not take down what must be known after a restart."""


class Original:
    """
    :param boot: of the machine.
    :param folder: of the agent's state, for the operator.
    :param say: takes a line for the operator.
    """

    def __init__(self, boot: str, disk: Disk, folder: str, say: Callable[[str], None]) -> None:
        self._boot = boot
        self._disk = disk
        self._folder = folder
        self._say = say
        # The boot of a record that was there again after this agent had replaced it: replaced once more, and not yet.
        self._returned = self._again = ""

    def looked(self, state: State, cluster: Cluster, *, joined: bool) -> tuple[State, CniError | None]:
        """What is known then; why the node is the copy, if it is.

        :param joined: this agent has replaced the record already, if it was another boot's.
        :raises Unwritten: before the record may be replaced.
        """
        other = membership.other_boot(state.member, cluster, self._boot)
        self._again = ""
        if not other:
            return state, None
        if joined and other == state.replaced != self._returned:
            self._again = other
        elif other == (state.replaced if joined else state.rival):
            return replace(state, objects={}, rival=other), self._refusal(state, cluster)
        elif joined:
            self._say(f"a copy of this node's disk runs at {_where(state, cluster)}: it has the same name and id, and "
                      "is told to end")
        else:
            state = replace(state, replaced=other)
            try:
                self._disk.save(state)  # before the record is replaced
            except CniError as error:
                raise Unwritten(str(error)) from error
        return state, None

    def replaced(self) -> None:
        """The record is this boot's by now."""
        self._returned = self._again or self._returned

    def known(self, state: State, cluster: Cluster) -> CniError | None:
        """Why the node is the copy, if an agent of it has learnt that before."""
        other = membership.other_boot(state.member, cluster, self._boot)
        return self._refusal(state, cluster) if other and other == state.rival else None

    def _refusal(self, state: State, cluster: Cluster) -> CniError:
        name = state.member.name
        return CniError(
            NODE_CONFLICT, f"this is a copy of node {name} at {_where(state, cluster)}, which runs with the same disk",
            f"remove {self._folder} and start this agent with another --node; if the other one is the copy: end its "
            f"agent, then cni-v6ctl nodes --remove {name}",
        )


def _where(state: State, cluster: Cluster) -> str:
    return ", ".join(cluster.nodes[state.member.name].addresses)
