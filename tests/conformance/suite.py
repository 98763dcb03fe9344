"""Kubernetes' own tests: the programs that ``tools/kubernetes tests`` builds, their images, and a run."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from tests.conformance.results import Run, read_junit
from tests.runtimes.images import all_applets, archive, with_libraries
from tests.sandbox import ROOT

TOOLS = ROOT / ".tools/kubernetes/tests"
COREDNS = ROOT / ".tools/coredns"
BUILD = ROOT / "build/conformance"

OF_NETWORK = r"\[sig-network\]"
# What needs a program or a service beside a cluster, changes the whole of it, or takes long; features that are off.
OTHERS = (r"\[(Slow|Serial|Disruptive|Alpha|Experimental)\]|\[Provider:|Internet connection|"
          r"Feature:(Ingress|LoadBalancer|NetworkPolicy|Networking-|KubeProxyNFAcct|KubeProxyDaemonSet|PerformanceDNS)")
DUAL_STACK = "IPv6DualStack"
UNAVAILABLE = "SCTP|sctp"
AT_ONCE = 4
DEADLINE = "90m"

PROGRAMS = {  # of Debian, which the tests call in their pods -> package
    "curl": "curl", "dig": "bind9-dnsutils", "getent": "libc-bin", "nc.openbsd": "netcat-openbsd", "wget": "wget",
}
RST_SERVER = "regression-issue-74839"  # sends what is out of the window of its connections
DNS_IMAGE = "localhost/coredns:1"


def images(folder: Path) -> tuple[Path, ...]:
    """Archives with all images that the tests name: agnhost under their names, with the programs that the tests call in
    it, and one that is another program."""
    files = {f"/bin/{name.partition('.')[0]}": _program(name) for name in PROGRAMS}
    files |= {f"/{name}": TOOLS / name for name in ("agnhost", "localhost.crt", "localhost.key")}
    files["/coredns"] = COREDNS / "coredns"
    files["/bin/sh"] = Path("/bin/dash")  # busybox' own would run its nc in place of Debian's
    listed = subprocess.run((TOOLS / "e2e.test", "--list-images"), capture_output=True, text=True, check=True).stdout
    tags = {line for line in listed.split() if line.startswith("registry.k8s.io/")}
    other = {tag for tag in tags if f"/{RST_SERVER}:" in tag}
    return (
        archive(folder / "tests.tar", DNS_IMAGE, *sorted(tags - other), applets=all_applets(),
                files=with_libraries(files), entrypoint=("/agnhost",), command=("pause",)),
        archive(folder / "other.tar", *sorted(other), files={f"/{RST_SERVER}": TOOLS / RST_SERVER},
                entrypoint=(f"/{RST_SERVER}",)),
    )


def _program(name: str) -> Path:
    path = shutil.which(name)
    assert path, f"needs {name} of the package {PROGRAMS[name]}"
    return Path(path)


def run(name: str, kubeconfig: str, nodes: int, families: int, only: str = "") -> Run:
    """Run the selected tests, and give what they say. Everything that they print is in a folder of ``BUILD``.

    :param only: the tests whose names this pattern finds, in place of those that are about a cluster's network.
    """
    folder = BUILD / name.replace(" ", "-")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    others = [] if only else [OTHERS]
    others += [DUAL_STACK] if families == 1 else []
    focus, skip = only or OF_NETWORK, "|".join((UNAVAILABLE, *others))
    argv = [
        str(TOOLS / "ginkgo"), f"--procs={AT_ONCE}", f"--timeout={DEADLINE}", "--no-color", f"--focus={focus}",
        f"--skip={skip}", "-v", "--silence-skips", str(TOOLS / "e2e.test"), "--", f"--kubeconfig={kubeconfig}",
        "--provider=skeleton", f"--num-nodes={nodes}", f"--kubectl-path={TOOLS}/kubectl", f"--report-dir={folder}",
        "--disable-log-dump",
    ]
    start = time.monotonic()
    with open(folder / "log", "wb") as log:
        subprocess.run(argv, env=_environment(folder), cwd=folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                       check=False)  # it fails if a test does
    minutes = round((time.monotonic() - start) / 60, 1)
    report = folder / "junit_01.xml"
    assert report.exists(), f"no report:\n{(folder / 'log').read_text(errors='replace')[-8000:]}"
    selected = re.compile(f"^(?!.*({'|'.join(others)})).*({focus})" if others else focus)
    found = read_junit(report.read_text(errors="replace"), selected, re.compile(UNAVAILABLE))
    return replace(found, minutes=minutes)


def _environment(folder: Path) -> Mapping[str, str]:
    return {"PATH": f"{TOOLS}:{os.environ['PATH']}", "HOME": str(folder), "LC_ALL": "C"}
