"""A task that was cancelled never runs."""

import pytest

from flask_asok import FlaskAsok, TaskCancelled, background
from flask_asok.signals import task_queued

WAIT = 10
ONE_THREAD = {"default": 1}


def test_cancelled_never_runs(make_app, gate, busy):
    """A queued task that is cancelled never runs."""
    app = make_app(ASOK_QUEUES=ONE_THREAD)
    ran = []

    with app.app_context(), busy(gate):
        queued = background(ran.append, 1)
        delayed = background.using(delay=0.001)(ran.append, 2)
        delayed_cancelled = delayed.cancel()
        queued_cancelled = queued.cancel()
    with app.app_context():
        background(int).join(WAIT)

    assert (queued_cancelled, delayed_cancelled) == (True, True)
    assert ran == []
    with pytest.raises(TaskCancelled, match="Task append was cancelled"):
        queued.result(0)


def test_cancel_races_with_the_worker(threads_app):
    """Of cancel() and the worker one wins: a task either ran or was cancelled, never both."""
    ran = []

    with threads_app.app_context():
        tasks = [(number, background(ran.append, number)) for number in range(500)]
        cancelled = {number for number, each in tasks if each.cancel()}
    FlaskAsok().close(threads_app, WAIT)

    assert cancelled.isdisjoint(ran)
    assert len(cancelled) + len(ran) == 500


@pytest.mark.parametrize("options", [{}, {"delay": 60}], ids=["now", "delayed"])
def test_cancelled_by_a_receiver(threads_app, options):
    """A receiver of `task_queued` may cancel the task: it stays cancelled."""

    def cancel(sender, task):
        task.cancel()

    with task_queued.connected_to(cancel, threads_app), threads_app.app_context():
        cancelled = background.using(**options)(int)

    assert cancelled.state == "cancelled"
    assert not cancelled.is_alive()
