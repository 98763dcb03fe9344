"""Keys of the ipvlan plugin's configuration. The reference plugin is ``ipvlan``."""

from __future__ import annotations

from dataclasses import replace

from cni_v6.config.keys import Key, Refusal, Text
from cni_v6.config.keys.child import (
    ACCEPT_RA,
    LINK_IN_CONTAINER,
    MAC,
    MASTER,
    MODE,
    NONE,
    Words,
    child_level,
    host_access,
)

WORDS = Words("ipvlan", "an ipvlan")
NO_MAC = Refusal("is not possible: an ipvlan has the MAC of its master", 'remove it, or use "type": "cni-v6-macvlan"')

IPVLAN = child_level(WORDS, (
    replace(MASTER, reference="The same, without `auto`; behind another plugin, its interface."),
    Key(
        MODE, Text("ipvlanMode"),
        "`l2`: containers are hosts of the link, with the master's MAC; `l3`: the node's routes through the master "
        "lead out, and containers hear no broadcast or multicast; `l3s`: as `l3`, and what they receive passes the "
        "node's `input` hook. All ipvlans of a master have one mode.",
        "The same.", default="l2", example="l3",
    ),
    LINK_IN_CONTAINER,
    replace(MAC, meaning="Refused: an ipvlan has the MAC of its master.", reference=NONE, refusal=NO_MAC),
    host_access(WORDS),
    replace(ACCEPT_RA, meaning=f"{ACCEPT_RA.meaning} With `mode` `l2` only."),
), {})
