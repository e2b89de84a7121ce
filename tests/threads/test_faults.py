"""Whatever a task, its app or a receiver raises, the pool goes on."""

import contextlib
import logging
import threading

import pytest

from flask_asok import FlaskAsok, background
from flask_asok.signals import task_failed, task_queued, task_started, task_succeeded

WAIT = 10
ONE_THREAD = {"default": 1}


def fail():
    raise ValueError("no stock")


@pytest.mark.parametrize("error", [ValueError, SystemExit, KeyboardInterrupt, GeneratorExit, BaseException])
def test_any_error_in_a_task(make_app, caplog, error):
    """Whatever a task raises is logged and kept, and the pool goes on."""
    app = make_app(ASOK_QUEUES=ONE_THREAD)

    def boom():
        raise error("boom")

    with app.app_context():
        failed = background(boom)
        after = background(int)

    assert isinstance(failed.exception(WAIT), error)
    assert after.result(WAIT) == 0
    assert [record.getMessage() for record in caplog.records] == [
        f"Background task boom failed: {error.__name__}('boom')"
    ]


@pytest.mark.parametrize("signal", [task_started, task_succeeded], ids=lambda signal: signal.name)
@pytest.mark.parametrize("error", [ValueError, SystemExit, KeyboardInterrupt])
def test_raising_receiver(make_app, caplog, signal, error):
    """A signal receiver that raises is logged; the other receivers, the task and the pool go on."""
    app = make_app(ASOK_QUEUES=ONE_THREAD)
    heard = []

    def boom(sender, task):
        raise error("boom")

    def listen(sender, task):
        heard.append(task)

    with signal.connected_to(boom, app), signal.connected_to(listen, app), app.app_context():
        results = [background(int).result(WAIT), background(int).result(WAIT)]
        FlaskAsok().close(app, WAIT)

    assert results == [0, 0]
    assert len(heard) == 2
    assert [record.getMessage() for record in caplog.records] == [
        f"Receiver of {signal.name} failed: {error.__name__}('boom')"
    ] * 2


def test_raising_receiver_in_the_caller(threads_app, caplog):
    """A receiver of `task_queued` that raises does not keep the caller from going on."""

    def boom(sender, task):
        raise ValueError("boom")

    with task_queued.connected_to(boom, threads_app), threads_app.app_context():
        started = background(int)

    assert started.result(WAIT) == 0
    assert "Receiver of task-queued failed: ValueError('boom')" in caplog.text


def test_ctrl_c_in_a_receiver_of_the_caller(threads_app):
    """Ctrl-C in the main thread is never swallowed, in a receiver neither."""

    def interrupted(sender, task):
        raise KeyboardInterrupt

    with (
        threads_app.app_context(),
        task_queued.connected_to(interrupted, threads_app),
        pytest.raises(KeyboardInterrupt),
    ):
        background(int)


@pytest.mark.parametrize("signal", [task_started, task_succeeded, task_failed], ids=lambda signal: signal.name)
def test_ctrl_c_in_a_receiver_while_the_caller_runs(threads_app, signal, no_threads):
    """Ctrl-C in a receiver, where the main thread itself runs the task, goes up; the task has come to its end."""

    def interrupted(sender, task, **kwargs):
        tasks.append(task)
        raise KeyboardInterrupt

    tasks = []
    FlaskAsok().close(threads_app)
    with (
        threads_app.app_context(),
        signal.connected_to(interrupted, threads_app),
        no_threads(),
        pytest.raises(KeyboardInterrupt),
    ):
        background(fail if signal is task_failed else int)
    with contextlib.suppress(BaseException):
        tasks[0].result(WAIT)

    assert tasks[0].state == ("succeeded" if signal is task_succeeded else "failed")
    assert not tasks[0].is_alive()


class BoomHandler(logging.Handler):
    def __init__(self, error):
        super().__init__()
        self.error = error

    def emit(self, record):
        raise self.error("boom")


@pytest.mark.parametrize("error", [ValueError, SystemExit, KeyboardInterrupt])
def test_raising_handler(make_app, capfd, error):
    """A log handler that raises is told of on stderr; the task and the pool go on."""
    app = make_app(ASOK_QUEUES=ONE_THREAD)
    handler = BoomHandler(error)
    logging.getLogger("asok.background").addHandler(handler)

    try:
        with app.app_context():
            failed = background(fail)
            after = background(int)
            failed.join(WAIT)
            after.join(WAIT)
    finally:
        logging.getLogger("asok.background").removeHandler(handler)

    assert isinstance(failed.exception(), ValueError)
    assert after.result() == 0
    assert f"Logging of a background task failed: {error.__name__}('boom')" in capfd.readouterr().err


class Unprintable(Exception):
    def __init__(self, error=ValueError):
        self.error = error

    def __repr__(self):
        raise self.error("boom")

    __str__ = __repr__


def test_ctrl_c_while_the_caller_logs(make_app, no_threads):
    """Ctrl-C goes up from a log handler or a repr() too, where the main thread itself runs the task."""
    app = make_app()
    handler = BoomHandler(KeyboardInterrupt)
    FlaskAsok().close(app)

    def boom():
        raise Unprintable(KeyboardInterrupt)

    with app.app_context(), no_threads():
        with pytest.raises(KeyboardInterrupt):
            background(boom)
        logging.getLogger("asok.background").addHandler(handler)
        try:
            with pytest.raises(KeyboardInterrupt):
                background(fail)
            with pytest.raises(KeyboardInterrupt):
                background.using(retries=1)(fail)
        finally:
            logging.getLogger("asok.background").removeHandler(handler)

        assert [summary.state for summary in FlaskAsok().tasks()] == ["failed", "failed", "abandoned"]


@pytest.mark.parametrize("error", [ValueError, SystemExit, KeyboardInterrupt])
def test_raising_repr(make_app, caplog, error):
    """An error or an argument whose repr() raises is logged all the same."""
    app = make_app(ASOK_QUEUES=ONE_THREAD)

    def boom(argument):
        raise argument

    with app.app_context():
        failed = background(boom, Unprintable(error))
        after = background(int)

    assert isinstance(failed.exception(WAIT), Unprintable)
    assert failed.summary.error == "<Unprintable whose repr() failed>"
    assert after.result(WAIT) == 0
    assert caplog.messages == ["Background task boom failed: <Unprintable whose repr() failed>"]


def test_raising_teardown(make_app, caplog):
    """An error in a teardown is logged and changes nothing about the task."""
    app = make_app(ASOK_QUEUES=ONE_THREAD)
    main = threading.get_ident()

    @app.teardown_appcontext
    def boom(error):
        if threading.get_ident() != main:
            raise ValueError("boom")

    with app.app_context():
        results = [background(int).result(WAIT), background(int).result(WAIT)]

    assert results == [0, 0]
    assert len(caplog.messages) == 2
    # From Flask 3.2 on the error is in a group.
    for message in caplog.messages:
        assert message.startswith("Teardown after background task int failed: ")
        assert "ValueError('boom')" in message


def test_raising_push(make_app, caplog):
    """A context that cannot be entered fails the task, and no other."""
    from flask import appcontext_pushed

    app = make_app(ASOK_QUEUES=ONE_THREAD)

    def boom(sender):
        raise ValueError("boom")

    with app.app_context():
        with appcontext_pushed.connected_to(boom, app):
            failed = background(int).exception(WAIT)
        after = background(int)

    assert repr(failed) == "ValueError('boom')"
    assert after.result(WAIT) == 0


@pytest.mark.parametrize("error", [LookupError, SystemExit])
def test_raising_backoff(threads_app, caplog, error):
    """A backoff that raises ends the retries: the task fails with its own error."""

    def backoff(attempt):
        raise error("no such attempt")

    with threads_app.app_context():
        failed = background.using(retries=3, backoff=backoff)(fail)

    assert isinstance(failed.exception(WAIT), ValueError)
    assert failed.attempts == 1
    assert caplog.messages == [
        f"Backoff of background task fail failed: {error.__name__}('no such attempt')",
        "Background task fail failed: ValueError('no stock')",
    ]


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_what_is_meant_for_the_caller_goes_up(make_app, gate, error, busy):
    """Ctrl-C and the server's SystemExit in a task that its caller runs settle it, and then go on up."""
    app = make_app(ASOK_QUEUES=ONE_THREAD, ASOK_MAX_QUEUED=1)

    def interrupted():
        raise error

    with app.app_context(), busy(gate):
        background(int)
        with pytest.raises(error):
            background(interrupted)
        settled = FlaskAsok().tasks()[-1].state
        failed = background(fail)

    assert settled == "failed"
    assert isinstance(failed.exception(WAIT), ValueError)
