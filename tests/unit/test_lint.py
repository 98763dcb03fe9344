"""What lint says of configuration files."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from cni_v6.config.main import ForeignIpam
from cni_v6.ctl import lint as command, main
from cni_v6.kernel.facts import RouteEntry, Surroundings, Uplink
from cni_v6.plan.lint import addresses, document
from cni_v6.plan.lint.addresses import Node, Other
from cni_v6.plan.lint.remark import ERROR, RULES, WARNING, Remark, line_of, worst
from tests.unit.fake_context import FakeContext
from tests.unit.sample_values import conf, ipam_conf, range_set

ROOT = Path(__file__).resolve().parents[2]
Capture = pytest.CaptureFixture[str]
GOOD: dict[str, Any] = {
    "cniVersion": "1.0.0", "name": "pods", "plugins": [{
        "type": "cni-v6", "bridge": "cni0", "isDefaultGateway": True, "ingress": "open",
        "masquerade": {"ipv4": "auto", "ipv6": "auto"}, "capabilities": {"portMappings": True},
        "ipam": {"type": "cni-v6-ipam", "ranges": [[{"subnet": "fd42:1:2:3::/64"}], [{"subnet": "10.1.0.0/16"}]]},
    }],
}


def written(folder: Path, content: object, name: str = "10-pods.conflist") -> Path:
    path = folder / name
    path.write_text(content if isinstance(content, str) else json.dumps(content, indent=1))
    return path


def remarks(capsys: Capture, *paths: Path, status: int, more: tuple[str, ...] = ("--no-node",)) -> list[dict[str, Any]]:
    assert main(["lint", "--json", *more, *map(str, paths)]) == status
    found: list[dict[str, Any]] = json.loads(capsys.readouterr().out)
    assert all(each["why"] and each["remedy"] for each in found)
    return found


def changed(**keys: object) -> dict[str, Any]:
    plugin = {key: value for key, value in (GOOD["plugins"][0] | keys).items() if value is not None}
    return GOOD | {"plugins": [plugin]}


def chained(*others: object, **keys: object) -> dict[str, Any]:
    return GOOD | {"plugins": [*changed(**keys)["plugins"], *others]}


def ranges(*subnets: str) -> dict[str, Any]:
    return {"type": "cni-v6-ipam", "ranges": [[{"subnet": subnet}] for subnet in subnets]}


@pytest.mark.parametrize(("content", "status", "words"), [
    (GOOD | {"plugins": {}}, 2, ["plugins is not a list with a plugin in it"]),
    (GOOD | {"plugins": []}, 2, ["plugins is not a list with a plugin in it"]),
    (chained(5, None, {"type": ["tuning"]}, {"type": "tuning"}), 2,
     [f"plugins[{at}] is not an object with a type, which is a string" for at in (1, 2, 3)]),
    (chained({"type": "tuning"}), 0, []),
])
def test_a_list_that_a_runtime_refuses(
    tmp_path: Path, capsys: Capture, content: object, status: int, words: list[str]
) -> None:
    found = remarks(capsys, written(tmp_path, content), status=status)
    assert [each["message"] for each in found if each["rule"] == "plugins"] == words


def test_samples_have_no_remarks_but_for_the_documentation_prefix(capsys: Capture) -> None:
    paths = [path for path in sorted((ROOT / "conf").glob("*.conflist"))]
    [found] = remarks(capsys, *paths, status=1)
    assert (Path(found["file"]).name, found["rule"]) == ("10-cni-v6-ipv6only.conflist", "documentation-prefix")
    assert '"subnet"' in Path(found["file"]).read_text().splitlines()[found["line"] - 1]


@pytest.mark.parametrize("content, rule, level, words", [
    ("{", "not-json", ERROR, "10-pods.conflist"),
    ('{"name": "a", "name": "b", "plugins": [{"type": "x"}]}', "written-twice", WARNING, "is written twice"),
    (GOOD | {"plugins": [{"type": "flannel"}]}, "no-plugin", WARNING, "has no plugin of type cni-v6"),
    (GOOD["plugins"][0] | {"name": "pods", "cniVersion": "1.0.0"}, "file-name", ERROR, "has one plugin"),
    (GOOD | {"cniVersion": "", "cniVersions": ["1.0.0"]}, "version", WARNING, "cniVersion is missing"),
    (changed(brigde="cni0"), "refused", ERROR, "brigde"),
    (changed(mtu=1000), "refused", ERROR, "is below 1280"),
    (changed(bridge="a" * 20), "refused", ERROR, "bridge"),
    (changed(ipam=ranges("fd42:1:2:3::/64") | {"routes": [{"dst": "fd42::1/16"}]}), "said", WARNING, "host bits"),
    (changed(masquerade=None), "unreachable", WARNING, "fd42:1:2:3::/64 is a unique local prefix"),
    (changed(masquerade={"ipv4": "off", "ipv6": "auto"}), "unreachable", WARNING, "10.1.0.0/16 is a private prefix"),
    (changed(isDefaultGateway=None, isGateway=True), "no-default-route", WARNING, "containers get no route through it"),
    (changed(capabilities={"portMappings": True, "aliases": True}), "capability", WARNING, "capability 'aliases' goes"),
    (chained({"type": "portmap", "capabilities": {"portMappings": True}}), "ports-twice", WARNING,
     "cni-v6 and portmap have"),
    (chained({"type": "bandwidth", "capabilities": {"bandwidth": True}}, capabilities={"bandwidth": True}),
     "bandwidth-twice", WARNING, "cni-v6 and bandwidth have"),
    (chained({"type": "portmap", "capabilities": {"mac": True}}), "capability", WARNING, "portmap does not read it"),
    (chained({"type": "tuning", "mac": "02:00:00:00:00:01"}), "mac", WARNING, "plugins[1]: tuning changes the MAC"),
    (changed(ipam=ranges("2001:db8:1::/64")), "documentation-prefix", WARNING, "2001:db8:1::/64 is for documentation"),
])
def test_a_remark(tmp_path: Path, capsys: Capture, content: object, rule: str, level: str, words: str) -> None:
    path = written(tmp_path, content)
    found = remarks(capsys, path, status=2 if level == ERROR else 1)
    matching = [each for each in found if (each["rule"], each["level"]) == (rule, level) and words in each["message"]]
    assert len(matching) == 1, found
    assert {each["level"] for each in found} <= {level, WARNING}


def test_a_file_that_is_not_there(tmp_path: Path, capsys: Capture) -> None:
    [found] = remarks(capsys, tmp_path / "none.conflist", status=2)
    assert found["message"] == "it cannot be read: No such file or directory"


def test_what_no_runtime_reads(tmp_path: Path, capsys: Capture) -> None:
    [found] = remarks(capsys, written(tmp_path, GOOD, "pods.yaml"), status=1)
    assert found["rule"] == "file-name" and found["message"] == "no runtime reads a file named pods.yaml"
    [bare] = document.form("pods", GOOD)
    assert bare.rule == "file-name"
    assert list(document.form("10-x.conf", {"type": "cni-v6", "cniVersion": "1.0.0"})) == []
    [other] = document.form("10-x.conf", GOOD)
    assert other.remedy == "call it 10-x.conflist"


@pytest.mark.parametrize("name, more", [
    ("10-k8s.conflist", ("--no-node",)), ("10-pods.conflist", ("--no-node", "--kubernetes")),
])
def test_a_network_of_pods(tmp_path: Path, capsys: Capture, name: str, more: tuple[str, ...]) -> None:
    small = changed(ipam=ranges("fd42:1:2:3::/64", "10.1.0.0/26"), ingress=None, capabilities=None)
    found = remarks(capsys, written(tmp_path, small, name), status=1, more=more)
    assert [each["rule"] for each in found] == ["no-ports", "ingress", "too-small"]
    assert found[2]["message"] == "ipam.ranges[1] has 61 addresses, for 110 pods"
    assert remarks(capsys, written(tmp_path, small, "10-x.conflist"), status=0) == []
    assert len(remarks(capsys, tmp_path / name, status=1, more=(*more, "--pods", "61"))) == 2


def test_networks_that_overlap(tmp_path: Path, capsys: Capture) -> None:
    one = written(tmp_path, GOOD)
    two = written(tmp_path, GOOD | {"name": "two"}, "20-two.conflist")
    same = written(tmp_path, changed(ipam=ranges("fd42:9::/64")), "30-same.conflist")
    inner = {"type": "other", "subnet": "10.1.128.0/17", "podCidr": 5, "more": [{"subnet": "x/24"}, {"subnet": "::"}]}
    other = written(tmp_path, {"name": "cbr0", "plugins": [{"type": "bridge", "ipam": inner}]}, "40-cbr0.conflist")
    found = remarks(capsys, one, two, same, other, status=2)
    said = {(Path(each["file"]).name, each["rule"], each["message"].partition(str(tmp_path))[0]) for each in found}
    assert ("10-pods.conflist", "overlap", "fd42:1:2:3::/64 overlaps with fd42:1:2:3::/64 of network two (") in said
    assert ("10-pods.conflist", "overlap", "10.1.0.0/16 overlaps with 10.1.128.0/17 of network cbr0 (") in said
    assert ("20-two.conflist", "overlap", "10.1.0.0/16 overlaps with 10.1.0.0/16 of network pods (") in said
    assert ("30-same.conflist", "same-name", "") in said and ("40-cbr0.conflist", "no-plugin", "") in said


def test_the_node_and_its_configurations_are_looked_at(tmp_path: Path, capsys: Capture) -> None:
    fake = FakeContext()
    there = tmp_path / "net.d"
    there.mkdir()
    written(there, GOOD)  # which it replaces
    written(there, GOOD | {"name": "two"}, "20-two.conflist")
    (tmp_path / "kubelet").write_text("")
    path = written(tmp_path, changed(ingress=None))
    chosen = argparse.Namespace(files=[path], kubernetes=False, pods=10, no_node=False, conf_dir=there, json=True)
    assert command.run(chosen, fake.context, tmp_path / "kubelet") == 1
    found = json.loads(capsys.readouterr().out)
    assert [each["rule"] for each in found] == ["ingress", "overlap", "overlap"]
    chosen.conf_dir = tmp_path / "none"
    assert command.run(chosen, fake.context, tmp_path / "none") == 0


# The forms of output


def test_text(tmp_path: Path, capsys: Capture) -> None:
    path = written(tmp_path, changed(brigde="cni0"))
    assert main(["lint", "--no-node", str(path)]) == 2
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"{path}:") and lines[0].endswith(": error [refused]")
    assert lines[-1] == "1 error on 1 file" and max(map(len, lines[1:])) <= 80
    number = int(lines[0].split(":")[1])
    assert "brigde" in path.read_text().splitlines()[number - 1]
    assert main(["lint", "--no-node", str(written(tmp_path, GOOD))]) == 0
    assert capsys.readouterr().out == "no remarks on 1 file\n"


def test_annotations(tmp_path: Path, capsys: Capture) -> None:
    path = written(tmp_path, changed(masquerade={"ipv4": "off"}), "10-a,b.conflist")
    assert main(["lint", "--no-node", "--format", "github", str(path)]) == 1
    [line] = capsys.readouterr().out.splitlines()
    where = str(path).replace(",", "%2C").replace(":", "%3A")
    assert line.startswith(f"::warning file={where},line=") and ",title=cni-v6 unreachable::10.1.0.0/16 is a" in line
    assert "%0A" in line and "\n" not in line


def test_sarif(tmp_path: Path, capsys: Capture) -> None:
    path = written(tmp_path, changed(brigde="cni0"))
    assert main(["lint", "--no-node", "--format", "sarif", str(path)]) == 2
    [found] = json.loads(capsys.readouterr().out)["runs"]
    assert [rule["id"] for rule in found["tool"]["driver"]["rules"]] == ["refused"]
    [result] = found["results"]
    assert (result["ruleId"], result["level"]) == ("refused", "error")
    assert result["locations"][0]["physicalLocation"]["artifactLocation"]["uri"] == str(path)


def test_lines_and_levels() -> None:
    text = '{\n "a": {\n  "ranges": [],\n  "b": 1\n }\n}'
    assert [line_of(text, key) for key in ("a", "a.ranges[0]", "x.b", "none", "")] == [2, 3, 4, 1, 1]
    warning = Remark("said", WARNING, "", "")
    assert [worst([]), worst([warning]), worst([warning, Remark("refused", ERROR, "", "")])] == [0, 1, 2]
    assert all(RULES.values())


def test_the_page_has_every_rule_and_shows_what_is_printed() -> None:
    page = (ROOT / "docs/configuration.md").read_text(encoding="utf-8")
    command = [sys.executable, "bin/cni-v6ctl", "lint", "--no-node", "conf/10-cni-v6-ipv6only.conflist"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert f"{done.stdout}exit status {done.returncode}\n" in page
    assert [rule for rule, why in RULES.items() if f"| `{rule}` | " not in page or f" | {why} |" not in page] == []


# The node


def on_node(subnet: str, surroundings: Surroundings, **keys: object) -> list[Remark]:
    wanted = conf(is_gateway=True, is_default_gateway=True, ipam=ipam_conf(range_set(subnet)), **keys)
    return list(addresses.network(wanted, Node(surroundings, (Uplink(6, "eth0", 1500),)), 0))


UPLINK = Surroundings(
    (("eth0", "2a00:1:2:3::5/64"), ("eth0", "192.168.1.5/24")), (("eth0", RouteEntry("::/0", "fe80::1")),)
)


@pytest.mark.parametrize("subnet, keys, expected", [
    ("2a00:1:2:3:1::/80", {}, [("on-link", WARNING)]),
    ("2a00:1:2:3::/64", {}, [("on-link", ERROR)]),
    ("2a00:1:2:3:1::/80", {"ndp_proxy": "eth0"}, []),
    ("2a00:1:2:4::/64", {}, []),
    ("192.168.1.0/24", {}, [("unreachable", WARNING), ("overlap", ERROR)]),
    ("192.168.1.128/25", {}, [("unreachable", WARNING), ("overlap", WARNING)]),
    ("192.168.1.0/24", {"allow_overlap": True}, [("unreachable", WARNING)]),
])
def test_the_nodes_own_prefixes(subnet: str, keys: dict[str, object], expected: list[tuple[str, str]]) -> None:
    assert [(each.rule, each.level) for each in on_node(subnet, UPLINK, **keys)] == expected


@pytest.mark.parametrize("mtu, rules", [(1200, ["mtu"]), (1500, []), (0, [])])
def test_addresses_of_another_plugin(mtu: int, rules: list[str]) -> None:
    found = addresses.network(conf(mtu=mtu, ipam=ForeignIpam("dhcp")), None, 0)
    assert [each.rule for each in found] == rules


def test_without_a_gateway_nothing_is_said_of_the_way_out() -> None:
    assert list(addresses.network(conf(ipam=ipam_conf(range_set("fd42::/64"))), None, 0)) == []


def test_a_network_beside_itself() -> None:
    own = Other("a", "", "", ("10.1.0.0/16",))
    assert list(addresses.between(own, [own, Other("b", "", "", ("10.1.0.0/16", "fd42::/64"))])) == []


def test_a_refusal_of_what_the_node_lacks_now(tmp_path: Path, capsys: Capture) -> None:
    followed = changed(ipam={"type": "cni-v6-ipam", "ranges": [[{"from": "eth9", "length": 72}]]})
    chosen = argparse.Namespace(files=[written(tmp_path, followed)], kubernetes=False, pods=1, no_node=False,
                                conf_dir=tmp_path, json=True)
    assert command.run(chosen, FakeContext().context, tmp_path / "none") == 1
    [found] = json.loads(capsys.readouterr().out)
    assert (found["rule"], found["level"]) == ("refused", "warning") and "eth9" in found["message"]
    chosen.no_node = True
    assert command.run(chosen, FakeContext().context, tmp_path / "none") == 0


def test_a_routed_network(capsys: Capture, tmp_path: Path) -> None:
    path = tmp_path / "10-pods.conflist"
    document = json.loads((ROOT / "conf/10-cni-v6-routed.conflist").read_text())
    path.write_text(json.dumps(document))
    assert remarks(capsys, path, status=0) == []
