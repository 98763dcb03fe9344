"""Sphinx' settings for the site of the documentation, which tools/docs builds: the Markdown of the checkout as it is.

MyST reads the Markdown that a forge shows (CommonMark, tables), so a page looks the same in both places. Furo's pages
need nobody else's server, and search works without one of ours too: the site can be read from a disk. MkDocs Material
builds in a fourth of the time; its search needs a web server, it shows some lists otherwise, and it ends in May 2027.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

# The pages in their order, a caption for each part; with another title than their own: "TITLE <PAGE>". A page that is
# in no part is an error of the build.
NAVIGATION = {
    "First steps": (
        "docs/overview", "docs/first-network", "docs/choosing", "docs/runtimes", "docs/ipv6-only-kubernetes",
        "docs/nodes-without-python", "docs/multus", "docs/moving-over",
    ),
    "Addresses and networks": (
        "docs/addresses", "docs/planning", "docs/macvlan", "docs/renumbering", "docs/cluster", "docs/nat64",
    ),
    "Look after a node": (
        "docs/commands", "docs/map", "docs/connectivity", "docs/observing", "docs/troubleshooting",
    ),
    "Reference": (
        "docs/configuration", "docs/manual/cni-v6ctl.8", "docs/manual/cni-v6.8", "docs/manual/cni-v6.conf.5",
        "docs/errors", "docs/differences", "docs/security", "docs/benchmarks/README",
        "Benchmark: a million addresses <docs/benchmarks/million/README>", "docs/benchmarks/kubernetes/README",
        "CHANGELOG", "All pages <docs/README>",
    ),
    "Design": (
        "docs/design/README", "docs/design/protocol", "docs/design/config", "docs/design/ipam", "docs/design/leases",
        "docs/design/plan", "docs/design/kernel", "docs/design/forwarding", "docs/design/firewall",
        "docs/design/routed", "docs/design/macvlan", "docs/design/healing", "docs/design/robustness",
        "docs/design/engine", "docs/design/observing", "docs/design/ctl", "docs/design/cluster",
        "docs/design/performance",
    ),
    "Contribute": ("CONTRIBUTING", "docs/testing", "SECURITY"),
}

project = html_title = "cni-v6"
copyright = "the cni-v6 developers, Apache-2.0"
extensions = ["myst_parser"]
root_doc = "README"

# Links to headings, by the names that a forge gives them.
myst_heading_anchors = 6
# What MyST adds to Markdown and a forge shows as text: {role}`text`, "% comment", "+++", "(target)=".
myst_disable_syntax = ["myst_role", "myst_line_comment", "myst_block_break", "myst_target", "substitution"]
smartquotes = False  # what a page says is what it shows
# "..." in an example stands for anything: no JSON or TOML then.
suppress_warnings = ["misc.highlighting_failure"]

html_theme = "furo"
html_static_path = ["site.css"]
html_css_files = ["site.css"]
html_copy_source = False
# With a line of each page that was found: they are fetched for it, which a browser refuses for files.
html_js_files = [(None, {"body": "DOCUMENTATION_OPTIONS.SHOW_SEARCH_SUMMARY = location.protocol !== 'file:';"})]
html_show_sphinx = False
html_use_index = False


def _with_navigation(app: Any, name: str, source: list[str]) -> None:
    """Append the parts of the navigation to the first page, which shows them at the side alone."""
    if name == root_doc:
        source[0] += "".join(_parts())


def _parts() -> Iterator[str]:
    for caption, pages in NAVIGATION.items():
        yield "\n".join(("", "```{toctree}", ":hidden:", f":caption: {caption}", *pages, "```", ""))


def setup(app: Any) -> None:
    app.connect("source-read", _with_navigation)
