"""The ipvlan plugin's configuration, parsed once into frozen values: every default, every check, every error."""

from __future__ import annotations

from cni_v6.config.child import ChildConf, read_child, refuse_common
from cni_v6.config.interface_prefix import InterfacePrefixes
from cni_v6.config.keys.child import MODE
from cni_v6.config.keys.ipam import SLAAC_IPAM
from cni_v6.config.keys.ipvlan import IPVLAN, NO_MAC, WORDS
from cni_v6.config.main import Remembered, for_call, read_mac, reader, remembered
from cni_v6.config.reader import wrong
from cni_v6.protocol.invocation import Invocation
from cni_v6.values import dataclass

L2 = "l2"


@dataclass(frozen=True, slots=True)
class IpvlanConf(ChildConf):
    """Configuration of the ipvlan plugin: all have the master's MAC, and the kernel tells them by their addresses."""

    @property
    def kind(self) -> str:
        """An ipvlan."""
        return WORDS.kind

    @property
    def can_change_mac(self) -> bool:
        """No (drivers/net/ipvlan/ipvlan_main.c has no ndo_set_mac_address)."""
        return False

    @property
    def has_neighbours(self) -> bool:
        """In mode l2; in the others the kernel sets NOARP (ipvlan_set_port_mode)."""
        return self.mode == L2

    @property
    def has_one_mode(self) -> bool:
        """Yes: it is the master's (ipvlan_set_port_mode)."""
        return True


_kept: dict[Remembered, IpvlanConf] = {}


def parse_ipvlan(call: Invocation, prefixes: InterfacePrefixes | None = None) -> IpvlanConf:
    """Configuration of ``cni-v6-ipvlan`` for ADD, CHECK and STATUS; parameters and errors as ``parse_bridge``."""
    return for_call(remembered(call, _kept, _read) if prefixes is None else _read(call, prefixes), call)


def _read(call: Invocation, prefixes: InterfacePrefixes | None = None) -> IpvlanConf:
    top = reader(call).read(IPVLAN, call.config, "")
    conf = read_child(call, top, prefixes, IpvlanConf, mode=top.text(MODE), mac=read_mac(call, top))
    refuse_common(top, conf, WORDS)
    if conf.mac:
        raise wrong("mac", conf.mac, NO_MAC.reason, NO_MAC.remedy)
    deaf = f"needs mode {L2}: with {conf.mode} a container hears no router advertisement"
    if conf.accept_ra and not conf.has_neighbours:
        raise wrong("acceptRa", True, deaf, f'write "mode": "{L2}", or remove acceptRa')
    if conf.slaac_timeout and not conf.has_neighbours:
        raise wrong("ipam.type", SLAAC_IPAM, deaf, f'write "mode": "{L2}", or ranges')
    return conf
