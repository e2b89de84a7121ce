"""
What a task in the application's PostgreSQL costs: the call, its start, tasks per second, and a worker that was killed.

`python benchmarks/postgres.py [call] [start] [tasks] [killed]` prints a table each. Method and caveats: README.md in
this folder. It starts a PostgreSQL of its own, which waits for the disk, and for the comparison a Redis.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import resource
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
# This file has the name of a package's module; and the server is the one of the tests.
sys.path[:] = [path for path in sys.path if path != str(ROOT / "benchmarks")]
sys.path += [str(ROOT), str(ROOT / "tests")]

import procrastinate  # noqa: E402
import psycopg  # noqa: E402
from flask import Flask  # noqa: E402
from flask_sqlalchemy import SQLAlchemy  # noqa: E402
from postgresql import PostgreSQL  # noqa: E402

from flask_asok import FlaskAsok, background  # noqa: E402

ROUNDS = 600
TASKS = 1_500
STARTS = 200
KILLS = 10
DEAD_AFTER = 10

db = SQLAlchemy()
asok = FlaskAsok()


class Line(db.Model):  # type: ignore[name-defined, misc]
    id = db.Column(db.Integer, primary_key=True)
    text = db.Column(db.Text)


def noop(number: int = 0) -> None:
    pass


def tell(port: int) -> None:
    """Say that this task has begun."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as said:
        said.sendto(b"begun", ("127.0.0.1", port))


def wait_first(port: int, folder: str) -> None:
    """Wait to be killed in the first process that runs this; in the next one tell."""
    first = Path(folder) / "first"
    if not first.exists():
        first.touch()
        tell(port)
        time.sleep(60)
    tell(port)


def create_app(**config: Any) -> Flask:
    app = Flask("benchmark")
    app.config.update(SECRET_KEY="a secret of the benchmark", ASOK_TASK_MODULES=["bench_postgres"])
    app.config.update(json.loads(os.environ.get("BENCH_CONFIG", "{}")), **config)
    if "SQLALCHEMY_DATABASE_URI" in app.config:
        db.init_app(app)
    asok.init_app(app)
    return app


sys.modules.setdefault("bench_postgres", sys.modules[__name__])
for function in (noop, tell, wait_first):
    function.__module__ = "bench_postgres"


@contextlib.contextmanager
def worker(config: dict[str, Any], *options: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run `flask asok worker` as a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "bench_postgres.py").symlink_to(__file__)
        path = os.pathsep.join([folder, str(ROOT), str(ROOT / "tests")])
        process = subprocess.Popen(
            [sys.executable, "-m", "flask", "--app", "bench_postgres:create_app()", "asok", "worker", *options],
            env={**os.environ, "PYTHONPATH": path, "BENCH_CONFIG": json.dumps(config)},
            stderr=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            yield process
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


ALONE = "alone"
"""The queue of the engine without us."""


def run_alone(url: str, wait: bool) -> None:
    """Run the engine's own tasks, in its own worker; without `wait` until there are none, and print when each began."""
    app = procrastinate.App(connector=procrastinate.PsycopgConnector(conninfo=url))
    began: list[float] = []
    app.task(name="tell", queue=ALONE)(tell)
    app.task(name="noop", queue=ALONE)(lambda number: began.append(time.time()))

    async def run() -> float:
        async with app.open_async():
            before = resource.getrusage(resource.RUSAGE_SELF)
            await app.run_worker_async(queues=[ALONE], concurrency=8, delete_jobs="always", wait=wait)
            after = resource.getrusage(resource.RUSAGE_SELF)
            return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime

    cpu = asyncio.run(run())
    print(json.dumps([cpu, began]))


@contextlib.contextmanager
def alone(url: str, *, wait: bool) -> Iterator[subprocess.Popen[str]]:
    """Run the engine's own worker as a process of its own."""
    options = ["wait"] if wait else []
    process = subprocess.Popen(
        [sys.executable, __file__, ALONE, url, *options],
        stderr=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        yield process
    finally:
        process.kill()
        process.wait()


@contextlib.contextmanager
def engine_of(url: str) -> Iterator[procrastinate.App]:
    logging.getLogger("procrastinate").setLevel(logging.ERROR)
    app = procrastinate.App(connector=procrastinate.SyncPsycopgConnector(conninfo=url))
    with app.open():
        yield app


def rate_alone(url: str, workers: int) -> tuple[float, float]:
    """Do what `rate_of` does, with the engine alone."""
    with engine_of(url) as app, contextlib.ExitStack() as stack:
        noops = app.configure_task("noop", queue=ALONE)
        for number in range(TASKS):
            noops.defer(number=number)
        processes = [stack.enter_context(alone(url, wait=False)) for _ in range(workers)]
        found = [json.loads(process.communicate(timeout=120)[0]) for process in processes]
    begun = sorted(moment for _, moments in found for moment in moments)
    assert len(begun) == TASKS
    ends = begun[TASKS // 5 :]
    return (len(ends) - 1) / (ends[-1] - ends[0]), sum(cpu for cpu, _ in found) / TASKS * 1e3


def cpu_of(group: int) -> float:
    """Return the seconds of CPU that a process group has used."""
    ticks = 0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = stat.read_text().rpartition(")")[2].split()
            if int(fields[2]) == group:
                ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def row(what: str, *values: object) -> None:
    print("| " + " | ".join([what, *map(str, values)]) + " |", flush=True)


PLAIN = db.text("INSERT INTO plain (text) VALUES (:text)")


def insert_plain() -> None:
    db.session.execute(PLAIN, {"text": "x" * 600})


def measure_call(server: PostgreSQL, config: dict[str, Any]) -> None:
    """Compare a call in a transaction with a plain INSERT in its place, and with none."""
    print("\n| one order and its commit | p50 ms | against a plain INSERT | own CPU, p50 ms |\n|---|---|---|---|")
    for driver in ("psycopg", "psycopg2"):
        app = create_app(**config, SQLALCHEMY_DATABASE_URI=server.url("bench", f"postgresql+{driver}"))
        with app.app_context():
            calls = {
                "nothing more": lambda: None,
                "a plain INSERT": insert_plain,
                "background()": lambda: background(noop, 1),
            }
            taken: dict[str, list[float]] = {name: [] for name in calls}
            spent: dict[str, list[float]] = {name: [] for name in calls}
            names = list(calls)
            for number in range(ROUNDS + 10):
                for name in names[number % 3 :] + names[: number % 3]:
                    began, before = time.perf_counter(), time.thread_time()
                    db.session.add(Line(text="a book"))
                    db.session.flush()
                    calls[name]()
                    db.session.commit()
                    if number >= 10:
                        taken[name].append((time.perf_counter() - began) * 1e3)
                        spent[name].append((time.thread_time() - before) * 1e3)
            base = statistics.median(taken["a plain INSERT"])
            for name in calls:
                middle = statistics.median(taken[name])
                cpu = statistics.median(spent[name])
                row(f"{name}, {driver}", f"{middle:.2f}", f"{middle / base:.2f}", f"{cpu:.2f}")
        close(app)


def measure_start(server: PostgreSQL, config: dict[str, Any]) -> None:
    """Compare the time from a call to the start of its task with that of a bare NOTIFY in the same moments."""
    print("\n| from the call to its start, ms | p50 | p90 | p99 |\n|---|---|---|---|")
    url = config["ASOK_POSTGRES_URL"]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as heard:
        heard.bind(("127.0.0.1", 0))
        heard.settimeout(20)
        port = heard.getsockname()[1]
        for listens in (True, False):
            own = {**config, "ASOK_POSTGRES": {"listen": listens}}
            app = create_app(**own)
            with (
                worker(own, "--concurrency", "4"), alone(url, wait=True), engine_of(url) as engine, app.app_context(),
                bare_notify(server) as notify,
            ):  # fmt: skip
                tells = engine.configure_task("tell", queue=ALONE)

                def by_us() -> None:
                    background(tell, port)
                    heard.recv(10)

                def by_engine(tells: Any = tells) -> None:
                    tells.defer(port=port)
                    heard.recv(10)

                contenders = {"a bare NOTIFY": notify, "Procrastinate alone": by_engine, "the task": by_us}
                if not listens:
                    contenders = {"the task": by_us}
                for call in contenders.values():
                    call()
                taken: dict[str, list[float]] = {name: [] for name in contenders}
                for number in range(STARTS if listens else STARTS // 4):
                    for name, call in contenders.items():
                        # Before each of them: what has just run is in the processors' caches.
                        time.sleep(0.03 + (number % 7) / 100)
                        began = time.perf_counter()
                        call()
                        taken[name].append((time.perf_counter() - began) * 1e3)
            close(app)
            if listens:
                base = percentiles(taken["a bare NOTIFY"])
                for name, times in taken.items():
                    found = percentiles(times)
                    row(name, *(f"{one:.1f} ({one / other:.1f} x)" for one, other in zip(found, base, strict=True)))
            else:
                row('the task, with "listen": False', *(f"{value:.1f}" for value in percentiles(taken["the task"])))


@contextlib.contextmanager
def bare_notify(server: PostgreSQL) -> Iterator[Callable[[], None]]:
    """Yield what notifies, until another connection, in a thread that waits for it, has heard of it."""
    with psycopg.connect(server.url("bench"), autocommit=True) as sending:
        listening = psycopg.connect(server.url("bench"), autocommit=True)
        listening.execute("LISTEN bench")
        arrived = threading.Event()

        def listen() -> None:
            with contextlib.suppress(psycopg.OperationalError):
                for _ in listening.notifies(timeout=3600):
                    arrived.set()

        threading.Thread(target=listen, daemon=True).start()

        def notify() -> None:
            arrived.clear()
            sending.execute("NOTIFY bench")
            arrived.wait(10)

        yield notify


def percentiles(values: list[float]) -> tuple[float, float, float]:
    values = sorted(values)
    return values[len(values) // 2], values[len(values) * 9 // 10], values[len(values) * 99 // 100]


def measure_tasks(config: dict[str, Any]) -> None:
    """Run no-ops that wait already, by one worker and by two, and by Celery's with as many processes as threads."""
    print("\n| no-ops that wait | tasks/s | worker CPU, ms a task |\n|---|---|---|")
    with redis() as url:
        relaxed = {**config, "ASOK_POSTGRES": {"relaxed": True}}
        celery = {"ASOK_BACKEND": "celery", "ASOK_CELERY": {"broker_url": url}}
        for _ in range(2):
            for name, own, number in (
                ("postgres, one worker", config, 1),
                ("postgres, two workers", config, 2),
                ("postgres, relaxed, two workers", relaxed, 2),
                ("Celery on Redis, one worker", celery, 1),
                ("Celery on Redis, two workers", celery, 2),
            ):
                per_second, cpu = rate_of(own, number)
                row(name, f"{per_second:.0f}", f"{cpu:.2f}")
            for name, number in (("Procrastinate alone, one worker", 1), ("Procrastinate alone, two workers", 2)):
                per_second, cpu = rate_alone(config["ASOK_POSTGRES_URL"], number)
                row(name, f"{per_second:.0f}", f"{cpu:.2f}")


def rate_of(config: dict[str, Any], workers: int) -> tuple[float, float]:
    app = create_app(**config, ASOK_RECENT_TASKS=1)
    with app.app_context(), contextlib.ExitStack() as stack:
        ids = [background(noop, number).id for number in range(TASKS)]
        started = [stack.enter_context(worker(config, "--concurrency", "8")) for _ in range(workers)]
        deadline = time.monotonic() + 120
        while any(queue.queued + queue.running for queue in asok.queues()) and time.monotonic() < deadline:
            time.sleep(0.2)
        wanted = set(ids)
        done = [task for task in asok.tasks(limit=TASKS) if task.id in wanted and task.state == "succeeded"]
        # The first ones start while a worker still does.
        ends = sorted(task.finished_at.timestamp() for task in done)[TASKS // 5 :]  # type: ignore[union-attr]
        cpu = sum(cpu_of(process.pid) for process in started)
    close(app)
    idle = start_cpu(config) * workers
    return (len(ends) - 1) / (ends[-1] - ends[0]), (cpu - idle) / len(done) * 1e3


def start_cpu(config: dict[str, Any]) -> float:
    """Return the seconds of CPU that a worker needs to start."""
    with worker(config, "--concurrency", "8") as process:
        time.sleep(6)
        return cpu_of(process.pid)


def measure_killed(config: dict[str, Any]) -> None:
    """Kill a worker in the middle of a task, while another one lives: when does that one begin it?"""
    own = {**config, "ASOK_POSTGRES": {"dead_after": DEAD_AFTER}}
    away: list[float] = []
    for _ in range(KILLS):
        with (
            tempfile.TemporaryDirectory() as folder,
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as heard,
            worker(own, "--concurrency", "1") as first,
        ):
            heard.bind(("127.0.0.1", 0))
            heard.settimeout(60)
            app = create_app(**own)
            with app.app_context():
                background(wait_first, heard.getsockname()[1], folder)
                heard.recv(10)
                with worker(own, "--concurrency", "1"):
                    time.sleep(6)
                    os.killpg(first.pid, signal.SIGKILL)
                    killed = time.monotonic()
                    heard.recv(10)
                    away.append(time.monotonic() - killed)
            close(app)
    print(f"\n| killed with -9, dead_after = {DEAD_AFTER} s | best | median | worst |\n|---|---|---|---|")
    row(f"back after s, {KILLS} times", *(f"{value:.1f}" for value in (min(away), statistics.median(away), max(away))))


@contextlib.contextmanager
def redis() -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        command = ["redis-server", "--port", str(port), "--appendonly", "yes", "--save", "", "--dir", folder]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        time.sleep(1)
        try:
            yield f"redis://127.0.0.1:{port}/0"
        finally:
            process.kill()
            process.wait()


def close(app: Flask) -> None:
    asok.close(app, 5)
    if "sqlalchemy" in app.extensions:
        with app.app_context():
            db.engine.dispose()


def main() -> None:
    match sys.argv[1:]:
        case [first, url, *options] if first == ALONE:
            run_alone(url, wait=bool(options))
            return
    wanted = sys.argv[1:] or ["call", "start", "tasks", "killed"]
    server = PostgreSQL().start("-c", "fsync=on")
    try:
        server.database("bench")
        url = server.url("bench")
        config: dict[str, Any] = {"ASOK_BACKEND": "postgres", "ASOK_POSTGRES_URL": url}
        app = create_app(**config)
        with app.app_context():
            app.extensions["asok"].backend.set_up_tables()
        close(app)
        server.execute("CREATE TABLE plain (id serial, text text)", database="bench")
        server.execute("CREATE TABLE line (id serial PRIMARY KEY, text text)", database="bench")
        version = server.execute("SHOW server_version")[0][0]
        print(f"PostgreSQL {version}, {os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f}")
        if "call" in wanted:
            measure_call(server, config)
            server.execute("TRUNCATE asok_tasks, procrastinate_jobs CASCADE", database="bench")
        if "start" in wanted:
            measure_start(server, config)
        if "tasks" in wanted:
            measure_tasks(config)
        if "killed" in wanted:
            measure_killed(config)
    finally:
        server.close()


if __name__ == "__main__":
    main()
