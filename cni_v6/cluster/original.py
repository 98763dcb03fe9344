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
        self._returned = ""  # the boot of a record that was there again after this agent had replaced it

    def looked(self, state: State, cluster: Cluster, *, joined: bool) -> tuple[State, CniError | None]:
        """What is known then; why the node is the copy, if it is.

        :param joined: this agent has replaced the record already, if it was another boot's.
        :raises Unwritten: before the record may be replaced.
        """
        member = state.member
        other = membership.other_boot(member, cluster, self._boot)
        if not other:
            return state, None
        where = ", ".join(cluster.nodes[member.name].addresses)
        if joined and other == state.replaced != self._returned:
            self._returned = other
        elif other == (state.replaced if joined else state.rival):
            return replace(state, objects={}, rival=other), CniError(
                NODE_CONFLICT, f"this is a copy of node {member.name} at {where}, which runs with the same disk",
                f"remove {self._folder} and start this agent with another --node; if the other one is the copy: end "
                f"its agent, then cni-v6ctl nodes --remove {member.name}",
            )
        elif joined:
            self._say(f"a copy of this node's disk runs at {where}: it has the same name and id, and is told to end")
        else:
            state = replace(state, replaced=other)
            try:
                self._disk.save(state)  # before the record is replaced
            except CniError as error:
                raise Unwritten(str(error)) from error
        return state, None
