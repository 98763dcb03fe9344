"""The real kernel: rtnetlink for links, addresses and routes, /proc/sys for sysctls.

Requests that follow each other on one namespace's socket go out together; whatever comes between them (a sysctl,
another namespace) first sends off what was gathered, so operations keep their order.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from cni_v6.errors import ALREADY_ATTACHED, KERNEL_REFUSED, PORTS_EXHAUSTED, UNKNOWN_CONTAINER, CniError, Errors
from cni_v6.kernel import apply_firewall, ops, sysctl
from cni_v6.kernel.link_deletion import Reaper
from cni_v6.kernel.netlink import answers, pyroute2_messages, requests
from cni_v6.kernel.netlink.message import Message
from cni_v6.kernel.netlink.socket import Answer, explain, new_group
from cni_v6.kernel.observe import observe
from cni_v6.kernel.open_namespaces import Spaces
from cni_v6.kernel.ops import HOST, Op
from cni_v6.kernel.questions import BRIDGE_PORTS_MAX, Question, Snapshot
from cni_v6.kernel.sysctl import Folders
from cni_v6.kernel.wait import await_addresses, await_end, await_port

THERE_ALREADY = (ops.EnsureBridge, ops.AddAddress, ops.AddRoute, ops.AddUnreachable)
GONE_WITH_INTERFACE = (ops.RemoveAddress, ops.RemovePortVlan, ops.RemoveRoute, ops.RemoveProxy)
GONE_ALREADY = (ops.DeleteLink, *GONE_WITH_INTERFACE)
ABSENT = (errno.ENODEV, errno.ENOENT, errno.EADDRNOTAVAIL, errno.ESRCH)


class LinuxKernel:
    """One invocation's kernel. See ``cni_v6.kernel.Kernel`` for the contract.

    :param spaces: open namespaces; a caller that keeps the node's own open between invocations hands it over in them.
    :param reaper: deletes the node's interfaces where one lives longer than this invocation.
    """

    def __init__(self, spaces: Spaces | None = None, reaper: Reaper | None = None) -> None:
        self._spaces = spaces or Spaces()
        self._reaper = reaper
        self.unwritten: list[ops.SetSysctl] = []

    def remarks(self) -> list[str]:
        """What could not be done and is no error, a line each: for the log, once a call."""
        if not self.unwritten:
            return []
        keys = ", ".join(dict.fromkeys(f"net/{each.key}={each.value}" for each in self.unwritten))
        self.unwritten.clear()
        return [f"/proc/sys is read-only, so these precautions were not taken: {keys}; set them beforehand (default)"]

    def netns_id(self, path: str) -> tuple[int, int]:
        return self._spaces.identity(path)

    def close(self) -> None:
        self._spaces.close()

    def observe(self, questions: Iterable[Question]) -> Snapshot:
        return observe(self._spaces, questions)

    def apply(self, operations: Iterable[Op]) -> None:
        done: list[Op] = []
        try:
            for batch in _batches(operations):
                self._run(batch, done)
        except Exception as error:
            self._undo(done, error)
            raise

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
        """Delete interfaces of the node together: the kernel's wait is the same for one or sixty."""
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
        except CniError as error:  # what is to go went with its namespace
            if error.code != UNKNOWN_CONTAINER or not isinstance(operation, GONE_ALREADY):
                raise

    def _undo(self, done: list[Op], error: Exception) -> None:
        undo = [each for each in map(ops.inverse, reversed(done)) if each is not None]
        try:
            self.remove(undo)
        except CniError as second:
            if isinstance(error, CniError):
                error.details += f"; undoing it failed too: {second}"

    def _run(self, batch: list[Op], done: list[Op]) -> None:
        """Run operations that can go out together; ``done`` gains those that took effect, also when another fails."""
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
            messages.append(requests.get_link(last.host))  # its answer has both indices, which what follows needs
        answered = self._spaces.get(_space(operation=batch[0])).route.request(messages)
        failed: CniError | None = None
        for operation, answer in zip(batch, answered):
            if _as_wanted(operation, answer):
                done.append(operation)
                self._note(operation)
            else:
                failed = failed or _refusal(self._spaces, operation, answer)
        if failed:
            raise failed
        if isinstance(last, ops.CreateVeth) and not answered[-2].error:
            self._spaces.learn_pair(last.host, last.netns, last.ifname, answered[-1])

    def _write(self, batch: Sequence[Op], done: list[Op]) -> None:
        """Sysctls of one namespace, or what does the same where they are read-only."""
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
        """Whether a request does what /proc/sys does not."""
        from cni_v6.kernel.netlink import devconf  # where it is read-only

        ifname = devconf.interface_of(operation.key)
        index = self._spaces.index(operation.netns, ifname) if ifname else None
        message = devconf.setting(operation.key, operation.value, index) if index else None
        return message is not None and not self._spaces.get(operation.netns).route.request([message])[0].error

    def _gone_with_interface(self, operation: Op) -> bool:
        return isinstance(operation, GONE_WITH_INTERFACE) and (
            self._spaces.index(_space(operation), operation.ifname) is None
        )

    def _note(self, operation: Op) -> None:
        if isinstance(operation, ops.DeleteLink):  # and perhaps a peer, in whatever namespace
            self._spaces.forget_indices()


def _space(operation: Op) -> str:
    """The namespace an operation's request is sent in."""
    if isinstance(operation, ops.CreateVeth):
        return HOST
    netns_path = getattr(operation, "netns", HOST)
    assert isinstance(netns_path, str)
    return netns_path


def _batches(operations: Iterable[Op]) -> Iterable[list[Op]]:
    """Group what can go out in one datagram, or be written in one visit.

    What creates a link ends its batch: later requests need its index.
    """
    batch: list[Op] = []
    for operation in operations:
        if batch and (_kind(operation) != _kind(batch[-1]) or _space(batch[-1]) != _space(operation)):
            yield batch
            batch = []
        batch.append(operation)
        if type(operation) in _DIRECT or isinstance(operation, (ops.CreateVeth, ops.EnsureBridge)):
            yield batch
            batch = []
    if batch:
        yield batch


def _kind(operation: Op) -> type[Op] | None:
    """What only operations of its own type can be in a batch with; None: requests."""
    return type(operation) if type(operation) in _DIRECT or isinstance(operation, ops.SetSysctl) else None


def _as_wanted(operation: Op, answer: Answer) -> bool:
    if answer.error == errno.EEXIST:
        return isinstance(operation, THERE_ALREADY) or (isinstance(operation, ops.CreateVeth) and operation.shared)
    return not answer.error or (answer.error in ABSENT and isinstance(operation, GONE_ALREADY))


def _refusal(spaces: Spaces, operation: Op, answer: Answer) -> CniError:
    if isinstance(operation, ops.CreateVeth):
        if answer.error == errno.EXFULL:
            words = f"bridge {operation.bridge} has no port left: a Linux bridge takes {BRIDGE_PORTS_MAX}"
            return CniError(PORTS_EXHAUSTED, words, "remove containers, or add a second network with its own bridge")
        if answer.error == errno.EEXIST:
            return _exists(spaces, operation)
    return CniError(KERNEL_REFUSED, f"cannot {ops.describe(operation)}", explain(answer))


def _exists(spaces: Spaces, operation: ops.CreateVeth) -> CniError:
    if spaces.index(HOST, operation.host) is not None:
        words = f"interface {operation.host} is on the node already: this container was added before"
        return CniError(ALREADY_ATTACHED, words, "run DEL for the container first")
    words = f"interface {operation.ifname} is in the container already ({operation.netns})"
    return CniError(ALREADY_ATTACHED, words, "choose another CNI_IFNAME, or run DEL for the attachment that made it")


# Operations that are requests


def _index(spaces: Spaces, namespace: str, ifname: str, operation: Op) -> int:
    index = spaces.index(namespace, ifname)
    if index is None:
        raise CniError(KERNEL_REFUSED, f"cannot {ops.describe(operation)}", f"there is no interface {ifname}")
    return index


def _create_veth(spaces: Spaces, operation: ops.CreateVeth) -> Message:
    bridge = _index(spaces, HOST, operation.bridge, operation)
    return requests.create_veth(operation, bridge, spaces.get(operation.netns).file)


def _by_name(encode: Callable[[Any], Message]) -> Callable[[Spaces, Any], Message]:
    return lambda _, operation: encode(operation)


def _by_index(encode: Callable[[Any, int], Message]) -> Callable[[Spaces, Any], Message]:
    def request(spaces: Spaces, operation: Any) -> Message:
        return encode(operation, _index(spaces, _space(operation), operation.ifname, operation))

    return request


_REQUESTS: dict[type[Any], Callable[[Spaces, Any], Message]] = {
    ops.EnsureBridge: _by_name(requests.create_bridge),
    ops.SetBridge: _by_name(pyroute2_messages.set_bridge),
    ops.CreateVeth: _create_veth,
    ops.SetAlias: _by_name(requests.set_alias),
    ops.SetPort: _by_name(requests.set_port),
    ops.PlugIn: lambda spaces, each: pyroute2_messages.plug_in(each, _index(spaces, HOST, each.bridge, each)),
    ops.AddPortVlans: _by_index(pyroute2_messages.add_port_vlans),
    ops.RemovePortVlan: _by_index(pyroute2_messages.remove_port_vlan),
    ops.AddAddress: _by_index(requests.add_address),
    ops.RemoveAddress: _by_index(requests.remove_address),
    ops.SetPreferred: _by_index(pyroute2_messages.set_preferred),
    ops.SetLink: _by_name(requests.set_link),
    ops.AddRoute: _by_index(requests.add_route),
    ops.AddUnreachable: _by_name(pyroute2_messages.add_unreachable),
    ops.RemoveRoute: _by_index(requests.remove_route),
    ops.AddProxy: _by_index(pyroute2_messages.add_proxy),
    ops.RemoveProxy: _by_index(pyroute2_messages.remove_proxy),
    ops.Announce: _by_name(requests.set_mac),
    ops.DeleteLink: _by_name(requests.delete_link),
}


# Operations that are something else


_DIRECT: dict[type[Any], Callable[[Spaces, Any], None]] = {
    ops.AddElements: apply_firewall.add_elements,
    ops.RemoveElements: apply_firewall.remove_elements,
    ops.LoadRuleset: apply_firewall.load_ruleset,
    ops.UnloadRuleset: apply_firewall.unload_ruleset,
    ops.FlushFlows: apply_firewall.flush_flows,
    ops.AwaitPort: await_port,
    ops.AwaitAddresses: await_addresses,
    ops.AwaitEnd: await_end,
}
