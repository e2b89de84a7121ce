"""A task that is given up, since its process was lost, runs nowhere meanwhile."""

import jobs
import pytest

from flask_asok import background
from flask_asok.signals import task_abandoned

ON_POSTGRES = True


@pytest.fixture
def ctx(alone):
    """The application of a worker, by a name of its own, so that no other worker takes its tasks."""
    return alone()


@pytest.fixture
def backend(ctx):
    return ctx.extensions["asok"].backend


@pytest.fixture
def store(backend):
    return backend.hub.enter()


@pytest.fixture
def lost(store):
    """Begin a task in a process that does not live."""

    def lost(task):
        assert store.begin(task.id, "a lost worker", "")[0] > 0
        return store.read(task.id)

    return lost


def test_given_up(ctx, backend, store, lost, tmp_path):
    """From when one worker gives a task up, no other one can begin it, though a message of it may still be around."""
    task = background(jobs.wait_once, tmp_path / "runs", tmp_path / "gate")
    record = lost(task)
    begun = []

    def on_abandoned(app, task):
        begun.append(store.begin(task.id, "another worker", ""))

    with task_abandoned.connected_to(on_abandoned, ctx):
        backend.worker.take_back(store, record)

    assert begun == [(0, 0)]
    ended = store.read(task.id)
    assert (ended.state, ended.attempts, ended.deaths) == ("abandoned", 0, 1)
    assert ended.error == "lost with its worker, and is to run at most once"


def test_given_up_once(ctx, backend, store, lost, tmp_path):
    """Of two workers that find the same task lost one gives it up."""
    record = lost(background(jobs.wait_once, tmp_path / "runs", tmp_path / "gate"))
    told = []

    def on_abandoned(app, task):
        told.append(task.id)

    with task_abandoned.connected_to(on_abandoned, ctx):
        for _ in range(2):
            backend.worker.take_back(store, record)

    assert told == [record.id]


def test_asked_to_stop(backend, store, lost, caplog):
    """What was asked to stop, and was lost with its worker, is cancelled, and is not sent again."""
    caplog.set_level("INFO", "asok")
    task = background(jobs.add, 1)
    lost(task)
    assert store.stop(task.id)

    backend.worker.take_back(store, store.read(task.id))

    assert (store.read(task.id).state, store.begin(task.id, "another worker", "")) == ("cancelled", (0, 0))
    assert caplog.messages[-1] == f"Background task add ({task.id}) cancelled: it was asked to stop."


def test_queue_that_is_gone(alone, config, start_worker, wait_until):
    """Each worker tells of tasks whose queue was renamed or removed, which it cannot run."""
    app = alone(ASOK_QUEUES={"reports": 1})
    background.using(queue="reports")(jobs.add, 1)
    background.using(queue="reports", delay=3_600)(jobs.add, 2)

    worker = start_worker({**config, "NAME": app.name}, "--concurrency", "1").ready()

    told = "left in the queue 'reports', which is not in ASOK_QUEUES, and no worker runs them: 2."
    wait_until(lambda: told in worker.log(), 60, "the line")
