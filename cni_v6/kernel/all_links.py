"""Answers that are about all of the node's interfaces: one dump of them for all, with the settings that it has."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from cni_v6.kernel.facts import Link, Surroundings
from cni_v6.kernel.netlink import answers, requests
from cni_v6.kernel.netlink.uapi import RT_TABLE_MAIN
from cni_v6.kernel.observe import by_interface, dump
from cni_v6.kernel.open_namespaces import Spaces
from cni_v6.kernel.ops import HOST
from cni_v6.kernel.questions import GetAliases, GetLinks, GetSurroundings, GetSysctl, Question

NAMES = "/proc/thread-self/net/dev"
FEW = 64  # interfaces that are looked up one by one


def answer(
    spaces: Spaces, sysctls: Sequence[GetSysctl], others: Sequence[Question], answered: dict[Question, object]
) -> list[GetSysctl]:
    """Answer those of the questions that are about all of the node's interfaces, and those sysctls that the dump has.

    :returns: the sysctls that are left to read.
    """
    told = {answers.index_of(data): data for data in dump(spaces, HOST, requests.get_ports(0), "interfaces")}
    read = {index: answers.read_link(data) for index, data in told.items()}
    if GetLinks() in others:
        answered[GetLinks()] = tuple(
            replace(link, master=read[master][0].name) if master in read else link for link, master in read.values())
    if GetSurroundings() in others:
        answered[GetSurroundings()] = _surroundings(spaces, read)
    wanted, left = by_interface(sysctls)
    for index, (link, _) in read.items():
        questions = wanted.pop(link.name, None)
        if questions:
            settings = answers.settings_of(told[index], questions)
            answered.update((questions[name], value) for name, value in settings.items())
    return [*left, *(question for questions in wanted.values() for question in questions.values())]


def _surroundings(spaces: Spaces, links: Mapping[int, tuple[Link, int]]) -> Surroundings:
    """
    :param links: all of the node's interfaces by index, each with the index of its master.
    """
    domains = {index for index, (link, _) in links.items() if link.kind == "vrf"}
    names = {index: link.name for index, (link, master) in links.items() if not domains.intersection((index, master))}
    held = map(answers.read_address, dump(spaces, HOST, requests.get_addresses(0), "addresses"))
    dumps = (dump(spaces, HOST, requests.get_routes(family, 0, RT_TABLE_MAIN), "routes") for family in (4, 6))
    routes = (route for messages in dumps for message in messages for route in answers.read_routes(message))
    return Surroundings(
        tuple((names[index], address) for index, address in held if index in names),
        tuple((names[index], route) for index, route in routes if index in names and route.table == RT_TABLE_MAIN),
    )


def aliases(spaces: Spaces, question: GetAliases) -> tuple[tuple[str, str], ...]:
    """See ``GetAliases``. Few interfaces are looked up, if all others are known.

    A dump of links takes far longer than their names: for each veth whose other end is in another namespace the kernel
    searches that among all namespaces that this one knows (__peernet2id, net/core/net_namespace.c).
    """
    bridge = spaces.index(HOST, question.bridge) if question.bridge else 0
    if bridge is None:
        return ()
    known, among = question.known, question.among
    names = among if among is not None or not known else _names()
    left = None if names is None else [name for name in names if name not in known]
    if left is None or len(left) > FEW:
        told: Iterable[bytes] = dump(spaces, HOST, requests.get_ports(bridge), "interfaces")
    else:
        asked = spaces.get(HOST).route.request([requests.get_link(name) for name in left])
        told = (data for answer in asked for data in answer.messages)
    read = map(answers.alias_of, told)
    return tuple((name, alias) for name, alias, master in read if name not in known
                 and (among is None or name in among) and alias.startswith(question.start) and bridge in (0, master))


def _names() -> Iterable[str]:
    """The names of all interfaces of this thread's namespace, which is the node's."""
    with open(NAMES, "rb") as file:
        lines = os.fsdecode(file.read()).split("\n")
    # Two lines of headings. No name has a colon or a space (dev_valid_name, net/core/dev.c).
    return [line.partition(":")[0].lstrip(" ") for line in lines[2:] if line]
