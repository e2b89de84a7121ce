"""What a recipe says of itself: what the rest of the package has to know of its room."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import click
from flask import Flask

from ..settings import Setting


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A built-in job. Declared as `RECIPE` in the `__init__.py` of its folder."""

    name: str
    """The name of its folder."""
    settings: tuple[Setting, ...] = ()
    queues: Mapping[str, int] = field(default_factory=dict)
    """Queues of its own and their numbers of threads, which `ASOK_QUEUES` may change."""
    commands: tuple[click.Command, ...] = ()
    """What `flask asok` gets."""
    late_imports: tuple[str, ...] = ()
    """Modules of its folder that import a heavy library, and are imported with the first use."""
    set_up: Callable[[Flask], None] | None = None
    """Called at the end of `init_app`."""
