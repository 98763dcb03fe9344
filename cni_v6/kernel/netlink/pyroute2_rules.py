"""Requests and answers about routing rules (``struct fib_rule_hdr``), with pyroute2's message class.

Not in ``pyroute2_messages``, which a call without an engine imports: few containers have a second network.
"""

from __future__ import annotations

from cni_v6.kernel import ops
from cni_v6.kernel.netlink.message import Message
from cni_v6.kernel.netlink.pyroute2_messages import _message, _read
from cni_v6.kernel.netlink.uapi import (
    AF_INET,
    AF_INET6,
    FR_ACT_TO_TBL,
    NLM_F_CREATE,
    NLM_F_EXCL,
    RTM_DELRULE,
    RTM_GETRULE,
    RTM_NEWRULE,
)

# After the table of local addresses (0) and that of VRFs (1000), before the main table (32766), and before what others
# add without a number of their own, which the kernel puts right before that (fib_default_rule_pref).
PRIORITY = 20_000


def change(operation: ops.AddRule | ops.RemoveRule) -> Message:
    """Add a rule, or remove it."""
    kind, flags = (RTM_NEWRULE, NLM_F_CREATE | NLM_F_EXCL) if isinstance(operation, ops.AddRule) else (RTM_DELRULE, 0)
    source, _, length = operation.source.partition("/")
    header = {"family": _family(source), "src_len": int(length), "action": FR_ACT_TO_TBL}
    attributes = [("FRA_SRC", source), ("FRA_PRIORITY", PRIORITY), ("FRA_TABLE", operation.table)]
    return _message("fib_rule_hdr", kind, flags, header, attributes)


def dump(family: int) -> Message:
    """A dump of one family's rules."""
    return _message("fib_rule_hdr", RTM_GETRULE, 0, {"family": AF_INET6 if family == 6 else AF_INET})


def read(data: bytes) -> tuple[str, int]:
    """(source prefix, "" for any, and table) of an RTM_NEWRULE message."""
    rule = _read("fib_rule_hdr", data)
    source = rule.get_attr("FRA_SRC")
    return f"{source}/{rule['src_len']}" if source else "", int(rule.get_attr("FRA_TABLE") or rule["table"])


def _family(ip: str) -> int:
    return AF_INET6 if ":" in ip else AF_INET
