"""What a visitor sees of a task, and the HTML of it."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader
from markupsafe import Markup

from ..progress import plain_text
from ..summaries import SETTLED

WORDS = {"succeeded": "Done", "abandoned": "Interrupted"}
"""The states that are called otherwise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """One task as a visitor sees it."""

    name: str
    state: str
    value: float | None
    """How full the bar is, from 0 to 1; None while nobody knows."""
    percent: str
    text: str

    @property
    def word(self) -> str:
        """The state, for people."""
        return WORDS.get(self.state, self.state.capitalize())

    @property
    def is_settled(self) -> bool:
        """Return True if nothing more will happen to the task."""
        return self.state in SETTLED

    @classmethod
    def of(cls, facts: Mapping[str, Any]) -> View:
        """Read what `as_dict()` of a task says."""
        state, progress = facts["state"], facts["progress"] or {}
        fraction, text = progress.get("fraction"), progress.get("text")
        value = None if fraction is None else min(fraction, 1.0)
        if state == "succeeded":
            value = 1.0
        elif value is None and state != "running":
            value = 0.0
        percent = ""
        if fraction is not None:
            # Not 100 before it is.
            percent = f"{min(round(fraction * 100), 99) if fraction < 1 else round(fraction * 100)}\N{NO-BREAK SPACE}%"
        elif progress:
            # A task without a total still tells how much it has done.
            percent = f"{progress['done']:,.12g}"
        return cls(name=plain_text(facts["name"]), state=state, value=value, percent=percent, text=text or "")


UNKNOWN = View(name="Task", state="unknown", value=0.0, percent="", text="")


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """The form of the cancel button: where it goes, and the hidden fields by their names."""

    action: str
    fields: Mapping[str, str]


def render(template: str, **values: Any) -> Markup:
    """Fill one of the templates beside this file; all values are escaped."""
    return Markup(_environment().get_template(template).render(**values))


@functools.cache
def _environment() -> Environment:
    # Not the application's: that may have other delimiters, and its context processors may ask the database.
    return Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"), autoescape=True, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
