"""What doctor says of the node's agent: whether it runs, what is in its way, how full the node's blocks are. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from cni_v6.net.addresses import version
from cni_v6.plan.health.finding import AMBER, GREEN, RED, Finding, share

FULL = 90  # percent of a block
OLD_SECONDS = 300  # without the store
MOST_COMPLAINTS = 3
AGENT = "agent"
START = "systemctl start cni-v6-agent; its last words: journalctl -u cni-v6-agent"


@dataclass(frozen=True, slots=True)
class AgentFacts:
    """``behind``: seconds since the store could be read at last, None for never. ``blocks``: (leases, room) of each.

    ``silent``: nodes that do not answer, with the family, such as ``b (IPv4)``. ``configured``: the configuration list
    that it writes is there.
    """

    node: str
    target: str
    runs: bool
    configured: bool
    behind: float | None
    nodes: int
    complaints: tuple[str, ...] = ()
    blocks: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    silent: tuple[str, ...] = ()


def findings(facts: AgentFacts | None) -> Iterator[Finding]:
    """Nothing for a node that no agent has run on since its boot."""
    if facts is None:
        return
    found = [*_of_agent(facts), *(_of_blocks(facts) if facts.runs else ())]  # what was measured then may be old
    yield from found or [Finding(
        GREEN, AGENT, f"node {facts.node} of a cluster of {facts.nodes}; its agent runs, and the store is reached")]


def _of_agent(facts: AgentFacts) -> Iterator[Finding]:
    if not facts.runs:
        yield Finding(AMBER, AGENT, f"the agent of node {facts.node} does not run",
                      "routes to new nodes are missing, and nobody makes lost ones again", START)
    elif facts.behind is None or facts.behind > OLD_SECONDS:
        when = "since it was started" if facts.behind is None else f"for {int(facts.behind // 60)} minutes"
        yield Finding(AMBER, AGENT, f"the cluster's store could not be read {when}",
                      "routes to new nodes are missing; those to others stay", "see what the agent says below")
    if not facts.configured:
        yield Finding(RED, AGENT, f"there is no configuration at {facts.target}", "no container starts",
                      "see what the agent says" if facts.complaints else START)
    for words in facts.complaints[:MOST_COMPLAINTS]:
        yield Finding(AMBER, AGENT, words, "the node is not as its cluster needs it", "see docs/cluster.md")
    if facts.silent and facts.runs:
        yield Finding(AMBER, AGENT, f"no answer from {', '.join(facts.silent)}",
                      "containers there may not be reached", "cni-v6ctl nodes shows whether others reach them")


def _of_blocks(facts: AgentFacts) -> Iterator[Finding]:
    """Of those of a family, which are of one pool: a full block is no trouble while another one has addresses."""
    for family in (6, 4):
        blocks = {block: of_block for block, of_block in facts.blocks.items() if version(block) == family}
        leases, room = (sum(numbers) for numbers in zip(*blocks.values())) if blocks else (0, 1)
        if share(leases, room) >= FULL:
            words = f"{', '.join(blocks)}: {leases} of {room} addresses are leased"
            yield Finding(RED if leases >= room else AMBER, "block", words,
                          "the node has no other block, and no more containers start once all are leased",
                          "see what the agent says; else move containers to other nodes, or take a larger maxBlocks")
