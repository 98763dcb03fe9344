"""What STATUS finds that running containers have lost, and that its commands are those of an ADD."""

from __future__ import annotations

from dataclasses import replace

import pytest

from cni_v6.config.bridge import BridgeConf
from cni_v6.errors import LIMITED, NODE_CONFLICT, NOT_AVAILABLE, CniError
from cni_v6.kernel import ops
from cni_v6.kernel.facts import DROPS_ALL, DROPS_REST, ForwardChain, RouteEntry
from cni_v6.kernel.fake.kernel import FakeKernel
from cni_v6.kernel.ops import HOST
from cni_v6.leases.attachment import Attachment, GatewayAddress, ProxyEntry
from cni_v6.plan import bridge, bridge_port, features, gateways, outage, status as status_of
from cni_v6.plan.site import Allocation
from tests.unit.fake_context import CONFIG, FakeContext
from tests.unit.sample_values import (
    BEHIND_LINK_LOCAL,
    IPV4,
    IPV6,
    NODE,
    PORT,
    SITE,
    allocation,
    conf,
    ipam_conf,
    kernel,
    look,
    range_set,
)

DUAL = allocation(IPV6, IPV4)
SETS = ipam_conf(range_set("2001:db8:1::/64"), range_set("10.1.0.0/16"))
GATEWAY = conf(is_gateway=True, is_default_gateway=True, ipam=SETS)
RECORD = Attachment(SITE.owner, ("2001:db8:1::2", "10.1.0.2"), host=PORT, anchors=gateways.anchors(GATEWAY, DUAL.ips))
CHAIN = ForwardChain("ip", "filter", "FORWARD", DROPS_ALL)


def attached(wanted: BridgeConf = GATEWAY, given: Allocation = DUAL, fake: FakeKernel | None = None) -> FakeKernel:
    """A node after an ADD."""
    fake = fake or kernel()
    fake.apply(bridge.plan_add(SITE, wanted, given, look(fake, wanted)).ops)
    return fake


def status(fake: FakeKernel, wanted: BridgeConf = GATEWAY, *records: Attachment) -> list[str]:
    seen = fake.observe(status_of.questions(wanted, NODE, records))
    seen = seen.with_answers(fake.observe(outage.more_questions(wanted, seen)))
    return status_of.check(wanted, NODE, records, seen)


def lost(fake: FakeKernel, wanted: BridgeConf = GATEWAY, *records: Attachment, code: int = LIMITED) -> tuple[str, str]:
    with pytest.raises(CniError) as caught:
        status(fake, wanted, *records or (RECORD,))
    assert caught.value.code == code, caught.value
    return caught.value.msg, caught.value.details


def unset(fake: FakeKernel, key: str, value: str = "0") -> None:
    fake.spaces[HOST].sysctls[key] = value


def change_link(fake: FakeKernel, name: str, *, up: bool = True, mtu: int = 1500) -> None:
    links = fake.spaces[HOST].links
    links[name] = replace(links[name], up=up, mtu=mtu)


def test_all_that_is_lost_is_one_message_with_one_remedy() -> None:
    fake = attached()
    change_link(fake, "cni0", up=False)
    fake.spaces[HOST].addresses["cni0"].remove("2001:db8:1::1/64")
    unset(fake, "ipv4/ip_forward")
    assert lost(fake) == (
        "bridge cni0 is down; gateway address 2001:db8:1::1/64 is missing on cni0; "
        "IPv4 forwarding is off on this node",
        "run: ip link set cni0 up; ip address replace 2001:db8:1::1/64 dev cni0 nodad; "
        "sysctl -w net/ipv4/ip_forward=1",
    )


def test_a_bridge_that_hands_its_frames_to_no_rules() -> None:
    wanted = replace(GATEWAY, netfilter=True)
    fake = attached(wanted)
    unset(fake, bridge_port.FRAMES[4])
    assert status(fake, wanted, RECORD) == []
    fake.apply([ops.SetBridge("cni0", netfilter=frozenset())])
    assert lost(fake, wanted) == (
        "the frames of bridge cni0 do not pass the node's rules (netfilter)",
        "run: ip link set cni0 type bridge nf_call_iptables 1 nf_call_ip6tables 1",
    )


def test_a_kernel_without_br_netfilter() -> None:
    """STATUS says so before there is a container, an ADD warns."""
    wanted = replace(GATEWAY, netfilter=True)
    fake = attached(wanted)
    with pytest.raises(CniError, match="br_netfilter is not loaded") as caught:
        status(fake, wanted)
    assert caught.value.code == LIMITED and caught.value.details.startswith("run modprobe br_netfilter")
    [warning] = features.warnings(wanted, DUAL, look(fake, wanted))
    assert "br_netfilter is not loaded" in warning and "run modprobe br_netfilter" in warning
    assert not list(features.warnings(GATEWAY, DUAL, look(fake, GATEWAY)))


def test_without_containers_nobody_has_lost_anything() -> None:
    fake = attached()
    change_link(fake, "cni0", up=False)
    assert status(fake) == []


def test_forwarding_on_the_bridge_and_on_an_uplink() -> None:
    """A kernel that has ``force_forwarding``: answers come in by the uplink."""
    fake = FakeKernel()
    fake.add_netns(SITE.netns)
    fake.add_link(HOST, replace(attached().spaces[HOST].links["cni0"], name="eth0", kind=""))
    fake.spaces[HOST].routes["eth0"] = [RouteEntry("::/0", "fe80::1")]
    attached(fake=fake)
    assert status(fake, GATEWAY, RECORD) == []
    unset(fake, "ipv6/conf/eth0/force_forwarding")
    assert lost(fake) == (
        "IPv6 forwarding is off on eth0", "run: sysctl -w net/ipv6/conf/eth0/force_forwarding=1"
    )
    unset(fake, "ipv6/conf/cni0/force_forwarding")
    what, remedy = lost(fake)
    assert what == "IPv6 forwarding is off on cni0"
    assert all(f"net/ipv6/conf/{name}/force_forwarding=1" in remedy for name in ("cni0", "eth0"))


def test_ipv6_that_is_off_on_the_bridge() -> None:
    fake = attached()
    unset(fake, "ipv6/conf/cni0/disable_ipv6", "1")
    assert lost(fake) == ("IPv6 is off on cni0", "run: sysctl -w net/ipv6/conf/cni0/disable_ipv6=0")


def test_a_gateway_in_a_vlan() -> None:
    wanted = replace(GATEWAY, vlan=5)
    record = replace(RECORD, anchors=gateways.anchors(wanted, DUAL.ips))
    fake = attached(wanted)
    assert status(fake, wanted, record) == []
    change_link(fake, "cni0.5", up=False)
    assert lost(fake, wanted, record) == ("gateway interface cni0.5 is down", "run: ip link set cni0.5 up")
    unset(fake, "ipv4/ip_forward", "1")
    fake.remove([ops.DeleteLink(HOST, "cni0.5")])
    what, _ = lost(fake, wanted, record)
    assert what.startswith("gateway interface cni0.5 is missing: the next ADD makes it")


def test_a_link_local_gateway() -> None:
    """It is in no record's anchors, since networks share it."""
    wanted = replace(GATEWAY, ipam=ipam_conf(range_set("2001:db8:1::/64", gateway="fe80::1")))
    anchors = gateways.anchors(wanted, [BEHIND_LINK_LOCAL])
    record = replace(RECORD, addresses=("2001:db8:1::2",), anchors=anchors)
    fake = attached(wanted, allocation(BEHIND_LINK_LOCAL))
    assert status(fake, wanted, record) == []
    fake.spaces[HOST].addresses["cni0"].clear()
    fake.spaces[HOST].routes["cni0"].clear()
    assert lost(fake, wanted, record) == (
        "gateway address fe80::1/64 is missing on cni0; route 2001:db8:1::/64 through cni0 is missing",
        "run: ip address replace fe80::1/64 dev cni0 nodad; ip route replace 2001:db8:1::/64 dev cni0",
    )


def test_an_attachment_of_the_reference_plugin_and_an_earlier_gateway() -> None:
    fake = attached()
    theirs = Attachment(SITE.owner, ("10.1.0.2", "192.0.2.9"))
    earlier = replace(RECORD, anchors=(GatewayAddress("cni0", "10.9.0.1/24"),))
    fake.spaces[HOST].addresses["cni0"].remove("10.1.0.1/16")
    assert lost(fake, GATEWAY, theirs)[0] == "gateway address 10.1.0.1/16 is missing on cni0"
    assert lost(fake, GATEWAY, earlier)[0] == "gateway address 10.9.0.1/24 is missing on cni0"


def test_routes_to_containers_and_proxy_entries() -> None:
    wanted = replace(GATEWAY, ndp_proxy="eth0")
    fake = FakeKernel()
    fake.add_netns(SITE.netns)
    fake.add_link(HOST, replace(attached().spaces[HOST].links["cni0"], name="eth0", kind=""))
    attached(wanted, fake=fake)
    entry = ProxyEntry("eth0", "cni0", "2001:db8:1::2")
    record = replace(RECORD, proxied=(entry,), prefixes=("2001:db8:1:0:5::/80",))
    fake.apply([ops.AddRoute(HOST, "cni0", "2001:db8:1:0:5::/80", "2001:db8:1::2")])
    assert status(fake, wanted, record) == []
    fake.spaces[HOST].routes["cni0"].clear()
    assert "proxy_ndp" not in "".join(lost(fake, wanted, record))
    unset(fake, "ipv6/conf/all/proxy_ndp")
    what, remedy = lost(fake, wanted, record)
    assert what == (
        "the node answers for nobody on eth0: its forwarding or proxy_ndp is off; "
        "route 2001:db8:1::2/128 through cni0 is missing; "
        "route 2001:db8:1:0:5::/80 through cni0 is missing"
    )
    for command in (
        "sysctl -w net/ipv6/conf/all/proxy_ndp=1", "ip route replace 2001:db8:1::2/128 dev cni0",
        "ip route replace 2001:db8:1:0:5::/80 via 2001:db8:1::2 dev cni0",
    ):
        assert command in remedy
    assert "neighbour" not in remedy, "the entry is still there"


def test_the_next_hop_of_a_prefix_is_the_address_of_its_own_set() -> None:
    """Of a container that has an address of another set before it."""
    record = replace(
        RECORD, addresses=("2001:db8:2::2", "2001:db8:1::2"), prefixes=("2001:db8:1:0:5::/80",),
    )
    fake = attached()
    _, remedy = lost(fake, GATEWAY, record)
    assert "ip route replace 2001:db8:1:0:5::/80 via 2001:db8:1::2 dev cni0" in remedy


@pytest.mark.parametrize("gateway", [True, False])
def test_a_bridge_of_small_mtu(gateway: bool) -> None:
    wanted = replace(GATEWAY, is_gateway=gateway, is_default_gateway=gateway)
    fake = attached(wanted)
    change_link(fake, "cni0", mtu=1200)
    what, remedy = lost(fake, wanted, code=NOT_AVAILABLE)
    assert what == "bridge cni0 has an MTU of 1200, and IPv6 needs 1280 (RFC 8200, section 5)"
    assert remedy.startswith("run: ip link set cni0 mtu 1500; sysctl -w net/ipv6/conf/cni0/accept_ra=0")
    with pytest.raises(CniError) as refused:
        status(fake, wanted)
    assert (refused.value.code, refused.value.details) == (NODE_CONFLICT, "run ip link set cni0 mtu 1500")
    with pytest.raises(CniError, match="MTU of 1200"):
        bridge.plan_add(SITE, wanted, DUAL, look(fake, wanted))
    bridge.plan_add(SITE, wanted, allocation(IPV4), look(fake, wanted))


def test_a_layer_2_network_with_an_mtu_of_its_own_does_not_ask_the_bridges() -> None:
    wanted = replace(GATEWAY, is_gateway=False, is_default_gateway=False, mtu=1400)
    fake = attached(wanted)
    change_link(fake, "cni0", mtu=1200)
    assert status(fake, wanted, RECORD) == []


def test_an_administrators_bridge_of_small_mtu_keeps_its_settings() -> None:
    fake = attached()
    links = fake.spaces[HOST].links
    links["cni0"] = replace(links["cni0"], mtu=1200, mac="02:00:00:00:00:99")
    assert lost(fake, code=NOT_AVAILABLE)[1] == "run: ip link set cni0 mtu 1500"


@pytest.mark.parametrize(
    ("chain", "cut"),
    [
        (CHAIN, True),
        (replace(CHAIN, family="inet"), True),
        (replace(CHAIN, interfaces=frozenset({"docker0", "cni0"})), None),
        (replace(CHAIN, interfaces=frozenset({"cni*"})), None),
        (replace(CHAIN, interfaces=frozenset({"cni", "docker*"})), True),
        (replace(CHAIN, drops=DROPS_REST), False),
    ],
)
def test_forward_chains_of_others(chain: ForwardChain, cut: bool | None) -> None:
    fake = attached()
    fake.firewall.others = (chain,)
    accept = "; ".join(
        f"nft 'insert rule {chain.family} filter FORWARD {which} \"cni0\" accept'" for which in ("iifname", "oifname")
    )
    named = f"chain FORWARD of table {chain.family} filter, which is not of cni-v6, drops"
    if cut:
        assert lost(fake) == (f"{named} all that the node forwards", f"run: {accept}")
    found = status(fake, GATEWAY, *() if cut else (RECORD,))
    assert len(found) == (cut is not None) and all(each.startswith(named) and accept in each for each in found)
    assert status(fake, replace(GATEWAY, is_gateway=False, is_default_gateway=False), RECORD) == []


def test_a_forward_chain_of_another_family_is_nothing_to_us() -> None:
    fake = attached()
    fake.firewall.others = (replace(CHAIN, family="ip6"),)
    wanted = replace(GATEWAY, ipam=ipam_conf(range_set("10.1.0.0/16")))
    assert status(fake, wanted, replace(RECORD, anchors=gateways.anchors(wanted, [IPV4]))) == []


def test_a_proxy_entry_as_a_command() -> None:
    said = outage.command(ops.AddProxy("eth0", "2001:db8::2"))
    assert said == "ip neighbour replace proxy 2001:db8::2 dev eth0"


def test_no_other_operation_is_a_command() -> None:
    with pytest.raises(ValueError, match="Announce"):
        outage.command(ops.Announce(HOST, "eth0", "02:00:00:00:00:01"))


# The frame


def test_what_an_add_would_end_with_has_the_code_of_status() -> None:
    fake = FakeContext()
    config = CONFIG | {"ipam": CONFIG["ipam"] | {"resolvConf": "/etc/absent"}}
    fake.files["/etc/absent"] = FileNotFoundError(2, "No such file or directory")
    assert "/etc/absent" in fake.call("STATUS", config=config).error(NOT_AVAILABLE)
    assert "/etc/absent" in fake.call("STATUS", config=config, type="cni-v6-ipam").error(NOT_AVAILABLE)


def test_nft_that_cannot_load_the_rules() -> None:
    fake = FakeContext()
    fake.kernel.firewall.nft = "cannot run nft"
    assert "cannot run nft" in fake.call("STATUS").error(NOT_AVAILABLE)
    fake.kernel.firewall.nft = ""
    fake.add("c1")
    fake.kernel.firewall.nft = "there is no program nft"
    reply = fake.call("STATUS")
    assert reply.ok() is None and "warning: there is no program nft" in reply.stderr


def test_a_warning_about_others_is_logged() -> None:
    fake = FakeContext()
    fake.add("c1")
    fake.kernel.firewall.others = (replace(CHAIN, drops=DROPS_REST),)
    reply = fake.call("STATUS")
    assert reply.ok() is None and "warning: chain FORWARD of table ip filter" in reply.stderr
