"""matplotlib's figures as SVG that belongs to a page: its colours, its font, text as text."""

import io
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from xml.etree import ElementTree

import matplotlib
from markupsafe import Markup
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from detkit.report.colours import GRID, INK, css_values, light_values

_SVG = "http://www.w3.org/2000/svg"
_XLINK = "http://www.w3.org/1999/xlink"
_STYLE: Any = {
    "svg.fonttype": "none",  # text stays text: it can be searched, read aloud, and takes the page's font
    "text.parse_math": False,  # a name with two dollar signs is no formula
    "font.size": 11,
    "axes.labelsize": 11,
    "xtick.labelsize": 10.5,
    "ytick.labelsize": 10.5,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.facecolor": "none",
    "figure.facecolor": "none",
    "savefig.facecolor": "none",
    "axes.formatter.use_mathtext": False,
}


@contextmanager
def chart_style() -> Iterator[None]:
    """Draw within this: matplotlib reads its settings when things are drawn. The caller's are left alone."""
    with matplotlib.rc_context(_STYLE):
        yield


def inline_svg(figure: Figure, *, key: str, title: str, description: str) -> Markup:
    """The figure as an element for an HTML page.

    Args:
        figure: drawn within ``chart_style``.
        key: differs from that of every other figure of the page; ids begin with it.
        title, description: what a reader who does not see the chart is told; untrusted text is escaped.
    """
    root = _rendered(figure, key)
    for size in ("width", "height"):
        root.attrib.pop(size, None)  # the page decides; viewBox keeps the shape
    _drop(root, "metadata")
    _drop(root, "style")  # applies to the whole page where SVG stands inside it
    for element in root.iter():
        _adapt(element, key)
        _colour(element, css_values())
    _describe(root, key, title, description)
    return Markup(ElementTree.tostring(root, encoding="unicode"))  # escaped by ElementTree


def standing_svg(figure: Figure) -> str:
    """The figure as the text of a file of its own, in light colours on white; drawn within ``chart_style``."""
    root = _rendered(figure, "figure")
    _drop(root, "metadata")
    for element in root.iter():
        _colour(element, light_values())
    paper = ElementTree.Element(f"{{{_SVG}}}rect", {"width": "100%", "height": "100%", "fill": "#ffffff"})
    root.insert(0, paper)
    return ElementTree.tostring(root, encoding="unicode") + "\n"


def _rendered(figure: Figure, key: str) -> ElementTree.Element:
    """What matplotlib writes, always the same for the same key."""
    buffer = io.BytesIO()
    with matplotlib.rc_context({**_STYLE, "svg.hashsalt": key}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")  # the page's font draws the text, not matplotlib's
        FigureCanvasSVG(figure).print_svg(buffer, metadata={"Date": None})
    ElementTree.register_namespace("", _SVG)
    ElementTree.register_namespace("xlink", _XLINK)
    return ElementTree.fromstring(buffer.getvalue())


def _drop(root: ElementTree.Element, name: str) -> None:
    for parent in list(root.iter()):
        for child in parent.findall(f"{{{_SVG}}}{name}"):
            parent.remove(child)


def _adapt(element: ElementTree.Element, key: str) -> None:
    """Ids that no other figure of the page has."""
    for name, value in element.attrib.items():
        if name == "id":
            element.set(name, f"{key}-{value}")
        elif name == f"{{{_XLINK}}}href":
            element.set(name, value.replace("#", f"#{key}-", 1))
        elif name == "clip-path":
            element.set(name, value.replace("url(#", f"url(#{key}-"))


def _colour(element: ElementTree.Element, values: dict[str, str]) -> None:
    """Colours for stand-ins."""
    for name in ("style", "fill", "stroke"):
        style = element.get(name)
        if style is not None:
            element.set(
                name, re.sub(r"#[0-9a-f]{6}", lambda found: values.get(found.group(), found.group()), style)
            )


def _describe(root: ElementTree.Element, key: str, title: str, description: str) -> None:
    root.set("role", "img")
    root.set("aria-labelledby", f"{key}-title {key}-description")
    for index, (name, text) in enumerate((("title", title), ("desc", description))):
        element = ElementTree.Element(f"{{{_SVG}}}{name}")
        element.set("id", f"{key}-{'title' if name == 'title' else 'description'}")
        element.text = text
        root.insert(index, element)
