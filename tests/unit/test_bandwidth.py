"""Bandwidth: what a runtime asks for becomes token buckets; what is lost of them is seen and mended."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from cni_v6 import errors
from cni_v6.config.bridge import BridgeConf, parse_bridge
from cni_v6.config.main import Bandwidth
from cni_v6.errors import CniError
from cni_v6.kernel import awaits, ops
from cni_v6.kernel.facts import Link, Shaping, TokenBucket
from cni_v6.kernel.ops import HOST
from cni_v6.kernel.snapshot import Snapshot
from cni_v6.kernel.undo import inverse
from cni_v6.leases import records
from cni_v6.leases.attachment import Attachment
from cni_v6.plan import bandwidth, features
from cni_v6.protocol import names
from tests.unit.config_tables import call, config
from tests.unit.fake_context import CONFIG, FakeContext
from tests.unit.sample_values import OWNER, PORT, conf, kernel, look

IFB = names.ifb(OWNER)
BOTH = Bandwidth((8_000_000, 800_000), (4_000_000, 800_000))
RECEIVED, SENT = TokenBucket(1_000_000, 1_562_500, 125_000), TokenBucket(500_000, 3_125_000, 112_500)
ASKED = {"ingressRate": 8_000_000, "ingressBurst": 800_000, "egressRate": 4_000_000, "egressBurst": 800_000}
SHAPED = CONFIG | {"capabilities": {"bandwidth": True}, "runtimeConfig": {"bandwidth": ASKED}}


def asked(**keys: Any) -> BridgeConf:
    return parse_bridge(call(config(**keys)))


def test_who_asks() -> None:
    """The runtime has precedence, if it says anything."""
    slow = {"egressRate": 8000, "egressBurst": 80_000}
    assert asked().bandwidth is None and asked(bandwidth={}).bandwidth is None
    assert asked(bandwidth=slow).bandwidth == Bandwidth(egress=(8000, 80_000))
    assert asked(bandwidth=slow, runtimeConfig={"bandwidth": ASKED}).bandwidth == BOTH
    assert asked(bandwidth=slow, runtimeConfig={"bandwidth": {}}).bandwidth == Bandwidth(egress=(8000, 80_000))
    assert asked(bandwidth=slow, runtimeConfig={"bandwidth": {"ingressRate": 0}}).bandwidth is None


@pytest.mark.parametrize(("keys", "words"), [
    ({"ingressRate": 8}, "bandwidth.ingressBurst is missing beside the rate"),
    ({"egressBurst": 8}, "bandwidth.egressBurst: 8 has no rate beside it"),
    ({"egressRate": -1}, "bandwidth.egressRate: -1"),
])
def test_what_is_refused(keys: dict[str, int], words: str) -> None:
    with pytest.raises(CniError) as caught:
        asked(bandwidth=keys)
    assert caught.value.code == errors.INVALID_CONFIG and words in caught.value.msg


@pytest.mark.parametrize(("bits", "expected"), [
    ((0, 0), None),
    ((2**35, 2**35), None),  # more than the kernel's 32 bits say
    ((8_000_000, 800_000), RECEIVED),
    ((4_000_000, 800_000), SENT),
    ((8_000_000, 2**31 - 1), TokenBucket(1_000_000, 67_108_863, 25_000 + 131_072)),  # 4.29 seconds of it
    ((1, 1), TokenBucket(1, 0, 0)),
    ((2**35 - 8, 2**40), TokenBucket(2**32 - 1, 67_108_863, 107_374_182 + 131_072)),
])
def test_a_bucket(bits: tuple[int, int], expected: TokenBucket | None) -> None:
    assert bandwidth.bucket(bits) == expected


@pytest.mark.parametrize(("wanted", "bridge_mtu", "fits"), [
    (conf(bandwidth=Bandwidth(egress=(8_000_000, 8 * 1518))), 0, True),
    (conf(bandwidth=Bandwidth(egress=(8_000_000, 8 * 1500))), 0, False),
    (conf(bandwidth=Bandwidth(ingress=(8_000_000, 8 * 1518))), 9000, False),
    (conf(bandwidth=Bandwidth(ingress=(8_000_000, 8 * 1300)), mtu=1280), 0, True),
    (conf(bandwidth=Bandwidth(ingress=(800, 8 * 10_000))), 0, False),  # the kernel keeps 4.29 seconds of it
])
def test_a_burst_holds_a_packet(wanted: BridgeConf, bridge_mtu: int, fits: bool) -> None:
    fake = kernel()
    if bridge_mtu:
        fake.add_link(HOST, Link("cni0", "02:00:00:00:00:01", bridge_mtu, kind="bridge"))
    seen = look(fake, wanted)
    if fits:
        features.check(wanted, seen)
    else:
        with pytest.raises(CniError, match="lets no packet pass"):
            features.check(wanted, seen)


def test_the_operations_of_each_direction() -> None:
    seen = look(kernel(), conf())
    both = list(bandwidth.steps(OWNER, PORT, BOTH, seen))
    assert both == [
        ops.SetBucket(PORT, RECEIVED), ops.CreateIfb(IFB), ops.SetAlias(HOST, IFB, f"cni-v6-ifb {OWNER}"),
        ops.SetSysctl(HOST, f"ipv6/conf/{IFB}/disable_ipv6", "1"), ops.SetBucket(IFB, SENT), ops.HookIngress(PORT),
        ops.Redirect(PORT, IFB),
    ]
    assert list(bandwidth.steps(OWNER, PORT, replace(BOTH, egress=(0, 0)), seen)) == both[:1]
    assert list(bandwidth.steps(OWNER, PORT, replace(BOTH, ingress=(0, 0)), seen)) == both[1:]
    assert inverse(ops.CreateIfb(IFB)) == ops.DeleteLink(HOST, IFB)
    assert names.owner_of_alias(names.ifb_alias(OWNER)) is None


def test_a_record_says_it() -> None:
    record = Attachment(OWNER, (), PORT, bandwidth=BOTH)
    name = records.record_name(OWNER.container_id, OWNER.ifname)
    assert records.decode(OWNER.network, name, records.encode(record)) == record
    for damage in (b"[8000000, 800000, 4000000]", b"[1, 2, 3, -4]", b"[1, 2, 3, true]", b'[1, 2, 3, "4"]'):
        content = records.encode(record).replace(b"[8000000, 800000, 4000000, 800000]", damage)
        assert damage in content and records.decode(OWNER.network, name, content) is None


def test_a_container_comes_and_goes() -> None:
    fake = FakeContext()
    fake.add("first")
    fake.call("DEL", "first").ok()
    before = fake.state()
    result = fake.add("c1", SHAPED)
    shaping = fake.kernel.shaping
    assert shaping == {PORT: Shaping(RECEIVED, IFB), IFB: Shaping(SENT)}
    checked = SHAPED | {"prevResult": result}
    fake.call("CHECK", "c1", checked).ok()
    del shaping[PORT]
    words = fake.call("CHECK", "c1", checked).error(errors.CHECK_FAILED)
    assert "receives as fast as it can" in words and "sends as fast as it can" in words
    fake.call("DEL", "c1").ok()
    fake.kernel.remove_netns("/run/netns/c1")
    assert fake.state() == before and not shaping


def test_a_failed_add_leaves_nothing() -> None:
    fake = FakeContext()
    fake.add("first")
    fake.container("c1")
    before = fake.state()
    refused = CniError(errors.KERNEL_REFUSED, "cannot do it", "Operation not permitted")
    for kind in (ops.CreateIfb, ops.SetBucket, ops.HookIngress, ops.Redirect, awaits.AwaitPort):
        fake.kernel.fail = lambda op, kind=kind: refused if isinstance(op, kind) else None  # type: ignore[misc]
        fake.call("ADD", "c1", SHAPED).error(errors.KERNEL_REFUSED)
        assert fake.state() == before and not fake.kernel.shaping, kind


def test_gc_takes_it_away() -> None:
    fake = FakeContext()
    fake.add("c1", SHAPED)
    fake.now += 10
    fake.call("GC", config=CONFIG | {"cni.dev/valid-attachments": []}).ok()
    assert not fake.kernel.shaping and IFB not in fake.kernel.spaces[HOST].links


@pytest.mark.parametrize(("shaping", "link", "words"), [
    ({PORT: Shaping(RECEIVED, IFB), IFB: Shaping(SENT)}, True, ""),
    ({PORT: Shaping(SENT, IFB), IFB: Shaping(SENT)}, True, "has no queue of 1000000 bytes"),
    ({PORT: Shaping(RECEIVED), IFB: Shaping(SENT)}, True, f"does not pass {IFB}"),
    ({PORT: Shaping(RECEIVED, IFB)}, True, f"{IFB} has no queue of 500000 bytes"),
    ({PORT: Shaping(RECEIVED, IFB), IFB: Shaping(SENT)}, False, f"{IFB} is down"),
    ({PORT: Shaping(RECEIVED, IFB)}, None, f"{IFB} is missing"),
])
def test_differences(shaping: dict[str, Shaping], link: bool | None, words: str) -> None:
    fake, record = kernel(), Attachment(OWNER, (), PORT, bandwidth=BOTH)
    fake.add_link(HOST, Link(PORT, "02:00:00:00:00:01", 1500, up=True))
    if link is not None:
        fake.add_link(HOST, Link(IFB, "02:00:00:00:00:02", 1500, kind="ifb", up=link))
    fake.shaping.update(shaping)
    seen = look(fake, conf()).with_answers(fake.observe(features.check_questions(conf(), record)))
    found = list(bandwidth.differences(conf(), record, seen))
    assert (words in found[0] and len(found) == 1) if words else not found
    for steps in features.mending(conf(), record, seen):
        fake.apply(steps)
    seen = seen.with_answers(fake.observe(features.check_questions(conf(), record)))
    assert not features.differences(conf(), record, seen)


def test_who_is_not_shaped() -> None:
    record = Attachment(OWNER, (), PORT)
    assert not list(bandwidth.differences(conf(bandwidth=BOTH), record, Snapshot({})))
    one = replace(record, bandwidth=replace(BOTH, egress=(0, 0)))
    fake = kernel()
    fake.shaping[PORT] = Shaping(RECEIVED)
    assert not features.differences(conf(), one, fake.observe(features.check_questions(conf(), one)))
