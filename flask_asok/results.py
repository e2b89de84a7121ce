"""What came out of a task, as signed text for another process: a value or an error."""

from __future__ import annotations

from typing import Any

from flask import Flask

from .errors import MessageRefused, NotConfigured, ResultNotKept
from .messages.signer import Signer
from .packing import Packer
from .state import state_of

MOST_BYTES = 64 * 1024
"""The longest text that is kept."""


def text_of(app: Flask, id: str, value: Any, error: BaseException | None) -> str | None:
    """Return the outcome of the task `id` as text; None if it cannot be written, or is too long."""
    serializer = packer_of(app).serializer
    try:
        if error is None:
            outcome = {"value": serializer.encode(value, "The result")}
        else:
            outcome = {"error": serializer.encode_error(error)}
        text = Signer(app).sign(outcome, f"outcome:{id}")
    except (TypeError, NotConfigured):
        return None
    return text if len(text) <= MOST_BYTES else None


def outcome_of(app: Flask, id: str, text: str) -> tuple[Any, BaseException | None]:
    """Return the value and the error that the text holds; ResultNotKept if it cannot be read here."""
    try:
        outcome = Signer(app).verify(text, f"outcome:{id}")
        if "error" in outcome:
            return None, packer_of(app).serializer.decode_error(outcome["error"])
        return packer_of(app).serializer.decode(outcome["value"]), None
    except (MessageRefused, NotConfigured, KeyError) as error:
        raise ResultNotKept(f"The result of task {id} cannot be read: {error}") from error


def packer_of(app: Flask) -> Packer:
    """Return what writes calls and values of `app` as messages."""
    state = state_of(app)
    return state.shared("packer", lambda: Packer(app, state.config))
