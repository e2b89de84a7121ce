"""Deliver webhooks: START in `recipe.py`; the other files are what it needs, one noun each."""

from ..room import Recipe
from .cli import send_test_webhook
from .delivery import Delivery
from .errors import (
    WebhookBlocked,
    WebhookError,
    WebhookGone,
    WebhookNotVerified,
    WebhookRejected,
    WebhookUnavailable,
)
from .recipe import send_webhook
from .recording import recorded
from .settings import SETTINGS
from .signing import verify_webhook
from .unfinished import set_up

__all__ = [
    "Delivery",
    "WebhookBlocked",
    "WebhookError",
    "WebhookGone",
    "WebhookNotVerified",
    "WebhookRejected",
    "WebhookUnavailable",
    "recorded",
    "send_webhook",
    "verify_webhook",
]

RECIPE = Recipe(
    name="webhooks",
    settings=SETTINGS,
    queues={"webhooks": 16},
    commands=(send_test_webhook,),
    late_imports=("sender", "transport"),
    set_up=set_up,
)
