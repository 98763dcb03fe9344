"""The JSON Schema and the documentation's tables: current, and of one mind with the parser.

``python -m tests.unit.test_schema`` writes both anew after a change to the table of keys.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, strategies as st
from jsonschema import Draft202012Validator

from cni_v6.cluster.config import schema as agent_schema
from cni_v6.cluster.keys import AGENT
from cni_v6.config.bridge import BridgeConf
from cni_v6.config.child import ChildConf
from cni_v6.config.ipam import IpamConf
from cni_v6.config.json_schema import entry, levels, schema, table
from cni_v6.config.keys.bridge import BRIDGE as BRIDGE_KEYS, MAIN_OF_IPAM
from cni_v6.config.keys.ipvlan import IPVLAN as IPVLAN_KEYS
from cni_v6.config.keys.macvlan import MACVLAN as MACVLAN_KEYS
from cni_v6.config.keys.routed import ROUTED as ROUTED_KEYS
from cni_v6.config.keys.slaac import SLAAC
from cni_v6.config.keys.vlan import VLAN as VLAN_KEYS
from cni_v6.config.main import IPAM_PLUGIN
from cni_v6.config.routed import RoutedConf
from cni_v6.errors import CniError
from cni_v6.protocol.invocation import IPVLAN, MACVLAN, MAIN, ROUTED, VLAN
from tests.unit.config_tables import BAD, BRIDGE, GOOD, V4, V6, Bad, call, config, ipam, parse
from tests.unit.test_config import FULL, SPOTS, VALUES, replaced

ROOT = Path(__file__).resolve().parents[2]
SCHEMA_FILE = ROOT / "conf" / "cni-v6.schema.json"
AGENT_SCHEMA_FILE = ROOT / "conf" / "cni-v6-agent.schema.json"
DOCUMENT = ROOT / "docs" / "configuration.md"
AGENT_DOCUMENT = ROOT / "docs" / "cluster.md"
SAMPLES = sorted((ROOT / "conf").glob("*.conflist"))
OTHER_KEYS = {ROUTED: ROUTED_KEYS, MACVLAN: MACVLAN_KEYS, IPVLAN: IPVLAN_KEYS, VLAN: VLAN_KEYS}
LEVELS = list(levels(BRIDGE_KEYS, *OTHER_KEYS.values(), SLAAC, MAIN_OF_IPAM))
AGENT_LEVELS = list(levels(AGENT))
DOCUMENTS = {DOCUMENT: LEVELS, AGENT_DOCUMENT: AGENT_LEVELS}
MARK = re.compile(r"<!-- table: (\w+) -->\n(?:.*?<!-- end of table -->\n)?", re.DOTALL)

VALIDATOR = Draft202012Validator(schema())


def rendered(document: Any) -> str:
    return json.dumps(document, indent=2) + "\n"


def filled(document: str) -> str:
    """The document with its tables written anew."""
    tables = {level.name: table(level) for level in (*LEVELS, *AGENT_LEVELS)}
    return MARK.sub(
        lambda mark: f"<!-- table: {mark[1]} -->\n\n{tables[mark[1]]}\n<!-- end of table -->\n", document,
    )


def complaints(raw: Any) -> list[str]:
    return [error.message for error in VALIDATOR.iter_errors(raw)]


def accepted(raw: dict[str, Any], plugin: str = BRIDGE) -> bool:
    try:
        return isinstance(parse(call(raw, plugin)), BridgeConf | RoutedConf | ChildConf | IpamConf)
    except CniError:
        return False


def test_it_is_a_schema() -> None:
    Draft202012Validator.check_schema(schema())


def test_the_shipped_ones_are_current() -> None:
    assert SCHEMA_FILE.read_text(encoding="utf-8") == rendered(schema())
    assert AGENT_SCHEMA_FILE.read_text(encoding="utf-8") == rendered(agent_schema())


@pytest.mark.parametrize(("name", "words"), [
    ("mtu", "integer, 0 to 65535, or `auto`, default `0`"), ("name", "string"), ("ipam", "object, required"),
])
def test_a_key_of_the_manual_has_its_type_and_default(name: str, words: str) -> None:
    assert [entry(key) for key in ROUTED_KEYS.keys if key.name == name] == [words]


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.stem)
def test_the_documentations_tables_are_current(path: Path) -> None:
    document = path.read_text(encoding="utf-8")
    assert document == filled(document)


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.stem)
def test_every_key_is_documented(path: Path) -> None:
    document = path.read_text(encoding="utf-8")
    assert set(MARK.findall(document)) == {level.name for level in DOCUMENTS[path]}
    for level in DOCUMENTS[path]:
        section = document.partition(f"<!-- table: {level.name} -->")[2].partition("<!-- end of table -->")[0]
        assert [name for name in re.findall(r"^\| `(\w+)` ", section, re.MULTILINE)] == [key.name for key in level.keys]


def test_every_key_says_what_it_means_and_what_the_reference_does() -> None:
    assert [key for level in LEVELS for key in level.keys if not (key.meaning and key.reference)] == []


def test_the_documentations_examples_are_taken() -> None:
    examples = re.findall(r"```json\n(.*?)```", DOCUMENT.read_text(encoding="utf-8"), re.DOTALL)
    assert len(examples) >= 4
    for text in examples:
        raw = json.loads(text)
        assert parse(call(raw, version=raw["cniVersion"])) and complaints(raw) == []


@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: path.stem)
def test_samples(path: Path) -> None:
    raw = json.loads(path.read_text(encoding="utf-8"))
    assert complaints(raw) == []
    ours = [plugin for plugin in raw["plugins"] if plugin["type"] == BRIDGE or "ipam" in plugin]
    assert len(ours) == 1
    plugin = ours[0]["type"] if ours[0]["type"] in MAIN else IPAM_PLUGIN
    invocation = call({"cniVersion": raw["cniVersion"], "name": raw["name"], **ours[0]}, plugin)
    assert parse(invocation) and invocation.log.text() == ""
    assert accepted({**ours[0], "strict": True}, plugin)


def test_samples_do_not_share_a_bridge_or_an_address() -> None:
    plugins = [plugin for path in SAMPLES for plugin in json.loads(path.read_text(encoding="utf-8"))["plugins"]]
    bridges = [plugin["bridge"] for plugin in plugins if plugin["type"] == BRIDGE]
    subnets = [one["subnet"] for plugin in plugins if "ipam" in plugin
               for ranges in plugin["ipam"]["ranges"] for one in ranges]
    assert len(SAMPLES) == 8 and len(set(bridges)) == len(bridges) and len(set(subnets)) == len(subnets)


@pytest.mark.parametrize("raw", GOOD.values(), ids=GOOD)
def test_good_ones_are_valid(raw: dict[str, Any]) -> None:
    assert complaints(raw) == []


@pytest.mark.parametrize("bad", [bad for bad in BAD if bad.schema], ids=lambda bad: bad.name)
def test_bad_ones_are_not(bad: Bad) -> None:
    assert complaints(bad.raw)


@pytest.mark.parametrize("raw", [
    pytest.param({"cniVersion": "1.0.0", "name": "n", "plugins": []}, id="no plugin"),
    pytest.param({"cniVersion": "1.0.0", "plugins": [config()]}, id="no name"),
    pytest.param({"cniVersion": "1.0.0", "name": "../n", "plugins": [config()]}, id="name leads away"),
    pytest.param({"cniVersion": "1.0.0", "name": "n", "plugins": [config(mtu="x")]}, id="in a list"),
    pytest.param({"type": "macvlan", "ipam": ipam([{"subnet": 7}])}, id="under another main plugin"),
    pytest.param([], id="no object"),
])
def test_bad_lists(raw: Any) -> None:
    assert complaints(raw)


def test_other_plugins_are_theirs() -> None:
    raw = {"cniVersion": "1.0.0", "name": "n", "plugins": [
        config(), {"type": "portmap", "mtu": "x"}, {"type": "ptp", "ipam": {"type": "dhcp", "ranges": 7}},
    ]}
    assert complaints(raw) == []


@given(spot=st.sampled_from(SPOTS), value=VALUES)
def test_what_the_parser_takes_is_valid(spot: tuple[Any, ...], value: Any) -> None:
    raw = replaced(FULL, spot, value)
    if accepted(raw):
        # What the type selects is the schema's matter too; here it is ours.
        assert complaints(raw | {"type": BRIDGE}) == []


@given(value=VALUES, key=st.sampled_from([key.name for key in BRIDGE_KEYS.keys]))
def test_what_the_parser_takes_of_one_key_is_valid(value: Any, key: str) -> None:
    raw = config(ipam=ipam([V6], [V4])) | {key: value}
    if accepted(raw):
        assert complaints(raw | {"type": BRIDGE}) == []


@given(value=VALUES, place=st.sampled_from([
    (kind, key.name) for kind, level in OTHER_KEYS.items() for key in level.keys
]))
def test_what_the_parser_takes_of_one_key_of_another_network_is_valid(value: Any, place: tuple[str, str]) -> None:
    kind, key = place
    raw = {"type": kind, "ipam": ipam([V6], [V4])} | ({"vlanId": 5} if kind == VLAN else {}) | {key: value}
    if accepted(raw, kind):
        assert complaints(raw | {"type": kind}) == []


def write() -> None:
    SCHEMA_FILE.write_text(rendered(schema()), encoding="utf-8")
    AGENT_SCHEMA_FILE.write_text(rendered(agent_schema()), encoding="utf-8")
    for path in DOCUMENTS:
        path.write_text(filled(path.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    write()
