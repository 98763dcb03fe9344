"""``cni-v6-ipam`` as a main plugin calls it, and allocation as the bridge plugin does it in-process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cni_v6 import errors
from cni_v6.allocation.policy import AFTER, NEVER, PROBED
from cni_v6.attachments import allocate, unlisted
from cni_v6.errors import CniError
from cni_v6.kernel.ops import HOST
from cni_v6.leases.attachment import Attachment
from cni_v6.leases.disk.store import DiskLeases
from cni_v6.log import Log
from cni_v6.protocol.invocation import Invocation
from cni_v6.protocol.names import Owner
from tests.unit import sample_values
from tests.unit.fake_context import BOOT, DATA_DIR, Answer, FakeContext, gc
from tests.unit.sample_values import ipam_conf, range_set

CONFIG: dict[str, Any] = {
    "cniVersion": "1.1.0",
    "name": "pods",
    "type": "macvlan",
    "master": "ens1",
    "ipam": {
        "type": "cni-v6-ipam",
        "ranges": [[{"subnet": "2001:db8:1::/64"}], [{"subnet": "10.1.0.0/30"}, {"subnet": "10.2.0.0/30"}]],
        "routes": [{"dst": "::/0"}],
    },
}
OWNER = Owner("pods", "c1", "eth0")
LATER = 1e10  # the year 2286: files made here are older


def call(
    fake: FakeContext, command: str, container_id: str = "", config: dict[str, Any] = CONFIG, **env: str
) -> Answer:
    if container_id:
        fake.container(container_id)
    return fake.call(command, container_id, config, type="cni-v6-ipam", **env)


def ips(answer: Answer) -> list[str]:
    return [each["address"] for each in answer.ok()["ips"]]


def with_ipam(**changed: Any) -> dict[str, Any]:
    return CONFIG | {"ipam": CONFIG["ipam"] | changed}


# ADD


def test_add() -> None:
    fake = FakeContext()
    assert call(fake, "ADD", "c1").ok() == {
        "cniVersion": "1.1.0",
        "ips": [
            {"address": "2001:db8:1::2/64", "gateway": "2001:db8:1::1"},
            {"address": "10.1.0.2/30", "gateway": "10.1.0.1"},
        ],
        "routes": [{"dst": "::/0"}],
        "dns": {},
    }
    identity = fake.kernel.netns_id("/run/netns/c1")
    assert fake.attachments() == [
        Attachment(
            OWNER, ("2001:db8:1::2", "10.1.0.2"), "", identity, created=1000.0, boot=BOOT,
            home=fake.kernel.netns_id(HOST), reuse=(NEVER, AFTER),
        )
    ]
    assert fake.kernel.applied == []


def test_a_set_spills_over_into_its_next_range() -> None:
    fake = FakeContext()
    call(fake, "ADD", "c1").ok()
    assert call(fake, "ADD", "c2").ok()["ips"][1] == {"address": "10.2.0.2/30", "gateway": "10.2.0.1"}


def test_an_exhausted_set_leaves_the_other_untouched() -> None:
    fake = FakeContext()
    for container_id in ("c1", "c2"):
        call(fake, "ADD", container_id).ok()
    before = fake.attachments()
    told = call(fake, "ADD", "c3").error(errors.ADDRESSES_EXHAUSTED)
    assert "10.1.0.0/30" in told and "2 in all, 2 taken" in told
    assert fake.attachments() == before


def test_add_twice() -> None:
    fake = FakeContext()
    call(fake, "ADD", "c1").ok()
    told = call(fake, "ADD", "c1").error(errors.ALREADY_ATTACHED)
    assert "container c1 has 2001:db8:1::2, 10.1.0.2 already" in told and "run DEL" in told
    assert len(fake.attachments()) == 1


def test_a_record_without_addresses_is_in_nobodys_way() -> None:
    """What the reference plugin's DEL leaves behind: it frees the leases, and knows no records."""
    fake = FakeContext()
    with fake.leases().transaction() as leases:
        leases.put(Attachment(OWNER, ()))
    assert ips(call(fake, "ADD", "c1")) == ["2001:db8:1::2/64", "10.1.0.2/30"]
    assert len(fake.attachments()) == 1


def test_requested_addresses() -> None:
    fake = FakeContext()
    wanted = CONFIG | {"args": {"cni": {"ips": ["10.2.0.2", "2001:db8:1::77"]}}}
    assert ips(call(fake, "ADD", "c1", wanted)) == ["2001:db8:1::77/64", "10.2.0.2/30"]
    told = call(fake, "ADD", "c2", wanted).error(errors.ADDRESS_UNAVAILABLE)
    assert "2001:db8:1::77 is taken: held by c1 eth0" in told
    assert [each.owner.container_id for each in fake.attachments()] == ["c1"]


def test_one_requested_address_and_one_in_turn() -> None:
    assert ips(call(FakeContext(), "ADD", "c1", CNI_ARGS="IP=10.2.0.2")) == ["2001:db8:1::2/64", "10.2.0.2/30"]


def test_a_namespace_that_is_not_there() -> None:
    fake = FakeContext()
    answer = fake.call("ADD", "c1", CONFIG, type="cni-v6-ipam")
    assert "/run/netns/c1" in answer.error(errors.UNKNOWN_CONTAINER)
    assert fake.attachments() == []


def test_resolv_conf() -> None:
    config = with_ipam(resolvConf="/etc/resolv.pods")
    fake = FakeContext(files={"/etc/resolv.pods": "nameserver 2001:db8::53\nsearch example.org\n"})
    assert call(fake, "ADD", "c1", config).ok()["dns"] == {"nameservers": ["2001:db8::53"], "search": ["example.org"]}


@pytest.mark.parametrize(
    "failure", [FileNotFoundError(2, "No such file or directory"), "search \udcff\n"]
)
def test_resolv_conf_that_cannot_be_read(failure: Exception | str) -> None:
    fake = FakeContext(files={"/etc/resolv.pods": failure})
    told = call(fake, "ADD", "c1", with_ipam(resolvConf="/etc/resolv.pods")).error(errors.IO_FAILURE)
    assert "ipam.resolvConf /etc/resolv.pods" in told
    assert fake.attachments() == []


def test_a_folder_of_its_own() -> None:
    fake = FakeContext()
    config = with_ipam(dataDir="/srv/leases")
    call(fake, "ADD", "c1", config).ok()
    assert len(fake.attachments("pods", "/srv/leases")) == 1
    call(fake, "DEL", "c1", config).ok()
    assert set(fake.stores) == {("pods", "/srv/leases")}
    assert fake.attachments("pods", "/srv/leases") == []


def test_no_ipam() -> None:
    answer = call(FakeContext(), "ADD", "c1", CONFIG | {"ipam": {}})
    assert "ipam.type is missing" in answer.error(errors.INVALID_CONFIG)


# DEL


def test_del() -> None:
    fake = FakeContext()
    call(fake, "ADD", "c1").ok()
    for _ in range(2):
        assert call(fake, "DEL", "c1", CNI_NETNS="").ok() is None
    assert fake.attachments() == []


def test_del_with_a_configuration_that_has_gone_bad() -> None:
    fake = FakeContext()
    call(fake, "ADD", "c1").ok()
    call(fake, "DEL", "c1", with_ipam(ranges=[[{"subnet": "nonsense"}]])).ok()
    assert fake.attachments() == []


# CHECK


def test_check() -> None:
    fake = FakeContext()
    result = call(fake, "ADD", "c1").ok()
    assert call(fake, "CHECK", "c1", CONFIG | {"prevResult": result}).ok() is None
    assert call(fake, "CHECK", "c1").ok() is None


def test_check_of_what_is_not_leased() -> None:
    fake = FakeContext()
    result = call(fake, "ADD", "c1").ok()
    call(fake, "DEL", "c1").ok()
    told = call(fake, "CHECK", "c1", CONFIG | {"prevResult": result}).error(errors.CHECK_FAILED)
    assert "no address leased from set 0; no address leased from set 1" in told
    assert "2001:db8:1::2 is not leased to c1/eth0; 10.1.0.2 is not leased to c1/eth0" in told


def test_check_leaves_other_plugins_addresses_alone() -> None:
    fake = FakeContext()
    result = call(fake, "ADD", "c1").ok()
    result["ips"].append({"address": "192.0.2.7/24"})
    call(fake, "CHECK", "c1", CONFIG | {"prevResult": result}).ok()


# GC


def test_gc() -> None:
    fake = FakeContext()
    large = with_ipam(ranges=[[{"subnet": "2001:db8:1::/64"}], [{"subnet": "10.1.0.0/24"}]])
    for container_id in ("c1", "c2"):
        call(fake, "ADD", container_id, large).ok()
    fake.now += 1
    call(fake, "ADD", "c3", large).ok()
    answer = call(fake, "GC", config=gc("c2", config=CONFIG))
    answer.ok()
    assert [each.owner.container_id for each in fake.attachments()] == ["c2", "c3"]
    assert "freed 2001:db8:1::2, 10.1.0.2 of c1/eth0" in answer.stderr


def test_gc_without_a_list_frees_nothing() -> None:
    fake = FakeContext()
    call(fake, "ADD", "c1").ok()
    fake.now += 1
    assert "nothing freed" in call(fake, "GC").stderr
    assert len(fake.attachments()) == 1


def test_gc_of_leases_that_name_no_interface(tmp_path: Path) -> None:
    """The reference plugin wrote them before its 0.8.0: their container decides."""
    folder = tmp_path / "pods"
    folder.mkdir()
    for address, container_id in (("10.1.0.2", "kept"), ("10.1.0.3", "gone")):
        (folder / address).write_text(container_id)
    asked = Invocation("cni-v6-ipam", "GC", "1.1.0", "pods", CONFIG, valid=frozenset({"kept:eth0"}))
    with DiskLeases("pods", str(tmp_path), boot=BOOT).transaction() as leases:
        found = unlisted.records_of(asked, leases, LATER, FakeContext().context())
        assert [attachment.owner.container_id for attachment in found.stale] == ["gone"]


# STATUS


def test_status() -> None:
    fake = FakeContext()
    assert call(fake, "STATUS").ok() is None
    for container_id in ("c1", "c2"):
        call(fake, "ADD", container_id).ok()
    told = call(fake, "STATUS").error(errors.NOT_AVAILABLE)
    assert told.count("ipam.ranges[1] of pods is exhausted: no free address in 10.1.0.0/30") == 1 and "2 taken" in told


def test_status_counts_no_large_set() -> None:
    """Walking the folder of a /64 would tell nothing."""
    conf = ipam_conf(range_set("2001:db8:1::/64"))
    fake = FakeContext()
    for container_id in ("c1", "c2"):
        call(fake, "ADD", container_id).ok()
    allocate.check_capacity(conf, fake.leases())


# In-process


def test_allocation_is_all_or_none() -> None:
    """The second set's failure comes after the first set's choice."""
    fake = FakeContext()
    taken = Attachment(Owner("pods", "c0", "eth0"), ("10.1.0.2",))
    with fake.leases().transaction() as leases:
        leases.put(taken)
    conf = ipam_conf(range_set("2001:db8:1::/64"), range_set("10.1.0.0/30"), requested=("10.1.0.2",))
    with pytest.raises(CniError, match="10.1.0.2 is taken"):
        allocate.allocate(conf, Attachment(sample_values.OWNER, ()), fake.context(), Log())
    assert fake.attachments() == [taken]


def test_default_folder() -> None:
    fake = FakeContext()
    call(fake, "ADD", "c1").ok()
    assert set(fake.stores) == {("pods", DATA_DIR)}


# A family that is not required


def exhausted(fake: FakeContext) -> None:
    """All of the IPv4 set is somebody's."""
    for container_id in ("c1", "c2"):
        call(fake, "ADD", container_id).ok()


def test_without_the_family_that_is_exhausted() -> None:
    fake = FakeContext()
    exhausted(fake)
    config = with_ipam(required=["ipv6"], routes=[{"dst": "::/0"}, {"dst": "0.0.0.0/0"}])
    answer = call(fake, "ADD", "c3", config)
    assert ips(answer) == ["2001:db8:1::4/64"] and answer.stdout["routes"] == [{"dst": "::/0"}]
    assert "warning: attached without IPv4 (its addresses, routes and published ports), which ipam." in answer.stderr
    assert "2 in all, 2 taken" in answer.stderr
    assert fake.attachments()[-1].addresses == ("2001:db8:1::4",)
    assert call(fake, "CHECK", "c3", config | {"prevResult": answer.stdout}).ok() is None
    assert call(fake, "CHECK", "c3", config).ok() is None
    assert call(fake, "STATUS", config=config).ok() is None
    call(fake, "DEL", "c3", config).ok()
    assert len(fake.attachments()) == 2


def test_the_required_family_must_be_there() -> None:
    fake = FakeContext()
    exhausted(fake)
    config = with_ipam(required=["ipv4"])
    assert "2 in all, 2 taken" in call(fake, "ADD", "c3", config).error(errors.ADDRESSES_EXHAUSTED)
    assert "is exhausted" in call(fake, "STATUS", config=config).error(errors.NOT_AVAILABLE)


def test_a_family_is_left_out_as_a_whole() -> None:
    """Of its two sets one has room; nobody wants half a family."""
    fake = FakeContext()
    config = with_ipam(
        ranges=[[{"subnet": "10.3.0.0/24"}], [{"subnet": "10.1.0.0/30"}], [{"subnet": "2001:db8:1::/64"}]],
        required=["ipv6"],
    )
    assert len(ips(call(fake, "ADD", "c1", config))) == 3
    answer = call(fake, "ADD", "c2", config)
    assert ips(answer) == ["2001:db8:1::3/64"]
    assert call(fake, "CHECK", "c2", config | {"prevResult": answer.stdout}).ok() is None


def test_check_of_a_family_that_is_there_in_part() -> None:
    """What the result names must be held, and of a family either all or nothing."""
    fake = FakeContext()
    config = with_ipam(required=["ipv6"])
    result = call(fake, "ADD", "c1", config).ok()
    with fake.leases().transaction() as leases:
        leases.drop(OWNER)
        leases.put(Attachment(OWNER, ("2001:db8:1::2",)))
    told = call(fake, "CHECK", "c1", config | {"prevResult": result}).error(errors.CHECK_FAILED)
    assert told.startswith("leases of pods: 10.1.0.2 is not leased to c1/eth0:")
    two = with_ipam(ranges=[*CONFIG["ipam"]["ranges"], [{"subnet": "10.3.0.0/24"}]], required=["ipv6"])
    with fake.leases().transaction() as leases:
        leases.drop(OWNER)
        leases.put(Attachment(OWNER, ("2001:db8:1::2", "10.1.0.2")))
    assert "no address leased from set 2" in call(fake, "CHECK", "c1", two).error(errors.CHECK_FAILED)


def test_a_kernel_without_ipv6() -> None:
    fake = FakeContext()
    path = fake.container("c1")
    del fake.kernel.spaces[path].sysctls["ipv6/conf/lo/disable_ipv6"]
    answer = call(fake, "ADD", "c1", with_ipam(required=["ipv4"]))
    assert ips(answer) == ["10.1.0.2/30"] and "routes" not in answer.stdout
    assert "which ipam.required does not name: the kernel has no IPv6" in answer.stderr
    call(fake, "DEL", "c1").ok()
    assert len(ips(call(fake, "ADD", "c1"))) == 2, "what is required is the main plugin's to find out"


# Reservations


def test_what_is_reserved_is_its_workloads() -> None:
    fake = FakeContext()
    config = with_ipam(reserve={"shop/db": ["2001:db8:1::2", "10.2.0.2"]})
    assert ips(call(fake, "ADD", "c1", config)) == ["2001:db8:1::3/64", "10.1.0.2/30"]
    told = call(fake, "ADD", "c2", config, CNI_ARGS="IP=10.2.0.2").error(errors.ADDRESS_UNAVAILABLE)
    assert '10.2.0.2 is reserved: ipam.reserve["shop/db"]' in told and 'this workload is "c2"' in told
    told = call(fake, "ADD", "c2", config).error(errors.ADDRESSES_EXHAUSTED)
    assert "less what is excluded or reserved: 1 in all, 1 taken" in told
    pod = {"CNI_ARGS": "K8S_POD_NAMESPACE=shop;K8S_POD_NAME=db"}
    answer = call(fake, "ADD", "c2", config, **pod)
    assert ips(answer) == ["2001:db8:1::2/64", "10.2.0.2/30"]
    told = call(fake, "ADD", "c3", config, **pod).error(errors.ADDRESS_UNAVAILABLE)
    assert "2001:db8:1::2 is taken: held by c2 eth0" in told
    edited = with_ipam(reserve={"shop/web": ["2001:db8:1::2", "10.2.0.2"]})
    assert call(fake, "CHECK", "c2", edited | {"prevResult": answer.stdout}, **pod).ok() is None
    call(fake, "DEL", "c2", edited).ok()
    assert [each.owner.container_id for each in fake.attachments()] == ["c1"]


# How addresses are handed out


SECRET = "correct horse battery"


def stable(**keys: Any) -> dict[str, Any]:
    return with_ipam(ranges=[[{"subnet": "2001:db8:1::/64"}]], allocation="stable", **keys)


def test_a_workload_has_its_address_again_wherever_the_secret_is_the_same() -> None:
    found = []
    for secret in (SECRET, f"{SECRET}\n", SECRET[::-1]):
        fake = FakeContext(files={"/etc/secret": secret})
        pod = {"CNI_ARGS": "K8S_POD_NAMESPACE=shop;K8S_POD_NAME=db"}
        first = ips(call(fake, "ADD", "c1", stable(secretFile="/etc/secret"), **pod))
        [record] = fake.attachments()
        assert (record.identity, record.reuse) == ("shop/db eth0", (PROBED,))
        call(fake, "DEL", "c1").ok()
        assert ips(call(fake, "ADD", "c2", stable(secretFile="/etc/secret"), **pod)) == first
        assert ips(call(fake, "ADD", "c3", stable(secretFile="/etc/secret"))) != first
        found.append(first)
    assert found[0] == found[1] != found[2]


def test_without_a_secret_file_the_network_has_one_of_its_own() -> None:
    one, other = FakeContext(), FakeContext()
    assert ips(call(one, "ADD", "c1", stable())) != ips(call(other, "ADD", "c1", stable()))


@pytest.mark.parametrize(("content", "says"), [
    ("hunter2", "/etc/secret has 7 bytes, fewer than 16"), (" \n" * 20, "has 0 bytes"),
    (PermissionError(13, "Permission denied"), "cannot read ipam.secretFile /etc/secret: [Errno 13] Permission denied"),
    ("hunter2hunter2hunter2\udcf3", "it is not UTF-8"),
])
def test_a_secret_that_is_none_is_refused_and_not_shown(content: str | Exception, says: str) -> None:
    fake = FakeContext(files={"/etc/secret": content})
    answer = call(fake, "ADD", "c1", stable(secretFile="/etc/secret"))
    assert says in answer.error(errors.IO_FAILURE)
    assert not any(word in f"{answer.stdout}{answer.stderr}" for word in ("hunter2", "f3"))
    assert fake.attachments() == []


def test_that_a_released_address_had_no_rest_is_said() -> None:
    fake = FakeContext()
    exhausted(fake)
    call(fake, "DEL", "c1").ok()
    answer = call(fake, "ADD", "c3")
    assert ips(answer)[1] == "10.1.0.2/30"
    assert "warning: " in answer.stderr and "10.1.0.2" in answer.stderr
    call(fake, "DEL", "c3").ok()
    assert "10.1.0.2" not in call(fake, "ADD", "c4", with_ipam(reuseAfter="0s")).stderr


def test_status_of_a_set_whose_addresses_are_given_once() -> None:
    fake = FakeContext()
    exhausted(fake)
    call(fake, "DEL", "c1").ok()
    call(fake, "STATUS").ok()
    assert "rest spent" in call(fake, "STATUS", config=with_ipam(reuse="never")).error(errors.NOT_AVAILABLE)
