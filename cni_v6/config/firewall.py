"""Read the firewall's keys into frozen values, and refuse those that contradict each other.

A key that cannot do what it says is refused: without a word it would look like protection.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import replace
from typing import TypeVar

from cni_v6.allocation.ranges import RangeSet, subnet
from cni_v6.config.prefix_lists import MOST, TooMany, common, disjoint, limited, outermost
from cni_v6.config.reader import Section, wrong
from cni_v6.config.text import parse_prefix
from cni_v6.errors import INVALID_CONFIG, UNSUPPORTED_FIELD, CniError
from cni_v6.firewall.policy import OPEN, PUBLISHED, Allowed, Port
from cni_v6.net.addresses import BITS, overlap, version
from cni_v6.values import dataclass

ON, MODE_OFF, AUTO = "on", "off", "auto"  # ``masquerade``
PORTS = "runtimeConfig.portMappings"

# Keys that need the container to have an address.
_OF_ADDRESSES = ("masquerade", "nptv6", "egress")
_ANY = ("0.0.0.0", "::")  # a port without hostIP is published at both
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class FirewallConf:
    """The firewall of a network, and the ports that one attachment publishes.

    ``masquerade4``, ``masquerade6``: ON, MODE_OFF or AUTO. ``keep``: destination prefixes that are not masqueraded,
    none within another. ``snat4``, ``snat6``: the source address of masqueraded packets, "" for the outgoing
    interface's own. ``nptv6``: internal and external prefix. ``egress``: None allows everything; no two entries have a
    destination in common.
    """

    masquerade4: str = MODE_OFF
    masquerade6: str = MODE_OFF
    keep: tuple[str, ...] = ()
    snat4: str = ""
    snat6: str = ""
    nptv6: tuple[str, str] | None = None
    ingress: str = PUBLISHED
    guard: bool = True
    macspoofchk: bool = False
    egress: tuple[Allowed, ...] | None = None
    ports: tuple[Port, ...] = ()

    @property
    def wanted(self) -> bool:
        """Whether any rule or element is needed. ``keep``, ``snat4`` and ``snat6`` alone need none."""
        return bool(
            self.guard or self.macspoofchk or self.ingress != OPEN or self.egress is not None or self.ports
            or self.nptv6 or (self.masquerade4, self.masquerade6) != (MODE_OFF, MODE_OFF)
        )


def parse(top: Section, sets: tuple[RangeSet, ...] | None) -> FirewallConf:
    """Read the firewall's keys.

    :param sets: the range sets of our own allocation; () where another plugin allocates; None without ipam (layer 2).
    :raises CniError: INVALID_CONFIG, or UNSUPPORTED_FIELD for ``ipMasqBackend: iptables``.
    """
    if top.text("ipMasqBackend") == "iptables":
        raise CniError(
            UNSUPPORTED_FIELD, 'ipMasqBackend: "iptables" is not supported',
            'write "nftables", or leave it out: no iptables is needed',
        )
    if sets is None:
        _refuse_without_addresses(top)
    masquerade4, masquerade6 = _masquerade(top)
    snat4, snat6 = (_snat(top, family, mode) for family, mode in ((4, masquerade4), (6, masquerade6)))
    conf = FirewallConf(
        masquerade4=masquerade4,
        masquerade6=masquerade6,
        keep=outermost(top.texts("nonMasquerade")),
        snat4=snat4,
        snat6=snat6,
        nptv6=_nptv6(top, masquerade6, sets or ()) if "nptv6" in top.given else None,
        ingress=OPEN if sets is None else top.text("ingress"),
        guard=top.flag("guard"),
        macspoofchk="macspoofchk" in top.values and top.flag("macspoofchk"),  # a key of bridges
        egress=_egress(top),
        ports=_ports(top.section("runtimeConfig").sections("portMappings")),
    )
    if sets:
        refuse_lacking(conf.ports, {range_set.family for range_set in sets})
    return conf


def refuse_lacking(ports: Iterable[Port], families: Collection[int]) -> None:
    """Refuse a port that is published for a family the container lacks: nothing would answer there.

    :raises CniError: INVALID_CONFIG.
    """
    for at, port in enumerate(ports):
        family = version(port.host_ip) if port.host_ip else 0
        if family not in families and (family or not families):
            lacks = f"the container has no IPv{family} address" if family else "the container has no address"
            raise CniError(
                INVALID_CONFIG, f"{PORTS}[{at}]: {_name(port)} cannot be published: {lacks}",
                "publish it at an address of a family the container has, or add a range of this one",
            )


def _refuse_without_addresses(top: Section) -> None:
    given = [name for name in _OF_ADDRESSES if name in top.given]
    given += ["ipMasq"] * top.flag("ipMasq")
    given += ["ingress"] * ("ingress" in top.given and top.text("ingress") != OPEN)
    given += [PORTS] * bool(top.section("runtimeConfig").sections("portMappings"))
    given += ["args.cni.egress"] * ("egress" in top.section("args").section("cni").given)
    if given:
        raise CniError(
            INVALID_CONFIG, f"{given[0]} has no effect: there is no ipam, so the containers have no address of ours",
            "remove it, or add an ipam",
        )


def _masquerade(top: Section) -> tuple[str, str]:
    """The mode of each family."""
    if "masquerade" not in top.given:
        mode = ON if top.flag("ipMasq") else MODE_OFF
        return mode, mode
    if top.flag("ipMasq"):
        raise wrong("ipMasq", True, "and masquerade exclude each other", "remove ipMasq: masquerade says more")
    section = top.section("masquerade")
    return section.text("ipv4"), section.text("ipv6")


def _snat(top: Section, family: int, mode: str) -> str:
    section, name = top.section("snat"), f"ipv{family}"
    text = section.text(name)
    if not text:
        return ""
    if version(text) != family:
        raise wrong(section.at(name), text, f"is not IPv{family}", "write it under the key of its family")
    if mode == MODE_OFF:
        raise wrong(
            section.at(name), text, f"has no effect: IPv{family} is not masqueraded",
            f'set masquerade.{name} to "on" or "auto", or remove it',
        )
    return text


def _nptv6(top: Section, mode: str, sets: Iterable[RangeSet]) -> tuple[str, str]:
    section = top.section("nptv6")
    for name in ("internal", "external"):
        if not section.text(name):
            raise CniError(INVALID_CONFIG, f"{section.at(name)} is missing", "write both prefixes, of the same length")
    internal, external = section.text("internal"), section.text("external")
    if parse_prefix(internal)[2] != parse_prefix(external)[2]:
        raise wrong(section.at("external"), external, f"is not as long as internal {internal}", "write the same length")
    if overlap(internal, external):
        raise wrong(section.at("external"), external, f"overlaps with internal {internal}", "write another prefix")
    if mode == ON:
        key = "ipMasq" if top.flag("ipMasq") else "masquerade.ipv6"
        raise CniError(
            INVALID_CONFIG, f"nptv6 and {key} exclude each other: IPv6 would be translated twice",
            'write "masquerade": {"ipv4": "on", "ipv6": "off"} instead, or remove nptv6',
        )
    if top.section("snat").text("ipv6"):
        raise CniError(INVALID_CONFIG, "nptv6 and snat.ipv6 exclude each other", "remove one of them")
    _refuse_beside(section, internal, external, sets)
    return internal, external


def _refuse_beside(section: Section, internal: str, external: str, sets: Iterable[RangeSet]) -> None:
    """Refuse an internal prefix that holds no range, or part of one; an external one that overlaps with a range."""
    _, first, length = parse_prefix(internal)
    last = first + (1 << BITS[6] - length) - 1
    ranges = [written for range_set in sets for written in range_set.written]
    translated = [written for written in ranges if written.family == 6 and first <= written.last
                  and written.first <= last]
    for written in translated:
        if written.first < first or written.last > last:
            raise wrong(
                section.at("internal"), internal, f"holds only a part of the range {subnet(written)}",
                "write a prefix that holds the whole range",
            )
    for written in ranges:
        if written.family == 6 and overlap(external, subnet(written)):
            raise wrong(
                section.at("external"), external, f"overlaps with the range {subnet(written)}",
                "write a prefix that no container has",
            )
    if ranges and not translated:
        raise wrong(section.at("internal"), internal, "holds no range", "write the prefix of an IPv6 range")


def _egress(top: Section) -> tuple[Allowed, ...] | None:
    """The destinations that both the configuration and the workload's ``args`` allow.

    ``args`` come from whoever starts the container. They can only narrow what the administrator allows.
    """
    lists = [_allowed(section) for section in (top, top.section("args").section("cni")) if "egress" in section.given]
    if len(lists) == 2:
        return _within_bounds("args.cni.egress", lambda: common(*lists))
    return lists[0] if lists else None


def _allowed(section: Section) -> tuple[Allowed, ...]:
    path = section.at("egress")
    entries = (allowed for destination in section.sections("egress") for allowed in _destination(destination))
    listed = _within_bounds(path, lambda: limited(entries))
    return _within_bounds(path, lambda: disjoint(listed))


def _within_bounds(path: str, made: Callable[[], _T]) -> _T:
    try:
        return made()
    except TooMany:
        raise CniError(
            INVALID_CONFIG, f"{path} comes to more than {MOST} combinations of prefix and ports",
            "write fewer, larger prefixes or ranges of ports",
        ) from None


def _destination(section: Section) -> Iterable[Allowed]:
    to, ports = section.text("to"), section.texts("ports")
    if "ports" not in section.given:
        return [Allowed(to)]
    if not ports:
        raise wrong(section.at("ports"), [], "allows nothing", "leave it out for every port and protocol")
    return [_of_ports(to, text) for text in ports]


def _of_ports(to: str, text: str) -> Allowed:
    protocol, slash, span = text.partition("/")
    if not slash:
        return Allowed(to, protocol)
    first, _, last = span.partition("-")
    return Allowed(to, protocol, (int(first), int(last or first)))


def _ports(sections: Iterable[Section]) -> tuple[Port, ...]:
    """The published ports, each once. Some runtimes write a port without hostIP once for each family.

    :raises CniError: INVALID_CONFIG for a port of the node that leads to two ports of the container.
    """
    ports: dict[Port, None] = {}
    taken: dict[tuple[str, int, str], tuple[str, int]] = {}
    for section in sections:
        port = Port(
            section.text("protocol"), section.number("hostPort") or 0, section.number("containerPort") or 0,
            section.text("hostIP"),
        )
        for address in (port.host_ip,) if port.host_ip else _ANY:
            path, target = taken.setdefault(
                (port.protocol, port.host_port, address), (section.path, port.container_port)
            )
            if target != port.container_port:
                raise CniError(
                    INVALID_CONFIG, f"{section.path}: {_name(port)} is published by {path} already, for another port "
                    f"of the container ({target})", "publish each port of the node once",
                )
        ports[port] = None
    return tuple(port for port in ports if port.host_ip not in _ANY or replace(port, host_ip="") not in ports)


def _name(port: Port) -> str:
    where = f" at {port.host_ip}" if port.host_ip else ""
    return f"{port.protocol} port {port.host_port}{where}"
