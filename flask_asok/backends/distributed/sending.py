"""The OpenTelemetry span in which a message is sent."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import Any

from .task import RemoteTask


def sending(task: RemoteTask[Any]) -> contextlib.AbstractContextManager[None]:
    """
    Send the message of a task in a PRODUCER span, which is the parent, or the link, of the worker's.

    That is left to Celery's own instrumentation where it is active.
    """
    celery = sys.modules.get("opentelemetry.instrumentation.celery")
    if "opentelemetry.trace" not in sys.modules or (
        celery is not None and celery.CeleryInstrumentor().is_instrumented_by_opentelemetry
    ):
        return contextlib.nullcontext()
    return _in_span(task)


@contextlib.contextmanager
def _in_span(task: RemoteTask[Any]) -> Iterator[None]:
    from opentelemetry import propagate, trace

    from ...telemetry.otel import tracer_in_use

    tracer = tracer_in_use()
    if tracer is None:
        yield
        return
    message = task.message
    attributes = {
        "messaging.system": "flask_asok",
        "messaging.operation.name": "send",
        "messaging.operation.type": "send",
        "messaging.destination.name": message.queue,
        "messaging.message.id": message.id,
        "code.function.name": message.fn.replace(":", "."),
    }
    # Of a task that has waited for its response or commit the caller may be gone.
    caller = propagate.extract(message.trace)
    with tracer.start_as_current_span(
        f"send {message.queue}", context=caller, kind=trace.SpanKind.PRODUCER, attributes=attributes
    ):
        propagate.inject(message.trace)
        yield
