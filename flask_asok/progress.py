"""How far a task has come."""

from __future__ import annotations

import math
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
        """From 0.0 to 1.0, or more where `done` passes `total`; None without a total."""
        return None if not self.total else self.done / self.total

    @classmethod
    def of(cls, done: float, total: float | None, text: str | None, at: float) -> Progress:
        """Check what a task reports. TypeError for another type; ValueError for a negative number or NaN."""
        for name, value in (("done", done), ("total", total)):
            if value is None and name == "total":
                continue
            if isinstance(value, bool) or not isinstance(value, (int, float)):
                raise TypeError(f"{name} must be a number, not {type(value).__name__}.")
            if not math.isfinite(value) or value < 0:
                raise ValueError(f"{name} must be finite and not negative, not {value!r}.")
        if text is not None and not isinstance(text, str):
            raise TypeError(f"text must be a str or None, not {type(text).__name__}.")
        return cls(done, total, text if text is None else text[:LONGEST_TEXT], at)

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        return {"done": self.done, "total": self.total, "text": self.text, "at": self.at, "fraction": self.fraction}
