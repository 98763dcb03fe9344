"""A real Kubernetes API server of the test's own, with an etcd: what tools/kubernetes builds."""

from __future__ import annotations

import select
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

import pytest

from tests.etcd import PATIENCE, Etcd, certificates, etcd
from tests.kube_api import AGENT_TOKEN, TOKEN, Api, ask, kubeconfig
from tests.sandbox import COMMANDS, ROOT, need

PROGRAM = ROOT / ".tools/kubernetes/bin/kube-apiserver"
PORT = 6443
START_SECONDS = 120.0


class ApiServer:
    def __init__(self, url: str, cafile: str, kubeconfig: str) -> None:
        self.url = url
        self.cafile: str | None = cafile
        self.kubeconfig = kubeconfig


@contextmanager
def kube_apiserver(address: str) -> Iterator[ApiServer]:
    """One that serves on an address of the loopback interface, with everything allowed to TOKEN."""
    need(str(PROGRAM) if PROGRAM.exists() else None, "needs a Kubernetes API server: tools/kubernetes builds it")
    with TemporaryDirectory(prefix="kube-apiserver-") as name, etcd(address) as store:
        folder = Path(name)
        _age(store)
        authority, certificate, key = certificates(folder, address)
        account = "system:serviceaccount:cni-v6:cni-v6-agent"
        folder.joinpath("tokens.csv").write_text(
            f'{TOKEN},admin,admin,"system:masters"\n{AGENT_TOKEN},{account},agent,"system:serviceaccounts"\n')
        accounts = folder / "accounts"
        subprocess.run(("openssl", "genrsa", "-out", f"{accounts}.key", "2048"), env=COMMANDS, check=True,
                       capture_output=True)
        subprocess.run(("openssl", "rsa", "-in", f"{accounts}.key", "-pubout", "-out", f"{accounts}.pub"), env=COMMANDS,
                       check=True, capture_output=True)
        argv = (
            str(PROGRAM), f"--etcd-servers={store.url}", f"--bind-address={address}", f"--secure-port={PORT}",
            f"--advertise-address={address}", f"--tls-cert-file={certificate}", f"--tls-private-key-file={key}",
            f"--token-auth-file={folder}/tokens.csv", "--authorization-mode=RBAC",
            "--service-cluster-ip-range=10.96.0.0/24", "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={accounts}.pub", f"--service-account-signing-key-file={accounts}.key",
            "--endpoint-reconciler-type=none", f"--cert-dir={folder}", "--disable-admission-plugins=ServiceAccount",
        )
        url = f"https://{address}:{PORT}"
        with open(folder / "log", "wb") as log:
            process = subprocess.Popen(argv, env=COMMANDS, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            _await(process, url, authority, folder / "log")
            yield ApiServer(url, authority, kubeconfig(folder / "kubeconfig", url, "default", authority))
        finally:
            process.kill()
            process.wait()


def _age(store: Etcd) -> None:
    """Revisions before the API server's own: it tells nothing of them, as after a compaction."""
    for _ in range(9):
        request = Request(f"{store.url}/v3/kv/put", b'{"key": "eA==", "value": "eA=="}')
        urlopen(request, timeout=PATIENCE).close()


def _await(process: subprocess.Popen[bytes], url: str, authority: str, log: Path) -> None:
    """Until it is ready. It tells nobody, so it must be asked."""
    trusted = ssl.create_default_context(cafile=authority)
    end = monotonic() + START_SECONDS
    while monotonic() < end and process.poll() is None:
        request = Request(f"{url}/readyz", headers={"Authorization": f"Bearer {TOKEN}"})
        try:
            with urlopen(request, timeout=10, context=trusted):
                return
        except (HTTPError, URLError, OSError):
            select.select([], [], [], 0.2)
    pytest.fail(f"kube-apiserver has not come up:\n{log.read_text(errors='replace')[-3000:]}")


def make_namespace(api: Api, name: str) -> None:
    status, made = ask(api, "POST", "/api/v1/namespaces", {
        "apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    assert status == 201, made
