"""
What a call costs on Celery, and what its worker pays, beside a bare `apply_async` of the same function.

`python benchmarks/celery.py` prints two tables; `python benchmarks/celery.py enqueue` or `worker` one of them. It needs
a redis-server, which it starts on a free port, and Linux, whose /proc tells the CPU time of the workers.
Method and caveats: README.md in this folder.
"""

from __future__ import annotations

import contextlib
import gc
import os
import platform
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
# A script finds the modules of its own folder first, where this one has the name of Celery itself.
sys.path[:] = [path for path in sys.path if path != str(ROOT / "benchmarks")]
sys.path += [str(ROOT)]

from celery import Celery  # noqa: E402
from flask import Flask  # noqa: E402

from flask_asok import FlaskAsok, background  # noqa: E402

ROUNDS = 9
WORKER_ROUNDS = 5
CALLS = 100
TASKS = 300
BUDGET = 1.25
US, STORED, IGNORED = "Flask-Asok", "apply_async, result stored", "apply_async, result ignored"

URL = os.environ.get("BENCHMARK_REDIS", "redis://127.0.0.1/0")
DONE = os.environ.get("BENCHMARK_DONE", os.devnull)


def work() -> int:
    """Leave one byte for each run, which tells how many there were and costs next to nothing."""
    file = os.open(DONE, os.O_WRONLY | os.O_APPEND)
    os.write(file, b".")
    os.close(file)
    return 1


def make_app() -> Flask:
    """Make the application as its user would."""
    app = Flask(__name__)
    app.config.update(
        SECRET_KEY="a key for benchmarks",
        ASOK_BACKEND="celery",
        ASOK_CELERY={"broker_url": URL, "result_backend": URL, "worker_hijack_root_logger": False},
    )
    FlaskAsok(app)
    return app


bare = Celery("bare", broker=URL, backend=URL)
# Neither loses a task with its worker, so that like is compared with like.
bare.conf.update(task_acks_late=True, worker_prefetch_multiplier=1, worker_hijack_root_logger=False)
stored = bare.task(work, name="stored")
ignored = bare.task(work, name="ignored", ignore_result=True)


def contenders() -> dict[str, Callable[[], Any]]:
    """Return what starts one task, by the name of the contender."""
    app = make_app()
    app.app_context().push()
    return {
        US: lambda: background(work),
        STORED: lambda: stored.apply_async(queue="stored"),
        IGNORED: lambda: ignored.apply_async(queue="ignored"),
    }


@contextlib.contextmanager
def redis_server(folder: str) -> Iterator[str]:
    """Run a Redis of our own, on a free port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--dir", folder, "--save", ""]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        wait_until(lambda: answers(port), 20)
        yield f"redis://127.0.0.1:{port}/0"
    finally:
        process.terminate()
        process.wait()


def answers(port: int) -> bool:
    """Is somebody listening?"""
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False


def wait_until(condition: Callable[[], object], seconds: float = 120.0) -> None:
    """Look until `condition()` is true; TimeoutError when it does not become so."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"It took more than {seconds:g} s.")
        time.sleep(0.002)


Found = dict[str, dict[str, list[float]]]
"""The figures of all rounds, by row and by contender."""


def interleaved(names: list[str], rounds: int) -> Iterator[str]:
    """Yield every name once a round, each round beginning with another one."""
    for number in range(rounds):
        start = number % len(names)
        yield from names[start:] + names[:start]


def print_rows(found: Found, unit: str) -> None:
    """Print the medians and the medians of the rounds' own ratios."""
    for row, figures in found.items():
        cells = [row, f"{statistics.median(figures[US]):.0f}{unit}"]
        for name in (STORED, IGNORED):
            ratios = [mine / their for mine, their in zip(figures[US], figures[name], strict=True)]
            cells.append(f"{statistics.median(figures[name]):.0f}{unit}")
            cells.append(f"{statistics.median(ratios):.2f} ({min(ratios):.2f}, {max(ratios):.2f})")
        print(f"| {' | '.join(cells)} |", flush=True)


def print_head(budget: str) -> None:
    """Print the head of a table."""
    print(f"\n| {budget} | {US} | {STORED} | ratio | {IGNORED} | ratio |\n|---|" + "---:|" * 5)


def enqueue() -> None:
    """Measure what the caller pays; no worker runs meanwhile."""
    import redis

    calls = contenders()
    server = redis.Redis.from_url(URL)
    rows = ("enqueue, wall (us)", "enqueue, CPU (us)")
    found: Found = {row: {name: [] for name in calls} for row in rows}
    for call in calls.values():
        call()
    for name in interleaved(list(calls), ROUNDS):
        server.flushall()
        gc.collect()
        wall, cpu = time.perf_counter(), time.process_time()
        for _ in range(CALLS):
            calls[name]()
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        for row, seconds in zip(rows, (wall, cpu), strict=True):
            found[row][name].append(seconds / CALLS * 1e6)
    print_head(f"budget for the ratio to a stored result: {BUDGET}")
    print_rows(found, "")
    server.flushall()


class Worker:
    """The worker of one contender: a process group."""

    def __init__(self, name: str, concurrency: int, folder: str) -> None:
        options = ["--concurrency", str(concurrency), "--loglevel", "WARNING"]
        if name == US:
            command = ["flask", "--app", "benchmarks.celery:make_app", "asok", "worker", *options]
        else:
            queue = "stored" if name == STORED else "ignored"
            command = ["celery", "--app", "benchmarks.celery:bare", "worker", "--queues", queue, *options]
        self.log = Path(folder, f"{len(os.listdir(folder))}.log")
        # The application under its own name: a node's name may be there once only.
        command += ["--hostname", f"{name.split()[-1]}{concurrency}@%h"]
        self.process = subprocess.Popen(
            [sys.executable, "-m", *command],
            cwd=ROOT, stdout=self.log.open("wb"), stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip

    def cpu_seconds(self) -> float:
        """Return the CPU time of the process and its children, in steps of 10 ms."""
        ticks = 0
        for stat in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(OSError):
                fields = stat.read_text().rpartition(")")[2].split()
                if int(fields[2]) == self.process.pid:
                    ticks += int(fields[11]) + int(fields[12])
        return ticks / os.sysconf("SC_CLK_TCK")

    def tell(self, number: int) -> None:
        os.killpg(self.process.pid, number)

    def close(self) -> None:
        self.tell(signal.SIGCONT)
        self.tell(signal.SIGKILL)
        self.process.wait()


def workers(folder: str) -> None:
    """Measure what a task costs its worker, and how many go through in a second."""
    calls = contenders()
    print_head(f"budget for the CPU of a stored result: {BUDGET}")
    for concurrency in (1, 2, 4):
        measure_workers(calls, concurrency, folder)


def measure_workers(calls: dict[str, Callable[[], Any]], concurrency: int, folder: str) -> None:
    """Run the workers of all contenders beside each other; all but one are idle."""
    plural = "es" if concurrency > 1 else ""
    cpu: dict[str, list[float]] = {name: [] for name in calls}
    rate: dict[str, list[float]] = {name: [] for name in calls}
    running = {name: Worker(name, concurrency, folder) for name in calls}
    try:
        for name, call in calls.items():
            batch(running[name], call, 4 * concurrency)
        for name in interleaved(list(calls), WORKER_ROUNDS):
            seconds, used = batch(running[name], calls[name], TASKS)
            cpu[name].append(used / TASKS * 1e6)
            rate[name].append(TASKS / seconds)
        if concurrency == 1:
            print_rows({"worker's CPU for a task (us)": cpu}, "")
        print_rows({f"{concurrency} worker process{plural}": rate}, "/s")
    finally:
        for worker in running.values():
            worker.close()


def batch(worker: Worker, call: Callable[[], Any], count: int) -> tuple[float, float]:
    """Return the seconds that `count` tasks take which are all queued before, and the CPU time that they cost."""
    open(DONE, "wb").close()
    # Stopped, so that it does not compete with the caller.
    worker.tell(signal.SIGSTOP)
    try:
        for _ in range(count):
            call()
        before = worker.cpu_seconds()
    finally:
        worker.tell(signal.SIGCONT)
    started = time.perf_counter()
    wait_until(lambda: os.path.getsize(DONE) >= count)
    return time.perf_counter() - started, worker.cpu_seconds() - before


def main(parts: list[str]) -> int:
    """Start a Redis and measure the parts in a process that knows where it is."""
    if "BENCHMARK_REDIS" not in os.environ:
        if shutil.which("redis-server") is None:
            print("This needs redis-server.", file=sys.stderr)
            return 1
        with tempfile.TemporaryDirectory() as folder, redis_server(folder) as url:
            done = Path(folder, "done")
            done.touch()
            path = os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH"), str(ROOT)]))
            environ = {**os.environ, "BENCHMARK_REDIS": url, "BENCHMARK_DONE": str(done), "PYTHONPATH": path}
            # Imported by its module's name, under which workers find its functions.
            command = [
                sys.executable,
                "-c",
                "import sys, benchmarks.celery as script; script.main(sys.argv[1:])",
                *parts,
            ]
            return subprocess.run(command, cwd=ROOT, env=environ).returncode
    print(f"Python {platform.python_version()}, {os.cpu_count()} CPUs, Celery {version('celery')}.")
    print(f"Medians of {ROUNDS} rounds of {CALLS} calls and of {WORKER_ROUNDS} rounds of {TASKS} tasks, ", end="")
    print("with the median of their ratios (lowest, highest).")
    if not parts or "enqueue" in parts:
        enqueue()
    if not parts or "worker" in parts:
        workers(os.path.dirname(DONE))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
