"""Nodes of a cluster with the carrier ``bgp``: a BIRD on each of them, and one that is their router."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from cni_v6.cluster.keys import BIRD_FILE
from tests.bird import USER, Bird, need_bird
from tests.netns import wire
from tests.netns.cluster import Cluster, Member, cluster

REFLECTOR = {"address": "fd00:11::fe", "as": 64512, "bfd": True}
# BFD on a busy machine: the slower side's interval counts, and with it a session ends after four seconds.
SLOWLY = {"bfd { interval 200 ms; multiplier 4; };": "bfd { interval 1 s; multiplier 4; };"}


@contextmanager
def nodes(names: Sequence[str], **keys: Any) -> Iterator[tuple[Cluster, dict[str, Bird]]]:
    """Nodes without IPv4 on the link, and a BIRD for each, which all run. The agents do not run yet."""
    need_bird()
    with ExitStack() as undo:
        made = undo.enter_context(cluster(*names, ipv4=False, carrier="bgp", **keys))
        made.group = USER
        made.folder.chmod(0o755)  # BIRD has a user of its own
        birds = {}
        for member in made.members:
            member.node.file(BIRD_FILE).parent.mkdir()
            before = ["nsenter", f"--net={member.node.path}", f"--mount={member.node.mount_namespace}", "--"]
            bird = Bird(made.folder / f"bird-{member.name}", "node.conf", before,
                        {"router id 192.0.2.1;": f"router id 192.0.2.{member.number};"})
            undo.callback(bird.stop, signal.SIGKILL)
            bird.start()
            birds[member.name] = bird
        yield made, birds


@contextmanager
def router(made: Cluster, sample: str, address: str, others: Mapping[str, str]) -> Iterator[None]:
    """A BIRD on the link of the nodes.

    :param others: of ``Bird``.
    """
    subprocess.run(["ip", "-n", made.lan, "address", "add", address, "dev", "lan", "nodad"], check=True)
    bird = Bird(made.folder / "router", sample, ["nsenter", f"--net=/run/netns/{made.lan}", "--"], others)
    try:
        bird.start()
        yield
    finally:
        bird.stop(signal.SIGKILL)


def start(member: Member, bird: Bird, peer: Mapping[str, object]) -> None:
    member.start(bgp={"as": 64512, "peers": [peer], "socket": str(bird.socket)})


def learned(member: Member) -> dict[str, str]:
    """Prefix -> way, of each route that BIRD has made."""
    lines = []
    for family in ("-6", "-4"):
        lines += member.node.run("ip", family, "route", "show", "proto", "bird").stdout.splitlines()
    return {prefix: way.strip() for prefix, _, way in (line.partition(" ") for line in lines)}


def await_routes(member: Member, others: Sequence[Member]) -> None:
    """Wait until a node has routes to exactly the blocks of these."""
    wanted = {block for other in others for block in other.blocks()}
    wire.await_state(member.node.path, lambda: set(learned(member)) == wanted, f"on {member.name}: {sorted(wanted)}")
