"""A node of fakes, called as a runtime calls the plugins: environment and stdin in, JSON and an exit code out."""

from __future__ import annotations

import copy
import itertools
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from cni_v6.attachments.context import Context, InOrder
from cni_v6.engine import handle
from cni_v6.errors import DELEGATE_FAILED, CniError
from cni_v6.kernel.fake.kernel import FakeKernel
from cni_v6.leases.attachment import Attachment
from cni_v6.leases.memory import MemoryLeases
from cni_v6.protocol.invocation import Invocation, Request

DATA_DIR = "/var/lib/cni/networks"
BOOT = "b007"
CONFIG: dict[str, Any] = {
    "cniVersion": "1.1.0",
    "name": "pods",
    "type": "cni-v6",
    "bridge": "cni0",
    "isDefaultGateway": True,
    "ipam": {"type": "cni-v6-ipam", "ranges": [[{"subnet": "2001:db8:1::/64"}], [{"subnet": "10.1.0.0/24"}]]},
}
FOREIGN: dict[str, Any] = CONFIG | {"ipam": {"type": "dhcp"}}
LAYER_2: dict[str, Any] = {key: value for key, value in CONFIG.items() if key not in ("ipam", "isDefaultGateway")}

Plugin = Callable[[str], Mapping[str, Any]]  # command -> what it prints; raises CniError


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back: the JSON on stdout (None for nothing), the exit code, what stderr says."""

    stdout: Any
    code: int
    stderr: str

    def ok(self) -> Any:
        assert self.code == 0, f"{self.stdout}\n{self.stderr}"
        return self.stdout

    def error(self, code: int) -> str:
        """The message and details of a failure, which must have this CNI code."""
        assert self.code == 1 and self.stdout["code"] == code, f"{self.stdout}\n{self.stderr}"
        return f"{self.stdout['msg']}: {self.stdout['details']}"


@dataclass
class FakeContext:
    """``plugins`` are the other IPAM plugins in CNI_PATH; ``delegated`` lists their calls; ``now`` is the clock."""

    kernel: FakeKernel = field(default_factory=FakeKernel)
    stores: dict[tuple[str, str], MemoryLeases] = field(default_factory=dict)
    plugins: dict[str, Plugin] = field(default_factory=dict)
    delegated: list[tuple[str, str]] = field(default_factory=list)
    files: dict[str, str | Exception] = field(default_factory=dict)
    now: float = 1000.0
    remembered: set[str] = field(default_factory=set)
    in_order: InOrder | None = None

    def context(self) -> Context:
        return Context(
            kernel=self.kernel,
            leases=self.leases,
            data_dirs=self,
            delegate=self._delegate,
            read_file=self._read_file,
            boot=BOOT,
            id="0e8f6a50",
            now=lambda: self.now,
            in_order=self.in_order,
        )

    def leases(self, network: str = "pods", data_dir: str = DATA_DIR) -> MemoryLeases:
        return self.stores.setdefault((network, data_dir), MemoryLeases(network, entropy=os.urandom))

    def attachments(self, network: str = "pods", data_dir: str = DATA_DIR) -> list[Attachment]:
        with self.leases(network, data_dir).transaction() as leases:
            return sorted(leases.attachments(), key=lambda each: each.owner)

    def known(self) -> list[str]:
        return sorted({DATA_DIR, *self.remembered})

    def remember(self, data_dir: str) -> None:
        self.remembered.add(data_dir)

    def networks(self, data_dir: str) -> list[str]:
        return sorted(name for name, place in self.stores if place == data_dir)

    def memos(self) -> Iterator[tuple[str, bytes]]:
        yield from ((name, store._work.memo()) for (name, _), store in self.stores.items())

    def leased_elsewhere(self, network: str, addresses: Iterable[str]) -> frozenset[str]:
        held = {address for (name, place) in self.stores if name != network
                for record in self.attachments(name, place) for address in record.addresses}
        return frozenset(held.intersection(addresses))

    def recorded(self, data_dir: str) -> list[str]:
        return self.networks(data_dir)

    def container(self, container_id: str) -> str:
        """Its namespace, made where it is not there yet."""
        path = f"/run/netns/{container_id}"
        if path not in self.kernel.spaces:
            self.kernel.add_netns(path)
        return path

    def call(
        self, command: str, container_id: str = "", config: dict[str, Any] = CONFIG, *, type: str = "cni-v6",
        **env: str,
    ) -> Answer:
        """One call of a plugin. ``env`` is laid over a complete environment; an empty value takes a variable away."""
        variables = {"CNI_COMMAND": command, "CNI_PATH": "/opt/cni/bin"}
        if container_id:
            place = {"CNI_NETNS": f"/run/netns/{container_id}", "CNI_IFNAME": "eth0"}
            variables |= {"CNI_CONTAINERID": container_id} | place
        variables = {key: value for key, value in (variables | env).items() if value}
        reply = handle.handle(Request(type, variables, json.dumps(config).encode()), self.context())
        stdout = json.loads(reply.stdout) if reply.stdout else None
        return Answer(stdout, reply.code, reply.stderr)

    def add(self, container_id: str, config: dict[str, Any] = CONFIG, **env: str) -> Any:
        """An ADD that succeeds, of a container that is made for it; the result."""
        self.container(container_id)
        return self.call("ADD", container_id, config, **env).ok()

    def state(self) -> Any:
        """Everything that the kernel, the firewall's sets and the stores hold, as a value of its own."""
        attached = {place: self.attachments(*place) for place in self.stores}
        return copy.deepcopy(self.kernel.spaces), attached, set(self.kernel.firewall.elements())

    def _delegate(self, call: Invocation, name: str, command: str) -> Mapping[str, Any]:
        self.delegated.append((name, command))
        if name not in self.plugins:
            raise CniError(DELEGATE_FAILED, f"ipam.type: plugin {name} is not in CNI_PATH", "install it there")
        return self.plugins[name](command)

    def _read_file(self, path: str) -> str:
        text = self.files[path]
        if isinstance(text, Exception):
            raise text
        return text


def gc(*valid: str, config: dict[str, Any] = CONFIG, key: str = "cni.dev/valid-attachments") -> dict[str, Any]:
    """A GC's configuration: these containers are still there."""
    return config | {key: [{"containerID": each, "ifname": "eth0"} for each in valid]}


def dhcp_server() -> Plugin:
    """Another plugin, which gives out 10.9.0.5, then the addresses after it."""
    numbers = itertools.count(5)

    def run(command: str) -> Mapping[str, Any]:
        if command != "ADD":
            return {}
        lease = {"address": f"10.9.0.{next(numbers)}/24", "gateway": "10.9.0.1"}
        return {"cniVersion": "1.1.0", "ips": [lease], "routes": [{"dst": "0.0.0.0/0"}]}

    return run


def plugin(**answers: Mapping[str, Any] | CniError) -> Plugin:
    """Another plugin: what it prints for each command, {} for the others; an error is raised."""

    def run(command: str) -> Mapping[str, Any]:
        answer = answers.get(command, {})
        if isinstance(answer, CniError):
            raise answer
        return answer

    return run
