"""Sysctls, promiscuous mode, all multicast and the queue of a container's interface, as the reference ``tuning``."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from cni_v6 import errors
from cni_v6.config.bridge import parse_bridge
from cni_v6.config.main import Tuning
from cni_v6.errors import CniError
from cni_v6.kernel import ops
from cni_v6.plan import features, tuning
from cni_v6.plan.site import Allocation
from tests.unit.config_tables import call, config
from tests.unit.fake_context import CONFIG, FakeContext
from tests.unit.sample_values import NETNS, SITE, conf, kernel

KEYS: dict[str, Any] = {
    "sysctl": {"net.core.somaxconn": "512", "net/ipv4/conf/IFNAME/arp_notify": "1"},
    "promisc": True, "allmulti": True, "txQLen": 500,
}
ALL = Tuning(tuple(KEYS["sysctl"].items()), True, True, 500)


def asked(**keys: Any) -> Tuning | None:
    return parse_bridge(call(config(**keys))).tuning


def test_what_is_asked_for() -> None:
    assert asked() is None and asked(sysctl={}, promisc=False, allmulti=False) is None
    assert asked(**KEYS) == ALL
    assert asked(txQLen=0) == Tuning(tx_queue=0)


@pytest.mark.parametrize(("key", "value", "words"), [
    ("kernel.shm_rmid_forced", "1", 'sysctl["kernel.shm_rmid_forced"] is no sysctl of the network'),
    ("net", "1", "is no sysctl of the network"),
    ("net.core", "1", "is no sysctl of the network"),
    ("net/ipv4/../../kernel/panic", "1", "is no sysctl of the network"),
    ("net..core", "1", "is no sysctl of the network"),
    ("net/ipv4/conf/./x", "1", "is no sysctl of the network"),
    ("net.ipv6.conf.IFNAME.accept_ra", "2", "is what cni-v6 sets itself"),
    ("net.core.somaxconn", ["1", "2"], "is no single value"),
])
def test_what_is_refused(key: str, value: object, words: str) -> None:
    with pytest.raises(CniError) as caught:
        asked(sysctl={key: value})
    assert caught.value.code == errors.INVALID_CONFIG and words in caught.value.msg


@pytest.mark.parametrize(("listed", "words"), [
    (FileNotFoundError(), ""),
    ("^net.core.*$\n\n ^net/ipv4/conf/ \n", ""),
    ("^net.core.somaxconn$\n", "sysctl: net/ipv4/conf/IFNAME/arp_notify is not in /etc/cni/tuning/allowlist.conf"),
    ("", "sysctl: net.core.somaxconn is not in"),
    ("(", "has no regular expression"),
    (PermissionError("Permission denied"), "cannot be read"),
])
def test_the_list_of_what_is_allowed(listed: str | Exception, words: str) -> None:
    fake = FakeContext(files={tuning.ALLOW_LIST: listed})
    fake.container("c1")
    fake.kernel.spaces[NETNS].sysctls |= {"core/somaxconn": "4096"}
    answer = fake.call("ADD", "c1", CONFIG | KEYS)
    if words:
        assert words in answer.error(errors.INVALID_CONFIG)
    else:
        answer.ok()


def test_the_list_is_not_read_for_nothing() -> None:
    FakeContext().add("c1", CONFIG | {"promisc": True})


def test_the_operations() -> None:
    wanted = conf(tuning=ALL)
    assert list(features.container_steps(SITE, wanted, Allocation(), kernel().observe([]))) == [
        ops.SetSysctl(NETNS, "core/somaxconn", "512"), ops.SetSysctl(NETNS, "ipv4/conf/eth0/arp_notify", "1"),
        ops.TuneLink(NETNS, "eth0", True, True, 500),
    ]
    alone = replace(wanted, tuning=Tuning(sysctls=(("net.core.somaxconn", "512"),)))
    assert list(features.container_steps(SITE, alone, Allocation(), kernel().observe([]))) == [
        ops.SetSysctl(NETNS, "core/somaxconn", "512")
    ]


def test_check_sees_what_differs() -> None:
    fake = FakeContext(files={tuning.ALLOW_LIST: FileNotFoundError()})
    fake.container("c1")
    space = fake.kernel.spaces[NETNS]
    space.sysctls["core/somaxconn"] = "4096"
    result = fake.call("ADD", "c1", CONFIG | KEYS).ok()
    checked = CONFIG | KEYS | {"prevResult": result}
    fake.call("CHECK", "c1", checked).ok()
    space.links["eth0"] = replace(space.links["eth0"], promisc=False, allmulti=False, tx_queue=1000)
    space.sysctls["core/somaxconn"] = "1"
    words = fake.call("CHECK", "c1", checked).error(errors.CHECK_FAILED)
    for phrase in (
        "container: net/core/somaxconn is 1, not 512", "interface eth0 is not promiscuous",
        "interface eth0 is not in all multicast groups", "interface eth0 has a queue of 1000 packets, not 500",
    ):
        assert phrase in words
    del space.links["eth0"], space.sysctls["core/somaxconn"]
    words = fake.call("CHECK", "c1", checked).error(errors.CHECK_FAILED)
    assert "interface eth0 is missing" in words and "net/core/somaxconn is None" in words
