"""How far a task has come: what it reports, checked."""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass
from typing import Any

LONGEST_TEXT = 200
"""Characters of a progress text that are kept."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a task has come: `done` of `total`, a text, and when it was told (seconds since the epoch)."""

    done: float
    total: float | None
    text: str | None
    at: float

    @property
    def fraction(self) -> float | None:
        """From 0.0 to 1.0, or more where `done` passes `total`; None without a total, or with one of 0."""
        if not self.total:
            return None
        fraction = self.done / self.total
        # A total that is next to nothing: JSON has no word for infinity, and a page none for as much in per cent.
        return fraction if math.isfinite(fraction * 100) else None

    @classmethod
    def of(cls, done: float, total: float | None, text: str | None, at: float) -> Progress:
        """
        Check what a task reports. TypeError for another type; ValueError for a negative number, NaN or infinity.

        The text is cut, and made one that every page, file and database can hold.
        """
        done = _number("done", done)
        total = None if total is None else _number("total", total)
        if text is not None and not isinstance(text, str):
            raise TypeError(f"text must be a str or None, not {type(text).__name__}.")
        return cls(done, total, text if text is None else plain_text(text)[:LONGEST_TEXT], at)

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        return {"done": self.done, "total": self.total, "text": self.text, "at": self.at, "fraction": self.fraction}


def _number(name: str, value: float) -> float:
    """Return a plain int or float, without the type of a library."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} must be a number, not {type(value).__name__}.")
    if not 0 <= value <= sys.float_info.max:
        # Python writes no int of more than 4,300 digits.
        shown = repr(value) if isinstance(value, float) or abs(value) < sys.maxsize else "a number of that size"
        raise ValueError(f"{name} must be finite and not negative, not {shown}.")
    return float(value) if isinstance(value, float) else int(value)


def plain_text(text: str) -> str:
    """Return a str of its own, no Markup or other subclass, without NUL and halves of surrogate pairs."""
    return text.encode("utf-8", "replace").decode().replace("\0", "�")
