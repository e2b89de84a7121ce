"""On Celery: what Sentry, OpenTelemetry and Prometheus see of a task, with real workers."""

import logging
import os
import socket

import counted
import jobs
import pytest
import seen

from flask_asok import FlaskAsok, background

WAIT = 30


@pytest.fixture
def config(redis):
    """A broker for these tests, and queues that the worker of no other test takes from."""
    return {"NAME": f"seen{os.urandom(4).hex()}", "ASOK_CELERY": {"broker_url": redis.url, "result_backend": redis.url}}


@pytest.fixture
def start(config, start_worker, tmp_path):
    """Start a worker that writes down what it would send; return the application of the caller, and the lines."""
    apps = []

    def start(**more):
        path = tmp_path / "seen"
        what = {"instrumented": more.pop("instrumented", False), more.pop("watches"): str(path)}
        start_worker({**config, **more, "SEEN": what}, "--concurrency", "1").ready()
        app = jobs.create_app(**config)
        apps.append(app)
        return app, lambda: seen.lines_of(path)

    yield start
    for app in apps:
        FlaskAsok().close(app, 5)


def test_sentry(start, tmp_path, wait_until):
    """An error is sent once, with the tags of the task and of Celery; all is named by the function."""
    app, lines = start(watches="errors")

    with app.app_context():
        tasks = [background(jobs.tag_and_fail, tmp_path / "runs") for _ in range(2)]
        for task in tasks:
            task.join(WAIT)

    # The transaction is sent when Celery is done with the message.
    wait_until(lambda: len([line for line in lines() if line["kind"] == "transaction"]) == 2, what="the transactions")
    events = [line["item"] for line in lines() if line["kind"] == "event"]
    transactions = [line["item"] for line in lines() if line["kind"] == "transaction"]
    assert [event["contexts"]["asok"]["id"] for event in events] == [task.id for task in tasks]
    for event, transaction in zip(events, transactions, strict=True):
        assert event["exception"]["values"][-1]["mechanism"] == {"type": "asok", "handled": False}
        assert event["tags"]["task_tag"] == "yes"
        assert "celery_task_id" in event["tags"]
        assert event["transaction"] == transaction["transaction"] == "jobs.tag_and_fail"
        assert event["contexts"]["trace"]["trace_id"] == transaction["contexts"]["trace"]["trace_id"]
        assert transaction["contexts"]["trace"]["status"] == "internal_error"
        spans = {span["op"]: span["description"] for span in transaction["spans"]}
        assert spans["queue.process"] == "jobs.tag_and_fail"
        assert spans["shop"] == "own"


def test_instrumented(start, tmp_path, wait_until):
    """Where Celery's own instrumentation is active, its span is the attempt's: named by the function, and marked."""
    app, lines = start(watches="spans", instrumented=True)

    with app.app_context():
        task = background(jobs.tag_and_fail, tmp_path / "runs")
        task.join(WAIT)

    wait_until(lambda: len(lines()) >= 2, what="the spans")
    assert sorted(line["name"] for line in lines()) == ["own", "process jobs.tag_and_fail"]
    by_name = {line["name"]: line for line in lines()}
    process, own = by_name["process jobs.tag_and_fail"], by_name["own"]
    assert (process["span_kind"], process["status"]) == ("CONSUMER", "ERROR")
    assert own["parent"] == process["context"]
    assert process["attributes"]["celery.action"] == "run"
    assert process["attributes"]["messaging.message.id"] == task.id
    assert process["attributes"]["code.function.name"] == "jobs.tag_and_fail"


def test_producer(start, tmp_path, wait_until, monkeypatch):
    """The message is sent in a span, in the caller's trace, and the worker's span is its child."""
    import opentelemetry.trace
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor

    app, lines = start(watches="spans")
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(seen.Exporter(tmp_path / "caller")))
    monkeypatch.setattr(opentelemetry.trace, "_TRACER_PROVIDER", provider)

    with app.app_context(), provider.get_tracer("shop").start_as_current_span("GET /"):
        task = background(jobs.tag_and_fail, tmp_path / "runs")
        task.join(WAIT)

    wait_until(lambda: len(lines()) == 2, what="the spans")
    send, view = seen.lines_of(tmp_path / "caller")
    own, process = lines()
    assert (send["name"], send["span_kind"], send["parent"]) == ("send default", "PRODUCER", view["context"])
    assert (process["name"], process["parent"]) == ("process jobs.tag_and_fail", send["context"])
    assert (process["span_kind"], process["status"]) == ("CONSUMER", "ERROR")
    assert process["attributes"]["messaging.message.id"] == send["attributes"]["messaging.message.id"] == task.id
    assert own["parent"] == process["context"]


def test_fields_of_a_task_that_is_given_up(config):
    """A worker that gives a task up logs that with the fields of the task."""
    app = jobs.create_app(**config)
    heard = []

    class Heard(logging.Handler):
        def emit(self, record):
            heard.append(record)

    handler = Heard()
    logging.getLogger("asok").addHandler(handler)
    try:
        with app.app_context():
            task = background.using(delay=3600)(jobs.add, 1)
            app.extensions["asok"].backend.worker.stopped(task.id, _signed(app, task), 3)
    finally:
        logging.getLogger("asok").removeHandler(handler)

    (record,) = heard
    assert "stopped at its time limit" in record.getMessage()
    assert (record.task_id, record.task_name, record.task_queue) == (task.id, "add", "default")
    assert record.task_queued_ms >= 0


def test_cancelled(config, caplog):
    """A task that is cancelled by its id leaves a line at INFO, with its fields, once."""
    caplog.set_level("INFO", "asok")
    app = jobs.create_app(**config)

    with app.app_context():
        task = background.using(delay=3600)(jobs.add, 1)
        asok = app.extensions["asok_of_tests"]
        assert asok.cancel(task.id)
        asok.cancel(task.id)
        assert task.state == "cancelled"

    (record,) = [record for record in caplog.records if "cancelled" in record.getMessage()]
    assert record.getMessage() == f"Background task add ({task.id}) cancelled: cancel() was called."
    assert (record.levelname, record.task_id) == ("INFO", task.id)


def test_metrics(config, start_worker, free_port, tmp_path, monkeypatch, wait_until):
    """The worker serves what its processes count, and how many messages wait in the broker."""
    folder, port = tmp_path / "metrics", free_port
    folder.mkdir()
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(folder))
    worker = start_worker(
        {**config, "ASOK_METRICS": "prometheus", "ASOK_METRICS_PORT": port}, "--concurrency", "2", "-q", "default"
    )
    worker.ready()
    app = jobs.create_app(**config)

    counted.assert_counted(app, port, wait_until)
    worker.end()


def test_metrics_that_cannot_be_served(config, free_port, tmp_path, monkeypatch):
    """A worker whose port is taken, or that has no folder for its processes, ends and says what it needs."""
    monkeypatch.delenv("PROMETHEUS_MULTIPROC_DIR", raising=False)
    app = jobs.create_app(**config, ASOK_METRICS="prometheus", ASOK_METRICS_PORT=free_port)
    command = app.test_cli_runner()

    without_folder = command.invoke(args=["asok", "worker"])
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    with socket.create_server(("", free_port)):
        taken = command.invoke(args=["asok", "worker"])

    assert (without_folder.exit_code, taken.exit_code) == (2, 2)
    assert "ASOK_METRICS_PORT needs PROMETHEUS_MULTIPROC_DIR" in without_folder.output
    assert f"ASOK_METRICS_PORT = {free_port} cannot be used: Address already in use." in taken.output


def _signed(app, task):
    return app.extensions["asok"].backend.hub.packer.sign(task.message)
