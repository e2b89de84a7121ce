"""Nothing is lost when workers are killed, and nothing runs twice beyond that."""

import os
import signal

import jobs
import pytest
from jobs import lines

from flask_asok import TaskAbandoned, background


def test_worker_started_later(ctx, start):
    """Tasks wait for a worker that is not there yet."""
    task = background(jobs.add, 1)

    start()

    assert task.result(40) == 1


def test_worker_killed(ctx, start, tmp_path, wait_until):
    """A task whose worker was killed with -9 runs again, in another worker, under the same id."""
    first = start().ready()
    task = background(jobs.wait_for, tmp_path / "runs", tmp_path / "gate")
    wait_until(lambda: lines(tmp_path / "runs"), what="the task")

    first.tell_all(signal.SIGKILL)
    start()

    wait_until(lambda: len(lines(tmp_path / "runs")) == 2, 40, "the second run")
    (tmp_path / "gate").touch()
    assert task.result(20) == "waited"
    assert (task.attempts, lines(tmp_path / "runs")) == (1, ["1", "1"])


def test_child_killed(ctx, start, tmp_path, wait_until):
    """A worker's child that is killed takes no task with it; at most once means: not again."""
    start("--concurrency", "2").ready()
    task = background(jobs.wait_for, tmp_path / "runs", tmp_path / "gate")
    once = background(jobs.wait_once, tmp_path / "once", tmp_path / "gate")
    wait_until(lambda: lines(tmp_path / "runs") and lines(tmp_path / "once"), what="the tasks")

    for pid in wait_until(lambda: children_of_workers(ctx), what="the answer of the worker"):
        os.kill(pid, signal.SIGKILL)

    wait_until(lambda: len(lines(tmp_path / "runs")) == 2, 30, "the second run")
    (tmp_path / "gate").touch()
    assert task.result(20) == "waited"
    assert background(jobs.add, 1).result(20) == 1
    assert lines(tmp_path / "once") == ["1"]
    with pytest.raises(TaskAbandoned, match="lost with its worker, and is to run at most once"):
        once.result(20)
    assert once.state == "abandoned"


def children_of_workers(app):
    """Return the pids of the pool's processes, as Celery tells them; none where no worker answers in time."""
    stats = app.extensions["asok"].backend.hub.celery_app.control.inspect(timeout=2).stats() or {}
    return [pid for worker in stats.values() for pid in worker["pool"]["processes"]]


def test_task_that_kills_its_worker(ctx, start, tmp_path):
    """A task that takes its worker along each time is abandoned after the third: state, error and log say so."""
    worker = start().ready()
    task = background(jobs.kill_me, tmp_path / "runs")

    with pytest.raises(TaskAbandoned, match="given up: 3 workers were lost with it"):
        task.result(40)
    assert len(lines(tmp_path / "runs")) == 3
    assert f"Background task kill_me ({task.id}) abandoned while running: given up" in worker.log()
    assert task.state == "abandoned"
    assert background(jobs.add, 1).result(20) == 1


def test_retry_that_was_not_sent(ctx, start, tmp_path):
    """A retry that a worker has noted, and was lost before it could send it, is sent again."""
    task = background.using(retries=1, backoff=0.1)(jobs.flaky, tmp_path / "runs", succeed_at=2)
    store = ctx.extensions["asok"].backend.hub.store
    claim, attempt = store.begin(task.id, "a worker", "")
    assert store.put_off(task.id, claim, 0.1, attempts=attempt, error="lost here", traceback="")

    start()

    assert task.result(40) == 2
    assert lines(tmp_path / "runs") == ["2"]
