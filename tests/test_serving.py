"""What begins with the first request that a process answers, and with nothing else."""

import gc
import os
import threading
import weakref

import click
import pytest
from flask import Flask, request_started

from flask_asok import BackendUnavailable, FlaskAsok
from flask_asok.serving import Serving
from flask_asok.state import state_of

TIMEOUT = 10


@pytest.fixture
def app(threads_app):
    return threads_app


@pytest.fixture
def started(app):
    """The applications that were given to a start, in order."""
    started = []
    state_of(app).serving.on_first_request(started.append)
    return started


def ask(app):
    return app.test_client().get("/nothing").status_code


def test_first_request(app, started):
    """The first request starts it, be it a 404, and no other one does."""
    serving = state_of(app).serving
    assert not serving.is_serving

    codes = [ask(app) for _ in range(3)]

    assert codes == [404, 404, 404]
    assert serving.is_serving
    assert started == [app]


def test_in_its_thread(app):
    """It is called in the thread of the request, when that begins: before the view."""
    seen = []
    state_of(app).serving.on_first_request(lambda app: seen.append(("start", threading.get_ident())))

    @app.get("/")
    def index():
        seen.append(("view", threading.get_ident()))
        return ""

    app.test_client().get("/")

    assert seen == [("start", threading.get_ident()), ("view", threading.get_ident())]


def test_contexts_are_no_requests(app, started):
    """Neither an application context nor `test_request_context()` is a request."""
    with app.app_context(), app.test_request_context():
        pass

    assert not state_of(app).serving.is_serving
    assert started == []


def test_testing(app, started):
    """In testing mode nothing starts, however late that was set; it does with the first request after that."""
    app.testing = True
    ask(app)
    assert started == []
    assert not state_of(app).serving.is_serving

    app.testing = False
    ask(app)

    assert started == [app]


def test_command(app, started):
    """A command that asks its own application starts nothing."""

    @app.cli.command("freeze")
    def freeze():
        click.echo(ask(app))

    assert app.test_cli_runner().invoke(args=["freeze"]).output == "404\n"

    assert started == []


def test_later_start(app, started):
    """What is to start when the process serves already starts with its next request."""
    late = []
    ask(app)

    state_of(app).serving.on_first_request(late.append)
    ask(app)
    ask(app)

    assert (started, late) == ([app], [app])


def test_nothing_to_do_yet(app):
    """A start that returns False is asked again with a request, a second later at the earliest."""
    serving = state_of(app).serving
    time = 100.0
    serving.now = lambda: time
    answers = [None, False, False]
    asked = []
    serving.on_first_request(lambda app: asked.append(time) or answers.pop())

    for seconds in (0, 0.5, 0.4, 0.2, 5, 5):
        time += seconds
        ask(app)

    assert asked == [100.0, pytest.approx(101.1), pytest.approx(106.1)]


def test_raises(app, started, caplog):
    """A start that raises is logged, keeps neither the answer nor the others, and is not called again."""
    calls = []

    def broken(app):
        calls.append(app)
        raise ValueError("no")

    state_of(app).serving.on_first_request(broken)
    state_of(app).serving.on_first_request(started.append)

    assert ask(app) == 404
    ask(app)

    assert calls == [app]
    assert started == [app, app]
    assert "What begins with the first request failed: ValueError('no')" in caplog.text


@pytest.mark.parametrize("error", [BackendUnavailable("The store is away."), RuntimeError("can't start new thread")])
def test_raises_for_now(app, caplog, error):
    """A start that finds the store away, or no thread, is asked again with a later request, and logged once."""
    serving = state_of(app).serving
    time = 100.0
    serving.now = lambda: time
    asked = []

    def start(app):
        asked.append(time)
        if len(asked) < 4:
            raise error

    serving.on_first_request(start)
    for seconds in (0, 0.5, 0.6, 5, 5, 5):
        time += seconds
        ask(app)

    assert asked == [100.0, pytest.approx(101.1), pytest.approx(106.1), pytest.approx(111.1)]
    assert caplog.text.count(f"What begins with the first request is tried again: {error}") == 1


def test_request_while_it_starts(app):
    """A start that takes long and is to be asked again is, though other requests came meanwhile."""
    serving = state_of(app).serving
    time = 100.0
    serving.now = lambda: time
    asked = []

    def start(app):
        nonlocal time
        asked.append(time)
        time += 10
        if len(asked) == 1:
            ask(app)
            return False
        return None

    serving.on_first_request(start)
    ask(app)
    ask(app)
    time += 2
    ask(app)

    assert asked == [100.0, 112.0]


def test_many_first_requests(make_app):
    """Of many first requests at the same moment one starts it."""
    for _ in range(20):
        app = make_app()
        started = []
        state_of(app).serving.on_first_request(started.append)
        barrier = threading.Barrier(8)

        def one(app=app, barrier=barrier):
            barrier.wait(TIMEOUT)
            ask(app)

        threads = [threading.Thread(target=one) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(TIMEOUT)

        assert started == [app]


def test_two_apps(make_app):
    """A request of one application starts nothing of another one."""
    shop, desk = make_app("shop"), make_app("desk")
    started = []
    for app in (shop, desk):
        state_of(app).serving.on_first_request(started.append)

    ask(desk)

    assert started == [desk]


def test_costs_nothing_once_started():
    """Once all is started, requests call nothing of it any more."""
    app = Flask("shop")
    serving = Serving(app)
    serving.on_first_request(lambda app: None)
    before = len(list(request_started.receivers_for(app)))

    ask(app)

    # Others may listen to all applications.
    assert len(list(request_started.receivers_for(app))) == before - 1
    assert serving.is_serving


def test_dropped_app():
    """It keeps no application alive."""
    app = Flask("shop")
    FlaskAsok(app)
    state_of(app).serving.on_first_request(lambda app: None)
    gone = weakref.ref(app)

    del app
    gc.collect()

    assert gone() is None


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.parametrize("asks", ["before the fork", "after it", "both"])
def test_fork(app, started, asks):
    """A forked child begins with its own first request, whatever its parent has answered."""
    if asks != "after it":
        ask(app)
    in_parent = len(started)
    ours, theirs = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            serving = state_of(app).serving.is_serving
            if asks != "before the fork":
                ask(app)
            os.write(theirs, f"{serving} {len(started) - in_parent}".encode())
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    os.close(theirs)
    with open(ours, "rb") as answer:
        found = answer.read().decode()

    assert found == f"False {0 if asks == 'before the fork' else 1}"
