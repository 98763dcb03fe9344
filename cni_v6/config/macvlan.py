"""The macvlan plugin's configuration, parsed once into frozen values: every default, every check, every error."""

from __future__ import annotations

from cni_v6.config.child import ChildConf, read_child, refuse_common
from cni_v6.config.interface_prefix import InterfacePrefixes
from cni_v6.config.keys.child import MODE
from cni_v6.config.keys.macvlan import MACVLAN, WORDS
from cni_v6.config.main import AUTO, Remembered, for_call, read_mac, reader, remembered
from cni_v6.config.reader import wrong
from cni_v6.protocol.invocation import Invocation
from cni_v6.values import dataclass

PASSTHRU, BRIDGE_MODE = "passthru", "bridge"


@dataclass(frozen=True, slots=True)
class MacvlanConf(ChildConf):
    """Configuration of the macvlan plugin."""

    @property
    def kind(self) -> str:
        """A macvlan."""
        return WORDS.kind

    @property
    def has_own_mac(self) -> bool:
        """Yes, unless one container has the whole master."""
        return self.mode != PASSTHRU


_kept: dict[Remembered, MacvlanConf] = {}


def parse_macvlan(call: Invocation, prefixes: InterfacePrefixes | None = None) -> MacvlanConf:
    """Configuration of ``cni-v6-macvlan`` for ADD, CHECK and STATUS; parameters and errors as ``parse_bridge``."""
    return for_call(remembered(call, _kept, _read) if prefixes is None else _read(call, prefixes), call)


def _read(call: Invocation, prefixes: InterfacePrefixes | None = None) -> MacvlanConf:
    top = reader(call).read(MACVLAN, call.config, "")
    mac = read_mac(call, top) or top.text("mac")
    conf = read_child(call, top, prefixes, MacvlanConf, mode=top.text(MODE), mac=mac)
    refuse_common(top, conf, WORDS)
    _refuse_contradictions(conf)
    return conf


def _refuse_contradictions(conf: MacvlanConf) -> None:
    if conf.mode == PASSTHRU and conf.master == AUTO:
        words = "takes the whole master from the node, and master is that of its default route"
        raise wrong(MODE, conf.mode, words, "write another interface as master")
    if conf.mode == PASSTHRU and conf.mac:
        raise wrong("mac", conf.mac, f"and mode {PASSTHRU} exclude each other: the container has the master's MAC",
                    "remove the MAC, or take another mode")
    if conf.host_access and conf.mode != BRIDGE_MODE:
        words = f"needs mode {BRIDGE_MODE}: with {conf.mode} the node's macvlan reaches no other one"
        raise wrong("hostAccess", True, words, f'write "mode": "{BRIDGE_MODE}", or remove hostAccess')
