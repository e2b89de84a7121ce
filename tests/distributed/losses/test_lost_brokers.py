"""What was accepted outlives its broker, and a broker that is away is told at once."""

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
from jobs import lines

from flask_asok import BackendUnavailable, FlaskAsok, NotConfigured, background


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
        with pytest.raises(BackendUnavailable, match=r"a moment ago: .+127\.0\.0\.1:\d+: connection refused"):
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


def test_shutdown_while_redis_is_down(own_redis, close, caplog):
    """A task that waits for a response is abandoned at the shutdown, though Redis is down by then."""
    app = jobs.create_app(ASOK_CELERY={"broker_url": own_redis.url})
    with app.test_request_context():
        task = background.using(when="response")(jobs.add, 1)
        own_redis.stop()

        FlaskAsok().close(app)

        assert f"Background task add ({task.id}) abandoned while waiting: the application shuts down." in caplog.text
        assert task.state == "abandoned"


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
