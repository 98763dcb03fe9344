"""The loopback plugin on the fake kernel; tests/netns has it on the real one."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from cni_v6 import errors
from cni_v6.kernel.ops import HOST
from tests.unit.fake_context import FakeContext

CONFIG: dict[str, Any] = {"cniVersion": "1.1.0", "name": "cni-loopback", "type": "loopback"}


def down(fake: FakeContext) -> None:
    netns = fake.container("c1")
    links = fake.kernel.spaces[netns].links
    links["lo"] = replace(links["lo"], up=False)


def is_up(fake: FakeContext) -> bool:
    return fake.kernel.spaces["/run/netns/c1"].links["lo"].up


def test_up_checked_and_down() -> None:
    fake = FakeContext()
    down(fake)
    result = fake.call("ADD", "c1", CONFIG, type="loopback").ok()
    assert is_up(fake)
    [interface] = result["interfaces"]
    assert (interface["name"], interface["sandbox"]) == ("lo", "/run/netns/c1")
    checked = {**CONFIG, "prevResult": result}
    assert fake.call("ADD", "c1", checked, type="loopback").ok() == result, "what came is passed on"
    fake.call("CHECK", "c1", checked, type="loopback").ok()
    fake.call("DEL", "c1", checked, type="loopback").ok()
    assert not is_up(fake)
    fake.call("CHECK", "c1", checked, type="loopback").error(errors.CHECK_FAILED)


def test_what_the_kernel_refuses_is_told() -> None:
    fake = FakeContext()
    fake.container("c1")
    del fake.kernel.spaces["/run/netns/c1"].links["lo"]
    fake.call("DEL", "c1", CONFIG, type="loopback").error(errors.KERNEL_REFUSED)


def test_nothing_to_take_down() -> None:
    fake = FakeContext()
    fake.call("DEL", "gone", CONFIG, type="loopback").ok()
    fake.call("DEL", "c1", CONFIG, type="loopback", CNI_NETNS="").ok()
    fake.call("STATUS", "", CONFIG, type="loopback").ok()
    fake.call("GC", "", {**CONFIG, "cni.dev/valid-attachments": []}, type="loopback").ok()
    assert set(fake.kernel.spaces) == {HOST}
