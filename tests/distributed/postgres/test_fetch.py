"""The attempt that is claimed with the engine's row is made, here or elsewhere, whatever comes in between."""

import asyncio
import contextlib
import os
import threading

import jobs
import psycopg
import pytest
from jobs import lines

from flask_asok import background
from flask_asok.backends.postgres.engine import Engine
from flask_asok.backends.postgres.engine_jobs import EngineJobs
from flask_asok.backends.postgres.process_worker import ProcessWorker
from flask_asok.backends.postgres.threads import Threads


@pytest.fixture
def config(postgres_config):
    return {**postgres_config, "NAME": f"fetch{os.urandom(4).hex()}"}


@pytest.fixture
def store(ctx):
    return ctx.extensions["asok"].backend.hub.store


@pytest.fixture
def worker(ctx):
    """A worker in this process, of two threads, which is to be started."""
    backend = ctx.extensions["asok"].backend
    worker = ProcessWorker(backend.hub, backend.worker, {tuple(backend.hub.store.lines.values()): 2})
    yield worker
    worker.close(10)


@pytest.fixture
def start(worker):
    return lambda: worker.start("worker", ["default"])


@pytest.fixture
def taken(store, monkeypatch):
    """The tasks whose attempts were claimed by themselves."""
    ids, take = [], store.take

    def note(id, owner, claim):
        ids.append(id)
        return take(id, owner, claim)

    monkeypatch.setattr(store, "take", note)
    return ids


def facts_of(store, task):
    record = store.read(task.id)
    return record.state, record.attempts, record.deaths


def assert_made_once(store, task, runs, value):
    """Assert that a task has this result, by one run, and that no death was counted."""
    assert task.result(30) == value
    assert lines(runs) == ["1"]
    assert facts_of(store, task) == ("succeeded", 1, 0)


def test_in_one_step(start, taken, store, wait_until):
    """With its row a task is claimed; a failed attempt leaves the next one to the same way."""
    tasks = [background(jobs.add, number) for number in range(5)]
    repeated = background.using(retries=1, backoff=0)(jobs.close_shop, "a text")
    start()

    assert [task.result(30) for task in tasks] == list(range(5))
    repeated.join(30)
    assert taken == []
    assert (repeated.state, repeated.attempts) == ("failed", 2)
    # The next look has a claim of its own while it asks.
    wait_until(lambda: not store.claims, what="the end of all claims")


def test_by_itself(start, taken, store, tmp_path, wait_until):
    """A task that is to run at most once, or has its key to take, is claimed by itself."""
    (tmp_path / "gate").touch()
    once = background(jobs.wait_once, tmp_path / "runs", tmp_path / "gate")
    unique = background(jobs.add, 1)
    store.change("UPDATE asok_tasks SET wanted_key = 'one' WHERE id = %(id)s", id=unique.id)
    start()

    assert (once.result(30), unique.result(30)) == ("waited", 1)
    assert sorted(taken) == sorted([once.id, unique.id])
    wait_until(lambda: not store.claims, what="the end of all claims")


def test_answer_lost(start, store, monkeypatch, tmp_path):
    """Where the answer is lost that a task was claimed with, it is made all the same, once; no death is counted."""
    execute, lost = EngineJobs.fetch_job, []

    async def fetch(self, queues, worker_id):
        ask = self.connector.execute_query_one_async

        async def ask_and_lose(*args, **values):
            row = await ask(*args, **values)
            if row.get("attempt") is not None and not lost:
                lost.append(row["job"])
                raise psycopg.OperationalError("the connection is gone")
            return row

        with monkeypatch.context() as patch:
            patch.setattr(self.connector, "execute_query_one_async", ask_and_lose)
            return await execute(self, queues, worker_id)

    monkeypatch.setattr(EngineJobs, "fetch_job", fetch)
    task = background(jobs.count_runs, tmp_path / "runs", 1)
    start()

    assert_made_once(store, task, tmp_path / "runs", 1)
    assert lost


def test_no_thread(start, store, monkeypatch, tmp_path):
    """Where no thread can be started for a task that was claimed, it runs as soon as one can be."""
    call, refused = Threads.call, []

    def call_or_refuse(self, do):
        if not refused:
            refused.append(do)
            raise RuntimeError("can't start new thread")
        call(self, do)

    monkeypatch.setattr(Threads, "call", call_or_refuse)
    task = background(jobs.count_runs, tmp_path / "runs", 1)
    start()

    assert_made_once(store, task, tmp_path / "runs", 1)
    assert refused


@pytest.mark.parametrize("how", ["exit", "end"])
def test_not_begun(ctx, worker, start, store, monkeypatch, how):
    """What was claimed, and has not begun when the worker ends, or cannot be begun, is queued for others at once."""
    reached = threading.Event()

    async def wait_for_ever(self, context, /, **arguments):
        reached.set()
        await asyncio.Event().wait()

    def exit_thread(message):
        reached.set()
        raise SystemExit

    if how == "end":
        monkeypatch.setattr(Engine, "_run", wait_for_ever)
    else:
        monkeypatch.setattr(ctx.extensions["asok"].backend.worker, "restored", exit_thread)
    task = background(jobs.add, 1)
    start()
    assert reached.wait(30)

    worker.close(0)

    assert facts_of(store, task) == ("queued", 0, 0)
    assert store.claims == set()
    monkeypatch.undo()


def test_runs_on(start, store, monkeypatch, tmp_path, wait_until):
    """A task that this process does run is not taken for one that it does not know of, however often it looks."""
    looks = threading.Semaphore(0)
    orphans = store.orphans

    def count():
        found = orphans()
        looks.release()
        return found

    monkeypatch.setattr(store, "orphans", count)
    task = background(jobs.wait_for, tmp_path / "runs", tmp_path / "gate")
    start()
    wait_until(lambda: lines(tmp_path / "runs"), what="the task")

    for _ in range(3):
        assert looks.acquire(timeout=30)
    (tmp_path / "gate").touch()

    assert_made_once(store, task, tmp_path / "runs", "waited")


def test_made_meanwhile(ctx, store):
    """A claim that is made while a sweeper looks is no orphan."""
    store.enter("worker", ["default"])
    task = background(jobs.add, 1)
    assert store.take(task.id, store.me, 5)[0] == 1
    store.claims.clear()
    (record,) = store.orphans()

    store.claims.add(5)
    ctx.extensions["asok"].backend.worker.take_back(store, record)

    assert facts_of(store, task) == ("running", 1, 0)


def test_locked(ctx, start, taken, postgres, store):
    """A record that another transaction holds keeps no other task from running; its own runs after that."""
    with contextlib.ExitStack() as stack:
        connection = stack.enter_context(psycopg.connect(ctx.config["ASOK_POSTGRES_URL"]))
        held = background(jobs.add, 1)
        connection.execute("SELECT 1 FROM asok_tasks WHERE id = %s FOR UPDATE", [held.id])
        start()
        free = background(jobs.add, 2)

        assert free.result(30) == 2
        assert taken == [held.id]
    assert held.result(30) == 1
    assert facts_of(store, held) == ("succeeded", 1, 0)


def test_nobody_yet(start, store, taken, monkeypatch):
    """A process that is not known to the others yet claims nothing with the row; its first task makes it known."""
    monkeypatch.setattr("flask_asok.backends.postgres.sweeper.PostgresSweeper._enter", lambda self: None)
    task = background(jobs.add, 1)
    start()

    assert task.result(30) == 1
    assert taken == [task.id]
    assert store.me


def test_fetched_anew(worker, start, store, postgres, monkeypatch, tmp_path, wait_until):
    """Tasks that run while the engine's connections end keep their slots, and have their time at the shutdown."""
    fetch, looked = EngineJobs.fetch_job, []

    async def note(self, queues, worker_id):
        job = await fetch(self, queues, worker_id)
        looked.append((self, job))
        return job

    monkeypatch.setattr(EngineJobs, "fetch_job", note)
    running = [background(jobs.wait_for, tmp_path / "runs", tmp_path / "gate") for _ in range(2)]
    start()
    wait_until(lambda: len(lines(tmp_path / "runs")) == 2, what="both tasks")
    first, later = looked[0][0], background(jobs.add, 1)
    postgres.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'distributed' AND pid <> "
        "pg_backend_pid() AND query ~ 'LISTEN|asok_fetch_v1|procrastinate_workers'"
    )
    wait_until(lambda: looked[-1][0] is not first, 30, "the next look")

    closing = threading.Thread(target=worker.close, args=(30,))
    closing.start()
    # Its end would come at once.
    closing.join(0.5)
    is_closing = closing.is_alive()
    (tmp_path / "gate").touch()
    closing.join(30)

    assert is_closing
    assert [job for jobs_of_engine, job in looked if jobs_of_engine is not first and job] == []
    assert [task.result(30) for task in running] == ["waited", "waited"]
    assert (lines(tmp_path / "runs"), facts_of(store, later)) == (["1", "1"], ("queued", 0, 0))


def test_asked_to_stop_before_the_end(ctx, worker, start, store, tmp_path, wait_until):
    """What was asked to stop, and is interrupted by the end of its worker, is cancelled and runs nowhere else."""
    task = background(jobs.wait_for, tmp_path / "runs", tmp_path / "gate")
    start()
    wait_until(lambda: lines(tmp_path / "runs"), what="the task")

    assert ctx.extensions["asok_of_tests"].cancel(task.id, running=True)
    worker.close(0)
    (tmp_path / "gate").touch()

    record = store.read(task.id)
    assert (record.state, record.error) == ("cancelled", "it was asked to stop")


@pytest.mark.parametrize("attempts", [2**31 - 1, -1])
def test_cannot_be_claimed(start, store, attempts):
    """A forged record that no worker can claim keeps none of its queue from being fetched."""
    forged = background(jobs.add, 1)
    store.change("UPDATE asok_tasks SET attempts = %(attempts)s WHERE id = %(id)s", id=forged.id, attempts=attempts)
    task = background(jobs.add, 2)
    start()

    assert task.result(30) == 2


def test_forged_arguments(start, postgres, store, caplog):
    """A row of the engine whose arguments are none is refused, and does not stay."""
    args = [next(iter(store.lines.values())), "flask_asok.run", "[1]"]
    postgres.execute(
        "INSERT INTO procrastinate_jobs (queue_name, task_name, args) VALUES (%s, %s, %s)", args, "distributed"
    )
    start()

    assert background(jobs.add, 2).result(30) == 2
    assert "Refused a message for background tasks: it names no task." in caplog.text
