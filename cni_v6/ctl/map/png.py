"""SVG to PNG by resvg, an optional library."""

from __future__ import annotations

import sys
from pathlib import Path

from cni_v6.drawing import svg
from cni_v6.errors import INVALID_CONFIG, CniError

OTHERWISE = "or write FILE.svg or FILE.html, which need nothing"


def require() -> None:
    """
    :raises CniError: INVALID_CONFIG without the library, or without a font on this node.
    """
    try:
        import resvg_py
    except ImportError:
        raise CniError(INVALID_CONFIG, "--output: a PNG needs the library resvg_py", _remedy()) from None
    letter, blank = (svg.document(20, 20, "", svg.LIGHT, [svg.words(2, 18, text, "ink")]) for text in ("M", ""))
    if resvg_py.svg_to_bytes(svg_string=letter) == resvg_py.svg_to_bytes(svg_string=blank):
        raise CniError(INVALID_CONFIG, "--output: a PNG needs a fixed-width font, and this node has none",
                       f"install one (Debian: fonts-dejavu-core); {OTHERWISE}")


def _remedy() -> str:
    """``make install`` has a folder for libraries, and its Python looks nowhere else."""
    folder = Path(__file__).parents[3]
    if folder.is_file():  # made by "make dist"
        return f"this one file takes no library: {OTHERWISE.removeprefix('or ')}"
    alone = sys.flags.no_site and not (folder / "setup.cfg").exists()  # else it is a checkout
    where = f"pip install --target {folder} resvg_py" if alone else "pip install 'cni-v6[map]'"
    return f"it is the extra map: {where}; {OTHERWISE}"


def rendered(picture: str) -> bytes:
    """The picture with two dots for each of its units, for screens that have as many."""
    import resvg_py

    return bytes(resvg_py.svg_to_bytes(svg_string=picture, zoom=2))
