"""What every page is made with."""

from jinja2 import Environment, PackageLoader, StrictUndefined


def page_environment() -> Environment:
    """The templates of the pages.

    Names of files, classes and arms are untrusted, so all is escaped; a template that names what it was not given
    fails, rather than leaving a gap in the page.
    """
    return Environment(
        loader=PackageLoader("detkit.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
