"""Tasks that any process finds by their id: tracked and unique ones, handles on them, cancelling and stopping."""

import logging
import os
import threading
import time
import weakref
from datetime import UTC, datetime

import pytest
from flask import current_app, g

from flask_asok import (
    BackendUnavailable,
    FlaskAsok,
    NotConfigured,
    QueueFull,
    ResultNotKept,
    Task,
    TaskAbandoned,
    TaskCancelled,
    TaskFailed,
    background,
    current_task,
    report_progress,
    reporting,
    task,
    track,
)
from flask_asok.sharing import open_store
from flask_asok.store import away
from flask_asok.store.base import Record

WAIT = 10

asok = FlaskAsok()

tracked = background.using(tracked=True)


def add(a, b=0):
    return a + b


def fail(text):
    raise ZeroDivisionError(text)


class Odd:
    """What no message can hold."""


@pytest.fixture(params=["threads", "immediate"])
def app(make_app, tmp_path, request):
    return make_app(ASOK_BACKEND=request.param, ASOK_STORE=str(tmp_path / "asok.sqlite3"))


@pytest.fixture
def threads(make_app, tmp_path):
    """An application on threads, in its context."""
    app = make_app(ASOK_STORE=str(tmp_path / "asok.sqlite3"))
    with app.app_context():
        yield app


# Found by its id


def test_handle(app):
    """A handle tells of the task what the Task tells, result included."""
    with app.app_context():
        task = tracked(add, 1, b=2)
        task.join(WAIT)

        handle = asok.get(task.id)

        assert isinstance(handle, Task)
        assert isinstance(handle, threading.Thread)
        assert handle.result(WAIT) == 3
        assert handle.exception() is None
        assert (handle.id, handle.name, handle.queue) == (task.id, "add", "default")
        assert (handle.state, handle.attempts, handle.is_alive(), handle.error) == ("succeeded", 1, False, None)
        assert handle.started_at <= handle.finished_at
        assert handle.duration >= 0
        assert handle.as_dict()["state"] == "succeeded"
        assert repr(handle) == f"<Task add succeeded {task.id}>"


def test_error(app):
    """The error is raised as what it was, and its text is there; the traceback is not in what a page shows."""
    with app.app_context():
        task = tracked(fail, "on purpose")
        task.join(WAIT)
        handle = asok.get(task.id)

        with pytest.raises(ZeroDivisionError, match="on purpose"):
            handle.result(WAIT)
        assert isinstance(handle.exception(), ZeroDivisionError)
        assert handle.error == "ZeroDivisionError('on purpose')"
        assert "on purpose" not in str(handle.as_dict())
        assert "raise ZeroDivisionError(text)" in open_store(app).read(task.id).traceback


@pytest.mark.parametrize("value", [Odd, "x" * 70_000], ids=["no message", "too long"])
def test_result_that_is_not_kept(app, value):
    """A result that cannot be written, or is too long, says so; the task has succeeded all the same."""
    with app.app_context():
        task = tracked(lambda: value() if callable(value) else value)
        task.join(WAIT)
        handle = asok.get(task.id)

        with pytest.raises(ResultNotKept, match="at most 64 kB"):
            handle.result(WAIT)
        assert handle.exception() is None
        assert handle.state == "succeeded"


def test_no_secret_key(make_app, tmp_path):
    """Without a SECRET_KEY tasks are tracked, and their results are not kept."""
    app = make_app(ASOK_STORE=str(tmp_path / "asok.sqlite3"))
    app.secret_key = None
    with app.app_context():
        done, failed = tracked(add, 1), tracked(fail, "no")
        done.join(WAIT)
        failed.join(WAIT)

        with pytest.raises(ResultNotKept, match="SECRET_KEY"):
            asok.get(done.id).result(WAIT)
        assert isinstance(asok.get(failed.id).exception(WAIT), TaskFailed)


def test_forged_result(threads):
    """A result that somebody else has written is not believed."""
    done = tracked(add, 1)
    done.join(WAIT)
    other = tracked(add, 2)
    other.join(WAIT)
    store = open_store(threads)
    store._change("UPDATE task SET outcome = ? WHERE id = ?", (store.read(other.id).outcome, done.id))

    with pytest.raises(ResultNotKept, match="cannot be read"):
        asok.get(done.id).result(WAIT)


def test_error_under_another_key(threads):
    """An error that was signed with a key which is not valid any more is told by its text."""
    failed = tracked(fail, "on purpose")
    failed.join(WAIT)
    threads.secret_key = "another one"
    handle = asok.get(failed.id)

    found = handle.exception(WAIT)

    assert isinstance(found, TaskFailed)
    assert str(found) == "ZeroDivisionError('on purpose')"
    with pytest.raises(TaskFailed, match="on purpose"):
        handle.result(WAIT)


def test_known_at_once(threads, gate):
    """It is found from the moment background() has returned, with its state of that moment."""
    running = tracked(gate.wait, WAIT)
    late = background.using(tracked=True, delay=60)(add, 1)

    assert asok.get(running.id).is_alive()
    assert asok.get(late.id).state == "waiting"
    gate.set()
    asok.get(running.id).join(WAIT)
    assert asok.get(running.id).result(0) is True


def test_too_late(threads, gate):
    """A handle whose task goes on raises TimeoutError, and join returns."""
    handle = asok.get(tracked(gate.wait, WAIT).id)

    handle.join(0.01)

    assert handle.is_alive()
    with pytest.raises(TimeoutError, match=r"Task wait is (queued|running) after 0\.01 s"):
        handle.result(0.01)


def test_waiting_in_a_task_cannot_deadlock(make_app, tmp_path):
    """A task that joins a handle on one that is queued in its own process runs that one in its place."""
    app = make_app(ASOK_STORE=str(tmp_path / "asok.sqlite3"), ASOK_QUEUES={"default": 1})

    def outer():
        return asok.get(tracked(add, 20, 1).id).result(WAIT) * 2

    with app.app_context():
        assert tracked(outer).result(WAIT) == 42


def test_retries(app):
    """Attempts, and the error of the latest one, are written down as they are made."""
    seen = []

    def flaky():
        record = open_store(current_app).read(current_task().id)
        seen.append((record.state, record.attempts, record.error))
        if len(seen) < 3:
            raise ConnectionError(f"attempt {len(seen)}")

    with app.app_context():
        task = background.using(tracked=True, retries=2, backoff=0.01)(flaky)
        task.join(WAIT)

        handle = asok.get(task.id)

    assert seen == [
        ("running", 1, ""),
        ("running", 2, "ConnectionError('attempt 1')"),
        ("running", 3, "ConnectionError('attempt 2')"),
    ]
    with app.app_context():
        assert (handle.attempts, handle.state) == (3, "succeeded")


def test_untracked_in_this_process(threads):
    """Of an untracked task this process has the Task itself while it is held, and later on what is remembered."""
    held = background(add, 1)
    held.join(WAIT)
    id = held.id

    assert asok.get(id) is held
    gone = weakref.ref(held)
    del held
    # The thread that ran it may still be on its way out of it.
    deadline = time.monotonic() + WAIT
    while gone() is not None:
        assert time.monotonic() < deadline
        time.sleep(0)
    handle = asok.get(id)
    assert (handle.state, handle.attempts, handle.is_alive()) == ("succeeded", 1, False)
    assert handle.exception() is None
    handle.join(WAIT)
    with pytest.raises(ResultNotKept, match="tracked=True"):
        handle.result()
    assert asok.get("0" * 32) is None


def test_untracked_failure(threads):
    """Of a failed one that nobody holds the text is left."""
    id = background(fail, "no").id
    asok.get(id).join(WAIT)
    background(add, 1).join(WAIT)

    assert isinstance(asok.get(id).exception(WAIT), (TaskFailed, ZeroDivisionError))
    assert asok.get(id).error == "ZeroDivisionError('no')"


# What is stored


def test_origin(threads):
    """The record tells method and endpoint of the request, and nothing that may hold a secret."""

    @threads.post("/reset/<token>")
    def reset(token):
        return tracked(add, 1).id

    id = threads.test_client().post("/reset/s3cret?key=s3cret").text

    record = open_store(threads).read(id)
    assert record.origin == "POST reset"
    assert "s3cret" not in str(record)


def test_no_file_for_others(make_app, tmp_path):
    """A plain task makes no file, and neither does a look at the tasks."""
    app = make_app(ASOK_STORE=str(tmp_path / "folder" / "asok.sqlite3"))
    with app.app_context():
        background(add, 1).join(WAIT)
        asok.tasks()
        asok.get("0" * 32)
        asok.cancel("0" * 32)
        asok.queues()
        asok.processes()

        assert os.listdir(tmp_path) == []
        tracked(add, 1).join(WAIT)
        assert os.path.exists(tmp_path / "folder" / "asok.sqlite3")


def test_tracks_all(make_app, tmp_path):
    """ASOK_TRACKED tracks every task but those that say otherwise; a function's option beats the app's."""
    app = make_app(ASOK_STORE=str(tmp_path / "asok.sqlite3"), ASOK_TRACKED=True)

    @task(tracked=False)
    def quiet():
        pass

    with app.app_context():
        plain = background(add, 1)
        silent = background(quiet)
        loud = background.using(tracked=True)(quiet)
        for each in (plain, silent, loud):
            each.join(WAIT)

        store = open_store(app)
        assert [store.read(each.id) is None for each in (plain, silent, loud)] == [False, True, False]


def test_testing(make_app, tmp_path):
    """Under TESTING the store is this process's memory, and nothing is left."""
    app = make_app(TESTING=True)
    app.instance_path = str(tmp_path)
    with app.app_context():
        task = tracked(add, 1)

        assert asok.get(task.id).result(WAIT) == 1
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("path", ["/proc/shop/asok.sqlite3", "/dev/null/x"])
def test_no_place(make_app, path):
    """A path that cannot be written raises at the call and names the key; plain tasks go on."""
    app = make_app(ASOK_STORE=path)
    with app.app_context():
        with pytest.raises(NotConfigured, match="ASOK_STORE"):
            tracked(add, 1)
        assert background(add, 1).result(WAIT) == 1
        assert [summary.state for summary in asok.tasks()] == ["succeeded"]


def test_relative_path(make_app, tmp_path):
    """A relative path is taken from the instance folder."""
    app = make_app(ASOK_STORE="shared/tasks.sqlite3")
    app.instance_path = str(tmp_path)
    with app.app_context():
        tracked(add, 1).join(WAIT)

    assert os.path.exists(tmp_path / "shared" / "tasks.sqlite3")


def test_first_use_is_logged(make_app, tmp_path, caplog):
    """The log tells once where the store is."""
    app = make_app(ASOK_STORE=str(tmp_path / "asok.sqlite3"))
    with app.app_context(), caplog.at_level(logging.INFO):
        tracked(add, 1).join(WAIT)
        tracked(add, 1).join(WAIT)

    assert caplog.messages.count(f"The store of background tasks is {tmp_path}/asok.sqlite3.") == 1


def test_store_goes_away(threads, tmp_path, caplog, monkeypatch):
    """A task whose record cannot be written any more succeeds; the log tells."""
    # Whether or not another test had this process warn within the last minute.
    monkeypatch.setattr(away, "WARN_SECONDS", 0.0)
    entered, gate = threading.Event(), threading.Event()

    def work():
        entered.set()
        gate.wait(WAIT)
        report_progress(1, 2)
        return "done"

    running = tracked(work)
    assert entered.wait(WAIT)
    store = open_store(threads)
    store.path = "/proc/shop/asok.sqlite3"
    gate.set()

    assert running.result(WAIT) == "done"
    assert "its record could not be written" in caplog.text
    with pytest.raises((NotConfigured, BackendUnavailable)):
        background.using(unique="a")(add, 1)


# Progress


def test_end_that_the_store_did_not_take(threads, gate, monkeypatch):
    """A handle that waits without a limit says what is wrong where the task is over and the store was not told."""

    def settle(*_, **__):
        raise BackendUnavailable("The disk is full.")

    monkeypatch.setattr(open_store(threads), "settle", settle)
    task = tracked(gate.wait, WAIT)
    handle = asok.get(task.id)
    gate.set()

    with pytest.raises(TimeoutError, match=r"Task wait is \w+: the store could not be told of its end\.$"):
        handle.result()


def test_progress(threads, gate, monkeypatch):
    """A handle shows what the store has; the last progress is there when the task has ended."""
    # However long the first one takes, the second one is not due for a report.
    monkeypatch.setattr(reporting, "EVERY_SECONDS", 3600.0)
    first, go_on = threading.Event(), threading.Event()

    def work():
        for number in track(range(4)):
            if number == 1:
                first.set()
                go_on.wait(WAIT)

    running = tracked(work)
    assert first.wait(WAIT)
    before = asok.get(running.id).progress
    go_on.set()
    running.join(WAIT)

    assert (before.done, before.total) == (0, 4)
    assert asok.get(running.id).progress.fraction == 1.0
    assert asok.get(running.id).as_dict()["progress"]["done"] == 4


# Lists


@pytest.mark.parametrize("backend", ["threads", "immediate"])
def test_due_and_not_begun(make_app, tmp_path, backend):
    """A task whose delay is over, and which no thread has had time for, is queued in every list."""
    app = make_app(ASOK_BACKEND=backend, ASOK_STORE=str(tmp_path / "asok.sqlite3"))
    with app.app_context():
        store = open_store(app)
        times = {"due": time.time() - 1, "later": time.time() + 3_600}
        for number, (name, due) in enumerate(times.items()):
            waits = {"state": "waiting", "enqueued": 1.0 + number, "due": due, "owner": store.me}
            store.add(Record(id=f"{number:032}", name=name, queue="default", **waits))

        listed = {state: [task.name for task in asok.tasks(state=state)] for state in (None, "queued", "waiting")}

    assert listed == {None: ["due", "later"], "queued": ["due"], "waiting": ["later"]}


def test_lists(threads):
    """The newest tasks come, the oldest of them first, of this process and of the store, each once."""
    plain = background(add, 1)
    plain.join(WAIT)
    stored = background.using(tracked=True, queue="mail", name="letter")(add, 2)
    stored.join(WAIT)
    now = datetime.now(UTC).timestamp()
    other = Record(id="f" * 32, name="elsewhere", queue="mail", state="failed", finished=now, enqueued=now, due=now)
    open_store(threads).add(other)

    assert [summary.id for summary in asok.tasks()] == [plain.id, stored.id, other.id]
    assert [summary.id for summary in asok.tasks(limit=1)] == [other.id]
    assert [summary.id for summary in asok.tasks(queue="mail")] == [stored.id, other.id]
    assert [summary.id for summary in asok.tasks(state="failed")] == [other.id]
    assert [summary.id for summary in asok.tasks(name="letter")] == [stored.id]
    assert asok.tasks(limit=0) == []


def test_queues_and_processes(threads, gate):
    """The queues tell how much there is of tracked tasks, and the processes which ones serve: from a request on."""
    entered = threading.Event()

    def work():
        entered.set()
        gate.wait(WAIT)

    tracked(work)
    background.using(tracked=True, delay=60, queue="mail")(add, 1)
    assert entered.wait(WAIT)

    queues = {queue.name: queue for queue in asok.queues()}
    before = asok.processes()
    threads.test_client().get("/")
    (process,) = asok.processes()

    assert (queues["default"].running, queues["mail"].waiting, queues["cache"].queued) == (1, 1, 0)
    assert before == []
    assert (process.pid, process.kind) == (os.getpid(), "web")


# Cancelling


def test_cancel_by_id(threads):
    """A task that waits is cancelled by its id, or by a handle, and never runs."""
    ran = []
    first, second = (background.using(tracked=True, delay=60)(ran.append, 1) for _ in range(2))

    assert asok.cancel(first.id)
    assert asok.get(second.id).cancel()

    for each in (first, second):
        assert (each.state, asok.get(each.id).state) == ("cancelled", "cancelled")
        with pytest.raises(TaskCancelled):
            asok.get(each.id).result(WAIT)
    assert not asok.cancel(first.id)
    assert not asok.cancel("0" * 32)


def test_cancelled_elsewhere(threads, occupy, gate, caplog):
    """A task that another process has cancelled is not run by this one, which says so."""
    threads.extensions["asok"].backend.queues["default"] = 1
    ran = []
    occupy()
    late = tracked(ran.append, 1)
    with caplog.at_level(logging.INFO):
        assert open_store(threads).cancel(late.id)
        gate.set()

        late.join(WAIT)

    assert (late.state, ran) == ("cancelled", [])
    assert f"Background task append ({late.id}) cancelled: another process cancelled it." in caplog.messages


def test_stop(threads):
    """A running task that was asked to stop is cancelled at its next step; without `running=True` it goes on."""
    entered, go_on = threading.Event(), threading.Event()

    def work():
        entered.set()
        go_on.wait(WAIT)
        for _ in track(range(10)):
            pass

    running = tracked(work)
    assert entered.wait(WAIT)

    refused, asked = asok.cancel(running.id), asok.cancel(running.id, running=True)
    go_on.set()
    running.join(WAIT)

    assert (refused, asked) == (False, True)
    assert asok.get(running.id).state == "cancelled"
    assert not asok.cancel(running.id, running=True)


def test_stopped_elsewhere(threads):
    """A task that another process asks to stop hears of it with its next report to the store."""
    entered, go_on = threading.Event(), threading.Event()

    def work():
        entered.set()
        go_on.wait(WAIT)
        report_progress(1)

    running = tracked(work)
    assert entered.wait(WAIT)
    assert open_store(threads).stop(running.id)
    go_on.set()
    running.join(WAIT)

    assert running.state == "cancelled"


def test_abandoned(make_app, tmp_path):
    """What a shutdown abandons is abandoned for every process."""
    app = make_app(ASOK_STORE=str(tmp_path / "asok.sqlite3"))
    with app.app_context():
        late = background.using(tracked=True, delay=60)(add, 1)
    asok.close(app, 1)
    other = make_app(ASOK_STORE=str(tmp_path / "asok.sqlite3"))

    with other.app_context():
        handle = asok.get(late.id)
        assert handle.state == "abandoned"
        with pytest.raises(TaskAbandoned):
            handle.result(WAIT)


@pytest.mark.parametrize("state", ["queued", "running"])
def test_cancel_what_is_lost(threads, state):
    """What was lost with its process is abandoned: nobody can cancel it or ask it to stop any more."""
    store = open_store(threads)
    store.add(Record(id="1" * 32, name="lost", queue="default", state=state, owner="0" * 32, claim=1))

    assert asok.cancel("1" * 32, running=True) is False
    assert asok.get("1" * 32).state == "abandoned"


# Unique


def test_unique(threads, gate):
    """While a task with a key lives, a call gets that one; its own arguments are dropped."""
    first = background.using(unique="export")(gate.wait, WAIT)

    second = background.using(unique="export", delay=60)(gate.wait, 0.01)

    assert second.id == first.id
    gate.set()
    assert second.result(WAIT) is True
    assert background.using(unique="export")(gate.wait, WAIT).id != first.id
    assert len(asok.tasks()) == 2


def test_key_belongs_to_a_function(threads, gate):
    """Two functions with one key do not meet."""
    first = background.using(unique="1", delay=60)(add, 1)
    second = background.using(unique="1", delay=60)(fail, "no")

    assert first.id != second.id


def test_unique_until_start(threads):
    """With unique_until="start" the key is free once the first attempt begins, and a retry does not take it again."""
    entered, go_on = threading.Event(), threading.Event()

    @task(unique_until="start")
    def work():
        entered.set()
        go_on.wait(WAIT)

    first = background.using(unique="a")(work)
    assert entered.wait(WAIT)
    second = background.using(unique="a", delay=60)(work)
    third = background.using(unique="a", delay=60)(work)
    go_on.set()

    assert first.id != second.id
    assert second.id == third.id


@pytest.mark.parametrize("end", ["cancel", "fail"])
def test_key_is_free(threads, end):
    """The key of a task that was cancelled, or has failed, is free."""
    first = background.using(unique="a", delay=60 if end == "cancel" else 0)(fail, "no")
    first.cancel() if end == "cancel" else first.join(WAIT)

    assert background.using(unique="a", delay=60)(fail, "no").id != first.id


def test_key_of_a_deferred_task(threads, caplog):
    """A call that waits for the response takes its key when it is released; if it is taken then, it is cancelled."""
    calls = []

    @threads.get("/")
    def index():
        calls.append(background.using(unique="a", when="response")(add, 1))
        calls.append(background.using(unique="a", when="response", delay=60)(add, 2))
        return ""

    with caplog.at_level(logging.INFO):
        threads.test_client().get("/").close()
        calls[0].join(WAIT)

    calls[1].join(WAIT)
    assert calls[0].id != calls[1].id
    states = sorted(each.state for each in calls)
    assert states in (["cancelled", "succeeded"], ["succeeded", "waiting"])


def test_refused_by_a_full_queue(make_app, tmp_path, gate):
    """A task that a full queue refuses frees its key, and is not left as if it were queued."""
    app = make_app(
        ASOK_STORE=str(tmp_path / "asok.sqlite3"),
        ASOK_QUEUES={"default": 1},
        ASOK_MAX_QUEUED=1,
        ASOK_QUEUE_FULL="raise",
    )
    with app.app_context():
        entered = threading.Event()
        background(lambda: (entered.set(), gate.wait(WAIT)))
        assert entered.wait(WAIT)
        queued = background(add, 1)

        with pytest.raises(QueueFull):
            background.using(unique="a")(add, 1)
        assert [summary.state for summary in asok.tasks(name="add")][-1] == "cancelled"
        gate.set()
        queued.join(WAIT)
        assert background.using(unique="a")(add, 5).result(WAIT) == 5


@pytest.mark.parametrize("key", ["", "x" * 201])
def test_bad_key(key):
    """A key has from 1 to 200 characters."""
    with pytest.raises(ValueError, match="from 1 to 200 characters"):
        background.using(unique=key)


def test_context_as_ever(threads):
    """A tracked task sees what any other task sees."""

    def look():
        return g.user

    g.user = 7
    assert tracked(look).result(WAIT) == 7
