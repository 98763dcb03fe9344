"""The metrics of the node's agent: read from its status, and served by itself as the engine serves its own."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress

from cni_v6.cluster.dropped import dropped as dropped_by_tables
from cni_v6.cluster.report import room
from cni_v6.ctl import agent_status
from cni_v6.engine.exposition import Sample, render
from cni_v6.engine.metrics import MetricsServer, listen_on
from cni_v6.errors import INVALID_CONFIG, CniError

VARIABLE = "CNI_V6_AGENT_METRICS"


def server(address: str | None, say: Callable[[str], None]) -> MetricsServer:
    """Serves them on a unix socket beside the engine's, and on a loopback address too; None for none.

    Any user of the node can take the port. The agent goes on without it: containers are worth more than numbers.

    :param say: is told why the agent does not listen there.
    :raises CniError: INVALID_CONFIG: it is no such address.
    """
    also = None
    try:
        also = listen_on(address) if address else None
    except CniError as error:
        if error.code == INVALID_CONFIG:
            raise
        say(f"{error}; the agent goes on, and its socket has them")
    return MetricsServer(agent_status.path(".sock"), also, lambda: render(of_agent()))


def of_agent(dropped: Callable[[], Iterable[tuple[str, str, int]]] = dropped_by_tables) -> Iterator[Sample]:
    """What the node's agent says, and what its tables have dropped; nothing if none has run here.

    :param dropped: as of ``cluster.dropped``.
    """
    found = agent_status.read()
    if found is None:
        return
    yield Sample("cni_v6_agent_up", int(agent_status.runs()), (found.node,))
    yield Sample("cni_v6_agent_ready", int(found.ready))
    yield Sample("cni_v6_agent_steps_total", found.steps)
    yield Sample("cni_v6_agent_store_reached", int(0 < found.stepped <= found.synced))
    yield Sample("cni_v6_agent_complaints", len(found.complaints))
    yield Sample("cni_v6_cluster_nodes", found.nodes)
    with suppress(CniError):  # the rest is told all the same
        yield from (Sample("cni_v6_cluster_dropped_packets_total", packets, (table, reason))
                    for table, reason, packets in dropped())
    if not agent_status.runs():  # what was measured then may be old
        return
    for block, leases in sorted(found.measured.used.items()):
        yield Sample("cni_v6_block_leases", leases, (block,))
        yield Sample("cni_v6_block_room", room(block), (block,))
    for answer in found.measured.answers:
        yield Sample("cni_v6_node_answers", int(answer.answers), (answer.node, f"ipv{answer.family}"))
