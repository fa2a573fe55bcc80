"""What all pages have in common."""

import pytest
from jinja2 import UndefinedError

from detkit.report.page import page_environment


def test_what_a_template_is_given_is_escaped_and_what_it_is_not_given_is_an_error():
    template = page_environment().from_string("<b>{{ name }}</b>")
    assert template.render(name="<script>") == "<b>&lt;script&gt;</b>"
    with pytest.raises(UndefinedError, match="name"):
        template.render()


def test_what_no_page_can_hold_is_replaced():
    """A file's name may be in another encoding than UTF-8, and what JSON says may be half a character."""
    template = page_environment().from_string("{{ name }}: {{ count }}")
    page = template.render(name="caf\udce9\x07\n\tЖ\u200d", count=3)
    assert page == "caf\ufffd\ufffd\n\tЖ\u200d: 3"
    page.encode()
