"""The application of these tests, and its tasks: importable by workers, as an application's are."""

import enum
import json
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

import opentelemetry.propagate
import opentelemetry.trace
from flask import Flask, g, request, url_for

from flask_asok import FlaskAsok, Retry, background, current_task, task


class Colour(enum.Enum):
    RED = "red"


@dataclass
class Order:
    number: int
    colour: Colour


class ShopClosed(Exception):
    """An error that a worker raises and the caller can catch."""


def create_app(name="jobs", **config):
    app = Flask(__name__)
    app.config["SECRET_KEY"] = "a key for tests"
    app.config["ASOK_BACKEND"] = "celery"
    app.config.update(json.loads(os.environ.get("JOBS_CONFIG", "{}")))
    app.config.update(config)
    # Two applications of one broker are told apart by their names.
    app.name = app.config.get("NAME", name)
    FlaskAsok(app)

    @app.get("/page")
    def page():
        return "page"

    @app.get("/later")
    def later():
        app.later = background.using(when="response")(add, 1)
        return "page"

    return app


def mark(path):
    """Append a line for each run to the file that a test looks at."""
    with open(path, "a") as file:
        file.write(f"{current_task().attempts}\n")


def add(a, b=0):
    return a + b


def echo(*args, **kwargs):
    return [*args, kwargs]


def see():
    return {
        "pid": os.getpid(),
        "user": g.get("user"),
        "kept": sorted(g),
        "url": url_for("page"),
        "id": current_task().id,
        "queue": current_task().queue,
    }


def use_request():
    return request.path


def close_shop(text):
    raise ShopClosed(text)


def raise_unnamed():
    class Unnamed(Exception):
        pass

    raise Unnamed("only here")


def leave():
    raise SystemExit(3)


def flaky(path, succeed_at):
    mark(path)
    if current_task().attempts < succeed_at:
        raise ConnectionError("not yet")
    return current_task().attempts


def ask_for_retry(path):
    mark(path)
    if current_task().attempts == 1:
        raise Retry(after=0.2) from ConnectionError("busy")
    return "done"


def add_all(depth):
    if not depth:
        return 1
    return sum(background(add_all, depth - 1).result(20) for _ in range(2))


def wait_for(path, gate):
    """Run until the file `gate` is there."""
    mark(path)
    deadline = time.monotonic() + 30
    while not Path(gate).exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    return "waited"


def kill_me(path):
    mark(path)
    os.kill(os.getpid(), signal.SIGKILL)


@task(at_most_once=True)
def wait_once(path, gate):
    return wait_for(path, gate)


def not_json():
    return object()


def run_forever(path):
    mark(path)
    while True:
        try:
            time.sleep(30)
        except Exception:
            mark(path)


def wait_for_child(ids, path, gate):
    """Wait for a task of its own, which runs in place while no other process is free."""
    child = background(wait_for, path, gate)
    with open(ids, "a") as file:
        file.write(f"{child.id}\n")
    child.join(30)


def trace_id():
    return opentelemetry.trace.get_current_span().get_span_context().trace_id


def wait_and_mark(path, gate):
    wait_for(path, gate)
    mark(path)
    return "marked"
