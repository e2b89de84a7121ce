"""The caller's OpenTelemetry trace, which a task goes on with in its worker."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from contextvars import Context, copy_context

from ..context import Variables


def trace_headers() -> dict[str, str]:
    """Return the headers of the current span, if the application uses OpenTelemetry."""
    headers: dict[str, str] = {}
    if "opentelemetry.propagate" in sys.modules:
        sys.modules["opentelemetry.propagate"].inject(headers)
    return headers


def trace_variables(headers: Mapping[str, str] | None) -> Variables:
    """Return the context variables of the span that `trace_headers` described."""
    if not headers or "opentelemetry.propagate" not in sys.modules:
        return ()

    def attached() -> Variables:
        context = sys.modules["opentelemetry.propagate"].extract(headers)
        sys.modules["opentelemetry.context"].attach(context)
        return tuple(copy_context().items())

    return Context().run(attached)
