"""What a configuration promises its containers, and what is said of what was seen of it.

``tests/netns/test_connectivity.py`` tries it on real networks.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from cni_v6.config.bridge import BridgeConf
from cni_v6.config.firewall import ON, FirewallConf
from cni_v6.config.ipam import IpamConf
from cni_v6.config.routed import RoutedConf
from cni_v6.firewall.policy import ISOLATED, OPEN, Allowed
from cni_v6.plan import promises
from cni_v6.plan.health.finding import AMBER, GREEN, RED
from cni_v6.plan.promises import Promise, Seen, Surroundings
from cni_v6.protocol.result import Address, Dns, Interface, Result, Route
from tests.unit.sample_values import conf, ipam_conf, range_set

MAC, OTHER_MAC = "02:00:00:00:00:01", "02:00:00:00:00:02"
GATEWAY = {4: "10.1.0.1", 6: "fd00::1"}
NODE, OUTSIDE = {4: "192.0.2.1", 6: "2001:db8::1"}, {4: "192.0.2.2", 6: "2001:db8::2"}
BEYOND, UPLINK = {4: "198.18.0.2", 6: "2001:2::2"}, {4: "198.18.0.1", 6: "2001:2::1"}
AROUND = Surroundings(NODE, OUTSIDE, BEYOND, UPLINK, 8080)
DEFAULTS = Route("::/0"), Route("0.0.0.0/0")
IPAM: IpamConf = ipam_conf(range_set("fd00::/64"), range_set("10.1.0.0/16"))
EVERYWHERE = (Allowed("::/0"), Allowed("0.0.0.0/0"))


def result(number: int, routes: tuple[Route, ...] = DEFAULTS, dns: Dns = Dns(), gateway: Any = GATEWAY) -> Result:
    ips = (Address(f"fd00::{number}/64", gateway.get(6), 1), Address(f"10.1.0.{number}/16", gateway.get(4), 1))
    inside = Interface("eth0", MAC if number == 2 else OTHER_MAC, sandbox="/run/netns/x")
    return Result((Interface("veth1", ""), inside), ips, routes, dns)


def bridge(firewall: FirewallConf = FirewallConf(), **changes: Any) -> BridgeConf:
    return conf(is_gateway=True, is_default_gateway=True, ipam=IPAM, firewall=firewall, **changes)


def routed(firewall: FirewallConf = FirewallConf()) -> RoutedConf:
    return RoutedConf(
        network="pods", is_gateway=True, mtu=0, ndp_proxy="", mac="", dns=None, ipam=IPAM, firewall=firewall,
        allow_overlap=False, bandwidth=None, tuning=None, host="veth1", ipv4_gateway="",
    )


def of(config: Any, around: Surroundings = AROUND, **changes: Any) -> Mapping[str, Promise]:
    """The promises by the names of their lines."""
    found = list(promises.promises(config, result(2, **changes), result(3, **changes), around))
    named = {promise.check: promise for promise in found}
    assert len(named) == len(found)
    return named


def refused(found: Mapping[str, Promise]) -> set[str]:
    """Of IPv6, what must not pass."""
    return {name.removeprefix("IPv6 ") for name, promise in found.items() if not promise.wanted and "IPv4" not in name}


SPOOFED = {"spoofed source", "spoofed MAC", "router advertisement"}


def test_of_a_bridge() -> None:
    found = of(bridge(), dns=Dns(("192.0.2.53",)))
    assert refused(found) == {"from outside", *SPOOFED}
    assert {name.partition(" ")[2] for name in found if name.startswith("IPv6")} == {
        "neighbour", "gateway", "node", "outside", "beyond the node", "from outside", "port from the node",
        "port from outside", "port from itself", "MTU", *SPOOFED,
    }
    assert found["IPv4 DNS"].target == "192.0.2.53" and found["IPv6 MTU"].target == GATEWAY[6]
    assert found["IPv6 beyond the node"].seen_as == "fd00::2" and found["IPv6 spoofed MAC"].target == "fd00::3"


def test_of_a_routed_network() -> None:
    found = of(routed(), gateway={6: "fe80::1"})
    assert "spoofed MAC" not in refused(found) and "IPv4 gateway" not in found
    assert found["IPv4 MTU"].target == "10.1.0.3" and found["IPv6 router advertisement"].target == "fd00::3"


def test_of_an_egress_list() -> None:
    firewall = FirewallConf(egress=(Allowed("192.0.2.0/24"), Allowed("2001:2::/64", "tcp", (1, 9))))
    found = of(bridge(firewall))
    assert refused(found) == {"gateway", "node", "outside", "from outside", *SPOOFED}
    assert not found["IPv4 beyond the node"].wanted and found["IPv4 outside"].wanted
    assert found["IPv6 MTU"].target == "fd00::3"
    nobody = of(routed(firewall))
    assert "neighbour" in refused(nobody) and "IPv6 MTU" not in nobody and "IPv6 spoofed source" not in nobody
    assert nobody["IPv6 router advertisement"].target == "fd00::2"
    everybody = of(routed(FirewallConf(egress=EVERYWHERE, ingress=ISOLATED)))
    assert everybody["IPv6 spoofed source"].target == BEYOND[6]  # its neighbours are closed to honest packets too
    assert promises.egress(bridge(firewall), "2001:2::7", "tcp", 9)
    assert not promises.egress(bridge(firewall), "2001:2::7", "tcp", 10)


def test_of_closed_segments() -> None:
    found = of(bridge(FirewallConf(ingress=ISOLATED)))
    assert refused(found) == {"neighbour", "from outside", *SPOOFED} and "IPv6 port from itself" not in found
    assert found["IPv6 spoofed source"].target == GATEWAY[6]
    apart = of(bridge(port_isolation=True, firewall=FirewallConf(ingress=OPEN)), routes=())
    assert "IPv6 from outside" not in apart and "IPv6 outside" not in apart


def test_without_a_guard() -> None:
    assert refused(of(bridge(FirewallConf(guard=False, ingress=OPEN)))) == {"router advertisement"}
    assert refused(of(bridge(FirewallConf(guard=False, macspoofchk=True, ingress=OPEN)))) == {
        "spoofed MAC", "router advertisement"}


def test_as_whom_it_is_seen() -> None:
    def seen_as(firewall: FirewallConf) -> str:
        return of(bridge(firewall))["IPv6 beyond the node"].seen_as

    assert seen_as(FirewallConf(masquerade6=ON)) == UPLINK[6]
    assert seen_as(FirewallConf(masquerade6=ON, snat6="2001:db8::9")) == "2001:db8::9"
    assert seen_as(FirewallConf(masquerade6=ON, keep=("2001:2::/48",))) == "fd00::2"
    assert seen_as(FirewallConf(masquerade6=ON, keep=("2001:3::/48",))) == UPLINK[6]


def test_where_there_is_nobody_to_try_it_with() -> None:
    found = of(bridge(), Surroundings())
    assert not any("port" in name for name in found)
    for name in ("IPv6 node", "IPv6 outside", "IPv6 beyond the node", "IPv6 from outside"):
        seen = promises.untried(found[name])
        assert seen and promises.judge(found[name], seen).level == AMBER
    assert promises.untried(found["IPv6 gateway"]) is None
    alone = conf(is_gateway=False, port_isolation=True, ipam=IPAM)
    assert "spoofed source" not in refused(of(alone)) and "IPv6 MTU" not in of(alone)


def test_of_a_network_without_addresses() -> None:
    empty = Result((Interface("veth1", ""), Interface("eth0", MAC, sandbox="x")))
    guarded = conf(firewall=FirewallConf())
    assert list(promises.promises(guarded, empty, empty, AROUND)) == [Promise("spoofed MAC", 0, MAC, False)]
    assert not list(promises.promises(conf(), empty, empty, AROUND))


@pytest.mark.parametrize("kind", promises.WHY)
def test_what_is_said(kind: str) -> None:
    for wanted in (True, False):
        if not promises.WHY[kind][not wanted]:
            continue
        promise = Promise(kind, 6, "fd00::1", wanted)
        good, bad = (promises.judge(promise, Seen(passes, "so it is")) for passes in (wanted, not wanted))
        assert (good.level, good.message) == (GREEN, "so it is" if wanted else "refused: so it is")
        assert (bad.level, bad.message) == (RED, "so it is" if wanted else "not refused: so it is")
        assert bad.why and bad.remedy and not good.why
        assert "--outside" in promises.judge(promise, Seen(None, "")).remedy or kind != promises.OUTSIDE
