"""The network configuration, parsed once into frozen values: every default, every check, every error.

An error names the key, its value and the remedy. The spec's spelling stays in this module, in those it reads with
(``keys``, ``fields``, ``ipamconf``), and in ``result``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from cni_v6.allocation.ranges import Range, RangeSet
from cni_v6.config import prefix_delegation
from cni_v6.config.firewall import FirewallConf, parse as parse_firewall
from cni_v6.config.formats import LINK_LOCAL_GATEWAY
from cni_v6.config.interface_prefix import InterfacePrefixes
from cni_v6.config.ipam import IpamConf, Source, build, environment_mac, for_workload
from cni_v6.config.keys.bridge import AUTO_MTU, BRIDGE, MAIN_OF_IPAM
from cni_v6.config.keys.ipam import DEFAULT_DATA_DIR, IPAM
from cni_v6.config.reader import Reader, Section, check_form, show, wrong
from cni_v6.errors import INVALID_CONFIG, CniError
from cni_v6.net.intervals import merged
from cni_v6.protocol.invocation import Invocation
from cni_v6.protocol.names import IFNAMSIZ
from cni_v6.protocol.result import Dns, Route

__all__ = [
    "AUTO_MTU", "DEFAULT_BRIDGE", "DEFAULT_DATA_DIR", "IPAM_PLUGIN", "LINK_LOCAL_GATEWAY", "OUR_IPAM", "BridgeConf",
    "Dns", "ForeignIpam", "IpamConf", "Range", "RangeSet", "RemovalConf", "Route", "parse_bridge", "parse_ipam",
    "parse_removal",
]

IPAM_PLUGIN = "cni-v6-ipam"
OUR_IPAM = (IPAM_PLUGIN, "host-local")  # what is allocated in-process
DEFAULT_BRIDGE = "cni0"
AUTO = "auto"
MIN_MTU = 68  # RFC 791, section 3.1
IPV6_MIN_MTU = 1280  # RFC 8200, section 5; below it the kernel takes IPv6 off the interface
KEPT = 64  # configurations that an engine remembers; a node has a few networks
KEPT_BYTES = 1 << 14  # of one of them; above it is a prevResult or a mistake


@dataclass(frozen=True, slots=True)
class ForeignIpam:
    """Any other ``ipam.type``: executed from CNI_PATH."""

    type: str


@dataclass(frozen=True, slots=True)
class BridgeConf:
    """Configuration of the bridge plugin. ``mtu`` 0: the bridge's own, else the kernel's default; AUTO_MTU: the
    uplinks'. ``ndp_proxy``: an interface of the node, AUTO, or "" for none.

    ``mac``: the container's requested MAC, "" to derive it. ``dns``: None where neither the configuration nor the
    runtime says anything. ``vlan`` 0: none. ``ipam`` None: layer 2 only.
    """

    network: str
    bridge: str
    is_gateway: bool
    is_default_gateway: bool
    force_address: bool
    mtu: int
    ndp_proxy: str
    hairpin: bool
    promisc: bool
    vlan: int
    vlan_trunk: tuple[tuple[int, int], ...]
    preserve_default_vlan: bool
    enable_dad: bool
    disable_container_interface: bool
    port_isolation: bool
    multicast_snooping: bool
    mac: str
    dns: Dns | None
    ipam: IpamConf | ForeignIpam | None
    firewall: FirewallConf

    @property
    def data_dir(self) -> str:
        """Where the attachments are recorded: with our leases, or in the usual place where another plugin has them."""
        return self.ipam.data_dir if isinstance(self.ipam, IpamConf) else DEFAULT_DATA_DIR


@dataclass(frozen=True, slots=True)
class RemovalConf:
    """What DEL and GC need, read leniently: a configuration edited since the ADD must never keep them from cleaning up.

    ``foreign_ipam`` is the ``ipam.type`` to delegate to, "" where there is none or it is ours.
    """

    network: str
    bridge: str
    data_dir: str
    foreign_ipam: str


_kept: dict[tuple[bytes, str, str, str], BridgeConf] = {}


def parse_bridge(call: Invocation, prefixes: InterfacePrefixes | None = None) -> BridgeConf:
    """Configuration of ``cni-v6`` for ADD, CHECK and STATUS.

    A runtime sends the same bytes for most containers of a network, and reading them is a tenth of an engine's ADD, so
    what was read without an error or a remark is remembered. ``stdin``, the command and what CNI_ARGS asks for are all
    that it depends on; whose workload it is comes after it, and so do prefixes of the node's interfaces.

    :param prefixes: of those that ranges follow; None where they are not known yet.
    :raises CniError: INVALID_CONFIG, UNSUPPORTED_FIELD, or INVALID_ENVIRONMENT for what came by CNI_ARGS.
    """
    conf = _remembered(call) if prefixes is None else _read_bridge(call, prefixes)
    ipam = for_workload(conf.ipam, call) if isinstance(conf.ipam, IpamConf) else conf.ipam
    return conf if ipam is conf.ipam else replace(conf, ipam=ipam)


def _remembered(call: Invocation) -> BridgeConf:
    key = (call.stdin, call.command, call.args.ip, call.args.mac)
    conf = _kept.get(key)
    if conf is None:
        said = len(call.log.lines)
        conf = _read_bridge(call)
        if 0 < len(call.stdin) <= KEPT_BYTES and len(call.log.lines) == said:
            if len(_kept) >= KEPT:
                _kept.clear()
            _kept[key] = conf
    return conf


def _read_bridge(call: Invocation, prefixes: InterfacePrefixes | None = None) -> BridgeConf:
    top = _reader(call).read(BRIDGE, call.config, "")
    ipam = _bridge_ipam(call, top, prefixes)
    sets = ipam.sets if isinstance(ipam, IpamConf) else () if ipam else None
    conf = BridgeConf(
        network=call.network,
        bridge=top.text("bridge"),
        is_gateway=top.flag("isGateway") or top.flag("isDefaultGateway"),
        is_default_gateway=top.flag("isDefaultGateway"),
        force_address=top.flag("forceAddress"),
        mtu=top.number("mtu") or 0,
        ndp_proxy=top.text("ndpProxy"),
        hairpin=top.flag("hairpinMode"),
        promisc=top.flag("promiscMode"),
        vlan=top.number("vlan") or 0,
        vlan_trunk=_trunk(top.sections("vlanTrunk")),
        preserve_default_vlan=top.flag("preserveDefaultVlan"),
        enable_dad=top.flag("enabledad"),
        disable_container_interface=top.flag("disableContainerInterface"),
        port_isolation=top.flag("portIsolation"),
        multicast_snooping=top.flag("multicastSnooping"),
        mac=_mac(call, top),
        dns=_dns(top),
        ipam=ipam,
        firewall=parse_firewall(top, sets),
    )
    _refuse_contradictions(conf)
    wanted = ipam.delegation if isinstance(ipam, IpamConf) else None
    own = sets if isinstance(ipam, IpamConf) else None
    prefix_delegation.check(top, wanted, own, is_gateway=conf.is_gateway, nptv6=conf.firewall.nptv6)
    return conf


def parse_ipam(call: Invocation, prefixes: InterfacePrefixes | None = None) -> IpamConf:
    """Configuration of ``cni-v6-ipam`` for ADD, CHECK and STATUS; errors as ``parse_bridge``."""
    top = _reader(call).read(MAIN_OF_IPAM, call.config, "")
    ipam = top.section("ipam")
    if not ipam.text("type"):
        raise CniError(INVALID_CONFIG, "ipam.type is missing", f"write {show(IPAM_PLUGIN)}")
    conf = _build(call, top, ipam, prefixes)
    prefix_delegation.refuse_alone(conf.delegation)
    return for_workload(conf, call)


def parse_removal(call: Invocation) -> RemovalConf:
    """The least that DEL and GC need; whatever else is wrong with the configuration is logged, not raised."""
    ipam = call.config.get("ipam")
    if ipam is not None and not isinstance(ipam, Mapping):
        call.log.warning(f"ipam: {show(ipam)} is not an object, taken as absent")
        ipam = None
    plugin = _lenient(call, ipam or {}, ("ipam", "type"), "plugin", "")
    own = call.plugin == IPAM_PLUGIN or plugin in OUR_IPAM
    ours = ipam or {} if own else {}  # a dataDir beside another type, or none, is not where ADD kept its record
    return RemovalConf(
        network=call.network,
        bridge=_lenient(call, call.config, ("", "bridge"), "interface", DEFAULT_BRIDGE),
        data_dir=_lenient(call, ours, ("ipam", "dataDir"), "path", DEFAULT_DATA_DIR),
        foreign_ipam="" if own else plugin,
    )


def _reader(call: Invocation) -> Reader:
    return Reader(call.log, call.config.get("strict") is True)


def _build(call: Invocation, top: Section, ipam: Section, prefixes: InterfacePrefixes | None) -> IpamConf:
    sections = ipam, top.section("runtimeConfig"), top.section("args").section("cni")
    return build(Source(*sections, call.args, call.command, prefixes), call.network, call.version, call.log)


def _bridge_ipam(call: Invocation, top: Section, prefixes: InterfacePrefixes | None) -> IpamConf | ForeignIpam | None:
    """Of a foreign ``ipam`` nothing but its type is looked at: the rest is the other plugin's own matter."""
    raw = top.raw("ipam")
    plugin = raw.get("type")
    if plugin is None or plugin == "":
        if raw:
            call.log.warning("ipam has keys but no type: layer 2 only; write a type, such as \"cni-v6-ipam\"")
        return None
    if not isinstance(plugin, str):
        raise wrong("ipam.type", plugin, "is not a string", "write it in quotes")
    check_form("plugin", plugin, "ipam.type")
    if plugin not in OUR_IPAM:
        return ForeignIpam(plugin)
    return _build(call, top, _reader(call).read(IPAM, raw, "ipam"), prefixes)


def _mac(call: Invocation, top: Section) -> str:
    given = top.section("runtimeConfig").text("mac") or top.section("args").section("cni").text("mac")
    return given or (environment_mac(call.args.mac) if call.args.mac else "")


def _dns(top: Section) -> Dns | None:
    """What the runtime says, when it says anything; else ``dns``, where an empty list counts, as for the reference."""
    runtime = top.section("runtimeConfig").section("dns")
    servers, searches, options = (runtime.texts(name) for name in ("servers", "searches", "options"))
    if servers or searches or options:
        return Dns(nameservers=servers, search=searches, options=options)
    dns = top.section("dns")
    if not dns.text("domain") and not dns.given & {"nameservers", "search", "options"}:
        return None
    return Dns(dns.texts("nameservers"), dns.text("domain"), dns.texts("search"), dns.texts("options"))


def _trunk(sections: tuple[Section, ...]) -> tuple[tuple[int, int], ...]:
    """The VLANs as ranges: sorted, apart from each other."""
    spans: list[tuple[int, int]] = []
    for section in sections:
        low, high, single = (section.number(name) for name in ("minID", "maxID", "id"))
        if (low is None) != (high is None):
            missing = "minID" if low is None else "maxID"
            raise CniError(INVALID_CONFIG, f"{section.at(missing)} is missing", "write minID and maxID, or id alone")
        if low is not None and high is not None:
            if low > high:
                raise wrong(section.at("minID"), low, f"is greater than maxID {high}", "swap them")
            spans.append((low, high))
        if single is not None:
            spans.append((single, single))
    return merged(spans)


def _refuse_contradictions(conf: BridgeConf) -> None:
    if conf.hairpin and conf.promisc:
        raise wrong("hairpinMode", True, "and promiscMode: true exclude each other", "set one of them to false")
    if conf.disable_container_interface and conf.ipam:
        raise wrong(
            "disableContainerInterface", True, "and an ipam exclude each other: an interface that is down has no use "
            "for addresses", "set it to false, or remove ipam",
        )
    gateway = f"{conf.bridge}.{conf.vlan}"  # segment.gateway_interface
    if conf.is_gateway and conf.vlan and len(gateway) > IFNAMSIZ:
        raise wrong(
            "bridge", conf.bridge, f"leaves no room for the gateway's interface in the vlan, {gateway}",
            f"shorten it: an interface's name has {IFNAMSIZ} characters at most",
        )
    if any(low <= conf.vlan <= high for low, high in conf.vlan_trunk):
        raise wrong("vlan", conf.vlan, "is in vlanTrunk too, and cannot be untagged and tagged", "take it out of one")
    if conf.ndp_proxy and not conf.is_gateway:
        raise wrong(
            "ndpProxy", conf.ndp_proxy, "needs isGateway: the node answers for addresses that it routes to",
            'set "isGateway": true',
        )
    if 0 < conf.mtu < MIN_MTU:
        raise wrong("mtu", conf.mtu, f"is below {MIN_MTU}, the least IPv4 needs", "write 0 for the bridge's own")
    sets = conf.ipam.sets if isinstance(conf.ipam, IpamConf) else ()
    if 0 < conf.mtu < IPV6_MIN_MTU and any(one.family == 6 for one in sets):
        raise wrong("mtu", conf.mtu, f"is below {IPV6_MIN_MTU}, the least IPv6 needs", "raise it, or write 0")


def _lenient(call: Invocation, raw: Mapping[str, object], place: tuple[str, str], form: str, default: str) -> str:
    section, name = place
    value = raw.get(name)
    if value is None or value == "":
        return default
    path = f"{section}.{name}" if section else name
    if isinstance(value, str):
        try:
            return check_form(form, value, path)
        except CniError as error:
            call.log.warning(f"{error.msg}; {show(default)} is used")
            return default
    call.log.warning(f"{path}: {show(value)} is not a string; {show(default)} is used")
    return default
