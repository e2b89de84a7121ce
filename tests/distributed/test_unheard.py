"""What a worker has written down, and the store could not confirm, counts: the task neither hangs nor is lost."""

import threading

import jobs
import pytest
from jobs import lines

from flask_asok import BackendUnavailable, background
from flask_asok.backends.distributed import hub, task_record

ON_POSTGRES = True


@pytest.fixture
def ctx(alone):
    """An application that has no worker."""
    return alone()


@pytest.fixture
def store(ctx, monkeypatch):
    monkeypatch.setattr(hub, "RETRY_PAUSES", (0.0,))
    monkeypatch.setattr(task_record, "FIRST_PAUSE", 0.0)
    return ctx.extensions["asok"].backend.hub.enter()


@pytest.fixture
def cut(store, monkeypatch):
    """Let the first answers be lost that the store gives to a method."""

    def cut(name, answers=5):
        method, left = getattr(store, name), iter(range(answers))

        def unheard(*values, **options):
            found = method(*values, **options)
            if next(left, None) is not None:
                raise BackendUnavailable("The connection is gone.")
            return found

        monkeypatch.setattr(store, name, unheard)

    return cut


@pytest.fixture
def work(ctx):
    """Do what a worker does with the attempt of a task that is due."""

    def work(task):
        backend = ctx.extensions["asok"].backend
        restored = backend.worker.restored(backend.hub.packer.read_for(task.id, backend.hub.store.message_of(task.id)))
        assert restored.begin() > 0
        restored.perform_begun(threading.current_thread())

    return work


def test_begun(store, cut, work):
    """A task that this process has begun, and has not heard of it, runs here: nobody else would run it."""
    task = background(jobs.add, 1)
    cut("begin")

    work(task)

    assert (task.result(1), task.attempts) == (1, 1)


def test_key_that_is_freed(store, cut, work):
    """A task whose key could not be freed at once, as its first attempt begins, runs all the same."""
    task = background.using(unique="key", unique_until="start")(jobs.add, 1)
    cut("free")

    work(task)

    assert task.result(1) == 1


@pytest.mark.parametrize("fn", [jobs.add, jobs.fail_with], ids=["succeeded", "failed"])
def test_ended(store, cut, work, caplog, fn):
    """The end of a task that was written down, and not confirmed, counts: nobody is told that it was taken for lost."""
    task = background(fn, 1)
    cut("settle")

    work(task)

    assert not task.is_alive()
    assert "taken for lost" not in caplog.text


def test_put_off(store, cut, work, caplog, tmp_path):
    """So does an attempt that is to be repeated."""
    task = background.using(retries=1, backoff=600)(jobs.flaky, tmp_path / "runs", succeed_at=2)
    cut("put_off")

    work(task)

    assert (task.state, lines(tmp_path / "runs")) == ("waiting", ["1"])
    assert "taken for lost" not in caplog.text
