"""The built-in jobs. Another one is its folder and one line here."""

from . import cache, images, mail, webhooks
from .room import Recipe

RECIPES: tuple[Recipe, ...] = (
    webhooks.RECIPE,
    images.RECIPE,
    cache.RECIPE,
    mail.RECIPE,
)
