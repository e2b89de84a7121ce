"""What Celery itself ends or is configured to do leaves no task behind."""

import os

import jobs
import pytest
from jobs import lines

from flask_asok import TaskCancelled, background


@pytest.mark.parametrize("config", ["redis"], indirect=True)
def test_revoked(ctx, start, tmp_path, wait_until):
    """What Celery's own `revoke` keeps from running, or terminates, is cancelled, and says so."""
    worker = start().ready()
    control = ctx.extensions["asok"].backend.hub.celery_app.control
    running = background(jobs.wait_for, tmp_path / "runs", tmp_path / "gate")
    wait_until(lambda: lines(tmp_path / "runs"), what="the task")
    queued = background(jobs.mark, tmp_path / "marks")

    control.broadcast("revoke", {"task_id": queued.id}, reply=True, timeout=10, limit=1)
    control.broadcast(
        "revoke", {"task_id": running.id, "terminate": True, "signal": "SIGKILL"}, reply=True, timeout=10, limit=1
    )

    for task in (running, queued):
        with pytest.raises(TaskCancelled):
            task.result(20)
    assert (running.state, running.error) == ("cancelled", "terminated by Celery")
    assert background(jobs.add, 1).result(20) == 1
    assert lines(tmp_path / "marks") == []
    assert f"Background task mark ({queued.id}) cancelled: it was revoked by Celery." in worker.log()
    assert lines(tmp_path / "runs") == ["1"]


def test_settings_of_the_application(redis, start_worker, close, lose, tmp_path, wait_until):
    """An application's own Celery, with late acknowledgements and a visibility timeout of an hour, loses nothing."""
    own = {"broker_url": redis.url, "task_acks_late": True, "worker_prefetch_multiplier": 4}
    shared = {"OWN_CELERY": own, "NAME": f"jobs{os.urandom(4).hex()}", "ASOK_CELERY": {}}
    app = jobs.create_app(**shared)
    with app.app_context():
        first = start_worker(shared, "--concurrency", "1").ready()
        running = background(jobs.wait_for, tmp_path / "runs", tmp_path / "gate")
        wait_until(lambda: lines(tmp_path / "runs"), what="the task")
        taken = [background(jobs.add, number) for number in range(3)]
        wait_until(lambda: first.log().count("received") == 4, what="the prefetching")

        lose(first, app)
        (tmp_path / "gate").touch()
        start_worker(shared, "--concurrency", "1")

        assert running.result(40) == "waited"
        assert [task.result(40) for task in taken] == [0, 1, 2]
    assert lines(tmp_path / "runs") == ["1", "1"]
    close(app)
