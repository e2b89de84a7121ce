"""What Sentry sees of an attempt: scopes of its own, its error, and where Sentry traces a transaction."""

from __future__ import annotations

import functools
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

import sentry_sdk
from sentry_sdk.scope import Scope, add_global_event_processor
from sentry_sdk.tracing import Span, Transaction
from sentry_sdk.tracing_utils import has_tracing_enabled
from sentry_sdk.utils import event_from_exception

from ..current import current
from ..logs import frames_of
from ..task_log import FAILED
from .labels import label_of

PUBLISH, PROCESS, TRANSACTION = "queue.publish", "queue.process", "queue.task.asok"
"""The operations that Sentry's page on queues looks for."""

ORIGIN = "auto.queue.flask_asok"


_captured: ContextVar[Any] = ContextVar("asok.captured", default=None)
"""The task whose last error Sentry has; in the context of that attempt."""


class AttemptScope:
    """The scopes of one attempt, and its transaction where Sentry traces. Its methods are called in its context."""

    __slots__ = ("_spans",)

    def __init__(self, spans: list[Span]) -> None:
        self._spans = spans

    def failed(self, error: BaseException, *, is_last: bool) -> None:
        """Capture the last error, as one that nobody has handled. An attempt that is retried is no event."""
        for span in self._spans:
            span.set_status("internal_error")
        if not is_last:
            return
        shown = frames_of(error, error) or (type(error), error, None)
        event, hint = event_from_exception(
            shown,
            client_options=sentry_sdk.get_client().options,
            mechanism={"type": "asok", "handled": False},
        )
        sentry_sdk.capture_event(event, hint=hint)
        _captured.set(current.get())

    def ended(self, state: str) -> None:
        """Finish the transaction."""
        for span in reversed(self._spans):
            if span.status is None:
                span.set_status(_STATUS.get(state, "ok"))
            span.__exit__(None, None, None)


_WITHOUT_SPANS = AttemptScope([])
"""That of most attempts: it has no state."""

_STATUS = {"cancelled": "cancelled", "abandoned": "aborted"}


def begin(task: Any, fn: Callable[..., Any]) -> AttemptScope | None:
    """Begin the scopes of an attempt, in whose context this is called; None where the SDK is not active."""
    # Not `get_client()`, which makes scopes where the attempt has none yet.
    client = Scope.get_global_scope().client
    if not client.is_active():
        return None
    _describe_tasks()
    if task.is_in_worker:
        _name_in_worker(label_of(fn))
        return _WITHOUT_SPANS
    if task.options.retries:
        # What the call has captured stays as it was, for the attempts to come.
        Scope.set_current_scope(sentry_sdk.get_current_scope().fork())
        Scope.set_isolation_scope(sentry_sdk.get_isolation_scope().fork())
    return AttemptScope(_transaction(task, label_of(fn))) if _makes_spans(task, client) else _WITHOUT_SPANS


def publish(task: Any, fn: Callable[..., Any], scope: Any) -> None:
    """Note in the transaction of the caller, from whose `scope` its own is to go on, that `task` was queued."""
    if not _makes_spans(task, sentry_sdk.get_client()):
        return
    with sentry_sdk.start_span(op=PUBLISH, name=label_of(fn), origin=ORIGIN) as span:
        _describe(span, task)
    scope.span = span


def _transaction(task: Any, label: str) -> list[Span]:
    headers = dict(sentry_sdk.get_current_scope().iter_trace_propagation_headers())
    transaction: Transaction = sentry_sdk.continue_trace(
        headers, op=TRANSACTION, name=label, source="task", origin=ORIGIN
    )
    sampling = {"asok_task": {"name": task.name, "function": label, "queue": task.queue}}
    sentry_sdk.start_transaction(transaction, custom_sampling_context=sampling)
    transaction.__enter__()
    span = sentry_sdk.start_span(op=PROCESS, name=label, origin=ORIGIN)
    _describe(span, task)
    span.set_data("messaging.message.retry.count", task.summary.attempts - 1)
    span.set_data("messaging.message.receive.latency", task.summary.latency * 1000)
    span.__enter__()
    return [transaction, span]


def _describe(span: Span, task: Any) -> None:
    span.set_data("messaging.message.id", task.id)
    span.set_data("messaging.destination.name", task.queue)


def _name_in_worker(label: str) -> None:
    """Give what the integration of the engine has begun the name of the function."""
    scope = sentry_sdk.get_current_scope()
    scope.set_transaction_name(label, source="task")
    span = scope.span
    if span is not None and getattr(span, "op", None) == PROCESS:
        span.description = label


def _makes_spans(task: Any, client: Any) -> bool:
    """Return False where spans are streamed as well, for which this version of the SDK has other functions."""
    options = client.options
    if not has_tracing_enabled(options):
        return False
    experiments = options.get("_experiments") or {}
    streams = "stream" in (options.get("trace_lifecycle"), experiments.get("trace_lifecycle"))
    return not streams and task.app.extensions["asok"].config["ASOK_SENTRY_SPANS"]


@functools.cache
def _describe_tasks() -> None:
    # Once for the process: processors of scopes would add up, from a task to the one that it starts.
    add_global_event_processor(_add_task)


def _add_task(event: Any, hint: Any) -> Any:
    """Say in which task an event happened. Drop what the log says of an error that was captured."""
    task = current.get()
    if task is None:
        return event
    record = (hint or {}).get("log_record")
    fields = task.summary.log_fields()
    if record is not None and record.msg == FAILED and _captured.get() is task:
        return None
    if event.get("type") is None and task.tracing is not None:
        event["transaction"] = label_of(task.tracing.fn)
        event["transaction_info"] = {"source": "task"}
    event.setdefault("contexts", {}).setdefault("asok", {name.removeprefix("task_"): fields[name] for name in fields})
    return event
