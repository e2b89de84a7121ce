"""
Tear at Celery: gunicorn sends tasks, workers, brokers and Redis are killed meanwhile, and each accepted task must run.

`python benchmarks/celery_soak.py [SCENARIO ...] [--tasks N]` prints a table; without a scenario it runs all. It needs
redis-server, rabbitmq-server and gunicorn; every server is one of its own, on a free port. Method and caveats:
README.md in this folder.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import json
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

import kombu  # noqa: E402
import redis as redis_py  # noqa: E402
from flask import Flask, request  # noqa: E402

from flask_asok import FlaskAsok, background  # noqa: E402

SENDING_SECONDS = 40.0
"""How long the sending of all tasks takes, so that it goes on while things are killed."""

PROCESSES = "asok:soak:processes"

WORKER_PROCESSES = 4

BEHIND = 1_000
"""The tasks that are queued behind long ones, of which each process has one."""

LONGEST_TASK = 0.1
"""Seconds that the longest task takes; with 2,000 tasks some two of the four processes are busy."""


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
        ASOK_CELERY={
            "broker_url": os.environ["SOAK_BROKER"],
            "result_backend": os.environ["SOAK_RECORDS"] or None,
            "worker_hijack_root_logger": False,
        },
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

    def __init__(self, folder: str, *, on_rabbitmq: bool, has_records: bool) -> None:
        self.folder = Path(folder)
        self.done = self.folder / "done"
        self.done.touch()
        self.redis_port, self.web_port, self.rabbitmq_port = free_port(), free_port(), free_port()
        url = f"redis://127.0.0.1:{self.redis_port}/0"
        self.has_records = has_records
        self.environ = {
            **os.environ,
            "SOAK_RECORDS": url if has_records else "",
            "SOAK_BROKER": f"amqp://guest:guest@127.0.0.1:{self.rabbitmq_port}//" if on_rabbitmq else url,
            "SOAK_DONE": str(self.done),
        }
        (self.folder / "celery_soak.py").write_text(Path(__file__).read_text())
        self.environ["PYTHONPATH"] = os.pathsep.join([str(self.folder), str(ROOT)])
        self.client = redis_py.Redis(port=self.redis_port, decode_responses=True)
        self.accepted: dict[int, float] = {}
        self.number_of: dict[str, int] = {}
        """The number of each accepted task, by its id."""
        self.refused = 0
        self.kills = 0
        self.redis = self.start_redis() if has_records else None
        self.rabbitmq = self.start_rabbitmq() if on_rabbitmq else None
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

    def start_rabbitmq(self) -> subprocess.Popen[bytes]:
        """Start a RabbitMQ node that keeps all that it has in the folder of the scenario."""
        # Debian's wrapper becomes the user rabbitmq, who may not write there.
        inner = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")
        (self.folder / "rabbitmq.conf").write_text(f"listeners.tcp.default = 127.0.0.1:{self.rabbitmq_port}\n")
        environ = {
            **os.environ,
            "HOME": str(self.folder),
            "RABBITMQ_CONFIG_FILE": str(self.folder / "rabbitmq"),
            "RABBITMQ_CONF_ENV_FILE": str(self.folder / "rabbitmq-env.conf"),
            "RABBITMQ_NODENAME": f"soak{self.rabbitmq_port}@localhost",
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": str(self.rabbitmq_port),
            "RABBITMQ_DIST_PORT": str(free_port()),
            "RABBITMQ_MNESIA_BASE": str(self.folder),
            "RABBITMQ_LOG_BASE": str(self.folder),
            "RABBITMQ_PID_FILE": str(self.folder / "pid"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self.folder / "plugins"),
        }
        with open(self.folder / "rabbitmq.out", "ab") as log:
            process = subprocess.Popen(
                [str(inner) if inner.exists() else "rabbitmq-server"],
                env=environ, cwd=self.folder, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        wait_until(self.takes_messages)
        return process

    def takes_messages(self) -> bool:
        """Does the RabbitMQ answer? Its port is open long before it does."""
        with contextlib.suppress(Exception), kombu.Connection(self.environ["SOAK_BROKER"], connect_timeout=2) as it:
            it.connect()
            return True
        return False

    def has_workers(self) -> bool:
        """Do both workers look for lost tasks? They enter the store with their first look."""
        if not self.has_records:
            return self.waiting(consumers=True) >= 2
        about = [self.client.hget(f"asok:soak:process:{one}", "kind") for one in self.client.smembers(PROCESSES)]
        return about.count("worker") >= 2

    def waiting(self, *, consumers: bool = False) -> int:
        """Return how many messages wait in RabbitMQ, or how many workers take them; -1 without an answer."""
        with contextlib.suppress(Exception), kombu.Connection(self.environ["SOAK_BROKER"], connect_timeout=2) as it:
            found = it.default_channel.queue_declare("soak.default", passive=True)
            return int(found.consumer_count if consumers else found.message_count)
        return -1

    def is_over(self) -> bool:
        """Is no accepted task to run any more, as far as can be told?"""
        if not self.has_records:
            return self.waiting() == 0 and not self.accepted.keys() - self.ran().keys()
        # "None" is the state of a task without a record.
        return not self.states().keys() & {"queued", "waiting", "running"}

    def states(self) -> dict[str, int]:
        """Return how many of the accepted tasks are in which state."""
        with self.client.pipeline(transaction=False) as pipe:
            for id in list(self.number_of):
                pipe.hget(f"asok:soak:task:{id}", "state")
            return dict(collections.Counter(str(state) for state in pipe.execute()))

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
            self.send_one(number, f"delay={delay}&seconds={random.uniform(0, LONGEST_TASK)}", delay)
            time.sleep(pause)

    def send_one(self, number: int, query: str, delay: float = 0.0) -> None:
        """Send one task."""
        url = f"http://127.0.0.1:{self.web_port}/tasks/{number}?{query}"
        try:
            with urllib.request.urlopen(urllib.request.Request(url, method="POST"), timeout=15) as answer:
                id = answer.read().decode()
                self.number_of[id] = number
                self.accepted[number] = time.time() + delay
        except OSError:
            self.refused += 1

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
        if self.redis is not None:
            self.redis.send_signal(signal.SIGCONT)
            self.redis.kill()
            self.redis.wait(20)
        for process in [*self.workers, self.web, *([self.rabbitmq] if self.rabbitmq else [])]:
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
        bench.send_one(1_000_000 + turn, "seconds=14")
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


def rabbitmq_killed(bench: Bench) -> None:
    """Kill RabbitMQ, and start it again, while Redis has the records."""
    bench.send(range(2_000_000, 2_000_040), delay=8)
    for _ in range(3):
        time.sleep(4)
        assert bench.rabbitmq is not None
        os.killpg(bench.rabbitmq.pid, signal.SIGKILL)
        bench.rabbitmq.wait(20)
        bench.kills += 1
        bench.rabbitmq = bench.start_rabbitmq()


def backlog(bench: Bench) -> None:
    """Queue tasks behind one of 35 s in each process: each must be sent once."""
    queue_behind(bench)
    watch_backlog(bench, {})


def message_dropped(bench: Bench) -> None:
    """The same, and take two messages out of the broker by hand: an early one, and the last."""
    queue_behind(bench)
    dropped: dict[int, str] = {}
    for index in (-50, 0):
        text = bench.client.lindex("soak.default", index)
        assert text is not None
        assert bench.client.lrem("soak.default", 1, text) == 1
        bench.kills += 1
        id = json.loads(text)["headers"]["id"]
        dropped[bench.number_of[id]] = id
    watch_backlog(bench, dropped)


def queue_behind(bench: Bench) -> None:
    """Let a long task run in each process of the workers, and send many short ones."""
    number = 1_000_000
    while len(bench.ran()) < WORKER_PROCESSES:
        # A busy worker may have reserved the one before.
        begun = len(bench.ran())
        bench.send_one(number, "seconds=35")
        wait_until(lambda begun=begun: len(bench.ran()) > begun, 2)  # type: ignore[misc]
        number += 1
    # Over 20 s, so that there are tasks which were sent ten seconds later than others.
    started = time.monotonic()

    def send(first: int) -> None:
        for index in range(first, BEHIND, 4):
            time.sleep(max(0.0, started + index * 20 / BEHIND - time.monotonic()))
            bench.send_one(index, "seconds=0.05")

    senders = [threading.Thread(target=send, args=(first,)) for first in range(4)]
    for sender in senders:
        sender.start()
    for sender in senders:
        sender.join()


def watch_backlog(bench: Bench, dropped: dict[int, str]) -> None:
    """Print how many messages the broker had and got, and when it got the dropped ones again."""
    sent = "asok:soak:sent:default"
    first = {number: bench.client.zscore(sent, id) for number, id in dropped.items()}
    again: dict[int, float] = {}
    most, empty_at, is_over, deadline = 0, 0.0, False, time.monotonic() + 180
    while not is_over and time.monotonic() < deadline:
        # First, so that the rest is looked at once more when it is over.
        is_over = bench.is_over()
        waiting = bench.client.llen("soak.default")
        most = max(most, waiting + bench.client.hlen("asok:soak:unacked"))
        empty_at = empty_at or (0.0 if waiting else time.time())
        for number, id in dropped.items():
            if number not in again and bench.client.zscore(sent, id) != first[number]:
                again[number] = time.time()
        time.sleep(0.05)
    ran = bench.ran()
    for number, score in first.items():
        later = [min(ran[one]) for one, at in bench.accepted.items() if one in ran and at >= score + 10]
        allowed = max(score + 10, min([empty_at, *later]))
        print(f"message_dropped: sent again {again[number] - allowed:.2f} s after it was allowed", file=sys.stderr)
    calls = bench.client.info("commandstats")["cmdstat_lpush"]["calls"]
    print(
        f"at most {most} messages in the broker; {calls} sent, of {len(bench.accepted)} accepted tasks", file=sys.stderr
    )


SCENARIOS = {
    one.__name__: one
    for one in (
        workers_killed, children_killed, rolling_restarts, docker_stop, redis_restarted, redis_stalled, redis_full,
        redis_read_only, rabbitmq_killed, backlog, message_dropped,
    )
}  # fmt: skip
"""Each scenario by its name."""

ALONE = {f"alone_{one.__name__}": one for one in (workers_killed, children_killed, rolling_restarts, rabbitmq_killed)}
"""Those on RabbitMQ without a Redis: nothing keeps a record of a task."""


def run(name: str, tasks: int) -> list[str]:
    """Run one scenario and return its row."""
    with tempfile.TemporaryDirectory() as folder:
        if SCENARIOS.get(name) in (backlog, message_dropped):
            tasks = 0
        bench = Bench(folder, on_rabbitmq="rabbitmq" in name or name in ALONE, has_records=name not in ALONE)
        try:
            wait_until(bench.has_workers)
            pause = {"pause": SENDING_SECONDS * 2 / max(tasks, 1)}
            senders = [
                threading.Thread(target=bench.send, args=(range(first, tasks, 2),), kwargs=pause) for first in (0, 1)
            ]
            for sender in senders:
                sender.start()
            {**SCENARIOS, **ALONE}[name](bench)
            quiet = time.time()
            for sender in senders:
                sender.join()
            wait_until(bench.is_over, 120)
            states, ran = bench.states() if bench.has_records else {}, bench.ran()
            lost = [number for number in bench.accepted if number not in ran]
            late = [min(ran[n]) - max(due, quiet) for n, due in bench.accepted.items() if n in ran]
            twice = sum(len(times) > 1 for times in ran.values())
            dead = sum(worker.poll() is not None for worker in bench.workers)
            told = ", ".join(f"{count} {state}" for state, count in sorted(states.items())) or "not known"
            Path(f"/tmp/soak-{name}.log").write_bytes((bench.folder / "log").read_bytes())
            return [name, str(bench.kills), str(len(bench.accepted)), str(bench.refused), str(len(lost)),
                    str(twice), f"{max(late, default=0.0):.1f}", told, str(dead)]  # fmt: skip
        finally:
            bench.close()


def main() -> None:
    """Run the scenarios and print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("scenarios", nargs="*", default=[*SCENARIOS, *ALONE])
    parser.add_argument("--tasks", type=int, default=2_000)
    asked = parser.parse_args()
    print("| scenario | disturbances | accepted | refused | lost | begun twice | latest, s | ended | workers dead |")
    print("|---|---|---|---|---|---|---|---|---|")
    for name in asked.scenarios:
        print(f"| {' | '.join(run(name, asked.tasks))} |", flush=True)


if __name__ == "__main__":
    main()
