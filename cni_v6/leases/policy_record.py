"""The firewall's policy as JSON, for the record of an attachment.

A policy that is read back becomes commands to the kernel. So it is accepted only if ``to_json`` could have written it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from cni_v6.config.formats import FORMS
from cni_v6.firewall.policy import (
    GUARD_BLOCKED,
    GUARD_FULL,
    GUARD_LINK,
    GUARD_MAC,
    GUARD_OFF,
    ISOLATED,
    MASQUERADED,
    OPEN,
    PUBLISHED,
    Allowed,
    Policy,
    Port,
)

_GUARDS = (GUARD_OFF, GUARD_MAC, GUARD_LINK, GUARD_FULL, GUARD_BLOCKED)
_INGRESS = (OPEN, PUBLISHED, ISOLATED)
_PORT = range(1, 1 << 16)
_T = TypeVar("_T")


def to_json(policy: Policy) -> dict[str, Any]:
    """The policy as a JSON object."""
    return {
        "home": policy.home,
        "port": policy.port,
        "mac": policy.mac,
        "addresses": list(policy.addresses),
        "linkLocal": policy.link_local,
        "guard": policy.guard,
        "ingress": policy.ingress,
        "masquerade": list(policy.masquerade),
        "snat": [list(pair) for pair in policy.snat],
        "keep": list(policy.keep),
        "inbound": [list(pair) for pair in policy.inbound],
        "ports": [[port.protocol, port.host_port, port.container_port, port.host_ip] for port in policy.ports],
        "stale": list(policy.stale),
        "egress": None if policy.egress is None else [
            [allowed.to, allowed.protocol, *allowed.ports] for allowed in policy.egress
        ],
        "prefixes": [list(pair) for pair in policy.prefixes],
    }


def from_json(raw: object) -> Policy:
    """Read a policy written by any version, because containers outlive an upgrade.

    Missing keys get their defaults; unknown keys are ignored.

    :raises ValueError: ``to_json`` does not write such a value.
    """
    if not isinstance(raw, Mapping):
        raise ValueError("not an object")
    raw = {**_DEFAULTS, **raw}
    policy = Policy(
        home=_form("interface", raw["home"]),
        port=_form("interface", raw["port"]),
        mac=_blank_or("mac", raw["mac"]),
        addresses=_list(raw["addresses"], _address),
        link_local=_blank_or("address", raw["linkLocal"]),
        guard=_word(raw["guard"], _GUARDS),
        ingress=_word(raw["ingress"], _INGRESS),
        masquerade=_list(raw["masquerade"], _address),
        snat=_list(raw["snat"], _pair),
        keep=_list(raw["keep"], lambda value: _form("route", value)),
        inbound=_list(raw["inbound"], _pair),
        ports=_list(raw["ports"], _port),
        stale=_list(raw["stale"], _address),
        egress=None if raw["egress"] is None else _list(raw["egress"], _allowed),
        prefixes=_list(raw["prefixes"], _prefix),
    )
    named = {*policy.masquerade, *policy.stale}
    named |= {address for address, _ in policy.snat} | {address for _, address in policy.inbound}
    if not named <= set(policy.addresses):
        raise ValueError("an address that is not the container's")
    return policy


_DEFAULTS = to_json(Policy("", ""))


def _form(form: str, value: object) -> str:
    if not isinstance(value, str) or FORMS[form].parse(value) != value:
        raise ValueError(f"not {form} in its canonical form")
    return value


def _address(value: object) -> str:
    return _form("address", value)


def _blank_or(form: str, value: object) -> str:
    return "" if value == "" else _form(form, value)


def _word(value: object, words: tuple[str, ...]) -> str:
    if not isinstance(value, str) or value not in words:
        raise ValueError(f"none of {words}")
    return value


def _list(value: object, of: Callable[[object], _T]) -> tuple[_T, ...]:
    if not isinstance(value, list):
        raise ValueError("not a list")
    return tuple(of(item) for item in value)


def _row(value: object, length: int) -> list[Any]:
    if not isinstance(value, list) or len(value) != length:
        raise ValueError(f"not a list of {length}")
    return value


def _pair(value: object) -> tuple[str, str]:
    address, other = (_address(item) for item in _row(value, 2))
    if (":" in address) != (":" in other):
        raise ValueError("two families")
    return address, other


def _prefix(value: object) -> tuple[str, str]:
    prefix, source = _row(value, 2)
    if source not in ("", MASQUERADED):
        source = _address(source)
    if ":" not in _form("route", prefix) or (source not in ("", MASQUERADED) and ":" not in source):
        raise ValueError("not IPv6")
    return prefix, source


def _port(value: object) -> Port:
    protocol, host_port, container_port, host_ip = _row(value, 4)
    return Port(
        _form("protocol", protocol), _number(host_port, _PORT), _number(container_port, _PORT),
        _blank_or("hostAddress", host_ip),
    )


def _allowed(value: object) -> Allowed:
    to, protocol, first, last = _row(value, 4)
    bounds = range(0, 1 << 16)
    ports = _number(first, bounds), _number(last, bounds)
    if ports[0] > ports[1]:
        raise ValueError("ports backwards")
    return Allowed(_form("route", to), _blank_or("protocol", protocol), ports)


def _number(value: object, within: range) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value not in within:
        raise ValueError(f"no number from {within[0]} to {within[-1]}")
    return value
