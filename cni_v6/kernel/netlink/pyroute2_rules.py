"""Requests, with pyroute2's message class, and answers about routing rules (``struct fib_rule_hdr``).

Not in ``pyroute2_messages``, which a call without an engine imports: few containers have a second network.
"""

from __future__ import annotations

from collections.abc import Iterator

from cni_v6.kernel import ops
from cni_v6.kernel.netlink.message import HEADER, Message, as_address, as_int, picked
from cni_v6.kernel.netlink.pyroute2_messages import _message
from cni_v6.kernel.netlink.uapi import (
    AF_INET,
    AF_INET6,
    FRA_SRC,
    FRA_TABLE,
    FR_ACT_TO_TBL,
    FR_ACT_UNREACHABLE,
    NLM_F_CREATE,
    NLM_F_EXCL,
    RT_TABLE_DEFAULT,
    RT_TABLE_MAIN,
    RTM_DELRULE,
    RTM_GETRULE,
    RTM_NEWRULE,
)

# After the table of local addresses (0) and that of VRFs (1000), before the main table (32766), and before what others
# add without a number of their own, which the kernel puts right before that (fib_default_rule_pref).
PRIORITY = 20_000
# Right before the main table. Of one number the kernel keeps the order in which they came (fib_nl_newrule), so these
# come after the administrator's.
BEFORE_MAIN = 32_765
FIB_RULE_HDR_BYTES = 12  # family, dst_len, src_len, tos, table, three more, flags


def change(operation: ops.AddRule | ops.RemoveRule) -> Message:
    """Add a rule, or remove it."""
    kind, flags = (RTM_NEWRULE, NLM_F_CREATE | NLM_F_EXCL) if isinstance(operation, ops.AddRule) else (RTM_DELRULE, 0)
    source, _, length = operation.source.partition("/")
    header = {"family": _family(source), "src_len": int(length), "action": FR_ACT_TO_TBL}
    attributes = [("FRA_SRC", source), ("FRA_PRIORITY", PRIORITY), ("FRA_TABLE", operation.table)]
    return _message("fib_rule_hdr", kind, flags, header, attributes)


def returning(operation: ops.RefuseReturn | ops.AllowReturn) -> Iterator[Message]:
    """Add the rules, or remove them: what came in by the interface takes the usual tables first, without the interfaces
    of the group, and is refused after them (FRA_SUPPRESS_IFGROUP, fib4_rule_suppress and fib6_rule_suppress).

    IPv4 has a table behind the main one.
    """
    is_added = isinstance(operation, ops.RefuseReturn)
    kind, flags = (RTM_NEWRULE, NLM_F_CREATE | NLM_F_EXCL) if is_added else (RTM_DELRULE, 0)
    for family, tables in ((AF_INET, (RT_TABLE_MAIN, RT_TABLE_DEFAULT)), (AF_INET6, (RT_TABLE_MAIN,))):
        for table in (*tables, None):
            action = FR_ACT_UNREACHABLE if table is None else FR_ACT_TO_TBL
            attributes: list[tuple[str, object]] = [("FRA_IIFNAME", operation.ifname), ("FRA_PRIORITY", BEFORE_MAIN)]
            if table is not None:
                attributes += [("FRA_TABLE", table), ("FRA_SUPPRESS_IFGROUP", operation.group)]
            yield _message("fib_rule_hdr", kind, flags, {"family": family, "action": action}, attributes)


def dump(family: int) -> Message:
    """A dump of one family's rules."""
    return _message("fib_rule_hdr", RTM_GETRULE, 0, {"family": AF_INET6 if family == 6 else AF_INET})


def read(data: bytes) -> tuple[str, int]:
    """(source prefix, "" for any, and table) of an RTM_NEWRULE message."""
    length, table = data[HEADER.size + 2], data[HEADER.size + 4]
    given = picked(data, (FRA_SRC, FRA_TABLE), HEADER.size + FIB_RULE_HDR_BYTES)
    source = f"{as_address(given[FRA_SRC])}/{length}" if FRA_SRC in given else ""
    return source, as_int(given.get(FRA_TABLE)) or table


def _family(ip: str) -> int:
    return AF_INET6 if ":" in ip else AF_INET
