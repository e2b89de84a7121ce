"""What a configuration key is. Each room declares its own, and `extension.py` collects and reads them."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from flask import Flask

from .validate import Check

PREFIX = "ASOK_"


@dataclass(frozen=True, slots=True)
class Setting:
    """One `ASOK_...` key of the configuration."""

    name: str
    default: Any
    check: Check
    """Returns the value as it will be used; raises TypeError or ValueError, whose text quotes no secret."""
    meaning: str
    """A sentence for the documentation, in Markdown."""


def read(app: Flask, settings: Iterable[Setting]) -> dict[str, Any]:
    """Return the checked value of each setting by its name; `app.config` gets the defaults that it lacks."""
    values = {}
    for setting in settings:
        values[setting.name] = setting.check(setting.name, app.config.setdefault(setting.name, setting.default))
    return values


def unknown(config: Mapping[str, Any], known: Iterable[str]) -> list[str]:
    """Return the keys of `config` that begin as ours do, and that no room declares."""
    names = frozenset(known)
    return [key for key in config if isinstance(key, str) and key.startswith(PREFIX) and key not in names]


def refuse(key: str, known: Iterable[str]) -> None:
    """Raise ValueError for a key that no room declares: it is misspelt, and what it says would be ignored."""
    (nearest,) = difflib.get_close_matches(key, sorted(known), n=1, cutoff=0)
    raise ValueError(f"{key} is no configuration key of Flask-Asok. The nearest one is {nearest}.")
