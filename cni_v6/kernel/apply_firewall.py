"""The firewall's operations and questions on the real kernel: element transactions, and ``nft`` for the rules."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from cni_v6.errors import FIREWALL_MISSING, KERNEL_REFUSED, CniError
from cni_v6.firewall.elements import without_others
from cni_v6.firewall.sets import SETS, Element
from cni_v6.firewall.shape import Table
from cni_v6.kernel import ops, programs, questions
from cni_v6.kernel.deadline import Patience
from cni_v6.kernel.describe import describe
from cni_v6.kernel.facts import ForwardChain
from cni_v6.kernel.netfilter import conntrack, keys, listing, messages as nft
from cni_v6.kernel.netfilter.socket import NO_NETFILTER, NetfilterSocket
from cni_v6.kernel.netlink import requests
from cni_v6.kernel.netlink.socket import Answer, explain
from cni_v6.kernel.open_namespaces import Spaces
from cni_v6.kernel.ops import HOST

SYSTEM_PATH = ("/usr/local/sbin", "/usr/sbin", "/sbin", "/usr/bin", "/bin")  # a runtime's PATH may lack them
NFT_SECONDS = 20.0  # nft takes hundredths of a second, and seconds while another program loads a million elements
VERSION_CHAIN = "version"  # in both tables; the comment of its only rule is their mark
# Filtered deletions, each of which walks all flows; with more of them, one dump costs less.
FILTERS_MAX = 16
# Of a request for an IPv6 route: the kernel has no IPv6; it is off (disable_ipv6); lo is down; there is no such route.
NO_ROUTE = (errno.EAFNOSUPPORT, errno.EOPNOTSUPP, errno.EACCES, errno.ENODEV, errno.ENETDOWN, errno.ESRCH)
Place = tuple[str, str, tuple[bytes, bytes]]  # family, set, key
RELOAD = "run: cni-v6ctl reload"
WITHOUT = 'set "guard": false and "ingress": "open", and no masquerade or ports'


def add_elements(spaces: Spaces, operation: ops.AddElements) -> None:
    netfilter = _netfilter(spaces)
    spaces.has_elements = True
    failures = {answer.error: answer for answer in netfilter.transact(nft.add_elements(operation.elements))}
    if errno.ENOENT in failures:
        raise CniError(FIREWALL_MISSING, "the node's firewall tables are gone", RELOAD)
    if errno.EEXIST in failures:
        raise _clash(netfilter, operation.elements)
    for answer in failures.values():
        raise CniError(KERNEL_REFUSED, f"cannot {describe(operation)}", explain(answer))


def _clash(netfilter: NetfilterSocket, elements: Sequence[Element]) -> CniError:
    asked = [element for element in elements if element.data]
    for element, there in zip(asked, _look(netfilter, asked)):
        if there and there.data != element.data:
            return nft.clash(element, there)
    ranges = [element for element in elements if keys.set_of(element).intervals]
    others = [*ranges, *(there for there in _look(netfilter, ranges) if there)]
    culprits = (element for element in ranges if any(keys.overlaps(element, other) for other in others))
    return nft.clash(next(culprits, elements[0]), None)


def remove_elements(spaces: Spaces, operation: ops.RemoveElements) -> None:
    """Remove all elements at once. If that fails, look up which exist, and remove these.

    Two kinds are looked up first. A map's entry may belong to another attachment by now. An interval is found by its
    start, so the kernel may find another interval that contains it (nft_pipapo_deactivate).
    """
    netfilter = _netfilter(spaces)
    doubtful = {_place(element): element for element in operation.elements if _doubtful(element)}
    certain = [element for element in dict.fromkeys(operation.elements) if not _doubtful(element)]
    found = _found(netfilter, doubtful)
    lost = [element for element in doubtful.values() if element not in found]
    if lost:
        others = [element for element, there in zip(lost, _look(netfilter, lost)) if there]
        certain = without_others(certain, others)
    if not _destroy(netfilter, [*certain, *found]):
        certain = [element for element, there in zip(certain, _look(netfilter, certain)) if there]
        _refused(netfilter.transact(nft.delete_elements([*certain, *found])), operation)
    while found and len(found) < len(doubtful):  # an interval may have hidden another one
        found = _found(netfilter, doubtful)
        _refused(netfilter.transact(nft.delete_elements(found)), operation)


def _destroy(netfilter: NetfilterSocket, elements: Sequence[Element]) -> bool:
    """Remove elements, whether or not they exist. False: the kernel is too old, or a table or set does not exist.

    NFT_MSG_DESTROYSETELEM avoids a failed transaction, after which the kernel waits milliseconds for an RCU grace
    period (__nf_tables_abort).
    """
    if not netfilter.destroys:
        return not netfilter.transact(nft.delete_elements(elements))
    failures = netfilter.transact(nft.destroy_elements(elements))
    netfilter.destroys = not any(answer.error == errno.EINVAL for answer in failures)
    return not failures


def _doubtful(element: Element) -> bool:
    return bool(element.data) or keys.set_of(element).intervals


def _place(element: Element) -> Place:
    return element.family, element.set, keys.key(element)


def _found(netfilter: NetfilterSocket, asked: Mapping[Place, Element]) -> list[Element]:
    """Those of the elements that the kernel has, each with its own data."""
    there = {_place(element): element for element in _look(netfilter, list(asked.values())) if element}
    return [asked[place] for place, found in there.items() if place in asked and asked[place].data == found.data]


def _look(netfilter: NetfilterSocket, elements: Sequence[Element]) -> list[Element | None]:
    """The element that the kernel finds under the key of each element; None if there is none."""
    answers = netfilter.request([nft.get_element(element) for element in elements])
    return [_there(element, answer) for element, answer in zip(elements, answers)]


def _there(asked: Element, answer: Answer) -> Element | None:
    if answer.error == errno.ENOENT or answer.error in NO_NETFILTER:
        return None
    if answer.error:
        raise CniError(KERNEL_REFUSED, f"cannot look up {asked.set} {' . '.join(asked.key)}", explain(answer))
    return next((found for data in answer.messages for found in nft.read_elements(data)), None)


def load_ruleset(spaces: Spaces, operation: ops.LoadRuleset) -> None:
    """Run ``nft`` in the namespace of this thread, which is the node's own, and add the route that its rules need."""
    _nft(operation.elements)
    _route(spaces)


def route_loopback(spaces: Spaces, _: ops.RouteLoopback) -> None:
    """By a route: of an address, the node would make its source where it has no other global one (RFC 6724, rule 2)."""
    _route(spaces)


def _route(spaces: Spaces, *, remove: bool = False) -> None:
    """Add or remove the route to the address that stands for ::1. Without IPv6 there is none, and none is needed."""
    from cni_v6.firewall import loopback

    lo = spaces.index(HOST, "lo")
    if lo is None:
        return
    [answer] = spaces.get(HOST).route.request([requests.to_itself(f"{loopback.STANDS_FOR}/128", lo, remove=remove)])
    if answer.error not in (0, *NO_ROUTE):
        raise CniError(KERNEL_REFUSED, f"cannot set the route to {loopback.STANDS_FOR}", explain(answer))


def _nft(elements: tuple[Element, ...], *options: str) -> None:
    """
    :raises CniError: FIREWALL_MISSING, KERNEL_REFUSED.
    """
    from cni_v6.firewall import ruleset
    from cni_v6.kernel import child_process  # imported here: it would slow down every start

    folders = _folders()
    script = ruleset.text(elements).encode()
    try:
        command = [_executable("nft", folders), *options, "-f", "-"]
        environment = {"PATH": os.pathsep.join(filter(None, folders)), "LC_ALL": "C"}
        done = child_process.run(command, stdin=script, env=environment, patience=Patience(), seconds=NFT_SECONDS)
    except OSError as error:
        remedy = f"install nftables, or {WITHOUT}"
        raise CniError(FIREWALL_MISSING, f"cannot run nft: {error.strerror}", remedy) from error
    except child_process.Stopped as error:
        raise CniError(KERNEL_REFUSED, f"nft {error}", "see what holds nftables on the node") from error
    if done.status:
        said = done.stderr.decode(errors="replace").strip()[:500] or f"status {done.status}"
        remedy = f"{said}; where the kernel has no nftables, {WITHOUT}"
        raise CniError(KERNEL_REFUSED, "nft could not load the firewall's rules", remedy)


def _folders() -> tuple[str, ...]:
    return *os.environ.get("PATH", "").split(os.pathsep), *SYSTEM_PATH


def _executable(name: str, folders: Sequence[str]) -> str:
    found = programs.find(name, folders)
    if found is None:
        raise FileNotFoundError(errno.ENOENT, f"it is not in {os.pathsep.join(filter(None, folders))}")
    return found


def unload_ruleset(spaces: Spaces, operation: ops.UnloadRuleset) -> None:
    _unload_tables(_netfilter(spaces), operation)
    _route(spaces, remove=True)


def _unload_tables(netfilter: NetfilterSocket, operation: ops.UnloadRuleset) -> None:
    messages = [nft.delete_table(family) for family in nft.FAMILIES]
    if netfilter.transact(messages):  # one of the tables may not exist
        for message in messages:
            failures = netfilter.transact([message])
            _refused([answer for answer in failures if answer.error != errno.ENOENT], operation)


def flush_flows(spaces: Spaces, operation: ops.FlushFlows) -> None:
    netfilter = _netfilter(spaces)
    for what in conntrack.wanted(operation.addresses, operation.ports):
        requests = conntrack.delete_matching(what)
        answers = netfilter.request(requests) if len(requests) <= FILTERS_MAX else []
        filtered = bool(answers) and not any(answer.error in NO_NETFILTER for answer in answers)
        if not filtered or what != what.filterable():
            answers = flush_one_by_one(netfilter, what)
        _refused([answer for answer in answers if answer.error != errno.ENOENT], operation)


def flush_one_by_one(netfilter: NetfilterSocket, what: conntrack.Wanted) -> list[Answer]:
    """Dump all UDP flows and delete the wanted ones: if the kernel's filter cannot match them, or for many ports."""
    [count] = netfilter.request([conntrack.count_flows()])
    if count.messages and not conntrack.read_count(count.messages[0]):
        return []
    dump = netfilter.dump(conntrack.dump_udp(what.version))
    messages = [conntrack.delete_if_wanted(what, data) for data in dump.messages]
    return [dump, *netfilter.request([message for message in messages if message])]


# Questions


def get_ruleset(spaces: Spaces, _: questions.GetRuleset) -> str:
    netfilter = _netfilter(spaces)
    dumps = [netfilter.dump(nft.dump_rules(family, VERSION_CHAIN)) for family in nft.FAMILIES]
    marks = {nft.rule_comment(dump.messages[0]) if dump.messages else "" for dump in dumps}
    mark = marks.pop() if len(marks) == 1 else ""
    return mark if mark and (spaces.rules_watched or not _changed(spaces, mark)) else ""


def _changed(spaces: Spaces, mark: str) -> bool:
    """Whether others have changed the rules. Of those of another version it is not known."""
    from cni_v6.firewall import ruleset, shape

    return mark == ruleset.mark() and bool(shape.differences(get_tables(spaces, questions.GetTables())))


def get_tables(spaces: Spaces, _: questions.GetTables) -> tuple[Table, ...]:
    netfilter = _netfilter(spaces)
    found = []
    for family in nft.FAMILIES:
        dumps = [netfilter.dump(request) for request in listing.requests(family)]
        found.append(listing.read(family, [dump.messages for dump in dumps]))
    return tuple(table for table in found if table)


def get_elements(spaces: Spaces, asked: questions.GetElements) -> tuple[Element, ...]:
    found = zip(asked.elements, _look(_netfilter(spaces), asked.elements))
    return tuple(
        replace(element, data=there.data, comment=there.comment)
        for element, there in found
        if there and keys.key(there) == keys.key(element)
    )


def get_nft(_: Spaces, asked: questions.GetNft) -> str:
    if not asked.rehearse:
        return "" if programs.find("nft", _folders()) else "there is no program nft: install nftables"
    try:
        _nft((), "--check")
    except CniError as error:
        return str(error)
    return ""


def get_forward_chains(spaces: Spaces, _: questions.GetForwardChains) -> tuple[ForwardChain, ...]:
    from cni_v6.kernel.netfilter import forward_chains  # for STATUS alone

    netfilter = _netfilter(spaces)
    listed = netfilter.dump(forward_chains.dump_chains()).messages
    found = [chain for chain in map(forward_chains.read_chain, listed) if chain]
    rules = {
        (chain.family, chain.table): netfilter.dump(forward_chains.dump_rules(chain)).messages for chain in found
    }
    read = (forward_chains.judge(chain, rules[chain.family, chain.table]) for chain in found)
    return tuple(chain for chain in read if chain.drops)


def get_all_elements(spaces: Spaces, _: questions.GetAllElements) -> tuple[Element, ...]:
    netfilter, found = _netfilter(spaces), list[Element]()
    for family, name in SETS:
        dump = netfilter.dump(nft.dump_elements(family, name))
        if dump.error and dump.error != errno.ENOENT and dump.error not in NO_NETFILTER:
            raise CniError(KERNEL_REFUSED, f"cannot list {name} of the firewall", explain(dump))
        found += (element for data in dump.messages for element in nft.read_elements(data))
    return tuple(found)


def _netfilter(spaces: Spaces) -> NetfilterSocket:
    return spaces.get(HOST).netfilter()


def _refused(answers: Iterable[Answer], operation: ops.Op) -> None:
    for answer in answers:
        if answer.error and answer.error not in NO_NETFILTER:
            raise CniError(KERNEL_REFUSED, f"cannot {describe(operation)}", explain(answer))
