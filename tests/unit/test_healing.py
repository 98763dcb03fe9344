"""A set that runs dry frees what is over, GC keeps what is young, ``cni-v6ctl gc`` frees on all networks; on fakes."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cni_v6 import errors
from cni_v6.attachments.stale import is_listed
from cni_v6.ctl import gc as gc_command
from cni_v6.errors import CniError
from cni_v6.kernel import ops
from cni_v6.kernel.fake.kernel import FakeKernel
from cni_v6.kernel.ops import HOST, Op
from cni_v6.kernel.questions import GetAlive, GetLinks, Question
from cni_v6.kernel.snapshot import Snapshot
from cni_v6.leases.attachment import Attachment
from cni_v6.leases.disk.data_dirs import DiskDataDirs
from cni_v6.leases.disk.store import DiskLeases
from cni_v6.leases.store import Leases
from cni_v6.protocol import names
from cni_v6.protocol.names import Owner
from tests.unit.fake_context import BOOT, CONFIG, LAYER_2, FakeContext, gc

Capture = pytest.CaptureFixture[str]
SMALL = CONFIG | {"ipam": {"type": "cni-v6-ipam", "ranges": [[{"subnet": "10.1.0.0/29"}]]}}  # 10.1.0.2 to .6
ALONE: dict[str, Any] = {**SMALL, "type": "macvlan"}
FULL = ["c1", "c2", "c3", "c4", "c5"]


def full(config: dict[str, Any] = SMALL, type: str = "cni-v6") -> FakeContext:
    """A node whose network has no free address."""
    fake = FakeContext()
    for name in FULL:
        fake.container(name)
        fake.call("ADD", name, config, type=type).ok()
    return fake


class Curious(FakeKernel):
    """A kernel that goes on where another was, and notes what it is asked."""

    def __init__(self, before: FakeKernel) -> None:
        super().__init__()
        self.spaces, self.peers, self.firewall = before.spaces, before.peers, before.firewall
        self.asked: set[type[Question]] = set()

    def observe(self, questions: Iterable[Question]) -> Snapshot:
        asked = tuple(questions)
        self.asked.update(map(type, asked))
        return super().observe(asked)


def holders(fake: FakeContext) -> list[str]:
    return [each.owner.container_id for each in fake.attachments()]


def update(fake: FakeContext, name: str, **changes: Any) -> None:
    with fake.leases().transaction() as leases:
        record = leases.get(Owner("pods", name, "eth0"))
        assert record
        leases.update(replace(record, **changes))


def end(fake: FakeContext, *containers: str) -> None:
    """Their namespaces end, and nobody calls DEL."""
    for each in containers:
        fake.kernel.remove_netns(f"/run/netns/{each}")


@pytest.mark.parametrize(("config", "type"), [(SMALL, "cni-v6"), (ALONE, "cni-v6-ipam")], ids=["bridge", "alone"])
def test_a_set_that_runs_dry_frees_what_is_over(config: dict[str, Any], type: str) -> None:
    fake = full(config, type)
    end(fake, "c2", "c4")
    fake.container("c6")
    answer = fake.call("ADD", "c6", config, type=type)
    assert answer.ok()["ips"][0]["address"] == "10.1.0.3/29"
    assert holders(fake) == ["c1", "c3", "c5", "c6"]
    for name, address in (("c2", "10.1.0.3"), ("c4", "10.1.0.5")):
        assert f"freed {address} of pods/{name}/eth0: its network namespace has ended" in answer.stderr


def test_what_is_freed_is_out_of_the_firewall() -> None:
    fake = full()
    before = {each.key for each in fake.kernel.firewall.elements() if "10.1.0.3" in each.key}
    end(fake, "c2")
    fake.add("c6", SMALL)
    port = names.host_interface(Owner("pods", "c6", "eth0"))
    after = {each.key for each in fake.kernel.firewall.elements() if "10.1.0.3" in each.key}
    assert len(after) == len(before) and not before & {key for key in after if port in key}
    assert not any(names.host_interface(Owner("pods", "c2", "eth0")) in each.key
                   for each in fake.kernel.firewall.elements())


def test_an_add_that_finds_an_address_looks_for_nothing() -> None:
    fake = full()
    fake.call("DEL", "c1", SMALL).ok()
    end(fake, "c2")
    fake.kernel = Curious(fake.kernel)
    fake.add("c6", SMALL)
    assert not {GetAlive, GetLinks} & fake.kernel.asked
    assert "c2" in holders(fake)


def test_what_was_before_the_boot_is_freed() -> None:
    fake = full()
    end(fake, "c3")
    update(fake, "c3", boot="earlier")
    answer = fake.add("c6", SMALL)
    assert answer["ips"][0]["address"] == "10.1.0.4/29"
    assert holders(fake) == ["c1", "c2", "c4", "c5", "c6"]


def test_a_full_set_of_the_living_stays_full() -> None:
    fake = full()
    before = fake.state()
    fake.container("c6")
    answer = fake.call("ADD", "c6", SMALL)
    assert "5 in all, 5 taken" in answer.error(errors.ADDRESSES_EXHAUSTED)
    assert "freed" not in answer.stderr
    fake.kernel.remove_netns("/run/netns/c6")
    assert fake.state() == before


@pytest.mark.parametrize("now", [-1e9, 0.0, 1e12])
def test_a_clock_that_jumps_frees_nobody(now: float) -> None:
    fake = full()
    fake.now = now
    fake.container("c6")
    fake.call("ADD", "c6", SMALL).error(errors.ADDRESSES_EXHAUSTED)
    assert holders(fake) == FULL


@pytest.mark.parametrize(
    "changes",
    [
        {"boot": ""}, {"netns": (0, 0)}, {"home": (0, 0)}, {"home": (4, 99)},
        {"boot": "", "netns": (0, 0), "host": "", "created": 1.0, "home": (0, 0)},
    ],
    ids=["boot", "namespace", "home", "another home", "all, as the reference plugin"],
)
def test_what_is_not_known_to_be_over_is_kept(changes: dict[str, Any]) -> None:
    fake = full()
    end(fake, "c2")
    update(fake, "c2", **changes)
    fake.container("c6")
    fake.call("ADD", "c6", SMALL).error(errors.ADDRESSES_EXHAUSTED)
    assert holders(fake) == FULL


def test_where_nothing_can_be_seen_everything_is_kept() -> None:
    fake = full()
    end(fake, "c2")
    fake.kernel.blind = True
    fake.container("c6")
    fake.call("ADD", "c6", SMALL).error(errors.ADDRESSES_EXHAUSTED)
    assert holders(fake) == FULL


def test_an_interface_that_was_taken_away_from_a_living_container() -> None:
    """A runtime of virtual machines takes it into a namespace of its own."""
    fake = full()
    fake.kernel.delete(HOST, names.host_interface(Owner("pods", "c2", "eth0")))
    fake.container("c6")
    fake.call("ADD", "c6", SMALL).error(errors.ADDRESSES_EXHAUSTED)
    assert holders(fake) == FULL


def test_a_requested_address_is_not_kept_by_what_is_over() -> None:
    fake = full()
    end(fake, "c2")
    fake.container("c6")
    answer = fake.call("ADD", "c6", SMALL, CNI_ARGS="IP=10.1.0.3")
    assert answer.ok()["ips"][0]["address"] == "10.1.0.3/29"
    assert "freed 10.1.0.3 of pods/c2/eth0" in answer.stderr
    fake.container("c7")
    fake.call("ADD", "c7", SMALL, CNI_ARGS="IP=10.1.0.4").error(errors.ADDRESS_UNAVAILABLE)
    assert "c3" in holders(fake)


def test_a_set_whose_addresses_are_given_once_gains_nothing() -> None:
    once = SMALL | {"ipam": SMALL["ipam"] | {"reuse": "never"}}
    fake = full(once)
    end(fake, "c2")
    fake.container("c6")
    fake.call("ADD", "c6", once).error(errors.ADDRESSES_EXHAUSTED)
    assert holders(fake) == FULL


def test_what_cannot_be_freed_is_told_and_the_set_is_dry() -> None:
    fake = full()
    end(fake, "c2")
    fake.kernel.fail = lambda op: CniError(errors.KERNEL_REFUSED, "no", "why") if isinstance(
        op, ops.RemoveElements) else None
    fake.container("c6")
    answer = fake.call("ADD", "c6", SMALL)
    answer.error(errors.ADDRESSES_EXHAUSTED)
    assert "warning: freeing what containers without DEL have left: no: why" in answer.stderr
    assert holders(fake) == FULL


# CNI's GC


@pytest.mark.parametrize(("config", "type"), [(SMALL, "cni-v6"), (ALONE, "cni-v6-ipam")], ids=["bridge", "alone"])
def test_gc_after_the_clock_was_set_back(config: dict[str, Any], type: str) -> None:
    """What seems to be made in the future may be younger than the list; what is over need not wait for the clock."""
    fake = full(config, type)
    fake.now -= 3600
    end(fake, "c2")
    fake.call("GC", config=gc("c1", config=config), type=type).ok()
    assert holders(fake) == ["c1", "c3", "c4", "c5"]
    fake.now += 3601
    fake.call("GC", config=gc("c1", config=config), type=type).ok()
    assert holders(fake) == ["c1"]


def test_gc_keeps_what_the_list_has_though_it_is_over() -> None:
    fake = full()
    end(fake, "c2")
    fake.now += 1
    fake.call("GC", config=gc(*FULL, config=SMALL)).ok()
    assert holders(fake) == FULL


# cni-v6ctl gc


def run(fake: FakeContext, *networks: str, stdin: Callable[[], bytes] = bytes, **chosen: Any) -> int:
    defaults: dict[str, Any] = {"dry_run": False, "valid": None, "older_than": "10m", "data_dir": None, "json": False}
    return gc_command.run(argparse.Namespace(networks=list(networks), **defaults | chosen), fake.context, stdin)


def listed(folder: Path, *containers: str) -> str:
    path = folder / "valid.json"
    path.write_text(json.dumps([{"containerID": each, "ifname": "eth0"} for each in containers]))
    return str(path)


def test_ctl(capsys: Capture) -> None:
    fake = full()
    fake.add("d1", LAYER_2 | {"name": "other"})
    update(fake, "c3", boot="earlier")
    end(fake, "c2", "d1")
    assert run(fake, dry_run=True) == 0
    assert holders(fake) == FULL
    would = capsys.readouterr().out.splitlines()
    assert run(fake, dry_run=True, json=True) == 0
    assert [json.loads(line) for line in capsys.readouterr().out.splitlines()][1:] == [
        {"network": "pods", "containerID": name, "ifname": "eth0", "addresses": [address], "prefixes": [], "why": why,
         "dryRun": True} for name, address, why in (
            ("c3", "10.1.0.4", "it is of an earlier boot"), ("c2", "10.1.0.3", "its network namespace has ended"),
        )
    ]
    assert run(fake) == 0
    assert capsys.readouterr().out.splitlines() == [
        "freed other  d1  eth0  -  (its network namespace has ended)",
        "freed pods  c3  eth0  10.1.0.4  (it is of an earlier boot)",
        "freed pods  c2  eth0  10.1.0.3  (its network namespace has ended)",
        "3 attachments freed",
    ]
    assert would[:3] == [
        "would free other  d1  eth0  -  (its network namespace has ended)",
        "would free pods  c3  eth0  10.1.0.4  (it is of an earlier boot)",
        "would free pods  c2  eth0  10.1.0.3  (its network namespace has ended)",
    ]
    assert would[3:] == ["3 attachments would be freed"]
    assert holders(fake) == ["c1", "c4", "c5"] and fake.attachments("other") == []


def test_ctl_after_a_boot(capsys: Capture, tmp_path: Path) -> None:
    """The store itself frees what an earlier boot left, in its first transaction: it is told all the same, once."""
    fake = FakeContext()
    owner = Owner("pods", "c1", "eth0")
    with DiskLeases("pods", str(tmp_path), boot="earlier").transaction() as leases:
        leases.put(Attachment(owner, ("10.1.0.2",), boot="earlier"))

    def on_disk(network: str, data_dir: str) -> Leases:
        return DiskLeases(network, str(tmp_path), boot=BOOT)

    context = replace(fake.context(), leases=on_disk, data_dirs=DiskDataDirs(str(tmp_path / "run")))
    chosen: dict[str, Any] = {
        "networks": [], "valid": None, "older_than": "10m", "data_dir": str(tmp_path), "json": False,
    }
    for dry, words in ((True, "would free"), (False, "freed")):
        assert gc_command.run(argparse.Namespace(**chosen, dry_run=dry), lambda: context, bytes) == 0
        assert f"{words} pods  c1  eth0  10.1.0.2  (it is of an earlier boot)" in capsys.readouterr().out
    assert gc_command.run(argparse.Namespace(**chosen, dry_run=False), lambda: context, bytes) == 0
    assert capsys.readouterr().out == "0 attachments freed\n"
    assert list(on_disk("pods", "").peek()) == []


def test_ctl_of_one_network(capsys: Capture) -> None:
    fake = full()
    fake.add("d1", LAYER_2 | {"name": "other"})
    end(fake, "c2", "d1")
    assert run(fake, "other") == 0
    assert holders(fake) == FULL and fake.attachments("other") == []
    assert capsys.readouterr().out.endswith("\n1 attachment freed\n")
    with pytest.raises(CniError, match="no attachment of network third is on record") as caught:
        run(fake, "pods", "third")
    assert caught.value.code == errors.INVALID_CONFIG
    with pytest.raises(CniError, match="is not a network name"):
        run(fake, "../etc")


def test_ctl_of_one_folder(capsys: Capture) -> None:
    fake = full()
    elsewhere = SMALL | {"bridge": "cni1", "overlap": "allow", "ipam": SMALL["ipam"] | {"dataDir": "/elsewhere"}}
    fake.add("d1", elsewhere)
    end(fake, "c2", "d1")
    assert run(fake, data_dir="/elsewhere") == 0
    assert holders(fake) == FULL and fake.attachments(data_dir="/elsewhere") == []
    assert "d1" in capsys.readouterr().out


def test_ctl_with_a_list(tmp_path: Path, capsys: Capture) -> None:
    fake = full()
    end(fake, "c5")
    fake.now += 601
    update(fake, "c4", created=fake.now - 599)
    valid = listed(tmp_path, "c1", "c3")
    assert run(fake, valid=valid, dry_run=True) == 0
    assert holders(fake) == FULL
    assert run(fake, valid=valid) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1:3] == [
        "would free pods  c2  eth0  10.1.0.3  (it is not in the list of valid",
        "    attachments)",
    ]
    assert lines[4:] == [
        "freed pods  c5  eth0  10.1.0.6  (its network namespace has ended)",
        "freed pods  c2  eth0  10.1.0.3  (it is not in the list of valid attachments)",
        "2 attachments freed",
    ]
    assert holders(fake) == ["c1", "c3", "c4"]
    assert names.host_interface(Owner("pods", "c2", "eth0")) not in fake.kernel.spaces[HOST].links
    assert run(fake, valid=valid, older_than="1m") == 0
    assert holders(fake) == ["c1", "c3"]


def test_ctl_with_a_list_leaves_other_nodes_alone(tmp_path: Path) -> None:
    """Another node on this kernel, in a container, that works in the same folder."""
    fake = full()
    fake.now += 3600
    update(fake, "c2", home=(4, 99))
    assert run(fake, valid=listed(tmp_path, "c1", "c3", "c4", "c5")) == 0
    assert holders(fake) == FULL


def test_ctl_with_a_list_keeps_what_was_made_again_meanwhile(tmp_path: Path) -> None:
    fake = full()
    fake.now += 3600
    again = Attachment(Owner("pods", "c2", "eth0"), ("10.1.0.3",), created=fake.now, boot=BOOT)

    def meanwhile(_: Op) -> None:
        with fake.leases().transaction() as leases:
            leases.drop(again.owner)
            leases.put(again)

    fake.kernel.fail = meanwhile
    assert run(fake, valid=listed(tmp_path, "c1", "c3", "c4", "c5")) == 0
    assert holders(fake) == FULL


def test_ctl_goes_on_with_the_other_networks(capsys: Capture) -> None:
    fake = full()
    fake.add("d1", LAYER_2 | {"name": "qods"})
    end(fake, "c2", "d1")
    fake.kernel.fail = lambda op: CniError(errors.KERNEL_REFUSED, "no", "why") if isinstance(
        op, ops.RemoveElements) and any("10.1.0.3" in each.key for each in op.elements) else None
    with pytest.raises(CniError, match="no"):
        run(fake)
    assert holders(fake) == FULL and fake.attachments("qods") == []
    assert capsys.readouterr().out.endswith("1 attachment freed\n")


@pytest.mark.parametrize(
    ("content", "words"),
    [("{}", "has no cni.dev"), ("[1]", "cni.dev/valid-attachments"), ("[", "not JSON"), ("{", "not JSON")],
)
def test_ctl_with_a_list_that_is_none(tmp_path: Path, content: str, words: str) -> None:
    path = tmp_path / "valid.json"
    path.write_text(content)
    fake = full()
    with pytest.raises(CniError, match=words):
        run(fake, valid=str(path))
    assert holders(fake) == FULL


def test_ctl_without_the_file_or_with_a_wrong_age(tmp_path: Path) -> None:
    with pytest.raises(CniError, match="cannot read --valid"):
        run(FakeContext(), valid=str(tmp_path / "none"))
    with pytest.raises(CniError, match='--older-than: "soon"'):
        run(FakeContext(), valid=listed(tmp_path), older_than="soon")


def test_ctl_with_a_list_on_standard_input() -> None:
    fake = full()
    fake.now += 3600
    whole = json.dumps({"cni.dev/valid-attachments": [{"containerID": "c1", "ifname": "eth0"}]}).encode()
    assert run(fake, valid="-", stdin=lambda: whole) == 0
    assert holders(fake) == ["c1"]


def test_a_lease_that_names_no_interface_is_valid_with_its_container() -> None:
    valid = {"c1:eth0", "c2:net1"}
    assert is_listed(Owner("pods", "c2", ""), valid) and is_listed(Owner("pods", "c1", "eth0"), valid)
    assert not is_listed(Owner("pods", "c3", ""), valid) and not is_listed(Owner("pods", "c2", "eth0"), valid)
