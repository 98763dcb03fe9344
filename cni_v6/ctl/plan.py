"""``cni-v6ctl plan``: shows the operations and the result of an ADD on this node, without doing it.

It runs the code of ADD with a kernel that reads the node and changes nothing, a container that does not exist, and
empty leases. So it shows the addresses of a network's first container.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cni_v6.attachments import old_gateways
from cni_v6.attachments.context import Context
from cni_v6.config.keys.ipam import SLAAC_IPAM
from cni_v6.ctl import screen
from cni_v6.ctl.output import OWNER, Output, listed, object_of, text, texts
from cni_v6.engine.handle import Reply, handle, real_context
from cni_v6.errors import INVALID_CONFIG, CniError
from cni_v6.kernel.describe import describe
from cni_v6.kernel.fake.kernel import FakeKernel
from cni_v6.kernel.ops import HOST, AddElements, Op
from cni_v6.kernel.privilege import may_change_the_network
from cni_v6.kernel.questions import Question
from cni_v6.kernel.snapshot import Kernel, Snapshot
from cni_v6.leases.attachment import Attachment
from cni_v6.leases.memory import MemoryDataDirs, MemoryLeases
from cni_v6.plan.lint.document import macs
from cni_v6.plugins.registry import PLUGINS
from cni_v6.protocol.invocation import IPAM, Invocation, Request
from cni_v6.protocol.json_reader import decode, repeated_key, shown

CONTAINER = "/run/netns/example"
OUTPUTS = {"plan": Output(listed(object_of({
    "type": text("the CNI type"), "network": OWNER["network"],
    "steps": listed(object_of({"operation": text("in words")}, {"elements": listed(object_of({
        "family": text("of the table"), "set": text("its name"), "key": texts("its parts"),
        "data": texts("what it leads to"),
    }), "of the firewall's sets")}), "in order"),
    "result": object_of({}, meaning="what the ADD would answer"),
    "notes": texts("warnings of the ADD, and what would differ"),
}), "one for each plugin of ours in the file"))}
TYPES = tuple(name for name, plugin in PLUGINS.items() if plugin.keys)


class RecordingKernel:
    """A kernel that reads the real node, has a fake container, and records operations instead of applying them."""

    def __init__(self, real: Kernel) -> None:
        self._real = real
        self._fake = FakeKernel()
        self._fake.add_netns(CONTAINER)
        self.steps: list[Op | Attachment] = []  # operations, and records that are written, in their order

    def netns_id(self, path: str) -> tuple[int, int]:
        return self._real.netns_id(path) if path == HOST else self._fake.netns_id(path)

    def observe(self, questions: Iterable[Question]) -> Snapshot:
        asked = list(questions)
        inside = [question for question in asked if getattr(question, "netns", HOST) == CONTAINER]
        outside = [question for question in asked if question not in inside]
        return self._real.observe(outside).with_answers(self._fake.observe(inside))

    def apply(self, operations: Iterable[Op]) -> Mapping[Op, Op | None]:
        self.steps += operations
        return {}

    def remove(self, operations: Iterable[Op]) -> None:
        self.steps += operations

    def close(self) -> None:
        self._real.close()


@dataclass(frozen=True, slots=True)
class Planned:
    """An ADD that was not done: its configuration, its operations and records in their order, its answer."""

    config: Mapping[str, Any]
    steps: list[Op | Attachment]
    reply: Reply

    @property
    def notes(self) -> tuple[str, ...]:
        """Warnings that it would log, and how a real one would differ."""
        return *_warnings(self.reply), *_notes(self.config)


def register(commands: Any) -> None:
    parser = commands.add_parser("plan", help="show what an ADD would do to this node, without doing it")
    parser.add_argument("conflist", type=Path, help="a network configuration (list) file")
    parser.add_argument("--container", default="example", metavar="ID", help="container id (%(default)s)")
    parser.add_argument("--pod", metavar="NAMESPACE/NAME", help="the container's pod; or the name of a container")
    parser.add_argument("--ifname", default="eth0", metavar="NAME", help="interface in the container (%(default)s)")
    parser.add_argument("--json", action="store_true", help="a list of objects, one for each plugin of ours")
    parser.set_defaults(run=run)


def run(
    chosen: argparse.Namespace, make_node: Callable[[], Context] = real_context,
    privileged: Callable[[], bool] = may_change_the_network,
) -> int:
    plans = [_planned(config, chosen, make_node()) for config in configurations(chosen.conflist)]
    if chosen.json:
        OUTPUTS["plan"].show([_document(plan) for plan in plans])
    else:
        for plan in plans:
            _show(plan)
    for line in (*_others(chosen.conflist), *_chained(chosen.conflist)):
        print(f"cni-v6ctl: {line}", file=sys.stderr)
    if not privileged():  # the kernel shows nftables to CAP_NET_ADMIN only (net/netfilter/nfnetlink.c)
        words = "not root, so the firewall's tables cannot be read; the plan takes them for missing"
        print(f"cni-v6ctl: note: {words}", file=sys.stderr)
    return 0


def _read(path: Path) -> tuple[Mapping[str, Any], list[dict[str, Any]]]:
    """A file's document, and its configurations of plugins."""
    try:
        content = path.read_bytes()
        document = decode(content, str(path))
    except OSError as error:
        raise CniError(INVALID_CONFIG, f"cannot read {path}", str(error.strerror)) from error
    listed = document.get("plugins", [document])
    entries = [entry for entry in listed if isinstance(entry, dict)] if isinstance(listed, list) else []
    if any(entry.get("strict") is True for entry in entries) and (repeated := repeated_key(content)):
        words = f"{path}: {shown(repeated)} is written twice"
        raise CniError(INVALID_CONFIG, words, "strict is true: remove one of them")
    return document, entries


def _chained(path: Path) -> Iterator[str]:
    """Warnings about later plugins of the list. An ADD cannot give them: it sees only its own configuration."""
    yield from (f"warning: {remark.message}: {remark.remedy}" for remark in macs(_read(path)[1]))


def _others(path: Path) -> Iterator[str]:
    """Notes about main plugins of others, of whose networks only the addresses are ours."""
    for number, entry in enumerate(_read(path)[1]):
        if _has_our_addresses(entry):
            yield (f"note: plugins[{number}] is {shown(entry.get('type'))}: its interface is not ours; the plan shows "
                   f"the addresses that it gets from {IPAM}")


def _has_our_addresses(config: Mapping[str, Any]) -> bool:
    """Whether the addresses of another main plugin are ours."""
    ipam = config.get("ipam")
    return config.get("type") not in TYPES and isinstance(ipam, dict) and ipam.get("type") == IPAM


def configurations(path: Path) -> Iterator[dict[str, Any]]:
    """The configurations of our plugins in a file, each with the list's name and version as libcni adds them. One of
    another main plugin whose addresses are ours is of the type of the IPAM plugin here."""
    document, entries = _read(path)
    found = [{**entry, "type": IPAM} if _has_our_addresses(entry) else entry for entry in entries]
    found = [entry for entry in found if entry.get("type") in TYPES]
    if not found:
        words = f"{path} has no plugin of type {' or '.join(TYPES)}, and no ipam of type {IPAM}"
        raise CniError(INVALID_CONFIG, words, "see conf/ for samples")
    common = {key: document[key] for key in ("name", "cniVersion") if key in document}
    yield from ({**entry, **common} for entry in found)


def _planned(config: Mapping[str, Any], chosen: argparse.Namespace, real: Context) -> Planned:
    kernel = RecordingKernel(real.kernel)
    context = replace(
        real, kernel=kernel, data_dirs=MemoryDataDirs(), delegate=_nobody,
        leases=lambda network, _: _empty(network, kernel, real.boot),
    )
    reply = handle(_request(config, chosen), context)
    if reply.code:
        error = json.loads(reply.stdout)
        raise CniError(error["code"], error["msg"], error.get("details", ""))
    return Planned(config, kernel.steps, reply)


def _show(plan: Planned) -> None:
    print(f"{plan.config['type']} on network {plan.config['name']}, for a container that would be its first:")
    for number, step in enumerate(plan.steps, 1):
        print("\n".join(screen.wrapped(f"{number:3}.", _words(step), 5)))
        if isinstance(step, AddElements):
            for element in step.elements:
                leads = f" : {' . '.join(element.data)}" if element.data else ""
                words = f"{element.family} {element.set}: {' . '.join(element.key)}{leads}"
                print("\n".join(screen.wrapped("", words, 7)))
    print(json.dumps(json.loads(plan.reply.stdout), indent=2))
    for line in plan.notes:
        print(f"cni-v6ctl: {line}", file=sys.stderr)


def _document(plan: Planned) -> dict[str, object]:
    return {
        "type": plan.config["type"], "network": plan.config["name"],
        "steps": [{"operation": _words(step), **({"elements": [
            {"family": element.family, "set": element.set, "key": list(element.key), "data": list(element.data)}
            for element in step.elements
        ]} if isinstance(step, AddElements) else {})} for step in plan.steps],
        "result": json.loads(plan.reply.stdout), "notes": list(plan.notes),
    }


def _empty(network: str, kernel: RecordingKernel, boot: str) -> MemoryLeases:
    """A store without a record, which is not to be taken for one that has lost those of the network's containers."""
    store = MemoryLeases(network, on_record=kernel.steps.append)
    with store.transaction() as leases:
        leases.keep_memo(old_gateways.encode(old_gateways.Memo(recalled=True), boot))
    return store


def _words(step: Op | Attachment) -> str:
    return _recorded(step) if isinstance(step, Attachment) else describe(step)


def _recorded(record: Attachment) -> str:
    held = " ".join((*record.addresses, *record.prefixes, *(f"proxy {entry.address}" for entry in record.proxied)))
    return f"record attachment {record.owner}: {held or 'no address'}"


def _warnings(reply: Reply) -> Iterator[str]:
    """The warnings that an ADD would log."""
    marked = (line.partition(" warning: ") for line in reply.stderr.splitlines())
    return (f"warning: {text}" for _, mark, text in marked if mark)


def _notes(config: Mapping[str, Any]) -> Iterator[str]:
    """Notes about the addresses that a real ADD would choose differently."""
    allocation = config.get("ipam", {}).get("allocation")
    if config.get("ipam", {}).get("type") == SLAAC_IPAM:
        yield "note: the addresses come from a router on the link: the result of an ADD has them"
    if allocation == "random":
        yield "note: the addresses are drawn by lot: an ADD draws others"
    if allocation == "stable" and not config["ipam"].get("secretFile"):
        yield "note: the addresses are examples: without ipam.secretFile the node's own secret for the network decides"


def _request(config: Mapping[str, Any], chosen: argparse.Namespace) -> Request:
    environment = {
        "CNI_COMMAND": "ADD",
        "CNI_CONTAINERID": chosen.container,
        "CNI_NETNS": CONTAINER,
        "CNI_IFNAME": chosen.ifname,
        "CNI_PATH": "/opt/cni/bin",
    }
    if chosen.pod:
        namespace, _, name = chosen.pod.rpartition("/")
        environment["CNI_ARGS"] = f"K8S_POD_NAMESPACE={namespace};K8S_POD_NAME={name}"
    return Request(str(config["type"]), environment, json.dumps(config).encode())


def _nobody(_: Invocation, name: str, __: str) -> Mapping[str, Any]:
    words = f"ipam.type: the addresses of {name} are not known before it runs"
    raise CniError(INVALID_CONFIG, words, "a plan can be shown for cni-v6-ipam, host-local, or no ipam")
