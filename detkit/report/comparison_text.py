"""Names cut to the room that a chart has for them."""

import warnings
from functools import cache
from unicodedata import east_asian_width

from matplotlib.font_manager import FontProperties
from matplotlib.textpath import text_to_path


def fitted(name: str, room: float, size: float) -> str:
    """A name on one line, its end cut off where it takes more than ``room``.

    Args:
        room, size: of the line and of its letters, points.
    """
    name = " ".join(name.split())
    if text_width(name, size) <= room:
        return name
    while name and text_width(f"{name}…", size) > room:
        name = name[:-1]
    return f"{name.rstrip()}…"


def fitted_pair(first: str, second: str, room: float, size: float, between: str = " over ") -> str:
    """Two names on one line; the longer is cut, and both where they are alike."""
    room -= text_width(between, size)
    names = [" ".join(name.split()) for name in (first, second)]
    widths = [text_width(name, size) for name in names]
    # Each may have half the room, and what the other leaves of its half.
    rooms = [max(room / 2, room - widths[1]), max(room / 2, room - widths[0])]
    return between.join(fitted(name, each, size) for name, each in zip(names, rooms, strict=True))


def text_width(text: str, size: float) -> float:
    """Points that a text takes in matplotlib's own font, which is wider than those that a page is likely to have."""
    return size * sum(_letter_width(letter) for letter in text)


@cache
def _letter_width(letter: str) -> float:
    """In ems; full width where it may be such a letter, of which matplotlib's font has few."""
    if east_asian_width(letter) in "WF" or ord(letter) > 0x2FFF:
        return 1.25
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")  # the page's font has it, or shows a box
        measured = text_to_path.get_text_width_height_descent(letter, FontProperties(size=100), ismath=False)
    return float(measured[0]) / 100
