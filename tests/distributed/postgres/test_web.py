"""`ASOK_WORKER = "web"`: each process that serves runs tasks too, and nothing else does."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import urllib.parse
import urllib.request
from http.client import HTTPException
from pathlib import Path

import jobs
import pytest
from jobs import lines

from flask_asok import FlaskAsok, background

HERE = Path(jobs.__file__).parent


class Gunicorn:
    """gunicorn with a preloaded application, as a process group of its own."""

    def __init__(self, folder, port, config, processes, *options):
        self.url = f"http://127.0.0.1:{port}"
        self.log_path = folder / "gunicorn.log"
        path = os.pathsep.join(filter(None, [str(HERE), os.environ.get("PYTHONPATH")]))
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen(
                [
                    sys.executable, "-m", "gunicorn", "--preload", "--workers", str(processes), "--threads", "4",
                    "--graceful-timeout", "15", "--bind", f"127.0.0.1:{port}", *options, "jobs:create_app()",
                ],
                env={**os.environ, "PYTHONPATH": path, "JOBS_CONFIG": json.dumps(config)},
                stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip

    def buy(self, **form):
        data = urllib.parse.urlencode(form).encode()
        with urllib.request.urlopen(f"{self.url}/buy", data, timeout=20) as answer:
            return answer.read()

    def answers(self):
        with (
            contextlib.suppress(OSError, HTTPException),
            urllib.request.urlopen(f"{self.url}/page", timeout=5) as answer,
        ):
            return answer.status == 200
        return False

    def kill(self):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(10)


@pytest.fixture
def config(postgres, shop_database):
    return {
        "NAME": f"web{os.urandom(4).hex()}",
        "ASOK_BACKEND": "postgres",
        "ASOK_POSTGRES": {"dead_after": 3},
        "SQLALCHEMY_DATABASE_URI": postgres.url(shop_database, "postgresql+psycopg"),
        "ASOK_WORKER": "web",
    }


@pytest.fixture
def serve(tmp_path, config, free_port, wait_until):
    started = []

    def serve(processes=2, *options):
        server = Gunicorn(tmp_path, free_port, config, processes, *options)
        started.append(server)
        wait_until(server.answers, 30, "the start of gunicorn")
        return server

    yield serve
    for server in started:
        server.kill()


def test_each_once(serve, tmp_path, wait_until):
    """Of 500 orders, at several processes, each has its task run once, which never misses its order."""
    server = serve()
    paths = [tmp_path / f"bought{number}" for number in range(10)]

    def visit(path):
        for number in range(50):
            server.buy(path=path)
            # No task waits for long: it would start before the commit if it could.
            wait_until(lambda: len(lines(path)) > number, what="the task")  # noqa: B023

    visitors = [threading.Thread(target=visit, args=(path,)) for path in paths]
    for visitor in visitors:
        visitor.start()
    for visitor in visitors:
        visitor.join(100)

    bought = [line for path in paths for line in lines(path)]
    assert len(set(bought)) == len(bought) == 500
    assert not [line for line in bought if line.endswith("missing")]


def test_gevent(serve, tmp_path, wait_until):
    """Under gevent, where threads are greenlets, a process serves and runs tasks as well, and ends in order."""
    server, path = serve(1, "--worker-class", "gevent"), tmp_path / "bought"

    for _ in range(10):
        server.buy(path=path)
    wait_until(lambda: len(lines(path)) == 10, what="the tasks")
    server.process.terminate()

    assert server.process.wait(30) == 0
    assert not [line for line in lines(path) if line.endswith("missing")]


def test_killed(serve, tmp_path, wait_until):
    """The whole server is killed: started again, it goes on with what it ran."""
    server, path, gate = serve(1), tmp_path / "bought", tmp_path / "gate"
    server.buy(path=path, gate=gate)
    wait_until(lambda: lines(tmp_path / "bought.begun"), what="the task")
    server.kill()
    gate.touch()

    serve(1)

    wait_until(lambda: lines(path), 30, "the task")
    assert lines(tmp_path / "bought.begun") == ["1", "1"]


def test_told_to_end(serve, tmp_path, wait_until, postgres, shop_database, config):
    """A server that is told to end lets its task finish, and leaves no row behind."""
    server, path, gate = serve(1), tmp_path / "bought", tmp_path / "gate"
    server.buy(path=path, gate=gate)
    wait_until(lambda: lines(tmp_path / "bought.begun"), what="the task")

    server.process.terminate()
    threading.Timer(1.0, gate.touch).start()
    server.process.wait(30)

    left = postgres.execute(
        "SELECT id FROM procrastinate_jobs WHERE queue_name LIKE %s", [f"asok:{config['NAME']}:%"], shop_database
    )
    states = postgres.execute("SELECT state FROM asok_tasks WHERE app = %s", [config["NAME"]], shop_database)
    assert len(lines(path)) == 1
    assert (left, states) == ([], [("succeeded",)])


@pytest.mark.parametrize("how", ["command", "test", "import"])
def test_nothing_else(config, close, how):
    """A command, a test and an import run no task, and start no thread for it."""
    app = jobs.create_app(**config, TESTING=how == "test")
    asok = FlaskAsok()
    if how == "command":
        app.test_cli_runner().invoke(args=["asok", "tasks"])
    elif how == "test":
        app.test_client().get("/page")
        asok.start_worker(app)

    with app.app_context():
        task = background(jobs.add, 1)
        state = task.state

    assert state == "queued"
    assert not [thread for thread in threading.enumerate() if thread.name == "asok-engine"]
    close(app)


def test_started_by_hand(config, close):
    """`asok.start_worker(app)` begins before the first request, and twice is harmless."""
    app = jobs.create_app(**config)
    asok = FlaskAsok()

    asok.start_worker(app)
    asok.start_worker(app)

    with app.app_context():
        assert background(jobs.add, 1, b=2).result(20) == 3
        assert len(asok.processes()) == 1
    assert len([thread for thread in threading.enumerate() if thread.name == "asok-engine"]) == 1
    close(app)
    assert not [thread for thread in threading.enumerate() if thread.name == "asok-engine"]


def test_closed_while_it_starts(config, close):
    """A worker whose process ends while it starts does not begin to work, and holds up nothing."""
    for _ in range(5):
        app = jobs.create_app(**config)
        FlaskAsok().start_worker(app)
        close(app)

        assert not [thread for thread in threading.enumerate() if thread.name == "asok-engine"]
