"""CHECK and STATUS of the plugins with child interfaces, and what ``cni-v6ctl`` finds of them on the node. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from cni_v6.config.child import ChildConf
from cni_v6.kernel.facts import Link
from cni_v6.kernel.ops import HOST, Op
from cni_v6.kernel.questions import GetChildMode, GetLink, GetSysctl, Question
from cni_v6.kernel.snapshot import Snapshot
from cni_v6.leases.attachment import Attachment, ChildLink
from cni_v6.plan import check, child, families, features, host_access, slaac, status
from cni_v6.plan.site import Site
from cni_v6.protocol.result import Result


def _link(site: Site, conf: ChildConf, record: Attachment | None) -> ChildLink:
    """The link as it is recorded: another interface may have the default route by now."""
    port = record.port if record else None
    return port if isinstance(port, ChildLink) else child.to_record(site, conf)


def questions(site: Site, conf: ChildConf, result: Result, record: Attachment | None) -> tuple[Question, ...]:
    """The questions that CHECK asks the kernel."""
    netns, ifname, link = site.netns, site.owner.ifname, _link(site, conf, record)
    return (
        GetLink(netns if link.in_container else HOST, link.master),
        *check.inside_questions(site, result), GetChildMode(netns, ifname),
        *(GetSysctl(netns, key) for key, _ in _settings(site, conf, result)),
        *(node_questions(record, link) if record else ()),
        *(slaac.questions(site) if conf.slaac_timeout else ()),
    )


def compare(
    site: Site, conf: ChildConf, result: Result, record: Attachment | None, seen: Snapshot
) -> Iterator[str]:
    """The differences between ``result`` and the kernel, one phrase for each.

    :param seen: answers to ``questions``.
    :raises CniError: INVALID_CONFIG when the result names no interface of this container.
    """
    netns, ifname = site.netns, site.owner.ifname
    link = _link(site, conf, record)
    if conf.slaac_timeout:  # routers may have changed their prefixes since
        result = replace(result, ips=(), routes=())
        yield from (f"{ifname} has not {what} from a router" for what in slaac.missing(site, seen))
    yield from missing(link, seen.link(netns if link.in_container else HOST, link.master))
    yield from check.inside(site, result, seen, up=True)
    if seen.link(netns, ifname):
        kind, mode = seen.child_mode(netns, ifname)
        if kind == conf.kind:
            yield from check.differs(f"interface {ifname}", "id" if kind == "vlan" else "mode", conf.mode, mode)
        else:
            yield f"interface {ifname} is no {conf.kind}"
        for key, value in _settings(site, conf, result):
            yield from check.differs("container", f"net/{key}", value, seen.sysctl(netns, key))
    yield from check.routes(site, result, seen)
    if record and link.node:
        yield from (words for words, _ in host_access.differences(record, link, site.node, seen))


def missing(link: ChildLink, master: Link | None) -> Iterator[str]:
    """What is wrong with the master of an attachment."""
    if master is None:
        yield f"master {link.master} is missing"
    elif not master.up:
        yield f"master {link.master} is down"


def node_questions(record: Attachment, link: ChildLink) -> tuple[Question, ...]:
    """The questions about what the node has for an attachment."""
    return host_access.own_questions(record, link) if link.node else ()


def differences(
    record: Attachment, link: ChildLink, master: Link | None, node: str, seen: Snapshot
) -> Iterator[tuple[str, tuple[Op, ...]]]:
    """What differs on the node: in words, and the operations that mend it. A master is the administrator's to mend.

    :param node: the node's machine id (``Site.node``).
    """
    wrong = list(missing(link, master))
    yield from ((words, ()) for words in wrong)
    if link.node and not wrong:
        yield from host_access.differences(record, link, node, seen)


def _settings(site: Site, conf: ChildConf, result: Result) -> Iterator[tuple[str, str]]:
    """Sysctls of the container's interface that a network with IPv6 needs."""
    ifname = site.owner.ifname
    if conf.slaac_timeout:
        yield from ((f"ipv6/conf/{ifname}/{name}", value) for name, value in slaac.CHECKED)
    elif any(ip.family == 6 for ip in check.addresses(site, result, ifname)):
        yield f"ipv6/conf/{ifname}/accept_ra", slaac.LISTENS if conf.accept_ra else "0"
        yield f"ipv6/conf/{ifname}/autoconf", "0"


# STATUS


def status_questions(conf: ChildConf) -> tuple[Question, ...]:
    """The questions that STATUS asks the kernel. A master in containers is not looked for."""
    own = () if conf.link_in_container else (GetLink(HOST, conf.master),)
    return *own, *families.host_questions(), *features.questions(conf)


def check_status(conf: ChildConf, seen: Snapshot) -> Iterable[str]:
    """What STATUS finds in the kernel.

    :returns: warnings.
    :raises CniError: NODE_CONFLICT, NOT_AVAILABLE when an ADD would fail.
    """
    features.check(conf, seen)
    status.check_families(conf, seen)
    if not conf.link_in_container:
        child.check_master(conf, seen.link(HOST, conf.master))
    return ()
