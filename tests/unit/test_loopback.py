"""The loopback plugin on the fake kernel; tests/netns has it on the real one."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from cni_v6 import errors
from cni_v6.kernel.ops import HOST
from tests.unit.harness import World

CONFIG: dict[str, Any] = {"cniVersion": "1.1.0", "name": "cni-loopback", "type": "loopback"}


def down(world: World) -> None:
    netns = world.container("c1")
    links = world.kernel.spaces[netns].links
    links["lo"] = replace(links["lo"], up=False)


def is_up(world: World) -> bool:
    return world.kernel.spaces["/run/netns/c1"].links["lo"].up


def test_up_checked_and_down() -> None:
    world = World()
    down(world)
    result = world.call("ADD", "c1", CONFIG, type="loopback").ok()
    assert is_up(world)
    [interface] = result["interfaces"]
    assert (interface["name"], interface["sandbox"]) == ("lo", "/run/netns/c1")
    checked = {**CONFIG, "prevResult": result}
    assert world.call("ADD", "c1", checked, type="loopback").ok() == result, "what came is passed on"
    world.call("CHECK", "c1", checked, type="loopback").ok()
    world.call("DEL", "c1", checked, type="loopback").ok()
    assert not is_up(world)
    world.call("CHECK", "c1", checked, type="loopback").error(errors.CHECK_FAILED)


def test_what_the_kernel_refuses_is_told() -> None:
    world = World()
    world.container("c1")
    del world.kernel.spaces["/run/netns/c1"].links["lo"]
    world.call("DEL", "c1", CONFIG, type="loopback").error(errors.KERNEL_REFUSED)


def test_nothing_to_take_down() -> None:
    world = World()
    world.call("DEL", "gone", CONFIG, type="loopback").ok()
    world.call("DEL", "c1", CONFIG, type="loopback", CNI_NETNS="").ok()
    world.call("STATUS", "", CONFIG, type="loopback").ok()
    world.call("GC", "", {**CONFIG, "cni.dev/valid-attachments": []}, type="loopback").ok()
    assert set(world.kernel.spaces) == {HOST}
