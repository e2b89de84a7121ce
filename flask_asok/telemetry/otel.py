"""The OpenTelemetry span of an attempt, and the one of a message that is sent to a worker."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from functools import cache
from importlib.metadata import version
from typing import Any

from opentelemetry import context, trace
from opentelemetry.trace import Link, Span, SpanKind, Status, StatusCode, TracerProvider

from ..logs import safe_repr
from .labels import label_of


class AttemptSpan:
    """The span of one attempt: of our own, or the one that the engine's worker has begun for it."""

    __slots__ = ("_is_ours", "_span")

    def __init__(self, span: Span, *, is_ours: bool) -> None:
        self._span = span
        self._is_ours = is_ours

    def failed(self, error: BaseException, *, is_last: bool) -> None:
        """Mark the span as failed, of an attempt that is retried too."""
        # The text of an error may itself raise.
        with contextlib.suppress(Exception):
            self._span.record_exception(error)
        self._span.set_status(Status(StatusCode.ERROR, safe_repr(error)))

    def ended(self, state: str) -> None:
        """End the span, unless the worker does so."""
        if state == "abandoned":
            self._span.set_status(Status(StatusCode.ERROR, state))
        if self._is_ours:
            self._span.end()


def begin(task: Any, fn: Callable[..., Any]) -> AttemptSpan | None:
    """
    Begin the span of an attempt, in whose context this is called; None where no tracer provider is set.

    A first attempt that was due at once is a child of the caller's span. Retries, and what was delayed or is periodic,
    are traces of their own with a link to it: a sampler has decided on that one long before.
    """
    tracer = tracer_in_use()
    if tracer is None:
        return None
    label, caller = label_of(fn), trace.get_current_span()
    context_of_caller = caller.get_span_context()
    # One that came with the message is the caller's.
    if task.is_in_worker and context_of_caller.is_valid and not context_of_caller.is_remote:
        caller.update_name(f"process {label}")
        caller.set_attributes(_attributes(task, label))
        return AttemptSpan(caller, is_ours=False)
    links, parent = None, None
    if not _is_child(task):
        parent = trace.set_span_in_context(trace.INVALID_SPAN)
        links = [Link(context_of_caller)] if context_of_caller.is_valid else None
    span = tracer.start_span(
        f"process {label}", context=parent, kind=SpanKind.CONSUMER, links=links, attributes=_attributes(task, label)
    )
    # For as long as the context: it is the attempt's own.
    context.attach(trace.set_span_in_context(span))
    return AttemptSpan(span, is_ours=True)


def _is_child(task: Any) -> bool:
    summary, config = task.summary, task.app.extensions["asok"].config
    was_due_at_once = summary.attempts == 1 and not task.options.delay and not summary.scheduled
    return was_due_at_once and not config["ASOK_TRACE_LINKS"]


def _attributes(task: Any, label: str) -> dict[str, Any]:
    summary = task.summary
    return {
        "messaging.system": "flask_asok",
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
        "messaging.destination.name": summary.queue,
        "messaging.message.id": summary.id,
        "code.function.name": label,
        "asok.task.attempt": summary.attempts,
        "asok.task.latency": summary.latency,
    }


@cache
def _version() -> str:
    return version("flask-asok")


_tracers: list[tuple[TracerProvider, trace.Tracer]] = []
"""The provider that was used last, and our tracer of it: making one takes long."""


def tracer_in_use() -> trace.Tracer | None:
    """Return our tracer; None where the application has set no tracer provider."""
    provider = trace.get_tracer_provider()
    if _tracers and _tracers[0][0] is provider:
        return _tracers[0][1]
    if isinstance(provider, (trace.ProxyTracerProvider, trace.NoOpTracerProvider)):
        return None
    _tracers[:] = [(provider, provider.get_tracer("flask_asok", _version()))]
    return _tracers[0][1]
