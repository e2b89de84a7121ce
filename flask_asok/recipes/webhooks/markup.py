"""The text of an HTML page without its markup, in time that grows with its length alone: a receiver wrote the page."""

from __future__ import annotations

import re

# A "<" before anything else is one that a text means: 5 < 6.
_BEGINNING = re.compile(r"<(?:!--|(?P<name>style|script)\b|[a-z/!?])", re.IGNORECASE)
_ENDS = {name: re.compile(f"</{name}", re.IGNORECASE) for name in ("style", "script")}


def without_markup(text: str) -> str:
    """Return `text` with a space in place of each tag, comment, script and style; cut where one of them has no end."""
    kept: list[str] = []
    at = 0
    # No expression that looks for a beginning and its end at once: it would look for the missing end of each beginning.
    while (beginning := _BEGINNING.search(text, at)) is not None:
        kept.append(text[at : beginning.start()])
        at = _end(text, beginning)
    return " ".join([*kept, text[at:]])


def _end(text: str, beginning: re.Match[str]) -> int:
    """Return where the text goes on after what begins there; at the end of it if the end is missing."""
    start = beginning.end()
    if name := beginning["name"]:
        closing = _ENDS[name.lower()].search(text, start)
        if closing is None:
            return len(text)
        start = closing.end()
    mark = "-->" if beginning[0] == "<!--" else ">"
    end = text.find(mark, start)
    return len(text) if end < 0 else end + len(mark)
