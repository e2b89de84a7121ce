"""Mask texts in what a receiver answered, however it writes them, in time that its answer cannot stretch."""

from __future__ import annotations

import re
from collections.abc import Iterable

from .reading import Reading, readings

SHORTEST_SECRET = 4
"""Characters of a text that is masked: shorter ones reveal nothing, and occur everywhere."""
SHORTEST_PART = 12
"""Letters of a text that is masked inside words too: /hook must not turn webhook into web***."""
SHORTEST_RUN = 8
"""Characters in a row that two texts must share."""
MASK = "***"

_WORD = re.compile(r"\w+")
_HIDDEN = re.compile(b"\1+")


class Mask:
    """The places of one text that must not be shown."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._readings = [(reading, reading.folded()) for reading in readings(text)]
        self._hidden = bytearray(len(text))

    def hide(self, secrets: Iterable[str]) -> None:
        """Hide each of `secrets`, in upper and lower case: a short one of letters only where it is a whole word."""
        forms = {reading.folded() for secret in secrets for reading in readings(secret)}
        forms = {form for form in forms if len(form) >= SHORTEST_SECRET}
        words = {form for form in forms if form.isalpha() and len(form) < SHORTEST_PART}
        for reading, folded in self._readings:
            # Found as a text: each of a thousand expressions would have to be compiled.
            for form in forms - words:
                start = folded.find(form)
                while start >= 0:
                    self._hide(reading, start, start + len(form))
                    start = folded.find(form, start + len(form))
            for word in _WORD.finditer(folded) if words else ():
                if word[0] in words:
                    self._hide(reading, *word.span())

    def hide_runs(self, text: str) -> None:
        """Hide what this text shares with `text`, were it cut off at its beginning or end."""
        runs = {run for _, folded in self._readings for run in _runs(folded)}
        shared: set[str] = set()
        for reading in readings(text) if runs else ():
            shared |= runs.intersection(_runs(reading.folded()))
        for reading, folded in self._readings if shared else ():
            for start, run in enumerate(_runs(folded)):
                if run in shared:
                    self._hide(reading, start, start + SHORTEST_RUN)

    def hide_matches(self, expression: re.Pattern[str]) -> None:
        """Hide the first group of each match."""
        for reading, _ in self._readings:
            for match in expression.finditer(reading.text):
                self._hide(reading, *match.span(1))

    def __str__(self) -> str:
        """Return the text, with a mask in place of what is hidden."""
        shown: list[str] = []
        at = 0
        for hidden in _HIDDEN.finditer(self._hidden):
            shown += self._text[at : hidden.start()], MASK
            at = hidden.end()
        return "".join([*shown, self._text[at:]])

    def _hide(self, reading: Reading, start: int, end: int) -> None:
        first, last = reading.starts[start], reading.ends[end - 1]
        self._hidden[first:last] = b"\1" * (last - first)


def _runs(text: str) -> Iterable[str]:
    return (text[start : start + SHORTEST_RUN] for start in range(len(text) - SHORTEST_RUN + 1))
