"""Numbers as texts, tables and pages give them."""


def points(value: float | None) -> str:
    """A fraction in points (hundredths), with one decimal."""
    # Adding 0 makes minus zero plain.
    return "n/a" if value is None else f"{round(100 * value, 1) + 0.0:.1f}"


def value_text(value: int | float | str) -> str:
    """A value of a key: a number that is not whole with three digits, all else as it is."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)
