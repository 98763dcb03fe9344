"""Keys of the macvlan plugin's configuration. The reference plugin is ``macvlan``."""

from __future__ import annotations

from cni_v6.config.keys import Key, Text
from cni_v6.config.keys.child import ACCEPT_RA, LINK_IN_CONTAINER, MAC, MASTER, MODE, Words, child_level, host_access

WORDS = Words("macvlan", "a macvlan")

MACVLAN = child_level(WORDS, (
    MASTER,
    Key(
        MODE, Text("macvlanMode"),
        "`bridge`: containers of a master reach each other; `private`: they do not; `vepa`: through the switch, if "
        "that sends frames back; `passthru`: one container has the whole master.",
        "The same.", default="bridge", example="private",
    ),
    LINK_IN_CONTAINER,
    MAC,
    host_access(WORDS, " With `mode` `bridge` only."),
    ACCEPT_RA,
), {})
