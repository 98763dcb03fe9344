"""``cni-v6ctl agent``: this node's part in a cluster, in the foreground, for systemd or a DaemonSet."""

from __future__ import annotations

import argparse
import os
import sys
import time
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

from cni_v6.cluster import capacity, conflist, disk as disks, echo, files, report, serve
from cni_v6.cluster.agent import Agent, Outcome
from cni_v6.cluster.bird import Bird
from cni_v6.cluster.config import AgentConf, OtherCluster, parse, parse_node_name
from cni_v6.cluster.keys import WIREGUARD
from cni_v6.cluster.lease_folder import LeaseFolder
from cni_v6.cluster.linux import LinuxNode
from cni_v6.cluster.open_store import HELP, open_store
from cni_v6.cluster.other_store import OtherStore
from cni_v6.cluster.reporter import Reporter
from cni_v6.cluster.status import Status
from cni_v6.config.keys.ipam import DEFAULT_DATA_DIR
from cni_v6.ctl import agent_metrics, agent_status, keep_out, screen
from cni_v6.ctl.agent_status import StatusFile
from cni_v6.errors import INVALID_CONFIG, CniError
from cni_v6.kernel.netns.enter import identity
from cni_v6.kernel.ops import HOST


def register(commands: Any) -> None:
    parser = commands.add_parser("agent", help="run this node's part in a cluster in the foreground")
    parser.add_argument("--node", metavar="NAME", help="name of this node, which no other node has")
    parser.add_argument("--cluster", metavar="STORE", help=HELP)
    parser.add_argument("--config", required=True, type=Path, metavar="FILE", help="the agent's configuration")
    parser.add_argument(
        "--metrics", default=os.environ.get(agent_metrics.VARIABLE), metavar="ADDRESS:PORT",
        help=f"serve the metrics on a loopback address too, such as [::1]:9165 (default: ${agent_metrics.VARIABLE})",
    )
    parser.add_argument("--keep-out", action="store_true",
                        help="only keep other clusters out, and what must be encrypted in, as FILE says, and end: for "
                             "the boot")
    parser.set_defaults(run=run, root=True)


def run(chosen: argparse.Namespace) -> int:
    conf, content = _read(str(chosen.config))
    if chosen.keep_out:
        return 1 if _keep_out(conf, content) else 0
    for option in ("node", "cluster"):
        if getattr(chosen, option) is None:
            raise CniError(INVALID_CONFIG, f"--{option} is missing", "only --keep-out needs neither")
    name = parse_node_name(chosen.node)
    with ExitStack() as open_things:
        disk = disks.RealDisk(conf.state_dir, conf.target)
        for path, where in ((_network_lock(), "in this network namespace"),
                            (f"{conf.state_dir}/{disks.LOCK}", f"with the state folder {conf.state_dir}")):
            open_things.callback(os.close, disks.only_one(path, where))
        _keep_out(conf, content)  # before anything that may take long, or fail: containers may run
        private_key = disks.private_key(conf.state_dir) if conf.carrier == WIREGUARD else b""
        kernel = open_things.enter_context(closing(LinuxNode(conf.underlay, private_key)))
        template = conflist.parse_template(_content(conf.template, "conflist.template"), conf.template)
        store = open_things.enter_context(closing(open_store(chosen.cluster)))
        other_stores = {other.name: open_things.enter_context(closing(_other_store(number, other)))
                        for number, other in enumerate(conf.clusters)}
        speaker = open_things.enter_context(closing(Bird(conf.bgp.file, conf.bgp.socket))) if conf.bgp else None
        leases = _leases(conf, template)
        if leases:
            open_things.callback(leases.close)
        agent = Agent(
            conf, name, template, store=store, kernel=kernel, disk=disk, make_id=disks.new_id, say=_say,
            speaker=speaker, other_stores=other_stores, boot=disks.boot(identity(HOST)[1]), leases=leases,
            now=time.monotonic,
        )
        open_things.callback(disk.set_ready, False)
        shown = StatusFile(Status(name, conf.target))
        open_things.enter_context(closing(agent_metrics.server(chosen.metrics, _say)))
        if conf.report_every:
            folder = _network_folder(template)
            open_things.enter_context(closing(Reporter(
                store, agent.known, seconds=conf.report_every, first=conf.report_every * report.share(agent.member),
                leased=lambda blocks: disks.leased(folder, blocks),
                echo=lambda addresses: echo.answered(addresses, kernel.underlay_name), now=time.time,
                told=lambda measured: shown.update(measured=measured), say=_say,
            )))
        found = (store, kernel.news, kernel.table_news, speaker, leases, *other_stores.values())
        sources = [source for source in found if source]
        try:
            return serve.serve(agent, sources, lambda outcome: _show(shown, agent, outcome))
        except CniError as error:
            shown.update(ready=False, complaints=(str(error),))
            raise


def _read(path: str) -> tuple[AgentConf, bytes]:
    """The configuration, and the content of its file.

    :raises CniError: it cannot be read; who was kept out before is kept out.
    """
    content = b""
    try:
        content = _content(path, "--config")
        return parse(content, path), content
    except CniError:
        with closing(LinuxNode("")) as kernel:
            keep_out.as_before(kernel, content, _say)
        raise


def _keep_out(conf: AgentConf, content: bytes) -> list[str]:
    """Keep out who must be kept out, and a copy of the file; what the kernel refuses, which is said."""
    with closing(LinuxNode(conf.underlay)) as kernel:
        refusals = keep_out.set_gate(kernel, conf)
    for refusal in refusals:
        _say(refusal)
    keep_out.keep_copy(conf, content, _say)
    return refusals


def _show(shown: StatusFile, agent: Agent, outcome: Outcome) -> None:
    """Say how a step went, to whoever asks."""
    if outcome.removed:
        shown.remove()
        return
    known, now = agent.known(), int(time.time())
    shown.update(
        ready=outcome.ready, stepped=now, steps=shown.steps + 1, complaints=agent.complaints.last,
        nodes=len(known[1].nodes) if known else 0, **({"synced": now} if agent.reached else {}),
    )


def _network_folder(template: conflist.Document) -> str:
    """Where the leases of the network are."""
    folder = template["plugins"][0]["ipam"].get("dataDir") or DEFAULT_DATA_DIR
    return f"{folder}/{template.get('name')}"


def _leases(conf: AgentConf, template: conflist.Document) -> LeaseFolder | None:
    """Counts the leases of pools of which the node may have several blocks; None if there is no such pool."""
    pools = [pool for pool in conf.pools if pool.may_have_several]
    if not pools or not conflist.is_ours(template):
        return None
    withheld = conflist.withheld(template)
    return LeaseFolder(_network_folder(template), pools,
                       lambda own, used: capacity.situation(pools, own, used, withheld))


def _other_store(number: int, other: OtherCluster) -> OtherStore:
    return OtherStore(lambda: open_store(other.store, f"clusters[{number}].store"))


def _say(words: str) -> None:
    """What other nodes have written is in it: it is one line, whatever it is."""
    print(f"cni-v6ctl agent: {screen.plain(words)}", file=sys.stderr, flush=True)


def _content(path: str, key: str) -> bytes:
    content = files.read(path)
    if content is None:
        raise CniError(INVALID_CONFIG, f"{key}: there is no file {path}", "write one: docs/cluster.md shows it")
    return content


def _network_lock() -> str:
    """The lock file of this network namespace's agent, beside the engine's socket."""
    found = agent_status.path(".lock")
    files.make_folder(os.path.dirname(found))
    return found
