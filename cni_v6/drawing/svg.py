"""SVG as text: elements, escaped words, the colours of both themes, and how wide words are at most.

Names come from runtimes, configurations and whoever may rename an interface: ``escaped`` is the only way into a
picture.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from html import escape

Attribute = str | int | float

LIGHT, DARK, AUTO = "light", "dark", "auto"
ADVANCE = 0.62  # of the font's size: no digit or letter of the fixed-width fonts below is wider
MONO = "'DejaVu Sans Mono','Liberation Mono','Noto Sans Mono',ui-monospace,Menlo,Consolas,monospace"

# class -> (light, dark): text and lines on a card have a contrast of 4.5 or more in both (WCAG 2.2, 1.4.3).
COLOURS: Mapping[str, tuple[str, str]] = {
    "page": ("#f6f7f9", "#0e1116"), "card": ("#ffffff", "#171c24"), "line": ("#c9d1da", "#38414e"),
    "ink": ("#1b2129", "#e8edf3"), "muted": ("#57606b", "#9aa6b4"), "tile": ("#f1f4f8", "#202733"),
    "wire": ("#7d8895", "#75818f"),
    # attachments
    "up": ("#12803c", "#4cc38a"), "cut-off": ("#c62323", "#ff8080"), "damaged": ("#b0208f", "#f58bdc"),
    "ended": ("#5a636e", "#8d99a8"), "elsewhere": ("#5a636e", "#8d99a8"), "lease-only": ("#2b62c9", "#7eb0ff"),
    # addresses
    "used": ("#1f5fd6", "#6aa6ff"), "delegated": ("#7a3fd1", "#b894ff"), "waiting": ("#b25a00", "#ffb454"),
    "reserved": ("#0b756b", "#3fd0bf"), "spent": ("#5a636e", "#8d99a8"), "outside": ("#dfe4ea", "#2a323e"),
    "free": ("#ffffff", "#171c24"), "on-used": ("#ffffff", "#0e1116"),
}


def plain(words: object) -> str:
    """Words with question marks for characters that XML does not have, or that change the direction of what is beside
    them."""
    return "".join(letter if letter.isprintable() else "?" for letter in str(words))


def escaped(words: object) -> str:
    """Words as text or as the value of an attribute."""
    return escape(plain(words), quote=True)


def element(name: str, attributes: Mapping[str, Attribute], *children: str) -> str:
    """An element; ``children`` are elements, or words that are escaped."""
    written = "".join(f' {key}="{escaped(_short(value))}"' for key, value in attributes.items())
    return f"<{name}{written}>{''.join(children)}</{name}>" if children else f"<{name}{written}/>"


def _short(value: Attribute) -> Attribute:
    return f"{value:.1f}".rstrip("0").rstrip(".") if isinstance(value, float) else value


def group(attributes: Mapping[str, Attribute], children: Iterable[str]) -> str:
    return element("g", attributes, *children)


def rect(x: float, y: float, width: float, height: float, kind: str, radius: float = 0) -> str:
    """A rectangle of a class."""
    size: dict[str, Attribute] = {"class": kind, "x": x, "y": y, "width": width, "height": height}
    return element("rect", size | ({"rx": radius} if radius else {}))


def words(x: float, y: float, text: object, kind: str, size: float = 12, anchor: str = "") -> str:
    """A line of words on a base line. ``anchor``: as in SVG, "" for the start."""
    place: dict[str, Attribute] = {"class": kind, "x": x, "y": y, "font-size": size}
    return element("text", place | ({"text-anchor": anchor} if anchor else {}), escaped(text))


def path(points: Iterable[tuple[float, float]], kind: str) -> str:
    """A line through points."""
    steps = "L".join(f"{_short(float(x))} {_short(float(y))}" for x, y in points)
    return element("path", {"class": kind, "d": f"M{steps}"})


def width(text: str, size: float) -> float:
    """How wide words are at most."""
    return len(text) * ADVANCE * size


def fitting(text: str, room: float, size: float) -> str:
    """Words of at most this width: their middle is left out if they are wider."""
    most = max(3, int(room / (ADVANCE * size)))
    if len(text) <= most:
        return text
    head = (most - 1) // 2
    return f"{text[:head]}\N{HORIZONTAL ELLIPSIS}{text[len(text) - (most - 1 - head):]}"


def ending(text: str, room: float, size: float) -> str:
    """As ``fitting``, with the start left out: the ends of a network's addresses differ."""
    most = max(3, int(room / (ADVANCE * size)))
    return text if len(text) <= most else f"\N{HORIZONTAL ELLIPSIS}{text[len(text) - most + 1:]}"


def style(theme: str) -> str:
    """The rules of all classes; with AUTO, those of the dark theme where the viewer prefers it."""
    rules = _rules(1 if theme == DARK else 0)
    return f"{rules}@media (prefers-color-scheme:dark){{{_rules(1)}}}" if theme == AUTO else rules


def _rules(shade: int) -> str:
    colour = {name: shades[shade] for name, shades in COLOURS.items()}
    fills = "".join(f".{name}{{fill:{value}}}" for name, value in colour.items())
    return (
        f"text{{font-family:{MONO};fill:{colour['ink']}}}{fills}"
        f".title{{font-weight:bold}}.wire{{fill:none;stroke:{colour['wire']};stroke-width:1.5}}"
        f".box{{fill:{colour['card']};stroke:{colour['line']}}}.cell{{fill:{colour['free']};stroke:{colour['line']}}}"
        f".chip{{fill:{colour['tile']};stroke:{colour['line']}}}.zoom{{fill:none;stroke:{colour['ink']}}}"
        f".hilbert{{fill:none;stroke:{colour['line']}}}.tint{{fill-opacity:.25}}"
        f".curve{{fill:none;stroke:{colour['used']};stroke-width:2}}.axis{{stroke:{colour['line']}}}"
        + "".join(f".ring-{name}{{fill:none;stroke:{value};stroke-width:1.5}}" for name, value in colour.items()
                  if name in ("waiting", "spent", "delegated", "ended", "elsewhere", "lease-only"))
    )


def document(width: float, height: float, title: str, theme: str, children: Iterable[str]) -> str:
    """A whole file. ``title`` is what a screen reader says."""
    frame: dict[str, Attribute] = {
        "xmlns": "http://www.w3.org/2000/svg", "viewBox": f"0 0 {width:g} {height:g}", "width": width,
        "height": height, "role": "img", "aria-label": title,
    }
    inside = (element("title", {}, escaped(title)), element("style", {}, style(theme)),
              rect(0, 0, width, height, "page"), *children)
    return element("svg", frame, *inside) + "\n"
