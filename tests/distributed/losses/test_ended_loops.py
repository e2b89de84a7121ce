"""A worker goes on after what ends Celery's main loop; where it cannot begin, its exit code tells."""

import os
import signal

import jobs
import pytest
import redis as redis_py
from celery.signals import worker_init, worker_ready
from celery.worker import state as celery_state
from jobs import lines

from flask_asok import background
from flask_asok.backends.celery import run_worker


@pytest.fixture
def config(own_redis):
    return {"ASOK_CELERY": {"broker_url": own_redis.url}}


REFUSING = {
    "READONLY": (["REPLICAOF", "127.0.0.1", "1"], ["REPLICAOF", "NO", "ONE"]),
    "NOREPLICAS": (["CONFIG", "SET", "min-replicas-to-write", "1"], ["CONFIG", "SET", "min-replicas-to-write", "0"]),
    "OOM": (["CONFIG", "SET", "maxmemory", "1"], ["CONFIG", "SET", "maxmemory", "0"]),
}
"""The error with which Redis refuses to write, and what makes it do so, and write again."""


def test_worker_goes_on(ctx, start, own_redis, tmp_path, wait_until):
    """One worker outlives a Redis that is read-only, refuses writes, is full, and restarts, with tasks in hand."""
    worker = start().ready()
    store = ctx.extensions["asok"].backend.hub.store
    outcomes = {}

    def outlive(name, disturb, mend):
        """Let a task end, behind which others wait, while Redis is disturbed."""
        runs, gate = tmp_path / f"{name} runs", tmp_path / name
        first = background(jobs.wait_and_mark, runs, gate)
        wait_until(lambda: lines(runs), what="the task")
        rest = [background(jobs.add, number) for number in range(3)]
        disturb()
        gate.touch()
        wait_until(lambda: len(lines(runs)) == 2, what="the end of the task")
        mend()
        # What was dropped is sent again after ten seconds: they pass at once.
        for id in store.redis.zrange(store.key("sent:default"), 0, -1):
            store.redis.zincrby(store.key("sent:default"), -10, id)
        outcomes[name] = [task.result(30) for task in (first, *rest)]

    with redis_py.Redis(port=own_redis.port) as client:
        for error, (refuse, accept) in REFUSING.items():

            def is_refused(stat=f"errorstat_{error}"):
                return stat in client.info("errorstats")

            def mend(accept=accept, is_refused=is_refused):
                wait_until(is_refused, what="a refusal")
                client.execute_command(*accept)

            outlive(error, lambda refuse=refuse: client.execute_command(*refuse), mend)
        outlive("restart", lambda: own_redis.stop(signal.SIGKILL), own_redis.start)

    assert outcomes == {name: ["marked", 0, 1, 2] for name in [*REFUSING, "restart"]}
    assert worker.process.poll() is None


class EndedWorker:
    """Celery's worker when it has ended."""

    def __init__(self, exitcode):
        self.exitcode = exitcode


@pytest.fixture
def end_worker(ctx, monkeypatch):
    """Run `flask asok worker`, whose Celery ends at once with an exit code; return that of the command, and its log."""
    again = []
    monkeypatch.setattr(run_worker, "AGAIN_SECONDS", 0)
    monkeypatch.setattr(run_worker.os, "execv", lambda *arguments: again.append(arguments))

    def end(code, *, is_ready, asked=None):
        def run(celery_app, arguments):
            worker_init.send(sender=EndedWorker(code))
            if is_ready:
                worker_ready.send(sender=None)
            celery_state.should_stop = asked

        monkeypatch.setattr(run_worker, "run_celery_worker", run)
        try:
            return ctx.test_cli_runner().invoke(args=["asok", "worker"]).exit_code, len(again)
        finally:
            celery_state.should_stop = None

    yield end
    os.environ.pop(run_worker.BEGUN, None)


def test_exit_codes(end_worker, caplog):
    """A worker that an error ends begins again; one that was told to stop, or could not begin, ends with its code."""
    assert end_worker(0, is_ready=True) == (0, 0)
    assert end_worker(0, is_ready=True, asked=0) == (0, 0)
    assert end_worker(69, is_ready=True, asked=69) == (69, 0)
    assert end_worker(1, is_ready=False) == (1, 0)

    assert end_worker(1, is_ready=True) == (0, 1)
    assert "The worker has ended by an error, and begins again in 0 s." in caplog.messages
    # Redis is still away when it does.
    assert end_worker(1, is_ready=False) == (0, 2)
