"""What the documentation points to is there: files, headings, modules."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
PAGES = sorted((*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")))

FENCE = re.compile(r"^```.*?^```$", re.DOTALL | re.MULTILINE)
CODE = re.compile(r"`[^`\n]*`")
LINK = re.compile(r"\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#{1,6} +(.+)$", re.MULTILINE)
# Paths from the top of the checkout, as pages write them in code.
PATH = re.compile(r"(?<![\w./-])((?:cni_v6|tests|tools|conf|docs|bin)/[\w./-]*[\w/])")


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


def text(page: Path) -> str:
    """A page without its blocks of code."""
    return FENCE.sub("", page.read_text(encoding="utf-8"))


def anchors(page: Path) -> set[str]:
    """Its headings as links name them: small letters, no punctuation, hyphens for spaces."""
    plain = (heading.lower() for heading in HEADING.findall(text(page)))
    return {re.sub(r"[^\w\- ]", "", heading).replace(" ", "-") for heading in plain}


def links(page: Path) -> Iterator[str]:
    found = LINK.findall(CODE.sub("", text(page)))
    return (link for link in found if not re.match(r"[a-z]+:", link))


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_lead_somewhere(page: Path) -> None:
    broken = []
    for link in links(page):
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    assert broken == []


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_paths_of_the_checkout_exist(page: Path) -> None:
    named = {path for code in CODE.findall(text(page)) for path in PATH.findall(code)}
    assert sorted(path for path in named if not (ROOT / path).exists()) == []


def test_every_page_is_reached_from_the_readme() -> None:
    reached, waiting = set(), [ROOT / "README.md"]
    while waiting:
        page = waiting.pop()
        reached.add(page)
        targets = ((page.parent / link.partition("#")[0]).resolve() for link in links(page))
        waiting += [target for target in targets if target in PAGES and target not in reached]
    assert {name(page) for page in PAGES} - {name(page) for page in reached} == set()


def test_the_map_of_modules_is_whole() -> None:
    page = (ROOT / "docs/design/README.md").read_text(encoding="utf-8")
    modules = [path for path in ROOT.glob("cni_v6/*.py") if path.name != "__init__.py"]
    packages = [path.parent for path in ROOT.glob("cni_v6/*/__init__.py")]
    names = {name(path) for path in modules} | {f"{name(path)}/" for path in packages}
    assert {each for each in names if f"`{each}`" not in page} == set()


def test_every_kernel_module_is_on_its_page() -> None:
    page = (ROOT / "docs/design/kernel.md").read_text(encoding="utf-8")
    modules = [path for path in ROOT.glob("cni_v6/kernel/**/*.py") if path.name != "__init__.py"]
    assert {name(path) for path in modules if f"`{name(path)}`" not in page} == set()
