"""The OpenTelemetry span in which a message is sent."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator

from ...messages.message import Message


def sending(message: Message, label: str) -> contextlib.AbstractContextManager[None]:
    """
    Send `message` in a PRODUCER span, which is the parent, or the link, of the worker's.

    That is left to Celery's own instrumentation where it is active.
    """
    celery = sys.modules.get("opentelemetry.instrumentation.celery")
    if "opentelemetry.trace" not in sys.modules or (
        celery is not None and celery.CeleryInstrumentor().is_instrumented_by_opentelemetry
    ):
        return contextlib.nullcontext()
    return _in_span(message, label)


@contextlib.contextmanager
def _in_span(message: Message, label: str) -> Iterator[None]:
    from opentelemetry import propagate, trace

    from ...telemetry.otel import tracer_in_use

    tracer = tracer_in_use()
    if tracer is None:
        yield
        return
    attributes = {
        "messaging.system": "flask_asok",
        "messaging.operation.name": "send",
        "messaging.operation.type": "send",
        "messaging.destination.name": message.queue,
        "messaging.message.id": message.id,
        "code.function.name": label,
    }
    # Of a task that has waited for its response or commit the caller may be gone.
    caller = propagate.extract(message.trace)
    with tracer.start_as_current_span(
        f"send {message.queue}", context=caller, kind=trace.SpanKind.PRODUCER, attributes=attributes
    ):
        propagate.inject(message.trace)
        yield
