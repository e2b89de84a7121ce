"""RabbitMQ without a Redis: nothing knows a task but its message, and the worker that has it."""

import os
import signal
from pathlib import Path

import jobs
import pytest
from jobs import lines

from flask_asok import background


@pytest.fixture
def config(rabbitmq):
    return {"ASOK_CELERY": {"broker_url": rabbitmq.url}}


@pytest.fixture
def kill_child():
    """Kill the process of a worker that runs a task."""

    def kill_child(worker):
        main = worker.process.pid
        for pid in Path(f"/proc/{main}/task/{main}/children").read_text().split():
            os.kill(int(pid), signal.SIGKILL)

    return kill_child


def test_runs(ctx, start, tmp_path, wait_until):
    """Tasks run, when they are due, and are tried again; the worker says what it cannot promise."""
    worker = start().ready()

    background.using(delay=1)(jobs.count_runs, tmp_path / "late", 1)
    background.using(retries=2, backoff=0.1)(jobs.flaky, tmp_path / "flaky", 3)
    background.using(retries=1, backoff=0.1)(jobs.flaky, tmp_path / "failing", 3)

    wait_until(lambda: lines(tmp_path / "flaky") == ["1", "2", "3"], what="the retries")
    wait_until(lambda: "Background task flaky failed: ConnectionError('not yet')" in worker.log(), what="the failure")
    wait_until(lambda: lines(tmp_path / "late") == ["1"], what="the delayed task")
    assert lines(tmp_path / "failing") == ["1", "2"]
    assert "No Redis keeps the tasks" in worker.log()


def test_child_killed(ctx, start, tmp_path, wait_until, kill_child):
    """A task whose process is killed runs again, in the same attempt; one that is to run at most once does not."""
    worker = start().ready()
    background(jobs.wait_for, tmp_path / "runs", tmp_path / "gate")
    wait_until(lambda: lines(tmp_path / "runs"), what="the task")
    kill_child(worker)
    wait_until(lambda: len(lines(tmp_path / "runs")) == 2, what="the second run")
    (tmp_path / "gate").touch()

    once = background(jobs.wait_once, tmp_path / "once", tmp_path / "another gate")
    wait_until(lambda: lines(tmp_path / "once"), what="the task that is to run at most once")
    kill_child(worker)

    line = f"({once.id}) abandoned while running: lost with its worker, and is to run at most once"
    wait_until(lambda: line in worker.log(), what="the line in the log")
    background(jobs.count_runs, tmp_path / "others", 1)
    wait_until(lambda: lines(tmp_path / "others"), what="another task")
    assert lines(tmp_path / "runs") == ["1", "1"]
    assert lines(tmp_path / "once") == ["1"]


def test_worker_killed(ctx, start, tmp_path, wait_until):
    """What a killed worker runs, has taken, and keeps until it is due, another one gets from the broker."""
    first = start().ready()
    background(jobs.wait_for, tmp_path / "runs", tmp_path / "gate")
    wait_until(lambda: lines(tmp_path / "runs"), what="the task")
    for number in range(3):
        background(jobs.count_runs, tmp_path / "others", number)
    background.using(delay=1)(jobs.count_runs, tmp_path / "late", 1)

    first.tell_all(signal.SIGKILL)
    first.process.wait(10)
    (tmp_path / "gate").touch()
    start()

    wait_until(lambda: len(lines(tmp_path / "runs")) == 2, 40, "the second run")
    wait_until(lambda: sorted(lines(tmp_path / "others")) == ["0", "1", "2"], what="what was taken")
    wait_until(lambda: lines(tmp_path / "late"), what="the delayed task")


def test_time_limit(ctx, start, tmp_path, wait_until):
    """A task that runs past its timeout is killed, and named in the log; it does not run again."""
    worker = start().ready()

    task = background.using(timeout=1)(jobs.run_forever, tmp_path / "runs")

    wait_until(lambda: f"({task.id}) failed: stopped at its time limit" in worker.log(), what="the line in the log")
    background(jobs.count_runs, tmp_path / "others", 1)
    wait_until(lambda: lines(tmp_path / "others"), what="another task")
    # It marks its start, and that it was interrupted.
    assert len(lines(tmp_path / "runs")) == 2


def test_unknown_function(ctx, start, tmp_path, wait_until, monkeypatch):
    """A call that the worker's code does not know is named in the log, and dropped: nobody else could keep it."""

    def newer():
        pass

    newer.__qualname__ = "newer"
    newer.__module__ = "jobs"
    monkeypatch.setattr(jobs, "newer", newer, raising=False)
    worker = start().ready()

    task = background(newer)

    line = f"Background task newer ({task.id}) failed: refused by its worker"
    wait_until(lambda: line in worker.log(), what="the line in the log")
    background(jobs.count_runs, tmp_path / "others", 1)
    wait_until(lambda: lines(tmp_path / "others"), what="another task")
