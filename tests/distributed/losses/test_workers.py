"""Workers with options of their own, of another Celery, and past a time limit."""

import os

import jobs
import pytest
from jobs import lines

from flask_asok import TaskAbandoned, background, send_webhook, signals


def test_time_limit(ctx, start, tmp_path):
    """A task past its timeout is interrupted, and where it does not listen, killed; the worker goes on."""
    start().ready()
    task = background.using(timeout=1)(jobs.run_forever, tmp_path / "runs")

    with pytest.raises(TaskAbandoned, match="stopped at its time limit"):
        task.result(40)
    assert task.state == "failed"
    assert background(jobs.add, 1).result(20) == 1
    assert len(lines(tmp_path / "runs")) == 2


def test_webhook_that_is_abandoned(ctx, caplog):
    """A webhook that is abandoned without an attempt of its own is named in the log by its id and reference."""
    task = background(send_webhook, "http://hooks.example/sesame", {}, id="evt_1", reference="endpoint-7")

    task.abandon_claimed(0, "given up: 3 workers were lost with it")

    line = f"Background task send_webhook ({task.id}) abandoned while queued: given up: 3 workers were lost with it"
    assert f"{line} (webhook_id='evt_1', reference='endpoint-7')." in caplog.messages
    assert "sesame" not in caplog.text
    with pytest.raises(TaskAbandoned, match="given up"):
        task.result(10)


@pytest.fixture
def worker_app(ctx, config, close):
    """The application as a worker has it, which has started no task itself."""
    app = jobs.create_app(name=ctx.name, **config)
    yield app
    close(app)


def signed(app, task):
    return app.extensions["asok"].backend.hub.packer.sign(task.message)


def test_signals_of_an_abandoned_webhook(ctx, worker_app):
    """The worker that finds a webhook lost tells the receivers of task_abandoned and webhook_failed, once each."""
    task = background(send_webhook, "http://hooks.example/sesame", {}, id="evt_1", reference="endpoint-7")
    told = []

    def on_abandoned(app, task):
        told.append((task.id, task.state, task.summary.error))

    def on_webhook(app, delivery, error):
        told.append((delivery.id, delivery.reference, str(error)))

    with (
        signals.task_abandoned.connected_to(on_abandoned, worker_app),
        signals.webhook_failed.connected_to(on_webhook, worker_app),
    ):
        worker_app.extensions["asok"].backend.worker.lost_once(task.id, signed(ctx, task))

    assert sorted(first for first, *_ in told) == sorted([task.id, "evt_1"])
    assert all("lost with its worker" in text for *_, text in told)
    assert task.state == "abandoned"
    with pytest.raises(TaskAbandoned, match="lost with its worker"):
        task.exception(10)


def test_abandoned_is_listed_and_retried(ctx, worker_app):
    """`flask asok failed` lists an abandoned task, and `flask asok retry` sends it once more."""
    task = background(jobs.add, 1)
    worker_app.extensions["asok"].backend.worker.lost_once(task.id, signed(ctx, task))
    run = ctx.test_cli_runner().invoke

    listed, retried = run(args=["asok", "failed"]).output, run(args=["asok", "retry", task.id])

    assert task.id in listed and "lost with its worker" in listed
    assert retried.exit_code == 0
    assert ctx.extensions["asok"].backend.get(task.id).state == "queued"
    assert task.id not in run(args=["asok", "failed"]).output


def test_signal_of_a_time_limit(ctx, worker_app):
    """The worker that stops a task at its time limit tells the receivers of task_failed, with the error."""
    task = background.using(timeout=1)(jobs.add, 1)
    told = []

    def on_failed(app, task, error):
        told.append((task.id, str(error)))

    with signals.task_failed.connected_to(on_failed, worker_app):
        worker_app.extensions["asok"].backend.worker.stopped(task.id, signed(ctx, task), 6)

    assert told == [(task.id, "The task was stopped at its time limit of 6 s.")]
    assert task.state == "failed"


def test_celery_of_the_application(config, start_worker, close):
    """An application that has a Celery of its own keeps it; ours sends and runs by it."""
    app = jobs.create_app(ASOK_CELERY={}, OWN_CELERY=config["ASOK_CELERY"], NAME=f"jobs{os.urandom(4).hex()}")
    start_worker({"OWN_CELERY": config["ASOK_CELERY"], "NAME": app.name, "ASOK_CELERY": {}}, "--concurrency", "1")

    with app.app_context():
        task = background(jobs.add, 1)

        assert task.result(40) == 1
        assert app.extensions["asok"].backend.hub.celery_app is app.extensions["celery"]
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
