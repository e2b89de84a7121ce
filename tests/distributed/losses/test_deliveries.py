"""A message is delivered in time, to one worker of its own application, however long it waits or runs."""

import os
import threading
import time

import jobs
import pytest
from jobs import lines

from flask_asok import background

only_on_redis = pytest.mark.parametrize("config", ["redis"], indirect=True)


@only_on_redis
def test_timeout_past_the_visibility(ctx):
    """A timeout under which Redis would run the task twice is refused at the call."""
    with pytest.raises(ValueError, match=r"timeout must be below 6 s, the broker's visibility_timeout"):
        background.using(timeout=6)(jobs.add, 1)


def test_long_wait(ctx, start, monkeypatch):
    """A delay longer than the broker would keep a message back is waited for in hops, and is exact all the same."""
    monkeypatch.setattr("flask_asok.backends.celery.hub.HOP_SECONDS", 0.2)
    start().ready()
    started = time.time()

    task = background.using(delay=3)(jobs.add, 1)

    assert task.result(30) == 1
    assert task.attempts == 1
    assert task.started_at.timestamp() >= started + 2


@only_on_redis
def test_message_waits_within_the_visibility_timeout(ctx):
    """A delay keeps a message no longer in a worker than Redis would leave it there."""
    assert ctx.extensions["asok"].backend.hub.longest_hop == 3


@only_on_redis
def test_message_handed_out_twice(ctx, start, tmp_path, wait_until):
    """A task that outlives the visibility timeout is handed to a second worker, which leaves it to the first."""
    worker = start("--concurrency", "2").ready()
    task = background(jobs.wait_for, tmp_path / "runs", tmp_path / "gate")

    wait_until(lambda: worker.log().count(f"[{task.id}] received") >= 2, what="the second delivery")
    assert [background(jobs.add, n).result(20) for n in range(4)] == [0, 1, 2, 3]
    (tmp_path / "gate").touch()

    assert task.result(20) == "waited"
    assert lines(tmp_path / "runs") == ["1"]


@only_on_redis
def test_other_applications_leave_messages_alone(ctx, config, start, start_worker, tmp_path, wait_until):
    """What a worker has taken is not handed out again by another application with a shorter visibility timeout."""
    short = {**config["ASOK_CELERY"]["broker_transport_options"], "visibility_timeout": 1}
    other = {"ASOK_CELERY": {**config["ASOK_CELERY"], "broker_transport_options": short}, "NAME": f"{ctx.name}b"}
    config["ASOK_CELERY"]["broker_transport_options"]["visibility_timeout"] = 60
    worker, _ = start("--concurrency", "2").ready(), start_worker(other, "--concurrency", "1").ready()
    task = background(jobs.wait_for, tmp_path / "runs", tmp_path / "gate")
    wait_until(lambda: lines(tmp_path / "runs"), what="the task")

    # Longer than the other worker waits before it hands out a message.
    with pytest.raises(TimeoutError):
        task.result(5)
    (tmp_path / "gate").touch()

    assert task.result(20) == "waited"
    assert worker.log().count(f"[{task.id}] received") == 1


def test_two_applications(ctx, config, start_worker, close):
    """Two applications share a broker: neither runs the other's tasks, shows its workers, or takes its results."""
    other = jobs.create_app(name=f"{ctx.name}b", **config)
    task = background(jobs.add, 1)
    start_worker({**config, "NAME": other.name}, "--concurrency", "1").ready()

    with other.app_context():
        theirs = background(jobs.add, 2)
        assert theirs.result(20) == 2
        status = other.extensions["asok"].backend.status()

    ours = ctx.extensions["asok"].backend.status()
    assert (len(status["workers"]), status["queued"]["default"]) == (1, 0)
    assert (ours["workers"], ours["queued"]["default"]) == ([], 1)
    assert task.state == "queued"
    assert ctx.extensions["asok"].backend.get(theirs.id) is None
    close(other)


@pytest.mark.parametrize("options", [{"delay": 1.5}, {"retries": 2, "backoff": 0.1}])
def test_waiting_for_a_task_that_is_not_due(ctx, start, options):
    """A task may wait for one with a delay or a retry though no other process is there to run it."""
    start().ready()

    assert background(jobs.wait_for_late_child, **options).result(30) == 1 + options.get("retries", 0)


def test_record_lost(ctx, start, tmp_path):
    """A task that has waited for longer than its record was kept runs, and is known again."""
    task = background(jobs.add, 1)
    ctx.extensions["asok"].backend.hub.records.remove(task.id)

    start()

    assert task.result(40) == 1
    assert ctx.extensions["asok"].backend.get(task.id).name == "add"


def test_record_lost_meanwhile(ctx, start, tmp_path, wait_until):
    """A task whose record is lost while it runs is known again, all of it, at its end."""
    start().ready()
    task = background(jobs.wait_for, tmp_path / "runs", tmp_path / "gate")
    wait_until(lambda: lines(tmp_path / "runs"), what="the task")

    ctx.extensions["asok"].backend.hub.records.remove(task.id)
    (tmp_path / "gate").touch()

    assert task.result(20) == "waited"
    assert ctx.extensions["asok"].backend.get(task.id).name == "wait_for"


def test_lease_is_renewed(ctx, monkeypatch, wait_until):
    """A process keeps the attempt that it runs for as long as it runs, and no thread stays when it runs none."""
    monkeypatch.setattr("flask_asok.backends.celery.records.BEAT_SECONDS", 0.05)
    task = background(jobs.add, 1)
    records = ctx.extensions["asok"].backend.hub.records
    key = f"{records._prefix}{task.id}:lease"

    assert records.claim(task.message) == "ours"

    records._redis.delete(key)
    wait_until(lambda: records._redis.exists(key), what="the renewal")
    assert records.claim(task.message) == "taken"
    records.release(task.id, os.getpid())
    wait_until(lambda: not any(thread.name == "asok-leases" for thread in threading.enumerate()), what="its end")
    assert records.claim(task.message) == "lost"


def test_cancelled_for_as_long_as_it_waits(ctx):
    """A cancelled task stays so until its delay is over, however long that is."""
    task = background.using(delay=7 * 86_400)(jobs.add, 1)

    assert task.cancel()

    records = ctx.extensions["asok"].backend.hub.records
    assert records._redis.ttl(records._prefix + task.id) > 7 * 86_400


def test_patience(ctx):
    """A result that does not come is waited for as long as was said, and no longer."""
    task = background(jobs.add, 1)
    started = time.monotonic()

    with pytest.raises(TimeoutError):
        task.result(1)

    assert 0.9 < time.monotonic() - started < 1.9
