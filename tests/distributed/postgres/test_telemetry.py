"""On PostgreSQL: what Prometheus, OpenTelemetry and Sentry see of a task."""

import os

import counted
import jobs
import pytest
import seen

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
