"""Metrics of one process: what is counted and timed, under which names, and what it is not counted for."""

import json
import re
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import prometheus_client
import pytest
from prometheus_client import Counter, Gauge, Histogram

from flask_asok import FlaskAsok, QueueFull, Retry, background, current_task, report_progress
from flask_asok.errors import NotConfigured
from flask_asok.signals import task_retried
from flask_asok.telemetry import prometheus

WAIT = 20


def value(name, **labels):
    return prometheus_client.REGISTRY.get_sample_value(name, labels) or 0.0


@pytest.fixture
def measured(make_app, request):
    """Make an application with metrics, whose queue has the test's own name: series live as long as the process."""
    queue = request.node.name

    def measured(threads=1, **config):
        app = make_app(ASOK_METRICS="prometheus", ASOK_QUEUES={queue: threads}, **config)
        return app, queue

    return measured


@pytest.fixture
def app_and_queue(measured, backend):
    return measured(**backend)


def work():
    pass


def fail():
    raise ValueError


def gauges(queue):
    return {state: value("asok_queue_tasks", queue=queue, state=state) for state in ("queued", "running", "waiting")}


def label(fn):
    return f"{fn.__module__}.{fn.__qualname__}"


def hold_thread(using, gate):
    """Start a task that holds its thread until the gate opens; return its function, once it runs."""
    began = threading.Event()

    def block():
        began.set()
        gate.wait(WAIT)

    using(block)
    assert began.wait(WAIT)
    return block


def test_counts(app_and_queue):
    """Each task is counted with its outcome, timed, and its wait too; each retry is counted."""
    app, queue = app_and_queue

    with app.app_context():
        background.using(queue=queue)(work).join(WAIT)
        background.using(queue=queue, retries=2, backoff=0)(fail).join(WAIT)

    of_work, of_fail = {"queue": queue, "task": label(work)}, {"queue": queue, "task": label(fail)}
    assert value("asok_tasks_total", outcome="succeeded", **of_work) == 1
    assert value("asok_tasks_total", outcome="failed", **of_fail) == 1
    assert value("asok_task_retries_total", **of_fail) == 2
    assert value("asok_task_retries_total", **of_work) == 0
    assert value("asok_task_duration_seconds_count", **of_work) == 1
    assert value("asok_task_duration_seconds_count", **of_fail) == 3
    assert value("asok_queue_latency_seconds_count", queue=queue) == 4


def test_first_failure_is_an_increase(app_and_queue):
    """A function's counters are there, at zero, before anything of it is counted there."""
    app, queue = app_and_queue

    with app.app_context():
        background.using(queue=queue)(work).join(WAIT)

    labels = {"queue": queue, "task": label(work)}
    found = [
        prometheus_client.REGISTRY.get_sample_value("asok_tasks_total", {**labels, "outcome": outcome})
        for outcome in ("failed", "cancelled", "abandoned")
    ]
    assert [*found, prometheus_client.REGISTRY.get_sample_value("asok_task_retries_total", labels)] == [0, 0, 0, 0]


def test_counted_when_settled(app_and_queue):
    """A thread that has joined a task finds it counted."""
    app, queue = app_and_queue

    with app.app_context():
        for count in range(1, 50):
            background.using(queue=queue)(work).join(WAIT)
            assert value("asok_tasks_total", queue=queue, task=label(work), outcome="succeeded") == count


def test_one_series_for_all_names(app_and_queue):
    """A thousand names of tasks make one series: it is the function that counts."""
    app, queue = app_and_queue

    with app.app_context():
        for number in range(1000):
            background.using(queue=queue, name=f"order {number}")(work).join(WAIT)

    assert value("asok_tasks_total", queue=queue, task=label(work), outcome="succeeded") == 1000
    text = prometheus_client.generate_latest().decode()
    assert text.count(f'asok_tasks_total{{outcome="succeeded",queue="{queue}"') == 1
    assert "order" not in text


def test_most_functions(measured):
    """Of very many functions the last ones share a series."""
    script = """
        import prometheus_client
        from flask import Flask
        from flask_asok import FlaskAsok, background
        from flask_asok.telemetry.prometheus import count_skip

        app = Flask("shop")
        app.config["ASOK_METRICS"] = "prometheus"
        FlaskAsok(app)
        with app.app_context():
            for number in range(300):
                def work():
                    pass
                work.__qualname__ = f"work{number}"
                background(work).join(20)
        value = prometheus_client.REGISTRY.get_sample_value
        print(value("asok_tasks_total", {"queue": "default", "task": "other", "outcome": "succeeded"}))
        print(value("asok_tasks_total", {"queue": "default", "task": "__main__.work7", "outcome": "succeeded"}))
        count_skip(work, "late")
        print(value("asok_periodic_skipped_total", {"task": "other", "why": "late"}))
    """

    ended = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, timeout=60, check=True
    )

    assert ended.stdout.split() == ["100.0", "1.0", "1.0"]


def test_gauges(measured, gate):
    """Queued, running and waiting tasks, the threads, and since when the oldest one is due, which stays as it is."""
    app, queue = measured()

    def oldest():
        return value("asok_queue_oldest_timestamp_seconds", queue=queue)

    with app.app_context():
        using = background.using(queue=queue)
        hold_thread(using, gate)
        assert oldest() == float("inf")
        first = using(work)
        since = oldest()
        assert first.enqueued_at.timestamp() - 0.11 <= since <= first.enqueued_at.timestamp()
        others = [using(work) for _ in range(3)]
        late = background.using(queue=queue, delay=3600)(work)
        assert gauges(queue) == {"queued": 4, "running": 1, "waiting": 1}
        assert oldest() == since
        assert value("asok_queue_threads", queue=queue) == 1

        assert late.cancel()
        assert others[0].cancel()
        assert gauges(queue) == {"queued": 3, "running": 1, "waiting": 0}

        gate.set()
        others[2].join(WAIT)
        FlaskAsok().close(app, WAIT)

    assert gauges(queue) == {"queued": 0, "running": 0, "waiting": 0}
    assert oldest() == float("inf")
    assert value("asok_queue_threads", queue=queue) == 0
    assert value("asok_tasks_total", queue=queue, task=label(work), outcome="cancelled") == 2


def test_gauges_of_two_applications(measured, gate):
    """The series of a queue count the tasks of all applications of the process that have a queue of that name."""
    (first, queue), (second, _) = measured(), measured()
    apps = [first, second]

    for app in apps:
        with app.app_context():
            hold_thread(background.using(queue=queue), gate)
            background.using(queue=queue)(work)
    while_held = gauges(queue), value("asok_queue_threads", queue=queue)
    gate.set()
    for app in apps:
        FlaskAsok().close(app, WAIT)

    assert while_held == ({"queued": 2, "running": 2, "waiting": 0}, 2)
    assert gauges(queue) == {"queued": 0, "running": 0, "waiting": 0}


def test_gauges_of_retries(measured):
    """A task that waits for its retry waits; once it runs it does not."""
    app, queue = measured()
    waiting = []

    def ask():
        waiting.append(value("asok_queue_tasks", queue=queue, state="waiting"))
        if current_task().attempts == 1:
            raise Retry(after=0.01)

    with app.app_context():
        background.using(queue=queue, retries=1)(ask).join(WAIT)

    assert waiting == [0, 0]
    assert value("asok_queue_tasks", queue=queue, state="waiting") == 0


def test_gauges_of_a_retry_that_a_receiver_cancels(measured):
    """A task that a receiver of `task_retried` cancels waits no more, whatever its thread still does with it."""
    app, queue = measured()

    def cancel(sender, task, **_):
        task.cancel()

    with app.app_context(), task_retried.connected_to(cancel, app):
        cancelled = background.using(queue=queue, retries=1, backoff=3600)(fail)
        cancelled.join(WAIT)
        FlaskAsok().close(app, WAIT)

    assert cancelled.state == "cancelled"
    assert value("asok_queue_tasks", queue=queue, state="waiting") == 0


def test_abandoned(measured, gate):
    """Tasks that a shutdown leaves behind are counted as abandoned, and no gauge keeps them."""
    app, queue = measured()
    with app.app_context():
        using = background.using(queue=queue)
        block = hold_thread(using, gate)
        using(work)
        background.using(queue=queue, delay=3600)(work)
        FlaskAsok().close(app, 0)
    gate.set()

    assert value("asok_tasks_total", queue=queue, task=label(work), outcome="abandoned") == 2
    assert value("asok_tasks_total", queue=queue, task=label(block), outcome="abandoned") == 1
    assert [value("asok_queue_tasks", queue=queue, state=state) for state in ("queued", "running", "waiting")] == [
        0
    ] * 3


def test_stopped(app_and_queue):
    """A task that is stopped while it runs is cancelled, and timed."""
    app, queue = app_and_queue

    def stop():
        current_task().stop()
        report_progress(1)

    with app.app_context():
        background.using(queue=queue)(stop).join(WAIT)

    assert value("asok_tasks_total", queue=queue, task=label(stop), outcome="cancelled") == 1
    assert value("asok_task_duration_seconds_count", queue=queue, task=label(stop)) == 1


def test_caller_runs(measured, gate):
    """A task that its caller runs, for the queue is full, is counted as such as well."""
    app, queue = measured(ASOK_MAX_QUEUED=1)
    with app.app_context():
        using = background.using(queue=queue)
        hold_thread(using, gate)
        for _ in range(3):
            using(work)
        gate.set()

    assert value("asok_caller_runs_total", queue=queue) == 2


def test_refused(measured, gate):
    """A call that is refused leaves no gauge."""
    app, queue = measured(ASOK_MAX_QUEUED=1, ASOK_QUEUE_FULL="raise")
    with app.app_context():
        using = background.using(queue=queue)
        hold_thread(using, gate)
        using(work)
        with pytest.raises(QueueFull):
            using(work)

    assert value("asok_queue_tasks", queue=queue, state="queued") == 1
    gate.set()


def test_many_threads(measured):
    """Whatever order threads write in, an idle queue is empty, and no task is counted twice or never."""
    app, queue = measured(threads=8)

    def start():
        with app.app_context():
            for _ in range(200):
                background.using(queue=queue)(work)

    threads = [threading.Thread(target=start) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT)
    FlaskAsok().close(app, WAIT)

    assert value("asok_tasks_total", queue=queue, task=label(work), outcome="succeeded") == 800
    assert [value("asok_queue_tasks", queue=queue, state=state) for state in ("queued", "running", "waiting")] == [
        0
    ] * 3
    assert value("asok_queue_oldest_timestamp_seconds", queue=queue) == float("inf")


def test_off(threads_app):
    """By default nothing is measured: tasks and pools are the plain ones."""
    with threads_app.app_context():
        task = background(work)
        task.join(WAIT)

    assert type(task).__name__ == "RunnableTask"
    assert type(task.runner).__name__ == "WorkerPool"


@pytest.mark.parametrize(("settings", "error"), [
    ({"ASOK_METRICS": "statsd"}, ValueError),
    ({"ASOK_METRICS_PORT": "9100"}, TypeError),
    ({"ASOK_METRICS_PORT": 70_000}, ValueError),
])  # fmt: skip
def test_settings(make_app, settings, error):
    """What the settings cannot mean is refused when the application is set up."""
    with pytest.raises(error, match=next(iter(settings))):
        make_app(**settings)


def test_without_the_package(make_app, monkeypatch):
    """Without the package the error names the extra."""
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)

    with pytest.raises(NotConfigured, match=r"pip install 'flask-asok\[prometheus\]'"):
        make_app(ASOK_METRICS="prometheus")


BLOCKED = """
import sys

class Block:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("sentry_sdk", "opentelemetry", "prometheus_client"):
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Block())
from flask import Flask
from flask_asok import FlaskAsok, background

app = Flask("shop")
FlaskAsok(app)

def fail():
    raise ValueError

with app.app_context():
    background(int).join(20)
    background.using(retries=1, backoff=0)(fail).join(20)
print(sorted(name for name in sys.modules if name.startswith(("sentry_sdk", "opentelemetry", "prometheus_client"))))
"""


def test_nothing_is_imported():
    """An application without these tools needs none of their packages."""
    ended = subprocess.run([sys.executable, "-c", BLOCKED], capture_output=True, text=True, timeout=60, check=True)

    assert ended.stdout == "[]\n"


# What the page offers

MONITORING = Path(__file__).parents[2] / "docs" / "monitoring"
PAGE = MONITORING.parent / "telemetry.md"
SERIES = re.compile(r"asok_\w+")


def test_dashboard_and_alerts():
    """The dashboard is JSON that Grafana imports; it and the alerts ask for nothing but metrics that there are."""
    dashboard = json.loads((MONITORING / "grafana.json").read_text())
    alerts = (MONITORING / "alerts.yml").read_text()
    queries = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    queries += [variable["query"] for variable in dashboard["templating"]["list"]]

    known = set()
    for metric in vars(prometheus).values():
        if isinstance(metric, (Counter, Gauge, Histogram)):
            (family,) = metric.describe()
            known.add(family.name + ("_total" if isinstance(metric, Counter) else ""))
    suffixes = r"_(bucket|count|sum)$"

    asked = {re.sub(suffixes, "", name) for query in queries for name in SERIES.findall(query)}
    assert asked == known
    assert {re.sub(suffixes, "", name) for name in SERIES.findall(alerts)} <= known
    assert len(re.findall(r"- alert: ", alerts)) == 4
    assert set(re.findall(r"^\| `(asok_\w+)`", PAGE.read_text(), re.MULTILINE)) == known
