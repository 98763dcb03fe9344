"""Routes, neighbours and proxy entries that are asked for one by one, by their keys.

A dump that is to have those of one interface walks through those of all (rt6_dump_route, net/ipv6/ip6_fib.c;
neigh_dump_info, net/core/neighbour.c): beside 2,000 containers that takes longer than the rest of a CHECK.
"""

from __future__ import annotations

import errno
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import TypeVar

from cni_v6.errors import KERNEL_REFUSED, CniError
from cni_v6.kernel.facts import RouteEntry
from cni_v6.kernel.netlink import answers, lookups, requests
from cni_v6.kernel.netlink.message import Message
from cni_v6.kernel.netlink.socket import Answer, explain
from cni_v6.kernel.netlink.uapi import RT_TABLE_MAIN
from cni_v6.kernel.observe import dump
from cni_v6.kernel.open_namespaces import Spaces
from cni_v6.kernel.ops import HOST
from cni_v6.kernel.questions import GetNeighbour, HasProxy, HasRoute, IsLocal, Question, RefusesReturn

Of = tuple[int, RouteEntry]  # index of the interface, and a route through it
Key = TypeVar("Key", GetNeighbour, HasProxy)
# neigh_get, net/core/neighbour.c; without IPv6 there is no table of its neighbours; or the interface has just gone.
NO_ENTRY = (errno.ENOENT, errno.EAFNOSUPPORT, errno.ENODEV)


def answered(spaces: Spaces, questions: Collection[Question]) -> Iterator[tuple[Question, object]]:
    """The answers to those of the questions that are asked by key."""
    routes = [question for question in questions if isinstance(question, HasRoute)]
    neighbours = [question for question in questions if isinstance(question, GetNeighbour)]
    proxies = [question for question in questions if isinstance(question, HasProxy)]
    for netns in dict.fromkeys(question.netns for question in routes):
        yield from _routes(spaces, netns, [question for question in routes if question.netns == netns])
    for netns in dict.fromkeys(question.netns for question in neighbours):
        yield from _neighbours(spaces, netns, [question for question in neighbours if question.netns == netns])
    yield from _proxies(spaces, proxies)
    yield from _local(spaces, [question for question in questions if isinstance(question, IsLocal)])
    rules = [question for question in questions if isinstance(question, RefusesReturn)]
    if rules:
        from cni_v6.kernel import return_rules  # of one type of network

        yield from ((question, return_rules.are_there(spaces, question)) for question in rules)


def _routes(spaces: Spaces, netns: str, questions: Sequence[HasRoute]) -> Iterator[tuple[Question, bool]]:
    """The kernel says which route it would take. If that is another one, a dump tells whether the wanted one is there:
    a rule may lead to another table, and a longer prefix, or a route of a lower metric, may come first."""
    there = [(question, index) for question in questions if (index := spaces.index(netns, question.ifname))]
    told = spaces.get(netns).route.request([lookups.get_exact_route(asked.dst, index) for asked, index in there])
    found = {question: any(_is_it(question, index, answers.read_route(data)) for data in answer.messages)
             for (question, index), answer in zip(there, told)}
    for family in (4, 6):
        left = [(question, index) for question, index in there
                if not found[question] and (":" in question.dst) == (family == 6)]
        dumped = _dumped(spaces, netns, family, {index for _, index in left}) if left else {}
        found |= {asked: any(_is_it(asked, index, of) for of in dumped.get(index, ())) for asked, index in left}
    yield from ((question, found.get(question, False)) for question in questions)


def _dumped(spaces: Spaces, netns: str, family: int, indices: Collection[int]) -> Mapping[int, Sequence[Of]]:
    """The routes of the main table through these interfaces, by one dump."""
    only = next(iter(indices)) if len(indices) == 1 else 0
    messages = dump(spaces, netns, requests.get_routes(family, only, RT_TABLE_MAIN), "routes")
    found: dict[int, list[Of]] = {}
    for of in filter(None, map(answers.read_route, messages)):
        found.setdefault(of[0], []).append(of)
    return found


def _is_it(question: HasRoute, index: int, of: Of | None) -> bool:
    if of is None or of[0] != index:
        return False
    entry = of[1]
    hop = entry.gateway in question.by if question.by else entry.gateway is None
    return hop and (entry.dst, entry.table) == (question.dst, RT_TABLE_MAIN)


def _neighbours(spaces: Spaces, netns: str, questions: Sequence[GetNeighbour]) -> Iterator[tuple[Question, str]]:
    wanted = {question: lookups.get_neighbour(question.address, index) for question in questions
              if (index := spaces.index(netns, question.ifname))}
    told = _asked(spaces, netns, wanted)
    for question in questions:
        messages = told[question].messages if question in told else ()
        yield question, lookups.read_neighbour(messages[0]) if messages else ""


def _proxies(spaces: Spaces, questions: Sequence[HasProxy]) -> Iterator[tuple[Question, bool]]:
    wanted = {question: lookups.get_neighbour(question.address, index, proxy=True) for question in questions
              if (index := spaces.index(HOST, question.ifname))}
    told = _asked(spaces, HOST, wanted)
    yield from ((question, question in told and bool(told[question].messages)) for question in questions)


def _local(spaces: Spaces, questions: Sequence[IsLocal]) -> Iterator[tuple[Question, bool]]:
    """An error is no way to the address."""
    wanted = [requests.get_route_to(question.address) for question in questions]
    told = spaces.get(HOST).route.request(wanted) if wanted else ()
    yield from ((asked, any(map(answers.is_local, answer.messages))) for asked, answer in zip(questions, told))


def _asked(spaces: Spaces, netns: str, wanted: Mapping[Key, Message]) -> Mapping[Key, Answer]:
    """
    :raises CniError: KERNEL_REFUSED.
    """
    told = dict(zip(wanted, spaces.get(netns).route.request(tuple(wanted.values())) if wanted else ()))
    for question, answer in told.items():
        if answer.error and answer.error not in NO_ENTRY:
            words = f"cannot look up neighbour {question.address} of {question.ifname}"
            raise CniError(KERNEL_REFUSED, words, explain(answer))
    return told
