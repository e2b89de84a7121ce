"""What came out of a task, as its record keeps it."""

from __future__ import annotations

from typing import Any, NamedTuple

from flask import Flask

from ...errors import TaskAbandoned
from ...messages.message import Message, size_of
from ...progress import Progress
from ...summaries import SETTLED, TaskSummary
from ...task_log import log_cancelled
from .fields import CANCELLED, packed, summary_of
from .hub import Hub
from .records import KEEPS_MESSAGE

LONGEST_TEXT = 1_000
"""Characters of an error's text that are kept where the whole error is too large."""


def keep(
    hub: Hub,
    message: Message,
    state: str,
    *,
    value: Any = None,
    error: BaseException | None = None,
    text: str = "",
    attempts: int | None = None,
    progress: Progress | None = None,
) -> None:
    """
    Write down the last state of a task, and its value or its error; `text` is what a summary says of the error.

    An error stands in for a value that is too large or cannot be sent. `attempts` is None for a task that was not run.
    """
    if hub.records is None:
        return
    encoded, kept_error = None, error
    if error is None:
        try:
            encoded = _encoded_value(hub, message.name, value)
        except (TypeError, ValueError) as unfit:
            kept_error = unfit
    outcome = {"value": encoded} if kept_error is None else {"error": _encoded_error(hub, kept_error)}
    fields: dict[str, Any] = {"state": state, "error": text, "outcome": hub.sign_outcome(message.id, outcome)}
    if attempts is not None:
        fields["attempts"] = attempts
    if attempts is not None and progress is not None:
        fields["progress"] = packed(attempts, progress)
    if state in KEEPS_MESSAGE:
        # For `flask asok retry`.
        fields["message"] = hub.packer.sign(message)
    hub.records.finish(message, fields)


def keep_stopped(hub: Hub, message: Message, state: str, why: str) -> None:
    """Write down the last state of a task that was ended from outside: its error is a TaskAbandoned that says why."""
    keep(hub, message, state, error=TaskAbandoned(f"The task was {why}."), text=why)


def cancel(hub: Hub, id: str) -> bool:
    """Cancel a task whose attempt has not begun, and log it; False for any other."""
    records = hub.need_records()
    fields = records.read(id)
    if not records.cancel(id):
        return False
    if fields["state"] != CANCELLED:
        log_cancelled(_Found(hub.app, summary_of(id, fields)), "cancel() was called")
    return True


class _Found(NamedTuple):
    app: Flask
    summary: TaskSummary


def is_settled(hub: Hub, id: str) -> bool:
    """Does the record say that the task is settled?"""
    return hub.records is not None and hub.records.read(id).get("state") in SETTLED


def _encoded_value(hub: Hub, name: str, value: Any) -> Any:
    encoded = hub.packer.serializer.encode(value, f"What {name} returned")
    if (size := size_of(encoded)) > hub.packer.most_bytes:
        raise ValueError(
            f"What {name} returned has {size:,} bytes, more than ASOK_MESSAGE_MAX_BYTES ({hub.packer.most_bytes:,}). "
            "Store it, and return its path or id."
        )
    return encoded


def _encoded_error(hub: Hub, error: BaseException) -> dict[str, Any]:
    encoded = hub.packer.serializer.encode_error(error)
    return encoded if size_of(encoded) <= hub.packer.most_bytes else {"text": f"{encoded['text'][:LONGEST_TEXT]}..."}
