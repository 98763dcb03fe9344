"""The CNI types, and the functions that handle their commands. A new type is a module and a row here."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from cni_v6.attachments.context import Context
from cni_v6.config.keys import Level
from cni_v6.config.keys.bridge import BRIDGE as BRIDGE_KEYS, MAIN_OF_IPAM
from cni_v6.plugins import ipam, loopback
from cni_v6.plugins.bridge import Bridge
from cni_v6.plugins.main import Conf, Frame, MainPlugin
from cni_v6.protocol.invocation import BRIDGE, IPAM, LOOPBACK, Invocation
from cni_v6.protocol.result import Result
from cni_v6.values import dataclass

Handler = Callable[[Invocation, Context], Result | None]


@dataclass(frozen=True, slots=True)
class Plugin:
    """One CNI type. ``keys``: the keys of its configuration, for the JSON Schema and the documentation, or None."""

    commands: Mapping[str, Handler]
    keys: Level | None = None
    needs_net_admin: bool = True


def main_plugin(plugin: MainPlugin[Conf], keys: Level | None = None) -> Plugin:
    """A main plugin in its frame."""
    frame = Frame(plugin)
    return Plugin({
        "ADD": frame.add, "DEL": frame.delete, "CHECK": frame.check, "GC": frame.collect, "STATUS": frame.status,
    }, keys)


PLUGINS: Mapping[str, Plugin] = {
    BRIDGE: main_plugin(Bridge(), BRIDGE_KEYS),
    IPAM: Plugin({
        "ADD": ipam.add, "DEL": ipam.delete, "CHECK": ipam.check, "GC": ipam.collect, "STATUS": ipam.status,
    }, MAIN_OF_IPAM, needs_net_admin=False),
    LOOPBACK: Plugin({
        "ADD": loopback.add, "DEL": loopback.delete, "CHECK": loopback.check, "GC": loopback.nothing,
        "STATUS": loopback.nothing,
    }),
}
