"""Who of other clusters is let in, before anything else: by the agent's file, or by the last one that could be read.

Only the file says which prefixes are another cluster's. So a copy of it is kept in the agent's folder. At a boot with a
file that cannot be read there is no table of nftables yet, and containers start all the same: who was kept out before
is kept out by the copy.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable

from cni_v6.cluster import files, others, routes
from cni_v6.cluster.config import AgentConf, parse
from cni_v6.cluster.facts import Add, NodeKernel
from cni_v6.cluster.keys import STATE_DIR
from cni_v6.errors import CniError

COPY = "agent.json"  # in the agent's folder
_FOLDER = re.compile(r'"stateDir"\s*:\s*("/(?:[^"\\]|\\.)*")')


def set_gate(kernel: NodeKernel, conf: AgentConf) -> list[str]:
    """Let nobody of another cluster in but who may, and nothing out unencrypted that must be; what the kernel refuses.
    """
    facts = kernel.observe()
    closed = (Add(route) for route in routes.unencrypted(conf) if route not in facts.entries)
    return [*map(str, kernel.apply((*routes.gate_difference(facts, others.gate(conf)), *closed)))]


def keep_copy(conf: AgentConf, content: bytes, say: Callable[[str], None]) -> None:
    """
    :param content: of the file that ``conf`` was read from.
    :param say: is told why it cannot be kept.
    """
    path = f"{conf.state_dir}/{COPY}"
    try:
        files.make_folder(conf.state_dir)
        if files.read(path) != content:
            files.replace(path, content, 0o600)
    except CniError as error:
        say(f"a boot with a file that cannot be read would keep no other cluster out: {error}")


def as_before(kernel: NodeKernel, content: bytes, say: Callable[[str], None]) -> None:
    """Keep out who was kept out before. A table that is there stays as it is.

    :param content: of the file that cannot be read, b"" for none.
    :param say: is told who is kept out now.
    """
    path = f"{folder_of(content)}/{COPY}"
    try:
        if kernel.observe().gate:
            say("who of other clusters was kept out is kept out still; changes of the file have no effect")
            return
        copy = files.read(path)
        if copy is None:
            say(f"no other cluster is kept out: there is no {path}, the copy of the last file that could be read")
            return
        conf = parse(copy, path)
        refusals = set_gate(kernel, conf)
    except CniError as error:
        refusals = [str(error)]
    for refusal in refusals:
        say(f"no other cluster is kept out: {refusal}")
    if not refusals:
        closed = [passage.source for passage in others.gate(conf) if not passage.is_open]
        who = ", ".join(dict.fromkeys(closed)) or "nobody"
        say(f"kept out of other clusters by {path}, the copy of the last file that could be read: {who}")


def folder_of(content: bytes) -> str:
    """The agent's folder by a file of which no more may be readable."""
    found = _FOLDER.search(content.decode(errors="replace"))
    try:
        return str(json.loads(found[1])) if found else STATE_DIR
    except ValueError:
        return STATE_DIR
