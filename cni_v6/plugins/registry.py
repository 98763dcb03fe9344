"""The CNI types, and the functions that handle their commands. A new type is a module and a row here."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from cni_v6.attachments.context import Context
from cni_v6.config.keys import Level
from cni_v6.config.keys.bridge import BRIDGE as BRIDGE_KEYS, MAIN_OF_IPAM
from cni_v6.plugins import ipam, loopback
from cni_v6.plugins.bridge import Bridge, FewBridge
from cni_v6.config.main import Conf
from cni_v6.plugins.main import Frame, MainPlugin
from cni_v6.plugins.status import Few
from cni_v6.protocol.invocation import BRIDGE, IPAM, IPVLAN, LOOPBACK, MACVLAN, ROUTED, VLAN, Invocation
from cni_v6.protocol.result import Result
from cni_v6.values import dataclass

Handler = Callable[[Invocation, Context], Result | None]


@dataclass(frozen=True, slots=True)
class Plugin:
    """One CNI type. ``keys``: the keys of its configuration, for the JSON Schema and the documentation, or None.

    ``main``: the parts of a main plugin that the frame is given; None for another plugin.
    """

    commands: Mapping[str, Handler]
    keys: Level | None = None
    needs_net_admin: bool = True
    main: MainPlugin[Any] | None = None


def main_plugin(plugin: MainPlugin[Conf], keys: Level | None = None, few: Few[Conf] | None = None) -> Plugin:
    """A main plugin in its frame."""
    frame = Frame(plugin, few)
    return Plugin({
        "ADD": frame.add, "DEL": frame.delete, "CHECK": frame.check, "GC": frame.collect, "STATUS": frame.status,
    }, keys, main=plugin)


def _routed() -> Plugin:
    from cni_v6.config.keys.routed import ROUTED as keys
    from cni_v6.plugins.routed import FewRouted, Routed

    return main_plugin(Routed(), keys, FewRouted())


def _macvlan() -> Plugin:
    from cni_v6.config.keys.macvlan import MACVLAN as keys
    from cni_v6.config.macvlan import parse_macvlan
    from cni_v6.plugins.child import OnMaster

    return main_plugin(OnMaster(parse_macvlan), keys)


def _ipvlan() -> Plugin:
    from cni_v6.config.ipvlan import parse_ipvlan
    from cni_v6.config.keys.ipvlan import IPVLAN as keys
    from cni_v6.plugins.child import OnMaster

    return main_plugin(OnMaster(parse_ipvlan), keys)


def _vlan() -> Plugin:
    from cni_v6.config.keys.vlan import VLAN as keys
    from cni_v6.config.vlan import parse_vlan
    from cni_v6.plugins.child import OnMaster

    return main_plugin(OnMaster(parse_vlan), keys)


class Plugins(Mapping[str, Plugin]):
    """Plugins by type. One that is given as a function is imported when it is asked for: each call needs one type."""

    def __init__(self, rows: Mapping[str, Plugin | Callable[[], Plugin]]) -> None:
        self._rows = dict(rows)

    def __getitem__(self, name: str) -> Plugin:
        row = self._rows[name]
        if not isinstance(row, Plugin):
            row = self._rows[name] = row()
        return row

    def __contains__(self, name: object) -> bool:
        return name in self._rows

    def __iter__(self) -> Iterator[str]:
        return iter(self._rows)

    def __len__(self) -> int:
        return len(self._rows)


PLUGINS: Mapping[str, Plugin] = Plugins({
    BRIDGE: main_plugin(Bridge(), BRIDGE_KEYS, FewBridge()),
    ROUTED: _routed,
    MACVLAN: _macvlan,
    IPVLAN: _ipvlan,
    VLAN: _vlan,
    IPAM: Plugin({
        "ADD": ipam.add, "DEL": ipam.delete, "CHECK": ipam.check, "GC": ipam.collect, "STATUS": ipam.status,
    }, MAIN_OF_IPAM, needs_net_admin=False),
    LOOPBACK: Plugin({
        "ADD": loopback.add, "DEL": loopback.delete, "CHECK": loopback.check, "GC": loopback.nothing,
        "STATUS": loopback.nothing,
    }),
})
