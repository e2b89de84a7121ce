"""A backend of another package is chosen by its name, and keeps the promises."""

import json
import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent / "own_backend"

SHOP = """
import json, threading, time
from flask import Flask
from flask_asok import FlaskAsok, background, current_task

app = Flask("shop")
app.config.from_prefixed_env()
asok = FlaskAsok(app)
threads = set()

def add(a, b=0):
    threads.add(threading.current_thread().name)
    return a + b

def fail():
    raise ZeroDivisionError("on purpose")

def flaky():
    if current_task().attempts < 3:
        raise ConnectionError("not yet")
    return current_task().attempts

def add_all(depth):
    return 1 if not depth else sum(background(add_all, depth - 1).result(20) for _ in range(2))

def wait(gate):
    gate.wait(20)

times = []

def fail_once():
    times.append(time.monotonic())
    if len(times) == 1:
        raise ConnectionError("not yet")

def run_in_place():
    child = background.using(retries=1, backoff=0.3)(fail_once)
    child.join(0.01)
    return child

seen = {}
with app.app_context():
    seen["result"] = background(add, 1, b=2).result(20)
    seen["queue"] = background.using(queue="mail")(add, 1).result(20)
    seen["error"] = repr(background(fail).exception(20))
    seen["retries"] = background.using(retries=2, backoff=0.01)(flaky).result(20)
    seen["delay"] = background.using(delay=0.01)(add, 7).result(20)
    seen["nested"] = background(add_all, 3).result(20)

    background(run_in_place).result(20).join(20)
    seen["waited for its retry"] = times[1] - times[0] >= 0.3

    gate = threading.Event()
    running = background(wait, gate)
    late = background.using(delay=60)(add, 1)
    queued = background(add, 2)
    seen["alive"] = [running.is_alive(), late.state, queued.state]
    running.join(0)
    seen["cancel"] = [queued.cancel(), queued.state]
    gate.set()
    running.join(20)
asok.close(app, 20)
with app.app_context():
    seen["closed"] = [late.state, background(add, 1).state]
    seen["names"] = sorted({summary.name for summary in asok.tasks()})
seen["threads"] = sorted(threads)
print(json.dumps(seen))
"""


def install(folder):
    """
    Put the package into `folder` as pip does: the module, and a dist-info folder with its entry points.

    Without pip, which would have to download what builds it.
    """
    project = tomllib.loads((PACKAGE / "pyproject.toml").read_text())["project"]
    info = folder / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.4\nName: {project['name']}\nVersion: {project['version']}\n")
    lines = []
    for group, entries in project["entry-points"].items():
        lines += [f"[{group}]", *(f"{name} = {target}" for name, target in entries.items())]
    (info / "entry_points.txt").write_text("\n".join(lines))
    shutil.copy(PACKAGE / "one_thread.py", folder)


CLOSED_WITH_WEBHOOKS = """
import json, socket, threading
from flask import Flask
from flask_asok import FlaskAsok, background, send_webhook
from flask_asok.signals import webhook_failed

app = Flask("shop")
app.config.from_prefixed_env()
asok = FlaskAsok(app)
told = []

@webhook_failed.connect_via(app)
def tell(app, delivery, error):
    told.append(delivery.id)

silent = socket.create_server(("127.0.0.1", 0))
url = f"http://127.0.0.1:{silent.getsockname()[1]}/"
with app.app_context():
    running = background(send_webhook, url, {}, id="running", timeout=2)
    silent.accept()
    background(send_webhook, url, {}, id="queued")
    background(send_webhook, url, {}, id="queued-too")
    background.using(delay=60)(send_webhook, url, {}, id="delayed")
asok.close(app, 0.1)
running.join(20)
print(json.dumps(sorted(told)))
"""


PROMISES = """
import pytest
from flask import Flask
from flask_asok import FlaskAsok
from flask_asok.testing.promises import BackendPromises


class TestOneThread(BackendPromises):
    @pytest.fixture
    def make_app(self):
        def make_app(**config):
            app = Flask("shop")
            app.config.update(SECRET_KEY="a key", ASOK_BACKEND="one-thread", **config)
            FlaskAsok(app)
            return app

        return make_app
"""


@pytest.fixture
def run(tmp_path):
    """Run the shop where the package is installed, with ASOK_BACKEND from the environment."""
    install(tmp_path / "site")

    def run(backend, program=SHOP, *arguments, **config):
        path = os.pathsep.join(filter(None, [str(tmp_path / "site"), os.environ.get("PYTHONPATH")]))
        environ = {**os.environ, "PYTHONPATH": path, "FLASK_ASOK_BACKEND": backend, **config}
        return subprocess.run(
            [sys.executable, "-c", program, *arguments], env=environ, capture_output=True, text=True, timeout=110
        )

    return run


def test_own_backend(run):
    """Results, errors, retries, delays, cancelling, nested waiting and the end are as on the backends built in."""
    done = run("one-thread")

    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {
        "result": 3,
        "queue": 1,
        "error": "ZeroDivisionError('on purpose')",
        "retries": 3,
        "delay": 7,
        "nested": 8,
        "waited for its retry": True,
        "alive": [True, "waiting", "queued"],
        "cancel": [True, "cancelled"],
        "closed": ["abandoned", "abandoned"],
        "names": ["add", "add_all", "fail", "fail_once", "flaky", "run_in_place", "wait"],
        "threads": ["one-thread"],
    }
    assert "Background task fail failed: ZeroDivisionError('on purpose')" in done.stderr
    assert "abandoned while waiting: the application shuts down" in done.stderr


def test_promises(run, tmp_path):
    """The tests that ship with the package pass on it, run as its author would run them."""
    (tmp_path / "test_one_thread.py").write_text(PROMISES)
    program = "import sys, pytest; sys.exit(pytest.main(sys.argv[1:]))"

    done = run("one-thread", program, "-q", "-p", "no:cacheprovider", str(tmp_path / "test_one_thread.py"))

    assert done.returncode == 0, done.stdout
    assert " passed" in done.stdout
    assert "skipped" not in done.stdout


@pytest.mark.parametrize("backend", ["one-thread", "threads"])
def test_webhooks_that_are_left(run, backend):
    """What a backend that ends leaves of webhooks is told by `webhook_failed`: running, queued and delayed ones."""
    done = run(backend, CLOSED_WITH_WEBHOOKS, FLASK_ASOK_WEBHOOK_ALLOW='["127.0.0.1"]')

    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == ["delayed", "queued", "queued-too", "running"]


def test_unknown_backend(run):
    """A name that nothing registers is an error that lists those which are there."""
    done = run("two-threads")

    assert 'must be one of "threads", "immediate", "celery", "postgres", "one-thread".' in done.stderr
