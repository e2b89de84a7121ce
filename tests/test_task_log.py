"""What is logged and signalled about an attempt: in that attempt's own context, and with the fields of its task."""

import ast
import json
import logging
import logging.config
import threading
import time
from contextvars import ContextVar
from pathlib import Path

import pytest

import flask_asok
from flask_asok import FlaskAsok, Retry, background, current_task
from flask_asok.logs import TaskFilter, log
from flask_asok.signals import (
    task_abandoned,
    task_cancelled,
    task_failed,
    task_retried,
    task_started,
    task_succeeded,
)

WAIT = 10
PACKAGE = Path(flask_asok.__file__).parent

tenant = ContextVar("tenant", default="nobody")
"""As structlog, OpenTelemetry and Sentry keep what they know."""


def fail():
    raise ValueError("no stock")


class Heard(logging.Handler):
    """Notes each record with the tenant and the task that it is logged in."""

    def __init__(self):
        super().__init__()
        self.notes = []

    def emit(self, record):
        task = current_task()
        self.notes.append((record.levelname, tenant.get(), task and task.name, getattr(record, "task_id", None)))


@pytest.fixture
def heard():
    handler = Heard()
    logging.getLogger("asok").addHandler(handler)
    yield handler.notes
    logging.getLogger("asok").removeHandler(handler)


# The context


def test_records_in_the_attempts_context(app, heard):
    """What is logged about an attempt is logged in its context: the caller's variables, and the task itself."""
    with app.app_context():
        token = tenant.set("alice")
        task = background.using(retries=1, backoff=0)(fail)
        tenant.reset(token)
        task.join(WAIT)

    assert heard == [("WARNING", "alice", "fail", task.id), ("ERROR", "alice", "fail", task.id)]


def test_what_the_task_has_set(app, heard):
    """So are the variables that the task itself has set, up to its last attempt; nothing of them is left behind."""

    def work():
        tenant.set(f"attempt {current_task().attempts}")
        raise ValueError

    with app.app_context():
        background.using(retries=1, backoff=0)(work).join(WAIT)
        background(fail).join(WAIT)

    assert [where for _, where, *_ in heard] == ["attempt 1", "attempt 2", "nobody"]
    assert tenant.get() == "nobody"


def test_signals_in_the_attempts_context(app):
    """Receivers too see the task, and the variables of its attempt; but not its application context."""
    seen = []

    def note(sender, task, **rest):
        seen.append((tenant.get(), current_task() is task, bool(flask_asok.dispatch.app_ctx)))

    with app.app_context():
        tenant_before = tenant.set("alice")
        with task_started.connected_to(note), task_retried.connected_to(note), task_failed.connected_to(note):
            background.using(retries=1, backoff=0)(fail).join(WAIT)
        with task_succeeded.connected_to(note):
            background(int).join(WAIT)
        tenant.reset(tenant_before)

    assert seen == [("alice", True, False)] * 5


def test_abandoned_while_running(threads_app, heard, gate):
    """A task that a shutdown leaves behind while it runs is told of in its own context, though its thread has that."""
    began = threading.Event()
    heard_by_receiver = []

    def work():
        tenant.set("alice")
        began.set()
        gate.wait(WAIT)

    def receive(sender, task):
        heard_by_receiver.append(tenant.get())

    with threads_app.app_context(), task_abandoned.connected_to(receive):
        task = background(work)
        assert began.wait(WAIT)
        FlaskAsok().close(threads_app, 0)

    assert heard == [("ERROR", "alice", "work", task.id)]
    assert heard_by_receiver == ["alice"]


def test_past_its_timeout(threads_app, heard, gate):
    """So is one that runs past its timeout."""
    told = threading.Event()

    class Told(logging.Handler):
        def emit(self, record):
            told.set()

    handler = Told()
    logging.getLogger("asok").addHandler(handler)
    with threads_app.app_context():
        tenant_before = tenant.set("alice")
        task = background.using(timeout=0.01)(gate.wait, WAIT)
        tenant.reset(tenant_before)
        assert told.wait(WAIT)
        gate.set()
        task.join(WAIT)
    logging.getLogger("asok").removeHandler(handler)

    assert heard == [("WARNING", "alice", "wait", task.id)]


def test_run_in_place(threads_app):
    """A task that another one runs in its place has a context of its own, and leaves the other one's as it was."""
    threads_app.extensions["asok"].backend.queues["default"] = 1
    seen = []

    def inner():
        seen.append(tenant.get())
        tenant.set("inner")

    def outer():
        tenant.set("outer")
        task = background(inner)
        tenant.set("changed")
        task.join(WAIT)
        seen.append(tenant.get())
        seen.append(current_task().name)

    with threads_app.app_context():
        background(outer).join(WAIT)

    assert seen == ["outer", "changed", "outer"]


# The lines


def test_retry_is_one_line(app, caplog):
    """An attempt that is retried is one line, with the cause in it; the traceback comes with the last attempt."""
    caplog.set_level(logging.INFO, "asok")

    with app.app_context():
        background.using(retries=1, backoff=0)(fail).join(WAIT)

    assert [(record.levelname, record.exc_info is None) for record in caplog.records] == [
        ("WARNING", True),
        ("ERROR", False),
    ]


def test_name_on_one_line(threads_app, caplog):
    """A name with a line break forges no line of the log; the field has it as it is."""
    name = "a\x1b[31m\n2026-11-27 ERROR forged"
    with threads_app.app_context():
        background.using(name=name)(fail).join(WAIT)

    (record,) = [one for one in caplog.records if one.levelname == "ERROR"]

    assert record.getMessage().isprintable()
    assert record.task_name == name


def test_traceback_of_a_retry(app, caplog):
    """At DEBUG there is the traceback of the earlier attempts as well."""
    caplog.set_level(logging.DEBUG, "asok")

    with app.app_context():
        background.using(retries=1, backoff=0)(fail).join(WAIT)

    warning, debug, _ = caplog.records
    assert (debug.levelname, debug.getMessage()) == ("DEBUG", "Attempt 1 of background task fail failed here:")
    assert debug.exc_info[1].args == ("no stock",)
    assert (debug.task_id, debug.task_attempt) == (warning.task_id, 1)


def test_cause_of_a_retry(app, caplog):
    """What a Retry was raised for is in the line, also where nobody has written `from`."""

    def ask():
        try:
            fail()
        except ValueError:
            raise Retry(after=0.001)  # noqa: B904 - as many write it

    with app.app_context():
        background.using(retries=1)(ask).join(WAIT)

    assert caplog.messages[0] == (
        "Background task ask failed (attempt 1 of 2, next in 0.001 s): ValueError('no stock')"
    )


def test_cancelled(threads_app, caplog):
    """A task that is cancelled leaves a line at INFO that says why."""
    caplog.set_level(logging.INFO, "asok")

    with threads_app.app_context():
        task = background.using(delay=3600)(int)
        task.cancel()

    (record,) = caplog.records
    assert record.levelname == "INFO"
    assert record.getMessage() == f"Background task int ({task.id}) cancelled: cancel() was called."
    assert (record.task_id, record.task_name) == (task.id, "int")


# The fields


def test_queued_from_due_to_start(threads_app, caplog):
    """`task_queued_ms` is how late an attempt began: neither its delay nor the wait for a retry counts."""
    begun = []

    def work():
        begun.append(current_task().started_at)
        raise ValueError

    with threads_app.app_context():
        task = background.using(delay=0.5, retries=1, backoff=0.5)(work)
        task.join(WAIT)

    # On a busy machine an attempt may begin late; from the call, or the attempt before, on it would be 500 more.
    for record, earlier in zip(caplog.records, (task.enqueued_at, begun[0]), strict=True):
        assert 0 <= record.task_queued_ms <= (record.created - earlier.timestamp()) * 1000 - 499


def test_queued_behind_others(threads_app, caplog, gate):
    """What an attempt has waited for a thread does count."""
    threads_app.extensions["asok"].backend.queues["default"] = 1
    began = threading.Event()

    def occupy():
        began.set()
        gate.wait(WAIT)

    with threads_app.app_context():
        background(occupy)
        assert began.wait(WAIT)
        late = background(fail)
        assert not threading.Event().wait(0.05)
        gate.set()
        late.join(WAIT)

    (record,) = caplog.records
    assert record.task_queued_ms >= 50


def test_queued_after_the_response(threads_app, caplog):
    """A task for after the response is due when that was sent."""
    sent, left = [], []

    @threads_app.get("/")
    def view():
        sent.append(background.using(when="response")(fail))
        assert not threading.Event().wait(0.3)
        left.append(time.time())
        return ""

    with threads_app.test_client().get("/"):
        pass
    sent[0].join(WAIT)

    (record,) = caplog.records
    # From the call on it would be 300 more.
    assert record.task_queued_ms <= (record.created - left[0]) * 1000 + 1


# TaskFilter


def test_task_filter(app):
    """With the filter on a handler every record inside of a task has its id, name and attempt, as text and as JSON."""
    texts = []

    class Text(logging.Handler):
        def emit(self, record):
            texts.append(self.format(record))

    logging.config.dictConfig(
        {
            "version": 1,
            "disable_existing_loggers": False,
            "filters": {"task": {"()": "flask_asok.logs.TaskFilter"}},
            "formatters": {
                "json": {"format": '{"task": "%(task_id)s %(task_name)s %(task_attempt)s", "of": "%(name)s"}'}
            },
            "handlers": {"text": {"()": Text, "filters": ["task"], "formatter": "json"}},
            "loggers": {"shop": {"handlers": ["text"], "level": "INFO"}, "asok": {"handlers": ["text"]}},
        }
    )
    shop = logging.getLogger("shop")

    def work():
        shop.info("working")
        raise ValueError

    try:
        with app.app_context():
            shop.info("before")
            task = background.using(retries=1, backoff=0, name="order")(work)
            task.join(WAIT)
    finally:
        for name in ("shop", "asok"):
            logging.getLogger(name).handlers.clear()

    lines = [json.loads(text.splitlines()[0]) for text in texts]
    assert [(line["of"], line["task"]) for line in lines] == [
        ("shop", "None None None"),
        ("shop", f"{task.id} order 1"),
        ("asok.background", f"{task.id} order 1"),
        ("shop", f"{task.id} order 2"),
        ("asok.background", f"{task.id} order 2"),
    ]


def test_task_filter_keeps_the_fields_of_a_record(app, caplog):
    """A record about one task that is logged inside of another says which one it is about."""
    caplog.set_level(logging.INFO, "asok")
    caplog.handler.addFilter(TaskFilter())
    inner = []

    def work():
        inner.append(background.using(delay=3600)(int))
        inner[0].cancel()
        log(logging.WARNING, "hello")

    with app.app_context():
        outer = background(work)
        outer.join(WAIT)

    told = [record.task_id for record in caplog.records]
    assert told == [*([inner[0].id] if inner[0].state == "cancelled" else []), outer.id]


@pytest.mark.parametrize("fields", [{"task_id": 7}, {"task_id": "a", "task_name": "order"}], ids=["other", "short"])
def test_task_filter_gives_what_is_missing(app, fields):
    """A format names all three fields, though a record has a `task_id` of the application's, or no attempt."""
    handler = logging.Handler()
    handler.addFilter(TaskFilter())
    told = []
    handler.emit = lambda record: told.append(f"{record.task_id} {record.task_name} {record.task_attempt}")
    shop = logging.Logger("shop")
    shop.addHandler(handler)

    with app.app_context():
        background(shop.info, "done", extra=fields).join(WAIT)

    assert told == [f"{fields['task_id']} {fields.get('task_name')} None"]


# All of them


def calls_that_log(path):
    """Yield the message, and whether there are fields, of each call that logs."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("log", "log_exception"):
            texts = [part.value for part in node.args if isinstance(part, ast.Constant) and isinstance(part.value, str)]
            yield "".join(texts), any(keyword.arg == "extra" for keyword in node.keywords)


def test_every_record_about_a_task_has_its_fields():
    """No line of the package names a task without giving the record the task's fields."""
    calls = [
        (path.name, text, has_fields)
        for path in sorted(PACKAGE.rglob("*.py"))
        for text, has_fields in calls_that_log(path)
        if "ackground task %s" in text or "(%s)" in text
    ]

    assert len(calls) > 5
    # At the call, there is no task yet.
    without = {(name, text) for name, text, has_fields in calls if not has_fields}
    assert without <= {
        ("arguments.py", "Background task %s: %s"),
        ("intake.py", "Refused a message for background tasks: it is not of Flask-Asok (%s)."),
        (
            "checks.py",
            "The Redis of background tasks drops keys when its memory is full (%s). Set maxmemory-policy noeviction.",
        ),
        ("file.py", "The store %s was damaged (%s). It is kept as %s.damaged-%s."),
    }


def test_cancelled_signal_in_a_task_that_stops(app):
    """A task that is stopped while it runs is cancelled in its own context."""
    seen = []

    def note(sender, task):
        seen.append((tenant.get(), current_task() is task))

    def work():
        tenant.set("alice")
        current_task().stop()
        flask_asok.report_progress(1)

    with app.app_context(), task_cancelled.connected_to(note):
        background(work).join(WAIT)

    assert seen == [("alice", True)]
