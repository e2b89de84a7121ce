"""
Durable tasks on real servers whose processes are killed: what was answered with 202 ran, however they end.

`python benchmarks/durable_soak.py [--runs 10] [killed] [restarted] [rolling] [deployed] [stopped]` prints a table.
Method: README.md in this folder.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import http.client
import itertools
import json
import os
import random
import signal
import socket
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from flask import Flask

from flask_asok import FlaskAsok, background, current_task

TASKS = 2_000
CLIENTS = 4
PER_SECOND = 120
"""How many calls the clients make: a run takes long enough for many kills."""
WORKERS = 3
SECONDS = 120
"""How long what is left may take at the end."""

DELAY = 30.0
BACKOFF = (12.0, 18.0)
"""What tasks wait for while the site is deployed twice."""
DEPLOYS = (8.0, 22.0)
LATE = 4.0
"""How much later than due a task may begin: the sweeper's look, and on this machine the start of gunicorn."""
STOPPED = 60.0
"""How long a process is stopped."""

asok = FlaskAsok()


def write_row(folder: str, number: int, seconds: float) -> None:
    """Write a row, work for a while, and write another one."""
    task = current_task()
    note(folder, "began", number, task.id)
    time.sleep(seconds)
    note(folder, "ended", number, task.id)


def fail_twice(folder: str, number: int) -> None:
    """Note each attempt, and fail all but the third."""
    task = current_task()
    note(folder, f"attempt{task.attempts}", number, task.id)
    if task.attempts < 3:
        raise ConnectionError("not yet")


def note(folder: str, event: str, number: int, id: str) -> None:
    """Append a row in one write, which is there whole or not at all, and costs the task next to nothing."""
    rows = os.open(os.path.join(folder, "rows"), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.write(rows, f"{event} {number} {id} {time.time()}\n".encode())
    os.close(rows)


def rows_of(folder: str) -> list[tuple[str, int, str, float]]:
    """Return what ran: event, number, id and time of each row."""
    rows = (line.split() for line in Path(folder, "rows").read_text().splitlines())
    return [(event, int(number), id, float(at)) for event, number, id, at in rows]


def create_app() -> Flask:
    """Make the application that gunicorn serves."""
    folder = os.environ["SOAK"]
    app = Flask(__name__)
    app.config.update(SECRET_KEY="a secret of the soak", ASOK_STORE=os.path.join(folder, "asok.sqlite3"))
    asok.init_app(app)
    seconds = float(os.environ["SOAK_SECONDS"])

    @app.post("/add/<int:number>")
    def add(number: int):
        task = background.using(durable=True)(write_row, folder, number, seconds)
        return {"id": task.id}, 202

    @app.post("/later/<int:number>")
    def later(number: int):
        task = background.using(durable=True, delay=DELAY)(write_row, folder, number, seconds)
        return {"id": task.id}, 202

    @app.post("/again/<int:number>")
    def again(number: int):
        task = background.using(durable=True, retries=2, backoff=BACKOFF)(fail_twice, folder, number)
        return {"id": task.id}, 202

    return app


def post_worker_init(worker) -> None:
    """Sweep at once, as docs/deployment.md has it for gunicorn: a site may be quiet after a restart."""
    asok.start_worker(worker.wsgi)
    print(f"UP {time.time():.2f}", flush=True)


class Site:
    """gunicorn and its workers, which can be killed and started again at the same port."""

    def __init__(self, folder: str, seconds: float) -> None:
        self.folder = folder
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.env = {
            **os.environ,
            "SOAK": folder,
            "SOAK_SECONDS": str(seconds),
            "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]),
        }
        self.open()

    def open(self) -> None:
        self.log = open(os.path.join(self.folder, "log"), "a")  # noqa: SIM115 - as long as the site
        self.start()

    def start(self) -> None:
        self.server = subprocess.Popen(
            [
                sys.executable, "-m", "gunicorn", "--worker-class=gthread", "--threads=4", f"--workers={WORKERS}",
                f"--timeout={STOPPED * 2:.0f}",
                f"--bind=127.0.0.1:{self.port}", "--no-control-socket", "--config=python:durable_soak",
                "durable_soak:create_app()",
            ],
            env=self.env, stdout=self.log, stderr=self.log, start_new_session=True,
        )  # fmt: skip

    def workers(self) -> list[int]:
        """Return the process ids of the workers."""
        try:
            children = Path(f"/proc/{self.server.pid}/task/{self.server.pid}/children").read_text().split()
        except OSError:
            return []
        return [int(child) for child in children]

    def kill(self) -> list[int]:
        """Kill all, and return the workers."""
        workers = self.workers()
        os.killpg(self.server.pid, signal.SIGKILL)
        self.server.wait()
        return workers

    def close(self) -> None:
        self.server.terminate()
        self.server.wait(60)
        self.log.close()

    def asked(self, statement: str, *values: object) -> list[tuple]:
        """Look into the store, from a process that has it open in no other way."""
        store = sqlite3.connect(f"file:{self.folder}/asok.sqlite3?mode=ro", uri=True, timeout=60)
        try:
            return store.execute(statement, values).fetchall()
        except sqlite3.OperationalError:
            return []
        finally:
            store.close()


@dataclass
class Kill:
    """One end of processes, and the tasks that they have left."""

    at: float
    pids: list[int]
    left: set[str]


@dataclass
class Found:
    """What a run has shown."""

    answered: dict[int, str] = field(default_factory=dict)
    refused: int = 0
    kills: list[Kill] = field(default_factory=list)
    lost: list[int] = field(default_factory=list)
    doubles: int = 0
    unexplained: list[str] = field(default_factory=list)
    back: list[float] = field(default_factory=list)


def ask(site: Site, numbers: itertools.count[int], found: Found, began: float) -> None:
    """Make calls until enough were answered. What is not answered counts for nothing."""
    while len(found.answered) < TASKS:
        number = next(numbers)
        time.sleep(max(0.0, began + number / PER_SECOND - time.monotonic()))
        ask_once(site, f"/add/{number}", number, found)


def ask_once(site: Site, path: str, number: int, found: Found) -> None:
    """Make one call, and keep its answer."""
    connection = http.client.HTTPConnection("127.0.0.1", site.port, timeout=30)
    try:
        connection.request("POST", path)
        answer = connection.getresponse()
        body = answer.read()
    except (OSError, http.client.HTTPException):
        found.refused += 1
        time.sleep(0.05)
        return
    finally:
        connection.close()
    if answer.status == 202:
        found.answered[number] = json.loads(body)["id"]
    else:
        found.unexplained.append(f"{answer.status} {body!r}")


def left_by(site: Site, pids: list[int]) -> set[str]:
    """Return the tasks that were queued or ran in processes that are gone."""
    marks = ", ".join("?" * len(pids))
    owners = f"SELECT token FROM process WHERE pid IN ({marks})"
    return {id for (id,) in site.asked(f"SELECT id FROM task WHERE finished = 0 AND owner IN ({owners})", *pids)}


def kill_a_worker(site: Site, found: Found) -> None:
    """`kill -9` of one worker; gunicorn starts another."""
    workers = site.workers()
    if len(workers) < 2:
        return
    pid = random.choice(workers)
    os.kill(pid, signal.SIGKILL)
    at = time.time()
    found.kills.append(Kill(at, [pid], left_by(site, [pid])))


def restart(site: Site, found: Found) -> None:
    """`kill -9` of everything, and a new start."""
    pids = site.kill()
    left = left_by(site, pids)
    site.start()
    found.kills.append(Kill(time.time(), pids, left))


def roll(site: Site, found: Found) -> None:
    """SIGHUP: gunicorn starts new workers and sends the old ones SIGTERM."""
    pids = site.workers()
    site.server.send_signal(signal.SIGHUP)
    found.kills.append(Kill(time.time(), pids, set()))


@dataclass
class Way:
    """A way in which processes end: how, how often, and how long each task takes."""

    end: object
    every: float
    seconds: float


WAYS = {
    "killed": Way(kill_a_worker, 1.0, 0.05),
    "restarted": Way(restart, 4.0, 0.05),
    "rolling": Way(roll, 4.0, 0.2),
}
"""The ways in which processes end under traffic; two more are below."""


def one_run(way: Way, folder: str) -> Found:
    """Enqueue over HTTP while processes end; then wait until everything has run, and look."""
    site, found, numbers = Site(folder, way.seconds), Found(), itertools.count()
    began = time.monotonic()
    clients = [threading.Thread(target=ask, args=(site, numbers, found, began)) for _ in range(CLIENTS)]
    for client in clients:
        client.start()
    while any(client.is_alive() for client in clients):
        time.sleep(way.every)
        if len(found.answered) > TASKS // 50:
            way.end(site, found)
    for client in clients:
        client.join()
    wait_for_the_end(site)
    judge(site, found)
    site.close()
    return found


def wait_for_the_end(site: Site) -> None:
    for _ in range(SECONDS * 10):
        if not site.asked("SELECT 1 FROM task WHERE finished = 0 LIMIT 1"):
            break
        time.sleep(0.1)


def deployed(folder: str) -> Found:
    """Two deploys while tasks wait for a delay and for their retries: right time, right attempts, same id."""
    site, found = Site(folder, 0.05), Found()
    wait_until_it_answers(site)
    called = {}
    for number in range(40):
        called[number] = time.time()
        ask_once(site, f"/later/{number}" if number % 2 else f"/again/{number}", number, found)
    began = time.time()
    for after in DEPLOYS:
        time.sleep(max(0.0, began + after - time.time()))
        pids = site.workers()
        site.close()
        site.open()
        found.kills.append(Kill(time.time(), pids, set()))
    wait_for_the_end(site)
    rows = rows_of(folder)
    for number, id in found.answered.items():
        of_task = [(event, at) for event, n, i, at in rows if (n, i) == (number, id)]
        expected, waits = (
            (["began", "ended"], [DELAY]) if number % 2 else (["attempt1", "attempt2", "attempt3"], [0.0, *BACKOFF])
        )
        if [event for event, _ in of_task] != expected:
            found.lost.append(number)
            continue
        before = called[number]
        for (event, at), wait in zip(of_task, waits, strict=False):
            late = at - before - wait
            found.back.append(late)
            if not -0.01 <= late <= LATE:
                found.unexplained.append(f"{event} of {number} began {late:.2f} s after it was due")
            before = at
    attempts = dict(site.asked("SELECT id, attempts FROM task WHERE state = 'succeeded'"))
    wrong = [n for n, id in found.answered.items() if attempts.get(id) != (1 if n % 2 else 3)]
    found.unexplained += [f"{number} has other attempts" for number in wrong]
    site.close()
    return found


def stopped(folder: str) -> Found:
    """SIGSTOP of a worker for a minute: nothing is taken from it, and it goes on."""
    site, found = Site(folder, 0.5), Found()
    wait_until_it_answers(site)
    for number in range(150):
        ask_once(site, f"/add/{number}", number, found)
    pid = random.choice(site.workers())
    os.kill(pid, signal.SIGSTOP)
    found.kills.append(Kill(time.time(), [pid], set()))
    left = left_by(site, [pid])
    time.sleep(STOPPED)
    taken = left - left_by(site, [pid])
    found.unexplained += [f"{id} was taken from a process that was stopped" for id in taken]
    os.kill(pid, signal.SIGCONT)
    wait_for_the_end(site)
    judge(site, found)
    found.kills[0].left = left
    site.close()
    return found


def wait_until_it_answers(site: Site) -> None:
    for _ in range(300):
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", site.port), timeout=1):
            if len(site.workers()) == WORKERS:
                return
        time.sleep(0.1)
    raise AssertionError("gunicorn does not answer.")


SOAKS = {
    **{name: functools.partial(one_run, way) for name, way in WAYS.items()},
    "deployed": deployed,
    "stopped": stopped,
}


def judge(site: Site, found: Found) -> None:
    """Compare what was answered with what ran."""
    ran = sorted(rows_of(site.folder), key=lambda row: row[3])
    ended = {number for event, number, *_ in ran if event == "ended"}
    found.lost = sorted(set(found.answered) - ended)
    records = {id: (state, deaths) for id, state, deaths in site.asked("SELECT id, state, deaths FROM task")}
    begun = Counter(id for event, _, id, _ in ran if event == "began")
    for id, count in begun.items():
        state, deaths = records.get(id, ("gone", 0))
        if state != "succeeded":
            found.unexplained.append(f"{id} is {state}")
        if count > 1:
            found.doubles += 1
            # Each further run is one whose process was killed while it ran: the store has counted those.
            if count > deaths + 1:
                found.unexplained.append(f"{id} began {count} times, {deaths} processes ended while they ran it")
    began_at = [(at, id) for event, _, id, at in ran if event == "began"]
    for kill in found.kills:
        first: dict[str, float] = {}
        for at, id in began_at:
            if at > kill.at and id in kill.left:
                first.setdefault(id, at - kill.at)
        found.back.extend(first.values())


def main() -> int:
    """Print the table; 1 if a task was lost, or ran twice without its process being killed."""
    parser = argparse.ArgumentParser(description="Durable tasks on servers whose processes are killed.")
    parser.add_argument("ways", nargs="*", choices=[*SOAKS, []], metavar=", ".join(SOAKS))
    parser.add_argument("--runs", type=int, default=1)
    options = parser.parse_args()
    print(f"{TASKS} tasks answered with 202, {WORKERS} workers of gunicorn, load {os.getloadavg()[0]:.1f}.")
    print(f"{'way':10} {'run':>3} {'answered':>8} {'refused':>7} {'ends':>4} {'left':>5} {'lost':>4} {'doubles':>7} "
          f"{'unexplained':>11}  back after, s: p50, p95, last")  # fmt: skip
    failed = False
    for name in options.ways or SOAKS:
        for run in range(1, options.runs + 1):
            with tempfile.TemporaryDirectory(prefix="asok-soak-") as folder:
                found = SOAKS[name](folder)
                if found.lost or found.unexplained:
                    failed = True
                    print(found.lost[:5], found.unexplained[:5], Path(folder, "log").read_text()[-800:])
            back = sorted(found.back)
            figures = "-"
            if back:
                figures = f"{statistics.median(back):.2f}  {back[int(len(back) * 0.95)]:.2f}  {back[-1]:.2f}"
            left, odd = sum(len(kill.left) for kill in found.kills), len(found.unexplained)
            print(f"{name:10} {run:3} {len(found.answered):8} {found.refused:7} {len(found.kills):4} {left:5} "
                  f"{len(found.lost):4} {found.doubles:7} {odd:11}  {figures}", flush=True)  # fmt: skip
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
