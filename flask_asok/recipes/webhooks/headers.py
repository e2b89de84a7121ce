"""The headers that the caller adds, and the `Retry-After` that the receiver answers."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from werkzeug.datastructures import MultiDict

from ...validate import a_kind

_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_VALUE = re.compile(r"(?:[!-~](?:[ -~]*[!-~])?)?")

OURS = frozenset(
    {
        "accept-encoding",  # the answer is never decompressed
        "connection",
        "content-length",
        "expect",
        "host",
        "keep-alive",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
"""Headers that frame the request or belong to the connection: callers cannot set them."""

LONGEST_RETRY_AFTER = 3600.0
"""Seconds to which a `Retry-After` is cut: no receiver may put a delivery off for days."""


def checked_headers(headers: Mapping[str, str] | None) -> dict[str, str]:
    """
    Return a copy of the caller's headers; TypeError or ValueError for an invalid one.

    Names are tokens of RFC 9110, values printable ASCII. The text of an error quotes no value: it may be a credential.
    """
    if headers is not None and not hasattr(headers, "items"):
        raise TypeError(f"headers must map names to values, not be {a_kind(type(headers))}.")
    checked: dict[str, str] = {}
    seen: set[str] = set()
    # Only `multi` shows a header that a MultiDict holds twice.
    given = headers.items(multi=True) if isinstance(headers, MultiDict) else (headers or {}).items()
    for name, value in given:
        if not isinstance(name, str) or not isinstance(value, str):
            raise TypeError("Names and values of webhook headers must be str.")
        if not _TOKEN.fullmatch(name):
            raise ValueError("The name of a webhook header may hold letters, digits and hyphens, and no space.")
        lower = name.lower()
        if lower in OURS or lower.startswith("webhook-"):
            raise ValueError(f"The header {name} is set by send_webhook itself.")
        if lower in seen:
            raise ValueError(f"The header {name} is given twice.")
        if not _VALUE.fullmatch(value):
            raise ValueError(
                f"The value of the header {name} must be printable ASCII, with no line break and no space at its ends."
            )
        seen.add(lower)
        checked[name] = value
    return checked


def retry_after(value: str | None, now: datetime | None = None) -> float | None:
    """
    Return the seconds that a `Retry-After` asks to wait, from 0 to an hour; None if it is missing or invalid.

    Reads both forms of RFC 9110: seconds (digits only) and a date.
    """
    text = (value or "").strip(" \t")
    if re.fullmatch(r"[0-9]{1,10}", text):
        seconds = float(text)
    else:
        try:
            date = parsedate_to_datetime(text)
            seconds = (date.replace(tzinfo=date.tzinfo or UTC) - (now or datetime.now(UTC))).total_seconds()
        except (ValueError, TypeError, IndexError, OverflowError):
            return None
    return min(max(seconds, 0.0), LONGEST_RETRY_AFTER)
