"""What a forward chain of others drops whatever comes, read from messages as nf_tables sends them."""

from __future__ import annotations

import struct

import pytest

from cni_v6.kernel.facts import DROPS_ALL, DROPS_REST, ForwardChain
from cni_v6.kernel.netfilter import forward_chains
from cni_v6.kernel.netfilter.messages import NFGENMSG
from cni_v6.kernel.netlink.message import HEADER, attribute, nest, text

INET, IP, BRIDGE = 1, 2, 7  # NFPROTO_*
FORWARD, INPUT = 2, 1  # NF_INET_*
DROP, ACCEPT, JUMP, RETURN = 0, 1, -3, -5


def number(kind: int, value: int) -> bytes:
    return attribute(kind, struct.pack("!i", value))


def message(family: int, *attributes: bytes) -> bytes:
    return bytes(HEADER.size) + NFGENMSG.pack(family, 0, 0) + b"".join(attributes)


def chain(family: int = IP, table: str = "filter", hook: int | None = FORWARD, policy: int = DROP) -> bytes:
    hooked = [nest(4, number(1, hook), number(2, 0)), number(5, policy)] if hook is not None else []
    return message(family, text(1, table), text(3, "FORWARD"), *hooked)


def expression(name: str, *data: bytes) -> bytes:
    return nest(1, text(1, name), nest(2, *data))


def verdict(code: int) -> bytes:
    return expression("immediate", number(1, 0), nest(2, nest(2, number(1, code))))


def named(key: int, value: bytes) -> list[bytes]:
    """``iifname``, ``oifname`` or another meta key, compared with bytes."""
    return [expression("meta", number(2, key), number(1, 1)), expression("cmp", nest(3, attribute(1, value)))]


def rule(*expressions: bytes, of: str = "FORWARD") -> bytes:
    return message(IP, text(1, "filter"), text(2, of), nest(4, *expressions))


COUNTER = expression("counter", number(1, 0))
CONDITION = expression("ct", number(2, 0))


@pytest.mark.parametrize(
    ("data", "drops"),
    [
        (chain(), DROPS_ALL),
        (chain(INET), DROPS_ALL),
        (chain(policy=ACCEPT), ""),
        (chain(BRIDGE), None),
        (chain(table="cni_v6"), None),
        (chain(hook=INPUT), None),
        (chain(hook=None), None),
    ],
)
def test_which_chains_count(data: bytes, drops: str | None) -> None:
    found = forward_chains.read_chain(data)
    assert (found.drops if found else None) == drops


@pytest.mark.parametrize(
    ("policy", "rules", "drops"),
    [
        (DROP, [], DROPS_ALL),
        (DROP, [rule(COUNTER)], DROPS_ALL),
        (DROP, [rule(CONDITION, verdict(ACCEPT))], DROPS_REST),
        (DROP, [rule(verdict(JUMP))], DROPS_REST),
        (DROP, [rule(COUNTER, verdict(ACCEPT))], ""),
        (DROP, [rule(verdict(RETURN)), rule(verdict(ACCEPT))], DROPS_ALL),
        (DROP, [rule(verdict(ACCEPT), of="DOCKER")], DROPS_ALL),
        (ACCEPT, [], ""),
        (ACCEPT, [rule(CONDITION, verdict(DROP))], ""),
        (ACCEPT, [rule(COUNTER, verdict(DROP))], DROPS_ALL),
        (ACCEPT, [rule(expression("log"), expression("reject"))], DROPS_ALL),
        (ACCEPT, [rule(CONDITION, verdict(ACCEPT)), rule(expression("reject"))], DROPS_REST),
        (ACCEPT, [rule(verdict(ACCEPT)), rule(verdict(DROP))], ""),
        (ACCEPT, [rule(expression("immediate", number(1, 9), nest(2, attribute(1, b"\0\0\0\1")))), rule()], ""),
    ],
)
def test_what_a_chain_drops(policy: int, rules: list[bytes], drops: str) -> None:
    found = forward_chains.read_chain(chain(policy=policy))
    assert found and forward_chains.judge(found, rules).drops == drops


def test_the_interfaces_that_rules_name() -> None:
    rules = [
        rule(*named(6, b"cni0\0"), verdict(ACCEPT)),
        rule(*named(7, b"docker0".ljust(16, b"\0")), verdict(ACCEPT)),
        rule(*named(6, b"veth"), verdict(ACCEPT), of="DOCKER"),
        rule(*named(6, b"sixteen_letters!"), verdict(ACCEPT)),
        rule(*named(16, b"\6"), verdict(ACCEPT)),  # the protocol
    ]
    found = forward_chains.judge(ForwardChain("ip", "filter", "FORWARD", DROPS_ALL), rules)
    assert found.interfaces == {"cni0", "docker0", "veth*", "sixteen_letters!"}
