"""The real kernel: rtnetlink for links, addresses and routes, /proc/sys for sysctls.

Consecutive requests on the socket of one namespace go out in one datagram. Before a sysctl or a request in another
namespace, the collected requests are sent, so operations keep their order.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from cni_v6.errors import INVALID_NETNS, KERNEL_REFUSED, UNKNOWN_CONTAINER, CniError, Errors
from cni_v6.kernel import apply_firewall, ops, sysctl
from cni_v6.kernel.describe import describe
from cni_v6.kernel.netlink import answers, pyroute2_messages, requests
from cni_v6.kernel.netlink.message import Message
from cni_v6.kernel.netlink.socket import Answer, explain, new_group
from cni_v6.kernel.observe import observe
from cni_v6.kernel.open_namespaces import Spaces
from cni_v6.kernel.ops import HOST, Op
from cni_v6.kernel.questions import Question
from cni_v6.kernel.snapshot import Snapshot
from cni_v6.kernel.sysctl import Folders
from cni_v6.kernel.undo import inverse
from cni_v6.kernel.wait import WAITS

if TYPE_CHECKING:
    from cni_v6.kernel.link_deletion import Reaper  # which an engine has

THERE_ALREADY = (ops.EnsureBridge, ops.AddAddress, ops.AddUnreachable, ops.AddRule, ops.CreateIfb, ops.HookIngress)
GONE_WITH_INTERFACE = (ops.RemoveAddress, ops.RemovePortVlan, ops.RemoveRoute, ops.RemoveProxy)
GONE_ALREADY = (ops.DeleteLink, ops.RemoveRule, ops.RemoveUnreachable, *GONE_WITH_INTERFACE)
NOWHERE = (UNKNOWN_CONTAINER, INVALID_NETNS)  # umount without rm leaves a plain file
ABSENT = (errno.ENODEV, errno.ENOENT, errno.EADDRNOTAVAIL, errno.ESRCH)


class LinuxKernel:
    """The kernel of one invocation. See ``questions.Kernel``.

    :param spaces: open namespaces. The engine, which keeps the node's own open between invocations, passes it here.
    :param reaper: deletes interfaces of the node; the engine has one. None: this object deletes them.
    """

    def __init__(self, spaces: Spaces | None = None, reaper: Reaper | None = None) -> None:
        self._spaces = spaces or Spaces()
        self._reaper = reaper
        self.unwritten: list[ops.SetSysctl] = []
        self._otherwise: dict[Op, Op | None] = {}

    def remarks(self) -> list[str]:
        """Lines for the log about precautions that could not be taken; each is returned once."""
        if not self.unwritten:
            return []
        keys = ", ".join(dict.fromkeys(f"net/{setting.key}={setting.value}" for setting in self.unwritten))
        self.unwritten.clear()
        return [f"/proc/sys is read-only, so these precautions were not taken: {keys}; set them beforehand (default)"]

    def netns_id(self, path: str) -> tuple[int, int]:
        return self._spaces.identity(path)

    def close(self) -> None:
        self._spaces.close()

    def observe(self, questions: Iterable[Question]) -> Snapshot:
        return observe(self._spaces, questions)

    def apply(self, operations: Iterable[Op]) -> Mapping[Op, Op | None]:
        done: list[Op] = []
        self._otherwise.clear()
        self._spaces.made.clear()
        try:
            for batch in _batches(operations):
                self._run(batch, done)
        except Exception as error:
            self._undo(done, error)
            raise
        return dict(self._otherwise)

    def remove(self, operations: Iterable[Op]) -> None:
        errors = Errors()
        ports: list[str] = []
        for operation in operations:
            if isinstance(operation, ops.DeleteLink) and operation.netns == HOST:
                ports.append(operation.ifname)
            else:
                errors.run(lambda: self._remove(operation))
        errors.run(lambda: self._delete(ports))
        errors.check()

    def _delete(self, names: Sequence[str]) -> None:
        """Delete interfaces of the node together: the kernel's RCU wait is the same for one or sixty."""
        route = self._spaces.get(HOST).route
        found = [answer for answer in route.request([requests.get_link(name) for name in names]) if answer.messages]
        indices = [answers.index_of(answer.messages[0]) for answer in found]
        self._spaces.forget_indices()
        if indices and self._reaper:
            self._reaper.remove(indices)
        elif indices:
            last = route.request(requests.deletion(indices, new_group()))[-1]
            if last.error not in (0, *ABSENT):
                raise CniError(KERNEL_REFUSED, f"cannot delete {', '.join(names)}", explain(last))

    def _remove(self, operation: Op) -> None:
        try:
            self._run([operation], [])
        except CniError as error:  # what the operation removes is gone with its namespace
            if error.code not in NOWHERE or not isinstance(operation, GONE_ALREADY):
                raise

    def _undo(self, done: list[Op], error: Exception) -> None:
        undo = [operation for operation in map(inverse, reversed(done)) if operation is not None]
        try:
            self.remove(undo)
        except CniError as second:
            if isinstance(error, CniError):
                error.details += f"; undoing it failed too: {second}"

    def _run(self, batch: list[Op], done: list[Op]) -> None:
        """Run operations that can go out together. ``done`` gets those that succeeded, even if another one failed."""
        if isinstance(batch[0], ops.SetSysctl):
            self._write(batch, done)
            return
        if type(batch[0]) in _DIRECT:
            [operation] = batch
            _DIRECT[type(operation)](self._spaces, operation)
            done.append(operation)
            return
        batch = [operation for operation in batch if not self._gone_with_interface(operation)]
        if not batch:
            return
        messages = [_REQUESTS[type(operation)](self._spaces, operation) for operation in batch]
        last = batch[-1]
        if isinstance(last, ops.CreateVeth):
            messages.append(requests.get_link(last.host))  # its answer has both indices
        answered = self._spaces.get(_space(operation=batch[0])).route.request(messages)
        failed: CniError | None = None
        for operation, answer in zip(batch, answered):
            if _as_wanted(operation, answer):
                done.append(operation)
                self._note(operation)
            elif isinstance(operation, ops.AddRoute) and answer.error == errno.EEXIST and not failed:
                self._add_second(operation, done)
            else:
                failed = failed or _refusal(self._spaces, operation, answer)
        if failed:
            raise failed
        if isinstance(last, ops.CreateVeth) and not answered[-2].error:
            self._spaces.learn_pair(last.host, last.netns, last.ifname, answered[-1])

    def _write(self, batch: Sequence[Op], done: list[Op]) -> None:
        """Write sysctls of one namespace. If they are read-only, try the rtnetlink requests with the same effect."""
        netns, refused = _space(batch[0]), list[tuple[ops.SetSysctl, CniError]]()

        def write(folders: Folders) -> None:
            for operation in batch:
                assert isinstance(operation, ops.SetSysctl)
                try:
                    sysctl.write(folders, operation.key, operation.value)
                except sysctl.Unwritable as error:
                    refused.append((operation, error))
                else:
                    done.append(operation)

        self._spaces.with_sysctls(netns, write)
        for operation, error in refused:
            if self._set_otherwise(operation):
                done.append(operation)
            elif operation.precaution:
                self.unwritten.append(operation)
            else:
                raise error

    def _set_otherwise(self, operation: ops.SetSysctl) -> bool:
        """Set a sysctl by an rtnetlink request instead; whether there is such a request, and it succeeded."""
        from cni_v6.kernel.netlink import devconf  # only for a read-only /proc/sys

        ifname = devconf.interface_of(operation.key)
        index = self._spaces.index(operation.netns, ifname) if ifname else None
        message = devconf.setting(operation.key, operation.value, index) if index else None
        return message is not None and not self._spaces.get(operation.netns).route.request([message])[0].error

    def _gone_with_interface(self, operation: Op) -> bool:
        return isinstance(operation, GONE_WITH_INTERFACE) and (
            self._spaces.index(_space(operation), operation.ifname) is None
        )

    def _add_second(self, operation: ops.AddRoute, done: list[Op]) -> None:
        from cni_v6.kernel import second_route  # where a container has a second network

        added = second_route.add(self._spaces, operation)
        if added != operation:
            self._otherwise[operation] = added
        if added:
            done.append(added)

    def _note(self, operation: Op) -> None:
        if isinstance(operation, ops.DeleteLink):  # perhaps with a peer in any namespace
            self._spaces.forget_indices()


def _space(operation: Op) -> str:
    """The namespace in which an operation's request is sent."""
    netns_path = HOST if type(operation) is ops.CreateVeth else getattr(operation, "netns", HOST)
    assert isinstance(netns_path, str)
    return netns_path


def _batches(operations: Iterable[Op]) -> Iterable[list[Op]]:
    """Group operations that can go out in one datagram, or sysctls that can be written in one visit to a namespace.

    An operation that creates a link ends its batch: later requests need the index. A shared link begins one as well:
    it stays after a failure (``undo.inverse``), and the kernel would create it after a request that it refused.
    """
    batch: list[Op] = []
    place: tuple[type[Op] | None, str] | None = None
    for operation in operations:
        place, before = (_kind(operation), _space(operation)), place
        if batch and (place != before or (type(operation) is ops.CreateVeth and operation.shared)):
            yield batch
            batch = []
        batch.append(operation)
        if type(operation) in _ALONE:
            yield batch
            batch = []
    if batch:
        yield batch


def _kind(operation: Op) -> type[Op] | None:
    """The type of the batch that an operation can be in; None for a batch of requests."""
    kind = type(operation)
    return kind if kind is ops.SetSysctl or kind in _DIRECT else None


def _as_wanted(operation: Op, answer: Answer) -> bool:
    if answer.error == errno.EEXIST:
        return isinstance(operation, THERE_ALREADY) or (isinstance(operation, ops.CreateVeth) and operation.shared)
    return not answer.error or (answer.error in ABSENT and isinstance(operation, GONE_ALREADY))


def _refusal(spaces: Spaces, operation: Op, answer: Answer) -> CniError:
    from cni_v6.kernel.refusal import refusal  # only where it is needed: the start-up path pays for every import

    return refusal(spaces, operation, answer)


# Operations by rtnetlink request


def _index(spaces: Spaces, namespace: str, ifname: str, operation: Op) -> int:
    index = spaces.index(namespace, ifname)
    if index is None:
        raise CniError(KERNEL_REFUSED, f"cannot {describe(operation)}", f"there is no interface {ifname}")
    return index


def _create_veth(spaces: Spaces, operation: ops.CreateVeth) -> Message:
    bridge = _index(spaces, HOST, operation.bridge, operation) if operation.bridge else 0
    return requests.create_veth(operation, bridge, spaces.get(operation.netns).file)


def _delete_link(spaces: Spaces, operation: ops.DeleteLink) -> Message:
    """By its index where that is known: the container may have renamed it."""
    index = spaces.made.get((operation.netns, operation.ifname))
    return requests.delete_link(operation) if index is None else requests.deletion([index], 0)[0]


def _by_name(encode: Callable[[Any], Message]) -> Callable[[Spaces, Any], Message]:
    return lambda _, operation: encode(operation)


def _rule(_: Spaces, operation: ops.AddRule | ops.RemoveRule) -> Message:
    from cni_v6.kernel.netlink import pyroute2_rules  # where a container has a second network

    return pyroute2_rules.change(operation)


def _by_index(encode: Callable[[Any, int], Message]) -> Callable[[Spaces, Any], Message]:
    def request(spaces: Spaces, operation: Any) -> Message:
        return encode(operation, _index(spaces, _space(operation), operation.ifname, operation))

    return request


_REQUESTS: dict[type[Any], Callable[[Spaces, Any], Message]] = {
    ops.EnsureBridge: _by_name(requests.create_bridge),
    ops.SetBridge: _by_name(pyroute2_messages.set_bridge),
    ops.CreateVeth: _create_veth,
    ops.SetAlias: _by_name(requests.set_alias),
    ops.ClaimMac: _by_name(requests.claim_mac),
    ops.SetPort: _by_name(requests.set_port),
    ops.PlugIn: lambda spaces, each: pyroute2_messages.plug_in(each, _index(spaces, HOST, each.bridge, each)),
    ops.AddPortVlans: _by_index(pyroute2_messages.add_port_vlans),
    ops.RemovePortVlan: _by_index(pyroute2_messages.remove_port_vlan),
    ops.AddAddress: _by_index(requests.add_address),
    ops.RemoveAddress: _by_index(requests.remove_address),
    ops.SetPreferred: _by_index(pyroute2_messages.set_preferred),
    ops.SetLink: _by_name(requests.set_link),
    ops.TuneLink: _by_name(pyroute2_messages.tune_link),
    ops.AddRoute: _by_index(requests.add_route),
    ops.AddUnreachable: _by_name(requests.unreachable),
    ops.RemoveUnreachable: _by_name(requests.unreachable),
    ops.RemoveRoute: _by_index(requests.remove_route),
    ops.AddRule: _rule,
    ops.RemoveRule: _rule,
    ops.AddProxy: _by_index(pyroute2_messages.add_proxy),
    ops.RemoveProxy: _by_index(pyroute2_messages.remove_proxy),
    ops.SetNeighbour: _by_index(requests.set_neighbour),
    ops.CreateIfb: _by_name(pyroute2_messages.create_ifb),
    ops.SetBucket: _by_index(pyroute2_messages.set_bucket),
    ops.HookIngress: _by_index(pyroute2_messages.hook_ingress),
    ops.Redirect: lambda spaces, operation: pyroute2_messages.redirect(
        operation, _index(spaces, HOST, operation.ifname, operation), _index(spaces, HOST, operation.ifb, operation)
    ),
    ops.Announce: _by_name(lambda operation: requests.set_mac(operation.ifname, operation.mac)),
    ops.DeleteLink: _delete_link,
}


# All other operations


def _pin_mac(spaces: Spaces, operation: ops.PinMac) -> None:
    from cni_v6.kernel import bridge_macs  # only for bridges of others

    bridge_macs.pin(spaces, operation)


def _create_child_link(spaces: Spaces, operation: ops.CreateChildLink) -> None:
    from cni_v6.kernel import child_link  # of one type of network

    child_link.create(spaces, operation)


def _change_return(spaces: Spaces, operation: ops.RefuseReturn | ops.AllowReturn) -> None:
    from cni_v6.kernel import return_rules  # of one type of network

    return_rules.change(spaces, operation)


_DIRECT: dict[type[Any], Callable[[Spaces, Any], None]] = {
    ops.AddElements: apply_firewall.add_elements,
    ops.RemoveElements: apply_firewall.remove_elements,
    ops.LoadRuleset: apply_firewall.load_ruleset,
    ops.RouteLoopback: apply_firewall.route_loopback,
    ops.UnloadRuleset: apply_firewall.unload_ruleset,
    ops.FlushFlows: apply_firewall.flush_flows,
    ops.PinMac: _pin_mac,
    ops.CreateChildLink: _create_child_link,
    ops.RefuseReturn: _change_return,
    ops.AllowReturn: _change_return,
    **WAITS,
}
_ALONE = frozenset((*_DIRECT, ops.CreateVeth, ops.EnsureBridge, ops.CreateIfb))  # each ends its batch
