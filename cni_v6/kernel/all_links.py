"""Answers that are about all of the node's interfaces: one dump of them for all, with the settings that it has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from cni_v6.kernel.facts import Link, Surroundings
from cni_v6.kernel.netlink import answers, requests
from cni_v6.kernel.netlink.uapi import RT_TABLE_MAIN
from cni_v6.kernel.observe import by_interface, dump
from cni_v6.kernel.open_namespaces import Spaces
from cni_v6.kernel.ops import HOST
from cni_v6.kernel.questions import GetLinks, GetSurroundings, GetSysctl, Question


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
