"""Unique tasks on Celery: while one with a key lives, in whatever process, a call gets that one."""

import signal
import threading

import jobs
import pytest
from jobs import lines

from flask_asok import BackendUnavailable, FlaskAsok, NotConfigured, background

ON_POSTGRES = True

asok = FlaskAsok()


@pytest.fixture
def key(tmp_path):
    """A key of this test alone."""
    return str(tmp_path)[-200:]


def call(app, key, fn, *args, **options):
    with app.app_context():
        return background.using(unique=key, **options)(fn, *args)


def test_double_click(ctx, other, key, tmp_path):
    """While a task with the key lives, every process gets that one; its arguments hold, and it runs once."""
    ran, gate = tmp_path / "ran", tmp_path / "gate"
    first = call(ctx, key, jobs.wait_for, str(ran), str(gate))

    second = call(other, key, jobs.wait_for, str(tmp_path / "other"), str(gate))
    third = call(ctx, key, jobs.wait_for, str(ran), str(gate), delay=60)
    gate.touch()

    assert first.id == second.id == third.id
    assert [task.result(20) for task in (first, second, third)] == ["waited"] * 3
    assert lines(ran) == ["1"]
    assert not (tmp_path / "other").exists()


def test_free_once_settled(ctx, other, key, tmp_path):
    """The key is free when its task has succeeded, failed or was cancelled."""
    succeeded = call(ctx, key, jobs.add, 1)
    succeeded.join(20)
    failed = call(other, key, jobs.add, "x")
    failed.join(20)
    cancelled = call(ctx, key, jobs.add, 1, delay=60)
    cancelled.cancel()

    last = call(other, key, jobs.add, 2)

    assert last.result(20) == 2
    assert (succeeded.state, failed.state, cancelled.state) == ("succeeded", "failed", "cancelled")
    assert len({succeeded.id, failed.id, cancelled.id, last.id}) == 4


def test_retry_takes_the_key_again(ctx, other, key, tmp_path):
    """A failed task that is retried by hand has its key again, and is not retried while another task has it."""
    needed, gate = tmp_path / "needed", tmp_path / "gate"
    failed = call(ctx, key, jobs.need, str(needed), str(gate))
    failed.join(20)
    between = call(other, key, jobs.need, str(needed), str(gate), delay=60)
    run = ctx.test_cli_runner().invoke

    refused, listed = run(args=["asok", "retry", failed.id]), run(args=["asok", "failed"]).output
    between.cancel()
    needed.touch()
    sent, relisted = run(args=["asok", "retry", failed.id]), run(args=["asok", "failed"]).output
    later = call(other, key, jobs.need, str(needed), str(gate))
    gate.touch()

    assert refused.exit_code == 1
    assert refused.stderr == f"Another task has the unique key of {failed.id}. Retry it when that one is settled.\n"
    assert failed.id in listed
    assert (sent.exit_code, sent.output) == (0, f"Sent {failed.id} once more.\n")
    assert failed.id not in relisted
    assert later.id == failed.id
    assert later.result(20) == "waited"
    assert asok.get(failed.id).attempts == 1


def test_held_while_it_waits(ctx, other, key, tmp_path, wait_until):
    """A task that waits for its retry has its key."""
    ran = tmp_path / "ran"
    first = call(ctx, key, jobs.flaky, str(ran), 2, retries=1, backoff=600)
    wait_until(lambda: first.state == "waiting", what="the wait for the retry")

    second = call(other, key, jobs.flaky, str(ran), 1)

    assert second.id == first.id
    assert second.cancel()
    assert lines(ran) == ["1"]


def test_of_one_function(ctx, key):
    """A key belongs to one function: another one has its own."""
    first, second = call(ctx, key, jobs.add, 1), call(ctx, key, jobs.echo, 1)

    assert first.id != second.id
    assert (first.result(20), second.result(20)) == (1, [1, {}])


def test_until_start(ctx, other, key, tmp_path, wait_until):
    """With unique_until="start" a call while the task runs starts one more, and no second one beside that."""
    ran, gate = tmp_path / "ran", tmp_path / "gate"
    first = call(ctx, key, jobs.wait_for, str(ran), str(gate), unique_until="start")
    wait_until(lambda: lines(ran), what="the start of the task")

    second = call(other, key, jobs.wait_for, str(ran), str(gate), unique_until="start", delay=600)
    third = call(ctx, key, jobs.wait_for, str(ran), str(gate), unique_until="start")
    gate.touch()

    assert first.id != second.id == third.id
    assert first.result(20) == "waited"
    assert second.cancel()
    assert lines(ran) == ["1"]


def test_at_once(ctx, other, key, tmp_path):
    """Of eight calls at one time, in two applications, one starts a task, and all get that one."""
    ran, gate = tmp_path / "ran", tmp_path / "gate"
    barrier, ids = threading.Barrier(8), []

    def click(app):
        barrier.wait(10)
        ids.append(call(app, key, jobs.wait_for, str(ran), str(gate)).id)

    threads = [threading.Thread(target=click, args=[app]) for app in (ctx, other) * 4]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    gate.touch()

    assert len(ids) == 8
    assert len(set(ids)) == 1
    assert asok.get(ids[0]).result(20) == "waited"
    assert lines(ran) == ["1"]


def test_response(ctx, other, key, tmp_path, caplog):
    """A call that waits for its response takes the key when that is sent: taken by then, the later one is cancelled."""
    caplog.set_level("INFO", "asok.background")
    found = []

    @other.get("/click")
    def click():
        found.append(background.using(unique=key, when="response")(jobs.add, 1))
        found.append(call(ctx, key, jobs.add, 2, delay=600))
        return "page"

    other.test_client().get("/click").close()
    cancelled, kept = found

    assert cancelled.state == "cancelled"
    assert kept.state == "waiting"
    assert kept.cancel()
    assert "another task has its unique key" in caplog.text


def test_response_takes_it(ctx, other, key):
    """And if it is free, a later call gets the one that was released."""
    found = []

    @other.get("/click")
    def click():
        found.append(background.using(unique=key, when="response", delay=600)(jobs.add, 1))
        return "page"

    other.test_client().get("/click").close()

    assert call(ctx, key, jobs.add, 2).id == found[0].id
    assert found[0].cancel()


def test_lost_worker(config, close, start_worker, key, tmp_path, wait_until):
    """A worker that is killed does not free the key of a task that will run again."""
    ran, gate = tmp_path / "ran", tmp_path / "gate"
    config = {**config, "NAME": "lost_and_unique"}
    worker = start_worker(config, "--concurrency", "1").ready()
    app = jobs.create_app(**config)
    first = call(app, key, jobs.wait_for, str(ran), str(gate))
    wait_until(lambda: lines(ran), what="the start of the task")

    with app.app_context():
        state = first.state
        worker.tell_all(signal.SIGKILL)
        second = call(app, key, jobs.wait_for, str(ran), str(gate))

    assert state == "running"
    assert second.id == first.id
    assert first.is_alive()
    close(app)


@pytest.mark.parametrize("config", ["redis", "rabbitmq"], indirect=True)
def test_record_that_is_gone(ctx, other, key, redis):
    """A key whose task nobody knows any more is free."""
    import redis as redis_py

    first = call(ctx, key, jobs.add, 1, delay=60)
    with redis_py.Redis(port=redis.port) as client:
        assert client.delete(f"asok:jobs:task:{first.id}")

    second = call(other, key, jobs.add, 2)

    assert second.id != first.id
    assert second.result(20) == 2


def test_broker_away(own_broker, redis, close, key):
    """A unique call raises where the broker is away, whatever ASOK_FALLBACK says, and leaves the key free."""
    settings = {"broker_url": own_broker.url, "result_backend": redis.url}
    app = jobs.create_app(ASOK_CELERY=settings, ASOK_FALLBACK="threads", NAME="away_and_unique")
    own_broker.stop(signal.SIGKILL)

    with app.app_context():
        with pytest.raises(BackendUnavailable):
            background.using(unique=key)(jobs.add, 1)
        left = asok.tasks(state="queued")

    assert left == []
    close(app)


def test_redis_away(own_redis, close, key):
    """A unique call raises where Redis is away: nothing could tell whether the key is free."""
    app = jobs.create_app(ASOK_CELERY={"broker_url": own_redis.url}, ASOK_FALLBACK="threads")
    own_redis.stop(signal.SIGKILL)

    with app.app_context(), pytest.raises(BackendUnavailable):
        background.using(unique=key)(jobs.add, 1)

    assert app.extensions["asok"].backend.alive() == []
    close(app)
    own_redis.start()


@pytest.mark.parametrize("when", ["now", "response"])
def test_without_redis(rabbitmq, close, when):
    """Without a Redis a unique call says at once that it needs one."""
    app = jobs.create_app(ASOK_CELERY={"broker_url": rabbitmq.url})

    with app.test_request_context(), pytest.raises(NotConfigured, match="result_backend"):
        background.using(unique="key", when=when)(jobs.add, 1)

    close(app)
