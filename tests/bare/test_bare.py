"""On a bare Debian, from a fresh clone, as somebody does who has installed nothing by hand: the first commands of all.

What they need they must install themselves, or the page that names the command must name the package. Everything a
command finds in here is what ``tools/bare`` put there, or a command before it.
"""

from __future__ import annotations

import json
import os
import re
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.bare.root import Root, bare
from tests.pages import STEPS, Block, blocks
from tests.runtimes.images import archive
from tests.runtimes.node import CGROUPS
from tests.sandbox import ROOT

# Those that README says are tested; one after the other what waits for the same archive.
RELEASES = [pytest.param(name, marks=pytest.mark.xdist_group(f"bare {name}")) for name in ("bookworm", "trixie")]
SAMPLES = sorted(path.name for path in ROOT.glob("conf/*.conflist"))
OURS = {"cni-v6", "cni-v6-routed", "cni-v6-macvlan", "cni-v6-ipvlan", "cni-v6-vlan", "cni-v6-ipam"}
FOLDERS = "/opt/cni/bin:/usr/lib/cni"  # ours, and where Debian keeps the reference plugins
INSTALLED = "/usr/local/share/cni-v6"
REFERENCE_PLUGINS = "containernetworking-plugins"  # docs/runtimes.md, "Install"

README = ROOT / "README.md"
PACKAGES = ("containerd", "musl-tools")  # which README names
IMAGE = "docker.io/library/busybox:latest"
PULL = f"ctr image pull {IMAGE}\n"
# Returns once containerd says that it is ready (sd_notify(3)), and leaves it running.
START = """
import os, socket, subprocess
with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ready, open("/var/log/containerd", "wb") as log:
    ready.bind("/run/ready")
    ready.settimeout(60)
    print(subprocess.Popen(["containerd"], env={**os.environ, "NOTIFY_SOCKET": "/run/ready"}, start_new_session=True,
                           stdin=subprocess.DEVNULL, stdout=log, stderr=log).pid)
    while b"READY=1" not in ready.recv(4096):
        pass
"""

# Packages are downloaded and installed, and .venv is made.
pytestmark = [pytest.mark.timeout(900)]


@pytest.fixture(params=RELEASES)
def root(request: pytest.FixtureRequest) -> Iterator[Root]:
    with bare(request.param) as made:
        yield made


def test_the_demo_works_and_two_containers_talk_by_the_readmes_commands(root: Root, tmp_path: Path) -> None:
    """Under Debian's containerd, as it is configured there. The image alone is not pulled: nothing can be in here."""
    [demo] = STEPS[README]
    assert not (difference := demo.difference(root.run(demo.command))), difference
    [block] = [block for block in blocks(README) if "test_bare.py" in block.mark]
    steps = list(Block("run", block.kind, block.text).steps())
    assert len(steps) <= 5 and PULL in [step.command for step in steps]
    assert all(f"`{name}`" in README.read_text(encoding="utf-8") for name in PACKAGES)
    root.run(f"tools/packages {' '.join(PACKAGES)}")
    root.bring(archive(tmp_path / "busybox.tar", IMAGE), "/tmp/busybox.tar")
    with containerd(root) as before:
        root.own(f"{before}ctr image import /tmp/busybox.tar")
        for step in steps:
            if step.command.startswith("make "):
                printed = root.run(step.command)
            elif step.command != PULL:
                printed = root.own(before + step.command)
            assert re.search(r"\b0% packet loss", printed) or "ping" not in step.command, printed
        assert step.difference(printed) == "", "the last one prints what the page says"
        root.own(f"{before}ctr task delete --force alpha")


@contextmanager
def containerd(root: Root) -> Iterator[str]:
    """It runs in the root's own network; what to write before ``ctr``. Its containers' control group goes at the end:
    it is the machine's."""
    namespace = f"cni-v6-bare-{os.urandom(4).hex()}"
    root.run(CGROUPS)
    pid = root.own(f"python3 -c {shlex.quote(START)} || {{ cat /var/log/containerd; exit 1; }}").strip()
    try:
        yield f"export CONTAINERD_NAMESPACE={namespace}\n"
    finally:
        root.run(f"kill {pid}; tail --pid={pid} --follow /dev/null")
        root.run(f"find /sys/fs/cgroup -depth -path '*/{namespace}*' -type d -exec rmdir {{}} ';'")


def test_each_sample_attaches_a_container_after_make_install_alone(root: Root) -> None:
    last = root.run("make install").splitlines()[-1]
    assert last.startswith("nothing is missing that the plugins need at run time"), last
    lists = {sample: json.loads(root.run(f"cat {INSTALLED}/{sample}")) for sample in SAMPLES}
    ours = {sample for sample, network in lists.items() if {each["type"] for each in network["plugins"]} <= OURS
            and not any("master" in each for each in network["plugins"])}
    assert ours, "some of the samples need no other plugin"
    for sample in sorted(ours):
        attach(root, lists[sample])
    # The others chain one of the reference plugins, or want an interface, which Debian makes with iproute2.
    root.run(f"tools/packages {REFERENCE_PLUGINS} iproute2")
    root.own("ip link add eth0 type veth peer name eth0-peer && ip link set eth0 up && ip link set eth0-peer up")
    for sample in sorted(lists.keys() - ours):
        attach(root, lists[sample])


def test_make_test_brings_what_the_tests_call(root: Root) -> None:
    """The pages' commands, which call most of it, and what Debian's own interpreter imports; none is skipped."""
    part = "tests/process/test_docs.py tests/test_layers.py -n 1"
    printed = root.run(f"CNI_V6_REQUIRE_ALL=1 make test ARGS='{part} -m \"not runtimes\"'")
    assert " passed" in printed and " skipped" not in printed, printed


def attach(root: Root, network: dict[str, Any]) -> None:
    """ADD, CHECK and DEL of a first container, as a runtime calls for them: the result goes from plugin to plugin."""
    netns = f"/run/netns/{network['name']}"
    root.run(f"touch {netns} && unshare --net={netns} true")
    plugins = network["plugins"]
    result: Any = None
    for plugin in plugins:
        result = json.loads(call(root, "ADD", network, plugin, netns, result))
    assert result["ips"], result
    for plugin in plugins:
        assert call(root, "CHECK", network, plugin, netns, result) == ""
    for plugin in reversed(plugins):
        assert call(root, "DEL", network, plugin, netns, result) == ""
    folder = Path(plugins[0]["ipam"].get("dataDir", "/var/lib/cni/networks"), network["name"])
    assert root.run(f"ls {folder}/attachments") == "", "the lease has gone"


def call(
    root: Root, command: str, network: dict[str, Any], plugin: dict[str, Any], netns: str, result: Any,
    container: str = "first",
) -> str:
    config = {"name": network["name"], "cniVersion": network["cniVersion"], **plugin}
    if result:
        config["prevResult"] = result
    variables = (
        f"env CNI_COMMAND={command} CNI_CONTAINERID={container} CNI_NETNS={netns} CNI_IFNAME=eth0 CNI_PATH={FOLDERS} "
        f"PATH={FOLDERS}:$PATH"
    )
    # A log goes to standard error; of a failure everything is wanted.
    script = f"printf %s {shlex.quote(json.dumps(config))} | {variables} {plugin['type']} 2>/tmp/log"
    return root.own(f"{script} || {{ cat /tmp/log; exit 1; }}")
