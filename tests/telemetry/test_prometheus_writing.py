"""When metrics are written: no task waits for that, what asks for them gets all, and a fork counts nothing twice."""

import subprocess
import sys
import textwrap

import prometheus_client
import pytest

from flask_asok import background
from flask_asok.telemetry import prometheus

WAIT = 20

SHOP = """
import os
from flask import Flask
from prometheus_client import CollectorRegistry
from prometheus_client.multiprocess import MultiProcessCollector
from flask_asok import FlaskAsok, background
from flask_asok.telemetry import prometheus

def work():
    pass

def value(name, **labels):
    registry = CollectorRegistry()
    MultiProcessCollector(registry)
    return registry.get_sample_value(name, {"queue": "default", **labels})

def counted():
    return value("asok_tasks_total", task="__main__.work", outcome="succeeded")

app = Flask("shop")
app.config["ASOK_METRICS"] = "prometheus"
asok = FlaskAsok(app)
context = app.app_context()
context.push()
background(work).join(20)
"""


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Run the script in a shop of several processes; return the words that it prints."""
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))

    def run(script):
        command = [sys.executable, "-c", SHOP + textwrap.dedent(script)]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout.split()

    return run


def test_nothing_waits(run):
    """While one thread writes, tasks go on; what they did is written after that."""
    printed = run(
        """
        with prometheus.writing:
            for _ in range(3):
                background(work).result(20)
            print(counted())
        asok.close(app, 20)
        print(counted(), *(value("asok_queue_tasks", state=state) for state in ("queued", "running")))
        """
    )

    assert printed == ["1.0", "4.0", "0.0", "0.0"]


def test_fork(run):
    """What was noted before a fork, and not written yet, is written by the parent alone."""
    printed = run(
        """
        prometheus.meters_of("default", work).ended("succeeded", 1.0)
        pid = os.fork()
        if pid == 0:
            background(work).join(20)
            os._exit(0)
        os.waitpid(pid, 0)
        background(work).join(20)
        print(counted(), value("asok_task_duration_seconds_count", task="__main__.work"))
        """
    )

    assert printed == ["4.0", "4.0"]


def test_never_asked(make_app, monkeypatch):
    """Of an application that is never asked for its metrics, no more than a bounded part waits to be written."""
    monkeypatch.setattr(prometheus, "MOST_NOTED", 10)
    app = make_app(ASOK_METRICS="prometheus", ASOK_QUEUES={"unasked": 1})

    def work():
        pass

    with app.app_context():
        for _ in range(35):
            background.using(queue="unasked")(work).join(WAIT)

    # As the metric is without a look at what waits.
    (written,) = prometheus_client.Counter.collect(prometheus.OUTCOMES)
    series = {"queue": "unasked", "task": f"{__name__}.{work.__qualname__}", "outcome": "succeeded"}
    counted = next(sample.value for sample in written.samples if sample.labels == series)
    assert 25 <= counted < 35
