"""One colour, dash and marker for each line, the same in every chart, and how charts follow the page's colours.

Charts are drawn in stand-in colours, which ``svg`` turns into the page's CSS variables: one drawing then serves light,
dark and print. The lines' colours differ in lightness as well as in hue: the first six are told apart
with any colour vision, on white and on black. Dashes and markers say the same without colour.
"""

from typing import Any

from markupsafe import Markup

INK, MUTED, GRID, CARD = "#010101", "#020202", "#030303", "#040404"
"""Stand-ins for text, lesser text, grid lines and what charts stand on."""
_LIGHT = ("#1c66e0", "#8a2408", "#0d9c66", "#c4359c", "#a08c0a", "#2d343c", "#3f97dc", "#562370")
_DARK = ("#5a92fb", "#ee7658", "#6ff2b4", "#cc74aa", "#dfb914", "#eaedef", "#62b4f0", "#d8bdec")
_DASHES: tuple[Any, ...] = (
    "solid", (0, (5, 1.5)), (0, (1.2, 1.2)), (0, (7, 1.5, 1.2, 1.5)), (0, (3, 1)),
    (0, (5, 1.5, 1.2, 1.5, 1.2, 1.5)), (0, (9, 2)), (0, (1.2, 2.4)),
)  # fmt: skip
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "p")
LINE_COLOURS = len(_LIGHT)


def line_colour(index: int) -> str:
    """The stand-in of a line, by its place: of an arm, that in the comparison."""
    return f"#0a0a{index % LINE_COLOURS:02x}"


def line_dash(index: int) -> Any:
    """matplotlib's style of a line; another one where colours begin to repeat."""
    return _DASHES[(index + index // LINE_COLOURS) % len(_DASHES)]


def line_marker(index: int) -> str:
    """matplotlib's marker of a line."""
    return _MARKERS[(index + index // LINE_COLOURS) % len(_MARKERS)]


def line_class(index: int) -> str:
    """The class that gives an element of the page a line's colour."""
    return f"line-{index % LINE_COLOURS}"


def css_values() -> dict[str, str]:
    """What each stand-in becomes in the page."""
    lines = {line_colour(index): f"var(--line-{index})" for index in range(LINE_COLOURS)}
    return {INK: "currentColor", MUTED: "var(--muted)", GRID: "var(--grid)", CARD: "var(--card)", **lines}


def light_values() -> dict[str, str]:
    """What each stand-in becomes in a picture that stands by itself, on white."""
    lines = {line_colour(index): colour for index, colour in enumerate(_LIGHT)}
    return {INK: "#1a1d21", MUTED: "#6b7178", GRID: "#e3e5e8", CARD: "#ffffff", **lines}


def css_variables(*, dark: bool) -> str:
    """The declarations of the lines' colours."""
    colours = _DARK if dark else _LIGHT
    return " ".join(f"--line-{index}: {colour};" for index, colour in enumerate(colours))


def css_classes() -> str:
    """A rule for each ``line_class``."""
    return "\n".join(f".line-{index} {{ --line: var(--line-{index}); }}" for index in range(LINE_COLOURS))


_KEYS = {
    "o": "M17 2 a4.5 4.5 0 1 0 .01 0 z",
    "s": "M12.8 2.3 h8.4 v8.4 h-8.4 z",
    "^": "M17 1.6 l5 9.4 h-10 z",
    "D": "M17 .8 l5.6 5.7 l-5.6 5.7 l-5.6 -5.7 z",
    "v": "M17 11.4 l5 -9.4 h-10 z",
    "P": "M15.2 1.8 h3.6 v3 h3 v3.6 h-3 v3 h-3.6 v-3 h-3 v-3.6 h3 z",
    "X": "M14 1 l3 3 l3 -3 l2.5 2.5 l-3 3 l3 3 l-2.5 2.5 l-3 -3 l-3 3 l-2.5 -2.5 l3 -3 l-3 -3 z",
    "p": "M17 1.4 l5 3.7 l-1.9 5.9 h-6.2 l-1.9 -5.9 z",
}  # fmt: skip
"""matplotlib's markers as paths, in a box of 34 x 13."""


def line_key(index: int) -> Markup:
    """What stands for a line in a legend: a piece of it with its marker, as SVG."""
    dash = line_dash(index)
    lengths = "" if dash == "solid" else " ".join(f"{1.9 * length:g}" for length in dash[1])
    return Markup(
        '<svg class="key {}" viewBox="0 0 34 13" aria-hidden="true"><line x1="0" y1="6.5" x2="34" y2="6.5" '
        'stroke-dasharray="{}"/><path d="{}"/></svg>'
    ).format(line_class(index), lengths, _KEYS[line_marker(index)])
