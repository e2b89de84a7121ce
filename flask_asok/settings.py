"""What a configuration key is. Each room declares its own, and `extension.py` collects and reads them."""

from __future__ import annotations

import copy
import difflib
import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import Any

from flask import Flask

from .logs import log
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
        # A copy, for an application may change its own in place.
        given = app.config.setdefault(setting.name, copy.copy(setting.default))
        values[setting.name] = setting.check(setting.name, given)
    return values


class Given:
    """The `ASOK_...` keys of an application as they were when `init_app` read them."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        # As text, which shows what was changed in place as well, at any depth.
        self._values = {key: repr(config[key]) for key in unknown(config, ())}

    def warn_of_later(self, app: Flask) -> None:
        """Log which of them were set or changed afterwards, which changes nothing."""
        later = [key for key in unknown(app.config, ()) if self._values.get(key) != repr(app.config[key])]
        if later:
            log(
                logging.WARNING,
                "%s %s set after Flask-Asok had read the configuration, and changed nothing. "
                "Set keys before FlaskAsok(app), or init_app(app).",
                ", ".join(later), "was" if len(later) == 1 else "were", app=app,
            )  # fmt: skip


def unknown(config: Mapping[str, Any], known: Iterable[str]) -> list[str]:
    """Return the keys of `config` that begin as ours do, in whatever case, and that no room declares."""
    names = frozenset(known)
    return [key for key in config if isinstance(key, str) and key.upper().startswith(PREFIX) and key not in names]


def refuse_unknown(config: Mapping[str, Any], known: Iterable[str]) -> None:
    """Raise ValueError for a key that no room declares: it is misspelt, and what it says would be ignored."""
    if unknown(config, known):
        # Of a backend that is installed, and not chosen here: in tests, for instance. Loaded for this and only now.
        others = [entry.load().settings for entry in entry_points(group="flask_asok.backends")]
        known = [*known, *(setting.name for declared in others for setting in declared)]
    for key in unknown(config, known):
        # Without the prefix, which would make any two keys alike.
        names = sorted(name.removeprefix(PREFIX) for name in known)
        nearest = difflib.get_close_matches(key.upper().removeprefix(PREFIX), names, n=1)
        if nearest:
            raise ValueError(f"{key} is no configuration key of Flask-Asok. The nearest one is {PREFIX}{nearest[0]}.")
        raise ValueError(f"{key} is no configuration key of Flask-Asok. They are {', '.join(sorted(known))}.")
