"""A forked child, which leaves the parent's tasks to the parent."""

import os
import threading

import pytest

from flask_asok import background
from flask_asok.signals import task_retried, task_succeeded

WAIT = 10
ONE_THREAD = {"default": 1}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_fork(make_app, gate, busy):
    """In a forked child the parent's tasks are abandoned and new ones run; the parent's go on."""
    app = make_app(ASOK_QUEUES=ONE_THREAD)

    with app.app_context(), busy(gate) as (running,):
        queued = background(int)
        delayed = background.using(delay=3600)(int)
        child = os.fork()
        if child == 0:
            status = 1
            try:
                assert [each.state for each in (running, queued, delayed)] == ["abandoned"] * 3
                running.join(0)
                assert background(os.getpid).result(WAIT) == os.getpid()
                status = 0
            finally:
                os._exit(status)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        states = [each.state for each in (running, queued, delayed)]
        delayed.cancel()

    assert status == 0
    assert states == ["running", "queued", "waiting"]
    assert queued.result(WAIT) == 0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.parametrize("signal", [task_retried, task_succeeded])
def test_fork_between_two_steps(make_app, gate, signal):
    """So is a task of the parent whose thread is just telling a receiver of its retry or of its end."""
    app = make_app()
    told = threading.Event()

    def work():
        if signal is task_retried:
            raise ValueError

    def wait(sender, task, **_):
        told.set()
        gate.wait(WAIT)

    with app.app_context(), signal.connected_to(wait, app):
        task = background.using(retries=1, backoff=3600)(work)
        assert told.wait(WAIT)
        child = os.fork()
        if child == 0:
            status = 1
            try:
                task.join(WAIT)
                assert (task.state, task.is_alive()) == ("abandoned", False)
                status = 0
            finally:
                os._exit(status)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        gate.set()
        task.cancel()
        task.join(WAIT)

    assert status == 0
    assert task.state == ("cancelled" if signal is task_retried else "succeeded")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_ids_after_a_fork(app):
    """What cannot be guessed of an id is of its process: a child does not go on with what its parent would use."""
    reader, writer = os.pipe()
    with app.app_context():
        assert background(int).id
        child = os.fork()
        if child == 0:
            try:
                os.write(writer, background(int).id.encode())
            finally:
                os._exit(0)
        os.waitpid(child, 0)
        of_child, of_parent = os.read(reader, 32).decode(), background(int).id
    os.close(reader)
    os.close(writer)

    assert len(of_child) == len(of_parent) == 32
    assert of_child[13:] != of_parent[13:]
