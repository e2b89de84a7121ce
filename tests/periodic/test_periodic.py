"""`@asok.periodic` and what it promises: what it takes, what it refuses, what a list shows."""

import importlib.util
import logging
import os
import subprocess
import sys
import threading
from datetime import UTC, datetime, timedelta

import pytest
from flask import Flask, g
from flask_sqlalchemy import SQLAlchemy

from flask_asok import FlaskAsok, NotConfigured, current_task, task
from flask_asok.periodic import Clock
from flask_asok.signals import namespace, periodic_skipped
from flask_asok.state import state_of

TIMEOUT = 10
HOUR = 3600


def work():
    """Do nothing."""


@pytest.fixture
def asok():
    return FlaskAsok()


def clock_threads():
    return [thread for thread in threading.enumerate() if thread.name == "asok-clock"]


# What it takes


def test_returns_the_plain_function(asok):
    """The decorated function is the plain function, to be called as ever; its name is its module's and its own."""

    @asok.periodic(every=300)
    @task(retries=3, queue="mail")
    def poll(box="inbox"):
        return box

    assert poll() == "inbox"
    app = Flask("shop")
    asok.init_app(app)
    with app.app_context():
        (found,) = asok.periodic_tasks()
    assert found.name == f"{__name__}.test_returns_the_plain_function.<locals>.poll"


def test_before_or_after_init_app(asok):
    """Periodic tasks are made on the extension, before or after it sets an app up, and serve each of its apps."""
    apps = [Flask(name) for name in ("shop", "desk")]
    asok.init_app(apps[0])
    asok.periodic(every=300, name="one")(work)
    asok.init_app(apps[1])
    asok.periodic(cron="0 3 * * MON-FRI", tz="Europe/Berlin", name="two")(work)

    for app in apps:
        with app.app_context():
            assert [(one.name, one.schedule, one.tz) for one in asok.periodic_tasks()] == [
                ("one", "every 300 s", "UTC"),
                ("two", "0 3 * * MON-FRI", "Europe/Berlin"),
            ]


@pytest.mark.parametrize(
    ("options", "kind", "why"),
    [
        ({}, ValueError, "needs one of every= and cron="),
        ({"every": 300, "cron": "0 3 * * *"}, ValueError, "needs one of every= and cron="),
        ({"every": 0.5}, ValueError, "every must be from 1 second to 100 years, not 0.5 s"),
        ({"every": -1}, ValueError, "every must be seconds, 0 or more"),
        ({"every": float("nan")}, ValueError, "every must be seconds"),
        ({"every": timedelta(days=40_000)}, ValueError, "to 100 years"),
        ({"every": "5 minutes"}, TypeError, "every must not be of type str: give seconds, or a timedelta"),
        ({"every": True}, TypeError, "every must not be of type bool"),
        ({"cron": 5}, TypeError, "cron must not be of type int"),
        ({"cron": "0 3 * *"}, ValueError, "has 4 fields"),
        ({"cron": "0 3 31 2 *"}, ValueError, "is invalid: Bad day-of-month"),
        ({"cron": "0 3 * * *", "tz": "Europe/Berlim"}, ValueError, "tz='Europe/Berlim' is no time zone .* tzdata"),
        ({"cron": "0 3 * * *", "tz": "/etc/passwd"}, ValueError, "is no time zone"),
        ({"every": 300, "tz": "Europe/Berlin"}, ValueError, "tz= is for cron="),
        ({"every": 300, "jitter": 300}, ValueError, "jitter=300 must be below the period, which is 300 s"),
        ({"cron": "0,1 3 * * *", "jitter": 60}, ValueError, "jitter=60 must be below the period, which is 60 s"),
        ({"every": 300, "grace": -1}, ValueError, "grace must be seconds, 0 or more"),
        ({"every": 300, "grace": 0}, ValueError, "grace must be 1 second or more, not 0 s: .* None is for"),
        ({"every": 300, "grace": timedelta(milliseconds=999)}, ValueError, "grace must be 1 second or more"),
        ({"every": 300, "overlap": "no"}, TypeError, "overlap must not be of type str: give True or False"),
        ({"every": 300, "name": ""}, ValueError, "name must have from 1 to 150 printable characters"),
        ({"every": 300, "name": "a\nb"}, ValueError, "name must have from 1 to 150 printable characters"),
        ({"every": 300, "name": 5}, TypeError, "name must not be of type int"),
        ({"every": 300, "args": (1,)}, TypeError, "work.* cannot be called with these arguments"),
        ({"every": 300, "kwargs": {"user": 1}}, TypeError, "unexpected keyword argument 'user'"),
    ],
)
def test_mistakes(asok, options, kind, why):
    """A mistake in a schedule is an error at import, which says what is wrong."""
    with pytest.raises(kind, match=why):
        asok.periodic(**options)(work)


@pytest.mark.parametrize(
    ("function", "why"), [(5, "decorates a function, not int"), ((lambda: (yield)), "not a generator")]
)
def test_no_functions(asok, function, why):
    """So is what no task could run."""
    with pytest.raises(TypeError, match=why):
        asok.periodic(every=300)(function)


@pytest.mark.parametrize("misplaced", [work, 300, "0 3 * * *"])
def test_positional(asok, misplaced):
    """The bare decorator, and a schedule without its name, say what to write."""
    with pytest.raises(TypeError, match=r"write @asok\.periodic\(every=300\) or @asok\.periodic\(cron="):
        asok.periodic(misplaced)


def test_without_the_extra(asok, monkeypatch):
    """`cron=` without the extra is NotConfigured at import; `every=` needs nothing."""
    monkeypatch.setitem(sys.modules, "cronsim", None)

    asok.periodic(every=300)(work)
    with pytest.raises(NotConfigured, match=r"flask-asok\[periodic\]"):
        asok.periodic(cron="0 3 * * *", name="nightly")(work)


def test_names_are_unique(asok):
    """A name that is taken is a ValueError; one function may have several, with names of their own."""
    asok.periodic(every=300, name="one")(work)
    asok.periodic(every=60, name="two")(work)

    with pytest.raises(ValueError, match="There is a periodic task 'one' already: give this one another name="):
        asok.periodic(every=300, name="one")(lambda: None)


@pytest.mark.parametrize("other", [{"every": 60}, {"every": 300, "args": (2,)}, {"every": 300, "grace": None}])
def test_two_schedules_of_one_name(asok, other):
    """A second schedule of a function, or other arguments, without a name of its own would replace the first one."""

    def report(shop=1):
        return shop

    asok.periodic(every=300)(report)
    asok.periodic(every=300)(report)

    with pytest.raises(ValueError, match=r"periodic task '\S+report' already: give this one another name="):
        asok.periodic(**other)(report)


def test_made_again(asok, tmp_path):
    """A factory that is called twice, as tests do, makes its periodic tasks twice; the later ones are in force."""

    def create_app(answer):
        @asok.periodic(every=300)
        def report():
            return answer

    create_app(1)
    create_app(2)

    app = Flask("shop")
    asok.init_app(app)
    (entry,) = state_of(app).kept(Clock).entries
    assert entry.function() == 2


def test_time_zone_of_the_application(asok):
    """`ASOK_TIMEZONE` is the zone of a `cron=` without `tz=`; an unknown one is an error when the app is set up."""
    asok.periodic(cron="0 3 * * *", name="nightly")(work)
    app, misspelt = Flask("shop"), Flask("desk")
    app.config["ASOK_TIMEZONE"] = "America/New_York"
    misspelt.config["ASOK_TIMEZONE"] = "America/Newyork"
    asok.init_app(app)
    with app.app_context():
        assert asok.periodic_tasks()[0].tz == "America/New_York"

    with pytest.raises(ValueError, match=r"ASOK_TIMEZONE='America/Newyork' is no time zone .* tzdata"):
        asok.init_app(misspelt)


def test_system_without_time_zones():
    """Where the system has no time zones, as Windows, all works in UTC; another zone is refused with the cure."""
    script = """
import sys
sys.modules["tzdata"] = None
from flask import Flask
from flask_asok import FlaskAsok
app = Flask("shop")
asok = FlaskAsok(app)
asok.periodic(cron="0 3 * * *", name="nightly")(print)
with app.app_context():
    print(asok.periodic_tasks()[0].next_at.hour)
try:
    asok.periodic(cron="0 3 * * *", tz="Europe/Berlin", name="other")(print)
except ValueError as error:
    print(error)
"""
    ended = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "PYTHONTZPATH": ""}, capture_output=True, text=True, timeout=60,
    )  # fmt: skip

    assert ended.stdout.startswith("3\ntz='Europe/Berlin' is no time zone"), ended.stderr
    assert "pip install tzdata" in ended.stdout


def test_light(asok):
    """Neither the decorator nor `init_app` starts a thread or makes a store."""
    app = Flask("shop")
    asok.periodic(every=300)(work)
    asok.init_app(app)

    assert clock_threads() == []
    assert not state_of(app).has("store")


# A run


def test_a_run_is_an_ordinary_task(process):
    """A run has the options of its function and its arguments; `scheduled_at` is its tick, in UTC."""
    seen = []

    @task(queue="mail", name="poll the inbox")
    def poll(box, *, limit):
        task = current_task()
        seen.append((box, limit, task.queue, task.name, task.scheduled_at))

    process.add(poll, every=60, args=("inbox",), kwargs={"limit": 5})
    process.at(1)
    process.at(61)

    tick = datetime(2026, 11, 26, 0, 1, tzinfo=UTC)
    assert seen == [("inbox", 5, "mail", "poll the inbox", tick)]
    with process.app.app_context():
        (summary,) = process.asok.tasks()
    assert summary.state == "succeeded"
    assert summary.scheduled_at == tick
    assert summary.as_dict()["scheduled_at"] == "2026-11-26T00:01:00+00:00"


def test_any_process_sees_it(make_process):
    """Every process sees the runs of all, by their ids and in its list."""
    first, second = make_process(), make_process()
    for process in (first, second):
        process.add(every=60)
        process.at(1)
    first.at(60)

    listed = second.listed()

    assert listed.next_at == datetime(2026, 11, 26, 0, 1, tzinfo=UTC)
    assert listed.last_at == datetime(2026, 11, 26, 0, 1, tzinfo=UTC)
    with second.app.app_context():
        assert second.asok.get(listed.last_id).state == "succeeded"
        assert [one.scheduled_at for one in second.asok.tasks()] == [listed.last_at]


def test_each_run_has_a_context_of_its_own(process):
    """A run has an application context, which is torn down after it; nothing of one is left for the next."""
    seen, torn_down = [], []
    process.app.teardown_appcontext(lambda error: torn_down.append(error))

    def count():
        g.count = g.get("count", 0) + 1
        seen.append(g.count)

    process.add(count, every=60)
    process.at(1)
    for minute in range(1, 4):
        process.at(minute * 60)

    assert seen == [1, 1, 1]
    assert len(torn_down) >= 3


def test_database(make_process, tmp_path):
    """`db.session` of Flask-SQLAlchemy works in a run, and its connection is back afterwards."""
    process = make_process(SQLALCHEMY_DATABASE_URI=f"sqlite:///{tmp_path / 'shop.db'}")
    db = SQLAlchemy(process.app)
    found = []
    process.add(lambda: found.append(db.session.scalar(db.text("SELECT 42"))), every=60)
    process.at(1)

    process.at(60)

    assert found == [42]
    with process.app.app_context():
        assert db.engine.pool.checkedout() == 0
        db.engine.dispose()


def test_deferred_options(make_process):
    """With `when="response"`, which a run has none of, it starts at once; so it does with `when="commit"`."""
    process = make_process()
    for when in ("response", "commit") if importlib.util.find_spec("flask_sqlalchemy") else ("response",):
        if when == "commit":
            process.app.config["SQLALCHEMY_DATABASE_URI"] = "sqlite://"
            SQLAlchemy(process.app)
        process.add(task(when=when)(lambda when=when: process.ran.append(when)), name=when, every=60)
    process.at(1)

    process.at(60)

    assert sorted(process.ran) == ["commit", "response"]


def test_full_queue(make_process, gate):
    """A run passes the bound of a queue, as a due retry does: the clock never runs it itself."""
    process = make_process(ASOK_QUEUES={"default": 1}, ASOK_MAX_QUEUED=1)
    threads = []
    process.add(lambda: threads.append(threading.current_thread()), every=60)
    process.at(1)
    with process.app.app_context():
        for _ in range(2):
            process.asok.background(gate.wait, TIMEOUT)
        process.look(60)
        gate.set()
    process.wait()

    assert threads
    assert threads[0] is not threading.current_thread()


def test_skips_are_told(process):
    """The signal of a skipped tick can be had by its name, from `flask_asok.signals`."""
    assert namespace["periodic-skipped"] is periodic_skipped


def test_last_run_of_similar_names(process):
    """The last runs of two tasks whose names are alike are told apart, after ticks that were skipped too."""
    process.add(every=60, name="work")
    process.add(every=60, name="work last")
    process.at(1)
    process.at(60)
    process.at(4000)

    with process.app.app_context():
        assert [one.last_at.minute for one in process.asok.periodic_tasks()] == [6, 6]
    assert len(process.ran) == 4


# The thread


@pytest.fixture
def ticking(make_process):
    """A process whose clock is that of the system, and a task that is due each second."""

    def ticking(**config):
        process = make_process(**config)
        del process.clock.now
        process.ticked = threading.Event()
        process.add(process.ticked.set, every=1)
        return process

    return ticking


def test_begins_with_the_first_request(ticking, caplog):
    """The clock starts with the first request, a 404 too, and tells what it starts, and where ticks are taken."""
    caplog.set_level(logging.INFO)
    process = ticking()
    assert clock_threads() == []

    process.app.test_client().get("/nothing")

    assert process.ticked.wait(TIMEOUT)
    assert len(clock_threads()) == 1
    assert "The clock of periodic tasks runs for work. Ticks are taken in /" in caplog.text
    assert "good for one machine." in caplog.text
    process.close()
    assert clock_threads() == []


@pytest.mark.parametrize("config", [{"TESTING": True}, {"ASOK_PERIODIC": "command"}, {"ASOK_PERIODIC": "off"}], ids=str)
def test_does_not_begin(ticking, config):
    """In testing mode, and where ASOK_PERIODIC says so, no request and no call starts the clock."""
    process = ticking(**config)

    process.app.test_client().get("/nothing")
    process.asok.start_periodic(process.app)

    assert clock_threads() == []


def test_testing_that_is_set_late(ticking, tmp_path):
    """Testing mode that is set when the clock runs keeps it from starting anything."""
    process = ticking()
    process.app.testing = True

    assert process.clock.look(process.app) > 1
    assert not (tmp_path / "asok.sqlite3").exists()


def test_nothing_to_start(make_process, tmp_path):
    """Without periodic tasks requests start no thread and make no file."""
    process = make_process()

    process.app.test_client().get("/nothing")

    assert clock_threads() == []
    assert list(tmp_path.iterdir()) == []


def test_made_after_the_first_request(make_process):
    """A periodic task that is made late, in a module that a view imports, is started as well."""
    process = make_process()
    del process.clock.now
    process.app.test_client().get("/nothing")
    ticked = threading.Event()

    process.add(ticked.set, every=1)

    assert ticked.wait(TIMEOUT)


def test_started_by_hand(ticking):
    """`start_periodic` starts the clock before the first request; twice is harmless."""
    process = ticking()

    for _ in range(2):
        process.asok.start_periodic(process.app)

    assert process.ticked.wait(TIMEOUT)
    assert len(clock_threads()) == 1


def test_closing(ticking):
    """A closed application starts nothing any more."""
    process = ticking()
    process.asok.start_periodic(process.app)
    assert process.ticked.wait(TIMEOUT)

    process.close()
    process.asok.start_periodic(process.app)
    process.app.test_client().get("/nothing")

    assert clock_threads() == []


def test_dropped_app(caplog):
    """The clock keeps no application alive, and leaves with it."""
    import gc
    import weakref

    app = Flask("shop")
    app.config["ASOK_STORE"] = "memory"
    asok = FlaskAsok(app)
    asok.periodic(every=HOUR)(work)
    asok.start_periodic(app)
    (thread,) = clock_threads()
    gone = weakref.ref(app)

    del app
    for _ in range(1000):
        gc.collect()
        if gone() is None:
            break
        thread.join(0.01)

    assert gone() is None
    thread.join(TIMEOUT)
    assert not thread.is_alive()


def test_memory(make_process, caplog):
    """A store in memory is one for each process: the log warns that each of them starts every task."""
    process = make_process(ASOK_STORE="memory")
    process.add(every=60)

    process.at(1)
    process.at(60)

    assert process.ran == [60]
    assert 'ASOK_STORE is "memory": each process starts every periodic task.' in caplog.text


def test_broken_clock(ticking, caplog, monkeypatch):
    """Whatever goes wrong in the clock is logged, and it goes on."""
    process = ticking()
    looks = []

    def look(app):
        looks.append(app)
        if len(looks) == 1:
            raise ZeroDivisionError("broken")
        return Clock.look(process.clock, app)

    monkeypatch.setattr("flask_asok.periodic.clock.LONGEST_PAUSE", 0.01)
    monkeypatch.setattr(process.clock, "look", look)
    process.asok.start_periodic(process.app)

    assert process.ticked.wait(TIMEOUT)
    assert "The clock of periodic tasks failed: ZeroDivisionError('broken')" in caplog.text
