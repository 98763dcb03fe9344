"""A real Kubernetes API server of the test's own, with an etcd: what tools/kubernetes builds."""

from __future__ import annotations

import select
import ssl
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

import pytest

from tests.etcd import PATIENCE, Etcd, certificates, etcd, own_address
from tests.kube_api import AGENT_TOKEN, TOKEN, Api, ask, kubeconfig
from tests.sandbox import COMMANDS, ROOT, need

PROGRAM = ROOT / ".tools/kubernetes/bin/kube-apiserver"
PORT = 6443
START_SECONDS = 120.0


ALONE = (  # of a server without a cluster
    "--authorization-mode=RBAC", "--service-cluster-ip-range=10.96.0.0/24", "--endpoint-reconciler-type=none",
    "--disable-admission-plugins=ServiceAccount",
)
# Lines of --token-auth-file: token, name, UID, groups.
ADMIN = f'{TOKEN},admin,admin,"system:masters"'
AGENT = f'{AGENT_TOKEN},system:serviceaccount:cni-v6:cni-v6-agent,agent,"system:serviceaccounts"'


class ApiServer:
    """
    :param store: its etcd.
    :param options: of its own.
    :param others: addresses that clients know it by, besides its own.
    """

    def __init__(
        self, folder: Path, address: str, store: Etcd, *, options: Sequence[str], users: Sequence[str],
        others: Iterable[str],
    ) -> None:
        self._folder = folder
        authority, certificate, key = certificates(folder, address, *others)
        self.url = f"https://{f'[{address}]' if ':' in address else address}:{PORT}"
        self.cafile: str | None = authority
        self.authority = authority
        self.kubeconfig = kubeconfig(folder / "kubeconfig", self.url, "default", authority)
        self.accounts = folder / "accounts.key"  # signs the tokens of service accounts
        public = folder / "accounts.pub"
        key_argv = ("openssl", "genrsa", "-out", self.accounts, "2048")
        for argv in (key_argv, ("openssl", "rsa", "-in", self.accounts, "-pubout", "-out", public)):
            subprocess.run(argv, env=COMMANDS, check=True, capture_output=True)
        folder.joinpath("tokens.csv").write_text("\n".join([ADMIN, *users, ""]))
        self._argv = (
            str(PROGRAM), f"--etcd-servers={store.url}", f"--bind-address={address}", f"--secure-port={PORT}",
            f"--advertise-address={address}", f"--tls-cert-file={certificate}", f"--tls-private-key-file={key}",
            f"--token-auth-file={folder}/tokens.csv", "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={public}", f"--service-account-signing-key-file={self.accounts}",
            f"--cert-dir={folder}", *options,
        )
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        log = self._folder / "log"
        with open(log, "ab") as out:
            self._process = subprocess.Popen(self._argv, env=COMMANDS, stdin=subprocess.DEVNULL, stdout=out, stderr=out)
        _await(self._process, self.url, self.authority, log)

    def stop(self) -> None:
        if self._process:
            self._process.kill()
            self._process.wait()
            self._process = None


@contextmanager
def kube_apiserver(
    address: str, *, options: Sequence[str] = ALONE, users: Sequence[str] = (AGENT,), others: Iterable[str] = ()
) -> Iterator[ApiServer]:
    """One that serves, with everything allowed to TOKEN; arguments as of ``ApiServer``."""
    need(str(PROGRAM) if PROGRAM.exists() else None, "needs a Kubernetes API server: tools/kubernetes builds it")
    with TemporaryDirectory(prefix="kube-apiserver-") as name, etcd(own_address()) as store:
        _age(store)
        made = ApiServer(Path(name), address, store, options=options, users=users, others=others)
        try:
            made.start()
            yield made
        finally:
            made.stop()


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
