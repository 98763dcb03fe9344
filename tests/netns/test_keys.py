"""Every key of the configuration, and everything a runtime may ask for beside it, shows in the kernel or the answer."""

from __future__ import annotations

from typing import Any

import pytest

from cni_v6 import errors
from tests.netns import networks, nft
from tests.netns.networks import DUAL, GATEWAY4, GATEWAY6, SUBNET4, SUBNET6, Pod
from tests.sandbox import Node, Reply

DEFAULTS = {"0.0.0.0/0", "::/0"}


def test_bridge_names_the_bridge(node: Node) -> None:
    networks.pods(node, networks.network(bridge="br-pods.1"), "a")
    networks.pods(node, {key: value for key, value in networks.network().items() if key != "bridge"}, "b")
    assert {link["ifname"] for link in node.ip_json("link", "show", "type", "bridge")} == {"br-pods.1", "cni0"}


def test_without_is_gateway_the_node_is_no_part_of_the_network(node: Node) -> None:
    networks.outside(node)
    with node.unchanged(ignore=rf"\bcni0\b|attachments/\.(seen|memo)|{networks.TABLES}"):
        first, second = networks.pods(node, networks.network(*DUAL), "a", "b")
        assert first.ping(second.address(6)) and first.ping(second.address(4))
        assert not [text for text in networks.addresses(node, "cni0") if not text.startswith("fe80:")]
        assert first.routes() == [] and "routes" not in first.result
        for pod in (first, second):
            pod.delete()
            node.remove_container(pod.name)


def test_is_gateway_gives_the_bridge_the_gateways_addresses(node: Node) -> None:
    [pod] = networks.pods(node, networks.network(*DUAL, isGateway=True), "a")
    assert {GATEWAY6 + "/64", GATEWAY4 + "/24"} <= networks.addresses(node, "cni0").keys()
    assert pod.ping(GATEWAY6) and pod.ping(GATEWAY4)
    assert networks.sysctl(node, "ipv4/ip_forward") == networks.sysctl(node, "ipv6/conf/cni0/force_forwarding") == "1"
    assert pod.routes() == []


def test_is_default_gateway_adds_a_default_route_of_each_family(node: Node) -> None:
    [pod] = networks.pods(node, networks.network(*DUAL, isDefaultGateway=True), "a")
    assert {(route["dst"], route["gateway"]) for route in pod.routes()} == {
        ("default", GATEWAY4), ("default", GATEWAY6)
    }
    assert {route["dst"] for route in pod.result["routes"]} == DEFAULTS


@pytest.mark.parametrize(("subnet", "present"), [(SUBNET4, "10.9.0.1/16"), (SUBNET6, "fd00:6::99/60")])
def test_force_address_decides_who_wins(node: Node, subnet: str, present: str) -> None:
    node.run("ip", "link", "add", "cni0", "type", "bridge")
    node.run("ip", "address", "add", present, "dev", "cni0")
    pod = Pod(node, networks.gateway(subnet), "a")
    with node.unchanged(ignore=rf"attachments/\.(seen|memo)|{networks.TABLES}"):
        message = pod.call("ADD").error(105)
    assert present in message and "forceAddress" in message
    pod.add(networks.gateway(subnet, forceAddress=True))
    assert present not in networks.addresses(node, "cni0")
    assert pod.ping(GATEWAY6 if ":" in subnet else GATEWAY4)


def test_a_bridge_keeps_addresses_that_contradict_nothing(node: Node) -> None:
    node.run("ip", "link", "add", "cni0", "type", "bridge")
    node.run("ip", "address", "add", "fd00:7::1/64", "dev", "cni0", "nodad")
    networks.pods(node, networks.gateway(SUBNET6), "a")
    assert {"fd00:7::1/64", GATEWAY6 + "/64"} <= networks.addresses(node, "cni0").keys()


def test_mtu_is_that_of_both_ends_and_the_bridge(node: Node) -> None:
    [pod] = networks.pods(node, networks.gateway(*DUAL, mtu=1400), "a")
    assert [interface["mtu"] for interface in pod.result["interfaces"]] == [1400] * 3
    assert pod.link()["mtu"] == networks.link(node, pod.host)["mtu"] == networks.link(node, "cni0")["mtu"] == 1400


def test_without_mtu_a_container_has_its_bridges(node: Node) -> None:
    node.run("ip", "link", "add", "cni0", "mtu", "1320", "type", "bridge")
    [pod] = networks.pods(node, networks.gateway(*DUAL), "a")
    assert pod.link()["mtu"] == networks.link(node, pod.host)["mtu"] == networks.link(node, "cni0")["mtu"] == 1320


@pytest.mark.parametrize("asked", [False, True])
def test_hairpin_mode(node: Node, asked: bool) -> None:
    [pod] = networks.pods(node, networks.gateway(*DUAL, hairpinMode=asked), "a")
    assert networks.link(node, pod.host)["linkinfo"]["info_slave_data"]["hairpin"] is asked


@pytest.mark.parametrize("asked", [False, True])
def test_promisc_mode(node: Node, asked: bool) -> None:
    networks.pods(node, networks.gateway(*DUAL, promiscMode=asked), "a")
    assert ("PROMISC" in networks.link(node, "cni0")["flags"]) is asked


def test_port_isolation_leaves_a_container_the_gateway_alone(node: Node) -> None:
    first, second = networks.pods(node, networks.gateway(*DUAL, portIsolation=True), "a", "b")
    assert networks.link(node, first.host)["linkinfo"]["info_slave_data"]["isolated"] is True
    for family, gateway in ((4, GATEWAY4), (6, GATEWAY6)):
        assert first.ping(gateway) and second.ping(gateway)
        assert not first.ping(second.address(family), patience=1)


@pytest.mark.parametrize("asked", [False, True])
def test_multicast_snooping(node: Node, asked: bool) -> None:
    networks.pods(node, networks.gateway(*DUAL, multicastSnooping=asked), "a")
    assert networks.link(node, "cni0")["linkinfo"]["info_data"]["mcast_snooping"] == int(asked)


@pytest.mark.usefixtures("main_plugin")
def test_a_tuned_container(node: Node) -> None:
    """By the keys of the reference ``tuning``; the node's list of allowed sysctls counts, and CHECK sees changes."""
    sysctls = {"net.core.somaxconn": "77", "net.ipv4.conf.IFNAME.arp_filter": "1",
               "net.ipv4.ip_local_port_range": "20000 30000"}
    [pod] = networks.pods(node, networks.gateway(*DUAL, sysctl=sysctls, promisc=True, allmulti=True, txQLen=55), "a")
    link = networks.link(node, "eth0", pod.netns)
    assert {"PROMISC", "ALLMULTI"} <= set(link["flags"]) and link["txqlen"] == 55
    assert networks.sysctl(node, "core/somaxconn", pod.netns) == "77"
    assert networks.sysctl(node, "ipv4/conf/eth0/arp_filter", pod.netns) == "1"
    assert networks.sysctl(node, "core/somaxconn") != "77" and pod.check().ok() is None
    node.run("ip", "link", "set", "eth0", "promisc", "off", netns=pod.netns)
    networks.set_sysctl(node, "core/somaxconn", "88", pod.netns)
    words = pod.check().error(errors.CHECK_FAILED)
    assert "eth0 is not promiscuous" in words and "net/core/somaxconn is 88, not 77" in words
    pod.delete()


def test_netfilter_is_the_bridges_own(node: Node) -> None:
    """One more network of the bridge is enough; CHECK, STATUS and ``cni-v6ctl check`` see when it is lost."""
    def told() -> set[int]:
        data = networks.link(node, "cni0")["linkinfo"]["info_data"]
        return {data["nf_call_iptables"], data["nf_call_ip6tables"]}

    networks.pods(node, networks.network(name="plain"), "plain")
    assert told() == {0}
    [pod] = networks.pods(node, networks.gateway(*DUAL, netfilter=True), "a")
    assert told() == {1}
    node.run("ip", "link", "set", "cni0", "type", "bridge", "nf_call_ip6tables", "0")
    lost = "the frames of bridge cni0 do not pass the node's rules (netfilter)"
    assert lost in pod.check().error(errors.CHECK_FAILED)
    assert lost in node.plugin("cni-v6", "STATUS", pod.config).error(errors.LIMITED)
    assert lost in nft.ctl(node, "check", check=False).stdout
    nft.ctl(node, "check", "--repair")
    assert told() == {1} and pod.check().ok() is None
    node.plugin("cni-v6", "STATUS", pod.config).ok()


def test_enabledad_answers_when_the_address_is_known_to_be_unique(node: Node) -> None:
    [pod] = networks.pods(node, networks.gateway(*DUAL, enabledad=True), "a")
    entry = networks.addresses(node, "eth0", pod.netns)[pod.address(6) + "/64"]
    assert not {"nodad", "tentative", "dadfailed"} & entry.keys()


def test_enabledad_refuses_an_address_that_somebody_else_uses(node: Node) -> None:
    [squatter] = networks.pods(node, networks.network(), "squatter")
    node.run("ip", "address", "add", "fd00:6::2/64", "dev", "eth0", "nodad", netns=squatter.netns)
    elsewhere = [[{"subnet": SUBNET6, "rangeStart": "fd00:6::100"}], [{"subnet": SUBNET4}]]
    networks.set_up(node, networks.gateway(*DUAL, ipam={"ranges": elsewhere}))
    pod = Pod(node, networks.gateway(*DUAL, enabledad=True, args={"cni": {"ips": ["fd00:6::2"]}}), "a")
    with node.unchanged(ignore=networks.TABLES):
        message = pod.call("ADD").error(102)
    assert "fd00:6::2" in message and "is a duplicate" in message
    assert networks.leases(node) == set()


def test_disable_container_interface_leaves_it_down(node: Node) -> None:
    [pod] = networks.pods(node, networks.network(disableContainerInterface=True), "a")
    assert "UP" not in pod.link()["flags"]
    assert pod.check().ok() is None


def test_dns_comes_from_the_configuration_a_file_or_the_runtime(node: Node) -> None:
    file = node.file("/var/lib/cni/resolv.conf")
    file.write_text("nameserver fd00::53\nsearch a.example b.example\noptions ndots:2\n")
    ipam = {"resolvConf": "/var/lib/cni/resolv.conf"}
    from_file = networks.gateway(*DUAL, ipam=ipam)
    from_keys = {**from_file, "dns": {"nameservers": ["fd00::1"], "domain": "k.example"}}
    from_runtime = {**from_keys, "runtimeConfig": {"dns": {"servers": ["fd00::2"], "searches": ["r.example"]}}}
    answers = [pod.add()["dns"] for pod in (
        Pod(node, from_file, "a"), Pod(node, from_keys, "b"), Pod(node, from_runtime, "c")
    )]
    assert answers == [
        {"nameservers": ["fd00::53"], "search": ["a.example", "b.example"], "options": ["ndots:2"]},
        {"nameservers": ["fd00::1"], "domain": "k.example"},
        {"nameservers": ["fd00::2"], "search": ["r.example"]},
    ]


def test_a_resolv_conf_that_is_not_there_is_an_error(node: Node) -> None:
    pod = Pod(node, networks.gateway(*DUAL, ipam={"resolvConf": "/var/lib/cni/none"}), "a")
    with node.unchanged(ignore=rf"attachments/\.(seen|memo)|{networks.TABLES}"):
        assert "/var/lib/cni/none" in pod.call("ADD").error(5)


def test_gateway_link_local(node: Node) -> None:
    beyond = networks.outside(node)
    ranges = [[{"subnet": SUBNET6, "gateway": "link-local"}], [{"subnet": SUBNET4}]]
    first, second = networks.pods(node, networks.gateway(*DUAL, ipam={"ranges": ranges}), "a", "b")
    assert first.result["ips"][0]["gateway"] == "fe80::1"
    assert "fe80::1/64" in networks.addresses(node, "cni0") and not GATEWAY6 + "/64" in networks.addresses(node, "cni0")
    assert ("default", "fe80::1") in {(route["dst"], route["gateway"]) for route in first.routes()}
    assert networks.ping(node, first.address(6)) and first.ping("fe80::1%eth0")
    assert first.ping(second.address(6))
    assert networks.ping(node, first.address(6), beyond) and first.ping(networks.OUTSIDE[6])
    assert first.check().ok() is None


def test_routes_with_all_they_can_say(node: Node) -> None:
    routes: list[dict[str, Any]] = [
        {"dst": "2001:db8:1::/48", "gw": "fd00:6::9", "mtu": 1300, "advmss": 1240, "priority": 77},
        {"dst": "2001:db8:2::/48", "table": 1000},
        {"dst": "198.51.100.0/24", "gw": "10.66.0.9", "mtu": 1280, "advmss": 1200, "priority": 5},
        {"dst": "203.0.113.0/24", "scope": 253, "table": 100},
    ]
    [pod] = networks.pods(node, networks.gateway(*DUAL, ipam={"routes": routes}), "a")
    found = {route["dst"]: route for route in pod.routes("table", "all") if "type" not in route}
    assert _picked(found["2001:db8:1::/48"]) == ("fd00:6::9", None, 77, None, [{"mtu": 1300, "advmss": 1240}])
    assert _picked(found["2001:db8:2::/48"])[:2] == (GATEWAY6, "1000")
    assert _picked(found["198.51.100.0/24"]) == ("10.66.0.9", None, 5, None, [{"mtu": 1280, "advmss": 1200}])
    assert _picked(found["203.0.113.0/24"]) == (None, "100", None, "link", None)
    assert pod.result["routes"][: len(routes)] == routes
    assert pod.check().ok() is None


def _picked(route: dict[str, Any]) -> tuple[Any, ...]:
    metrics = [{key: value for key, value in one.items() if value} for one in route.get("metrics", ())] or None
    return route.get("gateway"), route.get("table"), route.get("metric"), route.get("scope"), metrics


def test_a_default_route_of_ipam_is_not_doubled(node: Node) -> None:
    ipam = {"routes": [{"dst": "::/0", "gw": "fd00:6::9", "mtu": 1300}, {"dst": "0.0.0.0/0"}]}
    [pod] = networks.pods(node, networks.gateway(*DUAL, ipam=ipam), "a")
    assert {(route["dst"], route["gateway"]) for route in pod.routes()} == {
        ("default", GATEWAY4), ("default", "fd00:6::9")
    }


ASKED = {4: "10.66.0.77", 6: "fd00:6::77"}
MAC = "02:00:5e:10:00:01"
REQUESTS = [
    pytest.param({"args": {"cni": {"ips": [ASKED[6], ASKED[4] + "/24"], "mac": MAC}}}, "", id="args.cni"),
    pytest.param({"runtimeConfig": {"ips": [ASKED[4], ASKED[6] + "/64"], "mac": MAC}}, "", id="runtimeConfig"),
    pytest.param({"args": {"cni": {"ips": [ASKED[4]]}}}, f"IP={ASKED[6]};MAC={MAC}", id="CNI_ARGS"),
]


@pytest.mark.parametrize(("keys", "args"), REQUESTS)
def test_a_requested_address_and_mac_are_honoured(node: Node, keys: dict[str, Any], args: str) -> None:
    pod = Pod(node, networks.gateway(*DUAL, **keys), "a")
    pod.add(args=args)
    assert {pod.address(4), pod.address(6)} == set(ASKED.values()) == networks.leases(node)
    assert pod.mac == pod.link()["address"] == MAC
    second = Pod(node, networks.gateway(*DUAL, **keys), "b")
    with node.unchanged():
        assert "held by pods/a/eth0" in second.call("ADD", args=args).error(102)


def test_a_requested_address_outside_the_ranges_is_refused(node: Node) -> None:
    pod = Pod(node, networks.gateway(*DUAL), "a")
    with node.unchanged():
        assert "none of the ranges" in pod.call("ADD", args="IP=192.0.2.1").error(4)
        assert "gateway" in pod.call("ADD", args=f"IP={GATEWAY6}").error(4)


def test_ip_ranges_of_the_runtime_come_first(node: Node) -> None:
    runtime = {"ipRanges": [[{"subnet": "fd00:7::/64"}], [{"Subnet": "10.77.0.0/24", "RangeStart": "10.77.0.50"}]]}
    [pod] = networks.pods(node, networks.gateway(SUBNET6, runtimeConfig=runtime), "a")
    assert [ip["address"] for ip in pod.result["ips"]] == ["fd00:7::2/64", "10.77.0.50/24", "fd00:6::2/64"]
    assert pod.ping("fd00:7::1") and pod.ping("10.77.0.1") and pod.ping(GATEWAY6)


def test_ranges_spill_over_in_order(node: Node) -> None:
    ranges = [[{"subnet": SUBNET4, "rangeStart": "10.66.0.9", "rangeEnd": "10.66.0.9"}, {"subnet": "10.67.0.0/30"}]]
    made = networks.pods(node, networks.gateway(SUBNET4, ipam={"ranges": ranges}), "a", "b")
    assert [pod.address(4) for pod in made] == ["10.66.0.9", "10.67.0.2"]
    assert made[1].ping("10.67.0.1")
    with node.unchanged(ignore="container c"):
        assert "2 in all, 2 taken" in Pod(node, made[0].config, "c").call("ADD").error(101)


@pytest.mark.parametrize("plugin", ["cni-v6", "cni-v6-ipam"])
def test_what_is_excluded_is_given_to_nobody_and_taken_from_nobody(node: Node, plugin: str) -> None:
    """Of 10.66.0.8/29 and fd00:6::/125: what is left is given out in order, and an address held before stays."""
    ranges = [[{"subnet": "fd00:6::/125"}], [{"subnet": "10.66.0.8/29"}]]
    before = networks.network(
        SUBNET6, ipam={"ranges": ranges}, isGateway=plugin == "cni-v6", guard=False, ingress="open"
    )
    config = {**before, "ipam": {**before["ipam"], "exclude": ["fd00:6::2", "10.66.0.8/30", "fd00:6::6/127"]}}

    def call(command: str, name: str, sent: dict[str, Any], **variables: str) -> Reply:
        netns = node.containers.get(name) or node.container(name)
        return node.plugin(plugin, command, sent, container_id=name, ifname="eth0", netns=netns, **variables)

    asked = {"a": "IP=10.66.0.10"}
    first = call("ADD", "a", before, args=asked["a"]).ok()
    assert [ip["address"] for ip in first["ips"]] == ["fd00:6::2/125", "10.66.0.10/29"]
    assert "ipam.exclude[1] (10.66.0.8/30)" in call("ADD", "x", config, args="IP=10.66.0.11").error(4)
    given = [call("ADD", name, config).ok() for name in "bcd"]
    assert [[ip["address"] for ip in each["ips"]] for each in given] == [
        [f"fd00:6::{last}/125", f"10.66.0.{last + 9}/29"] for last in (3, 4, 5)
    ]
    assert {ip["gateway"] for each in given for ip in each["ips"]} == {"fd00:6::1", "10.66.0.9"}
    assert "fd00:6::/125 (fd00:6::1 to fd00:6::7), less what is excluded or reserved: 3 in all, 3 taken" in call(
        "ADD", "e", config).error(101)
    assert "3 in all, 3 taken" in node.plugin(plugin, "STATUS", config).error(50)
    for name, result in zip("abcd", [first, *given]):
        assert call("CHECK", name, {**config, "prevResult": result}, args=asked.get(name, "")).ok() is None
    for name in "abcd":
        call("DEL", name, config).ok()
    assert networks.leases(node) == set()


def test_the_older_single_range(node: Node) -> None:
    config = networks.gateway(SUBNET6, cniVersion="0.2.0")
    config["ipam"] = {"type": "host-local", "subnet": SUBNET6, "rangeStart": "fd00:6::42", "gateway": "fd00:6::fe"}
    result = Pod(node, config, "a").add()
    assert result["ip6"]["ip"] == "fd00:6::42/64" and result["ip6"]["gateway"] == "fd00:6::fe"
    assert networks.ping(node, "fd00:6::fe", node.containers["a"])


def test_data_dir_is_where_the_leases_lie(node: Node) -> None:
    pod = Pod(node, networks.gateway(*DUAL, ipam={"dataDir": "/var/lib/cni/elsewhere/deep"}), "a")
    pod.add()
    folder = node.file("/var/lib/cni/elsewhere/deep/pods")
    assert {pod.address(4), pod.address(6)} <= {path.name for path in folder.iterdir()}
    assert (folder.stat().st_mode & 0o777, (folder / pod.address(4)).stat().st_mode & 0o777) == (0o700, 0o600)
    assert not node.file(networks.STORE).exists()
    pod.delete()
    assert networks.leases(node, data_dir="/var/lib/cni/elsewhere/deep") == set()


REFUSED = [
    pytest.param({"ipMasq": True, "ipMasqBackend": "iptables"}, 2, "ipMasqBackend", id="iptables"),
    pytest.param({"runtimeConfig": {"infinibandGUID": "c2:11"}}, 2, "infinibandGUID", id="InfiniBand"),
    pytest.param({"isGatway": True}, 7, 'did you mean "isGateway"', id="one slip"),
    pytest.param({"strict": True, "somethingElse": 1}, 7, "somethingElse", id="strict"),
    pytest.param({"hairpinMode": True, "promiscMode": True}, 7, "promiscMode", id="hairpin and promiscuous"),
    pytest.param({"mtu": "1500"}, 7, "mtu", id="type"),
    pytest.param({"cniVersion": "9.9.9"}, 1, "9.9.9", id="version"),
]


@pytest.mark.parametrize(("keys", "code", "word"), REFUSED)
def test_what_is_refused_is_named_and_changes_nothing(
    node: Node, keys: dict[str, Any], code: int, word: str
) -> None:
    pod = Pod(node, networks.gateway(*DUAL), "a")
    with node.unchanged():
        assert word in pod.call("ADD", {**pod.config, **keys}).error(code)


def test_an_unknown_key_is_logged_and_passed_on(node: Node) -> None:
    reply = Pod(node, networks.gateway(*DUAL, somethingElse=1), "a").call("ADD")
    assert reply.ok() and "somethingElse" in reply.stderr
