"""
Tear at Celery: gunicorn sends tasks, workers, brokers and Redis are killed meanwhile, and each accepted task must run.

`python benchmarks/celery_soak.py [SCENARIO ...] [--tasks N]` prints a table; without a scenario it runs all. It needs
redis-server and gunicorn; every server is one of its own, on a free port. Method and caveats: README.md in this folder.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:] = [path for path in sys.path if path != str(ROOT / "benchmarks")]
sys.path += [str(ROOT)]

import redis as redis_py  # noqa: E402
from flask import Flask, request  # noqa: E402

from flask_asok import FlaskAsok, background  # noqa: E402

LATE = 30.0
"""Seconds after the last disturbance, or the moment it was due, within which each task must have begun."""


def work(number: int, seconds: float) -> int:
    """Leave a line when it begins, and take a while."""
    with open(os.environ["SOAK_DONE"], "ab", buffering=0) as file:
        file.write(f"{number} {time.time()}\n".encode())
    time.sleep(seconds)
    return number


def create_app() -> Flask:
    """Make the application as its user would."""
    app = Flask("soak")
    app.config.update(
        SECRET_KEY="a key for the soak",
        ASOK_BACKEND="celery",
        ASOK_TASK_MODULES=["celery_soak"],
        ASOK_CELERY={"broker_url": os.environ["SOAK_REDIS"], "worker_hijack_root_logger": False},
    )
    FlaskAsok(app)

    @app.post("/tasks/<int:number>")
    def accept(number: int) -> tuple[str, int]:
        delay = float(request.args.get("delay", 0))
        task = background.using(delay=delay)(work, number, float(request.args.get("seconds", 0.005)))
        return task.id, 202

    return app


def free_port() -> int:
    """Return a port that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Bench:
    """The servers of one scenario, and what it has sent."""

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder)
        self.done = self.folder / "done"
        self.done.touch()
        self.redis_port, self.web_port = free_port(), free_port()
        self.environ = {
            **os.environ,
            "SOAK_REDIS": f"redis://127.0.0.1:{self.redis_port}/0",
            "SOAK_DONE": str(self.done),
        }
        (self.folder / "celery_soak.py").write_text(Path(__file__).read_text())
        self.environ["PYTHONPATH"] = os.pathsep.join([str(self.folder), str(ROOT)])
        self.client = redis_py.Redis(port=self.redis_port)
        self.accepted: dict[int, float] = {}
        self.refused = 0
        self.kills = 0
        self.redis = self.start_redis()
        self.web = self._start(
            ["-m", "gunicorn", "-w", "2", "-b", f"127.0.0.1:{self.web_port}", "celery_soak:create_app()"]
        )
        wait_until(lambda: self.answers(self.web_port))
        self.workers = [self.start_worker(), self.start_worker()]

    def answers(self, port: int) -> bool:
        """Is somebody listening?"""
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return True
        return False

    def start_redis(self) -> subprocess.Popen[bytes]:
        """Start the Redis, with its append-only file."""
        command = ["redis-server", "--port", str(self.redis_port), "--bind", "127.0.0.1", "--dir", str(self.folder)]
        process = subprocess.Popen([*command, "--appendonly", "yes", "--save", ""], stdout=subprocess.DEVNULL)
        wait_until(self.is_loaded)
        return process

    def is_loaded(self) -> bool:
        """Does the Redis answer?"""
        with contextlib.suppress(redis_py.RedisError):
            return bool(self.client.ping())
        return False

    def start_worker(self) -> subprocess.Popen[bytes]:
        """Start a worker of two processes."""
        return self._start(["-m", "flask", "--app", "celery_soak:create_app()", "asok", "worker", "-c", "2"])

    def _start(self, command: list[str]) -> subprocess.Popen[bytes]:
        log = open(self.folder / "log", "ab")  # noqa: SIM115 - it is the process's
        return subprocess.Popen(
            [sys.executable, *command],
            env=self.environ,
            cwd=self.folder,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )

    def send(self, numbers: range, *, pause: float = 0.0, delay: float = 0.0) -> None:
        """Send tasks, and note which were accepted, and when they are due."""
        for number in numbers:
            url = f"http://127.0.0.1:{self.web_port}/tasks/{number}?delay={delay}"
            try:
                with urllib.request.urlopen(urllib.request.Request(url, method="POST"), timeout=15) as answer:
                    if answer.status == 202:
                        self.accepted[number] = time.time() + delay
            except OSError:
                self.refused += 1
            time.sleep(pause)

    def replace(self, index: int) -> None:
        """Start a worker in the place of one that was killed."""
        self.workers[index] = self.start_worker()

    def ran(self) -> dict[int, list[float]]:
        """Return when each task began."""
        found: dict[int, list[float]] = {}
        for line in self.done.read_text().splitlines():
            number, at = line.split()
            found.setdefault(int(number), []).append(float(at))
        return found

    def close(self) -> None:
        """Kill everything."""
        self.redis.send_signal(signal.SIGCONT)
        self.redis.kill()
        self.redis.wait(20)
        for process in [*self.workers, self.web]:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait(20)


def wait_until(condition: Callable[[], object], seconds: float = 60.0) -> bool:
    """Look until `condition()` is true; False when it does not become so."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def group(bench: Bench, index: int, number: int) -> None:
    """Send a signal to a whole worker."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(bench.workers[index].pid, number)


def workers_killed(bench: Bench) -> None:
    """Kill whole workers with -9, thirty times."""
    for kill in range(30):
        time.sleep(random.uniform(0.5, 1.5))
        group(bench, kill % 2, signal.SIGKILL)
        bench.workers[kill % 2].wait(20)
        bench.kills += 1
        bench.replace(kill % 2)


def children_killed(bench: Bench) -> None:
    """Kill processes of the pools with -9, thirty times."""
    for _ in range(30):
        time.sleep(random.uniform(0.3, 0.8))
        main = random.choice(bench.workers).pid
        children = Path(f"/proc/{main}/task/{main}/children").read_text().split()
        if children:
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(random.choice(children)), signal.SIGKILL)
            bench.kills += 1


def rolling_restarts(bench: Bench) -> None:
    """Tell one worker after the other to stop, and start the next when it has."""
    for turn in range(6):
        time.sleep(2)
        bench.workers[turn % 2].send_signal(signal.SIGTERM)
        bench.workers[turn % 2].wait(60)
        bench.kills += 1
        bench.replace(turn % 2)


def docker_stop(bench: Bench) -> None:
    """SIGTERM, and ten seconds later SIGKILL, to workers that have long tasks."""
    for turn in range(3):
        number = 1_000_000 + turn
        url = f"http://127.0.0.1:{bench.web_port}/tasks/{number}?seconds=14"
        with urllib.request.urlopen(urllib.request.Request(url, method="POST"), timeout=10):
            bench.accepted[number] = time.time()
        time.sleep(2)
        bench.workers[turn % 2].send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            bench.workers[turn % 2].wait(10)
        group(bench, turn % 2, signal.SIGKILL)
        bench.workers[turn % 2].wait(20)
        bench.kills += 1
        bench.replace(turn % 2)


def redis_restarted(bench: Bench) -> None:
    """Stop and kill Redis while delayed tasks are held."""
    bench.send(range(2_000_000, 2_000_040), delay=8)
    for number in (signal.SIGTERM, signal.SIGKILL, signal.SIGKILL):
        time.sleep(4)
        bench.redis.send_signal(number)
        bench.redis.wait(20)
        time.sleep(2)
        bench.kills += 1
        bench.redis = bench.start_redis()


def redis_stalled(bench: Bench) -> None:
    """Let Redis stand still for 12 s."""
    time.sleep(3)
    bench.redis.send_signal(signal.SIGSTOP)
    time.sleep(12)
    bench.redis.send_signal(signal.SIGCONT)
    bench.kills += 1


def redis_full(bench: Bench) -> None:
    """Let the memory of Redis be full for 8 s."""
    time.sleep(3)
    bench.client.config_set("maxmemory", "1mb")
    time.sleep(8)
    bench.client.config_set("maxmemory", 0)
    bench.kills += 1


def redis_read_only(bench: Bench) -> None:
    """Let Redis be read-only for 6 s, as a master is after a failover."""
    time.sleep(3)
    bench.client.execute_command("REPLICAOF", "127.0.0.1", "1")
    time.sleep(6)
    bench.client.execute_command("REPLICAOF", "NO", "ONE")
    bench.kills += 1


SCENARIOS = {
    one.__name__: one
    for one in (
        workers_killed, children_killed, rolling_restarts, docker_stop, redis_restarted, redis_stalled, redis_full,
        redis_read_only,
    )
}  # fmt: skip


def run(name: str, tasks: int) -> list[str]:
    """Run one scenario and return its row."""
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(folder)
        try:
            wait_until(lambda: (bench.folder / "log").read_text(errors="replace").count(" ready.") >= 2)
            half = threading.Thread(target=bench.send, args=(range(0, tasks, 2),), kwargs={"pause": 0.01})
            other = threading.Thread(target=bench.send, args=(range(1, tasks, 2),), kwargs={"pause": 0.01})
            half.start()
            other.start()
            SCENARIOS[name](bench)
            quiet = time.time()
            half.join()
            other.join()
            quiet = max(quiet, time.time()) if name == "workers_killed" else quiet
            wait_until(lambda: len(bench.ran()) >= len(bench.accepted), 120)
            ran = bench.ran()
            lost = [number for number in bench.accepted if number not in ran]
            late = [min(ran[n]) - max(due, quiet) for n, due in bench.accepted.items() if n in ran]
            twice = sum(len(times) > 1 for times in ran.values())
            dead = sum(worker.poll() is not None for worker in bench.workers)
            if lost or dead or not ran:
                Path(f"/tmp/soak-{name}.log").write_bytes((bench.folder / "log").read_bytes())
            return [name, str(bench.kills), str(len(bench.accepted)), str(bench.refused), str(len(lost)),
                    str(twice), f"{max(late, default=0.0):.1f}", str(dead)]  # fmt: skip
        finally:
            bench.close()


def main() -> None:
    """Run the scenarios and print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("scenarios", nargs="*", default=list(SCENARIOS))
    parser.add_argument("--tasks", type=int, default=2_000)
    asked = parser.parse_args()
    print("| scenario | disturbances | accepted | refused | lost | begun twice | latest, s | workers dead |")
    print("|---|---|---|---|---|---|---|---|")
    for name in asked.scenarios:
        print(f"| {' | '.join(run(name, asked.tasks))} |", flush=True)


if __name__ == "__main__":
    main()
