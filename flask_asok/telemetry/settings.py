"""The settings of telemetry. They stand here so that they can be read without importing what they turn on."""

from __future__ import annotations

from ..settings import Setting
from ..validate import flag

SETTINGS = (
    Setting(
        "ASOK_TRACE_LINKS", False, flag,
        "OpenTelemetry: every attempt is a trace of its own, with a link to the caller's span. By default the first "
        "attempt of a task without a delay is a child of that span.",
    ),
    Setting(
        "ASOK_SENTRY_SPANS", True, flag,
        "Where Sentry traces: a span for each queued task, and a transaction for each attempt.",
    ),
)  # fmt: skip
