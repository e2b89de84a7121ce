"""The caller's OpenTelemetry trace, which a task goes on with in its worker."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping
from contextvars import Context, copy_context
from typing import Any

from ..context import Variables


def trace_headers() -> dict[str, str]:
    """Return the headers of the current span, if the application uses OpenTelemetry."""
    headers: dict[str, str] = {}
    if "opentelemetry.propagate" in sys.modules or _has_span():
        _propagate().inject(headers)
    return headers


def trace_variables(headers: Mapping[str, str] | None) -> Variables:
    """Return the context variables of the span that `trace_headers` described."""
    if not headers or "opentelemetry.trace" not in sys.modules:
        return ()

    def attached() -> Variables:
        context = _propagate().extract(headers)
        sys.modules["opentelemetry.context"].attach(context)
        return tuple(copy_context().items())

    return Context().run(attached)


def _has_span() -> bool:
    trace = sys.modules.get("opentelemetry.trace")
    return trace is not None and trace.get_current_span().get_span_context().is_valid


def _propagate() -> Any:
    # Late: it takes a while, and an application that makes its spans itself has not imported it.
    return importlib.import_module("opentelemetry.propagate")
