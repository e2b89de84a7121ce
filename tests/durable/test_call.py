"""The call of a durable task: written down before `background()` returns, and made as another process would make it."""

import contextvars
import dataclasses
import json
import logging
import sqlite3
import threading
from contextlib import nullcontext
from datetime import date
from pathlib import Path

import durable_jobs as jobs
import pytest
from flask import current_app, g, url_for
from flask.globals import app_ctx

from flask_asok import BackendUnavailable, FlaskAsok, NotConfigured, ResultNotKept, background, task
from flask_asok.errors import MessageRefused
from flask_asok.messages.message import Message
from flask_asok.options import DEFAULT
from flask_asok.owed import owed_by
from flask_asok.packing import Packer
from flask_asok.record_writer import traceback_of
from flask_asok.results import packer_of
from flask_asok.sharing import open_store
from flask_asok.state import state_of

WAIT = 10

asok = FlaskAsok()

durable = background.using(durable=True)

variable = contextvars.ContextVar("variable")


def record(app, id):
    return open_store(app).read(id)


@pytest.fixture(params=["threads", "immediate"])
def either(make_durable, request):
    """An application on each backend in turn, in its context."""
    app = make_durable(ASOK_BACKEND=request.param)
    with app.app_context():
        yield app


@pytest.fixture
def threads(app):
    with app.app_context():
        yield app


# Written down


def test_it_is_written_down(threads):
    """The signed call is in the store when `background()` returns, until the task has succeeded."""
    waiting = durable.using(delay=3600)(jobs.note, "later")
    done = durable(jobs.note, "now")
    done.join(WAIT)

    assert record(threads, waiting.id).message.startswith("{")
    assert record(threads, waiting.id).state == "waiting"
    assert record(threads, done.id).state == "succeeded"
    assert record(threads, done.id).message is None
    assert waiting.cancel()
    assert record(threads, waiting.id).message is None


def test_every_field_is_written_down():
    """A message is read as it was written, whatever it says; what it does not say is left out."""
    said = Message(
        v=2, id="a1", fn="jobs:note", args=["x", 1.5], kwargs={"to": [1]}, g={"user": 7}, url=["a", "/", "", "https"],
        trace={"traceparent": "00-1"}, name="note", queue="mail", options={"retries": 3}, once=True, timeout=2.0,
        attempt=2, enqueued=1.25, due=2.5, scheduled=3.0, keep=True, unique_until="start", recorded=True,
        unknown={"later": [None]},
    )  # fmt: skip
    short = Message(id="a1", fn="jobs:note", name="note", queue="mail")

    assert Message.from_payload(json.loads(said.as_text())) == said
    assert Message.from_payload(json.loads(short.as_text())) == short
    assert len(said.as_text()) > 4 * len(short.as_text())


@pytest.mark.parametrize("is_in_request", [False, True])
@pytest.mark.parametrize(
    ("args", "kwargs", "is_plain"),
    [
        ((), {}, True),
        ((1, -2.5, 1e300, float("inf"), True, None, 'a "quoted" text, \u00e9 \U0001f600 \ud800'), {}, True),
        ((1,), {"to": "ada", "copies": 2}, True),
        (tuple(range(20)), {}, True),
        ((["a list"],), {}, False),
        ((1,), {"at": date(2026, 11, 27)}, False),
        ((2**1024,), {}, False),
    ],
    ids=["nothing", "values", "keywords", "many", "a list", "a date", "too long a number"],
)
def test_the_short_way(threads, is_in_request, args, kwargs, is_plain):
    """The message of a call that passes numbers and texts is written in a short way, and is the same."""
    packer = packer_of(threads)
    with threads.test_request_context("/", base_url="https://example.com/shop") if is_in_request else nullcontext():
        context = app_ctx._get_current_object()
        made = state_of(threads).backend.create(
            jobs.note, args, kwargs, DEFAULT.replace(durable=True, queue="mail"), context
        )
        try:
            text = packer.plain_text_of(made.call, made.options, made.summary)
            if is_plain:
                assert text == packer.text_of(packer.message_of(made.call, made.options, made.summary))
            else:
                assert text is None
        finally:
            made.withdraw(None)


@pytest.mark.parametrize("options", [{"retries": 3}, {"timeout": 5}, {"backoff": 2}, {"retry_on": OSError}], ids=str)
def test_not_in_the_short_way(threads, options):
    """What a call says besides is in its message."""
    waiting = durable.using(delay=3600, **options)(jobs.note, "x")

    assert json.loads(record(threads, waiting.id).message.rpartition(".")[0])["options"].keys() == options.keys()


@pytest.mark.parametrize(
    ("fn", "options", "names", "field", "value"),
    [
        (jobs.note_once, {}, {}, "once", True),
        (jobs.note, {"tracked": True}, {}, "keep", True),
        (jobs.note, {"unique": "a", "unique_until": "start"}, {}, "unique_until", "start"),
        (jobs.note, {}, {"user": 7}, "g", {"user": 7}),
    ],
    ids=["once", "kept", "key", "g"],
)
def test_what_else_a_call_says(threads, fn, options, names, field, value):
    """Nor is it lost that a task runs once, that its result is kept, when its key is free, or what `g` has."""
    for name, given in names.items():
        setattr(g, name, given)
    waiting = durable.using(delay=3600, **options)(fn, "x")

    assert json.loads(record(threads, waiting.id).message.rpartition(".")[0])[field] == value


def test_a_tick_is_not_in_the_short_way(threads):
    """Nor the tick that a run of a periodic task is for."""
    options = dataclasses.replace(DEFAULT, durable=True, scheduled=1_000.0)
    made = state_of(threads).backend.create(jobs.note, (1,), {}, options, app_ctx._get_current_object())

    assert packer_of(threads).plain_text_of(made.call, made.options, made.summary) is None
    made.withdraw(None)


def test_the_store_is_closed_once_and_last(app, monkeypatch):
    """What is owed to the store is written when the application closes, also where durable calls came later."""
    with app.app_context():
        store, owed = open_store(app), owed_by(app)
        durable(jobs.note, "x").join(WAIT)
    closed = []
    for one in (store, owed):
        monkeypatch.setattr(one, "close", lambda one=one, close=one.close: (closed.append(one), close()))

    asok.close(app)

    assert closed == [owed, store]


def test_a_rotated_key_signs(threads):
    """A call is signed with the key that the application has then, though the process has signed with another one."""
    first = durable.using(delay=3600)(jobs.note, "x")
    threads.config.update(SECRET_KEY="another", SECRET_KEY_FALLBACKS=[threads.secret_key])
    second = durable.using(delay=3600)(jobs.note, "x")

    packer = Packer(threads, state_of(threads).config)
    assert packer.read(record(threads, first.id).message).id == first.id
    threads.config["SECRET_KEY_FALLBACKS"].clear()
    assert packer.read(record(threads, second.id).message).id == second.id
    with pytest.raises(MessageRefused):
        packer.read(record(threads, first.id).message)


@pytest.mark.parametrize("fallbacks", [{"old"}, ("old",), frozenset({b"old"}), [], None])
def test_older_keys_in_any_collection(threads, fallbacks):
    """The older keys may be in a list, a tuple or a set, as for Flask's sessions."""
    threads.config["SECRET_KEY_FALLBACKS"] = fallbacks

    assert durable(jobs.add, 1, 2).result(WAIT) == 3


@pytest.mark.parametrize("fallbacks", ["old", b"old", [None], [""], 5])
def test_older_keys_that_are_none(threads, fallbacks):
    """A str in the place of the list, each letter of which would be a key, and an empty key sign and verify nothing."""
    threads.config["SECRET_KEY_FALLBACKS"] = fallbacks

    with pytest.raises(NotConfigured, match="SECRET_KEY_FALLBACKS must be a list of keys"):
        durable(jobs.add, 1, 2)


def test_a_failed_task_keeps_its_call(either):
    """So it can be retried."""
    failed = durable(jobs.fail, "no")
    failed.join(WAIT)

    assert failed.state == "failed"
    assert record(either, failed.id).message


def test_any_process_finds_it(either):
    """A durable task has a record, hence a handle; its result is kept if it is tracked as well."""
    plain, tracked = durable(jobs.add, 1, 2), durable.using(tracked=True)(jobs.add, 3, 4)
    plain.join(WAIT)
    tracked.join(WAIT)

    assert asok.get(tracked.id).result(WAIT) == 7
    assert asok.get(plain.id).state == "succeeded"
    with pytest.raises(ResultNotKept, match="the task has no tracked=True"):
        asok.get(plain.id).result(WAIT)


def test_untracked_where_all_are_tracked(make_durable):
    """`tracked=False` at the call keeps no result of a durable task, though ASOK_TRACKED is on."""
    with make_durable(ASOK_TRACKED=True).app_context():
        plain, tracked = durable.using(tracked=False)(jobs.add, 1, 2), durable(jobs.add, 3, 4)
        plain.join(WAIT)
        tracked.join(WAIT)

        assert asok.get(tracked.id).result(WAIT) == 7
        with pytest.raises(ResultNotKept, match="the task has no tracked=True"):
            asok.get(plain.id).result(WAIT)


@pytest.mark.parametrize(
    ("app_wide", "function", "call", "is_written"),
    [
        (True, None, None, True),
        (True, False, None, False),
        (True, False, True, True),
        (True, True, False, False),
        (False, None, None, False),
        (False, True, None, True),
    ],
)
def test_call_beats_function_beats_app(make_durable, app_wide, function, call, is_written):
    """`durable` of the call counts, else that of the function, else ASOK_DURABLE."""
    app = make_durable(ASOK_DURABLE=app_wide)
    fn = task(durable=function)(jobs.plain_copy())

    with app.app_context():
        started = (background if call is None else background.using(durable=call)).using(delay=3600)(fn)

        assert (record(app, started.id) is not None) == is_written


def test_off_touches_no_store(app, tmp_path):
    """A plain call makes no file."""
    with app.app_context():
        background(jobs.add, 1, 2).join(WAIT)

    assert not Path(tmp_path / "asok.sqlite3").exists()


# Refused at the call


@pytest.mark.parametrize(
    ("fn", "args", "error", "text"),
    [
        (lambda: None, (), TypeError, "cannot be imported by that name"),
        (jobs.add, (1, object()), TypeError, "Argument 2 of add is an object, which cannot travel"),
        (jobs.add, (1, "x" * 9_000_000), ValueError, "ASOK_MESSAGE_MAX_BYTES"),
        (logging.getLogger, (), TypeError, "ASOK_TASK_MODULES"),
    ],
)
def test_what_cannot_be_written_down(either, fn, args, error, text):
    """It is an error at the call, which names what is wrong; nothing is left."""
    with pytest.raises(error, match=text):
        durable(fn, *args)

    assert asok.tasks() == []


class User:
    """A name that begins with a vowel, and not with its sound."""


class Upload:
    """A name that begins with both."""


@pytest.mark.parametrize(("value", "kind"), [(User(), "a User"), (Upload(), "an Upload")])
def test_refused_argument_is_named(either, value, kind):
    """The error says in English what the argument is."""
    with pytest.raises(TypeError, match=f"Argument 1 of add is {kind}, which cannot travel"):
        durable(jobs.add, value, 2)


def test_without_secret_key(make_durable):
    """Messages are signed."""
    app = make_durable()
    app.secret_key = None

    with app.app_context(), pytest.raises(NotConfigured, match="SECRET_KEY"):
        durable(jobs.add, 1, 2)


def test_store_is_away(threads, tmp_path):
    """What cannot be written down is not accepted."""
    durable(jobs.add, 1, 2).join(WAIT)
    blocker = sqlite3.connect(open_store(threads).path)
    blocker.execute("DROP TABLE task")
    blocker.close()

    with pytest.raises(BackendUnavailable):
        durable(jobs.add, 1, 2)
    assert [found.state for found in threads.extensions["asok"].backend.tasks()] == ["succeeded"]


# What it sees


def test_arguments_are_those_of_the_message(either):
    """What the caller changes afterwards, or an attempt changes, no attempt sees."""
    items, g.user = ["a"], "ann"
    waiting = durable.using(retries=1, backoff=0)(jobs.change, items)
    items.append("b")
    waiting.join(WAIT)

    assert waiting.state == "succeeded", waiting.exception()
    assert jobs.noted(current_app.config["ROWS"]) == ["['a', 'ann']"] * 2


@pytest.mark.parametrize(
    "value",
    [
        1,
        -(2**70),
        True,
        None,
        0.5,
        -1e300,
        float("inf"),
        'a "b"\n\u2028é\ud800',
        [],
        [1, "b", [None]],
        list(range(20)),
        {"a": [1]},
    ],
    ids=lambda value: type(value).__name__,
)
def test_each_value_arrives(threads, value):
    """A task gets what its caller has passed, whichever way its message is written."""
    task = durable.using(name='a "name"')(jobs.fail_whatever_it_gets, value)
    task.join(WAIT)

    message = packer_of(threads).read_for(task.id, record(threads, task.id).message)
    assert (message.name, message.url) == ('a "name"', None)
    assert packer_of(threads).unpack(message)[0][1] == (value,)


def test_half_a_character_in_an_error():
    """What a file may be named, SQLite refuses: the traceback of an error with such a name is kept all the same."""
    traceback = traceback_of(ValueError("photo\udce9.jpg"))

    assert traceback.encode().endswith(b"ValueError: photo\\udce9.jpg\n")


def test_g_holds_the_plain_values(either):
    """Of `g` a durable task sees on its first run what it would see in another process."""
    g.user, g.settings = "ann", {"theme": "dark"}

    assert durable.using(tracked=True)(jobs.names_of_g).result(WAIT) == ["user"]


def test_links(threads):
    """Links are those of the caller's request."""
    threads.add_url_rule("/page", "page", lambda: "")
    with threads.test_request_context(base_url="https://shop.example/en"):
        g.here = url_for("page", _external=True)
        found = durable.using(tracked=True)(jobs.link, "page").result(WAIT)

    assert found == "https://shop.example/en/page"


def test_context_variables_of_the_caller(threads):
    """In its own process a task has them."""
    variable.set("mine")
    jobs.seen.clear()

    durable(jobs.see, f"{variable.name}").join(WAIT)

    assert jobs.seen == ["mine"]


# Deferred


def test_deferred_is_written_down_when_it_is_released(threads):
    """Until the response it is only tracked."""
    with threads.test_client() as client:
        ids, states = [], []

        @threads.get("/")
        def view():
            ids.append(durable.using(when="response", delay=3600)(jobs.note, "later").id)
            states.append(record(threads, ids[0]).message)
            return "done"

        client.get("/").close()

    assert states == [None]
    assert record(threads, ids[0]).message
    assert record(threads, ids[0]).due > 1


def test_deferred_runs_though_it_cannot_be_written_down(threads, caplog):
    """Nobody can be told any more: it runs on this process's threads all the same."""
    with threads.test_client() as client:

        @threads.get("/")
        def view():
            durable.using(when="response")(jobs.note, "ran")
            blocker = sqlite3.connect(open_store(threads).path)
            blocker.execute("DROP TABLE task")
            blocker.close()
            return "done"

        client.get("/").close()
    asok.close(threads, WAIT)

    assert jobs.noted(threads.config["ROWS"]) == ["ran"]
    assert "could not be written down, so it ends with this process" in caplog.text


# The key


def test_keys_that_differ(app, make_durable, caplog):
    """Two processes with different keys: the second one says so, once."""
    other = make_durable()
    other.secret_key = "another one of the tests"
    with app.app_context():
        durable(jobs.add, 1, 2).join(WAIT)
    assert "another SECRET_KEY" not in caplog.text

    with other.app_context():
        durable(jobs.add, 1, 2).join(WAIT)
        durable(jobs.add, 1, 2).join(WAIT)

    assert caplog.text.count("This process has another SECRET_KEY") == 1
    assert "tests" not in caplog.text.split("another SECRET_KEY")[1]


def test_a_key_that_has_changed(app, make_durable, caplog):
    """After a deploy with a new key the first process that serves says so; the ones after it find their own."""
    first, second = make_durable(), make_durable()
    first.secret_key = second.secret_key = "another one of the tests"

    for each in (app, first, second):
        each.test_client().get("/")
        with each.app_context():
            durable(jobs.add, 1, 2).join(WAIT)

    assert caplog.text.count("This process has another SECRET_KEY") == 1


def test_a_key_that_is_rotated(app, make_durable, caplog):
    """A process with the old key among its fallbacks is no stranger, nor is one that has the new one alone."""
    newer, newest = make_durable(), make_durable()
    newer.secret_key = newest.secret_key = "the next one"
    newer.config["SECRET_KEY_FALLBACKS"] = [app.secret_key]

    for each in (app, newer, newest):
        with each.app_context():
            durable(jobs.add, 1, 2).join(WAIT)

    assert "SECRET_KEY" not in caplog.text


# A store that is away when a task ends


def rename(app, old, new):
    """Let the store be away, and back."""
    rows = sqlite3.connect(open_store(app).path, timeout=30)
    rows.execute(f"ALTER TABLE {old} RENAME TO {new}")
    rows.close()


@pytest.mark.parametrize("options", [{"durable": True}, {"tracked": True}])
def test_end_that_could_not_be_written(threads, tmp_path, rows, options):
    """Of a task that ends while the store is away the end is written when that is back, and its key is free."""
    gate = tmp_path / "gate"
    ended = background.using(unique="one", **options)(jobs.wait_for, str(gate))
    while jobs.noted(rows) != ["waits"]:
        ended.join(0.01)
    rename(threads, "task", "away")
    gate.touch()
    ended.result(WAIT)

    rename(threads, "away", "task")

    for _ in range(3000):
        if record(threads, ended.id).state != "running":
            break
        threading.Event().wait(0.01)
    assert record(threads, ended.id).state == "succeeded"
    assert background.using(unique="one", delay=3600, **options)(jobs.wait_for, str(gate)).id != ended.id


def test_end_that_could_not_be_written_before_the_close(threads, tmp_path, rows):
    """The process that ends tries once more."""
    gate = tmp_path / "gate"
    ended = durable(jobs.wait_for, str(gate))
    while jobs.noted(rows) != ["waits"]:
        ended.join(0.01)
    rename(threads, "task", "away")
    gate.touch()
    ended.result(WAIT)
    rename(threads, "away", "task")

    asok.close(threads, WAIT)

    assert record(threads, ended.id).state == "succeeded"
