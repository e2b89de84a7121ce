"""What is kept of tasks, and for how long."""

import weakref

from flask_asok import FlaskAsok, background
from flask_asok.backends import scheduler as scheduler_module
from flask_asok.state import state_of

WAIT = 10


def fail():
    raise ValueError("no stock")


def test_ring_is_bounded(make_app):
    """Only the most recent tasks are remembered, and of those no argument, result or error object."""
    app = make_app(ASOK_RECENT_TASKS=2)

    with app.app_context():
        tasks = [background.using(name=name)(fail) for name in ("a", "b", "c")]
        for each in tasks:
            each.join(WAIT)
        recent = FlaskAsok().tasks()
        found = FlaskAsok().get(tasks[2].id)

        assert FlaskAsok().get(tasks[0].id) is None

    assert [summary.name for summary in recent] == ["b", "c"]
    assert (found.state, found.error, found.queue) == ("failed", "ValueError('no stock')", "default")


def test_timeouts_count_for_nothing(make_app, left_of):
    """A task with a timeout that is done long before it keeps no result alive and takes no place of one that waits."""
    app = make_app(ASOK_MAX_WAITING=2)

    class Report:
        pass

    with app.app_context():
        reports = [weakref.ref(background.using(timeout=600)(Report).result(WAIT)) for _ in range(3)]
        waiting = background.using(delay=600)(int)

        assert left_of(reports) == []
        assert waiting.cancel()


def test_timeouts_of_tasks_that_are_over(make_app):
    """Nothing of a task that is over is kept until its timeout, however many there are."""
    app = make_app()
    timeouts = state_of(app).backend.timeouts

    with app.app_context():
        for _ in range(4):
            tasks = [background.using(timeout=3600)(int) for _ in range(scheduler_module.MOST_STALE)]
            for each in tasks:
                each.join(WAIT)
        del tasks, each
        FlaskAsok().close(app, WAIT)

    assert len(timeouts) == 0


def test_cancelled_tasks_make_room(make_app):
    """A waiting task that was cancelled gives its place to another one."""
    app = make_app(ASOK_MAX_WAITING=2)

    with app.app_context():
        for _ in range(2):
            assert background.using(delay=600)(int).cancel()

        waiting = background.using(delay=600)(int)

        assert waiting.state == "waiting"
        assert waiting.cancel()
