"""Keys of ``ipam`` with ``type`` ``cni-v6-slaac``: addresses come from a router on the container's link."""

from __future__ import annotations

from cni_v6.config.keys import Key, Level, Number, Text
from cni_v6.config.keys.ipam import SLAAC_IPAM

LONGEST = 60  # seconds; runtimes give a call a few minutes, and an engine's callers 100 seconds

SLAAC = Level("slaac", "ipam", (
    Key(
        "type", Text("plugin"), "`cni-v6-slaac`: the container takes its address from a router on its link (SLAAC).",
        "No such plugin.", example=SLAAC_IPAM,
    ),
    Key(
        "slaacTimeout", Number(1, LONGEST), "Seconds in which a router must have given an address and a default route.",
        "No such key.", default=10, example=20,
    ),
))
