"""What doctor says of facts; ``tests/netns/test_doctor.py`` breaks a node."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest

from cni_v6.config.bridge import BridgeConf
from cni_v6.ctl import findings
from cni_v6.ctl.doctor import runtime as read_runtime
from cni_v6.ctl.runtime_folders import USUAL_BIN_DIRS
from cni_v6.errors import LIMITED, NODE_CONFLICT, CniError
from cni_v6.kernel.facts import DROPS_REST, ForwardChain, Link, Uplink
from cni_v6.kernel.ops import HOST, SetLink
from cni_v6.leases.attachment import RoutedLink
from cni_v6.plan import outage, status
from cni_v6.plan.bridge_port import FRAMES
from cni_v6.plan.firewall_elements import TABLES_DIFFER
from cni_v6.plan.health import engine, kernel, network, runtime, store
from cni_v6.plan.health.engine import OTHER, SAME, SILENT, EngineFacts, FirewallFacts
from cni_v6.plan.health.finding import AMBER, GREEN, RED, Finding, of_error, share, worst
from cni_v6.plan.health.kernel import KernelFacts, Use
from cni_v6.plan.health.runtime import ConfFile, Runtime
from cni_v6.plan.health.store import Disk, Held, Pool, StoreFacts
from cni_v6.plan.repair import Findings
from cni_v6.planning.usage import Usage
from cni_v6.protocol.names import Owner
from tests.unit.fake_context import FakeContext
from tests.unit.sample_values import NODE, conf
from tests.unit.test_outage import GATEWAY, RECORD, attached

NOW = 1_800_000_000.0
FINE = KernelFacts({"bridge": "", "veth": "", "nf_tables": ""}, uplinks=(Uplink(6, "eth0", 1500),), boot="b", now=NOW,
                   addresses=(("eth0", "2001:db8::1/64"),))
SIX = frozenset({6})


BRIDGE = Link("cni0", "", 1500, "bridge")


def ports(count: int) -> tuple[Link, ...]:
    return (BRIDGE, *(Link(f"veth{number}", "", 1500, "veth", master="cni0") for number in range(count)))


def bad(found: Iterable[Finding]) -> list[tuple[str, str, str]]:
    """All but the green ones, which all say what to do."""
    listed = [each for each in found if each.level != GREEN]
    assert all(each.why and each.remedy for each in listed)
    return [(each.level, each.check, each.message) for each in listed]


def test_the_exit_status_is_that_of_the_worst() -> None:
    levels = {level: Finding(level, "", "") for level in (GREEN, AMBER, RED)}
    assert [worst(()), worst([levels[GREEN]]), worst(levels.values()), worst([levels[AMBER], levels[GREEN]])] == [
        0, 0, 2, 1
    ]
    assert share(1, 0) == 100 and share(1, 3) == 33
    assert of_error(RED, "x", CniError(NODE_CONFLICT, "a", ""), "why").remedy == "see the message"


def test_a_finding_moves_no_cursor() -> None:
    """It quotes configuration files, which may be anybody's, and what ``nft`` says on several lines."""
    printed = list(findings.lines(Finding(RED, "plugins", "foo\x1b[7m is\nnot there", "it\x9b7m", "do\x07")))
    assert printed == ["red    plugins: foo?[7m is not there", "       why: it?7m", "       do:  do?"]


def test_a_kernel_that_is_well() -> None:
    found = list(kernel.findings(FINE, Use(SIX, {6: 3}, masqueraded=SIX)))
    assert bad(found) == []
    messages = {each.check: each.message for each in found}
    assert messages["uplinks"] == "IPv6 through eth0 (MTU 1500)"
    assert messages["connection tracking"] == "not in use"
    nothing = {each.check: each.message for each in kernel.findings(replace(FINE, uplinks=()), Use())}
    assert nothing["uplinks"] == "none, and no network needs one"
    sysctls = {kernel.THRESHOLD[6]: "1024", kernel.CONNTRACK: "7", kernel.CONNTRACK_MAX: "1000"}
    known = {each.check: each.message for each in kernel.findings(replace(FINE, sysctls=sysctls), Use())}
    assert known["neighbour table"] == "room for IPv6 1024 entries"
    assert known["connection tracking"] == "7 of 1,000 flows"
    fine = {FRAMES[4]: "1", FRAMES[6]: "1", "ipv6/conf/eth0/accept_ra": "2",
            "ipv6/conf/all/forwarding": "1"}
    kube = replace(FINE, links=ports(3), sysctls=fine, learnt=frozenset({"eth0"}), chains=frozenset({"KUBE-SERVICES"}))
    assert bad(kernel.findings(kube, Use())) == []


@pytest.mark.parametrize("facts, use, level, check, words", [
    (replace(FINE, features={"veth": "Operation not supported"}), Use(), RED, "kernel veth", "the kernel refuses it"),
    (replace(FINE, features={"nf_tables": "no"}), Use(), AMBER, "kernel nf_tables", "the kernel refuses it: no"),
    (replace(FINE, features={"ipvlan": "no"}), Use(), RED, "kernel ipvlan", "the kernel refuses it: no"),
    (replace(FINE, uplinks=()), Use(SIX), AMBER, "uplinks", "the node has no default route of IPv6"),
    (replace(FINE, uplinks=(Uplink(6, "eth0", 1200),)), Use(SIX), RED, "uplinks", "eth0 has MTU 1200, less than 1280"),
    (replace(FINE, addresses=(("eth0", "fe80::1/64"),)), Use(SIX, masqueraded=SIX), AMBER, "uplinks",
     "eth0 has no global IPv6 address"),
    (replace(FINE, learnt=frozenset({"eth0"}), sysctls={"ipv6/conf/all/forwarding": "1",
                                                        "ipv6/conf/eth0/accept_ra": "1"}),
     Use(), RED, "router advertisements", "eth0 has its default route from router advertisements"),
    (replace(FINE, sysctls={"ipv4/conf/cni0/rp_filter": "1"}), Use(homes=frozenset({"cni0"}), twice="c1"), AMBER,
     "rp_filter", "cni0 filters strictly (rp_filter 1)"),
    (replace(FINE, uplinks=(Uplink(4, "eth0", 1500), Uplink(4, "eth1", 1500)),
             sysctls={"ipv4/conf/all/rp_filter": "1", "ipv4/conf/eth1/rp_filter": "2"}),
     Use(), AMBER, "rp_filter", "eth0 filters strictly (rp_filter 1)"),
    (replace(FINE, chains=frozenset({"KUBE-SERVICES"}), sysctls={FRAMES[4]: "1"}), Use(), AMBER, "br_netfilter",
     "net.bridge.bridge-nf-call-ip6tables is missing"),
    (replace(FINE, chains=frozenset({"KUBE-SERVICES"}), sysctls={FRAMES[4]: "1", FRAMES[6]: "0"}),
     Use(), AMBER, "br_netfilter", "net.bridge.bridge-nf-call-ip6tables is 0"),
    (replace(FINE, links=(Link("cni0", "", 0, "bridge", netfilter=frozenset((6,))),)), Use(homes=frozenset({"cni0.5"})),
     AMBER, "br_netfilter", "net.bridge.bridge-nf-call-ip6tables is missing, and bridge cni0 needs it"),
    (replace(FINE, chains=frozenset({"KUBE-SERVICES"}), sysctls={FRAMES[4]: "0", FRAMES[6]: "0"},
             links=(Link("br9", "", 0, "bridge"), Link("cni0", "", 0, "bridge", netfilter=frozenset((6,))))),
     Use(homes=frozenset({"cni0"})), AMBER, "br_netfilter",
     "net.bridge.bridge-nf-call-iptables is 0, and bridge cni0 has no setting of its own"),
    (replace(FINE, links=ports(1000)), Use(), AMBER, "bridge ports", "bridge cni0 has 1,000 of 1,023 ports"),
    (replace(FINE, links=ports(1023)), Use(), RED, "bridge ports", "bridge cni0 has 1,023 of 1,023 ports"),
    (replace(FINE, sysctls={kernel.THRESHOLD[6]: "1024"}), Use(containers={6: 450}), AMBER, "neighbour table",
     "450 containers with IPv6 need about 900 entries; net.ipv6.neigh.default.gc_thresh3 is 1024"),
    (replace(FINE, sysctls={kernel.THRESHOLD[4]: "1024"}), Use(containers={4: 600}), RED, "neighbour table",
     "600 containers"),
    (replace(FINE, sysctls={kernel.CONNTRACK: "850", kernel.CONNTRACK_MAX: "1000"}), Use(), AMBER,
     "connection tracking", "850 of 1,000 flows"),
    (replace(FINE, sysctls={kernel.CONNTRACK: "990", kernel.CONNTRACK_MAX: "1000"}), Use(), RED, "connection tracking",
     "990 of 1,000 flows"),
    (replace(FINE, boot=""), Use(), AMBER, "clock", "/proc/sys/kernel/random/boot_id cannot be read"),
    (replace(FINE, now=1.0), Use(), AMBER, "clock", "the clock was not set: it is before 2025"),
    (FINE, Use(newest=NOW + 3600), AMBER, "clock", "an attachment is 3,600 s younger than now"),
])
def test_a_kernel_with_a_fault(facts: KernelFacts, use: Use, level: str, check: str, words: str) -> None:
    [found] = bad(kernel.findings(facts, use))
    assert found[:2] == (level, check) and found[2].startswith(words)


def test_a_missing_module_has_the_name_that_modprobe_knows() -> None:
    found = list(kernel.findings(replace(FINE, features={"vlan": "Operation not supported"}), Use()))[0]
    assert found.remedy == "modprobe 8021q, or a kernel that has it (zgrep 8021Q /proc/config.gz)"
    assert found.why == "every ADD of a network of cni-v6-vlan needs it"


def test_routed_containers_take_no_place_in_the_table_of_neighbours() -> None:
    bridged = replace(RECORD, addresses=("fd00::2", "10.1.0.2"))
    routed = replace(bridged, port=RoutedLink("02:00:00:00:00:02"))
    assert kernel.resolving([bridged, routed, routed]) == {6: 1, 4: 1}


OURS = ConfFile("10-pods.conflist", "pods", ("cni-v6", "tuning"))
FLANNEL = ConfFile("00-flannel.conflist", "cbr0", ("loopback",))
ALL = frozenset({"cni-v6", "cni-v6-ipam", "loopback", "tuning"})
THERE = Runtime("containerd", "/etc/cni/net.d", {"/opt/cni/bin": ALL}, (OURS,))


def test_a_runtime_that_is_well() -> None:
    found = list(runtime.findings([THERE, replace(THERE, files=(FLANNEL,), bin_dirs={"/none": None})]))
    assert bad(found) == []
    assert [each.message for each in found] == [
        "/etc/cni/net.d has 10-pods.conflist", "all are in /opt/cni/bin",
        "/etc/cni/net.d has none of ours, and another runtime's folder has",
    ]
    alone = list(runtime.findings([replace(THERE, files=(), takes_first=False)]))
    assert [each.message for each in alone] == ["/etc/cni/net.d has none of ours", "all are in /opt/cni/bin"]


UNKNOWN = replace(THERE, name="runtime", bin_dirs={"/usr/lib/cni": ALL - {"loopback"}}, takes_first=False,
                  is_known=False)


def test_a_node_without_a_runtime_that_is_known() -> None:
    """Such as one with the Debian package alone. Nobody knows who calls the plugins, and whether ``loopback`` too."""
    found = list(runtime.findings([UNKNOWN]))
    assert bad(found) == []
    words = "this node has no containerd, CRI-O, podman (CNI) or nerdctl; all are in /usr/lib/cni"
    assert [each.message for each in found] == ["/etc/cni/net.d has 10-pods.conflist", words]
    [(level, _, message)] = bad(runtime.findings([replace(UNKNOWN, files=())]))
    assert (level, message) == (AMBER, "/etc/cni/net.d has no configuration of ours")
    folders: dict[str, frozenset[str] | None] = {"/opt/cni/bin": None, "/usr/lib/cni": frozenset()}
    levels = {(each[0], each[2]) for each in bad(runtime.findings([replace(UNKNOWN, bin_dirs=folders)]))}
    assert levels == {(RED, f"{name} is not in /opt/cni/bin or /usr/lib/cni") for name in ALL - {"loopback"}}


@pytest.mark.parametrize("found, level, words", [
    (replace(THERE, files=()), AMBER, "/etc/cni/net.d has no configuration of ours"),
    (replace(THERE, files=(FLANNEL, OURS)), AMBER, "00-flannel.conflist comes before 10-pods.conflist"),
    (replace(THERE, files=(OURS, replace(OURS, name="20"))), AMBER, "10-pods.conflist and 20 in /etc/cni/net.d both"),
    (replace(THERE, files=(FLANNEL,)), AMBER, "/etc/cni/net.d has no configuration of ours"),
    (replace(THERE, files=(OURS, ConfFile("x", error="no JSON"))), AMBER, "/etc/cni/net.d/x cannot be read: no JSON"),
    (replace(THERE, files=(replace(OURS, problem=("brigde: unknown", "write bridge")),)), RED,
     "/etc/cni/net.d/10-pods.conflist is refused: brigde: unknown"),
    (replace(THERE, bin_dirs={"/opt/cni/bin": ALL, "/none": None}), AMBER, "/none does not exist"),
    (replace(THERE, bin_dirs={"/opt/cni/bin": ALL - {"loopback"}}), AMBER, "loopback is not in /opt/cni/bin"),
    (replace(THERE, bin_dirs={"/opt/cni/bin": ALL - {"tuning"}}), RED, "tuning is not in /opt/cni/bin"),
    (replace(THERE, bin_dirs={"/opt/cni/bin": ALL - {"cni-v6-ipam"}}), RED, "cni-v6-ipam is not in /opt/cni/bin"),
])
def test_a_runtime_with_a_fault(found: Runtime, level: str, words: str) -> None:
    [(seen, _, message)] = bad(runtime.findings([found]))
    assert seen == level and message.startswith(words)


def test_the_runtimes_of_a_node(tmp_path: Path) -> None:
    folders = tmp_path / "net.d", tmp_path / "bin"
    for each in (*folders, tmp_path / "etc/containerd"):
        each.mkdir(parents=True)
    program = folders[1] / "loopback"
    program.write_text("")
    program.chmod(0o755)
    (folders[1] / "notes").write_text("")
    cni = f'[plugins.cri.cni]\nconf_dir = "{folders[0]}"\nbin_dir = "{folders[1]}"\n'
    (tmp_path / "etc/containerd/config.toml").write_text(cni)
    (folders[0] / "10-pods.conf").write_text('{"type": "cni-v6", "name": "pods", "ipam": {"type": "host-local"}}')
    (folders[0] / "20-lan.conf").write_text('{"type": "macvlan", "name": "lan", "ipam": {"type": "cni-v6-ipam"}}')
    context = FakeContext().context()
    [found] = read_runtime.read(None, None, context, str(tmp_path))
    assert (found.name, found.conf_dir, found.takes_first) == ("containerd", str(folders[0]), True)
    assert found.bin_dirs == {str(folders[1]): frozenset({"loopback"})}
    assert [each.types for each in found.files] == [("cni-v6",), ("macvlan", "cni-v6-ipam")]
    assert all(each.problem[0] for each in found.files), "neither has a range"
    [unknown] = read_runtime.read(None, None, context, str(tmp_path / "bin"))
    assert (unknown.name, unknown.is_known, tuple(unknown.bin_dirs)) == ("runtime", False, USUAL_BIN_DIRS)
    packaged = tmp_path / "bin/usr/lib/cni/cni-v6"
    packaged.parent.mkdir(parents=True)
    packaged.touch(0o755)
    [unknown] = read_runtime.read(None, None, context, str(tmp_path / "bin"))
    assert list(unknown.bin_dirs) == ["/usr/lib/cni"]
    [named] = read_runtime.read(folders[0], None, context)
    assert (named.name, named.conf_dir) == ("runtime", str(folders[0]))


GB = 1 << 30
USAGE = Usage(100, 10, 0, False, "sequential", 3600.0, None, None)


def test_a_store_that_is_well() -> None:
    slow = replace(USAGE, once=True, assumed=Fraction(1, 10**9))
    pools = Pool("pods", "10.1.0.0/24", USAGE), Pool("pods", "x", slow)
    facts = StoreFacts((Disk("/var", GB, 10_000), Disk("/run", GB, -1)), pools=pools)
    assert bad(store.findings(facts)) == [] and len(list(store.findings(facts))) == 5


@pytest.mark.parametrize("facts, level, check, words", [
    (StoreFacts((Disk("/var", GB, -1, read_only=True),)), RED, "store", "the file system of /var is read-only"),
    (StoreFacts((Disk("/var", 4096, -1),)), RED, "store", "4 KiB are free"),
    (StoreFacts((Disk("/var", 5 << 20, -1),)), AMBER, "store", "5,120 KiB are free"),
    (StoreFacts((Disk("/var", GB, 3),)), RED, "store", "3 inodes are free"),
    (StoreFacts((Disk("/var", GB, 900),)), AMBER, "store", "900 inodes are free"),
    (StoreFacts(locks=(Held("pods", "/x/lock", 17),)), RED, "locks", "process 17 holds the lock of network pods"),
    (StoreFacts(locks=(Held("pods", "/x/lock", 17, True),)), RED, "locks", "process 17, which is stopped, holds the"),
    (StoreFacts(locks=(Held("pods", "/x/lock", 0),)), RED, "locks", "a process that /proc/locks does not name holds"),
    (StoreFacts(damaged=("a", "b", "c", "d")), AMBER, "records", "damaged: a, b, c and 1 more"),
    (StoreFacts(blocked=("a",)), RED, "records", "blocked: a"),
    (StoreFacts(lost=("a",)), RED, "records", "on the node, and without a record: a"),
    (StoreFacts(stale=("a (ended)",)), AMBER, "leaks", "1 ended without a DEL: a (ended)"),
    (StoreFacts(pools=(Pool("pods", "10.1.0.0/24", replace(USAGE, leased=100)),)), RED, "addresses",
     "pods has no address left of 10.1.0.0/24"),
    (StoreFacts(pools=(Pool("pods", "10.1.0.0/24", replace(USAGE, leased=93)),)), AMBER, "addresses",
     "pods has 7 of 100 addresses left"),
    (StoreFacts(pools=(Pool("pods", "x", replace(USAGE, size=864_000, once=True, assumed=Fraction(1))),)), AMBER,
     "addresses", "pods: x lasts 10 days more"),
])
def test_a_store_with_a_fault(facts: StoreFacts, level: str, check: str, words: str) -> None:
    [found] = bad(store.findings(facts))
    assert found[:2] == (level, check) and found[2].startswith(words)


ENGINE = EngineFacts("/run/e.sock", SAME, 17, "3h", advice="kill -CONT 17")


@pytest.mark.parametrize("facts, level, words", [
    (ENGINE, GREEN, "process 17, of this version, 3h old, answers"),
    (EngineFacts("/run/e.sock"), GREEN, "none runs now; the next call starts one"),
    (replace(ENGINE, run_dir_problem="/run has mode 0777"), AMBER, "/run has mode 0777"),
    (replace(ENGINE, answer=SILENT), RED, "the engine at /run/e.sock does not answer"),
    (replace(ENGINE, answer=OTHER), AMBER, "the engine is of another version"),
    (replace(ENGINE, stuck=2), AMBER, "2 of its threads wait for the kernel"),
])
def test_the_engine(facts: EngineFacts, level: str, words: str) -> None:
    [found] = engine.engine(facts)
    assert found.level == level and found.message.startswith(words)
    assert level == GREEN or (found.why and found.remedy)


@pytest.mark.parametrize("facts, level, words", [
    (FirewallFacts(3, ("table inet cni_v6 is gone",)), RED, "table inet cni_v6 is gone"),
    (FirewallFacts(0, ("table inet cni_v6 is gone",)), GREEN, "no attachment needs it now"),
    (FirewallFacts(3, (), "there is no program nft"), AMBER, "there is no program nft"),
    (FirewallFacts(3), GREEN, "its tables are as loaded, for 3 attachments"),
])
def test_the_firewall(facts: FirewallFacts, level: str, words: str) -> None:
    [found] = engine.firewall(facts)
    assert found.level == level and found.message.startswith(words)


def test_one_attachment_is_one() -> None:
    [fine] = engine.firewall(FirewallFacts(1))
    assert fine.message == "its tables are as loaded, for 1 attachment"
    [gone] = engine.firewall(FirewallFacts(1, ("table inet cni_v6 is gone",)))
    assert gone.why == "1 attachment may be open, or lack published ports"


def test_containers_that_can_change_the_node() -> None:
    [found] = engine.privileged(["pods/a/eth0 (process 1)"])
    assert found.level == AMBER and "pods/a/eth0 (process 1)" in found.message
    assert [each.level for each in engine.privileged(())] == [GREEN]


# A network


def of_status(wanted: BridgeConf = GATEWAY, chains: tuple[ForwardChain, ...] = (), down: bool = False) -> list[Finding]:
    fake = attached()
    fake.firewall.others = chains
    if down:
        fake.apply([SetLink(HOST, "cni0", up=False)])
    seen = fake.observe(status.questions(wanted, NODE, [RECORD]))
    seen = seen.with_answers(fake.observe(outage.more_questions(wanted, seen)))
    return list(network.by_status(wanted.network, lambda: status.check(wanted, NODE, [RECORD], seen)))


def test_what_status_finds() -> None:
    assert of_status() == []
    [found] = of_status(down=True)
    assert (found.level, found.why) == (RED, "containers that run are cut off") and "is down" in found.message
    [other] = of_status(conf(bridge="lo"))
    assert (other.level, other.why) == (RED, "an ADD would fail")
    [warned] = of_status(chains=(ForwardChain("ip", "filter", "FORWARD", DROPS_REST),))
    assert warned.level == AMBER and "nft 'insert rule" in warned.remedy and "nft" not in warned.message
    assert LIMITED != NODE_CONFLICT


def test_what_check_finds() -> None:
    assert network.by_check("pods", Findings()).level == GREEN
    found = Findings()
    found.add(Owner("pods", "a", "eth0"), "its port is down", SetLink(HOST, "veth1", up=True))
    found.add(None, "bridge cni0 is missing")
    said = network.by_check("pods", found)
    assert (said.level, said.message) == (RED, "a/eth0: its port is down, bridge cni0 is missing")
    assert said.remedy == "cni-v6ctl check pods --repair"
    lost = Findings()
    lost.add(Owner("pods", "a", "eth0"), "host interface veth1 is not on the node")
    assert network.by_check("pods", lost).remedy == "run DEL and ADD for these containers"
    tables = Findings()
    tables.add(Owner("pods", "a", "eth0"), TABLES_DIFFER)
    tables.add(Owner("pods", "b", "eth0"), TABLES_DIFFER)
    said = network.by_check("pods", tables)
    assert (said.level, said.message, said.remedy) == (RED, TABLES_DIFFER, "cni-v6ctl reload")
