"""The application of these tests, and its tasks: importable by workers, as an application's are."""

import enum
import json
import logging
import os
import signal
import sys
import time
from dataclasses import InitVar, dataclass, field
from pathlib import Path

import opentelemetry.propagate
import opentelemetry.trace
from celery import Celery
from flask import Flask, current_app, g, has_request_context, request, url_for
from flask_sqlalchemy import SQLAlchemy

import flask_asok
from flask_asok import FlaskAsok, Retry, TaskTimeout, background, current_task, report_progress, task

database = SQLAlchemy()


class Purchase(database.Model):
    id = database.Column(database.Integer, primary_key=True)
    text = database.Column(database.Text)


class Colour(enum.Enum):
    RED = "red"


@dataclass
class Order:
    number: int
    colour: Colour


class Rights(enum.Flag):
    READ = enum.auto()
    WRITE = enum.auto()


@dataclass(frozen=True, slots=True)
class Price:
    """Its constructor takes what is no field, and changes what it is given."""

    amount: float
    currency: InitVar[str]
    text: str = field(init=False)

    def __post_init__(self, currency):
        object.__setattr__(self, "amount", self.amount * 100)
        object.__setattr__(self, "text", f"{self.amount} {currency}")


class Size(enum.StrEnum):
    LARGE = "l"


class Level(enum.IntEnum):
    HIGH = 3


class Access(enum.IntFlag):
    READ = 4


class Outer:
    class Inner(enum.Enum):
        FIRST = 1


@dataclass
class Shelf(dict):
    """A dataclass that holds more than its fields."""

    items_: dict


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
    if "OWN_CELERY" in app.config:
        app.extensions["celery"] = Celery(app.name, set_as_current=False)
        app.extensions["celery"].conf.update(app.config["OWN_CELERY"])
    if "SQLALCHEMY_DATABASE_URI" in app.config:
        database.init_app(app)
    if app.config["ASOK_BACKEND"] == "postgres":
        # As Celery's worker does it by itself.
        logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s %(message)s")
    if "SEEN" in app.config:
        # In a worker; the test itself has begun with its own.
        import seen

        if "spans" in app.config["SEEN"]:
            seen.watch_spans(app.config["SEEN"]["spans"], instrumented=app.config["SEEN"]["instrumented"])
        else:
            seen.watch_errors(app.config["SEEN"]["errors"])
    asok = app.extensions["asok_of_tests"] = FlaskAsok(app)
    app.register_blueprint(asok.status(), url_prefix="/status")

    @app.get("/page")
    def page():
        return "page"

    @app.post("/buy")
    def buy():
        purchase = Purchase(text="a book")
        database.session.add(purchase)
        database.session.flush()
        background(note_purchase, purchase.id, request.form["path"], request.form.get("gate"))
        # What else there is to do before the commit: long enough for a task that would not wait for that.
        database.session.execute(database.text("SELECT pg_sleep(0.05)"))
        database.session.commit()
        return "bought"

    @app.get("/later")
    def later():
        app.later = background.using(when="response")(add, 1)
        return "page"

    return app


def mark(path):
    """Append a line for each run to the file that a test looks at."""
    with open(path, "a") as file:
        file.write(f"{current_task().attempts}\n")


def mark_tick(path):
    """Append the tick that a periodic task runs for."""
    with open(path, "a") as file:
        file.write(f"{current_task().scheduled_at.isoformat()}\n")


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
        "request": has_request_context(),
    }


def multiply(text, number):
    return text * number


def fail_with(size):
    raise ValueError("x" * size)


def close_shop(text):
    raise ShopClosed(text)


def raise_unnamed():
    class Unnamed(Exception):
        pass

    raise Unnamed("only here")


def raise_mute():
    class Mute(Exception):
        def __str__(self):
            raise ZeroDivisionError

        __repr__ = __str__

    raise Mute


def endless():
    found = []
    found.append(found)
    return found


def factorial():
    return 2**20_000


def load_posts():
    return ["first", "second"]


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


def wait_for_late_child(**options):
    """Wait for a task that is not due yet, in what may be the only process there is."""
    return background.using(**options)(flaky, os.devnull, 1 + options.get("retries", 0)).result(20)


def add_all(depth):
    if not depth:
        return 1
    return sum(background(add_all, depth - 1).result(20) for _ in range(2))


def wait_for(path, gate):
    """Run until the file `gate` is there."""
    mark(path)
    return _wait(gate)


def wait_in_turn(path, gate):
    """Run until the file is there that is the gate of this run: `gate` and its number."""
    # Counted first: once it is marked, the process may be stopped for so long that the next run comes before.
    number = 1 + len(lines(Path(path)))
    mark(path)
    return _wait(f"{gate}{number}")


def _wait(gate):
    deadline = time.monotonic() + 30
    while not Path(gate).exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    return "waited"


def count_runs(path, number):
    """Write down the number of a task that runs."""
    with open(path, "a") as file:
        file.write(f"{number}\n")
    return number


def kill_me(path):
    mark(path)
    os.kill(os.getpid(), signal.SIGKILL)


@task(at_most_once=True)
def wait_once(path, gate):
    return wait_for(path, gate)


def wait_once_in_place(ids, path, gate):
    """Wait for a task that is to run at most once, and runs in place."""
    child = background(wait_once, path, gate)
    with open(ids, "a") as file:
        file.write(f"{child.id}\n")
    child.join(30)


def wait_by_id(id, timeout=None):
    """Wait for a task that another process has sent."""
    return current_app.extensions["asok_of_tests"].get(id).result(timeout)


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


def need(path, gate):
    """Fail without the file `path`; with it, run until the file `gate` is there."""
    if not Path(path).exists():
        raise ConnectionError("it is not there yet")
    return wait_for(path, gate)


def wait_and_mark(path, gate):
    wait_for(path, gate)
    mark(path)
    return "marked"


def tag_and_fail(path):
    """Fail with a tag and a span of its own; write down what the records would find."""
    import opentelemetry.trace
    import sentry_sdk

    sentry_sdk.set_tag("task_tag", "yes")
    with sentry_sdk.start_span(op="shop", name="own"):
        pass
    with opentelemetry.trace.get_tracer("shop").start_as_current_span("own"):
        pass
    mark(path)
    raise ShopClosed("now")


def read_purchase(id):
    """Return the text of a row that the caller has written; None where it is not there."""
    found = database.session.get(Purchase, id)
    return None if found is None else found.text


def note_purchase(id, path, gate=None):
    """Write down which row of the caller's there is; with a gate, once that is open."""
    text = read_purchase(id)
    database.session.rollback()
    if gate:
        wait_for(f"{path}.begun", gate)
    with open(path, "a") as file:
        file.write(f"{id}{'' if text == 'a book' else '-missing'}\n")


def lines(path):
    """Return what tasks have left in a file."""
    return path.read_text().split() if path.exists() else []


def follow(path):
    """From now on, write down the files of Flask-Asok that this thread of the worker enters, in their order."""
    entered = Path(path).open("a", buffering=1)  # noqa: SIM115 - as long as the worker lives
    package = f"{Path(flask_asok.__file__).parent}/"

    def note(frame, event, argument):
        if event == "call" and frame.f_code.co_filename.startswith(package):
            entered.write(frame.f_code.co_filename.removeprefix(package) + "\n")

    sys.setprofile(note)


def count(path, gate, steps):
    """Report steps until the file `gate` is there, and then the last one."""
    mark(path)
    report_progress(0, steps, "Counting")
    done, deadline = 0, time.monotonic() + 30
    while not Path(gate).exists() and time.monotonic() < deadline:
        done = min(done + 1, steps - 1)
        report_progress(done, steps, "Counting")
        time.sleep(0.01)
    report_progress(steps, steps, "Counted")
    return done


def count_and_fail(path, gate):
    """The first attempt counts and fails; the second one reports nothing until the gate is open."""
    if current_task().attempts == 1:
        report_progress(7, 10)
        raise ConnectionError("not yet")
    return wait_for(path, gate)


def cancel_me():
    """Ask this very task to stop."""
    asked = current_app.extensions["asok_of_tests"].cancel(current_task().id, running=True)
    report_progress(1)
    return asked


def catch_timeout(name):
    """Run into the time limit, and return which of the errors was caught."""
    from celery.exceptions import SoftTimeLimitExceeded

    errors = {"TaskTimeout": TaskTimeout, "SoftTimeLimitExceeded": SoftTimeLimitExceeded, "KeyError": KeyError}
    try:
        time.sleep(30)
    except errors[name]:
        return f"caught {name}"
