"""``cni-v6ctl doctor`` on a node that is broken in one way at a time: it names each, ``check`` those that it should."""

from __future__ import annotations

import fcntl
import json
import os
import re
import signal
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests import processes
from tests.netns import networks, nft
from tests.netns.networks import DUAL, OUTSIDE, UPLINK, Pod
from tests.sandbox import ROOT, Node

pytestmark = pytest.mark.xdist_group("doctor")
AMBER, RED = "amber", "red"
NETWORK = networks.gateway(*DUAL, ipMasq=True)
SECOND = networks.network("10.68.0.0/24", name="second", type=networks.ROUTED)
TINY = networks.gateway("10.69.0.0/30", name="tiny", bridge="cni2")
REPAIR, RELOAD = "$CTL check --repair", "$CTL reload"
DROP = (
    "nft add table inet other; nft 'add chain inet other f { type filter hook forward priority 0; policy drop; }'"
)
GONE = "nft delete table inet other"


@dataclass(frozen=True)
class Break:
    """``spoil`` and ``undo``: sh on the node, where HOST is the host interface of container a, CONF and BIN are the
    folders, CTL the command, STORE the network's leases. ``check``: the finding's, ``words`` in it. ``differs``:
    ``cni-v6ctl check`` sees it too."""

    spoil: str
    undo: str
    level: str
    check: str
    words: str
    differs: bool = False


def conf(name: str, content: str) -> str:
    return f"echo '{content}' >$CONF/{name}"


BREAKS = {
    # What the node has for its containers
    "bridge deleted": Break("ip link delete cni0", REPAIR, RED, "network pods", "containers are in no bridge", True),
    "bridge down": Break("ip link set cni0 down", REPAIR, RED, "network pods", "bridge cni0 is down", True),
    "port taken out": Break("ip link set $HOST nomaster", REPAIR, RED, "network pods", "in no bridge", True),
    "port down": Break("ip link set $HOST down", REPAIR, RED, "network pods", "$HOST is down", True),
    "port isolated": Break(
        "bridge link set dev $HOST isolated on", REPAIR, RED, "network pods", "hairpin False and isolated True", True,
    ),
    "IPv4 gateway deleted": Break(
        "ip address delete 10.66.0.1/24 dev cni0", REPAIR, RED, "network pods", "10.66.0.1/24", True,
    ),
    "IPv6 gateway deleted": Break(
        "ip address delete fd00:6::1/64 dev cni0", REPAIR, RED, "network pods", "fd00:6::1/64", True,
    ),
    "IPv4 forwarding off": Break(
        "sysctl -w net.ipv4.ip_forward=0", REPAIR, RED, "network pods", "IPv4 forwarding is off", True,
    ),
    "IPv6 forwarding off": Break(
        "sysctl -w net.ipv6.conf.cni0.force_forwarding=0", REPAIR, RED, "network pods", "IPv6 forwarding is off", True,
    ),
    "IPv6 off on the bridge": Break(
        "sysctl -w net.ipv6.conf.cni0.disable_ipv6=1", f"sysctl -w net.ipv6.conf.cni0.disable_ipv6=0; {REPAIR}", RED,
        "network pods", "IPv6 is off on cni0", True,
    ),
    "bridge with a small MTU": Break(
        "ip link set cni0 mtu 1200", "ip link set cni0 mtu 1500; sysctl -w net.ipv6.conf.cni0.accept_ra=0 "
        f"net.ipv6.conf.cni0.force_forwarding=1; {REPAIR}", RED, "network pods", "1200",
    ),
    # The firewall, ours and others'
    "tables flushed": Break("nft flush ruleset", RELOAD, RED, "firewall", "table inet cni_v6 is gone"),
    "a rule added": Break(
        "nft add rule inet cni_v6 publish accept", RELOAD, RED, "firewall", "chain publish has 7 rules",
    ),
    "element deleted": Break(
        "nft delete element inet cni_v6 published4 '{ '$A4' . \"cni0\" }'", RELOAD, RED, "network pods", "published4",
        True,
    ),
    "another table drops all": Break(DROP, GONE, RED, "network pods", "chain f of table inet other"),
    "another table drops what is routed": Break(DROP, GONE, RED, "network second", "chain f of table inet other"),
    "another table drops the rest": Break(
        f"{DROP}; nft add rule inet other f tcp dport 22 accept", GONE, AMBER, "network pods",
        "and none of them names cni0",
    ),
    "no nft": Break(
        "mount --bind /dev/null /usr/sbin/nft", "umount /usr/sbin/nft", AMBER, "firewall", "no program nft",
    ),
    # The kernel and the uplinks
    "no default route": Break(
        f"ip -6 route delete default dev {UPLINK}", f"ip -6 route add default via {OUTSIDE[6]} dev {UPLINK}", AMBER,
        "uplinks", "no default route of IPv6",
    ),
    "no address to masquerade with": Break(
        f"ip -6 address delete 2001:db8:ffff::1/64 dev {UPLINK}",
        f"ip -6 address add 2001:db8:ffff::1/64 dev {UPLINK} nodad", AMBER, "uplinks", "no global IPv6 address",
    ),
    "router advertisements ignored": Break(
        f"ip -6 route add default via {OUTSIDE[6]} dev {UPLINK} proto ra metric 9; "
        f"sysctl -w net.ipv6.conf.{UPLINK}.accept_ra=1 net.ipv6.conf.{UPLINK}.forwarding=1",
        f"ip -6 route delete default dev {UPLINK} metric 9; "
        f"sysctl -w net.ipv6.conf.{UPLINK}.forwarding=0", RED, "router advertisements", "accept_ra is 1",
    ),
    "strict rp_filter": Break(
        "sysctl -w net.ipv4.conf.cni0.rp_filter=1", "sysctl -w net.ipv4.conf.cni0.rp_filter=0", AMBER, "rp_filter",
        "cni0 filters strictly",
    ),
    "br_netfilter off under kube-proxy": Break(
        "nft add table ip nat; nft add chain ip nat KUBE-SERVICES; sysctl -w net.bridge.bridge-nf-call-iptables=0",
        "nft delete table ip nat; sysctl -w net.bridge.bridge-nf-call-iptables=1", AMBER, "br_netfilter", "is 0",
    ),
    # What the runtime is told
    "another network first": Break(
        conf("00-flannel.conflist", '{"name": "cbr0", "plugins": [{"type": "cni-v6"}]}').replace("cni-v6", "loopback"),
        "rm $CONF/00-flannel.conflist", AMBER, "runtime configurations",
        "00-flannel.conflist comes before 10-pods.conf",
    ),
    "damaged configuration": Break(
        conf("30-bad.conf", "{"), "rm $CONF/30-bad.conf", AMBER, "runtime configurations", "30-bad.conf cannot be read",
    ),
    "a name twice": Break(
        "cp $CONF/10-pods.conf $CONF/20-pods.conf", "rm $CONF/20-pods.conf", AMBER, "runtime configurations",
        "both name network pods",
    ),
    "a key misspelt": Break(
        conf("40-bad.conf", '{"cniVersion": "1.1.0", "name": "bad", "type": "cni-v6", "brigde": "cni0"}'),
        "rm $CONF/40-bad.conf", RED, "runtime configurations", "brigde",
    ),
    "a plugin missing": Break(
        "mv $BIN/cni-v6 $BIN/away", "mv $BIN/away $BIN/cni-v6", RED, "runtime plugins", "cni-v6 is not in",
    ),
    "no loopback": Break(
        "mv $BIN/loopback $BIN/away", "mv $BIN/away $BIN/loopback", AMBER, "runtime plugins", "loopback is not in",
    ),
    "a chained plugin missing": Break(
        conf("45-chained.conflist", '{"name": "chained", "plugins": [{"type": "portmap"}]}'),
        "rm $CONF/45-chained.conflist", RED, "runtime plugins", "portmap is not in",
    ),
    "no folder of plugins": Break("mv $BIN $BIN.away", "mv $BIN.away $BIN", AMBER, "runtime plugins", "does not exist"),
    # The stores
    "a damaged record": Break(
        "cp -p $STORE/attachments/a:eth0 $FULL.kept; : >$STORE/attachments/a:eth0",
        "mv $FULL.kept $STORE/attachments/a:eth0", AMBER, "records", "damaged: pods/a/eth0",
    ),
    "a folder in the place of a record": Break(
        "mkdir $STORE/attachments/x:eth0", "rmdir $STORE/attachments/x:eth0", RED, "records", "x:eth0: not a plain file"
    ),
    "records gone": Break(
        "mv $STORE /var/lib/cni/away", "rm -rf $STORE; mv /var/lib/cni/away $STORE", RED, "records",
        "without a record: pods/a", True,
    ),
    "a store that is read-only": Break(
        "mount --bind $STORES $STORES; mount -o remount,bind,ro $STORES", "umount $STORES", RED, "store",
        "is read-only",
    ),
    "a full disk": Break(
        'mkdir -p $FULL; mount -t tmpfs -o size=4k none $FULL; echo "$JSON" >$CONF/60-full.conf',
        "rm $CONF/60-full.conf; umount $FULL", RED, "store", "KiB are free",
    ),
    "no inodes": Break(
        'mkdir -p $FULL; mount -t tmpfs -o size=99m,nr_inodes=9 none $FULL; echo "$JSON" >$CONF/60-full.conf',
        "rm $CONF/60-full.conf; umount $FULL", RED, "store", "inodes are free",
    ),
    "a run folder for everybody": Break(
        "mkdir -p $CNI_V6_RUN_DIR; chmod 777 $CNI_V6_RUN_DIR", "chmod 700 $CNI_V6_RUN_DIR", AMBER, "engine",
        "mode 0777",
    ),
}


@dataclass(frozen=True)
class Place:
    """The broken node's, and what is on it."""

    node: Node
    conf: Path
    bin: Path
    pod: Pod

    def doctor(self) -> tuple[int, list[dict[str, str]]]:
        command = ("doctor", "--json", "--conf-dir", str(self.conf), "--bin-dir", str(self.bin))
        done = nft.ctl(self.node, *command, check=False)
        assert not done.stderr, done.stderr
        return done.returncode, json.loads(done.stdout)

    def run(self, script: str) -> None:
        stores, data_dir = networks.STORE, f"/run/full-{self.node.name}"
        full = networks.network("10.70.0.0/24", ipam={"dataDir": data_dir}, name="full", bridge="cni3")
        self.node.run("sh", "-ec", script, env={
            "HOST": self.pod.host, "A4": self.pod.address(4), "CONF": str(self.conf), "BIN": str(self.bin),
            "CTL": str(ROOT / "bin/cni-v6ctl"), "STORE": f"{stores}/pods", "STORES": stores,
            "FULL": data_dir, "JSON": json.dumps(full), **self.node.environment,
        })

    @contextmanager
    def broken(self, each: Break) -> Iterator[None]:
        self.run(each.spoil)
        try:
            yield
        finally:
            self.run(each.undo)

    def names(self, level: str, check: str, words: str) -> None:
        """It says so, and its exit status is that of the worst."""
        status, found = self.doctor()
        shown = "\n".join(f"{each['level']} {each['check']}: {each['message']}" for each in found)
        mine = [each for each in found if (each["level"], each["check"]) == (level, check) and words in each["message"]]
        assert mine, shown
        assert all(each["why"] and each["remedy"] for each in mine)
        assert status == max(["green", AMBER, RED].index(each["level"]) for each in found)

    def is_well(self) -> None:
        status, found = self.doctor()
        assert status == 0, [each for each in found if each["level"] != "green"]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """A node with two networks, a container in each and one in both, and no engine, which would mend what is broken."""
    folder = tmp_path_factory.mktemp("runtime")
    with closing(Node()) as node:
        node.environment["CNI_V6_RUN_DIR"] = f"/run/doctor-{node.name}"
        networks.outside(node)
        for family in (4, 6):
            node.run("ip", f"-{family}", "route", "add", "default", "via", OUTSIDE[family], "dev", UPLINK)
        made = Place(node, folder / "net.d", folder / "bin", Pod(node, NETWORK, "a"))
        made.conf.mkdir()
        made.bin.mkdir()
        for name in ("cni-v6", "cni-v6-routed", "cni-v6-ipam", "loopback"):
            (made.bin / name).symlink_to(ROOT / "bin" / name)
        (made.conf / "10-pods.conf").write_text(json.dumps(NETWORK))
        (made.conf / "15-second.conf").write_text(json.dumps(SECOND))
        made.pod.add()
        Pod(node, NETWORK, "b").add()
        Pod(node, SECOND, "b", "eth1").add()
        yield made


def test_a_healthy_node_is_green(place: Place) -> None:
    with place.node.unchanged():
        status, found = place.doctor()
        assert {each["level"] for each in found} == {"green"} and status == 0
    checks = {each["check"] for each in found}
    assert checks == {
        "kernel bridge", "kernel veth", "kernel nf_tables", "uplinks", "router advertisements", "rp_filter",
        "br_netfilter", "bridge ports", "neighbour table", "connection tracking", "clock", "firewall", "engine",
        "runtime configurations", "runtime plugins", "store", "locks", "records", "leaks", "addresses", "network pods",
        "network second",
        "CAP_NET_ADMIN",
    }
    assert rows_of_its_page() == {KIND_OF.get(check.split()[0], check) for check in checks} | {
        *KIND_OF.values(), "agent", "block"}, "each line has its row"
    printed = nft.ctl(place.node, "doctor", "--conf-dir", str(place.conf), "--bin-dir", str(place.bin)).stdout
    assert max(map(len, printed.splitlines())) <= 80 or str(place.conf) in printed
    assert printed.endswith(f"{len(found)} green\n")


KIND_OF = {"kernel": "kernel NAME", "network": "network NAME"}


def rows_of_its_page() -> set[str]:
    """The lines that docs/troubleshooting.md leads from to their symptoms."""
    page = ROOT.joinpath("docs/troubleshooting.md").read_text(encoding="utf-8")
    section = page.partition("### From its line to the symptom")[2].partition("\n## ")[0]
    return {row.replace("RUNTIME", "runtime") for row in re.findall(r"^\| `([^`]+)` \|", section, re.MULTILINE)}


def kinds_found(node: Node, folder: Path) -> dict[str, str]:
    """The level of each kind's finding, where ``folder`` has a network of each kind of child."""
    kinds: dict[str, dict[str, Any]] = {"macvlan": {}, "ipvlan": {}, "vlan": {"vlanId": 5}}
    ipam = {"type": "cni-v6-ipam", "ranges": [[{"subnet": "10.71.0.0/24"}]]}
    for kind, more in kinds.items():
        config = {"cniVersion": "1.0.0", "name": kind, "type": f"cni-v6-{kind}", "master": UPLINK, "ipam": ipam, **more}
        folder.joinpath(f"50-{kind}.conf").write_text(json.dumps(config))
    done = nft.ctl(node, "doctor", "--json", "--conf-dir", str(folder), "--bin-dir", str(folder), check=False)
    levels = {finding["check"]: finding["level"] for finding in json.loads(done.stdout)}
    return {kind: levels[f"kernel {kind}"] for kind in kinds}


def test_the_kinds_of_interfaces_that_networks_ask_for_are_tried(place: Place, tmp_path: Path) -> None:
    """``ip`` finds the same: not every kernel has all of them."""
    with place.node.unchanged():
        found = kinds_found(place.node, tmp_path)
    for kind, level in found.items():
        words = ("ip", "link", "add", "link", UPLINK, "name", "try0", "type", kind)
        made = place.node.run(*words, *(("id", "5") if kind == "vlan" else ()), check=False)
        place.node.run("ip", "link", "delete", "try0", check=not made.returncode)
        assert level == (RED if made.returncode else "green"), made.stderr


@pytest.mark.slow
@pytest.mark.parametrize("name", BREAKS)
def test_what_is_broken_is_named(place: Place, name: str) -> None:
    each = BREAKS[name]
    with place.broken(each):
        place.names(each.level, each.check, each.words.replace("$HOST", place.pod.host))
        if each.differs:
            done = nft.ctl(place.node, "check", check=False)
            assert done.returncode == 1 and not done.stderr, done
    place.is_well()


@pytest.mark.slow
def test_a_container_that_ended_without_a_del(place: Place) -> None:
    Pod(place.node, NETWORK, "gone").add()
    place.node.remove_container("gone")
    place.names(AMBER, "leaks", "1 ended without a DEL: pods/gone/eth0 (its network namespace has ended)")
    assert nft.ctl(place.node, "check", check=False).returncode == 1
    nft.ctl(place.node, "gc")
    place.is_well()


@pytest.mark.slow
def test_a_pool_that_is_used_up(place: Place) -> None:
    pod = Pod(place.node, TINY, "only")
    path = place.conf / "50-tiny.conf"
    path.write_text(json.dumps(TINY))
    try:
        place.is_well()
        pod.add()
        place.names(RED, "addresses", "tiny has no address left of 10.69.0.0/30 (10.69.0.1 to 10.69.0.2)")
    finally:
        path.unlink()
        pod.delete()
    place.is_well()


@pytest.mark.slow
@pytest.mark.parametrize("stopped", [False, True])
def test_who_holds_a_lock(place: Place, stopped: bool) -> None:
    lock = place.node.file(f"{networks.STORE}/pods/lock")
    with open(lock, "rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        holder = subprocess.Popen(["sleep", "600"], pass_fds=[file.fileno()])
    pid = os.getpid()  # the kernel notes who took the lock, though the child holds it now
    try:
        if stopped:
            os.kill(holder.pid, signal.SIGSTOP)
        place.names(RED, "locks", f"process {pid} holds the lock of network pods")
    finally:
        holder.kill()
        holder.wait()
    place.is_well()


@pytest.mark.slow
def test_a_container_that_can_change_the_node(place: Place) -> None:
    with subprocess.Popen(["nsenter", f"--net={place.pod.netns}", "sh", "-c", "echo; exec sleep 600"],
                          stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout and process.stdout.readline()
            place.names(AMBER, "CAP_NET_ADMIN", f"pods/a/eth0 (process {process.pid})")
        finally:
            process.kill()
    place.is_well()


@pytest.mark.slow
def test_an_engine_that_does_not_answer(warm_node: Node, tmp_path: Path) -> None:
    node = warm_node
    (tmp_path / "10-pods.conf").write_text(json.dumps(NETWORK))
    place = Place(node, tmp_path, ROOT / "bin", Pod(node, NETWORK, "a"))
    place.pod.add()

    def engine() -> dict[str, Any]:
        return next(each for each in place.doctor()[1] if each["check"] == "engine")

    said = engine()
    assert said["level"] == "green" and "answers" in said["message"]
    [pid] = [pid for pid in processes.inside({os.stat(node.path).st_ino}) if f"process {pid}," in said["message"]]
    os.kill(pid, signal.SIGSTOP)
    try:
        assert engine()["level"] == RED and f"kill -CONT {pid}" in engine()["remedy"]
    finally:
        os.kill(pid, signal.SIGCONT)
    assert engine()["level"] == "green"


@pytest.mark.slow
def test_what_is_safe_is_done(place: Place) -> None:
    """A bridge, the firewall's tables and a container are gone at once; the containers that run get all of it back."""
    Pod(place.node, NETWORK, "gone").add()
    place.node.remove_container("gone")
    place.run("ip link delete cni0; nft flush ruleset; sysctl -w net.ipv4.ip_forward=0")
    assert not place.pod.ping(networks.GATEWAY6, 1)
    command = ("doctor", "--fix", "--conf-dir", str(place.conf), "--bin-dir", str(place.bin))
    done = nft.ctl(place.node, *command, check=False)
    assert done.returncode == 0 and not done.stderr, done
    commands = [line for line in done.stdout.splitlines() if line.startswith("$ ")]
    assert commands == ["$ cni-v6ctl reload", "$ cni-v6ctl check --repair", "$ cni-v6ctl gc"]
    plan = " ".join(done.stdout.partition("\nplan:\n")[2].partition("\n$ ")[0].split())
    assert "reload load the firewall's tables anew, with " in plan and "check --repair network pods, " in plan
    assert " operations: create bridge cni0 " in plan and "set net/ipv4/ip_forward to 1" in plan
    assert "gc free pods/gone/eth0 " in plan
    assert done.stdout.endswith("\nall is green\n")
    place.is_well()
    assert place.pod.ping(networks.GATEWAY6) and place.pod.ping(OUTSIDE[4])
    again = nft.ctl(place.node, *command)
    assert "$ " not in again.stdout, "nothing is to be done"
