"""On PostgreSQL: what Prometheus, OpenTelemetry and Sentry see of a task."""

import contextlib
import os

import counted
import jobs
import opentelemetry.trace
import pytest
import seen
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor

from flask_asok import background

WAIT = 30


@pytest.fixture
def config(postgres_config):
    return {**postgres_config, "NAME": f"seen{os.urandom(4).hex()}"}


def test_metrics(config, start_worker, free_port, wait_until, close):
    """The worker serves what it counts, and how many tasks wait in the database; it needs no folder for that."""
    port = free_port
    metrics = {"ASOK_METRICS": "prometheus", "ASOK_METRICS_PORT": port}
    worker = start_worker({**config, **metrics}, "-q", "default").ready()
    app = jobs.create_app(**config)

    counted.assert_counted(app, port, wait_until)
    close(app)
    worker.end()


def test_sentry(config, start_worker, tmp_path, wait_until, close):
    """The error of each task is sent once, with its own tag and its own transaction, named by the function."""
    path = tmp_path / "seen"
    start_worker({**config, "SEEN": {"instrumented": False, "errors": str(path)}}, "--concurrency", "2").ready()
    app = jobs.create_app(**config)

    with app.app_context():
        tasks = [background(jobs.tag_and_fail, tmp_path / "runs") for _ in range(2)]
        for task in tasks:
            task.join(WAIT)

    def items(kind):
        return [line["item"] for line in seen.lines_of(path) if line["kind"] == kind]

    wait_until(lambda: len(items("transaction")) == 2, what="the transactions")
    assert {event["contexts"]["asok"]["id"] for event in items("event")} == {task.id for task in tasks}
    assert len(items("event")) == 2
    assert {event["tags"]["task_tag"] for event in items("event")} == {"yes"}
    assert {item["transaction"] for item in items("transaction")} == {"jobs.tag_and_fail"}
    close(app)


def test_spans(config, start_worker, tmp_path, wait_until, close):
    """Each attempt is a span that has failed, and the span of the function's own is below it."""
    path = tmp_path / "seen"
    start_worker({**config, "SEEN": {"instrumented": False, "spans": str(path)}}, "--concurrency", "2").ready()
    app = jobs.create_app(**config)

    with app.app_context():
        task = background(jobs.tag_and_fail, tmp_path / "runs")
        task.join(WAIT)

    wait_until(lambda: len(seen.lines_of(path)) == 2, what="the spans")
    own, attempt = seen.lines_of(path)
    assert (own["name"], attempt["name"]) == ("own", "process jobs.tag_and_fail")
    assert own["parent"] == attempt["context"]
    assert (attempt["status"], attempt["attributes"]["messaging.message.id"]) == ("ERROR", task.id)
    close(app)


@pytest.mark.parametrize("in_span", [True, False])
def test_producer(config, start_worker, tmp_path, wait_until, monkeypatch, close, in_span):
    """The call is written down in a span, also where its caller has none; the span of the worker is its child."""
    worker_spans = tmp_path / "worker"
    start_worker({**config, "SEEN": {"instrumented": False, "spans": str(worker_spans)}}, "--concurrency", "2").ready()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(seen.Exporter(tmp_path / "caller")))
    monkeypatch.setattr(opentelemetry.trace, "_TRACER_PROVIDER", provider)
    view = provider.get_tracer("shop").start_as_current_span("GET /") if in_span else contextlib.nullcontext()
    app = jobs.create_app(**config)

    with app.app_context(), view:
        task = background(jobs.tag_and_fail, tmp_path / "runs")
        task.join(WAIT)

    wait_until(lambda: len(seen.lines_of(worker_spans)) == 2, what="the spans")
    send, *views = seen.lines_of(tmp_path / "caller")
    _, attempt = seen.lines_of(worker_spans)
    assert (send["name"], send["span_kind"]) == ("send default", "PRODUCER")
    assert send["attributes"]["code.function.name"] == "jobs.tag_and_fail"
    assert send["parent"] == (views[0]["context"] if in_span else None)
    assert attempt["parent"] == send["context"]
    close(app)
