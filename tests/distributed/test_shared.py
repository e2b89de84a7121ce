"""What every process sees of a task on Celery: its state, progress and result; and what it can do about it."""

import os
import signal
import subprocess
import sys
import threading

import jobs
import pytest
import redis as redis_py
from jobs import lines

from flask_asok import (
    BackendUnavailable,
    FlaskAsok,
    ResultNotKept,
    TaskAbandoned,
    TaskCancelled,
    TaskTimeout,
    background,
)

ON_POSTGRES = True

of_celery = pytest.mark.parametrize("config", ["redis", "rabbitmq"], indirect=True)

asok = FlaskAsok()


@pytest.fixture
def elsewhere(other):
    """Look at a task as another process does."""

    def elsewhere(id):
        with other.app_context():
            return asok.get(id)

    return elsewhere


def test_result_from_elsewhere(ctx, elsewhere):
    """Any process waits for a task by its id, and gets what the function returned."""
    id = background(jobs.add, 1, b=2).id

    handle = elsewhere(id)

    assert handle.result(20) == 3
    assert (handle.id, handle.name, handle.queue, handle.state) == (id, "add", "default", "succeeded")
    assert (handle.attempts, handle.error, handle.is_alive()) == (1, None, False)
    assert handle.enqueued_at <= handle.started_at <= handle.finished_at
    assert isinstance(handle, threading.Thread)


def test_error_from_elsewhere(ctx, elsewhere):
    """Any process sees the error that a task raised, as the error that it was."""
    handle = elsewhere(background(jobs.close_shop, "closed").id)

    error = handle.exception(20)

    assert (type(error), str(error)) == (jobs.ShopClosed, "closed")
    assert (handle.state, handle.error) == ("failed", "ShopClosed('closed')")
    with pytest.raises(jobs.ShopClosed):
        handle.result(20)


@of_celery
def test_timeout(ctx):
    """A task past its timeout gets a TaskTimeout, which code for Celery catches as well; its caller gets the first."""
    start = background.using(timeout=1)
    ours, celerys = start(jobs.catch_timeout, "TaskTimeout"), start(jobs.catch_timeout, "SoftTimeLimitExceeded")
    task = start(jobs.catch_timeout, "KeyError")

    assert (ours.result(20), celerys.result(20)) == ("caught TaskTimeout", "caught SoftTimeLimitExceeded")
    with pytest.raises(TaskTimeout, match="has reached its time limit"):
        task.result(20)
    assert task.state == "failed"


def test_result_that_cannot_be_sent(ctx, elsewhere):
    """A value that cannot be kept is not None: the handle says why there is none."""
    handle = elsewhere(background(jobs.not_json).id)
    handle.join(20)

    with pytest.raises(ResultNotKept, match="What not_json returned"):
        handle.result(1)

    assert (handle.state, handle.exception(1)) == ("succeeded", None)


def test_progress_travels(ctx, other, elsewhere, tmp_path, wait_until):
    """What a task reports in its worker is seen in every process, never goes back, and ends with its last report."""
    gate = tmp_path / "gate"
    task = background(jobs.count, str(tmp_path / "ran"), str(gate), 1_000_000)
    handle = elsewhere(task.id)

    first = wait_until(lambda: handle.progress, what="the first report")
    second = wait_until(lambda: handle.progress.done > first.done and handle.progress, what="a later report")
    polled = other.test_client().get(f"/status/{task.id}").get_json()
    gate.touch()
    task.join(20)

    assert (second.total, second.text) == (1_000_000, "Counting")
    assert (polled["state"], polled["progress"]["total"]) == ("running", 1_000_000)
    assert second.done <= polled["progress"]["done"]
    assert (handle.state, handle.progress.fraction, handle.progress.text) == ("succeeded", 1.0, "Counted")
    assert task.progress == handle.progress
    assert handle.as_dict() == other.test_client().get(f"/status/{task.id}").get_json() == task.as_dict()
    # One a second, of the hundred that it makes; by another clock than the one that counts the second.
    assert second.at - first.at > 0.5


def test_progress_of_the_next_attempt(ctx, elsewhere, tmp_path, wait_until):
    """The progress of an attempt that failed is shown until the next one begins."""
    ran, gate = tmp_path / "ran", tmp_path / "gate"
    late = background.using(retries=1, backoff=600)(jobs.count_and_fail, str(ran), str(gate))
    task = background.using(retries=1, backoff=0.1)(jobs.count_and_fail, str(ran), str(gate))
    waits, handle = elsewhere(late.id), elsewhere(task.id)

    wait_until(lambda: waits.state == "waiting", what="the wait for the retry")
    waiting = waits.progress
    wait_until(lambda: lines(ran), what="the second attempt")
    running = handle.progress
    gate.touch()
    handle.join(20)

    assert waits.cancel()
    assert waiting.done == 7
    assert running is None
    assert (handle.attempts, handle.state, handle.progress) == (2, "succeeded", None)


def test_stop_a_running_task(ctx, other, elsewhere, tmp_path, wait_until):
    """A task that runs in a worker stops at its next report when any process asks it to, and is cancelled."""
    ran = tmp_path / "ran"
    task = background(jobs.count, str(ran), str(tmp_path / "gate"), 1_000_000)
    wait_until(lambda: lines(ran), what="the start of the task")
    wait_until(lambda: task.state == "running", what="the claim")

    with other.app_context():
        refused = asok.cancel(task.id)
        asked = asok.cancel(task.id, running=True)
    elsewhere(task.id).join(20)

    assert (refused, asked) == (False, True)
    assert task.state == elsewhere(task.id).state == "cancelled"
    assert lines(ran) == ["1"]
    with pytest.raises(TaskCancelled):
        elsewhere(task.id).result(1)
    with other.app_context():
        assert not asok.cancel(task.id, running=True)


def test_stop_from_within(ctx, elsewhere):
    """A task that asks itself to stop stops at its very next report."""
    handle = elsewhere(background(jobs.cancel_me).id)

    handle.join(20)

    assert handle.state == "cancelled"


def test_cancel_from_elsewhere(ctx, other, elsewhere, tmp_path):
    """A task that has not begun is cancelled by its id, from any process, by a handle or by a button."""
    ran = tmp_path / "ran"
    tasks = [background.using(delay=60)(jobs.flaky, str(ran), 1) for _ in range(2)]

    with other.app_context():
        by_id, by_handle = asok.cancel(tasks[0].id), asok.get(tasks[1].id).cancel()
        unknown = asok.cancel("0" * 32, running=True)

    assert (by_id, by_handle, unknown) == (True, True, False)
    assert [task.state for task in tasks] == ["cancelled", "cancelled"]
    assert [elsewhere(task.id).as_dict()["state"] for task in tasks] == ["cancelled", "cancelled"]


def test_waiting_in_a_task_for_one_of_another_process(ctx):
    """Tasks that fill all processes and wait by id for tasks that need one run those in place; a limit is kept."""
    children = [background.using(delay=1)(jobs.add, n) for n in range(2)]
    late = background.using(delay=60)(jobs.add, 1)

    waiting = [background(jobs.wait_by_id, child.id) for child in children]

    assert [task.result(20) for task in waiting] == [0, 1]
    with pytest.raises(TimeoutError, match=r"Task add is waiting after 0\.1 s"):
        background(jobs.wait_by_id, late.id, 0.1).result(20)
    late.cancel()


@of_celery
def test_record_that_is_gone(ctx, elsewhere, redis):
    """A handle elsewhere ends as abandoned when Redis has lost the record, and says so."""
    handle = elsewhere(background.using(delay=60)(jobs.add, 1).id)
    with redis_py.Redis(port=redis.port) as client:
        assert client.delete(f"asok:jobs:task:{handle.id}")

    handle.join(20)

    assert (handle.state, handle.error) == ("abandoned", "its record is gone from the store")
    with pytest.raises(TaskAbandoned, match="its record is gone from the store"):
        handle.result(20)


def test_tasks_from_elsewhere(ctx, other, tmp_path):
    """The newest tasks of all processes are listed, the oldest of them first, by state, name and queue."""
    done = background.using(name="listed")(jobs.add, 1)
    failed = background.using(name="listed", queue="mail")(jobs.close_shop, "closed")
    late = background.using(name="listed", delay=60)(jobs.add, 1)
    done.join(20)
    failed.join(20)

    with other.app_context():
        listed = asok.tasks(name="listed", limit=3)
        of_state = [summary.id for summary in asok.tasks(state="failed", limit=1)]
        of_queue = [summary.id for summary in asok.tasks(queue="mail", name="listed", limit=1)]
        none = asok.tasks(limit=0)
    printed = other.test_cli_runner().invoke(args=["asok", "tasks", "--name", "listed", "--limit", "3"]).output
    late.cancel()

    assert [summary.id for summary in listed] == [done.id, failed.id, late.id]
    assert [summary.state for summary in listed] == ["succeeded", "failed", "waiting"]
    assert [summary.attempts for summary in listed] == [1, 1, 0]
    assert of_state == of_queue == [failed.id]
    assert none == []
    assert [line.split()[0] for line in printed.splitlines()] == [done.id, failed.id, late.id], printed


def test_queues_and_processes(ctx, other, worker, tmp_path, wait_until):
    """The queues tell what is in them, and the workers that live are known by host, process and queues."""
    ran, gate = tmp_path / "ran", tmp_path / "gate"
    running = background.using(queue="images")(jobs.wait_for, str(ran), str(gate))
    late = background.using(queue="images", delay=60)(jobs.add, 1)
    wait_until(lambda: lines(ran), what="the start of the task")

    with other.app_context():
        # A worker may run its first task before it is listed itself.
        wait_until(lambda: worker.process.pid in [each.pid for each in asok.processes()], what="the worker's entry")
        queues = {queue.name: queue for queue in asok.queues()}
        processes = asok.processes()
    gate.touch()
    running.join(20)
    late.cancel()

    assert (queues["images"].running, queues["images"].waiting, queues["images"].queued) == (1, 1, 0)
    assert set(queues) == {"default", "webhooks", "images", "mail", "cache"}
    assert worker.process.pid in [process.pid for process in processes]
    (mine,) = [process for process in processes if process.pid == worker.process.pid]
    assert (mine.kind, set(mine.queues)) == ("worker", set(queues))
    with other.app_context():
        assert {queue.name: queue.running for queue in asok.queues()}["images"] == 0


def test_another_process_really(ctx, config, tmp_path):
    """A process of its own, which has sent nothing, gets the result by the id."""
    task = background(jobs.add, 20, b=3)
    code = (
        "import sys, jobs\n"
        "app = jobs.create_app()\n"
        "with app.app_context():\n"
        "    print(app.extensions['asok_of_tests'].get(sys.argv[1]).result(20))\n"
    )
    path = os.pathsep.join(filter(None, [os.path.dirname(jobs.__file__), os.environ.get("PYTHONPATH")]))

    ended = subprocess.run(
        [sys.executable, "-c", code, task.id],
        env={**os.environ, "PYTHONPATH": path, "JOBS_CONFIG": jobs.json.dumps(config)},
        capture_output=True, text=True, timeout=40, check=False,
    )  # fmt: skip

    assert (ended.stdout, ended.stderr) == ("23\n", "")


def test_progress_while_redis_is_away(own_redis, start_worker, close, tmp_path, wait_until):
    """A task whose progress cannot be written runs on, and a handle says that Redis is away."""
    config = {"ASOK_CELERY": {"broker_url": own_redis.url}}
    ran, gate = tmp_path / "ran", tmp_path / "gate"
    worker = start_worker(config, "--concurrency", "1").ready()
    app = jobs.create_app(**config)
    with app.app_context():
        task = background(jobs.count, str(ran), str(gate), 1_000)
        handle = asok.get(task.id)
        wait_until(lambda: handle.progress, what="the first report")

        own_redis.tell(signal.SIGSTOP)
        with pytest.raises(BackendUnavailable):
            asok.get(task.id)
        wait_until(lambda: "its record could not be written" in worker.log(), what="the warning")
        own_redis.tell(signal.SIGCONT)
        gate.touch()
        handle.join(30)

        assert (handle.state, handle.progress.fraction) == ("succeeded", 1.0)
        assert lines(ran) == ["1"]
    close(app)
