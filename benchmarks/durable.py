"""
What it costs that a task survives its process: the call, tasks per second, and how long a killed one is away.

`python benchmarks/durable.py` prints a table. Method and caveats: README.md in this folder.
"""

from __future__ import annotations

import logging
import os
import platform
import signal
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack

from flask import Flask

# huey imports it where it is installed, which is for another benchmark: then each call and attempt looks for a span.
sys.modules["opentelemetry"] = None  # type: ignore[assignment]
from huey import SqliteHuey  # noqa: E402
from huey.consumer import Consumer  # noqa: E402

del sys.modules["opentelemetry"]

from flask_asok import FlaskAsok, background  # noqa: E402

ROUNDS = 9
CALLS = 200
TASKS = 1_500
THREADS = 8
KILLED = 15

asok = FlaskAsok()

durable = background.using(durable=True)


def create_app(folder: str) -> Flask:
    app = Flask("benchmark")
    app.config.update(
        SECRET_KEY="a secret of the benchmark",
        ASOK_STORE=os.path.join(folder, "asok.sqlite3"),
        ASOK_TASK_MODULES=["durable"],
    )
    asok.init_app(app)
    return app


def noop(number: int) -> None:
    pass


def wait_for_kill(folder: str, pid: int) -> None:
    """Wait in the process that was called; in any other one, note when."""
    if os.getpid() == pid:
        print("runs", flush=True)
        threading.Event().wait(60)
    else:
        with open(os.path.join(folder, "back"), "a") as file:
            file.write(f"{pid} {time.time()}\n")


def medians_of(calls: dict[str, Callable[[int], object]]) -> dict[str, float]:
    """
    Return the median of each call, in microseconds, made in turn: so all find the processor's caches as cold.

    What a call returns is waited for before the next.
    """
    found: dict[str, list[float]] = {name: [] for name in calls}
    names = list(calls)
    for number in range(CALLS):
        for name in names[number % len(names) :] + names[: number % len(names)]:
            began = time.perf_counter()
            started = calls[name](number)
            found[name].append((time.perf_counter() - began) * 1e6)
            if started is not None:
                started.join()
    return {name: statistics.median(times) for name, times in found.items()}


class Huey:
    """SqliteHuey as it is installed, or without waiting for the disk, and a task of it that does nothing but count."""

    def __init__(self, folder: str, *, sync: str = "FULL") -> None:
        self.huey = SqliteHuey("benchmark", filename=os.path.join(folder, f"huey-{sync}.sqlite3"), results=False)
        # One connection for all its threads.
        self.huey.storage.conn.execute(f"PRAGMA synchronous = {sync}")
        self.ran = threading.Semaphore(0)
        self.task = self.huey.task(name="noop")(lambda number: self.ran.release())

    def enqueue(self, number: int) -> None:
        self.task(number)

    def consumer(self) -> Consumer:
        # Signals are for the main thread of a consumer of its own.
        consumer = Consumer(self.huey, workers=THREADS, periodic=False, check_worker_health=False, initial_delay=0.01)
        consumer._set_signal_handlers = lambda: None
        return consumer

    def wait(self, count: int) -> None:
        for _ in range(count):
            assert self.ran.acquire(timeout=60)

    def per_second(self, *, is_enqueued_before: bool) -> float:
        """Return tasks/s of one process that does both, or of the consumer alone."""
        consumer = self.consumer()
        if is_enqueued_before:
            for number in range(TASKS):
                self.enqueue(number)
        else:
            consumer.start()
        began = time.perf_counter()
        if is_enqueued_before:
            consumer.start()
        else:
            for number in range(TASKS):
                self.enqueue(number)
        self.wait(TASKS)
        seconds = time.perf_counter() - began
        consumer.stop(graceful=True)
        self.clear()
        return TASKS / seconds

    def clear(self) -> None:
        self.huey.storage.flush_all()
        while self.ran.acquire(blocking=False):
            pass


def per_second(door: Callable[..., object]) -> float:
    """Return tasks/s, enqueued and run in this process."""
    began = time.perf_counter()
    tasks = [door(noop, number) for number in range(TASKS)]
    for task in tasks:
        task.join()
    return TASKS / (time.perf_counter() - began)


def in_one_process() -> dict[str, list[float]]:
    """Return the figures of each round, side by side."""
    found: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        app = create_app(folder)
        plain = sqlite3.connect(os.path.join(folder, "plain.sqlite3"), isolation_level=None)
        stack.callback(plain.close)
        plain.execute("PRAGMA journal_mode = WAL")
        plain.execute("PRAGMA synchronous = NORMAL")
        plain.execute("CREATE TABLE task (id INTEGER PRIMARY KEY, name TEXT, data TEXT)")
        body = "x" * 400
        huey, quick_huey = Huey(folder), Huey(folder, sync="NORMAL")

        def insert(number: int) -> None:
            plain.execute("INSERT INTO task (name, data) VALUES (?, ?)", ("noop", body))

        calls = {
            "INSERT and commit": insert,
            "huey: enqueue": huey.enqueue,
            "huey NORMAL: enqueue": quick_huey.enqueue,
            "plain call": lambda number: background(noop, number),
            "durable call": lambda number: durable(noop, number),
        }
        parts: dict[str, Callable[[], float]] = {
            "huey: both": lambda: huey.per_second(is_enqueued_before=False),
            "huey: consumer": lambda: huey.per_second(is_enqueued_before=True),
            "huey NORMAL: both": lambda: quick_huey.per_second(is_enqueued_before=False),
            "huey NORMAL: consumer": lambda: quick_huey.per_second(is_enqueued_before=True),
            "durable: both": lambda: per_second(durable),
        }
        with app.test_request_context():
            durable(noop, 0).join()
            for number in range(ROUNDS):
                for name, median in medians_of(calls).items():
                    found.setdefault(name, []).append(median)
                huey.clear()
                quick_huey.clear()
                names = list(parts)
                # Another one begins each round.
                for name in names[number % len(names) :] + names[: number % len(names)]:
                    found.setdefault(name, []).append(parts[name]())
        asok.close(app)
    return found


def taken_over() -> list[float]:
    """Return after how many seconds a sibling has begun each task whose process was killed while it ran."""
    found = []
    with tempfile.TemporaryDirectory() as folder:
        app = create_app(folder)
        asok.start_worker(app)
        for number in range(KILLED):
            process = subprocess.Popen([sys.executable, __file__, folder], stdout=subprocess.PIPE, text=True)
            process.stdout.readline()
            # Not in step with the looks of the sibling.
            time.sleep(0.5 * number / KILLED)
            process.send_signal(signal.SIGKILL)
            killed = time.time()
            process.communicate()
            found.append(began_again(folder, process.pid) - killed)
        asok.close(app)
    return found


def began_again(folder: str, pid: int) -> float:
    for _ in range(10_000):
        try:
            with open(os.path.join(folder, "back")) as file:
                for line in file:
                    if line.startswith(f"{pid} "):
                        return float(line.split()[1])
        except FileNotFoundError:
            pass
        time.sleep(0.001)
    raise AssertionError(f"Nobody has gone on with the task of {pid}.")


def is_killed(folder: str) -> None:
    """Run a task until this process is killed."""
    app = create_app(folder)
    with app.app_context():
        durable(wait_for_kill, folder, os.getpid()).join()


def main() -> int:
    """Print the table."""
    logging.getLogger("huey").setLevel(logging.ERROR)
    print(f"Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}, {os.cpu_count()} CPUs, ", end="")
    print(f"load {os.getloadavg()[0]:.1f}. Medians of {ROUNDS} rounds (lowest, highest round).\n")
    found = in_one_process()
    for name, rounds in found.items():
        unit = "tasks/s" if ":" in name and "enqueue" not in name else "us"
        print(f"{name:22} {statistics.median(rounds):8.0f} {unit:7}  ({min(rounds):.0f}, {max(rounds):.0f})")
    print()
    for ours, other, budget in (
        ("durable call", "INSERT and commit", "<= 6"),
        ("durable call", "huey: enqueue", "<= 0.5"),
        ("durable: both", "huey: both", ">= 3"),
        ("durable: both", "huey: consumer", ">= 1.0"),
        ("durable call", "huey NORMAL: enqueue", ""),
        ("durable: both", "huey NORMAL: both", ""),
        ("durable: both", "huey NORMAL: consumer", ""),
    ):
        ratios = [a / b for a, b in zip(found[ours], found[other], strict=True)]
        print(f"{ours} / {other}".ljust(36), end="")
        print(f"{statistics.median(ratios):6.2f}  ({min(ratios):.2f}, {max(ratios):.2f})  {budget}")
    back = sorted(taken_over())
    print(f"\nA sibling goes on after {statistics.median(back):.2f} s p50, {back[-1]:.2f} s at most ({KILLED} kills).")
    return 0


if __name__ == "__main__":
    # Under its own name: what the script itself defines another process could not find.
    import durable as module

    if sys.argv[1:]:
        module.is_killed(sys.argv[1])
    sys.exit(module.main())
