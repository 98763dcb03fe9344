"""The page of ``cni-v6ctl map`` in a real browser: clicked, typed into, read as a screen reader does."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from cni_v6.ctl import map as command
from cni_v6.drawing import page as pages, svg
from cni_v6.drawing.picture import Facts
from tests.browser import Page, browser
from tests.unit import sample_pictures as sample
from tests.unit.test_map import hostile

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("browser")]

COUNT = 300
TILE = ".container[data-id='{}']"
ADDRESS = "2001:db8:de30:1::10a"  # in the second level below a /112


def written(facts: Facts, folder: Path) -> Path:
    here = Path(command.__file__).parent
    parts = ((here / "page.css").read_text(), (here / "page.js").read_text())
    path = folder / "map.html"
    path.write_text(pages.page(facts, sample.moment, svg.AUTO, parts))
    return path


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    folder = tmp_path_factory.mktemp("map")
    with browser(folder) as page:
        page.size(1400, 900)
        yield page


@pytest.fixture
def page(opened: Page, tmp_path: Path) -> Iterator[Page]:
    opened.said.clear()
    opened.requests.clear()
    opened.open(written(sample.facts(COUNT), tmp_path))
    yield opened
    assert opened.said == []
    assert [url for url in opened.requests if not url.startswith("file:///")] == []


def text(page: Page, selector: str) -> str:
    found: str = page.value(f"document.querySelector({selector!r}).textContent")
    return found


def count(page: Page, selector: str) -> int:
    found: int = page.value(f"document.querySelectorAll({selector!r}).length")
    return found


def title(number: int) -> str:
    return f"{sample.bridged(number).owner.container_id} eth0"


def test_a_click_shows_a_container_and_its_address(page: Page) -> None:
    page.click(TILE.format(f"pods {title(264)}"))
    assert text(page, "#about h3") == title(264)
    assert ADDRESS in text(page, "#about")
    assert count(page, ".container.chosen") == 1
    page.click("#about button")
    assert text(page, "#path button:last-child") == "2001:db8:de30:1::100/120"
    assert page.value("document.activeElement.getAttribute('aria-label')") == f"{ADDRESS}: in use, {title(264)}"


def test_search_by_keyboard(page: Page) -> None:
    page.key("/", *ADDRESS)
    assert page.value("document.activeElement.id") == "search"
    assert text(page, "#matches") == "1 container"
    assert count(page, ".container.found") == 1
    page.key("Enter")
    assert text(page, "#about h3") == title(264)
    assert page.value("document.activeElement.dataset.id") == f"pods {title(264)}"
    page.click("#search")
    page.key("Escape")
    assert text(page, "#matches") == "" and count(page, "#topology.searching") == 0
    page.key(*"cut off")
    assert text(page, "#matches") == f"{COUNT // 50} containers"
    page.key(*"?")
    assert text(page, "#matches") == "no containers"


def test_arrow_keys_go_from_container_to_container(page: Page) -> None:
    page.value("document.querySelector('.container[tabindex=\"0\"]').focus()")
    first = page.value("document.activeElement.dataset.id")
    page.key("ArrowRight", "ArrowDown", "ArrowLeft", "ArrowUp")
    assert page.value("document.activeElement.dataset.id") == first
    page.key("ArrowRight")
    second = page.value("document.activeElement.dataset.id")
    assert second != first and text(page, "#about h3") == second.removeprefix("pods ")
    assert count(page, ".container[tabindex='0']") == 1
    page.key("Enter")
    assert count(page, ".container.chosen") == 1


def test_zoom(page: Page) -> None:
    def width() -> float:
        found: float = page.value("document.getElementById('topology').viewBox.baseVal.width")
        return found

    whole = width()
    page.click("#in")
    assert width() < whole
    page.click("#out")
    page.click("#out")
    assert width() == whole
    page.value("document.querySelector('.container[tabindex=\"0\"]').focus()")
    page.key("+", "+")
    assert width() == pytest.approx(whole / 1.5 ** 2)
    page.key("0")
    assert width() == whole


def test_into_an_address_space_and_out_again(page: Page) -> None:
    assert text(page, "#scale") == "2001:db8:de30:1::/64, a cell: a /72, 2^56 addresses"
    assert count(page, "#cells g") == 256 and count(page, "#cells g.deeper") == 1
    page.value("document.querySelector('#cells g.deeper').focus()")
    assert text(page, "#about h3").startswith("2001:db8:de30:1::/72, 2^56 addresses: 301 in use, ")
    page.key(*["Enter"] * 7)
    assert text(page, "#scale") == "2001:db8:de30:1::/120, a cell: an address"
    assert count(page, "#path button") == 8
    page.key("Backspace")
    assert text(page, "#scale") == "2001:db8:de30:1::/112, a cell: a /120, 256 addresses"
    assert page.value("document.activeElement.classList.contains('deeper')")
    page.click("#path button")
    assert text(page, "#scale").startswith("2001:db8:de30:1::/64, ")
    page.click("#cells g.deeper")
    assert text(page, "#scale").startswith("2001:db8:de30:1::/72, ")
    page.click("#busy")
    assert text(page, "#scale").startswith("2001:db8:de30:1::/120, ")
    page.value("{ const choice = document.getElementById('space'); choice.value = '1';"
               "choice.dispatchEvent(new Event('change')); }")
    assert text(page, "#scale") == "10.88.0.0/16, a cell: a /24, 256 addresses"
    assert count(page, ".burn:not([hidden])") == 1
    assert "30 waiting" in text(page, "#totals")


def test_cells_follow_the_curve(page: Page) -> None:
    page.click("#busy")
    places = page.value(
        "[...document.querySelectorAll('#cells g')].map((group) => { const box = group.querySelector('.cell');"
        "return [box.getAttribute('x') / 32, box.getAttribute('y') / 32]; })")
    assert all(abs(x - right) + abs(y - below) == 1 for (x, y), (right, below) in zip(places, places[1:]))


def test_everything_has_a_name(page: Page) -> None:
    names = page.names()
    asked = {"button", "searchbox", "combobox", "textbox", "img", "image", "group", "region", "complementary",
             "navigation"}
    assert [role for role, name in names if role in asked and not name] == []
    assert ("searchbox", "Find a container, a network or an address") in names
    said = [name for role, name in names if role == "button"]
    assert f"container {title(264)}, network pods: {ADDRESS}, 10.88.1.10; up" in said
    assert "Zoom in" in said and len([name for name in said if name.startswith("container ")]) == COUNT + 4


@pytest.mark.parametrize("scheme, shade", [("light", 0), ("dark", 1)])
def test_the_viewers_theme(page: Page, scheme: str, shade: int) -> None:
    page.prefer(scheme)
    colour = svg.COLOURS["page"][shade]
    wanted = f"rgb({', '.join(str(int(colour[at:at + 2], 16)) for at in (1, 3, 5))})"
    assert page.value("getComputedStyle(document.body).backgroundColor") == wanted
    fill = svg.COLOURS["card"][shade]
    wanted = f"rgb({', '.join(str(int(fill[at:at + 2], 16)) for at in (1, 3, 5))})"
    assert page.value("getComputedStyle(document.querySelector('#topology .box')).fill") == wanted


@pytest.mark.parametrize("width", [500, 1000, 1400])
def test_no_words_leave_their_box(page: Page, width: int) -> None:
    """As the browser measures them, with its fonts; and the page never scrolls sideways."""
    page.size(width, 900)
    wide = page.value(
        "[...document.querySelectorAll('#topology .container')].filter((tile) => { const box ="
        "tile.querySelector('.tile').getBoundingClientRect(); return [...tile.querySelectorAll('text')].some((text) =>"
        "text.getBoundingClientRect().right > box.right + .5); }).length")
    assert wide == 0
    assert page.value("document.documentElement.scrollWidth <= innerWidth")
    page.size(1400, 900)


@pytest.mark.parametrize("nodes", [3, 100])
def test_the_nodes_of_a_cluster(opened: Page, tmp_path: Path, nodes: int) -> None:
    """Told to a pointer, a keyboard and a screen reader; words as the browser measures them stay in their tiles."""
    opened.said.clear()
    members = sample.members(nodes)
    opened.open(written(replace(sample.facts(2), cluster=members), tmp_path))
    assert count(opened, "#cluster .member") == nodes
    opened.click(".member[data-node='0']")
    assert text(opened, "#about h3") == f"node {members[0].name}"
    assert members[0].blocks[0].prefix in text(opened, "#about")
    opened.key("ArrowRight")
    assert text(opened, "#about h3") == f"node {members[1].name}" and count(opened, ".member[tabindex='0']") == 1
    assert {member.label for member in members} <= {name for role, name in opened.names() if role == "button"}
    assert opened.value(
        "[...document.querySelectorAll('#cluster .member')].every((tile) => { const box ="
        "tile.querySelector('.tile').getBoundingClientRect(); return [...tile.querySelectorAll('text')].every((text) =>"
        "text.getBoundingClientRect().right <= box.right + .5); })")
    assert opened.value("document.documentElement.scrollWidth <= innerWidth") and opened.said == []


def test_hostile_names_are_text(opened: Page, tmp_path: Path) -> None:
    opened.said.clear()
    opened.open(written(hostile(), tmp_path))
    opened.click(".container")
    assert "<img src=x onerror=alert(2)>" in text(opened, "#about h3")
    assert count(opened, "img") == 0 and count(opened, "script") == 2
    opened.click("#search")
    opened.key(*"alert(1)")
    assert text(opened, "#matches") == "1 container"
    assert opened.said == []


def test_the_policy_refuses_other_scripts(opened: Page, tmp_path: Path) -> None:
    opened.open(written(sample.facts(1), tmp_path))
    opened.said.clear()
    opened.value("{ const script = document.createElement('script'); script.textContent = 'window.ran = 1';"
                 "document.body.append(script); const image = new Image(); image.src = 'https://[2001:db8::1]/'; }")
    assert opened.value("window.ran") is None
    assert any("Content Security Policy" in words for words in opened.said)
