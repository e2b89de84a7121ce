"""Nothing is lost with a process or with the database, and nothing runs twice beyond that."""

import dataclasses
import os
import signal
import time

import jobs
import pytest
from jobs import lines

from flask_asok import BackendUnavailable, TaskAbandoned, background
from flask_asok.backends.distributed import hub

DEAD_AFTER = 3


@pytest.fixture
def config(postgres_config):
    return {**postgres_config, "NAME": f"lost{os.urandom(4).hex()}"}


@pytest.fixture
def start(config, start_worker):
    return lambda *options: start_worker(config, *options).ready()


@pytest.fixture
def ask(postgres):
    """Ask the database of the tests."""
    return lambda statement, *values: postgres.execute(statement, values, "distributed")


def test_killed(ctx, start, tmp_path, wait_until):
    """What a worker runs, and what it has taken, when it is killed, another one runs within moments; nothing twice."""
    first = start("--concurrency", "1")
    running = background(jobs.wait_for, tmp_path / "runs", tmp_path / "gate")
    wait_until(lambda: lines(tmp_path / "runs"), what="the task")
    start("--concurrency", "1")
    others = [background(jobs.count_runs, tmp_path / "others", number) for number in range(5)]

    first.tell(signal.SIGKILL)
    first.process.wait(10)
    # Now, for it must not end the task itself.
    (tmp_path / "gate").touch()
    killed_at = time.monotonic()
    ended = [running.result(30), *(task.result(30) for task in others)]

    assert time.monotonic() - killed_at < 3 * (DEAD_AFTER + 3)
    assert ended == ["waited", 0, 1, 2, 3, 4]
    assert (running.attempts, lines(tmp_path / "runs")) == (1, ["1", "1"])
    assert sorted(lines(tmp_path / "others")) == ["0", "1", "2", "3", "4"]


def test_only_worker(ctx, start, tmp_path, wait_until, ask):
    """The only worker is killed and started anew: it goes on, and leaves nothing of the lost one behind."""
    first = start("--concurrency", "1")
    task = background(jobs.wait_for, tmp_path / "runs", tmp_path / "gate")
    wait_until(lambda: lines(tmp_path / "runs"), what="the task")
    first.tell(signal.SIGKILL)
    first.process.wait(10)
    (tmp_path / "gate").touch()

    start("--concurrency", "1")

    assert task.result(30) == "waited"
    assert lines(tmp_path / "runs") == ["1", "1"]
    wait_until(lambda: not rows_of(ask, ctx), 30, "the end of the engine's rows")


def rows_of(ask, app):
    return ask("SELECT id FROM procrastinate_jobs WHERE queue_name LIKE %s", f"asok:{app.name}:%")


def take(ask, app, worker):
    """Let the engine believe that a worker has taken all that is queued, and has not begun it."""
    ask(
        "UPDATE procrastinate_jobs SET status = 'doing', worker_id = %s WHERE queue_name LIKE %s",
        worker, f"asok:{app.name}:%",
    )  # fmt: skip


@pytest.mark.parametrize("is_known", [True, False], ids=["lost", "forgotten"])
def test_taken_and_not_begun(ctx, start, ask, is_known):
    """What a lost worker had taken and not begun runs elsewhere, also where the engine has forgotten that worker."""
    task = background(jobs.add, 1)
    lost = "INSERT INTO procrastinate_workers (last_heartbeat) VALUES (now() - interval '1 minute') RETURNING id"
    take(ask, ctx, ask(lost)[0][0] if is_known else None)

    start("--concurrency", "1")

    # Where its worker is not known as lost, that takes some seconds.
    assert task.result(40) == 1


def test_suspended(ctx, start, tmp_path, wait_until):
    """A worker that was suspended, and wakes, settles nothing that another one runs by now; and it works on."""
    first = start("--concurrency", "1")
    task = background(jobs.wait_in_turn, tmp_path / "runs", tmp_path / "gate")
    wait_until(lambda: lines(tmp_path / "runs"), what="the task")
    first.tell(signal.SIGSTOP)
    second = start("--concurrency", "1")
    wait_until(lambda: len(lines(tmp_path / "runs")) == 2, 30, "the second run")
    (tmp_path / "gate1").touch()
    first.tell(signal.SIGCONT)

    wait_until(lambda: "what was done here does not count" in first.log(), 30, "the end of the first run")
    state = task.state
    (tmp_path / "gate2").touch()

    assert state == "running"
    assert task.result(30) == "waited"
    assert lines(tmp_path / "runs") == ["1", "1"]
    second.tell(signal.SIGKILL)
    assert background(jobs.add, 1).result(30) == 1


def test_at_most_once(ctx, start, tmp_path, wait_until):
    """A task that must not run twice is abandoned when its worker is killed."""
    first = start("--concurrency", "1")
    task = background(jobs.wait_once, tmp_path / "runs", tmp_path / "gate")
    wait_until(lambda: lines(tmp_path / "runs"), what="the task")

    first.tell(signal.SIGKILL)
    start("--concurrency", "1")

    with pytest.raises(TaskAbandoned, match="lost with its worker, and is to run at most once"):
        task.result(30)
    assert lines(tmp_path / "runs") == ["1"]


def test_three_deaths(ctx, config, start, start_worker, tmp_path, wait_until):
    """A task that kills three workers is not tried a fourth time."""
    task = background(jobs.kill_me, tmp_path / "runs")
    for number in range(1, 4):
        # It may be dead before anybody finds it ready.
        start_worker(config, "--concurrency", "1")
        wait_until(lambda number=number: len(lines(tmp_path / "runs")) == number, 30, f"run {number}")

    start("--concurrency", "1")

    with pytest.raises(TaskAbandoned, match="3 workers were lost with it"):
        task.result(30)
    assert len(lines(tmp_path / "runs")) == 3


def test_told_to_end(ctx, start, tmp_path, wait_until, ask):
    """A worker that is told to end finishes what it runs, and leaves no row of its own behind."""
    worker = start("--concurrency", "1")
    task = background(jobs.wait_for, tmp_path / "runs", tmp_path / "gate")
    wait_until(lambda: lines(tmp_path / "runs"), what="the task")

    worker.tell(signal.SIGTERM)
    wait_until(lambda: "finishes what it runs" in worker.log(), what="the signal")
    (tmp_path / "gate").touch()

    assert worker.process.wait(20) == 0
    assert task.state == "succeeded"
    assert rows_of(ask, ctx) == []
    assert ask("SELECT token FROM asok_processes WHERE app = %s AND kind = 'worker'", ctx.name) == []


def test_told_twice(ctx, start, tmp_path, wait_until):
    """Told a second time it leaves what it runs to another worker, which begins at once; no death is counted."""
    first = start("--concurrency", "1")
    task = background(jobs.wait_for, tmp_path / "runs", tmp_path / "gate")
    wait_until(lambda: lines(tmp_path / "runs"), what="the task")

    first.tell(signal.SIGTERM)
    wait_until(lambda: "finishes what it runs" in first.log(), what="the signal")
    first.tell(signal.SIGTERM)
    code = first.process.wait(20)
    start("--concurrency", "1")
    wait_until(lambda: len(lines(tmp_path / "runs")) == 2, 20, "the second run")
    (tmp_path / "gate").touch()

    assert code == 0
    assert task.result(20) == "waited"
    assert ctx.extensions["asok"].backend.hub.store.read(task.id).deaths == 0


def test_as_many_as_it_claims(ctx, start, tmp_path, wait_until, ask):
    """With --concurrency 16 sixteen tasks run at once, however few processors there are; none is taken to wait."""
    start("--concurrency", "16")
    tasks = [background(jobs.wait_for, tmp_path / "runs", tmp_path / "gate") for _ in range(20)]

    wait_until(lambda: len(lines(tmp_path / "runs")) == 16, 20, "sixteen tasks")
    doing = "SELECT count(*) FROM procrastinate_jobs WHERE status = 'doing' AND queue_name LIKE %s"
    taken = ask(doing, f"asok:{ctx.name}:%")
    (tmp_path / "gate").touch()

    assert taken == [(16,)]
    assert {task.result(30) for task in tasks} == {"waited"}


def test_database_away(ctx, start, postgres, wait_until):
    """A database that refuses all connections for a while ends no worker: it works on when that is over."""
    worker = start("--concurrency", "2")
    assert background(jobs.add, 1).result(30) == 1
    cut = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'distributed'"
    postgres.execute("ALTER DATABASE distributed ALLOW_CONNECTIONS false")
    try:
        postgres.execute(cut)
        wait_until(lambda: "waits for PostgreSQL" in worker.log(), 30, "the warning")
    finally:
        postgres.execute("ALTER DATABASE distributed ALLOW_CONNECTIONS true")

    assert background(jobs.add, 2).result(40) == 2
    assert worker.process.poll() is None


def is_refused():
    """Is a call refused by a database that is read-only, and not by the end of an earlier connection?"""
    try:
        background(jobs.add, 1)
    except BackendUnavailable as error:
        return "read-only" in str(error)
    return False


def test_read_only(ctx, start, postgres, tmp_path, wait_until):
    """A database that takes no changes for a while, as after a failover, ends no worker, and no task runs twice."""
    worker = start("--concurrency", "2")
    task = background(jobs.wait_for, tmp_path / "runs", tmp_path / "gate")
    wait_until(lambda: lines(tmp_path / "runs"), what="the task")
    cut = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'distributed'"
    postgres.execute("ALTER DATABASE distributed SET default_transaction_read_only = on")
    try:
        postgres.execute(cut)
        wait_until(is_refused, what="the refusal")
        (tmp_path / "gate").touch()
        wait_until(lambda: "its record could not be written" in worker.log(), what="the end of the task")
    finally:
        postgres.execute("ALTER DATABASE distributed RESET default_transaction_read_only")

    # The connections that refuse changes are left alone: what is written is written on others.
    assert task.result(30) == "waited"
    assert background(jobs.add, 2).result(40) == 2
    assert lines(tmp_path / "runs") == ["1"]
    assert "Traceback" not in worker.log()


def test_forged(ctx, start, ask, wait_until):
    """A row that a stranger has put into the tables calls nothing: it is logged, and the worker works on."""
    worker = start("--concurrency", "1")
    defer = "INSERT INTO procrastinate_jobs (queue_name, task_name, args) VALUES (%s, %s, %s)"
    ask(
        "INSERT INTO asok_tasks (id, app, name, queue, state, enqueued, message) "
        "VALUES ('forged', %s, %s, %s, %s, 1, %s)",
        ctx.name, "forged", "default", "queued", '{"fn": "os:getpid"}',
    )  # fmt: skip

    for arguments in ("{}", '{"id": "unknown"}', '{"id": "forged", "m": 1}', '{"id": [1]}'):
        ask(defer, f"asok:{ctx.name}:default", "flask_asok.run", arguments)
    ask(defer, f"asok:{ctx.name}:default", "os.getpid", "{}")

    assert background(jobs.add, 1).result(30) == 1
    wait_until(lambda: "left to other workers" in worker.log(), 20, "the refusal")
    log = worker.log()
    assert log.count("it names no task") == 2
    assert "the task 'unknown' is unknown" in log
    assert ask("SELECT state FROM asok_tasks WHERE id = 'forged'") == [("queued",)]
    ask("DELETE FROM asok_tasks WHERE id = 'forged'")


def test_cannot_be_run(ctx, start, ask, wait_until):
    """What this worker cannot run is left to others, and no attempt is counted; in the end it has failed."""
    worker = start("--concurrency", "1")
    backend = ctx.extensions["asok"].backend
    task = background.using(delay=60)(jobs.add, 1)
    signed = backend.hub.packer.sign(dataclasses.replace(task.message, fn="jobs:nothing"))
    ask("UPDATE asok_tasks SET message = %s, state = 'queued' WHERE id = %s", signed, task.id)

    backend.hub.store.send(task.id)
    wait_until(lambda: f"add ({task.id}) is left to other workers" in worker.log(), what="the refusal")
    found = "SELECT state, attempts, owner FROM asok_tasks WHERE id = %s"
    wait_until(lambda: ask(found, task.id) == [("queued", 0, "")], what="a task that is queued")
    ask("UPDATE asok_tasks SET left_at = 1 WHERE id = %s", task.id)
    backend.hub.store.send(task.id)
    wait_until(lambda: backend.get(task.id).state == "failed", what="the end of patience")

    assert "is not there" in backend.get(task.id).error
    assert backend.retry(task.id)
    wait_until(lambda: backend.cancel(task.id), what="a moment in which no worker has it")


def test_nothing_of_a_message_in_the_log(ctx, start, wait_until):
    """The worker's log holds no argument of a task, at the level INFO too."""
    worker = start("--concurrency", "1")

    assert background(jobs.echo, "a secret of the caller").result(30) == ["a secret of the caller", {}]

    assert "secret of the caller" not in worker.log()


def test_other_key(ctx, start, config, start_worker, wait_until):
    """A worker with another SECRET_KEY than the web processes says so, and takes no task."""
    background(jobs.add, 1)

    worker = start_worker({**config, "SECRET_KEY": "another", "KEEPS_KEY": True})

    assert worker.process.wait(30) == 2
    assert "This process has another SECRET_KEY" in worker.log()


def test_claim_unheard(ctx, monkeypatch):
    """A worker that is cut off while it takes a task goes on with it: nobody else may, as long as this one lives."""
    backend = ctx.extensions["asok"].backend
    store, cuts = backend.hub.store, iter(range(5))
    take = store.take

    def take_and_lose(*values):
        found = take(*values)
        if next(cuts, None) is not None:
            raise BackendUnavailable("The connection is gone.")
        return found

    monkeypatch.setattr(store, "take", take_and_lose)
    monkeypatch.setattr(hub, "RETRY_PAUSES", (0.0, 0.0))
    task = background(jobs.add, 1)

    backend.worker.handle(task.id)

    assert (task.result(10), task.attempts) == (1, 1)


@pytest.mark.parametrize("unique", [None, "key"])
def test_clock_of_the_caller(ctx, ask, monkeypatch, unique):
    """A delay is counted by the clock of the database, however wrong the one of the caller's machine is."""
    now = time.time
    monkeypatch.setattr(time, "time", lambda: now() + 3600)

    task = background.using(delay=60, unique=unique)(jobs.add, 1)

    (left,) = ask("SELECT due - extract(epoch FROM clock_timestamp()) FROM asok_tasks WHERE id = %s", task.id)[0]
    assert 0 < left <= 60


def test_ended(ctx, start, ask, wait_until):
    """With the end of a task, or of an attempt that is to be repeated, the engine's row is gone at once."""
    start("--concurrency", "1")
    of_engine = "SELECT count(*) FROM procrastinate_jobs WHERE queue_name LIKE %s"
    repeated = background.using(retries=1, backoff=60)(jobs.close_shop, "a text")

    wait_until(lambda: repeated.state == "waiting", what="the second attempt")
    assert ask(of_engine, f"asok:{ctx.name}:%") == [(0,)]
    for number in range(5):
        assert background(jobs.add, number).result(30) == number
        assert ask(of_engine, f"asok:{ctx.name}:%") == [(0,)]


def test_taken_for_lost(ctx, start, ask, wait_until):
    """A worker whose row another program has pruned from the engine's table, as lost, works on all the same."""
    worker = start("--concurrency", "1")
    assert background(jobs.add, 1).result(30) == 1

    ask("DELETE FROM procrastinate_workers")

    assert background(jobs.add, 2).result(30) == 2
    assert worker.process.poll() is None
