"""The text and HTML of an email, rendered from a pair of templates."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flask import current_app, render_template
from jinja2 import Template, TemplateNotFound


def rendered(name: str, context: Mapping[str, Any]) -> tuple[str | None, str | None]:
    """
    Return `name`.txt and `name`.html, rendered now; None for a template that does not exist.

    Raises TemplateNotFound if neither exists.
    """
    text, html = _template(f"{name}.txt"), _template(f"{name}.html")
    if text is None and html is None:
        raise TemplateNotFound(name, f"The template of an email needs {name}.txt or {name}.html; neither was found.")
    return (
        None if text is None else render_template(text, **context),
        None if html is None else render_template(html, **context),
    )


def _template(name: str) -> Template | None:
    try:
        return current_app.jinja_env.get_template(name)
    except TemplateNotFound:
        # This one only: the templates that it includes are looked up when it is rendered.
        return None
