"""A client of the Container Runtime Interface with what kubelet says about a pod's network, and no more.

Messages are described here instead of generated: the names and numbers of the fields that these tests use, as they
stand in Kubernetes' ``cri-api``, ``runtime/v1``. A protobuf message may leave out the fields it does not need.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import Message

PACKAGE = "runtime.v1"
DEADLINE = 30.0  # seconds for one call, CNI included

TEXT, BYTES, INT32, INT64, UINT32, BOOL = "string", "bytes", "int32", "int64", "uint32", "bool"
TYPES = {name: getattr(descriptor_pb2.FieldDescriptorProto, f"TYPE_{name.upper()}") for name in (
    TEXT, BYTES, INT32, INT64, UINT32, BOOL,
)}  # fmt: skip

# Message -> field -> (number, type); a type in a list is repeated, one not in TYPES is a message of this table.
MESSAGES: Mapping[str, Mapping[str, tuple[int, str | list[str]]]] = {
    "StatusRequest": {},
    "StatusResponse": {"status": (1, "RuntimeStatus")},
    "RuntimeStatus": {"conditions": (1, ["RuntimeCondition"])},
    "RuntimeCondition": {"type": (1, TEXT), "status": (2, BOOL), "reason": (3, TEXT), "message": (4, TEXT)},
    "ImageStatusRequest": {"image": (1, "ImageSpec")},
    "ImageStatusResponse": {"image": (1, "Image")},
    "ImageSpec": {"image": (1, TEXT)},
    "Image": {"id": (1, TEXT)},
    "PodSandboxMetadata": {"name": (1, TEXT), "uid": (2, TEXT), "namespace": (3, TEXT), "attempt": (4, UINT32)},
    "LinuxPodSandboxConfig": {"cgroup_parent": (1, TEXT)},
    "PodSandboxConfig": {"metadata": (1, "PodSandboxMetadata"), "linux": (8, "LinuxPodSandboxConfig")},
    "RunPodSandboxRequest": {"config": (1, "PodSandboxConfig")},
    "RunPodSandboxResponse": {"pod_sandbox_id": (1, TEXT)},
    "PodSandboxStatusRequest": {"pod_sandbox_id": (1, TEXT)},
    "PodSandboxStatusResponse": {"status": (1, "PodSandboxStatus")},
    "PodSandboxStatus": {"id": (1, TEXT), "state": (3, INT32), "network": (5, "PodSandboxNetworkStatus")},
    "PodSandboxNetworkStatus": {"ip": (1, TEXT), "additional_ips": (2, ["PodIP"])},
    "PodIP": {"ip": (1, TEXT)},
    "StopPodSandboxRequest": {"pod_sandbox_id": (1, TEXT)},
    "StopPodSandboxResponse": {},
    "RemovePodSandboxRequest": {"pod_sandbox_id": (1, TEXT)},
    "RemovePodSandboxResponse": {},
    "ContainerMetadata": {"name": (1, TEXT), "attempt": (2, UINT32)},
    "ContainerConfig": {"metadata": (1, "ContainerMetadata"), "image": (2, "ImageSpec"), "command": (3, [TEXT])},
    "CreateContainerRequest": {
        "pod_sandbox_id": (1, TEXT),
        "config": (2, "ContainerConfig"),
        "sandbox_config": (3, "PodSandboxConfig"),
    },
    "CreateContainerResponse": {"container_id": (1, TEXT)},
    "StartContainerRequest": {"container_id": (1, TEXT)},
    "StartContainerResponse": {},
    "ExecSyncRequest": {"container_id": (1, TEXT), "cmd": (2, [TEXT]), "timeout": (3, INT64)},
    "ExecSyncResponse": {"stdout": (1, BYTES), "stderr": (2, BYTES), "exit_code": (3, INT32)},
}


class Call(Protocol):
    """A remote procedure: the fields of its request in, its response out; ``grpc.RpcError`` when it failed."""

    def __call__(self, **fields: Any) -> Any: ...


@dataclass(frozen=True)
class Cri:
    """The calls of a connection; ``runtime("RunPodSandbox")(config=...)``."""

    channel: grpc.Channel
    types: Mapping[str, type[Message]]

    def runtime(self, method: str) -> Call:
        return self._call("RuntimeService", method)

    def image(self, method: str) -> Call:
        return self._call("ImageService", method)

    def _call(self, service: str, method: str) -> Call:
        request, response = self.types[f"{method}Request"], self.types[f"{method}Response"]
        remote = self.channel.unary_unary(
            f"/{PACKAGE}.{service}/{method}",
            request_serializer=request.SerializeToString,
            response_deserializer=response.FromString,
        )

        def call(**fields: Any) -> Any:
            return remote(request(**fields), timeout=DEADLINE)

        return call


@contextmanager
def connect(socket: Path) -> Iterator[Cri]:
    """A connection to the runtime that listens on a unix socket."""
    with grpc.insecure_channel(f"unix://{socket}") as channel:
        yield Cri(channel, message_types())


def message_types() -> dict[str, type[Message]]:
    """A class for every message of the table, by its name."""
    file = descriptor_pb2.FileDescriptorProto(name="runtime.proto", package=PACKAGE, syntax="proto3")
    for name, fields in MESSAGES.items():
        message = file.message_type.add(name=name)
        for field, (number, kind) in fields.items():
            _describe(message.field.add(name=field, number=number), kind)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    found = message_factory.GetMessageClassesForFiles([file.name], pool)
    return {name.removeprefix(f"{PACKAGE}."): kind for name, kind in found.items()}


def _describe(field: descriptor_pb2.FieldDescriptorProto, kind: str | list[str]) -> None:
    single = kind[0] if isinstance(kind, list) else kind
    field.label = field.LABEL_REPEATED if isinstance(kind, list) else field.LABEL_OPTIONAL
    if single in TYPES:
        field.type = TYPES[single]
    else:
        field.type, field.type_name = field.TYPE_MESSAGE, f".{PACKAGE}.{single}"
