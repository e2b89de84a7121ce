"""`flask asok periodic`: run, list and start periodic tasks from the command line."""

import json
import os
import signal
import sqlite3
import threading

import pytest

from flask_asok import current_task
from flask_asok.store.sqlite import SQLiteStore
from flask_asok.testing.doubles import distribute

TIMEOUT = 10


@pytest.fixture
def run(process):
    def run(*arguments):
        return process.app.test_cli_runner().invoke(args=["asok", "periodic", *arguments])

    return run


def test_list(process, run):
    """The list shows the next three ticks, in their time zone and in UTC, and the last run with its state."""
    process.add(cron="0 3 * * *", tz="Europe/Berlin", name="nightly")
    process.add(every=60)
    process.at(1)
    process.at(60)
    (task,) = process.tasks

    shown = run("list")

    assert shown.exit_code == 0
    assert shown.output.splitlines() == [
        "nightly  0 3 * * *  Europe/Berlin",
        "  next  2026-11-26 03:00:00 +0100  2026-11-26 02:00:00 UTC",
        "        2026-11-27 03:00:00 +0100  2026-11-27 02:00:00 UTC",
        "        2026-11-28 03:00:00 +0100  2026-11-28 02:00:00 UTC",
        "  last  never",
        "work  every 60 s  UTC",
        "  next  2026-11-26 00:02:00 +0000  2026-11-26 00:02:00 UTC",
        "        2026-11-26 00:03:00 +0000  2026-11-26 00:03:00 UTC",
        "        2026-11-26 00:04:00 +0000  2026-11-26 00:04:00 UTC",
        f"  last  2026-11-26 00:01:00 UTC  succeeded  {task.id}",
    ]


def test_list_as_json(process, run):
    """As JSON it is a list of objects with the names of PeriodicTask's fields."""
    process.add(every=60)
    process.at(1)
    process.at(60)

    assert json.loads(run("list", "--json").output) == [
        {
            "name": "work",
            "schedule": "every 60 s",
            "tz": "UTC",
            "next_at": "2026-11-26T00:02:00+00:00",
            "last_at": "2026-11-26T00:01:00+00:00",
            "last_id": process.tasks[0].id,
        }
    ]


def test_list_makes_no_store(process, run, tmp_path):
    """A look makes no store."""
    process.add(every=60)

    assert "last  never" in run("list").output
    assert list(tmp_path.iterdir()) == []


def test_list_of_a_forgotten_run(process, run):
    """Of a run whose record is gone the list still shows the tick."""
    process.add(every=60)
    process.at(1)
    process.at(60)
    with process.app.app_context():
        assert process.asok.discard(process.tasks[0].id)

    assert f"2026-11-26 00:01:00 UTC  over for a day, or forgotten  {process.tasks[0].id}" in run("list").output


@pytest.mark.parametrize("command", [["list"], ["run", "work"], []], ids=str)
def test_none(run, command):
    """Without periodic tasks each command says that their module may not be imported."""
    answer = run(*command)

    assert "Is the module with @asok.periodic imported" in answer.output
    assert answer.exit_code == (0 if command == ["list"] else 2)


def test_run(process, run):
    """A task that is run by hand runs for its latest tick, is waited for, and takes no tick."""
    process.add(every=60)
    process.at(61)

    answer = run("run", "work")

    assert process.ran == [60]
    assert answer.exit_code == 0
    assert answer.output == f"{process.tasks[0].id} succeeded\n"
    assert process.listed().last_at is None
    process.at(120)
    assert process.ran == [60, 120]


def test_run_that_fails(process, run):
    """One that fails exits with 1."""
    process.add(lambda: 1 / 0, name="work", every=60)

    answer = run("run", "work")

    assert answer.exit_code == 1
    assert " failed\n" in answer.output


def test_run_of_an_unknown_name(process, run):
    """An unknown name exits with 2, and names those there are."""
    process.add(every=60, name="one")
    process.add(every=60, name="two")

    answer = run("run", "three")

    assert answer.exit_code == 2
    assert "There is no periodic task 'three'. There are: one, two." in answer.output


def test_run_while_one_goes_on(make_process, gate):
    """While a run goes on, in another process, a second one is not started: it exits with 1 and names the first."""
    other, process = make_process(), make_process()
    began = threading.Event()

    def hold():
        began.set()
        gate.wait(TIMEOUT)

    for each in (other, process):
        each.add(hold, every=60)
        each.at(1)
    other.look(60)
    assert began.wait(TIMEOUT)

    answer = process.app.test_cli_runner().invoke(args=["asok", "periodic", "run", "work"])

    gate.set()
    assert answer.exit_code == 1
    assert f"A run of work, {other.tasks[0].id}, is already going on." in answer.output


@pytest.mark.parametrize("command", [["list"], ["run", "work"], []], ids=str)
def test_store_away(process, run, monkeypatch, command):
    """If the store cannot be reached a command exits with 2 and says so."""
    process.add(every=60)
    process.at(1)

    def away(self):
        raise sqlite3.OperationalError("disk I/O error")

    monkeypatch.setattr(SQLiteStore, "_connected", away)
    answer = run(*command)

    assert answer.exit_code == 2
    assert "cannot be used: disk I/O error" in answer.output


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_process_of_its_own(make_process, number):
    """`flask asok periodic` starts the tasks, and on threads runs them, until it is told to end."""
    process = make_process(ASOK_PERIODIC="command")
    del process.clock.now
    told = []

    def end():
        # Once: the next tick may come while it ends, and would end the tests.
        if not told:
            told.append(number)
            os.kill(os.getpid(), number)

    process.add(end, every=1)
    before = signal.getsignal(signal.SIGTERM)

    try:
        answer = process.app.test_cli_runner().invoke(args=["asok", "periodic"])
    finally:
        signal.signal(signal.SIGTERM, before)

    assert answer.exit_code == 0
    assert "Starting 1 periodic tasks. Ctrl-C to quit." in answer.output
    assert not process.clock.is_running


def test_it_is_a_worker(process, run, monkeypatch):
    """Such a process is listed as a worker, until it ends."""
    kinds = []

    def start():
        kinds.extend(one.kind for one in process.asok.processes())
        signal.raise_signal(signal.SIGTERM)

    process.add(every=60)
    monkeypatch.setattr(process.clock, "start", start)
    before = signal.getsignal(signal.SIGTERM)

    try:
        run()
    finally:
        signal.signal(signal.SIGTERM, before)

    with process.app.app_context():
        assert (kinds, process.asok.processes()) == (["worker"], [])


@pytest.mark.parametrize(
    ("config", "why"),
    [({"ASOK_PERIODIC": "off"}, 'ASOK_PERIODIC is "off"'), ({"TESTING": True}, "The app is in testing mode")],
)
def test_refused(make_process, config, why):
    """Where periodic tasks are switched off, and in testing mode, it exits with 2."""
    process = make_process(**config)
    process.add(every=60)

    answer = process.app.test_cli_runner().invoke(args=["asok", "periodic"])

    assert answer.exit_code == 2
    assert why in answer.output


def test_distributed(make_process):
    """On a distributed backend a run by hand is sent, and not waited for."""
    process = make_process(ASOK_TASK_MODULES=[__name__])
    distribute(process.app)
    process.add(sample, every=60, overlap=True)

    answer = process.app.test_cli_runner().invoke(args=["asok", "periodic", "run", "work"])

    assert (answer.exit_code, answer.output) == (0, f"Sent {process.tasks[0].id}.\n")


def sample():
    """Assert that it knows its tick."""
    assert current_task().scheduled_at
