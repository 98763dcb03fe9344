"""Where a node's runtimes look for plugins, asked of their own configuration."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cni_v6.ctl.runtime_folders import PODMAN_BIN_DIRS, Runtime, runtimes
from cni_v6.errors import CniError

DEFAULT = (("/opt/cni/bin",), "/etc/cni/net.d")


def write(root: Path, path: str, content: str) -> None:
    target = root / path.lstrip("/")
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(content, encoding="utf-8")


def process(root: Path, pid: int, *words: str, root_of: str = ".", user: int = 0) -> None:
    """A process with a command line; ``root_of``: its root folder, below the node's; ``user``: who started it."""
    write(root, f"/proc/{pid}/cmdline", "\0".join(words))
    write(root, f"/proc/{pid}/status", f"Name:\t{words[0][:15]}\nUid:\t{user}\t0\t0\t0\nGid:\t0\t0\t0\t0\n")
    root.joinpath(f"proc/{pid}/root").symlink_to(root / root_of)


def found(root: Path) -> dict[str, tuple[tuple[str, ...], str]]:
    return {each.name: (each.bin_dirs, each.conf_dir) for each in runtimes(str(root))}


def test_a_node_without_a_runtime_has_none(tmp_path: Path) -> None:
    assert runtimes(str(tmp_path)) == []


@pytest.mark.parametrize(
    ("version", "table"),
    [
        ("", "plugins.cri.cni"),
        ("version = 2", 'plugins."io.containerd.grpc.v1.cri".cni'),
        ("version = 3", "plugins.'io.containerd.cri.v1.runtime'.cni"),
    ],
)
def test_containerd_has_a_table_for_each_version_of_its_file(tmp_path: Path, version: str, table: str) -> None:
    content = f'{version}\n[{table}]\nbin_dir = "/usr/lib/cni/"\nconf_dir = "/etc/other"\n'
    write(tmp_path, "/etc/containerd/config.toml", content)
    wanted = Runtime("containerd", "/etc/containerd/config.toml", ("/usr/lib/cni",), "/etc/other")
    assert runtimes(str(tmp_path)) == [wanted]


def test_another_versions_table_does_not_count(tmp_path: Path) -> None:
    content = 'version = 3\n[plugins."io.containerd.grpc.v1.cri".cni]\nbin_dir = "/usr/lib/cni"\n'
    write(tmp_path, "/etc/containerd/config.toml", content)
    assert found(tmp_path) == {"containerd": DEFAULT}


def test_containerd_of_version_3_may_have_several_folders(tmp_path: Path) -> None:
    content = 'version = 3\n[plugins."io.containerd.cri.v1.runtime".cni]\nbin_dirs = ["/a", "/opt/cni/bin"]\n'
    write(tmp_path, "/etc/containerd/config.toml", content)
    assert found(tmp_path) == {"containerd": (("/a", "/opt/cni/bin"), "/etc/cni/net.d")}


def test_an_imported_file_replaces_the_table_of_a_plugin(tmp_path: Path) -> None:
    plugin = 'plugins."io.containerd.grpc.v1.cri"'
    first = f'version = 2\nimports = ["/etc/containerd/conf.d/*.toml", "more.toml"]\n[{plugin}.cni]\nbin_dir = "/a"\n'
    write(tmp_path, "/etc/containerd/config.toml", first)
    write(tmp_path, "/etc/containerd/conf.d/10.toml", f'version = 2\n[{plugin}]\nenable_selinux = false\n')
    assert found(tmp_path) == {"containerd": DEFAULT}
    write(tmp_path, "/etc/containerd/conf.d/20.toml", f'version = 2\n[{plugin}.cni]\nbin_dir = "/b"\n')
    assert found(tmp_path)["containerd"][0] == ("/b",)
    back = f'version = 2\nimports = ["config.toml"]\n[{plugin}.cni]\nbin_dir = "/c"\n'
    write(tmp_path, "/etc/containerd/more.toml", back)
    assert found(tmp_path)["containerd"][0] == ("/c",)


@pytest.mark.parametrize("words", [["-c", "/k3s.toml"], ["--config", "/k3s.toml"], ["--config=/k3s.toml"]])
def test_a_running_containerd_says_which_file_it_reads(tmp_path: Path, words: list[str]) -> None:
    process(tmp_path, 17, "/usr/bin/containerd", *words, "--log-level", "info", "")
    process(tmp_path, 18, "containerd-shim-runc-v2", "-c", "/nothing.toml", "")
    write(tmp_path, "/etc/containerd/config.toml", 'version = 2\n')
    write(tmp_path, "/k3s.toml", 'version = 3\n[plugins."io.containerd.cri.v1.runtime".cni]\nbin_dir = "/k3s"\n')
    assert runtimes(str(tmp_path)) == [Runtime("containerd", "/k3s.toml", ("/k3s",), "/etc/cni/net.d")]


def test_not_everybodys_process_says_where_plugins_go(tmp_path: Path) -> None:
    volume = "/var/lib/kubelet/pods/1/volumes/v.toml"
    write(tmp_path, volume, 'version = 3\n[plugins."io.containerd.cri.v1.runtime".cni]\nbin_dir = "/etc/cron.d"\n')
    write(tmp_path, "/etc/containerd/config.toml", "version = 2\n")
    tmp_path.joinpath("var/lib/overlay").mkdir()
    process(tmp_path, 17, "containerd", "--config", volume, root_of="var/lib/overlay")
    process(tmp_path, 18, "crio", "--config", volume, root_of="nowhere")  # it ends while we look
    process(tmp_path, 19, "containerd", "--config", volume, user=os.geteuid() + 1000)  # a person's, perhaps setuid
    assert found(tmp_path) == {"containerd": DEFAULT}


def test_a_containerd_without_its_cri_service_has_no_use_for_plugins(tmp_path: Path) -> None:
    write(tmp_path, "/etc/containerd/config.toml", 'disabled_plugins = ["cri"]\n')
    assert runtimes(str(tmp_path)) == []


def test_crios_later_files_win_key_by_key(tmp_path: Path) -> None:
    write(tmp_path, "/etc/crio/crio.conf", '[crio.network]\nnetwork_dir = "/net"\nplugin_dirs = ["/first/"]\n')
    write(tmp_path, "/etc/crio/crio.conf.d/10-a.conf", '[crio.network]\nplugin_dirs = ["/a", "/opt/cni/bin/"]\n')
    write(tmp_path, "/etc/crio/crio.conf.d/20-b.conf", '[crio.runtime]\nlog_level = "info"\n')
    wanted = Runtime("CRI-O", "/etc/crio/crio.conf.d/10-a.conf", ("/a", "/opt/cni/bin"), "/net")
    assert runtimes(str(tmp_path)) == [wanted]


def test_crio_needs_no_first_file(tmp_path: Path) -> None:
    write(tmp_path, "/etc/crio/crio.conf.d/10-a.conf", '[crio.network]\nplugin_dir = "/old"\n')
    assert found(tmp_path) == {"CRI-O": (("/old",), "/etc/cni/net.d")}


def test_podman_counts_with_its_cni_backend_alone(tmp_path: Path) -> None:
    write(tmp_path, "/etc/containers/containers.conf", '[network]\ncni_plugin_dirs = ["/p"]\n')
    assert runtimes(str(tmp_path)) == []
    write(tmp_path, "/etc/containers/containers.conf.d/net.conf", '[network]\nnetwork_backend = "cni"\n')
    assert found(tmp_path) == {"podman": (("/p",), "/etc/cni/net.d")}


def test_podman_may_have_chosen_its_backend_itself(tmp_path: Path) -> None:
    write(tmp_path, "/var/lib/containers/storage/defaultNetworkBackend", "cni")
    assert runtimes(str(tmp_path)) == [Runtime("podman", "", PODMAN_BIN_DIRS, "/etc/cni/net.d")]


def test_nerdctl(tmp_path: Path) -> None:
    write(tmp_path, "/etc/nerdctl/nerdctl.toml", 'cni_path = "/n"\ncni_netconfpath = "/etc/n"\n')
    assert found(tmp_path) == {"nerdctl": (("/n",), "/etc/n")}


def test_values_of_another_type_count_as_not_there(tmp_path: Path) -> None:
    write(tmp_path, "/etc/crio/crio.conf", '[crio]\nnetwork = 5\n')
    write(tmp_path, "/etc/nerdctl/nerdctl.toml", 'cni_path = ["/n"]\ncni_netconfpath = 3\n')
    write(tmp_path, "/etc/containerd/config.toml", 'version = []\nimports = "x"\nplugins = 7\n')
    assert found(tmp_path) == {"containerd": DEFAULT, "CRI-O": DEFAULT, "nerdctl": DEFAULT}


@pytest.mark.parametrize("content", [b"bin_dir = ", b"\xff\xfe"])
def test_a_file_that_is_no_toml_is_named(tmp_path: Path, content: bytes) -> None:
    write(tmp_path, "/etc/containerd/config.toml", "")
    tmp_path.joinpath("etc/containerd/config.toml").write_bytes(content)
    with pytest.raises(CniError, match="/etc/containerd/config.toml is not valid TOML"):
        runtimes(str(tmp_path))
