"""Looks at the node: the records, then what they need."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from cni_v6.attachments import allocate, namespaces
from cni_v6.attachments.context import Context
from cni_v6.config.child import ChildConf
from cni_v6.config.firewall import MODE_OFF
from cni_v6.config.ipam import IpamConf
from cni_v6.config.main import MainConf
from cni_v6.ctl import agent_status, conf_dir, places
from cni_v6.ctl.doctor import engine, kernel, runtime, store
from cni_v6.errors import CniError
from cni_v6.firewall import ruleset, shape
from cni_v6.kernel.ops import HOST
from cni_v6.kernel.questions import GetLinks, GetNft, GetRuleset, GetTables
from cni_v6.leases.attachment import Attachment
from cni_v6.net.addresses import version
from cni_v6.plan import repair
from cni_v6.plan.health import agent as judge_agent
from cni_v6.plan.health import engine as judge_engine, kernel as judge_kernel, network, runtime as judge_runtime
from cni_v6.plan.health import store as judge_store
from cni_v6.plan.health.engine import FirewallFacts
from cni_v6.plan.health.finding import AMBER, GREEN, RED, Finding, of_error
from cni_v6.plan.health.kernel import Use
from cni_v6.plugins.main import MainPlugin
from cni_v6.plugins.registry import PLUGINS

Records = Sequence[tuple[str, Attachment]]
Network = tuple[MainPlugin[Any], MainConf]  # a configured network, and what makes its interfaces
# The checks that see no fault where they see no records: they say nothing good if some cannot be read.
OF_RECORDS = ("firewall", "locks", "records", "leaks", "addresses", "CAP_NET_ADMIN")


def findings(folder: Path | None, bin_dirs: Sequence[Path] | None, node: Context) -> list[Finding]:
    """All of them, from top to bottom."""
    held, unread = records_of(node)
    known = list(unread.values())
    try:
        runtimes = runtime.read(folder, bin_dirs, node)
    except CniError as error:
        runtimes = []
        known.append(of_error(AMBER, "runtimes", error, "the folders of this runtime are not known"))
    configured = _networks([Path(runtime.conf_dir) for runtime in runtimes], node)
    configs = [conf for _, conf in configured]
    homes = [conf.gateway_interface for conf in configs if conf.is_shared]
    children = sorted({conf.kind for conf in configs if isinstance(conf, ChildConf)})
    here = here_of(held, node)
    found = [
        *judge_kernel.findings(kernel.read(node, homes, children), _use(here, configs)),
        *judge_engine.firewall(_firewall(here, configs, node)),
        *judge_engine.engine(engine.read()),
        *_agent(),
        *judge_runtime.findings(runtimes),
        *judge_store.findings(store.read(held, _pools(configs), node, unread)),
        *_of_networks(here, configured, node),
        *judge_engine.privileged(engine.privileged(here)),
    ]
    return [*known, *(finding for finding in found if finding.level != GREEN or _is_sure(finding.check, unread))]


def _agent() -> Iterator[Finding]:
    try:
        yield from judge_agent.findings(agent_status.facts())
    except CniError as error:
        yield of_error(AMBER, judge_agent.AGENT, error, "nothing can be said of the node's agent")


def _is_sure(check: str, unread: Collection[str]) -> bool:
    """Whether a check that found no fault would have found one, though some records cannot be read."""
    kind, _, name = check.partition(" ")
    is_unread = kind == "network" and (name in unread or "" in unread)
    return not unread or not (check in OF_RECORDS or is_unread)


def here_of(held: Records, node: Context) -> list[Attachment]:
    """The records of this boot and this network namespace; without those that are damaged."""
    return [record for _, record in held
            if namespaces.is_here(record, node.boot, node.kernel.netns_id(HOST)) and not record.damaged]


def records_of(node: Context) -> tuple[Records, Mapping[str, Finding]]:
    """The records of all networks; and by network, "" for all, what is wrong where they cannot be read."""
    held: list[tuple[str, Attachment]] = []
    unread: dict[str, Finding] = {}
    why = "nothing can be said of its attachments, and an ADD fails"
    try:
        there = places.of_networks((), None, node)
    except CniError as error:
        return (), {"": of_error(RED, "records", error, why)}
    for place in there:
        try:
            held += places.peek([place], node)
        except CniError as error:
            unread[place[1]] = of_error(RED, "records", error, why)
    return held, unread


def _pools(configs: Sequence[MainConf]) -> list[IpamConf]:
    return [conf.ipam for conf in configs if isinstance(conf.ipam, IpamConf)]


def _networks(folders: Sequence[Path], node: Context) -> list[Network]:
    """The networks of all folders, each name once; what cannot be read, ``runtime`` reports."""
    found: dict[str, Network] = {}
    for folder in dict.fromkeys(folders):
        if folder.is_dir():
            for _, config in conf_dir.ours(folder):
                main = PLUGINS[config["type"]].main
                if main:
                    with suppress(CniError):
                        conf = main.load(conf_dir.call(config), node)
                        found.setdefault(conf.network, (main, conf))
    return list(found.values())


def _use(here: Sequence[Attachment], configs: Sequence[MainConf]) -> Use:
    """What containers use, and the configured networks would."""
    used: set[int] = set()
    networks: dict[str, set[str]] = {}
    for record in here:
        for address in record.addresses:
            used.add(version(address))
            if version(address) == 4:
                networks.setdefault(record.owner.container_id, set()).add(record.owner.network)
    families = [range_set.family for conf in configs if conf.is_gateway and isinstance(conf.ipam, IpamConf)
                for range_set in conf.ipam.sets]
    homes = {anchor.home for record in here for anchor in record.anchors}
    modes = [(4, conf.firewall.masquerade4 != MODE_OFF and not conf.firewall.snat4) for conf in configs]
    modes += [(6, conf.firewall.masquerade6 != MODE_OFF and not conf.firewall.snat6) for conf in configs]
    masqueraded = {version(address) for record in here if record.policy for address in record.policy.masquerade}
    return Use(
        frozenset(used) | frozenset(families), judge_kernel.resolving(here), frozenset(homes),
        next((name for name, several in sorted(networks.items()) if len(several) > 1), ""),
        max((record.created for record in here), default=0.0),
        frozenset(masqueraded | {family for family, on in modes if on and family in families}),
    )


def _firewall(here: Sequence[Attachment], configs: Sequence[MainConf], node: Context) -> FirewallFacts:
    needed = sum(record.policy is not None for record in here)
    seen = node.kernel.observe([GetRuleset(), GetTables(), GetNft(rehearse=False)])
    differs: tuple[str, ...] = ()
    if seen.ruleset() != ruleset.mark():
        differs = tuple(shape.differences(seen.tables())) or ("the tables are of another version",)
    wanted = needed or any(conf.firewall.wanted for conf in configs)
    return FirewallFacts(needed, differs, seen.nft(False) if wanted else "")


def _of_networks(here: Sequence[Attachment], configured: Sequence[Network], node: Context) -> Iterator[Finding]:
    """What STATUS finds of each configured network; what ``check`` finds where STATUS finds nothing."""
    by_name = {conf.network: (main, conf) for main, conf in configured}
    for name in sorted({*by_name, *(record.owner.network for record in here)}):
        records = [record for record in here if record.owner.network == name]
        found = list(_by_status(*by_name[name], records, node)) if name in by_name else []
        yield from found
        if not any(finding.level == RED for finding in found):
            checked = network.by_check(name, differences(records, node))
            yield from [checked] if not found or checked.level == RED else []


def _by_status(
    main: MainPlugin[Any], conf: MainConf, records: Sequence[Attachment], node: Context
) -> Iterator[Finding]:
    try:
        if isinstance(conf.ipam, IpamConf):
            allocate.with_files(conf.ipam, node)
        seen = node.kernel.observe(main.status_questions(conf, node.id, records))
        seen = seen.with_answers(node.kernel.observe(main.more_status_questions(conf, seen)))
    except CniError as error:
        yield of_error(RED, f"network {conf.network}", error, "an ADD would fail")
        return
    yield from network.by_status(conf.network, lambda: main.check_status(conf, node.id, records, seen))


def differences(records: Sequence[Attachment], node: Context) -> repair.Findings:
    """As ``attachments.repair.look``, without the lock."""
    views = repair.views(records, node.kernel.observe([GetLinks()]).links() if records else ())
    seen = node.kernel.observe(repair.questions(views, node.id))
    seen = seen.with_answers(node.kernel.observe(repair.more_questions(views, seen)))
    return repair.findings(views, node.id, seen)
