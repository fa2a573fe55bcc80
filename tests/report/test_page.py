"""What all pages have in common."""

import pytest
from jinja2 import UndefinedError

from detkit.report.page import page_environment


def test_what_a_template_is_given_is_escaped_and_what_it_is_not_given_is_an_error():
    template = page_environment().from_string("<b>{{ name }}</b>")
    assert template.render(name="<script>") == "<b>&lt;script&gt;</b>"
    with pytest.raises(UndefinedError, match="name"):
        template.render()
