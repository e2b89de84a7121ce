"""How a text may be read: as it is, and with its escapes resolved, each character still known by its place."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Sequence
from urllib.parse import unquote

MOST_DEEP = 3
"""Readings of one text: a receiver may echo JSON in JSON, or a URL in a page."""

# Of JSON, of JavaScript and URLs, of HTML.
_ESCAPE = re.compile(
    r'(?:\\u[0-9A-Fa-f]{4})+|\\["\\/bfnrt]'
    r"|(?:(?:%|\\x)[0-9A-Fa-f]{2})+"
    r"|&(?:#[0-9]{1,7}|#[xX][0-9A-Fa-f]{1,6}|[A-Za-z][A-Za-z0-9]{1,31});?"
)


class Reading:
    """One reading of a text. Character `i` of it stands for the characters `starts[i]` to `ends[i]` of the text."""

    __slots__ = ("ends", "starts", "text")

    def __init__(self, text: str, starts: Sequence[int], ends: Sequence[int]) -> None:
        self.text: str = text
        self.starts: Sequence[int] = starts
        self.ends: Sequence[int] = ends

    def folded(self) -> str:
        """Return its text for comparisons: without case, and with a space for the plus of a form."""
        folded = self.text.casefold()
        if len(folded) != len(self.text):
            # Each character stays in its place.
            folded = "".join(each if len(each.casefold()) > 1 else each.casefold() for each in self.text)
        return folded.replace("+", " ")

    def resolved(self) -> Reading | None:
        """Return the reading in which each escape is what it stands for; None if there is none."""
        parts: list[str] = []
        starts: list[int] = []
        ends: list[int] = []
        at = 0
        for escape in _ESCAPE.finditer(self.text):
            plain = _resolved(escape[0])
            if plain == escape[0]:
                continue
            start, end = escape.span()
            parts += self.text[at:start], plain
            starts += self.starts[at:start]
            starts += [self.starts[start]] * len(plain)
            ends += self.ends[at:start]
            ends += [self.ends[end - 1]] * len(plain)
            at = end
        if not parts:
            return None
        return Reading("".join([*parts, self.text[at:]]), [*starts, *self.starts[at:]], [*ends, *self.ends[at:]])


def readings(text: str) -> list[Reading]:
    """Return the readings of `text`: as it is, then with its escapes resolved once, twice."""
    found = [Reading(text, range(len(text)), range(1, len(text) + 1))]
    while len(found) < MOST_DEEP and (deeper := found[-1].resolved()) is not None:
        found.append(deeper)
    return found


def _resolved(escape: str) -> str:
    if escape[0] == "&":
        return html.unescape(escape)
    if escape[0] == "%" or escape[1] == "x":
        return unquote(escape.replace("\\x", "%"))
    plain: str = json.loads(f'"{escape}"')
    return plain
