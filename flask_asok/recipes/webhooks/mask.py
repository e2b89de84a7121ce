"""Mask texts in what a receiver answered, in time that its answer cannot stretch."""

from __future__ import annotations

import re
from collections.abc import Iterable

SHORTEST_PART = 12
"""Letters of a text that is masked inside words too: /hook must not turn webhook into web***."""
MASK = "***"

_WORD = re.compile(r"(?:%[0-9a-f]{2})*(\w+)")
_RUN = re.compile(b"\1+")


class Mask:
    """The places of one text that must not be shown."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._hidden = bytearray(len(text))

    def hide(self, secrets: Iterable[str]) -> None:
        """Hide each of `secrets`, in upper and lower case: a short one of letters only where it is a whole word."""
        folded = _folded(self._text)
        words: set[str] = set()
        for secret in {_folded(secret) for secret in secrets}:
            if len(secret) < SHORTEST_PART and secret.isalpha():
                words.add(secret)
                continue
            # Found as a text: hundreds of expressions would each have to be compiled.
            start = folded.find(secret)
            while start >= 0:
                self._hide(start, start + len(secret))
                start = folded.find(secret, start + len(secret))
        for word in _WORD.finditer(folded) if words else ():
            if word[1] in words:
                self._hide(*word.span(1))

    def __str__(self) -> str:
        """Return the text, with a mask in place of what is hidden."""
        shown: list[str] = []
        at = 0
        for run in _RUN.finditer(self._hidden):
            shown += self._text[at : run.start()], MASK
            at = run.end()
        return "".join([*shown, self._text[at:]])

    def _hide(self, start: int, end: int) -> None:
        self._hidden[start:end] = b"\1" * (end - start)


def _folded(text: str) -> str:
    """Return `text` for comparisons without case, each character in its place."""
    folded = text.casefold()
    if len(folded) == len(text):
        return folded
    return "".join(each if len(each.casefold()) > 1 else each.casefold() for each in text)
