"""What came out of a task, as its record keeps it."""

from __future__ import annotations

from typing import Any

from ...messages.message import size_of
from ...summaries import State
from .hub import Hub

LONGEST_TEXT = 1_000
"""Characters of an error's text that are kept where the whole error is too large."""


def signed_outcome(hub: Hub, id: str, name: str, state: State, value: Any, error: BaseException | None) -> str | None:
    """
    Return the value or the error of the task `id`, called `name`, as signed text; None for a task without either.

    An error stands in for a value that is too large or cannot be sent.
    """
    if state == "cancelled" or (error is None and state != "succeeded"):
        return None
    encoded, kept_error = None, error
    if error is None:
        try:
            encoded = _encoded_value(hub, name, value)
        except (TypeError, ValueError) as unfit:
            kept_error = unfit
    outcome = {"value": encoded} if kept_error is None else {"error": _encoded_error(hub, kept_error)}
    return hub.sign_outcome(id, outcome)


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
