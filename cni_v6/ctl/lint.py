"""``cni-v6ctl lint``: what the plugins refuse of configuration files, and what a person should know besides."""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cni_v6 import __version__
from cni_v6.attachments.context import Context
from cni_v6.config.bridge import BridgeConf
from cni_v6.config.ipam import IpamConf
from cni_v6.ctl import conf_dir, screen
from cni_v6.ctl.output import Output, choice, listed, object_of, text, whole
from cni_v6.ctl.plan import configurations
from cni_v6.engine.handle import real_context
from cni_v6.errors import NODE_CONFLICT, TRY_AGAIN, CniError
from cni_v6.kernel.questions import GetSurroundings, GetUplinks
from cni_v6.plan.lint import document as document_rules
from cni_v6.plan.lint.remark import ERROR, RULES, WARNING, Remark, line_of, worst
from cni_v6.protocol.json_reader import decode, repeated_key, shown

if TYPE_CHECKING:
    from cni_v6.plan.lint.addresses import Node, Other

PODS = 110  # kubelet's default of maxPods
KUBELET = Path("/var/lib/kubelet/config.yaml")
OF_PODS = ("kubernetes", "k8s")  # in the name of a file
TEXT, GITHUB, SARIF = "text", "github", "sarif"
SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"
OUTPUTS = {"lint": Output(listed(object_of({
    "file": text("as it was named"), "line": whole("of the key, from 1"),
    "rule": text("its short name, such as mtu"), "message": text("what is so"),
    "level": choice("the exit status is 1 or 2 by the worst", WARNING, ERROR),
    "why": text("it matters"), "remedy": text("what to do"),
}), "the remarks"))}


@dataclass(frozen=True, slots=True)
class Place:
    """A remark with its file and line."""

    file: str
    line: int
    remark: Remark


@dataclass(frozen=True, slots=True)
class Known:
    """What the remarks about all files depend on. ``pods``: for files of Kubernetes; ``others``: other networks."""

    context: Context
    node: Node | None
    kubernetes: bool
    pods: int
    others: Sequence[Other]


def register(commands: Any) -> None:
    parser = commands.add_parser("lint", help="what is refused of configuration files, and what one should know")
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE", help="network configuration (list) files")
    parser.add_argument("--kubernetes", action="store_true",
                        help="they are for pods (default: if a name says so, or a kubelet is configured here)")
    parser.add_argument("--pods", type=int, default=PODS, metavar="N", help="pods of a node at once (%(default)s)")
    parser.add_argument("--no-node", action="store_true", help="do not look at this node, as in CI")
    parser.add_argument("--conf-dir", type=Path, default=conf_dir.CONF_DIR, metavar="DIR",
                        help="other configurations of this node (%(default)s)")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--format", choices=(TEXT, GITHUB, SARIF), default=TEXT,
                      help="text; annotations of GitHub's actions; SARIF 2.1.0")
    form.add_argument("--json", action="store_true", help="a list of objects")
    parser.set_defaults(run=run)


def run(chosen: argparse.Namespace, make_node: Callable[[], Context] = real_context, kubelet: Path = KUBELET) -> int:
    """
    :returns: 0 without remarks, 1 with warnings, 2 with errors.
    """
    context = make_node()
    try:
        known = _known(chosen, context, kubelet)
        places = [place for path in chosen.files for place in _of_file(path, known)]
    finally:
        context.kernel.close()
    if chosen.json:
        OUTPUTS["lint"].show([_document(place) for place in places])
    elif chosen.format == SARIF:
        print(json.dumps(_sarif(places), indent=2))
    else:
        lines = map(_annotation, places) if chosen.format == GITHUB else _text(places, len(chosen.files))
        print("".join(f"{line}\n" for line in lines), end="")
    return worst(place.remark for place in places)


def remarks(path: Path, folder: Path, context: Context, *, no_node: bool = False) -> list[Remark]:
    """The remarks about one file that is for ``folder``, on this node if it is to be looked at."""
    chosen = argparse.Namespace(files=[path], no_node=no_node, conf_dir=folder, kubernetes=False, pods=PODS)
    return [place.remark for place in _of_file(path, _known(chosen, context, KUBELET))]


# What is known


def _known(chosen: argparse.Namespace, context: Context, kubelet: Path) -> Known:
    from cni_v6.plan.lint.addresses import Node  # netaddr takes longer to import than all else of a command

    node = None
    paths = list(chosen.files)
    if not chosen.no_node:
        seen = context.kernel.observe([GetSurroundings(), GetUplinks()])
        node = Node(seen.surroundings(), seen.uplinks())
        names = {path.name for path in paths}
        with suppress(CniError):  # there is no such folder
            paths += [path for path in conf_dir.files(chosen.conf_dir) if path.name not in names]  # they replace it
    others = [other for path in paths for other in networks(path, context)]
    kubernetes = chosen.kubernetes or (node is not None and kubelet.exists())
    return Known(context, node, kubernetes, chosen.pods, others)


def networks(path: Path, context: Context) -> Iterator[Other]:
    """The networks of a file, with their subnets; nothing of one that cannot be read."""
    from cni_v6.plan.lint.addresses import Other, foreign_subnets, subnets

    with suppress(CniError, OSError):
        whole = decode(path.read_bytes(), path.name)
        name = str(whole.get("name", ""))
        with suppress(CniError):
            for config in configurations(path):
                conf = conf_dir.checked(config, context)
                ipam = conf if isinstance(conf, IpamConf) else conf.ipam
                bridge = conf.bridge if isinstance(conf, BridgeConf) else ""
                yield Other(str(path), name, bridge, subnets(ipam) if isinstance(ipam, IpamConf) else ())
            return
        yield Other(str(path), name, "", foreign_subnets(whole))


# Remarks


def _of_file(path: Path, known: Known) -> Iterator[Place]:
    text = ""
    try:
        content = path.read_bytes()
        text = content.decode(errors="replace")
        whole = decode(content, path.name)
    except OSError as error:
        words = f"it cannot be read: {error.strerror}"
        yield Place(str(path), 1, Remark("not-json", ERROR, words, "name another file"))
        return
    except CniError as error:
        yield Place(str(path), 1, Remark("not-json", ERROR, error.msg, error.details or "write JSON"))
        return
    for remark in dict.fromkeys(_remarks(path, content, whole, known)):
        yield Place(str(path), line_of(text, remark.key), remark)


def _remarks(path: Path, content: bytes, whole: Mapping[str, Any], known: Known) -> Iterator[Remark]:
    from cni_v6.plan.lint.addresses import between

    repeated = repeated_key(content)
    if repeated:
        yield Remark("written-twice", WARNING, f"{shown(repeated)} is written twice", "remove one of them", repeated)
    yield from document_rules.form(path.name, whole)
    listed = whole.get("plugins", [whole])
    entries = [entry for entry in listed if isinstance(entry, dict)] if isinstance(listed, list) else []
    kubernetes = known.kubernetes or any(word in path.name.lower() for word in OF_PODS)
    yield from document_rules.plugins(entries, kubernetes)
    try:
        configs = list(configurations(path))
    except CniError as error:
        yield Remark("no-plugin", WARNING, error.msg, error.details)
        return
    for config in configs:
        yield from _of_plugin(config, known, kubernetes)
    for own in (other for other in known.others if other.file == str(path)):
        yield from between(own, known.others)


def _of_plugin(config: dict[str, Any], known: Known, kubernetes: bool) -> Iterator[Remark]:
    """What an ADD would refuse or say, and what is to be known of the addresses."""
    from cni_v6.plan.lint import addresses

    pods = known.pods if kubernetes else 0
    said: list[str] = []
    try:
        conf = conf_dir.checked(config, known.context, said)
    except CniError as error:
        of_node = error.code in (NODE_CONFLICT, TRY_AGAIN)  # what it lacks now may come
        if of_node and known.node is None:
            return
        level, remedy = WARNING if of_node else ERROR, error.details or "see the message"
        yield Remark("refused", level, error.msg, remedy, _key(error.msg))
        return
    for line in said:
        yield Remark("said", WARNING, line, "write what it was taken for", _key(line))
    if isinstance(conf, IpamConf):
        yield from addresses.of_ipam(conf, pods)
    else:
        yield from addresses.network(conf, known.node, pods)


def _key(message: str) -> str:
    """The key that a message names: a misspelt one, else the path that it begins with."""
    unknown = re.match(r'unknown key "([^"]+)"', message)
    return unknown[1] if unknown else message.split(":")[0].split(" ")[0]


# Output


def _document(place: Place) -> Mapping[str, object]:
    remark = place.remark
    return {"file": place.file, "line": place.line, "rule": remark.rule, "level": remark.level,
            "message": remark.message, "why": remark.why, "remedy": remark.remedy}


def _text(places: Sequence[Place], files: int) -> Iterator[str]:
    for place in places:
        remark = place.remark
        yield f"{place.file}:{place.line}: {remark.level} [{remark.rule}]"
        yield from screen.wrapped("    ", remark.message, 4)
        yield from screen.wrapped("    why:", remark.why, 9)
        yield from screen.wrapped("    do:", remark.remedy, 9)
    counts = [(sum(place.remark.level == level for place in places), level) for level in (ERROR, WARNING)]
    found = ", ".join(screen.counted(count, level) for count, level in counts if count) or "no remarks"
    yield f"{found} on {screen.counted(files, 'file')}"


def _annotation(place: Place) -> str:
    """A workflow command of GitHub's actions; what has a meaning there is escaped."""
    def escaped(text: str, more: str = "") -> str:
        return "".join(f"%{ord(letter):02X}" if letter in "%\r\n" + more else letter for letter in text)

    remark = place.remark
    words = escaped(f"{remark.message}\n{remark.why}\n{remark.remedy}")
    title = escaped(f"cni-v6 {remark.rule}", ":,")
    return f"::{remark.level} file={escaped(place.file, ':,')},line={place.line},title={title}::{words}"


def _sarif(places: Sequence[Place]) -> Mapping[str, object]:
    """SARIF 2.1.0 (OASIS): one run, its rules, and a result for each remark."""
    used = sorted({place.remark.rule for place in places})
    return {
        "version": "2.1.0",
        "$schema": SCHEMA,
        "runs": [{
            "tool": {"driver": {
                "name": "cni-v6ctl lint", "version": __version__,
                "rules": [{"id": rule, "shortDescription": {"text": RULES[rule]}} for rule in used],
            }},
            "results": [{
                "ruleId": place.remark.rule,
                "level": place.remark.level,
                "message": {"text": f"{place.remark.message}: {place.remark.remedy}"},
                "locations": [{"physicalLocation": {
                    "artifactLocation": {"uri": place.file}, "region": {"startLine": place.line},
                }}],
            } for place in places],
        }],
    }
