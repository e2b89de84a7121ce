"""
What a call of `background()` costs, beside a bare executor, a thread, Flask-Executor and Asok.

`python benchmarks/background.py` prints one table, `python benchmarks/background.py batch memory` a part of it.
Method and caveats: README.md in this folder.
"""

from __future__ import annotations

import gc
import os
import platform
import socket
import statistics
import subprocess
import sys
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from flask import Flask

from flask_asok import FlaskAsok, background

THREADS = 10
"""Of every pool: what Asok's has, which cannot be set."""

US, EXECUTOR, FLASK_EXECUTOR, ASOK, THREAD = (
    "Flask-Asok", "ThreadPoolExecutor", "Flask-Executor", "Asok", "threading.Thread",
)  # fmt: skip


def noop() -> None:
    pass


@dataclass
class Contender:
    """One way to run a function in the background."""

    name: str
    call: Callable[[Callable[[], Any]], Any]
    wait: Callable[[Any], Any]
    tidy: Callable[[], None] = noop
    scale: float = 1.0
    """Part of the usual number of calls: a thread costs so much that fewer have to do."""


def contenders(app: Flask) -> list[Contender]:
    """Set up everybody on `app`; a peer that is not installed or does not run is reported and left out."""
    app.config["ASOK_QUEUES"] = {"default": THREADS}
    app.config["ASOK_MAX_QUEUED"] = 50_000
    FlaskAsok(app)
    pool = ThreadPoolExecutor(THREADS)
    found = [
        Contender(US, background, lambda task: task.result()),
        Contender(EXECUTOR, pool.submit, lambda future: future.result()),
        Contender(THREAD, _start_thread, lambda thread: thread.join(), scale=0.1),
    ]
    for make in (_flask_executor, _asok):
        try:
            peer = make(app)
            with app.test_request_context():
                peer.wait(peer.call(noop))
        except Exception as error:
            print(f"Left out: {make.__name__.strip('_')}, {error!r}", file=sys.stderr)
        else:
            found.append(peer)
    return found


def _start_thread(fn: Callable[[], Any]) -> threading.Thread:
    thread = threading.Thread(target=fn)
    thread.start()
    return thread


def _flask_executor(app: Flask) -> Contender:
    from flask_executor import Executor

    app.config["EXECUTOR_MAX_WORKERS"] = THREADS
    return Contender(FLASK_EXECUTOR, Executor(app).submit, lambda future: future.result())


def _asok(app: Flask) -> Contender:
    from asok.background import _LOCAL_JOBS
    from asok.background import background as asok_background

    # It keeps three records of every job for ever; left there, they would slow down the rounds that follow.
    return Contender(ASOK, asok_background, lambda future: future.result(), _LOCAL_JOBS.clear)


# The measurements. Each returns the figures of one round of one contender, by the name of the figure.

Figures = dict[str, float]


def batch(contender: Contender, count: int = 3_000) -> Figures:
    """Microseconds from the first call until all are settled, by the count."""
    count = int(count * contender.scale)
    started, cpu = time.perf_counter(), time.process_time()
    handles = [contender.call(noop) for _ in range(count)]
    for handle in handles:
        contender.wait(handle)
    wall, cpu = time.perf_counter() - started, time.process_time() - cpu
    return {
        "no-op to settled, batch of 3,000 (us)": wall / count * 1e6,
        "the same in CPU time of all threads (us)": cpu / count * 1e6,
    }


def one_at_a_time(contender: Contender, count: int = 200) -> Figures:
    """Microseconds of a call that is waited for before the next one."""
    count = int(count * contender.scale)
    started = time.perf_counter()
    for _ in range(count):
        contender.wait(contender.call(noop))
    return {"one at a time, call and join (us)": (time.perf_counter() - started) / count * 1e6}


def call_alone(contender: Contender, count: int = 400, where: str = "idle") -> Figures:
    """Microseconds for which the caller is held."""
    samples = []
    handles = []
    for _ in range(int(count * contender.scale)):
        started = time.perf_counter()
        handles.append(contender.call(noop))
        samples.append(time.perf_counter() - started)
    for handle in handles:
        contender.wait(handle)
    percentiles = statistics.quantiles(samples, n=100, method="inclusive")
    return {
        f"call alone, {where}, p50 (us)": percentiles[49] * 1e6,
        f"call alone, {where}, p99 (us)": percentiles[98] * 1e6,
    }


def call_beside_burners(contender: Contender) -> Figures:
    """The same while four threads keep the interpreter busy."""
    with burners(4):
        return call_alone(contender, 250, "4 burners")


@contextmanager
def burners(count: int) -> Iterator[None]:
    """Burn CPU in `count` threads."""
    stop = threading.Event()

    def burn() -> None:
        while not stop.is_set():
            sum(range(200))

    threads = [threading.Thread(target=burn) for _ in range(count)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def memory(contender: Contender, count: int = 10_000) -> Figures:
    """Bytes that each task holds while it waits for a thread, its handle included."""
    if contender.name == THREAD:
        return {}
    gate = threading.Event()
    blocked = [contender.call(gate.wait) for _ in range(THREADS)]
    handles: list[Any] = [None] * count
    gc.collect()
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    for index in range(count):
        handles[index] = contender.call(noop)
    gc.collect()
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    gate.set()
    for handle in (*blocked, *handles):
        contender.wait(handle)
    return {"memory per waiting task (bytes)": (after - before) / count}


def rounds(count: int, everybody: list[Contender], measure: Callable[[Contender], Figures]) -> list[dict[str, Figures]]:
    """Measure everybody in turn, `count` times, each time in another order: noise of the machine meets all alike."""
    found = []
    for number in range(count):
        turn = number % len(everybody)
        figures = {}
        for contender in everybody[turn:] + everybody[:turn]:
            gc.collect()
            figures[contender.name] = measure(contender)
            contender.tidy()
        found.append(figures)
    return found


# Requests per second: this module is the gunicorn application, too.


def create_app() -> Flask:
    """Serve one route without background work, `/`, and one for each contender, `/<name>`."""
    app = Flask(__name__)
    app.add_url_rule("/", "plain", lambda: "answer")
    for contender in contenders(app):

        def view(contender: Contender = contender) -> str:
            contender.call(noop)
            return "answer"

        app.add_url_rule(f"/{contender.name}", contender.name, view)
    return app


@contextmanager
def gunicorn() -> Iterator[int]:
    """Serve `create_app()` with one gthread worker of four threads; yield the port."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(128)
        port = listener.getsockname()[1]
        server = subprocess.Popen(
            [sys.executable, "-m", "gunicorn", "--worker-class=gthread", "--threads=4", "--keep-alive=30",
             "--log-level=error", f"--bind=fd://{listener.fileno()}", f"{Path(__file__).stem}:create_app()"],
            cwd=Path(__file__).parent, pass_fds=[listener.fileno()],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )  # fmt: skip
    try:
        yield port
    finally:
        server.terminate()
        server.wait(20)


def load(port: int, path: str, seconds: float) -> float:
    """Return the requests per second that four connections of another process get out of the server."""
    command = [sys.executable, __file__, "load", str(port), path, str(seconds)]
    return float(subprocess.run(command, capture_output=True, check=True, text=True).stdout)


def _load(port: int, path: str, seconds: float) -> float:
    """Be that other process."""
    counts: list[int] = []
    stop_at = time.perf_counter() + seconds

    def client() -> None:
        request = f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
        count = 0
        with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
            while time.perf_counter() < stop_at:
                connection.sendall(request)
                answer = b""
                while not answer.endswith(b"\r\n\r\nanswer"):
                    answer += connection.recv(4096) or sys.exit("The server hung up.")
                assert answer.startswith(b"HTTP/1.1 200"), answer
                count += 1
        counts.append(count)

    threads = [threading.Thread(target=client) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(counts) == 4
    return sum(counts) / seconds


# The table


BUDGETS = {
    ("no-op to settled, batch of 3,000 (us)", EXECUTOR): 1.0,
    ("no-op to settled, batch of 3,000 (us)", FLASK_EXECUTOR): 0.15,
    ("no-op to settled, batch of 3,000 (us)", ASOK): 0.35,
    ("no-op to settled, batch of 3,000 (us)", THREAD): 0.1,
    ("one at a time, call and join (us)", EXECUTOR): 1.2,
    ("call alone, 4 burners, p50 (us)", THREAD): 0.02,
    ("call alone, 4 burners, p99 (us)", THREAD): 0.02,
    ("memory per waiting task (bytes)", EXECUTOR): 0.6,
}
"""Ratios to reach, at most."""

Row = tuple[str, ...]


def rows(found: list[dict[str, Figures]]) -> list[Row]:
    """Compare with each peer: medians over the rounds, and the ratio as the median of each round's own."""
    made: list[Row] = []
    for figure in found[0][US]:
        for peer in (name for name in found[0] if name != US and figure in found[0][name]):
            ours = [figures[US][figure] for figures in found]
            theirs = [figures[peer][figure] for figures in found]
            ratios = sorted(our / their for our, their in zip(ours, theirs, strict=True))
            ratio, budget = statistics.median(ratios), BUDGETS.get((figure, peer))
            made.append((
                figure, _short(statistics.median(ours)), peer, _short(statistics.median(theirs)), f"{ratio:.3g}",
                f"{ratios[0]:.2g} to {ratios[-1]:.2g}",
                "" if budget is None else f"<= {budget:g}, {'reached' if ratio <= budget else 'MISSED'}",
            ))  # fmt: skip
    return made


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def print_table(made: list[Row]) -> None:
    """Print Markdown."""
    table = [("what", US, "against", "it", "ratio", "of all rounds", "budget"), *made]
    widths = [max(len(row[column]) for row in table) for column in range(len(table[0]))]
    for number, row in enumerate(table):
        print("| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |")
        if number == 0:
            print("|" + "|".join("-" * (width + 2) for width in widths) + "|")


def _version(package: str) -> str:
    try:
        return f"{package} {version(package)}"
    except PackageNotFoundError:
        return f"{package} missing"


def main(names: list[str]) -> None:
    """Run everything, in under three minutes, or the measurements that are named."""
    packages = ("flask", "flask-executor", "asok", "gunicorn")
    print(f"Python {platform.python_version()}, {', '.join(map(_version, packages))}; {os.cpu_count()} CPUs\n")
    app = Flask(__name__)
    everybody = contenders(app)
    made: list[Row] = []
    with app.test_request_context():
        rounds(1, everybody, batch)  # not counted: threads start, caches fill
        for count, measure in (
            (15, batch),
            (31, one_at_a_time),
            (15, call_alone),
            (5, call_beside_burners),
            (1, memory),
        ):
            if not names or measure.__name__ in names:
                made += rows(rounds(count, everybody, measure))
    FlaskAsok().close(app)
    if not names or requests_per_second.__name__ in names:
        made += requests_per_second(everybody)
    print_table(made)


def requests_per_second(everybody: list[Contender]) -> list[Row]:
    """The routes under load. Here a ratio above 1 is the better one."""
    plain = Contender("no background work", noop, noop)
    with gunicorn() as port:

        def measure(contender: Contender) -> Figures:
            path = "/" if contender is plain else f"/{contender.name}"
            return {"gunicorn route with one call (requests/s)": load(port, path, 1.2)}

        everybody = [everybody[0], plain, *everybody[1:]]
        load(port, "/", 0.5)
        return rows(rounds(5, everybody, measure))


if __name__ == "__main__":
    if sys.argv[1:2] == ["load"]:
        print(_load(int(sys.argv[2]), sys.argv[3], float(sys.argv[4])))
    else:
        main(sys.argv[1:])
