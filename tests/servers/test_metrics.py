"""Metrics under gunicorn: right over all processes, those that were recycled and killed among them."""

import http.client
import os
import signal
import time

import pytest
from prometheus_client.parser import text_string_to_metric_families

DEADLINE = 60
WORK = {"queue": "default", "task": "measured.work", "outcome": "succeeded"}

GUNICORN = {
    "two": ["--workers=2"],
    "preload": ["--workers=2", "--preload"],
    "max-requests": ["--workers=2", "--max-requests=5"],
}


@pytest.fixture
def start(serve, python_module, tmp_path):
    """Start gunicorn with metrics of several processes."""

    def start(*options, **env):
        folder = tmp_path / "metrics"
        folder.mkdir()
        command = [*python_module("gunicorn"), "--config=measured_gunicorn.py", "--bind=127.0.0.1:0", *options]
        return serve(
            [*command, "measured:app"], GUNICORN_CMD_ARGS="--no-control-socket", PROMETHEUS_MULTIPROC_DIR=folder, **env
        )

    return start


def scrape(server):
    """Return the value of each series, by its name and labels."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=DEADLINE)
    connection.request("GET", "/metrics")
    text = connection.getresponse().read().decode()
    connection.close()
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def value(server, name, **labels):
    return scrape(server).get((name, tuple(sorted(labels.items()))), 0)


def wait_for(server, expected, name, **labels):
    """Scrape until a series has its value: another process writes it."""
    deadline = time.monotonic() + DEADLINE
    while (found := value(server, name, **labels)) != expected and time.monotonic() < deadline:
        time.sleep(0.05)
    assert found == expected, scrape(server)


@pytest.mark.parametrize("options", GUNICORN.values(), ids=GUNICORN)
def test_totals(start, options):
    """No task is lost from the count, whichever process ran it, and whether that is there still."""
    early = "--preload" in options
    server = start(*options, **({"START_AT_IMPORT": "1"} if early else {}))

    pids = {server.get("/work")["pid"] for _ in range(24)}

    wait_for(server, 24 + early, "asok_tasks_total", **WORK)
    assert value(server, "asok_queue_latency_seconds_count", queue="default") == 24 + early
    wait_for(server, 0, "asok_queue_tasks", queue="default", state="running")
    assert "--max-requests=5" not in options or len(pids) > 2


def test_killed_worker(start, control):
    """A stuck queue has an oldest task whose time does not move; a killed process leaves the gauges, not the totals."""
    server = start("--workers=2")
    server.get("/work")
    began = time.time()
    pid = server.get("/stuck")["pid"]
    control.wait_for("first runs")

    wait_for(server, 3, "asok_queue_tasks", queue="slow", state="queued")
    oldest = value(server, "asok_queue_oldest_timestamp_seconds", queue="slow")
    assert began - 1 <= oldest <= time.time()
    assert value(server, "asok_queue_tasks", queue="slow", state="running") == 1
    assert value(server, "asok_queue_threads", queue="slow") == 1
    for _ in range(4):
        server.get("/work")
    assert value(server, "asok_queue_oldest_timestamp_seconds", queue="slow") == oldest
    wait_for(server, 5, "asok_tasks_total", **WORK)

    os.kill(pid, signal.SIGKILL)

    wait_for(server, 0, "asok_queue_tasks", queue="slow", state="queued")
    wait_for(server, 0, "asok_queue_oldest_timestamp_seconds", queue="slow")
    assert value(server, "asok_tasks_total", **WORK) == 5


def test_latency_is_from_due(start):
    """Neither a delay nor the wait for a retry is latency."""
    server = start("--workers=2")
    server.get("/later")

    wait_for(server, 2, "asok_queue_latency_seconds_count", queue="mail")
    # Either of the two is longer.
    assert value(server, "asok_queue_latency_seconds_sum", queue="mail") < 3
    retries = {"queue": "mail", "task": "measured.fail_late"}
    wait_for(server, 1, "asok_tasks_total", outcome="failed", **retries)
    assert value(server, "asok_task_retries_total", **retries) == 1
