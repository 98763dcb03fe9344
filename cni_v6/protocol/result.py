"""What ADD answers, and its JSON in each version of the specification, in both directions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from cni_v6.protocol.json_reader import Fields
from cni_v6.protocol.versions import DETAILED, PER_FAMILY, SUPPORTED_VERSIONS, WITH_FAMILY_KEY
from cni_v6.values import dataclass


@dataclass(frozen=True, slots=True)
class Interface:
    """One interface of a result; ``sandbox`` is the namespace's path, "" for the node."""

    name: str
    mac: str
    sandbox: str = ""
    mtu: int = 0
    socket_path: str = ""
    pci_id: str = ""


@dataclass(frozen=True, slots=True)
class Address:
    """One address of a result: ``address`` is ``ip/prefixlen``; ``interface`` an index into the interfaces, or None."""

    address: str
    gateway: str | None = None
    interface: int | None = None

    @property
    def family(self) -> int:
        """4 or 6."""
        return 6 if ":" in self.address else 4

    @property
    def ip(self) -> str:
        return self.address.partition("/")[0]


@dataclass(frozen=True, slots=True)
class Route:
    """One route of a configuration or a result; None where the key was not given."""

    dst: str
    gw: str | None = None
    mtu: int | None = None
    advmss: int | None = None
    priority: int | None = None
    table: int | None = None
    scope: int | None = None

    @property
    def family(self) -> int:
        """4 or 6."""
        return 6 if ":" in self.dst else 4


@dataclass(frozen=True, slots=True)
class Dns:
    """Name service of a configuration or a result; all empty when there is nothing to say."""

    nameservers: tuple[str, ...] = ()
    domain: str = ""
    search: tuple[str, ...] = ()
    options: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Result:
    """The answer of ADD, independent of the version it is written in."""

    interfaces: tuple[Interface, ...] = ()
    ips: tuple[Address, ...] = ()
    routes: tuple[Route, ...] = ()
    dns: Dns = Dns()


def after(earlier: Result | None, own: Result) -> Result:
    """The result of a plugin in a chain: what came in (``prevResult``), and its own, with the indices as they are then.

    An interface that both name is one. What ``own`` says of name service takes the place of what came in.
    """
    if earlier is None:
        return own
    interfaces = {(known.name, known.sandbox): known for known in earlier.interfaces}
    interfaces |= {(known.name, known.sandbox): known for known in own.interfaces}
    numbers = {place: number for number, place in enumerate(interfaces)}

    def moved(result: Result) -> tuple[Address, ...]:
        places = [numbers[known.name, known.sandbox] for known in result.interfaces]
        return tuple(ip if ip.interface is None else replace(ip, interface=places[ip.interface]) for ip in result.ips)

    return Result(
        tuple(interfaces.values()), moved(earlier) + moved(own), tuple(dict.fromkeys(earlier.routes + own.routes)),
        own.dns if own.dns != Dns() else earlier.dns,
    )


def to_json(result: Result, version: str) -> dict[str, Any]:
    """The result in the shape of one specification version (0.1.0 to 1.1.0).

    What a version cannot say is left out. ``dns`` is always there, empty when there is nothing to say, as libcni wrote
    every version until containernetworking/cni#1039 left an empty one out of 1.x; its readers take both.
    """
    document: dict[str, Any] = {"cniVersion": version}
    if version in PER_FAMILY:
        for family in (4, 6):
            document |= _family_json(result, family)
    else:
        document |= _present(
            interfaces=[_interface_json(interface, version) for interface in result.interfaces],
            ips=[_address_json(address, version) for address in result.ips],
            routes=[_route_json(route, version) for route in result.routes],
        )
    document["dns"] = _dns_json(result.dns)
    return document


def from_json(raw: Mapping[str, Any], version: str) -> Result:
    """Read a result (``prevResult``, or a delegated IPAM's answer) of one specification version.

    What 1.1.0 brought is read wherever it stands: libcni's types write it into older versions too.

    :param version: the version to read ``raw`` as where it names none itself.
    :raises CniError: DECODING_FAILURE naming the key that is out of shape.
    """
    fields = Fields(raw)
    version = fields.text("cniVersion") or version
    if version not in SUPPORTED_VERSIONS:
        raise fields.wrong("cniVersion", "one of " + ", ".join(SUPPORTED_VERSIONS))
    dns = _read_dns(fields.child("dns"))
    if version in PER_FAMILY:
        ips, routes = _read_families(fields)
        return Result(ips=ips, routes=routes, dns=dns)
    interfaces = tuple(_read_interface(item) for item in fields.children("interfaces"))
    return Result(
        interfaces=interfaces,
        ips=tuple(_read_address(item, version, len(interfaces)) for item in fields.children("ips")),
        routes=tuple(_read_route(item) for item in fields.children("routes")),
        dns=dns,
    )


def _present(**values: Any) -> dict[str, Any]:
    """The keys that have something to say, as Go's ``omitempty`` leaves out the others."""
    return {key: value for key, value in values.items() if value}


def _family_json(result: Result, family: int) -> dict[str, Any]:
    """``ip4`` or ``ip6`` of the versions before 0.3.0, which know one address a family; routes only go with it."""
    address = next((address for address in result.ips if address.family == family), None)
    if address is None:
        return {}
    routes = [_present(dst=route.dst, gw=route.gw) for route in result.routes if route.family == family]
    return {f"ip{family}": {"ip": address.address, **_present(gateway=address.gateway, routes=routes)}}


def _interface_json(interface: Interface, version: str) -> dict[str, Any]:
    document = {"name": interface.name, **_present(mac=interface.mac, sandbox=interface.sandbox)}
    if version in DETAILED:
        document |= _present(mtu=interface.mtu, socketPath=interface.socket_path, pciID=interface.pci_id)
    return document


def _address_json(address: Address, version: str) -> dict[str, Any]:
    document: dict[str, Any] = {"version": str(address.family)} if version in WITH_FAMILY_KEY else {}
    if address.interface is not None:
        document["interface"] = address.interface
    return document | {"address": address.address, **_present(gateway=address.gateway)}


def _route_json(route: Route, version: str) -> dict[str, Any]:
    document = _present(dst=route.dst, gw=route.gw)
    if version in DETAILED:
        document |= _present(mtu=route.mtu, advmss=route.advmss, priority=route.priority)
        # 0 means something here: the unspecified table, the global scope.
        named = {"table": route.table, "scope": route.scope}
        document |= {key: value for key, value in named.items() if value is not None}
    return document


def _dns_json(dns: Dns) -> dict[str, Any]:
    return _present(
        nameservers=list(dns.nameservers), domain=dns.domain, search=list(dns.search), options=list(dns.options)
    )


def _read_families(fields: Fields) -> tuple[tuple[Address, ...], tuple[Route, ...]]:
    ips: list[Address] = []
    routes: list[Route] = []
    for family in (4, 6):
        item = fields.child(f"ip{family}")
        if item is None:
            continue
        address = Address(item.prefix("ip", host_bits=True), item.ip("gateway"))
        if address.family != family:
            raise item.wrong("ip", f"an IPv{family} address")
        ips.append(address)
        routes += (_read_route(route, family) for route in item.children("routes"))
    return tuple(ips), tuple(routes)


def _read_interface(item: Fields) -> Interface:
    return Interface(
        name=item.required("name"),
        mac=item.mac("mac"),
        sandbox=item.text("sandbox"),
        mtu=item.number("mtu") or 0,
        socket_path=item.text("socketPath"),
        pci_id=item.text("pciID"),
    )


def _read_address(item: Fields, version: str, interfaces: int) -> Address:
    address = Address(item.prefix("address", host_bits=True), item.ip("gateway"), item.number("interface"))
    if version in WITH_FAMILY_KEY and item.text("version") not in ("", str(address.family)):
        raise item.wrong("version", f"{str(address.family)!r}, the family of its address")
    if address.interface is not None and address.interface >= interfaces:
        raise item.wrong("interface", f"the index of one of the result's {interfaces} interfaces")
    return address


def _read_route(item: Fields, family: int = 0) -> Route:
    route = Route(
        dst=item.prefix("dst", host_bits=False),
        gw=item.ip("gw"),
        mtu=item.number("mtu") or None,  # 0 is how Go's int says "not given"
        advmss=item.number("advmss") or None,
        priority=item.number("priority") or None,
        table=item.number("table"),
        scope=item.number("scope", most=255),  # rtnetlink's rtm_scope is one byte
    )
    if family and route.family != family:
        raise item.wrong("dst", f"an IPv{family} prefix")
    return route


def _read_dns(item: Fields | None) -> Dns:
    if item is None:
        return Dns()
    return Dns(item.texts("nameservers"), item.text("domain"), item.texts("search"), item.texts("options"))
