"""Applications whose durable tasks live in a file, as those of several processes do."""

import importlib.util
import sys
from pathlib import Path

import pytest

from flask_asok import FlaskAsok
from flask_asok.durable.sweeper import sweeper_of
from flask_asok.sharing import open_store

spec = importlib.util.spec_from_file_location("durable_jobs", Path(__file__).parent / "durable_jobs.py")
jobs = importlib.util.module_from_spec(spec)
sys.modules["durable_jobs"] = jobs
spec.loader.exec_module(jobs)

asok = FlaskAsok()


@pytest.fixture
def rows(tmp_path):
    """Where the jobs write what they did."""
    return str(tmp_path / "rows.sqlite3")


@pytest.fixture
def make_durable(make_app, tmp_path, rows):
    """Make applications that share a store, as the processes of one application do."""

    def make(**config):
        values = {"ASOK_STORE": str(tmp_path / "asok.sqlite3"), "ASOK_TASK_MODULES": ["durable_jobs"], "ROWS": rows}
        return make_app(**{**values, **config})

    return make


@pytest.fixture
def app(make_durable):
    """The application of a process that accepts tasks."""
    return make_durable()


@pytest.fixture
def next_app(make_durable):
    """The application of the process that comes after that one."""
    return make_durable()


@pytest.fixture
def leave(app):
    """Accept a durable task, and end the process before the task has begun; return its record."""

    def leave(fn, *args, state="queued", **fields):
        with app.app_context():
            task = asok.background.using(durable=True, delay=3600)(fn, *args)
        store = open_store(app)
        for name, value in {"state": state, "due": 1.0, **fields}.items():
            change(app, task.id, name, value)
        record = store.read(task.id)
        asok.close(app, 5)
        return record

    return leave


def change(app, id, name, value):
    """Write into a record what no process would."""
    import sqlite3

    rows = sqlite3.connect(open_store(app).path, timeout=30)
    with rows:
        rows.execute(f"UPDATE task SET {name} = ? WHERE id = ?", (value, id))
    rows.close()


@pytest.fixture
def change_record():
    return change


@pytest.fixture
def sweep(next_app):
    """Look once for what other processes have left, and wait until it is done; return whether there may be more."""

    def sweep(wait=True):
        with next_app.app_context():
            more = sweeper_of(next_app).look()
            if wait:
                # By their summaries: a task on its way from the queue to a thread is in neither.
                for summary in next_app.extensions["asok"].backend.tasks():
                    task = summary.task and summary.task()
                    if task is not None and summary.state != "waiting":
                        task.join(10)
        return more

    return sweep
