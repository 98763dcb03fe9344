"""What the plugins' executables tell a person."""

from __future__ import annotations

import pytest

from cni_v6 import __version__
from cni_v6.engine import usage

PLUGINS = ("cni-v6", "cni-v6-routed", "cni-v6-macvlan", "cni-v6-ipvlan", "cni-v6-vlan", "cni-v6-ipam")


@pytest.mark.parametrize("plugin", PLUGINS)
def test_version(plugin: str) -> None:
    lines = f"{plugin} {__version__}\nCNI versions: 0.1.0, 0.2.0, 0.3.0, 0.3.1, 0.4.0, 1.0.0, 1.1.0\n"
    assert usage.answer(plugin, ["--version"], called=False) == (0, lines, "")
    assert usage.answer(plugin, ["--version"], called=True) == (0, lines, "")


@pytest.mark.parametrize("arguments", [["--help"], ["-h"], ["--version", "--help"]])
@pytest.mark.parametrize("plugin", PLUGINS)
def test_help(plugin: str, arguments: list[str]) -> None:
    text = usage.help_text(plugin)
    assert usage.answer(plugin, arguments, called=False) == (0, text, "")
    assert text.startswith(usage.version(plugin))
    words = ("CNI_COMMAND", "standard input", "cni-v6ctl plan", "docs/", "share/doc/cni-v6")
    assert all(word in text for word in words)
    assert max(map(len, text.splitlines())) <= 120


def test_without_arguments_it_says_on_stderr_what_it_is() -> None:
    assert usage.answer("cni-v6", [], called=False) == (0, "", usage.help_text("cni-v6"))


def test_an_unknown_argument() -> None:
    words = "cni-v6: unknown argument 'ADD'; see cni-v6 --help\n"
    assert usage.answer("cni-v6", ["ADD", "x"], called=False) == (2, "", words)
    assert usage.answer("cni-v6", ["ADD", "x"], called=True) is None
