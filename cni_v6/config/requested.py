"""The addresses that a call asks for: in ``runtimeConfig``, in ``args``, in CNI_ARGS."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from cni_v6.allocation import ranges
from cni_v6.allocation.ranges import RangeSet
from cni_v6.config import ranges as config_ranges, reservations
from cni_v6.config.interface_prefix import InterfacePrefixes
from cni_v6.config.ranges import Exclusion
from cni_v6.config.reader import Section, check_form, show, wrong
from cni_v6.errors import INVALID_ENVIRONMENT, CniError
from cni_v6.log import Log
from cni_v6.net.addresses import from_text
from cni_v6.protocol.invocation import Args
from cni_v6.values import dataclass


@dataclass(frozen=True, slots=True)
class Source:
    """The sections of one configuration that say something about allocation."""

    ipam: Section
    runtime: Section
    args: Section  # args.cni
    environment: Args
    command: str
    prefixes: InterfacePrefixes | None = None  # of interfaces that ranges follow; None where those are not known yet


@dataclass(frozen=True, slots=True)
class _Request:
    """An address that was asked for. ``way``: the key that it came by; ``error`` makes the error about it."""

    way: str
    path: str
    text: str
    error: Callable[[str, object, str, str], CniError] = wrong


def read(source: Source, sets: tuple[RangeSet, ...], excluded: Sequence[Exclusion], log: Log) -> tuple[str, ...]:
    """The requested addresses, at most one of each set; an address that is asked for twice counts once.

    Where two ways ask for different addresses of one set, the order of ``_requests`` decides.

    :raises CniError: INVALID_CONFIG, or INVALID_ENVIRONMENT for an address that came by CNI_ARGS.
    """
    holders: dict[int, _Request] = {}
    for request in _requests(source):
        number = _set_of(request, source, sets, excluded)
        first = holders.setdefault(number, request)
        if first.text == request.text:
            continue
        if first.way == request.way:
            raise request.error(
                request.path, request.text, f"is in the same range set as {first.text}",
                "ask for one address of each set at most",
            )
        words = f"{request.text} is ignored: {first.path} asks for {first.text} of the same range set"
        log.warning(f"{request.path}: {words}")
    return tuple(request.text for request in holders.values())


def environment_mac(text: str) -> str:
    """The MAC that came by CNI_ARGS, canonical.

    :raises CniError: INVALID_ENVIRONMENT.
    """
    return check_form("mac", text, "CNI_ARGS: MAC", error=_in_environment)


def _requests(source: Source) -> Iterator[_Request]:
    """The requests, the way that takes precedence first.

    CONVENTIONS.md of containernetworking/cni: what ``args`` has, a plugin must ignore in CNI_ARGS. ``runtimeConfig``
    is what the runtime itself says.
    """
    for section in (source.runtime, source.args):
        path = section.at("ips")
        yield from (_Request(path, f"{path}[{at}]", text) for at, text in enumerate(section.texts("ips")))
    if source.environment.ip:
        path = "CNI_ARGS: IP"
        for address in source.environment.ip.split(","):  # Multus joins the addresses of a pod's annotation
            text = check_form("request", address, path, error=_in_environment)
            yield _Request(path, path, text, _in_environment)


def _set_of(request: _Request, source: Source, sets: tuple[RangeSet, ...], excluded: Sequence[Exclusion]) -> int:
    """The number of the set that holds a requested address."""
    text = request.text
    family, value = from_text(text)
    number = reservations.number_of(sets, text)
    if number is None:
        where = ranges.describe_all(sets)
        raise request.error(request.path, text, f"is in none of the ranges: {where}", "ask for an address of a range")
    if value in ranges.gateways(sets[number]):
        raise request.error(request.path, text, "is the gateway", "ask for another address")
    # CHECK comes with the request of the ADD: a container keeps what was excluded since.
    if source.command == "ADD" and not ranges.contains(sets[number], family, value):
        entry = config_ranges.covering(excluded, family, value)
        if entry:  # otherwise it is reserved: ``ipam.for_workload`` decides
            raise request.error(request.path, text, f"is excluded by {entry}", "ask for another address")
    return number


def _in_environment(path: str, value: object, reason: str, remedy: str) -> CniError:
    return CniError(INVALID_ENVIRONMENT, f"{path} {show(value)} {reason}", remedy)
