"""Requests, with pyroute2's message class, and answers about routing rules (``struct fib_rule_hdr``).

Not in ``pyroute2_messages``, which a call without an engine imports: few containers have a second network.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from cni_v6.kernel import ops
from cni_v6.kernel.netlink.message import HEADER, Message, as_address, as_int, as_text, picked
from cni_v6.kernel.netlink.pyroute2_messages import _message
from cni_v6.kernel.netlink.uapi import (
    AF_INET,
    AF_INET6,
    FIB_RULE_INVERT,
    FRA_DPORT_RANGE,
    FRA_DST,
    FRA_FWMARK,
    FRA_IIFNAME,
    FRA_IP_PROTO,
    FRA_L3MDEV,
    FRA_OIFNAME,
    FRA_PRIORITY,
    FRA_SPORT_RANGE,
    FRA_SRC,
    FRA_SUPPRESS_IFGROUP,
    FRA_TABLE,
    FRA_UID_RANGE,
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
FIB_RULE_HDR_BYTES = 12  # family, dst_len, src_len, tos, table, two more, action, flags
# The usual tables, which take what came in by an interface, without those of a group. IPv4 has one behind the main one.
RETURN_TABLES = {AF_INET: (RT_TABLE_MAIN, RT_TABLE_DEFAULT), AF_INET6: (RT_TABLE_MAIN,)}
_OF_RETURN = FRA_IIFNAME, FRA_PRIORITY, FRA_TABLE, FRA_SUPPRESS_IFGROUP
_FURTHER = (FRA_DST, FRA_SRC, FRA_FWMARK, FRA_OIFNAME, FRA_L3MDEV, FRA_UID_RANGE, FRA_IP_PROTO, FRA_SPORT_RANGE,
            FRA_DPORT_RANGE)  # what else a rule may ask for


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
    """
    is_added = isinstance(operation, ops.RefuseReturn)
    kind, flags = (RTM_NEWRULE, NLM_F_CREATE | NLM_F_EXCL) if is_added else (RTM_DELRULE, 0)
    for family, tables in RETURN_TABLES.items():
        for table in (*tables, None):
            action = FR_ACT_UNREACHABLE if table is None else FR_ACT_TO_TBL
            attributes: list[tuple[str, object]] = [("FRA_IIFNAME", operation.ifname), ("FRA_PRIORITY", BEFORE_MAIN)]
            if table is not None:
                attributes += [("FRA_TABLE", table), ("FRA_SUPPRESS_IFGROUP", operation.group)]
            yield _message("fib_rule_hdr", kind, flags, {"family": family, "action": action}, attributes)


def refuse(told: Iterable[bytes], family: int, ifname: str, group: int) -> bool:
    """Whether the rules of ``returning`` are there in their order. Behind the one that refuses another has no effect.

    :param told: RTM_NEWRULE messages, all of a family.
    """
    tables = RETURN_TABLES[AF_INET6 if family == 6 else AF_INET]
    wanted = [*((FR_ACT_TO_TBL, table, group) for table in tables), (FR_ACT_UNREACHABLE, 0, None)]
    return [rule for rule in (_of_return(data, ifname) for data in told) if rule in wanted] == wanted


def _of_return(data: bytes, ifname: str) -> tuple[int, int, int | None] | None:
    """(action, table or 0, link group or None) of a rule as ``returning`` makes them; None for another one."""
    given = picked(data, (*_OF_RETURN, *_FURTHER), HEADER.size + FIB_RULE_HDR_BYTES)
    if as_text(given.get(FRA_IIFNAME)) != ifname or as_int(given.get(FRA_PRIORITY)) != BEFORE_MAIN:
        return None
    flags = as_int(data[HEADER.size + 8:HEADER.size + 12])
    if flags & FIB_RULE_INVERT or any(kind in given for kind in _FURTHER):
        return None
    group = as_int(given[FRA_SUPPRESS_IFGROUP]) if FRA_SUPPRESS_IFGROUP in given else None
    return data[HEADER.size + 7], as_int(given.get(FRA_TABLE)), group


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
