"""Nothing is lost when workers and brokers are killed, and nothing runs twice beyond that."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import jobs
import pytest

from flask_asok import BackendUnavailable, NotConfigured, TaskAbandoned, background


def lines(path):
    return path.read_text().split() if path.exists() else []


@pytest.fixture(params=["redis", "rabbitmq"])
def config(request, redis):
    """Redis takes a message back six seconds after its worker has gone silent: an hour would be long for a test."""
    if request.param == "rabbitmq":
        return {"ASOK_CELERY": {"broker_url": request.getfixturevalue("rabbitmq").url, "result_backend": redis.url}}
    options = {"visibility_timeout": 6, "unacked_restore_interval": 1, "unacked_restore_throttle": 1}
    return {"ASOK_CELERY": {"broker_url": redis.url, "broker_transport_options": options}}


only_on_redis = pytest.mark.parametrize("config", ["redis"], indirect=True)


@pytest.fixture
def ctx(config, close):
    app = jobs.create_app(name=f"jobs{os.urandom(4).hex()}", **config)
    with app.app_context():
        yield app
    close(app)


@pytest.fixture
def start(ctx, config, start_worker):
    """Start a worker of the test's application."""

    def start(*options):
        return start_worker({**config, "NAME": ctx.name}, *(options or ("--concurrency", "1")))

    return start


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

    for pid in children_of_workers(ctx):
        os.kill(pid, signal.SIGKILL)

    wait_until(lambda: len(lines(tmp_path / "runs")) == 2, 30, "the second run")
    (tmp_path / "gate").touch()
    assert task.result(20) == "waited"
    assert background(jobs.add, 1).result(20) == 1
    assert lines(tmp_path / "once") == ["1"]
    with pytest.raises(TaskAbandoned, match="lost with its worker, and is to run at most once"):
        once.result(20)


def children_of_workers(app):
    """Return the pids of the pool's processes, as Celery tells them."""
    stats = app.extensions["asok"].backend.engine.control.inspect(timeout=2).stats()
    return [pid for worker in stats.values() for pid in worker["pool"]["processes"]]


def test_task_that_kills_its_worker(ctx, start, tmp_path):
    """A task that takes its worker along each time is given up after the third, and told so."""
    worker = start().ready()
    task = background(jobs.kill_me, tmp_path / "runs")

    with pytest.raises(TaskAbandoned, match="given up: 3 workers were lost with it"):
        task.result(40)
    assert len(lines(tmp_path / "runs")) == 3
    assert f"Background task kill_me ({task.id}) failed: given up" in worker.log()
    assert background(jobs.add, 1).result(20) == 1


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


def test_broker_restarted(own_broker, redis, start_worker, close):
    """What was accepted is still there after the broker was killed and came back, and what comes then is accepted."""
    config = {"ASOK_CELERY": {"broker_url": own_broker.url, "result_backend": redis.url}}
    app = jobs.create_app(name=f"jobs{os.urandom(4).hex()}", **config)
    with app.app_context():
        before = [burst(app), burst(app)]

        own_broker.stop(signal.SIGKILL)
        own_broker.start()

        # On connections that the broker has left meanwhile.
        tasks = [*before[0], *before[1], *burst(app)]
        assert app.extensions["asok"].backend.status()["queued"]["default"] == len(tasks) == 24
        start_worker({**config, "NAME": app.name}, "--concurrency", "1")
        assert [task.result(40) for task in tasks] == [1] * 24
    close(app)


def burst(app):
    """Start eight tasks at once, on a connection each."""

    def start(barrier, tasks):
        with app.app_context():
            barrier.wait(10)
            tasks.append(background(jobs.add, 1))

    barrier, tasks = threading.Barrier(8), []
    threads = [threading.Thread(target=start, args=(barrier, tasks)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    return tasks


def test_broker_that_hangs(own_broker, redis, close):
    """A broker that stands still is noticed as soon as one that is down, also on a connection that is open."""
    app = jobs.create_app(ASOK_CELERY={"broker_url": own_broker.url, "result_backend": redis.url})
    with app.app_context():
        background(jobs.add, 1)

        own_broker.tell(signal.SIGSTOP)
        try:
            started = time.monotonic()
            with pytest.raises(BackendUnavailable):
                background(jobs.add, 1)
            took = time.monotonic() - started
        finally:
            own_broker.tell(signal.SIGCONT)

    assert took < 3 * 2.5
    close(app)


FORKING = """
import os, jobs
from flask_asok import background

app = jobs.create_app()
with app.app_context():
    background(jobs.add, 1)
    children = []
    for _ in range(2):
        child = os.fork()
        if not child:
            for _ in range(10):
                background(jobs.add, 1)
            os._exit(0)
        children.append(child)
    for _ in range(10):
        background(jobs.add, 1)
    assert [os.waitpid(child, 0)[1] for child in children] == [0, 0]
    background(jobs.add, 1)
"""


def test_forked(ctx, config):
    """A process that was forked with open connections, as by gunicorn --preload, sends on connections of its own."""
    path = os.pathsep.join(filter(None, [str(Path(jobs.__file__).parent), os.environ.get("PYTHONPATH")]))
    environ = {**os.environ, "PYTHONPATH": path, "JOBS_CONFIG": json.dumps({**config, "NAME": ctx.name})}

    done = subprocess.run([sys.executable, "-c", FORKING], env=environ, capture_output=True, text=True, timeout=60)

    assert done.returncode == 0, done.stderr
    assert ctx.extensions["asok"].backend.status()["queued"]["default"] == 32


def test_redis_away_when_a_task_ends(own_redis, start_worker, close, tmp_path, wait_until):
    """A task that ends while Redis restarts has done its work once, and its result is there afterwards."""
    config = {"ASOK_CELERY": {"broker_url": own_redis.url}}
    app = jobs.create_app(**config)
    start_worker(config, "--concurrency", "1").ready()
    with app.app_context():
        task = background.using(retries=1)(jobs.wait_and_mark, tmp_path / "runs", tmp_path / "gate")
    wait_until(lambda: lines(tmp_path / "runs"), what="the task")

    own_redis.stop(signal.SIGKILL)
    (tmp_path / "gate").touch()
    wait_until(lambda: len(lines(tmp_path / "runs")) == 2, what="the end of the task")
    own_redis.start()

    wait_until(lambda: settled(task), 40, "the result")
    assert task.result(1) == "marked"
    assert lines(tmp_path / "runs") == ["1", "1"]
    close(app)


def settled(task):
    with contextlib.suppress(BackendUnavailable):
        return not task.is_alive()


def test_broker_down(own_redis, close, caplog):
    """Without its broker background() fails soon, and then at once, or runs the task here, as ASOK_FALLBACK says."""
    config = {"ASOK_CELERY": {"broker_url": own_redis.url.replace("redis://", "redis://:a-password@")}}
    raising, running = jobs.create_app(**config), jobs.create_app(ASOK_FALLBACK="threads", **config)
    own_redis.stop()

    with raising.app_context():
        started = time.monotonic()
        with pytest.raises(BackendUnavailable) as caught:
            background(jobs.add, 1)
        first = time.monotonic() - started
        with pytest.raises(BackendUnavailable, match="a moment ago"):
            background(jobs.add, 1)
    with running.app_context():
        task = background(jobs.echo, Path("x"))
        assert task.result(10) == [Path("x"), {}]

    assert first < 3 * 2.5
    assert task.state == "succeeded"
    assert "Background task echo runs in this process." in caplog.text
    assert "a-password" not in caplog.text + str(caught.value)
    close(raising)
    close(running)


def test_time_limit(ctx, start, tmp_path):
    """A task past its timeout is interrupted, and where it does not listen, killed; the worker goes on."""
    start().ready()
    task = background.using(timeout=1)(jobs.run_forever, tmp_path / "runs")

    with pytest.raises(TaskAbandoned, match="stopped at its time limit"):
        task.result(40)
    assert task.state == "failed"
    assert background(jobs.add, 1).result(20) == 1
    assert len(lines(tmp_path / "runs")) == 2


@only_on_redis
def test_timeout_past_the_visibility(ctx):
    """A timeout under which Redis would run the task twice is refused at the call."""
    with pytest.raises(ValueError, match=r"timeout must be below 6 s, the broker's visibility_timeout"):
        background.using(timeout=6)(jobs.add, 1)


def test_long_wait(ctx, start, monkeypatch):
    """A delay longer than the broker would keep a message back is waited for in hops, and is exact all the same."""
    monkeypatch.setattr("flask_asok.backends.celery.HOP_SECONDS", 0.2)
    start().ready()
    started = time.time()

    task = background.using(delay=3)(jobs.add, 1)

    assert task.result(30) == 1
    assert task.attempts == 1
    assert task.started_at.timestamp() >= started + 2


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


def test_worker_killed_that_ran_a_task_in_place(ctx, start, tmp_path, wait_until):
    """A task that another one was running while it waited for it is not lost with them."""
    first = start().ready()
    background(jobs.wait_for_child, tmp_path / "ids", tmp_path / "runs", tmp_path / "gate")
    wait_until(lambda: lines(tmp_path / "runs"), what="the child")

    first.tell_all(signal.SIGKILL)
    (tmp_path / "gate").touch()
    start("--concurrency", "2")

    backend = ctx.extensions["asok"].backend
    child = lines(tmp_path / "ids")[0]
    wait_until(lambda: backend.get(child).state == "succeeded", 40, "the end of the child")


def test_at_most_once_in_place(ctx, start, tmp_path, wait_until):
    """A task that is to run at most once is not run again either where it ran in a task that waited for it."""
    first = start().ready()
    background(jobs.wait_once_in_place, tmp_path / "ids", tmp_path / "runs", tmp_path / "gate")
    wait_until(lambda: lines(tmp_path / "runs"), what="the child")

    first.tell_all(signal.SIGKILL)
    (tmp_path / "gate").touch()
    start("--concurrency", "2")

    child = lines(tmp_path / "ids")[0]
    backend = ctx.extensions["asok"].backend
    wait_until(lambda: backend.get(child).state == "failed", 40, "the end of the child")
    assert "is to run at most once" in backend.get(child).error
    # The parent, which is to run at least once, has made another child.
    assert lines(tmp_path / "runs").count("1") <= len(lines(tmp_path / "ids"))


@pytest.mark.parametrize("options", [{"delay": 1.5}, {"retries": 2, "backoff": 0.1}])
def test_waiting_for_a_task_that_is_not_due(ctx, start, options):
    """A task may wait for one with a delay or a retry though no other process is there to run it."""
    start().ready()

    assert background(jobs.wait_for_late_child, **options).result(30) == 1 + options.get("retries", 0)


def test_retry_that_was_not_sent(ctx, start, tmp_path):
    """A retry that a worker has noted, and was lost before it could send it, is sent again."""
    task = background.using(retries=1, backoff=0.1)(jobs.flaky, tmp_path / "runs", succeed_at=2)
    records = ctx.extensions["asok"].backend.records
    assert records.claim(task.id, 1, {}) == "ours"
    records.wait(task.id, 2, "lost here", 0.1)

    start()

    assert task.result(40) == 2
    assert lines(tmp_path / "runs") == ["2"]


def test_without_records(rabbitmq, close):
    """Where no Redis keeps the records a task is sent all the same; who asks for it is told what is missing."""
    app = jobs.create_app(name=f"jobs{os.urandom(4).hex()}", ASOK_CELERY={"broker_url": rabbitmq.url})

    with app.app_context():
        task = background(jobs.add, 1)

        assert app.extensions["asok"].backend.status()["queued"]["default"] == 1
        for ask in (task.cancel, task.join, task.result):
            with pytest.raises(NotConfigured, match="result_backend"):
                ask()
        assert task.state == "queued"
    close(app)


def test_redis_by_its_celery_url(celery_url, close):
    """A Redis behind TLS or a socket is found for the records too by the URL that Celery wants for it."""
    app = jobs.create_app(ASOK_CELERY={"broker_url": celery_url})

    with app.app_context():
        task = background(jobs.add, 1)

        assert task.state == "queued"
        assert app.extensions["asok"].backend.status()["queued"]["default"] == 1
    close(app)


def test_no_broker():
    """Without a broker in the configuration the call says what to set."""
    app = jobs.create_app(ASOK_CELERY={})

    with app.app_context(), pytest.raises(NotConfigured, match="broker_url"):
        background(jobs.add, 1)


def test_celery_of_the_application(config, start_worker, close):
    """An application that has a Celery of its own keeps it; ours sends and runs by it."""
    app = jobs.create_app(ASOK_CELERY={}, OWN_CELERY=config["ASOK_CELERY"], NAME=f"jobs{os.urandom(4).hex()}")
    start_worker({"OWN_CELERY": config["ASOK_CELERY"], "NAME": app.name, "ASOK_CELERY": {}}, "--concurrency", "1")

    with app.app_context():
        task = background(jobs.add, 1)

        assert task.result(40) == 1
        assert app.extensions["asok"].backend.engine is app.extensions["celery"]
    close(app)


@pytest.mark.parametrize("options", [["-P", "gevent"], ["-Pgevent"], ["--pool=gevent"], ["--pool", "gevent"]])
def test_gevent_that_is_not_patched(own_redis, options):
    """A worker that could run nothing says what to do, and does not start."""
    app = jobs.create_app(ASOK_CELERY={"broker_url": own_redis.url})

    done = app.test_cli_runner().invoke(args=["asok", "worker", *options])

    assert done.exit_code == 2
    assert "python -m gevent.monkey --module flask" in done.output


def test_unknown_queue_of_a_worker(own_redis):
    """A worker for a queue that is not there does not start."""
    app = jobs.create_app(ASOK_CELERY={"broker_url": own_redis.url})

    done = app.test_cli_runner().invoke(args=["asok", "worker", "--queues", "mail, nothing"])

    assert done.exit_code == 2
    assert "Unknown queue nothing. Queues are: cache, default" in done.output


@pytest.mark.parametrize("pool", [["-P", "threads", "--concurrency", "2"], ["--pool=solo"]])
def test_other_pools(ctx, start, pool):
    """Celery's own options reach its worker."""
    start("--queues", "default, mail", *pool).ready()

    assert background(jobs.add_all, 2).result(30) == 4
    assert background.using(queue="mail")(jobs.add, 1).result(20) == 1


def test_record_lost(ctx, start, tmp_path):
    """A task that has waited for longer than its record was kept runs, and is known again."""
    task = background(jobs.add, 1)
    ctx.extensions["asok"].backend.records.remove(task.id)

    start()

    assert task.result(40) == 1
    assert ctx.extensions["asok"].backend.get(task.id).name == "add"


def test_record_lost_meanwhile(ctx, start, tmp_path, wait_until):
    """A task whose record is lost while it runs is known again, all of it, at its end."""
    start().ready()
    task = background(jobs.wait_for, tmp_path / "runs", tmp_path / "gate")
    wait_until(lambda: lines(tmp_path / "runs"), what="the task")

    ctx.extensions["asok"].backend.records.remove(task.id)
    (tmp_path / "gate").touch()

    assert task.result(20) == "waited"
    assert ctx.extensions["asok"].backend.get(task.id).name == "wait_for"


def test_cancelled_for_as_long_as_it_waits(ctx):
    """A cancelled task stays so until its delay is over, however long that is."""
    task = background.using(delay=7 * 86_400)(jobs.add, 1)

    assert task.cancel()

    records = ctx.extensions["asok"].backend.records
    assert records._redis.ttl(records._prefix + task.id) > 7 * 86_400


def test_broker_down_after_the_response(own_redis, caplog, close):
    """A broker that is down when the task is to start spoils no response; the task is abandoned, and logged."""
    app = jobs.create_app(ASOK_CELERY={"broker_url": own_redis.url})
    own_redis.stop()

    response = app.test_client().get("/later")
    response.close()

    assert response.text == "page"
    assert "Background task add (" in caplog.text and "could not be started: BackendUnavailable" in caplog.text
    assert app.later.state == "abandoned"
    close(app)


def test_patience(ctx):
    """A result that does not come is waited for as long as was said, and no longer."""
    task = background(jobs.add, 1)
    started = time.monotonic()

    with pytest.raises(TimeoutError):
        task.result(1)

    assert 0.9 < time.monotonic() - started < 1.9


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


@only_on_redis
def test_message_waits_within_the_visibility_timeout(ctx):
    """A delay keeps a message no longer in a worker than Redis would leave it there."""
    assert ctx.extensions["asok"].backend._longest_hop() == 3
