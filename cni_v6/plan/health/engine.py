"""The resident engine, the firewall's tables, and containers that can change the node's network. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from cni_v6.log import counted
from cni_v6.plan.health.finding import AMBER, GREEN, RED, RELOAD, Finding
from cni_v6.plan.health.store import some

SAME, OTHER, SILENT, NONE = "same", "other", "silent", "none"


@dataclass(frozen=True, slots=True)
class EngineFacts:
    """``answer``: whether the engine is of this version (SAME), of another one, is silent, or is not there.

    ``run_dir_problem``: why no engine can use the run folder. ``stuck``: threads that wait for the kernel (state D).
    """

    path: str
    answer: str = NONE
    pid: int = 0
    age: str = ""
    run_dir_problem: str = ""
    stuck: int = 0
    advice: str = ""


@dataclass(frozen=True, slots=True)
class FirewallFacts:
    """``needed``: attachments that need the tables. ``differs``: how they differ. ``nft``: why it cannot load them."""

    needed: int = 0
    differs: tuple[str, ...] = ()
    nft: str = ""


def engine(facts: EngineFacts) -> Iterator[Finding]:
    """What there is to say about the engine: it may be missing."""
    if facts.run_dir_problem:
        yield Finding(AMBER, "engine", facts.run_dir_problem, "no engine starts: each call takes many times as long",
                      f"chmod 700 and chown root the folder of {facts.path}")
    elif facts.answer == SILENT:
        yield Finding(RED, "engine", f"the engine at {facts.path} does not answer",
                      "every ADD and DEL waits for it, and fails", facts.advice)
    elif facts.answer == OTHER:
        yield Finding(AMBER, "engine", "the engine is of another version, and leaves calls to their own processes",
                      "each call takes many times as long", "cni-v6ctl engine --stop: the next call starts another")
    elif facts.answer == NONE:
        yield Finding(GREEN, "engine", "none runs now; the next call starts one")
    elif facts.stuck:
        yield Finding(AMBER, "engine", f"{facts.stuck} of its threads wait for the kernel (state D)",
                      "their calls do not end before the kernel answers", facts.advice)
    else:
        yield Finding(GREEN, "engine", f"process {facts.pid}, of this version, {facts.age} old, answers")


def firewall(facts: FirewallFacts) -> Iterator[Finding]:
    """The tables, as far as attachments need them."""
    if facts.needed and facts.differs:
        yield Finding(RED, "firewall", f"{some(facts.differs)}",
                      f"{counted(facts.needed, 'attachment')} may be open, or lack published ports",
                      "cni-v6ctl reload", RELOAD)
    elif facts.nft:
        yield Finding(AMBER, "firewall", facts.nft, "the tables cannot be loaded after a boot, or once they are gone",
                      "install nftables")
    else:
        yield Finding(GREEN, "firewall", f"its tables are as loaded, for {counted(facts.needed, 'attachment')}"
                      if facts.needed else "no attachment needs it now")


def privileged(containers: Sequence[str]) -> Iterator[Finding]:
    """Containers with CAP_NET_ADMIN in the node's user namespace, as ``network/id/ifname (process)``."""
    if containers:
        yield Finding(AMBER, "CAP_NET_ADMIN", f"in the node's user namespace: {some(containers)}",
                      "such a container can change the node's network (docs/security.md)",
                      "a user namespace for it (hostUsers: false, --userns=auto), or drop NET_ADMIN")
    else:
        yield Finding(GREEN, "CAP_NET_ADMIN", "no container has it in the node's user namespace")
