"""Settings of the node's interfaces that containers need: what was there before is recorded, and given back.

A bridge outlives its containers, and may be an administrator's. So a network remembers what it has changed of it
(``old_gateways.Memo``), and ``attachments/node_settings.py`` gives that back with the last container that needs it.
Only a setting that still has the value that we wrote is given back: another value is somebody's own.

Pure. Imported only where a network has such a setting.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from cni_v6.kernel import ops
from cni_v6.kernel.facts import Link
from cni_v6.kernel.ops import HOST, Op
from cni_v6.kernel.questions import GetLink, GetLinks, GetPortVlans, GetSysctl, Question
from cni_v6.kernel.snapshot import Snapshot
from cni_v6.leases.attachment import Setting

SYSCTLS = {
    "route_localnet": "ipv4/conf/{}/route_localnet", "proxy_arp": "ipv4/conf/{}/proxy_arp",
    "proxy_delay4": "ipv4/neigh/{}/proxy_delay", "proxy_delay6": "ipv6/neigh/{}/proxy_delay",
}
# What we write. Of ``netfilter`` a value is the families whose frames pass the node's rules.
ON = {"route_localnet": "1", "proxy_arp": "1", "proxy_delay4": "0", "proxy_delay6": "0", "promisc": "1",
      "vlan_filtering": "1", "netfilter": "46"}
OFF = {"promisc": "0", "vlan_filtering": "0", "netfilter": ""}  # of a new bridge


def questions(settings: Iterable[Setting]) -> Iterator[Question]:
    """The questions that ``value`` and ``give_back`` need answered."""
    for setting in settings:
        yield GetLink(HOST, setting.home)
        if setting.key in SYSCTLS:
            yield from (GetSysctl(HOST, SYSCTLS[setting.key].format(name)) for name in (setting.home, "default"))
        if setting.key == "vlan_filtering":
            yield GetLinks()


def more_questions(settings: Iterable[Setting], seen: Snapshot) -> Iterator[Question]:
    """The further questions that ``give_back`` needs answered."""
    homes = {setting.home for setting in settings if setting.key == "vlan_filtering"}
    yield from (GetPortVlans(port.name) for port in seen.links() if port.master in homes) if homes else ()


def value(setting: Setting, seen: Snapshot) -> str | None:
    """The present value of a setting; of an interface that is not there, what a new one has. None: there is no such
    setting, as of a family that is off."""
    if setting.key in SYSCTLS:
        own, usual = (seen.sysctl(HOST, SYSCTLS[setting.key].format(name)) for name in (setting.home, "default"))
        return usual if own is None else own
    link = seen.link(HOST, setting.home)
    return _of_link(setting.key, link) if link else OFF[setting.key]


def _of_link(key: str, link: Link) -> str:
    if key == "netfilter":
        return "".join(map(str, sorted(link.netfilter)))
    return str(int(link.promisc if key == "promisc" else link.vlan_filtering))


def turn_on(settings: Iterable[Setting]) -> Iterator[Op]:
    """The operations by which an ADD has the settings that its container needs."""
    return (_set(setting, ON[setting.key], up=True) for setting in settings)


def give_back(settings: Iterable[Setting], seen: Snapshot) -> Iterator[Op]:
    """The operations after which settings are what they were, where they are what we made them.

    VLAN filtering stays while a port is in other VLANs than the bridge's default one: they would become one segment.

    :param seen: answers to ``questions`` and ``more_questions``.
    """
    for setting in settings:
        link = seen.link(HOST, setting.home)
        if link is None or value(setting, seen) != ON[setting.key] or setting.before == ON[setting.key]:
            continue
        if setting.key != "vlan_filtering" or not _has_vlans(link, seen):
            yield _set(setting, setting.before, up=link.up)


def _has_vlans(bridge: Link, seen: Snapshot) -> bool:
    usual = {(bridge.default_vlan, True)}
    return any(not usual.issuperset(seen.port_vlans(port.name)) for port in seen.links() if port.master == bridge.name)


def _set(setting: Setting, wanted: str, *, up: bool) -> Op:
    home, key = setting.home, setting.key
    if key in SYSCTLS:
        needless = wanted != ON[key] or key.startswith("proxy_delay")
        return ops.SetSysctl(HOST, SYSCTLS[key].format(home), wanted, precaution=needless)
    if key == "promisc":
        return ops.SetLink(HOST, home, up=up, promisc=wanted == "1")
    if key == "vlan_filtering":
        return ops.SetBridge(home, vlan_filtering=wanted == "1")
    return ops.SetBridge(home, netfilter=frozenset(map(int, wanted)))
