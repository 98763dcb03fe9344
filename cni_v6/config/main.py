"""What every main plugin's configuration has, and what ``cni-v6-ipam`` reads of it.

A main plugin's own class adds its keys to ``MainConf``. An error names the key, its value and the remedy.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import wraps
from typing import TypeVar

from cni_v6.config import prefix_delegation
from cni_v6.config.firewall import FirewallConf
from cni_v6.config.interface_prefix import InterfacePrefixes
from cni_v6.config.ipam import IpamConf, build, for_workload
from cni_v6.config.keys.bridge import MAIN_OF_IPAM
from cni_v6.config.keys.ipam import DEFAULT_DATA_DIR, IPAM, SLAAC_IPAM
from cni_v6.config.reader import Reader, Section, check_form, show, wrong
from cni_v6.config.requested import Source, environment_mac
from cni_v6.errors import INVALID_CONFIG, CniError
from cni_v6.firewall.policy import ISOLATED
from cni_v6.protocol.invocation import Invocation
from cni_v6.protocol.json_reader import repeated_key, shown
from cni_v6.protocol.result import Dns
from cni_v6.values import dataclass

KEPT = 64  # configurations that an engine remembers; a node has a few networks
IPAM_PLUGIN = "cni-v6-ipam"
OUR_IPAM = (IPAM_PLUGIN, "host-local")  # what is allocated in-process
DEFAULT_BRIDGE = "cni0"
AUTO = "auto"
OF_EVERY_NETWORK = ("cniVersion", "name", "type", "capabilities", "ipam", "dns", "prevResult", "runtimeConfig", "args")
MIN_MTU = 68  # RFC 791, section 3.1
IPV6_MIN_MTU = 1280  # RFC 8200, section 5; below it the kernel takes IPv6 off the interface
KEPT_BYTES = 1 << 14  # of the longest that is kept; a longer one has a prevResult, or is a mistake
Conf = TypeVar("Conf", bound="MainConf")
T = TypeVar("T")
Remembered = tuple[bytes, str, str, str]


@dataclass(frozen=True, slots=True)
class ForeignIpam:
    """Any other ``ipam.type``: executed from CNI_PATH."""

    type: str


@dataclass(frozen=True, slots=True)
class Bandwidth:
    """How fast a container may receive (``ingress``) and send (``egress``): (bits a second, bits of a burst) each;
    (0, 0): as fast as it can.
    """

    ingress: tuple[int, int] = (0, 0)
    egress: tuple[int, int] = (0, 0)


@dataclass(frozen=True, slots=True)
class Tuning:
    """What the container's interface and namespace are to be like besides; None: as they are.

    ``sysctls``: (key, value) as they are written; in a key, IFNAME stands for the interface.
    """

    sysctls: tuple[tuple[str, str], ...] = ()
    promisc: bool | None = None
    allmulti: bool | None = None
    tx_queue: int | None = None


@dataclass(frozen=True, slots=True)
class MainConf:
    """What the frame of any main plugin, and the features that networks share, read of a configuration.

    ``is_gateway``: the node routes for the containers. ``mtu`` 0: the interface's own, else the kernel's default;
    ``AUTO_MTU``: the uplinks'. ``ndp_proxy``: an interface of the node, AUTO, or "" for none. ``mac``: the container's
    requested MAC, "" to derive it. ``dns``: None where neither the configuration nor the runtime says anything.
    ``ipam`` None: layer 2 only. ``allow_overlap``: a subnet may be another interface's too.
    ``bandwidth``: None where neither direction is shaped. ``tuning``: None where nothing of it is asked for.
    ``source_routing``: whether the container sends by a table of its own from its addresses; None: where it publishes
    ports and its default route is another network's.
    """

    network: str
    is_gateway: bool
    mtu: int
    ndp_proxy: str
    mac: str
    dns: Dns | None
    ipam: IpamConf | ForeignIpam | None
    firewall: FirewallConf
    allow_overlap: bool
    bandwidth: Bandwidth | None
    tuning: Tuning | None
    source_routing: bool | None

    @property
    def may_route_by_source(self) -> bool:
        """Whether the container's other networks decide about ``source_routing``, or it is asked for."""
        return bool(self.firewall.ports) if self.source_routing is None else self.source_routing

    @property
    def data_dir(self) -> str:
        """Where the attachments are recorded: with our leases, or in the usual place where another plugin has them."""
        return self.ipam.data_dir if isinstance(self.ipam, IpamConf) else DEFAULT_DATA_DIR

    @property
    def gateway_interface(self) -> str:
        """The node's interface through which a container is reached, with its gateway; "" where there is none."""
        return ""

    @property
    def is_shared(self) -> bool:
        """Whether ``gateway_interface`` is that of all containers; else each has its own, which its ADD makes."""
        return True

    def at(self, host: str) -> MainConf:
        """The configuration as of the container behind the host interface ``host``."""
        return self

    @property
    def has_host_end(self) -> bool:
        """Whether each container has an interface on the node, which its record names."""
        return True

    @property
    def segment(self) -> str:
        """The bridge that containers are plugged into; "" where there is none."""
        return ""

    @property
    def is_isolated(self) -> bool:
        """Whether containers of the network are closed to each other on their segment."""
        return self.firewall.ingress == ISOLATED

    @property
    def is_trunk(self) -> bool:
        """Whether containers speak in VLANs too, where they find addresses by themselves."""
        return False


def once(derive: Callable[[Conf], T]) -> Callable[[Conf], T]:
    """Derive something once from each configuration: an engine has the same one for most calls (``parse_bridge``).

    A configuration is frozen, so what was derived of the same object holds.
    """
    known: dict[int, tuple[Conf, T]] = {}

    @wraps(derive)
    def derived(conf: Conf) -> T:
        found = known.get(id(conf))
        if found is None or found[0] is not conf:  # an id is another object's, once its own is gone
            if len(known) >= KEPT:
                known.clear()
            found = known[id(conf)] = conf, derive(conf)
        return found[1]

    return derived


@dataclass(frozen=True, slots=True)
class RemovalConf:
    """What DEL and GC need, read leniently: a configuration edited since the ADD must never keep them from cleaning up.

    ``foreign_ipam`` is the ``ipam.type`` to delegate to, "" where there is none or it is ours. ``is_stripped``: the
    keys of the network are missing, see ``is_stripped``; then ``bridge`` is "" unless it is named.
    """

    network: str
    bridge: str
    data_dir: str
    foreign_ipam: str
    is_stripped: bool = False


def remembered(call: Invocation, kept: dict[Remembered, Conf], read: Callable[[Invocation], Conf]) -> Conf:
    """What ``read`` has read of a configuration before, or reads now.

    A runtime sends the same bytes for most containers of a network, and reading them is a tenth of an engine's ADD, so
    what was read without an error or a remark is remembered. ``stdin``, the command and what CNI_ARGS asks for are all
    that it depends on.

    :param kept: what is remembered, of one type of plugin.
    """
    key = (call.stdin, call.command, call.args.ip, call.args.mac)
    conf = kept.get(key)
    if conf is None:
        said = len(call.log.lines)
        conf = read(call)
        if 0 < len(call.stdin) <= KEPT_BYTES and len(call.log.lines) == said:
            if len(kept) >= KEPT:
                kept.clear()
            kept[key] = conf
    return conf


def check_delegation(top: Section, conf: MainConf) -> None:
    """See ``prefix_delegation.check``."""
    wanted, sets = (conf.ipam.delegation, conf.ipam.sets) if isinstance(conf.ipam, IpamConf) else (None, None)
    prefix_delegation.check(top, wanted, sets, is_gateway=conf.is_gateway, nptv6=conf.firewall.nptv6)


def for_call(conf: Conf, call: Invocation) -> Conf:
    """The configuration for the workload of a call, which comes after what is remembered."""
    ipam = for_workload(conf.ipam, call) if isinstance(conf.ipam, IpamConf) else conf.ipam
    return conf if ipam is conf.ipam else replace(conf, ipam=ipam)


def parse_ipam(call: Invocation, prefixes: InterfacePrefixes | None = None) -> IpamConf:
    """Configuration of ``cni-v6-ipam`` for ADD, CHECK and STATUS; errors as ``parse_bridge``."""
    top = reader(call).read(MAIN_OF_IPAM, call.config, "")
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
    stripped = is_stripped(call)
    return RemovalConf(
        network=call.network,
        bridge=_lenient(call, call.config, ("", "bridge"), "interface", "" if stripped else DEFAULT_BRIDGE),
        data_dir=_lenient(call, ours, ("ipam", "dataDir"), "path", DEFAULT_DATA_DIR),
        foreign_ipam="" if own or plugin == SLAAC_IPAM else plugin,
        is_stripped=stripped,
    )


def is_stripped(call: Invocation) -> bool:
    """Whether a configuration has what every network has (libcni's ``types.NetConf``) and no more.

    Multus passes such a one where it writes the version into a list that has none: of ``ipam`` it knows the type alone.
    """
    ipam = call.config.get("ipam")
    ours = isinstance(ipam, Mapping) and ipam.get("type") in OUR_IPAM and len(ipam) == 1
    given = call.config.get("runtimeConfig")
    ours = ours and not (isinstance(given, Mapping) and "ipRanges" in given)
    return ours and all(key in OF_EVERY_NETWORK or key.startswith("cni.dev/") for key in call.config)


def reader(call: Invocation) -> Reader:
    """The reader of a call's configuration.

    :raises CniError: INVALID_CONFIG for a key that is written twice, under ``strict``.
    """
    strict = call.config.get("strict") is True
    repeated = repeated_key(call.stdin) if strict and call.stdin else None
    if repeated:
        raise CniError(INVALID_CONFIG, f"{shown(repeated)} is written twice", "strict is true: remove one of them")
    return Reader(call.log, strict)


def _build(call: Invocation, top: Section, ipam: Section, prefixes: InterfacePrefixes | None) -> IpamConf:
    sections = ipam, top.section("runtimeConfig"), top.section("args").section("cni")
    return build(Source(*sections, call.args, call.command, prefixes), call.network, call.version, call.log)


def read_ipam(call: Invocation, top: Section, prefixes: InterfacePrefixes | None) -> IpamConf | ForeignIpam | None:
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
    if plugin == SLAAC_IPAM:
        raise wrong("ipam.type", plugin, "needs a router on the link beside the node", 'use "type": "cni-v6-macvlan"')
    if plugin not in OUR_IPAM:
        return ForeignIpam(plugin)
    return _build(call, top, reader(call).read(IPAM, raw, "ipam"), prefixes)


def refuse_small_mtu(mtu: int, ipam: IpamConf | ForeignIpam | None, own: str) -> None:
    """
    :param own: whose MTU 0 stands for.
    :raises CniError: INVALID_CONFIG for an MTU that a family of the network cannot have.
    """
    if 0 < mtu < MIN_MTU:
        raise wrong("mtu", mtu, f"is below {MIN_MTU}, the least IPv4 needs", f"write 0 for {own}")
    sets = ipam.sets if isinstance(ipam, IpamConf) else ()
    if 0 < mtu < IPV6_MIN_MTU and any(range_set.family == 6 for range_set in sets):
        raise wrong("mtu", mtu, f"is below {IPV6_MIN_MTU}, the least IPv6 needs", "raise it, or write 0")


def read_mac(call: Invocation, top: Section) -> str:
    given = top.section("runtimeConfig").text("mac") or top.section("args").section("cni").text("mac")
    return given or (environment_mac(call.args.mac) if call.args.mac else "")


def read_bandwidth(top: Section) -> Bandwidth | None:
    """What the runtime says, when it says anything; else ``bandwidth``."""
    runtime, own = top.section("runtimeConfig").section("bandwidth"), top.section("bandwidth")
    section = runtime if runtime.given else own
    if not section.given:
        return None
    from cni_v6.config import bandwidth  # few containers are shaped

    return bandwidth.read(section)


def read_tuning(top: Section) -> Tuning | None:
    """``sysctl``, ``promisc``, ``allmulti`` and ``txQLen``."""
    if not top.given & {"sysctl", "promisc", "allmulti", "txQLen"}:
        return None
    from cni_v6.config import tuning  # few networks have them

    return tuning.read(top)


def read_source_routing(top: Section) -> bool | None:
    """``sourceBasedRouting``; None where it is absent."""
    return top.flag("sourceBasedRouting") if "sourceBasedRouting" in top.given else None


def read_dns(top: Section) -> Dns | None:
    """What the runtime says, when it says anything; else ``dns``, where an empty list counts, as for the reference."""
    runtime = top.section("runtimeConfig").section("dns")
    servers, searches, options = (runtime.texts(name) for name in ("servers", "searches", "options"))
    if servers or searches or options:
        return Dns(nameservers=servers, search=searches, options=options)
    dns = top.section("dns")
    if not dns.text("domain") and not dns.given & {"nameservers", "search", "options"}:
        return None
    return Dns(dns.texts("nameservers"), dns.text("domain"), dns.texts("search"), dns.texts("options"))


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
