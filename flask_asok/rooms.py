"""Every setting of Flask-Asok, by the room that declares it."""

from __future__ import annotations

import itertools

from .backends.settings import CELERY_SETTINGS, POSTGRES_SETTINGS
from .backends.settings import SETTINGS as BACKEND_SETTINGS
from .packing import SETTINGS as MESSAGE_SETTINGS
from .periodic import SETTINGS as PERIODIC_SETTINGS
from .recipes import RECIPES
from .settings import Setting
from .sharing import SETTINGS as STORE_SETTINGS
from .telemetry.settings import SETTINGS as TELEMETRY_SETTINGS
from .validate import anything

ROOMS: dict[str, tuple[Setting, ...]] = {
    "Tasks": (
        Setting(
            "ASOK_BACKEND", "threads", anything,
            '"threads" of this process; "celery" workers; "postgres", the PostgreSQL of the application; "immediate", '
            "for tests, at the call; or the name of an entry point in `flask_asok.backends` that another package "
            "registers.",
        ),
        *BACKEND_SETTINGS,
    ),
    "Store": STORE_SETTINGS,
    "Periodic tasks": PERIODIC_SETTINGS,
    "Messages": MESSAGE_SETTINGS,
    "Telemetry": TELEMETRY_SETTINGS,
    **{recipe.name.capitalize(): recipe.settings for recipe in RECIPES},
    "Celery": CELERY_SETTINGS,
    "PostgreSQL": POSTGRES_SETTINGS,
}  # fmt: skip
"""In the order of the documentation."""

SETTINGS: tuple[Setting, ...] = tuple(itertools.chain.from_iterable(ROOMS.values()))
