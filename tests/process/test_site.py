"""The documentation's site, as ``make docs`` builds it: what it says against the Markdown, and in a real browser."""

from __future__ import annotations

import functools
import importlib.util
import os
import re
import runpy
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import pytest

from tests.browser import Page, browser
from tests.sandbox import ROOT, need

if TYPE_CHECKING:  # the extra "docs" has it, which "make test" does without
    from bs4 import BeautifulSoup, Tag

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("browser")]

PARTS: dict[str, tuple[str, ...]] = runpy.run_path(str(ROOT / "tools/site/conf.py"))["NAVIGATION"]
PAGES = sorted(path.relative_to(ROOT) for path in (*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")))
MANUAL = [Path(f"docs/manual/{name}.md") for name in ("cni-v6ctl.8", "cni-v6.8", "cni-v6.conf.5")]
# What a reader sees the structure by. Of paragraphs and code the renderers have more or fewer, which looks the same.
TAGS = ("h1", "h2", "h3", "h4", "h5", "ul", "ol", "li", "table", "tr", "th", "td", "pre", "blockquote", "img", "a",
        "strong", "em", "hr", "del")
# What a page loads by itself, as HTML and CSS say it.
LOADED = re.compile(r"""<(?:script|img|iframe|source)\b[^>]*?\bsrc="([^"]*)"|<link\b[^>]*?\bhref="([^"]*)"""
                    r"""|@import\s+["']([^"']*)|url\(\s*["']?([^)"']*)""")
BOLD = re.compile("[^\b]\b")  # as mandoc writes it: each letter twice, with a step back between
PHONE, DESK = (360, 740), (1400, 900)
FOUND = """new Promise((done) => {
    const look = () => {
        const said = document.querySelector('.search-summary')?.textContent ?? '';
        const count = said.includes('did not match') ? 0 : said.match(/found ([0-9]+)/)?.[1];
        const items = [...document.querySelectorAll('ul.search li')].map((item) => item.textContent.trim());
        if (items.length == count) done(items);
    };
    new MutationObserver(look).observe(document, {subtree: true, childList: true, characterData: true});
    look();
})"""


def build(checkout: Path, folder: Path) -> subprocess.CompletedProcess[str]:
    need(importlib.util.find_spec("sphinx"), "needs what make docs installs: tools/venv docs")
    return subprocess.run([checkout / "tools/docs", folder], capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("docs") / "site"
    done = build(ROOT, folder)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    return folder


def parsed(html: str) -> BeautifulSoup:
    from bs4 import BeautifulSoup
    return BeautifulSoup(html, "html.parser")


def rendered(site: Path, page: Path) -> Path:
    return site / page.with_suffix(".html")


# Without a browser


def outline(content: Tag) -> tuple[dict[str, int], str]:
    """How often each tag is there, and the text without its white space."""
    return {tag: len(content.find_all(tag)) for tag in TAGS}, "".join(content.get_text().split())


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_a_page_shows_what_a_forge_shows(site: Path, page: Path) -> None:
    """Every list, table, heading and word of the Markdown, as CommonMark reads it; no comment, nothing else."""
    from markdown_it import MarkdownIt
    forge = parsed(MarkdownIt("commonmark").enable("table").render((ROOT / page).read_text(encoding="utf-8")))
    article = parsed(rendered(site, page).read_text(encoding="utf-8")).select_one("article")
    assert article
    for added in article.select("a.headerlink, .toctree-wrapper"):
        added.decompose()
    assert outline(article) == outline(forge)
    assert len(forge.find_all("h1")) == 1, "a page has one title: the navigation shows each"


def test_a_manual_page_says_what_man_shows(site: Path, tmp_path: Path) -> None:
    """Word for word, but for the lines at its head and its foot."""
    need(shutil.which("mandoc"), "needs mandoc")
    subprocess.run([sys.executable, ROOT / "tools/manual", tmp_path], check=True)
    for name in MANUAL:
        [roff] = tmp_path.rglob(name.stem)
        shown = subprocess.run(["mandoc", "-T", "ascii", roff], capture_output=True, text=True, check=True).stdout
        _, *lines, _ = BOLD.sub("", shown).strip().splitlines()
        article = parsed(rendered(site, name).read_text(encoding="utf-8")).select_one("article")
        assert article and (title := article.select_one("h1"))
        for added in article.select("a.headerlink"):
            added.decompose()
        assert title.get_text() == f"{roff.stem}({roff.suffix[1:]})"
        title.decompose()
        for tag in article.select("li"):  # what a colon says here, man(1) says by a new line
            tag.string = tag.get_text().replace(": ", " ", 1)
        assert article.get_text().split() == " ".join(lines).split()


def test_every_link_leads_somewhere(site: Path) -> None:
    """In the text, the navigation and the table of contents."""
    documents = {path: parsed(path.read_text(encoding="utf-8")) for path in site.rglob("*.html")}
    names = {path: {tag["id"] for tag in document.find_all(id=True)} for path, document in documents.items()}
    broken = []
    for path, document in documents.items():
        for link in {str(tag["href"]) for tag in document.select("a[href]")}:
            address, _, anchor = link.partition("#")
            target = (path.parent / unquote(address)).resolve() if address else path
            if re.match("[a-z]+:", link) or link == "#":
                continue
            if not target.is_file() or (anchor and target in names and anchor not in names[target]):
                broken.append(f"{path.relative_to(site)}: {link}")
    assert broken == []


def test_nothing_is_loaded_from_elsewhere(site: Path) -> None:
    texts = {path: path.read_text(encoding="utf-8") for path in site.rglob("*") if path.suffix in (".html", ".css")}
    loaded = {path: [next(filter(None, found), "") for found in LOADED.findall(text)] for path, text in texts.items()}
    assert len(loaded[site / "index.html"]) > 5
    foreign = {f"{path.relative_to(site)}: {url}" for path, urls in loaded.items() for url in urls
               if re.match("(?!data:)[a-z]+:|//", url)}
    assert foreign == set()


def test_the_build_refuses_what_is_broken(tmp_path: Path) -> None:
    copy = tmp_path / "checkout"
    shutil.copytree(ROOT / "docs", copy / "docs")
    shutil.copytree(ROOT / "tools", copy / "tools")
    for path in (*ROOT.glob("*.md"), ROOT / "LICENSE"):
        shutil.copy(path, copy)
    for name in (".venv", "cni_v6", "conf"):
        os.symlink(ROOT / name, copy / name)
    faults = "[one](nowhere.md) [two](errors.md#nothing) ![three](nothing.svg)\n"
    (copy / "docs/map.md").write_text(f"# Map\n\n{faults}", encoding="utf-8")
    (copy / "docs/alone.md").write_text("# Alone\n", encoding="utf-8")
    done = build(copy, tmp_path / "site")
    assert done.returncode != 0 and not (tmp_path / "site/index.html").exists()
    for fault in ("docs/map.md:3.*nowhere.md", "docs/map.md:3.*'nothing'", "docs/map.md:3.*nothing.svg",
                  "docs/alone.md.*toctree"):
        assert re.search(fault, done.stderr), fault


# In a browser


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with browser(tmp_path_factory.mktemp("browser")) as page:
        yield page


@pytest.fixture
def page(opened: Page, site: Path) -> Iterator[Page]:
    """The first page, of the files; nothing is asked of a server, and nobody complains."""
    opened.said.clear()
    opened.requests.clear()
    opened.size(*DESK)
    opened.prefer("light")
    opened.open(site / "index.html")
    yield opened
    assert opened.said == []
    assert [url for url in opened.requests if not url.startswith(("file:///", "data:"))] == []


def in_words(page: Page, selector: str) -> list[str]:
    found: list[str] = page.value(
        f"[...document.querySelectorAll({selector!r})].map((element) => element.textContent.trim())")
    return found


def title(page: Page) -> str:
    found: str = page.value("document.querySelector('article h1').firstChild.textContent")
    return found


def test_the_first_page_and_its_navigation(page: Page) -> None:
    assert title(page) == "cni-v6"
    assert in_words(page, ".sidebar-tree p.caption") == list(PARTS)
    assert len(in_words(page, ".sidebar-tree a")) == sum(map(len, PARTS.values()))
    page.click(".sidebar-tree a[href='docs/configuration.html']")
    page.loaded()
    assert title(page) == "Configuration"
    assert in_words(page, ".sidebar-tree .current-page") == ["Configuration"]


@pytest.mark.parametrize("width, height, pages", [
    pytest.param(*PHONE, (*PAGES, *MANUAL, Path("search.md")), id="phone"),
    pytest.param(*DESK, [Path(f"{pages[0]}.md") for pages in PARTS.values()], id="desk"),
])
def test_pages_fit_and_have_their_pictures(
    page: Page, site: Path, width: int, height: int, pages: Sequence[Path],
) -> None:
    page.size(width, height)
    for name in pages:
        page.open(rendered(site, name))
        assert page.value("document.documentElement.scrollWidth <= innerWidth"), name
        loaded: list[bool] = page.value("[...document.images].map((image) => image.complete && image.naturalWidth > 0)")
        source = ROOT / name
        shown = re.findall(r"^!\[", source.read_text(encoding="utf-8"), re.MULTILINE) if source.exists() else []
        assert loaded == [True] * len(shown), name


def test_the_menu_on_a_phone(page: Page) -> None:
    page.size(*PHONE)
    link = ".sidebar-tree a[href='docs/map.html']"
    hidden = f"document.querySelector({link!r}).getBoundingClientRect().right <= 0"
    assert page.value(hidden)
    page.click("label.nav-overlay-icon")
    page.value("Promise.all(document.getAnimations().map((moving) => moving.finished)).then(() => true)")
    assert not page.value(hidden)
    page.click(link)
    page.loaded()
    assert title(page) == "A picture of the node"


def contrast(page: Page, selector: str) -> float:
    """Of the text of an element against what is behind it, as WCAG 2.1 defines it: 4.5 is legible."""
    colours: list[list[float]] = page.value(f"""(() => {{
        let behind = document.querySelector({selector!r}), colour = getComputedStyle(behind).color;
        while (behind && getComputedStyle(behind).backgroundColor == 'rgba(0, 0, 0, 0)') behind = behind.parentElement;
        return [colour, getComputedStyle(behind).backgroundColor].map((text) => text.match(/[0-9.]+/g).map(Number));
    }})()""")
    one, other = (float(sum(share * (part / 255) ** 2.2 for share, part in zip((.2126, .7152, .0722), colour)))
                  for colour in colours)
    return (max(one, other) + .05) / (min(one, other) + .05)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_light_and_dark(page: Page, site: Path, scheme: str) -> None:
    page.prefer(scheme)
    page.open(site / "docs/configuration.html")
    red, green, blue = page.value("getComputedStyle(document.body).backgroundColor.match(/[0-9]+/g).map(Number)")
    assert (red + green + blue > 600) == (scheme == "light") and (red + green + blue < 165) == (scheme == "dark")
    for selector in ("article p", "article p a", "article td", "article td code", "pre", ".sidebar-tree a"):
        assert contrast(page, selector) >= 4.5, selector


def find(page: Page, words: str) -> list[str]:
    """Type into the search, and wait for all that it finds."""
    page.click("input.sidebar-search")
    page.key(*words, "Enter")
    page.loaded()
    found: list[str] = page.value(FOUND)
    return found


def test_search(page: Page) -> None:
    assert {"Configuration", "A first network"} <= set(find(page, "ndpProxy"))
    page.click("ul.search li a")
    page.loaded()
    assert "ndpProxy" in page.value("document.querySelector('article').textContent")
    assert find(page, "cytoplasm") == []


def test_search_at_a_web_server(opened: Page, site: Path) -> None:
    """There each page that is found has some of its words beside it."""
    opened.said.clear()
    with served(site) as address:
        opened.open(address)
        opened.click("input.sidebar-search")
        opened.key(*"ndpProxy", "Enter")
        opened.loaded()
        words: str = opened.value(
            "new Promise((done) => { const look = () => { const found = document.querySelector('ul.search p.context');"
            "if (found) done(found.textContent); };"
            "new MutationObserver(look).observe(document, {subtree: true, childList: true}); look(); })")
        assert len(words.split()) > 5
    assert opened.said == []


@contextmanager
def served(folder: Path) -> Iterator[str]:
    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: Any) -> None:
            """The test's output is for what fails."""

    with ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/"
        finally:
            server.shutdown()
            thread.join()
