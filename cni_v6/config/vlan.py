"""The vlan plugin's configuration, parsed once into frozen values: every default, every check, every error."""

from __future__ import annotations

from cni_v6.config.child import ChildConf, read_child, refuse_common
from cni_v6.config.interface_prefix import InterfacePrefixes
from cni_v6.config.keys.vlan import VLAN, WORDS
from cni_v6.config.main import Remembered, for_call, read_mac, reader, remembered
from cni_v6.protocol.invocation import Invocation
from cni_v6.values import dataclass


@dataclass(frozen=True, slots=True)
class VlanConf(ChildConf):
    """Configuration of the vlan plugin: the container's interface is the master's in one VLAN, which is ``mode``."""

    @property
    def kind(self) -> str:
        """A vlan."""
        return WORDS.kind

    @property
    def is_on_masters_link(self) -> bool:
        """No: the VLAN is a link of its own."""
        return False


_kept: dict[Remembered, VlanConf] = {}


def parse_vlan(call: Invocation, prefixes: InterfacePrefixes | None = None) -> VlanConf:
    """Configuration of ``cni-v6-vlan`` for ADD, CHECK and STATUS; parameters and errors as ``parse_bridge``."""
    return for_call(remembered(call, _kept, _read) if prefixes is None else _read(call, prefixes), call)


def _read(call: Invocation, prefixes: InterfacePrefixes | None = None) -> VlanConf:
    top = reader(call).read(VLAN, call.config, "")
    mac = read_mac(call, top) or top.text("mac")
    conf = read_child(call, top, prefixes, VlanConf, mode=str(top.number("vlanId")), mac=mac)
    refuse_common(top, conf, WORDS)
    return conf
