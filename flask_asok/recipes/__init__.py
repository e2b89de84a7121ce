"""The built-in jobs. Another one is its folder and one line here."""

from __future__ import annotations

from importlib import import_module

from .room import Recipe

ROOMS: tuple[str, ...] = (
    "webhooks",
    "images",
    "cache",
    "mail",
)

RECIPES: tuple[Recipe, ...] = tuple(import_module(f"{__name__}.{name}").RECIPE for name in ROOMS)
"""What each says of itself, as `RECIPE` in the `__init__.py` of its folder."""


def import_late() -> None:
    """Import now what the recipes import with their first use: Pillow, urllib3, Flask-Mail."""
    for recipe in RECIPES:
        for module in recipe.late_imports:
            import_module(f"{__name__}.{recipe.name}.{module}")
