"""The pools of a network, as doctor and the metrics see them."""

from __future__ import annotations

from dataclasses import replace

from cni_v6 import errors
from cni_v6.allocation.ranges import RangeSet
from cni_v6.attachments import load_config, pools
from cni_v6.attachments.context import Context
from cni_v6.config.ipam import IpamConf
from cni_v6.errors import CniError
from cni_v6.leases.memory import MemoryLeases
from tests.unit.config_tables import call
from tests.unit.fake_context import CONFIG, FakeContext


class Damaged(MemoryLeases):
    """Its allocator's state of IPv6 cannot be read."""

    def count(self, ranges: RangeSet) -> tuple[int, int]:
        if ranges.family == 6:
            raise CniError(errors.STORE_FAILED, "damaged")
        return super().count(ranges)


def conf_of(context: Context) -> IpamConf:
    conf = load_config.bridge(call(CONFIG), context).ipam
    assert isinstance(conf, IpamConf)
    return conf


def test_what_is_leased_and_what_waits() -> None:
    fake = FakeContext()
    for name in ("a", "b", "c"):
        fake.add(name)
    fake.call("DEL", "a")
    context = fake.context()
    large, small = pools.of(conf_of(context), fake.attachments(), context)
    assert (small.usage.size, small.usage.leased, small.waiting, small.usage.left) == (253, 2, 1, 251)
    assert (large.usage.leased, large.usage.spent, large.waiting) == (2, 3, 0)
    assert (small.network, small.addresses.split()[0]) == ("pods", "10.1.0.0/24")


def test_one_that_cannot_be_read_is_left_out() -> None:
    fake = FakeContext()
    store = Damaged("pods", entropy=bytes)
    context = replace(fake.context(), leases=lambda network, data_dir: store)
    [pool] = pools.of(conf_of(context), [], context)
    assert pool.addresses.startswith("10.1.0.0/24")
