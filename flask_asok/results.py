"""What came out of a task, as signed text for another process: a value or an error."""

from __future__ import annotations

from typing import Any

from flask import Flask

from .errors import MessageRefused, NotConfigured, ResultNotKept
from .messages.names import Names
from .messages.serializer import Serializer
from .messages.signer import Signer
from .state import state_of

MOST_BYTES = 64 * 1024
"""The longest text that is kept."""


def text_of(app: Flask, id: str, value: Any, error: BaseException | None) -> str | None:
    """Return the outcome of the task `id` as text; None if it cannot be written, or is too long."""
    serializer = serializer_of(app)
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
            return None, serializer_of(app).decode_error(outcome["error"])
        return serializer_of(app).decode(outcome["value"]), None
    except (MessageRefused, NotConfigured, KeyError) as error:
        raise ResultNotKept(f"The result of task {id} cannot be read: {error}") from error


def serializer_of(app: Flask) -> Serializer:
    """Return what writes values of `app`: of functions and classes, those of the modules that it allows."""
    modules = state_of(app).config["ASOK_TASK_MODULES"]
    root = app.import_name.partition(".")[0]
    return Serializer(Names({"flask_asok", *([root] if modules is None else modules)}))
