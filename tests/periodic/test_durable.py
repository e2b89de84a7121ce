"""Durable periodic tasks: a tick is taken and its task written down in one step, and outlives the process."""

import subprocess
import sys
from textwrap import dedent

import pytest
from flask import Flask

from flask_asok import BackendUnavailable, FlaskAsok, task
from flask_asok.durable.sweeper import sweeper_of
from flask_asok.periodic import Clock
from flask_asok.sharing import open_store
from flask_asok.state import state_of
from flask_asok.store.base import Tick

JOBS = """
import os

from flask_asok import current_task, task


@task(durable=True)
def work(path):
    "Note the tick; the first time, end the process as the system does that has no memory left."
    is_first = not os.path.exists(path)
    with open(path, "a") as file:
        file.write(f"{current_task().id} {current_task().scheduled_at.isoformat()}\\n")
    if is_first:
        os.kill(os.getpid(), 9)
"""

DYING = """
import sys

from flask import Flask

from flask_asok import FlaskAsok
from flask_asok.periodic import Clock
from flask_asok.state import state_of
from periodic_jobs import work

store, path, midnight = sys.argv[1:]
app = Flask("shop")
app.config.from_mapping(SECRET_KEY="a secret of the tests", ASOK_STORE=store, ASOK_TASK_MODULES=["periodic_jobs"])
asok = FlaskAsok(app)
asok.periodic(name="work", every=3600, args=(path,))(work)
clock = state_of(app).kept(Clock)
for second in (1, 3600):
    clock.now = lambda: float(midnight) + second
    clock.look(app)
state_of(app).backend.close(30)
"""


@pytest.fixture
def jobs(tmp_path, monkeypatch):
    """The module with the function, which both processes import."""
    (tmp_path / "periodic_jobs.py").write_text(dedent(JOBS))
    monkeypatch.syspath_prepend(tmp_path)
    import periodic_jobs

    yield periodic_jobs
    del sys.modules["periodic_jobs"]


def test_killed_while_it_ran(jobs, make_process, tmp_path):
    """A process that is killed in the middle of a run leaves it to the next one: the same run, for the same tick."""
    path, store = str(tmp_path / "ran"), str(tmp_path / "asok.sqlite3")
    process = make_process(ASOK_TASK_MODULES=["periodic_jobs"])
    command = [sys.executable, "-c", DYING, store, path, str(process.now)]
    killed = subprocess.run(command, cwd=tmp_path, timeout=60)
    process.add(jobs.work, every=3600, args=(path,))

    process.at(3605)
    sweeper_of(process.app).look()
    with process.app.app_context():
        process.asok.get(process.listed().last_id).join(10)

    first, second = (tmp_path / "ran").read_text().splitlines()
    assert killed.returncode == -9
    assert first == second
    assert second.endswith("2026-11-26T01:00:00+00:00")
    assert process.listed().last_id == first.split()[0]


def test_written_down_with_its_tick(jobs, make_process, monkeypatch, tmp_path):
    """If the task cannot be written down its tick is not taken either, though the store went away with that."""
    process = make_process(ASOK_TASK_MODULES=["periodic_jobs"])
    process.add(jobs.work, every=3600, args=(str(tmp_path / "ran"),))
    process.at(1)
    store = open_store(process.app)

    def away(*args):
        raise BackendUnavailable("The store is away.")

    monkeypatch.setattr(store, "add", away)
    monkeypatch.setattr(store, "replace_tick", away)
    process.at(3600)

    assert store.tick("work") == Tick(process.now - 3599, "")


def test_what_cannot_be_written_down(process, caplog):
    """A function that no other process could run is told of in the log."""
    process.add(task(durable=True)(lambda: None), every=3600)
    process.at(1)

    process.at(3600)

    assert process.tasks == []
    assert "Periodic task work could not be started for 2026-11-26 01:00:00+00:00, and is tried again" in caplog.text


def test_durable_by_the_application(jobs, make_process, tmp_path):
    """ASOK_DURABLE makes runs durable too; overlap is judged as ever."""
    (tmp_path / "ran").touch()
    process = make_process(ASOK_TASK_MODULES=["periodic_jobs"], ASOK_DURABLE=True)
    process.add(jobs.work, every=60, args=(str(tmp_path / "ran"),))
    process.at(1)

    process.at(60)
    process.at(120)

    ran = [line.split()[1] for line in (tmp_path / "ran").read_text().splitlines()]
    assert ran == ["2026-11-26T00:01:00+00:00", "2026-11-26T00:02:00+00:00"]
    assert process.skipped == []


def test_in_testing_mode(jobs, tmp_path):
    """In testing mode the store is this process's memory, durable runs too; nothing is left behind."""
    (tmp_path / "ran").touch()
    app = Flask("shop")
    app.config.from_mapping(TESTING=True, SECRET_KEY="a secret", ASOK_TASK_MODULES=["periodic_jobs"])
    asok = FlaskAsok(app)
    asok.periodic(name="work", every=60, args=(str(tmp_path / "ran"),))(jobs.work)

    answer = app.test_cli_runner().invoke(args=["asok", "periodic", "run", "work"])

    assert answer.output.endswith("succeeded\n")
    assert state_of(app).kept(Clock).is_running is False
    asok.close(app)
