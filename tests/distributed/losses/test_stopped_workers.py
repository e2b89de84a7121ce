"""Nothing is lost when workers are told to stop."""

import signal

import jobs
from jobs import lines

from flask_asok import background


def test_worker_told_to_stop(ctx, start, tmp_path, wait_until):
    """TERM lets a worker finish what it runs, and leaves the rest to others."""
    worker = start().ready()
    running = background(jobs.wait_for, tmp_path / "runs", tmp_path / "gate")
    queued = background(jobs.add, 1)
    wait_until(lambda: lines(tmp_path / "runs"), what="the task")

    worker.tell(signal.SIGTERM)
    wait_until(lambda: "Warm shutdown" in worker.log(), what="the shutdown")
    (tmp_path / "gate").touch()

    assert running.result(20) == "waited"
    worker.process.wait(20)
    start()
    assert queued.result(40) == 1
    assert lines(tmp_path / "runs") == ["1"]


def test_all_processes_told_to_stop(ctx, start, tmp_path, wait_until):
    """TERM to the whole group, as systemd sends it, loses nothing either."""
    worker = start().ready()
    task = background(jobs.wait_for, tmp_path / "runs", tmp_path / "gate")
    wait_until(lambda: lines(tmp_path / "runs"), what="the task")

    worker.tell_all(signal.SIGTERM)
    worker.process.wait(30)
    start()

    wait_until(lambda: len(lines(tmp_path / "runs")) == 2, 40, "the second run")
    (tmp_path / "gate").touch()
    assert task.result(20) == "waited"
