"""The code behind each card, read from the functions that run, so that it is always the true one."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class Source:
    """A function, as its file has it."""

    file: str
    line: int
    text: str


@functools.cache
def source_of(function: Callable[..., Any]) -> Source:
    """Return the code of a function of this application, with its decorators."""
    lines, first = inspect.getsourcelines(function)
    file = Path(inspect.getfile(function)).relative_to(ROOT)
    return Source(file.as_posix(), first, "".join(lines).rstrip())
