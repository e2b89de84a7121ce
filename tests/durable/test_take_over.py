"""What a process has left, another one takes over: at least once, under the same id."""

import logging
import sqlite3
import threading
import time

import durable_jobs as jobs
import pytest
from flask import g

from flask_asok import BackendUnavailable, FlaskAsok, background
from flask_asok.durable import sweeper
from flask_asok.durable.sweeper import sweeper_of
from flask_asok.messages.signer import Signer
from flask_asok.owed import owed_by
from flask_asok.sharing import open_store
from flask_asok.signals import task_abandoned
from flask_asok.store import file

WAIT = 10

asok = FlaskAsok()

durable = background.using(durable=True)


def read(app, id):
    return open_store(app).read(id)


# Taken over


def test_what_waits_goes_on(app, next_app, sweep, rows):
    """A task whose process ended while it waited runs when it is due, with the same id, and not before."""
    with app.app_context():
        left = durable.using(delay=60, retries=2)(jobs.note, "later")
    asok.close(app, 5)
    sweep()
    early = jobs.noted(rows)
    store = open_store(next_app)
    store.now = lambda: time.time() + 61

    sweep()

    assert early == []
    assert jobs.noted(rows) == ["later"]
    found = read(next_app, left.id)
    assert (found.state, found.attempts, found.deaths, found.owner) == ("succeeded", 1, 0, store.me)


def test_retry_that_waits_goes_on(app, next_app, sweep, rows):
    """The attempts that were made count, and the next one is the next one."""
    with app.app_context():
        left = durable.using(retries=2, backoff=3600)(jobs.fail_once, "no")
        while left.state != "waiting":
            left.join(0.01)
    asok.close(app, 5)
    open_store(next_app).now = lambda: time.time() + 3601

    sweep()

    assert jobs.noted(rows) == ["attempt 1", "attempt 2"]
    found = read(next_app, left.id)
    assert (found.state, found.attempts) == ("succeeded", 2)


def test_who_hands_over_hears_nothing(app, next_app, sweep, caplog):
    """In the process that ends, join returns, result says where the task is; no error, no signal, one line."""
    caplog.set_level(logging.INFO)
    heard = []
    with task_abandoned.connected_to(lambda *_, **__: heard.append("abandoned")):
        with app.app_context():
            left = [durable.using(delay=60)(jobs.add, 1, number) for number in range(3)]
        asok.close(app, 5)

    left[0].join(WAIT)
    with pytest.raises(Exception, match="goes on in another process"):
        left[0].result(WAIT)
    assert heard == []
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING] == []
    assert caplog.text.count("3 durable tasks are left to the next process.") == 1
    with next_app.app_context():
        assert asok.get(left[0].id).state == "waiting"


def test_running_past_the_drain_limit(app, next_app, sweep, rows, tmp_path):
    """A task that the shutdown does not wait for runs again; the attempt that was cut off counts neither way."""
    gate = tmp_path / "gate"
    with app.app_context():
        left = durable(jobs.wait_for, str(gate))
        while jobs.noted(rows) != ["waits"]:
            left.join(0.01)
        asok.close(app, 0.05)
        thread = next(each for each in threading.enumerate() if each.ident == left.ident)
    gate.touch()
    # Its thread ends with its process; here it may still write its row.
    thread.join(WAIT)
    before = jobs.noted(rows)

    sweep()

    assert before == ["waits", "waited"]
    assert jobs.noted(rows) == ["waits", "waited"] * 2
    found = read(next_app, left.id)
    assert (found.state, found.attempts, found.deaths) == ("succeeded", 1, 0)


@pytest.mark.parametrize("when", ["in the middle of the claim", "while it runs"])
def test_store_is_away_at_the_shutdown(app, rows, tmp_path, when):
    """A task that cannot be handed over harms no thread; the next process takes this one for killed."""
    store, gate = open_store(app), tmp_path / "gate"
    claim, backend = store.claim, app.extensions["asok"].backend

    def lose():
        connection = sqlite3.connect(store.path, timeout=30)
        connection.execute("ALTER TABLE task RENAME TO away")
        connection.close()

    def claim_at_the_shutdown(*arguments):
        got = claim(*arguments)
        for task in list(backend.runner("default").running):
            backend.abandon(task, "the application shuts down")
        lose()
        return got

    with app.app_context():
        if when == "in the middle of the claim":
            store.claim = claim_at_the_shutdown
            left = durable(jobs.note, "x")
            left.join(WAIT)
        else:
            left = durable(jobs.wait_for, str(gate))
            while jobs.noted(rows) != ["waits"]:
                left.join(0.01)
            lose()
            backend.abandon(left, "the application shuts down")
            gate.touch()
        # Its thread is there for the next one.
        assert background(jobs.add, 1, 2).result(WAIT) == 3

    assert left.goes_on


def test_a_sweeper_leaves_with_its_backend(next_app):
    """At the end of a process no thread of the sweeper is started anew, though nobody has closed the application."""
    one = sweeper_of(next_app)
    one.start()
    (thread,) = [each for each in threading.enumerate() if each.name == "asok-sweeper"]

    next_app.extensions["asok"].backend.stop()

    thread.join(WAIT)
    assert [each for each in threading.enumerate() if each.name == "asok-sweeper"] == []


def test_context_is_that_of_a_first_run(app, next_app, sweep):
    """Links and the values of g, as in the process that accepted the call."""
    app.add_url_rule("/page", "page", lambda: "")
    next_app.add_url_rule("/page", "page", lambda: "")
    with app.test_request_context(base_url="https://shop.example/en"):
        g.user, g.settings = "ann", {}
        first = durable(jobs.note_context)
        first.join(WAIT)
        left = durable.using(delay=60)(jobs.note_context)
    asok.close(app, 5)
    open_store(next_app).now = lambda: time.time() + 61

    sweep()

    seen = jobs.noted(next_app.config["ROWS"])
    assert seen == [f"['user'] https://shop.example/en/page {task.id} 1 note_context default" for task in (first, left)]


def test_living_processes_run_their_own(app, next_app, sweep, rows):
    """Nothing is taken from a process that lives."""
    with app.app_context():
        durable.using(delay=60)(jobs.note, "mine")
        open_store(next_app).now = lambda: time.time() + 61

        sweep()

    assert jobs.noted(rows) == []


def test_two_sweepers(next_app, make_durable, leave, rows):
    """Of two processes that look at the same moment one gets each task."""
    leave(jobs.note, "once")
    third = make_durable()
    barrier = threading.Barrier(2)

    def look(app):
        with app.app_context():
            barrier.wait(WAIT)
            sweeper_of(app).look()

    threads = [threading.Thread(target=look, args=(each,)) for each in (next_app, third)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT)
    for each in (next_app, third):
        asok.close(each, WAIT)

    assert jobs.noted(rows) == ["once"]


def test_store_is_away_at_the_first_request(next_app, leave, rows, monkeypatch, caplog):
    """A process whose first request finds the store locked takes over with a later one what others have left."""
    record = leave(jobs.note, "left")
    monkeypatch.setattr(file, "BUSY_SECONDS", 0.01)
    serving = next_app.extensions["asok"].serving
    times = iter([0.0, 0.0, 0.0, *range(10, 100)])
    serving.now = lambda: next(times)
    other = sqlite3.connect(next_app.config["ASOK_STORE"], isolation_level=None)
    other.execute("BEGIN IMMEDIATE")

    next_app.test_client().get("/")
    other.execute("ROLLBACK")
    other.close()
    next_app.test_client().get("/")
    with next_app.app_context():
        asok.get(record.id).join(WAIT)

    assert jobs.noted(rows) == ["left"]
    assert "is tried again: The store" in caplog.text


def test_store_is_away_at_the_start_of_a_worker(next_app, leave, rows, monkeypatch, caplog):
    """A process that is to take over before its first request comes up though the store is locked."""
    record = leave(jobs.note, "left")
    monkeypatch.setattr(file, "BUSY_SECONDS", 0.01)
    other = sqlite3.connect(next_app.config["ASOK_STORE"], isolation_level=None)
    other.execute("BEGIN IMMEDIATE")

    asok.start_worker(next_app)
    other.execute("ROLLBACK")
    other.close()
    next_app.test_client().get("/")
    with next_app.app_context():
        asok.get(record.id).join(WAIT)
        kinds = [process.kind for process in asok.processes()]

    assert jobs.noted(rows) == ["left"]
    assert kinds == ["web"]
    assert "ERROR" in caplog.text
    assert "Background tasks that others have left must wait: The store" in caplog.text


def test_taken_over_behind_a_task_that_joins_it(make_durable, leave, rows):
    """A task that waits for one of another process runs it itself, when its own process takes that over meanwhile."""
    record = leave(jobs.note, "left")
    app = make_durable(ASOK_QUEUES={"default": 1})
    store, has_looked, looks = open_store(app), threading.Event(), []
    get = store.get

    def look(id):
        looks.append(id)
        if len(looks) > 2:
            has_looked.set()
        return get(id)

    store.get = look
    with app.app_context():
        parent = background(lambda: asok.get(record.id).join(WAIT) or jobs.noted(rows))
        assert has_looked.wait(WAIT)
        sweeper_of(app).look()

        assert parent.result(2 * WAIT) == ["left"]


def test_no_thread_to_wait_in(app, next_app, sweep, rows, monkeypatch, caplog):
    """A task for whose delay the system gives no thread is left to any process, though its own lives on."""

    def refuse(*args, **kwargs):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(app.extensions["asok"].backend.scheduler, "at", refuse)
    with app.app_context():
        left = durable.using(delay=60)(jobs.note, "later")
    open_store(next_app).now = lambda: time.time() + 61

    sweep()

    assert jobs.noted(rows) == ["later"]
    assert f"Background task note ({left.id}) is left to any process of the application: can't start" in caplog.text


def test_no_thread_to_wait_in_and_no_store(app, rows, monkeypatch):
    """If the store is away just then it is told later, so that the task goes on in this process, for one."""
    backend, store = app.extensions["asok"].backend, open_store(app)
    monkeypatch.setattr(backend.scheduler, "at", lambda *args: (_ for _ in ()).throw(RuntimeError("no thread")))
    give_up, asked = store.give_up, []

    def away(*args):
        asked.append(args)
        store.give_up = give_up
        raise BackendUnavailable("The store is away.")

    store.give_up = away
    with app.app_context():
        left = durable.using(delay=60)(jobs.note, "later")
    monkeypatch.undo()
    owed_by(app).close()
    store.now = lambda: time.time() + 61
    sweeper_of(app).look()
    with app.app_context():
        asok.get(left.id).join(WAIT)

    assert len(asked) == 1
    assert jobs.noted(rows) == ["later"]


def test_room(app, next_app, sweep, rows, monkeypatch):
    """A process takes over what its queues have room for, and looks again at once."""
    monkeypatch.setattr(sweeper, "BATCH", 5)
    with app.app_context():
        for number in range(12):
            durable.using(delay=1)(jobs.note, number)
    asok.close(app, 5)
    open_store(next_app).now = lambda: time.time() + 2

    more = [sweep() for _ in range(3)]

    assert more == [True, True, False]
    assert sorted(map(int, jobs.noted(rows))) == list(range(12))


def test_closed(next_app, leave, rows):
    """A process that shuts down takes nothing over."""
    leave(jobs.note, "left")
    asok.close(next_app, 5)

    with next_app.app_context():
        sweeper_of(next_app).look()

    assert jobs.noted(rows) == []


# Deaths


@pytest.mark.parametrize(
    ("state", "deaths", "fn", "ends", "after"),
    [
        ("running", 0, jobs.note, "succeeded", 1),
        ("running", 1, jobs.note, "succeeded", 2),
        ("running", 2, jobs.note, "abandoned", 3),
        ("queued", 2, jobs.note, "succeeded", 2),
        ("waiting", 2, jobs.note, "succeeded", 2),
        ("running", 0, jobs.note_once, "abandoned", 1),
        ("queued", 0, jobs.note_once, "succeeded", 0),
    ],
)
def test_deaths(next_app, sweep, leave, rows, caplog, state, deaths, fn, ends, after):
    """Only a process that ends while it runs a task counts; after three the task is abandoned, or after one."""
    heard = []

    def hear(app, task):
        heard.append((task.id, task.state, task.call.args))

    record = leave(fn, "x", state=state, deaths=deaths, attempts=1 if state == "running" else 0)
    with task_abandoned.connected_to(hear):
        sweep()

    found = read(next_app, record.id)
    assert (found.state, found.deaths) == (ends, after)
    if ends == "abandoned":
        assert jobs.noted(rows) == []
        assert heard == [(record.id, "abandoned", ("x",))]
        assert caplog.text.count(f"({record.id}) abandoned while queued: ") == 1
        assert found.message
        assert "ended while" in found.error or found.error == ""
    else:
        assert jobs.noted(rows) == ["x"]
        assert found.attempts == 1
        assert heard == []


def test_asked_to_stop(next_app, sweep, leave, rows):
    """A task that was asked to stop, and whose process ended before it heard of it, is cancelled."""
    record = leave(jobs.note, "x", state="running", stopping=1)

    sweep()

    assert jobs.noted(rows) == []
    assert read(next_app, record.id).state == "cancelled"


def test_asked_to_stop_and_handed_over(app, next_app, sweep, rows, tmp_path):
    """A task that was asked to stop, and is handed over before it hears of it, is cancelled, and does not run again."""
    gate = tmp_path / "gate"
    with app.app_context():
        left = durable(jobs.wait_for, str(gate))
        while jobs.noted(rows) != ["waits"]:
            left.join(0.01)
        asked = asok.cancel(left.id, running=True)
        asok.close(app, 0.05)
        thread = next(each for each in threading.enumerate() if each.ident == left.ident)
    gate.touch()
    thread.join(WAIT)

    sweep()

    assert asked
    assert jobs.noted(rows) == ["waits", "waited"]
    assert read(next_app, left.id).state == "cancelled"


@pytest.mark.parametrize("state", ["waiting", "failed"])
def test_another_attempt_than_the_one_asked_to_stop(next_app, sweep, leave, rows, state):
    """What waits for a retry by itself, or is retried by hand, runs though an earlier attempt was asked to stop."""
    record = leave(jobs.note, "x", state=state, stopping=1, finished=time.time() if state == "failed" else 0.0)
    if state == "failed":
        with next_app.app_context():
            assert asok.retry(record.id)

    sweep()

    assert jobs.noted(rows) == ["x"]
    assert read(next_app, record.id).state == "succeeded"


def test_cancelled_while_nobody_has_it(next_app, sweep, leave, rows):
    """An orphan can be cancelled."""
    record = leave(jobs.note, "x")
    with next_app.app_context():
        assert asok.cancel(record.id)

    sweep()

    assert jobs.noted(rows) == []


def test_taken_for_dead(make_durable, next_app, sweep, rows, occupy, gate):
    """A process that lost its lock file begins nothing that another one has taken over."""
    import os

    from flask_asok.store import lifeline

    app = make_durable(ASOK_QUEUES={"default": 1})
    with app.app_context():
        occupy()
        left = durable(jobs.note, "once")
        store = open_store(app)
        os.unlink(lifeline.path_of(store.path, store.me))
        lock = lifeline._held.pop(str(lifeline.path_of(store.path, store.me)))
        sweep()
        gate.set()
        left.join(WAIT)
        os.close(lock)

    assert jobs.noted(rows) == ["once"]
    assert left.goes_on


# What is not run


def spoiled(app, record):
    """A message of each kind that must not run."""
    signer = Signer(app)
    signed = record.message
    payload = signer.verify(signed, "call")
    stranger = type(app)("other")
    stranger.secret_key = "a key of somebody else"
    namesake = type(app)(app.name)
    namesake.secret_key = "a key of somebody else"
    return {
        "no message": "",
        "no json": "{",
        "altered": signed.replace('"text', '"test').replace("note", "nose"),
        "unsigned": signed.rpartition(".")[0],
        "of another purpose": signer.sign(payload, "outcome"),
        "of another application": Signer(stranger).sign(payload, "call"),
        "of another key": Signer(namesake).sign(payload, "call"),
        "of another task": signer.sign({**payload, "id": "0" * 32}, "call"),
        "a function that is not there": signer.sign({**payload, "fn": "durable_jobs:nothing"}, "call"),
        "a function of another module": signer.sign({**payload, "fn": "os:getcwd"}, "call"),
        "a module that is not there": signer.sign({**payload, "fn": "durable_jobs.no:note"}, "call"),
        "a later release": signer.sign({**payload, "v": 99}, "call"),
        "a queue that is not there": signer.sign({**payload, "queue": "faxes"}, "call"),
        "no arguments": signer.sign({**payload, "args": 7}, "call"),
        "no name": signer.sign({key: value for key, value in payload.items() if key != "name"}, "call"),
        "options that are not there": signer.sign({**payload, "options": {"retires": 1}}, "call"),
    }


KINDS = [
    "no message", "no json", "altered", "unsigned", "of another purpose", "of another application", "of another key",
    "of another task", "a function that is not there", "a function of another module", "a module that is not there",
    "a later release", "a queue that is not there", "no arguments", "no name", "options that are not there",
]  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_left_to_others(app, next_app, sweep, leave, change_record, rows, caplog, kind):
    """What a process cannot run it leaves to others for ten minutes, and says so once; then the task has failed."""
    record = leave(jobs.note, "x", state="running")
    message = spoiled(next_app, record)[kind]
    change_record(next_app, record.id, "message", message)
    clock = [0.0]
    sweeper_of(next_app).now = lambda: clock[0]

    for clock[0] in (0.0, 1.0, 300.0, 599.0):
        sweep()
    left = read(next_app, record.id)
    for clock[0] in (601.0, 602.0):
        sweep()

    assert jobs.noted(rows) == []
    assert (left.state, left.message, left.owner, left.claim) == ("running", message, record.owner, record.claim)
    assert caplog.text.count("is left to others for 10 min") == 1
    assert caplog.text.count("failed: no process could run it") == 1
    fields = {"task_id", "task_name", "task_queue", "task_attempt", "task_queued_ms", "task_duration_ms"}
    assert all(fields <= vars(one).keys() for one in caplog.records if record.id in one.getMessage())
    failed = read(next_app, record.id)
    assert (failed.state, failed.message) == ("failed", message)
    assert failed.error.startswith("No process could run it")
    with next_app.app_context():
        assert [found.id for found in asok.tasks(state="failed")] == [record.id]


def test_what_can_be_run_is_not_held_up(app, next_app, sweep, leave, change_record, rows, monkeypatch):
    """However many there are that this process leaves to others, it finds those that it can run."""
    monkeypatch.setattr(sweeper, "BATCH", 2)
    with app.app_context():
        ids = [durable.using(delay=1)(jobs.note, number).id for number in range(8)]
    for id in ids[:6]:
        change_record(app, id, "message", "forged")
    asok.close(app, 5)
    open_store(next_app).now = lambda: time.time() + 2

    for _ in range(6):
        sweep()

    assert sorted(jobs.noted(rows)) == ["6", "7"]


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("progress", "no json"), ("progress", "[1]"), ("progress", 7), ("claim", "x"), ("deaths", "x"),
        ("attempts", b""), ("state", "lost"), ("owner", "a\0b"), ("owner", "x" * 5_000), ("owner", b"\xff"),
    ],
)  # fmt: skip
def test_a_damaged_row(app, next_app, sweep, change_record, rows, caplog, column, value):
    """A row that no process can have written keeps none of the others from being run, listed and counted."""
    with app.app_context():
        damaged, other = (durable.using(delay=1)(jobs.note, name) for name in ("damaged", "other"))
    change_record(app, damaged.id, "state", "running")
    change_record(app, damaged.id, column, value)
    asok.close(app, 5)
    open_store(next_app).now = lambda: time.time() + 2

    sweep()

    assert "other" in jobs.noted(rows)
    assert read(next_app, other.id).state == "succeeded"
    with next_app.app_context():
        assert {damaged.id, other.id} == {found.id for found in asok.tasks()}
        assert asok.queues() is not None
    assert "Traceback" not in caplog.text


def test_unknown_queue(app, make_durable, rows, caplog):
    """A queue that this process does not know is left to others as well, and named."""
    wide = make_durable(ASOK_QUEUES={"faxes": 1})
    with wide.app_context():
        left = durable.using(delay=1, queue="faxes")(jobs.note, "fax")
    asok.close(wide, 5)
    open_store(app).now = lambda: time.time() + 2

    with app.app_context():
        sweeper_of(app).look()

    assert read(app, left.id).state == "waiting"
    assert "The queue 'faxes' is not in ASOK_QUEUES" in caplog.text


def look_at(app, seconds):
    """Look for tasks at each of these seconds of the sweeper's clock."""
    sweeper = sweeper_of(app)
    for now in seconds:
        sweeper.now = lambda now=now: now
        with app.app_context():
            sweeper.look()


def test_unknown_queue_is_given_up(app, make_durable, rows, caplog):
    """It is looked at more rarely than others, and told of as they are: once, and after ten minutes it has failed."""
    wide = make_durable(ASOK_QUEUES={"faxes": 1})
    with wide.app_context():
        left = durable.using(delay=1, queue="faxes")(jobs.note, "fax")
    asok.close(wide, 5)
    open_store(app).now = lambda: time.time() + 2

    look_at(app, [0.5 * number for number in range(1, 50)])
    look_at(app, [590.0, 599.0, 615.0, 616.0, 630.0])

    assert read(app, left.id).state == "failed"
    assert caplog.text.count("is left to others for 10 min") == 1
    assert caplog.text.count("failed: no process could run it") == 1


def test_full_queue_forgets_nothing(app, next_app, change_record, rows, monkeypatch, caplog):
    """While a queue has no room it is not looked at; what was left to others there is still known."""
    with app.app_context():
        left = durable.using(delay=1)(jobs.note, "forged")
    change_record(app, left.id, "message", "forged")
    asok.close(app, 5)
    open_store(next_app).now = lambda: time.time() + 2

    look_at(next_app, [0.0])
    with monkeypatch.context() as full:
        full.setattr(sweeper, "BATCH", 0)
        look_at(next_app, [1.0])
    look_at(next_app, [2.0, 601.0])

    assert read(next_app, left.id).state == "failed"
    assert caplog.text.count("is left to others for 10 min") == 1


def test_left_to_others_and_taken(app, next_app, change_record, rows, caplog):
    """What another process has taken meanwhile is forgotten: left once more, it has its ten minutes again."""
    with app.app_context():
        left = durable.using(delay=1)(jobs.note, "forged")
    change_record(app, left.id, "message", "forged")
    owner = read(app, left.id).owner
    asok.close(app, 5)
    store = open_store(next_app)
    store.now = lambda: time.time() + 2

    look_at(next_app, [0.0])
    change_record(next_app, left.id, "owner", store.me)
    look_at(next_app, [300.0])
    change_record(next_app, left.id, "owner", owner)
    look_at(next_app, [310.0, 601.0, 909.0])

    assert read(next_app, left.id).state == "waiting"
    assert caplog.text.count("is left to others for 10 min") == 2


# Unique, retry


def test_unique_while_nobody_has_it(app, next_app, sweep, rows):
    """The key of a durable task is taken as long as the task lives, whoever has it."""
    with app.app_context():
        left = durable.using(unique="export", delay=60)(jobs.note, "first")
    asok.close(app, 5)
    with next_app.app_context():
        same = durable.using(unique="export")(jobs.note, "second")
        open_store(next_app).now = lambda: time.time() + 61
        sweep()
        new = durable.using(unique="export")(jobs.note, "third")
        new.join(WAIT)

    assert same.id == left.id
    assert new.id != left.id
    assert jobs.noted(rows) == ["first", "third"]


@pytest.mark.parametrize("until", ["start", "end"])
def test_unique_until(app, next_app, rows, tmp_path, until):
    """A key that is free from the start on is free when the next process begins the task."""
    gate = tmp_path / "gate"
    with app.app_context():
        left = durable.using(unique="export", unique_until=until, delay=1)(jobs.wait_for, str(gate))
    asok.close(app, 5)
    open_store(next_app).now = lambda: time.time() + 2
    with next_app.app_context():
        sweeper_of(next_app).look()
        while jobs.noted(rows) != ["waits"]:
            time.sleep(0.01)

        same = durable.using(unique="export", delay=60)(jobs.wait_for, str(gate))

        assert (same.id == left.id) == (until == "end")
        gate.touch()


def test_retry(app, next_app, sweep, rows):
    """A failed task runs once more, in whatever process looks next."""
    with app.app_context():
        failed = durable(jobs.fail_unless, rows + ".ok")
        failed.join(WAIT)
        assert failed.state == "failed"
        open(rows + ".ok", "w").close()
        assert asok.retry(failed.id)
        assert not asok.retry(failed.id)

    sweep()

    found = read(next_app, failed.id)
    assert (found.state, found.attempts) == ("succeeded", 1)


def test_retry_in_a_test(make_app, tmp_path):
    """In a test, whose store is its memory, it runs at once."""
    app = make_app(TESTING=True, ASOK_TASK_MODULES=["durable_jobs"])
    with app.app_context():
        failed = durable(jobs.fail_unless, str(tmp_path / "ok"))
        failed.join(WAIT)
        (tmp_path / "ok").touch()

        assert asok.retry(failed.id)

        asok.get(failed.id).join(WAIT)
        assert asok.get(failed.id).state == "succeeded"


def test_what_is_not_durable_is_not_taken_over(app, next_app, sweep, rows):
    """A tracked task ends with its process."""
    with app.app_context():
        tracked = background.using(tracked=True, delay=60)(jobs.note, "tracked")
    asok.close(app, 5)

    sweep()

    assert jobs.noted(rows) == []
    assert read(next_app, tracked.id).state == "abandoned"


def test_a_store_that_is_away(next_app, leave, caplog, rows):
    """The sweeper goes on when the store is back."""
    leave(jobs.note, "x")
    path = open_store(next_app).path
    rows_of_store = sqlite3.connect(path, timeout=30)
    rows_of_store.execute("ALTER TABLE task RENAME TO away")
    done = threading.Event()
    one = sweeper_of(next_app)
    one.start()
    for _ in range(3000):
        if "that others have left must wait" in caplog.text:
            break
        done.wait(0.01)

    rows_of_store.execute("ALTER TABLE away RENAME TO task")
    rows_of_store.close()
    for _ in range(3000):
        if jobs.noted(rows):
            break
        done.wait(0.01)
    one.close()

    assert jobs.noted(rows) == ["x"]
