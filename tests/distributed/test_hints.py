"""What is told to somebody who has forgotten a part of the set-up."""

import jobs
import pytest

from flask_asok import BackendUnavailable, background
from flask_asok.backends.celery.app import queue_name
from flask_asok.backends.celery.hub import RUN
from flask_asok.messages.signer import Signer


@pytest.fixture
def config(redis):
    return {"ASOK_CELERY": {"broker_url": redis.url, "result_backend": redis.url}}


@pytest.fixture
def idle(redis, close):
    """An application without a worker."""
    app = jobs.create_app(name="idle", ASOK_CELERY={"broker_url": redis.url})
    yield app
    close(app)


def test_result_without_a_worker(idle):
    """A task that nobody takes tells how a worker is started; one that waits for its time does not."""
    with idle.app_context():
        task, late = background(jobs.add, 1), background.using(delay=60)(jobs.add, 1)

        for wait in (task.result, task.exception):
            with pytest.raises(TimeoutError, match=r"is queued after 0.1 s\. .* `flask --app APP asok worker`"):
                wait(0.1)
        with pytest.raises(TimeoutError, match=r"is waiting after 0.1 s\.$"):
            late.result(0.1)
    task.cancel()
    late.cancel()


def test_commands_without_a_worker(idle):
    """So do ping and status."""
    run = idle.test_cli_runner().invoke

    ping = run(args=["asok", "ping", "--timeout", "0.1"])
    status = run(args=["asok", "status"])

    text = "Is one running? Start it with `flask --app APP asok worker`."
    assert ping.exit_code == 1
    assert ping.stderr == f"No worker answered within 0.1 s. {text}\n"
    assert f"Workers: none answered within 1 s. {text}\n" in status.stdout


def test_another_secret_key(config, worker, redis, close, wait_until):
    """A worker that refuses a message for its signature asks for the key of the web process."""
    app = jobs.create_app(SECRET_KEY="another", **config)

    with app.app_context():
        background(jobs.add, 1)

    wait_until(
        lambda: "Does the web process have another SECRET_KEY, or another application this name?" in worker.log(),
        what="the line",
    )
    close(app)


@pytest.mark.parametrize("limits", [{"soft_time_limit": 5}, {"soft_time_limit": 60, "time_limit": 65}])
def test_another_time_limit(ctx, worker, tmp_path, wait_until, limits):
    """A signed message in an envelope with a time limit of somebody else runs with its own."""
    backend = ctx.extensions["asok"].backend
    publish, backend.hub.publish = backend.hub.publish, lambda message, *_, **__: None
    task = background(jobs.mark, tmp_path / "runs")
    backend.hub.publish = publish

    backend.hub.celery_app.tasks[RUN].apply_async(
        args=(Signer(ctx).sign(task.message.as_payload(), "call"),),
        task_id=task.id,
        queue=queue_name(ctx, "default"),
        **limits,
    )

    task.join(20)
    assert task.state == "succeeded"
    assert f"({task.id}) came with a time limit that is not its own" in worker.log()


@pytest.mark.parametrize("fallback", ["raise", "threads"])
def test_late_confirmation(config, worker, close, tmp_path, wait_until, fallback):
    """A message that went through though the broker did not say so in time runs once, and its call does not fail."""
    app = jobs.create_app(ASOK_FALLBACK=fallback, **config)
    backend = app.extensions["asok"].backend
    publish = backend.hub.publish

    def publish_and_wait(message, *args, **kwargs):
        publish(message, *args, **kwargs)
        wait_until(lambda: backend.get(message.id).state in ("running", "succeeded"), what="the start")
        raise BackendUnavailable("The broker cannot be reached.")

    backend.hub.publish = publish_and_wait
    with app.app_context():
        task = background(jobs.mark, tmp_path / "runs")
        task.join(20)
        backend.hub.publish = publish
        assert background(jobs.add, 1).result(20) == 1

    assert task.state == "succeeded"
    assert jobs.lines(tmp_path / "runs") == ["1"]
    close(app)


def test_no_confirmation(config, worker, close, tmp_path, wait_until):
    """A message that nobody has taken yet is cancelled with its call, and never runs."""
    app = jobs.create_app(**config)
    backend = app.extensions["asok"].backend
    publish = backend.hub.publish

    late = []

    def publish_late(message, *args, **kwargs):
        late.append((message, args, kwargs))
        raise BackendUnavailable("The broker cannot be reached.")

    backend.hub.publish = publish_late
    with app.app_context():
        with pytest.raises(BackendUnavailable):
            background(jobs.mark, tmp_path / "runs")
        backend.hub.publish, backend._down_until = publish, float("-inf")
        ((message, args, kwargs),) = late
        publish(message, *args, **kwargs)
        # Behind it, one for each process of the worker.
        for task in [background(jobs.add, number) for number in range(2)]:
            task.join(20)

    assert backend.get(message.id).state == "cancelled"
    assert jobs.lines(tmp_path / "runs") == []
    close(app)
