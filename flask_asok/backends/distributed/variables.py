"""The context variables of a task in a worker: those of the tools there, such as the Sentry scope of an engine."""

from __future__ import annotations

import sys
from contextvars import copy_context

from ...context import NOT_CAPTURED, Variables

OF_THE_THREAD = NOT_CAPTURED | {"decimal_context"}
"""What a task must not share with the code that runs it."""


def worker_variables(caller: Variables) -> Variables:
    """Return the worker's own variables, and where there is no span of the worker's, those of the caller's trace."""
    around = copy_context()
    own = tuple((variable, value) for variable, value in around.items() if variable.name not in OF_THE_THREAD)
    return own if _has_span() else (*own, *caller)


def _has_span() -> bool:
    trace = sys.modules.get("opentelemetry.trace")
    return trace is not None and trace.get_current_span().get_span_context().is_valid
