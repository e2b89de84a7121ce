"""
What it costs a task to be seen by Prometheus, Sentry and OpenTelemetry, beside the same task that none of them sees.

`python benchmarks/telemetry.py` prints two tables. Method and caveats: README.md in this folder.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextvars import Context
from typing import Any

from flask import Flask

from flask_asok import FlaskAsok, background

ROUNDS = 9
SAMPLES = 5
COUNT = 2_000

OFF = "none of them"
BUDGETS = {"Prometheus": 6.0, "Prometheus, multiprocess": 12.0}
"""Microseconds more than with none of them, on a machine where that takes `REFERENCE`."""
PROTOTYPE = {"Sentry": 7.1, "OpenTelemetry, API alone": 6.8, "OpenTelemetry, SDK": 21.4}
"""Those of a first prototype, for what has no budget."""
REFERENCE = 7.9


def noop() -> None:
    pass


def set_up(tool: str) -> dict[str, Any]:
    """Load a tool as an application does, and return the configuration that turns it on."""
    if tool == "Sentry":
        import sentry_sdk
        from sentry_sdk.transport import Transport

        class Nowhere(Transport):
            def capture_envelope(self, envelope: object) -> None:
                pass

        sentry_sdk.init(dsn="https://key@localhost/1", transport=Nowhere)
    elif tool.startswith("OpenTelemetry"):
        from opentelemetry import trace

        if tool.endswith("SDK"):
            from opentelemetry.sdk.trace import TracerProvider

            trace.set_tracer_provider(TracerProvider())
    return {"ASOK_METRICS": "prometheus"} if tool.startswith("Prometheus") else {}


def calls_of(tool: str) -> Callable[[], object]:
    """Return what a task needs of the tool's library at the least; what it returns lives as long as a task waits."""
    if tool == "Sentry":
        import sentry_sdk

        current, isolation = sentry_sdk.get_current_scope(), sentry_sdk.get_isolation_scope()
        return lambda: (current.fork(), isolation.fork())
    if tool.startswith("Prometheus"):
        from prometheus_client import Counter, Gauge, Histogram

        buckets = (0.005, 0.025, 0.1, 0.5, 1, 5, 15, 60, 300, 1800)
        latency = Histogram("latency", "", ["queue"], buckets=buckets).labels("default")
        duration = Histogram("duration", "", ["task"], buckets=buckets).labels("noop")
        outcomes = Counter("tasks", "", ["outcome"]).labels("succeeded")
        queued = Gauge("queued", "", ["queue"], multiprocess_mode="livesum").labels("default")

        def write() -> None:
            latency.observe(0.001)
            duration.observe(0.001)
            outcomes.inc()
            if tool.endswith("multiprocess"):
                # Once when it is queued, and once when it starts. One process alone is asked for it.
                queued.set(1)
                queued.set(0)

        return write
    if tool.startswith("OpenTelemetry"):
        from opentelemetry import context, trace

        tracer = trace.get_tracer("benchmark")
        attributes = {f"messaging.some.attribute.{number}": "some value of it" for number in range(8)}

        def span() -> None:
            made = tracer.start_span("process noop", kind=trace.SpanKind.CONSUMER, attributes=attributes)
            context.attach(trace.set_span_in_context(made))
            made.end()

        return lambda: Context().run(span)
    return lambda: None


def cpu(run: Callable[[], object]) -> list[float]:
    """Return the microseconds of CPU, of all threads, that `COUNT` of what `run` does take, for each."""
    samples = []
    for _ in range(1 + SAMPLES):
        started = time.process_time()
        run()
        samples.append((time.process_time() - started) / COUNT * 1e6)
    # The first one warms up.
    return samples[1:]


def measure(tool: str) -> dict[str, list[float]]:
    """Measure a no-op from its call until it is settled, and what the library alone takes of that."""
    config = set_up(tool)
    app = Flask(__name__)
    app.config.from_mapping(ASOK_QUEUES={"default": 10}, ASOK_MAX_QUEUED=50_000, **config)
    asok = FlaskAsok(app)

    def run() -> None:
        tasks = [background(noop) for _ in range(COUNT)]
        for task in tasks:
            task.result()

    with app.test_request_context():
        tasks = cpu(run)
    asok.close(app, timeout=5)
    call = calls_of(tool)
    return {"tasks": tasks, "library": cpu(lambda: [call() for _ in range(COUNT)])}


def in_a_process_of_its_own(tool: str) -> dict[str, list[float]]:
    """Do so: what a tool has loaded, and where Prometheus writes, is for the life of a process."""
    with tempfile.TemporaryDirectory() as folder:
        shared = {"PROMETHEUS_MULTIPROC_DIR": folder} if tool.endswith("multiprocess") else {}
        command = [sys.executable, __file__, tool]
        done = subprocess.run(command, env={**os.environ, **shared}, capture_output=True, check=True, text=True)
    found: dict[str, list[float]] = json.loads(done.stdout)
    return found


def show(title: str, chosen: Callable[[list[float]], float], found: list[dict[str, dict[str, list[float]]]]) -> None:
    """Print what was measured; `chosen` makes one figure of the samples of all rounds."""

    def figure(tool: str, what: str) -> float:
        return chosen([sample for round_ in found for sample in round_[tool][what]])

    off = figure(OFF, "tasks")
    scale = REFERENCE / off
    print(f"\n{title}; none of them: {off:.1f} us a task\n")
    print(
        "| seen by | CPU us a task | more than none, in us of a machine that takes 7.9 | the library alone "
        "| budget | prototype |"
    )
    print("|---|---|---|---|---|---|")
    for tool in (*BUDGETS, *PROTOTYPE):
        seen = figure(tool, "tasks")
        more, library = (seen - off) * scale, (figure(tool, "library") - figure(OFF, "library")) * scale
        budget = BUDGETS.get(tool)
        judged = "" if budget is None else f"<= {budget:g}, {'reached' if more <= budget else 'MISSED'}"
        print(f"| {tool} | {seen:.1f} | {more:.1f} | {library:.1f} | {judged} | {PROTOTYPE.get(tool, '')} |")


def main() -> None:
    """Measure everybody in interleaved rounds; print the lowest figures, as the budgets were made, and medians."""
    tools = [OFF, *BUDGETS, *PROTOTYPE]
    found = []
    for number in range(ROUNDS):
        turn = number % len(tools)
        found.append({tool: in_a_process_of_its_own(tool) for tool in tools[turn:] + tools[:turn]})
    print(f"Load {os.getloadavg()[0]:.1f}, {os.cpu_count()} CPUs, {ROUNDS} rounds of {SAMPLES} samples")
    show("Lowest of all, as the budgets were made", min, found)
    show("Medians, with Python's garbage collection of whatever waits", statistics.median, found)


if __name__ == "__main__":
    if sys.argv[1:]:
        json.dump(measure(sys.argv[1]), sys.stdout)
    else:
        main()
