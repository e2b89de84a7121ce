"""
What the store costs: tracked calls beside untracked ones, a look by id, a report of progress, and eight processes.

`python benchmarks/store.py` prints a table. Method and caveats: README.md in this folder.
"""

from __future__ import annotations

import json
import os
import platform
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from flask import Flask

from flask_asok import FlaskAsok, background, current_task, report_progress

ROUNDS = 9
CALLS = 200
PROCESSES = 8
TASKS_PER_SECOND = 200
POLLS_PER_SECOND = 40
SECONDS = 5.0

asok = FlaskAsok()

tracked = background.using(tracked=True)


def create_app(folder: str) -> Flask:
    app = Flask("benchmark")
    app.config.update(SECRET_KEY="a secret of the benchmark", ASOK_STORE=os.path.join(folder, "asok.sqlite3"))
    asok.init_app(app)
    return app


def noop() -> None:
    pass


def timed(call: Callable[[], object]) -> float:
    """Return the milliseconds that the call took."""
    began = time.perf_counter()
    call()
    return (time.perf_counter() - began) * 1000


def call_alone(door: Callable[..., object]) -> float:
    """Return the median of the calls alone; each task has ended before the next call."""
    found = []
    for _ in range(CALLS):
        began = time.perf_counter()
        task = door(noop)
        found.append((time.perf_counter() - began) * 1000)
        task.join()
    return statistics.median(found)


def report(is_written: bool) -> float:
    """Return the median of reports of progress, from inside a tracked task."""

    def work() -> float:
        task = current_task()
        found = []
        for number in range(CALLS):
            # The store gets one a second; this says when it got the last.
            task.reported = float("-inf") if is_written else float("inf")
            found.append(timed(lambda number=number: report_progress(number, CALLS)))
        return statistics.median(found)

    return tracked(work).result()


def in_one_process() -> dict[str, list[float]]:
    """Return the figures of each round, side by side."""
    found: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        app = create_app(folder)
        with app.app_context():
            tracked(noop).join()
            known = tracked(noop)
            known.join()
            parts = {
                "untracked call": lambda: call_alone(background),
                "tracked call": lambda: call_alone(tracked),
                "asok.get": lambda: statistics.median([timed(lambda: asok.get(known.id)) for _ in range(CALLS)]),
                "report, not written": lambda: report(False),
                "report, written": lambda: report(True),
            }
            for number in range(ROUNDS):
                names = list(parts)
                # Another one begins each round.
                for name in names[number % len(names) :] + names[: number % len(names)]:
                    found.setdefault(name, []).append(parts[name]())
        asok.close(app)
    return found


def instants(per_second: int, is_call: bool) -> list[tuple[float, bool]]:
    """Return when one of the processes has its turn."""
    every = PROCESSES / per_second
    return [(number * every, is_call) for number in range(int(SECONDS / every))]


def one_of_many(folder: str, polled: str) -> None:
    """Start tasks and poll, each at its rate, and print what each call took."""
    app = create_app(folder)
    calls, polls = [], []
    with app.app_context():
        tracked(noop).join()
        print("ready", flush=True)
        sys.stdin.readline()
        began = time.monotonic()
        due = sorted([*instants(TASKS_PER_SECOND, True), *instants(POLLS_PER_SECOND, False)])
        for at, is_call in due:
            time.sleep(max(0.0, began + at - time.monotonic()))
            if is_call:
                calls.append(timed(lambda: tracked(noop)))
            else:
                polls.append(timed(lambda: asok.get(polled).as_dict()))
    asok.close(app)
    print(json.dumps([calls, polls]))


def in_many_processes() -> tuple[list[float], list[float]]:
    """Return what the calls and the polls of all processes took."""
    with tempfile.TemporaryDirectory() as folder:
        app = create_app(folder)
        with app.app_context():
            known = tracked(noop)
            known.join()
        processes = [
            subprocess.Popen(
                [sys.executable, __file__, folder, known.id], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )
            for _ in range(PROCESSES)
        ]
        for process in processes:
            process.stdout.readline()
        for process in processes:
            process.stdin.write("go\n")
            process.stdin.flush()
        answers = [json.loads(process.communicate()[0]) for process in processes]
        asok.close(app)
    return [ms for calls, _ in answers for ms in calls], [ms for _, polls in answers for ms in polls]


def main() -> int:
    """Print the table."""
    print(f"Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}, {os.cpu_count()} CPUs, ", end="")
    print(f"load {os.getloadavg()[0]:.1f}. Medians of {ROUNDS} rounds of {CALLS} (lowest, highest round), in ms.\n")
    found = in_one_process()
    for name, rounds in found.items():
        print(f"{name:22} p50 {statistics.median(rounds):8.4f}  ({min(rounds):.4f}, {max(rounds):.4f})")
    more = [b - a for a, b in zip(found["untracked call"], found["tracked call"], strict=True)]
    print(f"{'tracked, what is more':22} p50 {statistics.median(more):8.4f}  ({min(more):.4f}, {max(more):.4f})")
    print(f"\n{PROCESSES} processes, {TASKS_PER_SECOND} tracked tasks/s and {POLLS_PER_SECOND} polls/s in all:")
    for name, values in zip(("background()", "poll"), in_many_processes(), strict=True):
        cuts = statistics.quantiles(values, n=100)
        print(f"{name:22} p50 {cuts[49]:8.4f}  p99 {cuts[98]:8.4f}  longest {max(values):.4f}  of {len(values)}")
    return 0


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    if len(sys.argv) > 1:
        one_of_many(*sys.argv[1:])
    else:
        sys.exit(main())
