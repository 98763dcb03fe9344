"""Keys of the vlan plugin's configuration. The reference plugin is ``vlan``."""

from __future__ import annotations

from dataclasses import replace

from cni_v6.config.keys import Key, Number
from cni_v6.config.keys.child import (
    ACCEPT_RA,
    LINK_IN_CONTAINER,
    MAC,
    MASTER,
    NONE,
    Words,
    child_level,
    no_host_access,
)

WORDS = Words("vlan", "a vlan")

VLAN = child_level(WORDS, (
    replace(
        MASTER, meaning="The interface that the frames pass, with their tag. Absent or `auto`: that of the node's "
        "default route.", reference="The same, without `auto`; required.",
    ),
    Key(
        "vlanId", Number(0, 4094),
        "The VLAN (IEEE 802.1Q). 0: frames have a priority, and no VLAN. A master has one interface in a VLAN, so "
        "there is one container.",
        "The same; absent: 0.", example=5, required=True,
    ),
    LINK_IN_CONTAINER,
    replace(MAC, meaning="MAC of the container's interface; the runtime's has precedence. Absent: the master's.",
            reference=NONE),
    no_host_access("is not possible: the VLAN is another link than the node's"),
    ACCEPT_RA,
), {})
