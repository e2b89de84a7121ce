"""A message is delivered in time, to one worker of its own application, however long it waits or runs."""

import time

import jobs
import pytest
import redis as redis_py
from jobs import lines

from flask_asok import background

only_on_redis = pytest.mark.parametrize("config", ["redis"], indirect=True)


@only_on_redis
def test_timeout_past_the_visibility(ctx, start):
    """A timeout may be longer than Redis leaves a message to a worker."""
    start().ready()

    assert background.using(timeout=7200)(jobs.add, 1).result(20) == 1


def test_not_due(ctx, start, redis):
    """A task that is not due is in no broker, is sent when it is, and its clock is that of Redis."""
    start().ready()
    backend = ctx.extensions["asok"].backend
    late = background.using(delay=600)(jobs.add, 1)
    queued, state = backend.status()["queued"]["default"], late.state
    task = background.using(delay=1)(jobs.add, 1)

    assert task.result(30) == 1
    assert (queued, state) == (0, "waiting")
    assert (task.attempts, late.state) == (1, "waiting")
    record = backend.hub.store.read(task.id)
    assert record.due <= record.started < record.due + 20


@pytest.mark.parametrize("options", [{}, {"delay": 60}, {"delay": 60, "unique": "key"}])
@pytest.mark.parametrize("hours", [-1, 1])
def test_clock_of_the_caller(ctx, redis, monkeypatch, options, hours):
    """A delay, and none, is counted by the clock of Redis, however wrong the one of the caller's machine is."""
    now = time.time
    monkeypatch.setattr(time, "time", lambda: now() + 3600 * hours)

    task = background.using(**options)(jobs.add, 1)

    record = ctx.extensions["asok"].backend.hub.store.read(task.id)
    with redis_py.from_url(redis.url) as client:
        seconds, micros = client.time()
    left = record.due - (seconds + micros / 1e6)
    assert (0 < left <= 60) if options else left <= 0


def test_delivered_twice(ctx, start, tmp_path, wait_until):
    """A message that comes a second time, while its task runs and after it, makes no second run."""
    start("--concurrency", "2").ready()
    hub = ctx.extensions["asok"].backend.hub
    task = background(jobs.wait_for, tmp_path / "runs", tmp_path / "gate")
    wait_until(lambda: lines(tmp_path / "runs"), what="the task")

    hub.publish(task.message)
    assert [background(jobs.add, n).result(20) for n in range(4)] == [0, 1, 2, 3]
    (tmp_path / "gate").touch()
    assert task.result(20) == "waited"
    hub.publish(task.message)

    assert background(jobs.add, 1).result(20) == 1
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


def test_two_applications(ctx, config, start_worker, close, wait_until):
    """Two applications share a broker: neither runs the other's tasks, shows its workers, or takes its results."""
    other = jobs.create_app(name=f"{ctx.name}b", **config)
    task = background(jobs.add, 1)
    start_worker({**config, "NAME": other.name}, "--concurrency", "1").ready()

    with other.app_context():
        theirs = background(jobs.add, 2)
        assert theirs.result(20) == 2
        look = other.extensions["asok"].backend.status
        # A busy worker may not answer within the second that it has.
        status = wait_until(lambda: (found := look())["workers"] and found, what="the answer of the worker")

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


def test_record_lost(ctx, start):
    """A task whose record Redis has lost, and whose message the broker has, runs, and is known again."""
    task = background(jobs.add, 1)
    store = ctx.extensions["asok"].backend.hub.store
    store.redis.delete(store.key(f"task:{task.id}"))

    start()

    assert task.result(40) == 1
    assert ctx.extensions["asok"].backend.get(task.id).name == "add"


def test_cancelled_long_ago(ctx, start, wait_until, tmp_path):
    """A task that was cancelled does not run though its message comes when its record is gone, a day later."""
    hub = ctx.extensions["asok"].backend.hub
    publish, hub.publish = hub.publish, lambda *_, **__: None
    task = background(jobs.mark, tmp_path / "runs")
    hub.publish = publish
    assert task.cancel()
    hub.store.redis.delete(hub.store.key(f"task:{task.id}"))
    task.message.enqueued -= 90_000
    hub.publish(task.message)

    worker = start()

    wait_until(lambda: f"({task.id}) is dropped: its record is gone" in worker.log(), 40, "the line")
    assert lines(tmp_path / "runs") == []


def test_patience(ctx):
    """A result that does not come is waited for as long as was said, and not for ever."""
    task = background(jobs.add, 1)
    started = time.monotonic()

    with pytest.raises(TimeoutError):
        task.result(1)

    assert time.monotonic() - started >= 1


@only_on_redis
def test_one_client(ctx, monkeypatch):
    """A process makes the client of its channel once, however many tasks it sends: kombu makes one for each."""
    made, make = [], redis_py.Redis.__init__

    def counting(client, *args, **options):
        made.append(client)
        make(client, *args, **options)

    background(jobs.add, 1)
    monkeypatch.setattr(redis_py.Redis, "__init__", counting)

    for number in range(5):
        background(jobs.add, number)

    assert made == []
