"""Deliver webhooks: START in `delivery.py`; the other files are what it needs, one noun each."""

from .delivery import send_webhook
from .outcome import Delivery
from .recording import recorded
from .signing import verify_webhook

__all__ = ["Delivery", "recorded", "send_webhook", "verify_webhook"]
