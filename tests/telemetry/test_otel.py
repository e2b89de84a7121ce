"""OpenTelemetry: one span per attempt, named by the function, in the caller's trace or with a link to it."""

import contextlib
import json
import logging
import threading
import urllib.parse

import opentelemetry.trace
import pytest
from opentelemetry.trace import SpanKind, StatusCode

from flask_asok import Retry, background, current_task
from flask_asok.sharing import open_store

WAIT = 20


def fail():
    raise ValueError("no stock")


def start_view():
    """Begin the span of a request, as an instrumentation of Flask does."""
    return opentelemetry.trace.get_tracer("shop").start_as_current_span("GET /", kind=SpanKind.SERVER)


def of_tasks(spans):
    return [span for span in spans() if span.name.startswith("process ")]


def test_span_of_an_attempt(app, spans):
    """A task is a span of its own in the caller's trace, named by its function, and says what it is."""
    with app.app_context(), start_view() as view:
        task = background.using(queue="mail", name="order 7")(int)
        task.join(WAIT)

    (span,) = of_tasks(spans)
    assert (span.name, span.kind, span.status.status_code) == (
        "process builtins.int",
        SpanKind.CONSUMER,
        StatusCode.UNSET,
    )
    assert span.context.trace_id == view.get_span_context().trace_id
    assert span.parent.span_id == view.get_span_context().span_id
    attributes = dict(span.attributes)
    assert attributes.pop("asok.task.latency") >= 0
    assert attributes == {
        "messaging.system": "flask_asok",
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
        "messaging.destination.name": "mail",
        "messaging.message.id": task.id,
        "code.function.name": "builtins.int",
        "asok.task.attempt": 1,
    }


@pytest.mark.parametrize("is_traced", [False, True])
def test_message_of_a_durable_call(make_app, tmp_path, spans, is_traced):
    """The message of a durable call that passes only texts has its caller's span as well, for another process."""
    app = make_app(ASOK_STORE=str(tmp_path / "asok.sqlite3"), ASOK_TASK_MODULES=["urllib"])
    with app.app_context(), start_view() if is_traced else contextlib.nullcontext():
        task = background.using(durable=True, delay=3600)(urllib.parse.quote, "x")
        message = json.loads(open_store(app).read(task.id).message.rpartition(".")[0])

    assert ("traceparent" in message.get("trace", {})) == is_traced


def test_failure(app, spans):
    """A failed attempt is marked, with the error as an event; the request's span is not."""
    with app.app_context(), start_view():
        background(fail).join(WAIT)

    span = of_tasks(spans)[0]
    assert span.status.status_code is StatusCode.ERROR
    assert span.status.description == "ValueError('no stock')"
    (event,) = span.events
    assert (event.name, event.attributes["exception.type"]) == ("exception", "ValueError")
    assert event.attributes["exception.message"] == "no stock"
    (view,) = [span for span in spans() if span.name == "GET /"]
    assert view.status.status_code is StatusCode.UNSET


def test_retries_are_linked(app, spans):
    """The first attempt is in the caller's trace; a retry is a trace of its own, with a link to the caller's span."""
    with app.app_context(), start_view() as view:
        background.using(retries=1, backoff=0)(fail).join(WAIT)

    first, second = of_tasks(spans)
    caller = view.get_span_context()
    assert first.context.trace_id == caller.trace_id
    assert first.status.status_code is second.status.status_code is StatusCode.ERROR
    assert second.parent is None
    assert second.context.trace_id != caller.trace_id
    assert [link.context.span_id for link in second.links] == [caller.span_id]
    assert [span.attributes["asok.task.attempt"] for span in (first, second)] == [1, 2]


def test_delayed_is_linked(app, spans):
    """So is a task with a delay: a sampler has decided on the caller's trace long before."""
    with app.app_context(), start_view() as view:
        background.using(delay=0.01)(int).join(WAIT)

    (span,) = of_tasks(spans)
    assert span.parent is None
    assert [link.context.span_id for link in span.links] == [view.get_span_context().span_id]


def test_all_links(make_app, backend, spans):
    """`ASOK_TRACE_LINKS`: every attempt is a trace of its own."""
    app = make_app(ASOK_TRACE_LINKS=True, **backend)

    with app.app_context(), start_view() as view:
        background(int).join(WAIT)

    (span,) = of_tasks(spans)
    assert span.parent is None
    assert [link.context.span_id for link in span.links] == [view.get_span_context().span_id]


def test_without_a_caller(app, spans):
    """A task of a command that has no span is a trace of its own, without links, delayed or not."""
    with app.app_context():
        background(int).join(WAIT)
        background.using(delay=0.01)(int).join(WAIT)

    assert [(span.parent, list(span.links)) for span in of_tasks(spans)] == [(None, [])] * 2


def test_spans_in_a_task(app, spans):
    """What a task does belongs to its span, and what the task starts to that of the task."""

    def work():
        with opentelemetry.trace.get_tracer("shop").start_as_current_span("count"):
            pass
        background(int).join(WAIT)

    with app.app_context():
        background(work).join(WAIT)

    by_name = {span.name.rpartition(".")[2]: span for span in spans()}
    outer = by_name["work"].context.span_id
    assert by_name["count"].parent.span_id == outer
    assert by_name["int"].parent.span_id == outer


def test_record_of_the_failure(app, spans):
    """The record of a failure is in the span of its attempt, so that a log can be found by its trace."""
    seen = []

    class Handler(logging.Handler):
        def emit(self, record):
            context = opentelemetry.trace.get_current_span().get_span_context()
            seen.append((record.levelname, context.trace_id, context.span_id, record.task_id))

    handler = Handler()
    logging.getLogger("asok").addHandler(handler)
    with app.app_context(), start_view():
        task = background.using(retries=1, backoff=0)(fail)
        task.join(WAIT)
    logging.getLogger("asok").removeHandler(handler)

    found = [(span.context.trace_id, span.context.span_id) for span in of_tasks(spans)]
    assert seen == [("WARNING", *found[0], task.id), ("ERROR", *found[1], task.id)]


@pytest.mark.filterwarnings("ignore:`LoggingHandler` in:DeprecationWarning")
def test_handler_of_opentelemetry(app, spans):
    """OpenTelemetry's own handler gets the record of a failure with the ids of the task, the trace and the span."""
    from opentelemetry.sdk._logs import LoggerProvider, LoggingHandler
    from opentelemetry.sdk._logs.export import InMemoryLogRecordExporter, SimpleLogRecordProcessor

    exporter, provider = InMemoryLogRecordExporter(), LoggerProvider()
    provider.add_log_record_processor(SimpleLogRecordProcessor(exporter))
    handler = LoggingHandler(logger_provider=provider)
    logging.getLogger("asok").addHandler(handler)
    try:
        with app.app_context(), start_view():
            task = background(fail)
            task.join(WAIT)
    finally:
        logging.getLogger("asok").removeHandler(handler)

    (span,) = of_tasks(spans)
    (found,) = exporter.get_finished_logs()
    record = found.log_record
    assert (record.trace_id, record.span_id) == (span.context.trace_id, span.context.span_id)
    assert (record.attributes["task_id"], record.attributes["task_name"]) == (task.id, "fail")


def test_ended_when_settled(app, spans):
    """A thread that has joined a task finds its span exported."""
    with app.app_context():
        for count in range(20):
            background(int).join(WAIT)
            assert len(of_tasks(spans)) == count + 1


def test_error_whose_text_raises(app, spans):
    """An error that cannot even be shown is marked all the same."""

    class Mute(Exception):
        def __str__(self):
            raise ZeroDivisionError

        __repr__ = __str__

    def work():
        raise Mute

    with app.app_context():
        background(work).join(WAIT)

    (span,) = of_tasks(spans)
    assert span.status.status_code is StatusCode.ERROR


def test_abandoned(threads_app, spans, gate):
    """The span of an attempt that a shutdown leaves behind ends then, and is marked."""
    began = threading.Event()

    def work():
        began.set()
        gate.wait(WAIT)

    with threads_app.app_context():
        background(work)
        assert began.wait(WAIT)
        threads_app.extensions["asok"].close(0)
        gate.set()

    (span,) = of_tasks(spans)
    assert (span.status.status_code, span.status.description) == (StatusCode.ERROR, "abandoned")


def test_without_a_provider(app):
    """Where only the API is installed, as many libraries bring it, no span is made."""
    with app.app_context():
        task = background(lambda: current_task().tracing)

        assert task.result(WAIT) is None


@pytest.mark.parametrize("retries", [0, 1])
def test_run_in_place(threads_app, spans, retries):
    """A task that another one runs in its place has a span of its own, and the other's is current again after it."""
    threads_app.extensions["asok"].backend.queues["default"] = 1
    current = opentelemetry.trace.get_current_span

    def inner():
        if current_task().attempts <= retries:
            raise Retry(after=0)

    def outer():
        before = current()
        background.using(retries=retries)(inner).join(WAIT)
        return current() is before

    with threads_app.app_context():
        assert background(outer).result(WAIT)

    names = [span.name.rpartition(".")[2] for span in of_tasks(spans)]
    assert names == ["inner"] * (retries + 1) + ["outer"]
