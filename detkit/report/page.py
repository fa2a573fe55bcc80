"""What every page is made with."""

import re
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

_UNPRINTABLE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")


def page_environment() -> Environment:
    """The templates of the pages.

    Names of files, classes and arms are untrusted, so all is escaped; a template that names what it was not given
    fails, rather than leaving a gap in the page.
    """
    return Environment(
        loader=PackageLoader("detkit.report"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_printable,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _printable(value: Any) -> Any:
    """Names may hold what UTF-8 cannot say (a file name in another encoding) or HTML forbids: U+FFFD stands for it."""
    if not isinstance(value, str) or isinstance(value, Markup):
        return value
    return _UNPRINTABLE.sub("\ufffd", value)
