"""A store that vanished under running containers is rebuilt from what the node has."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from cni_v6 import errors
from cni_v6.attachments import firewall_reload, recall
from cni_v6.errors import CniError
from cni_v6.firewall.elements import comment_of
from cni_v6.kernel.questions import GetAllElements, GetLinks
from cni_v6.leases.attachment import Attachment
from cni_v6.leases.memory import MemoryTransaction
from cni_v6.protocol.names import Owner
from tests.unit.fake_context import CONFIG, DATA_DIR, FOREIGN, LAYER_2, FakeContext, gc, plugin

OPEN: dict[str, Any] = CONFIG | {"ingress": "open", "guard": False}
PUBLISHING: dict[str, Any] = CONFIG | {
    "runtimeConfig": {"portMappings": [{"hostPort": 53, "containerPort": 53, "protocol": "udp"}]},
    "ipMasq": True, "egress": [{"to": "::/0", "ports": ["tcp/443"]}],
}

OTHER: dict[str, Any] = CONFIG | {"name": "others", "bridge": "cni1", "ipam": {
    "type": "cni-v6-ipam", "ranges": [[{"subnet": "2001:db8:7::/64"}]],
}}


def lose(fake: FakeContext, network: str = "pods") -> None:
    """As ``rm -rf`` of the network's folder."""
    del fake.stores[network, DATA_DIR]


def addresses(result: Any) -> list[str]:
    return [ip["address"].partition("/")[0] for ip in result["ips"]]


@pytest.mark.parametrize("config", [CONFIG, OPEN, PUBLISHING])
def test_no_address_is_given_again(config: dict[str, Any]) -> None:
    fake = FakeContext()
    later = {key: value for key, value in config.items() if key != "runtimeConfig"}
    results = {"c1": fake.add("c1", config), "c2": fake.add("c2", later)}
    before = {record.owner: record for record in fake.attachments()}
    elements = set(fake.kernel.firewall.elements())
    lose(fake)
    fake.container("c3")
    answer = fake.call("ADD", "c3", later)
    assert not set(addresses(answer.ok())) & {each for result in results.values() for each in addresses(result)}
    words = "the store had no record of 2 containers that this network has on the node"
    assert f"warning: {words}" in answer.stderr and "pods/c1/eth0 2001:db8:1::2 10.1.0.2" in answer.stderr
    for record in fake.attachments()[:2]:
        was = before[record.owner]
        policy = replace(was.policy, stale=record.policy.stale) if was.policy and record.policy else None
        assert record == replace(was, netns=(0, 0), policy=policy, port=None)  # it is found anew (``plan.repair``)
    for (name, result), own in zip(results.items(), (config, later)):
        fake.call("CHECK", name, own | {"prevResult": result}).ok()
        fake.call("DEL", name, own).ok()
    assert {record.owner.container_id for record in fake.attachments()} == {"c3"}
    assert not elements & set(fake.kernel.firewall.elements())


def test_tables_that_are_loaded_meanwhile_keep_what_is_known_of_it() -> None:
    """As by the engine, ``reload``, or the ADD that finds them changed, before it rebuilds the records."""
    fake = FakeContext()
    results = {"c1": fake.add("c1", PUBLISHING), "other": fake.add("other", OTHER)}
    before = set(fake.kernel.firewall.elements())
    lose(fake)
    assert firewall_reload.reload(fake.context()) == 1
    assert set(fake.kernel.firewall.elements()) == before
    fake.container("c3")
    fake.call("ADD", "c3", {key: value for key, value in PUBLISHING.items() if key != "runtimeConfig"}).ok()
    assert before < set(fake.kernel.firewall.elements())
    for name, config in (("c1", PUBLISHING), ("other", OTHER)):
        fake.call("CHECK", name, config | {"prevResult": results[name]}).ok()


def test_what_a_record_says_counts_for_more_than_what_is_left_of_a_lost_one() -> None:
    fake = FakeContext()
    fake.add("c1", PUBLISHING)
    [record] = fake.attachments()
    lose(fake)
    fake.add("other", OTHER)
    heir = replace(record, owner=Owner("others", "heir", "eth0"), host="vethheir")
    with fake.leases("others", DATA_DIR).transaction() as leases:
        leases.put(heir)
    firewall_reload.reload(fake.context())
    comments = {element.comment for element in fake.kernel.firewall.elements() if element.key[0] in record.addresses}
    assert comments == {"", comment_of(heir.owner)}


def test_tables_are_not_taken_away_under_it() -> None:
    fake = FakeContext()
    fake.add("c1", PUBLISHING)
    lose(fake)
    with pytest.raises(CniError, match="1 attachment counts on the firewall's tables, such as pods/c1/eth0"):
        firewall_reload.unload(fake.context(), force=False)
    fake.call("DEL", "c1", PUBLISHING).ok()
    assert firewall_reload.unload(fake.context(), force=False) == 0


def test_a_set_that_gives_no_address_twice_goes_on_behind_what_is_held() -> None:
    fake = FakeContext()
    for name in ("c1", "c2", "c3"):
        fake.add(name)
    fake.call("DEL", "c2").ok()
    lose(fake)
    assert addresses(fake.add("c4")) == ["2001:db8:1::6", "10.1.0.3"]
    assert addresses(fake.add("c5"))[0] == "2001:db8:1::7"


def test_the_node_is_asked_once() -> None:
    fake, asked = FakeContext(), list[Any]()
    observe = fake.kernel.observe

    def noting(questions: Any) -> Any:
        wanted = list(questions)
        asked.extend(each for each in wanted if each in (GetLinks(), GetAllElements()))
        return observe(wanted)

    fake.kernel.observe = noting  # type: ignore[method-assign]
    fake.add("c1")
    assert GetAllElements() not in asked, "on a new node there is nothing to read"
    asked.clear()
    fake.add("c2")
    fake.call("DEL", "c1").ok()
    fake.call("DEL", "c1").ok()
    assert asked == []


@pytest.mark.parametrize("config", [LAYER_2, FOREIGN])
def test_what_has_no_address_of_ours_is_recorded_too(config: dict[str, Any]) -> None:
    lease = {"address": "10.9.0.5/24", "gateway": "10.9.0.1"}
    fake = FakeContext(plugins={"dhcp": plugin(ADD={"cniVersion": "1.1.0", "ips": [lease]})})
    fake.add("c1", config)
    [before] = fake.attachments()
    lose(fake)
    lease["address"] = "10.9.0.6/24"
    fake.add("c2", config)
    record = fake.attachments()[0]
    assert (record.owner, record.host, record.addresses) == (before.owner, before.host, ())
    assert record.policy == before.policy


def test_a_container_that_goes_before_the_next_one_comes() -> None:
    """Its DEL finds no record: its elements go all the same, and nobody finds its port taken."""
    fake = FakeContext()
    fake.add("c1", PUBLISHING)
    lose(fake)
    fake.call("DEL", "c1").ok()
    assert fake.kernel.firewall.elements() == ()
    assert addresses(fake.add("c2", PUBLISHING))[1] == "10.1.0.2"


def test_an_address_of_another_holder_is_not_taken_from_it() -> None:
    fake = FakeContext()
    fake.add("c1")
    lose(fake)
    fake.container("c2")
    with fake.leases().transaction() as leases:
        leases.put(Attachment(Owner("pods", "other", "eth0"), ("10.1.0.2",)))
    answer = fake.call("ADD", "c2")
    answer.ok()
    assert "10.1.0.2 of pods/c1/eth0 is not in its record: other eth0 holds it" in answer.stderr
    with fake.leases().transaction() as leases:
        record = leases.get(Owner("pods", "c1", "eth0"))
    assert record and record.addresses == ("2001:db8:1::2",)
    fake.call("ADD", "c1").error(errors.ALREADY_ATTACHED)
    fake.call("DEL", "c1").ok()
    with fake.leases().transaction() as leases:
        assert leases.holder("10.1.0.2") == "other eth0"


def test_status_rebuilds_what_the_store_lacks() -> None:
    fake = FakeContext()
    fake.add("c1")
    fake.add("c2")
    before = {record.owner for record in fake.attachments()}
    fake.call("STATUS").ok()
    lose(fake)
    error = fake.call("STATUS").error(errors.LIMITED)
    assert "the store had no record of 2 containers" in error
    assert {record.owner for record in fake.attachments()} == before
    fake.call("STATUS").ok()


def test_status_beside_an_add_sees_nothing_lost() -> None:
    """The ADD writes its record, and plugs its interface in, after STATUS has read the records."""
    fake = FakeContext()
    fake.add("c1")
    observe, late = fake.kernel.observe, ["c2"]

    def adding(questions: Any) -> Any:
        wanted = list(questions)
        if GetLinks() in wanted and late:
            fake.add(late.pop())
        return observe(wanted)

    fake.kernel.observe = adding  # type: ignore[method-assign]
    answer = fake.call("STATUS")
    answer.ok()
    assert not late and "the store" not in answer.stderr


def test_without_a_lock_the_lost_ones_are_named() -> None:
    fake = FakeContext()
    assert recall.lost(fake.context()) == []
    fake.add("c1")
    fake.add("c2")
    records = {record.owner for record in fake.attachments()}
    assert recall.lost(fake.context()) == recall.lost(fake.context(), records) == []
    lose(fake)
    assert recall.lost(fake.context()) == sorted(records)
    assert recall.lost(fake.context(), unread=["pods"]) == recall.lost(fake.context(), unread=[""]) == []


def test_addresses_that_a_container_gave_itself_are_not_its_own() -> None:
    """Else one container could take the addresses of others, and of all to come."""
    fake = FakeContext()
    own, others = addresses(fake.add("c1")), addresses(fake.add("c2"))
    for address in (f"{others[1]}/16", "10.1.0.9/16"):
        fake.kernel.spaces["/run/netns/c1"].addresses["eth0"].append(address)
    lose(fake)
    fake.add("c3")
    held = {record.owner.container_id: [*record.addresses] for record in fake.attachments()}
    assert (held["c1"], held["c2"]) == (own, others)


def test_a_store_that_takes_no_record_fails_the_add() -> None:
    """Else the network would count as compared, and the container's addresses would be given again."""
    fake = FakeContext()
    held = addresses(fake.add("c1"))
    lose(fake)
    fake.container("c2")
    put, full = MemoryTransaction.put, CniError(errors.STORE_FAILED, "lease store: no space left on device")
    failures = [full]

    def fill(leases: MemoryTransaction, record: Attachment) -> None:
        if failures:
            raise failures.pop()
        put(leases, record)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(MemoryTransaction, "put", fill)
        fake.call("ADD", "c2").error(errors.STORE_FAILED)
    assert not {*held} & {*addresses(fake.call("ADD", "c2").ok())}


def test_one_that_cannot_be_recorded_keeps_no_other_from_it() -> None:
    fake = FakeContext()
    fake.add("c1")
    fake.add("c2")
    lose(fake)
    put = MemoryTransaction.put

    def refuse(leases: MemoryTransaction, record: Attachment) -> None:
        if record.owner.container_id == "c1":
            raise CniError(errors.ADDRESS_UNAVAILABLE, "no")
        put(leases, record)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(MemoryTransaction, "put", refuse)
        error = fake.call("STATUS").error(errors.LIMITED)
    assert "the record of pods/c1/eth0 cannot be rebuilt: no" in error
    assert "rebuilt from the node: pods/c2/eth0" in error
    assert [record.owner.container_id for record in fake.attachments()] == ["c2"]


def test_gc_frees_what_was_rebuilt() -> None:
    fake = FakeContext()
    fake.add("c1")
    lose(fake)
    fake.add("c2")
    fake.now += 1
    fake.call("GC", config=gc("c2")).ok()
    assert [record.owner.container_id for record in fake.attachments()] == ["c2"]
