"""Tasks that wait for the response."""

import threading

import pytest
from flask import Flask, Response, abort, request_finished, stream_with_context
from flask_sqlalchemy import SQLAlchemy

from flask_asok import FlaskAsok, TaskCancelled, background
from flask_asok.signals import task_queued

WAIT = 10
after_response = background.using(when="response")
after_commit = background.using(when="commit")


def test_after_the_last_byte(app):
    """A task held for the response starts when the server closes it, after its last byte."""
    states = []

    @app.get("/")
    def view():
        tasks.append(after_response(int))
        return "page"

    tasks = []
    response = app.test_client().get("/")
    states.append(tasks[0].state)
    text = response.text
    states.append(tasks[0].state)
    response.close()

    assert text == "page"
    assert states == ["waiting", "waiting"]
    assert tasks[0].result(WAIT) == 0


@pytest.mark.parametrize("wrap", [lambda parts: parts, stream_with_context], ids=["plain", "with context"])
def test_after_a_streamed_response(app, wrap):
    """Of a streamed response too the last byte is waited for."""

    @app.get("/")
    def view():
        tasks.append(after_response(int))
        return wrap(iter(["one", "two"]))

    tasks = []
    response = app.test_client().get("/", buffered=False)
    parts = response.iter_encoded()
    states = []
    for _ in range(2):
        next(parts)
        states.append(tasks[0].state)
    response.close()

    assert states == ["waiting", "waiting"]
    assert tasks[0].result(WAIT) == 0


def test_started_while_streaming(app):
    """A task that is held while the response is streamed starts when its context ends."""

    @app.get("/")
    def view():
        @stream_with_context
        def parts():
            yield "one"
            tasks.append(after_response(int))
            states.append(tasks[0].state)
            yield "two"

        return parts()

    tasks, states = [], []
    response = app.test_client().get("/")
    text = response.text
    response.close()

    assert text == "onetwo"
    assert states == ["waiting"]
    assert tasks[0].result(WAIT) == 0


def test_several_in_order(make_app):
    """Several tasks held for one response start in the order of their calls."""
    app = make_app(ASOK_QUEUES={"default": 1})
    order = []

    @app.get("/")
    def view():
        tasks.extend(after_response(order.append, number) for number in range(5))
        return "page"

    tasks = []
    app.test_client().get("/").close()
    for task in tasks:
        task.join(WAIT)

    assert order == [0, 1, 2, 3, 4]


def test_held_in_after_request(app):
    """A task may be held in a function that works on the response, or in a teardown."""

    @app.after_request
    def after(response):
        tasks.append(after_response(int))
        return response

    @app.teardown_request
    def tear_down(error):
        tasks.append(after_response(int))

    @app.get("/")
    def view():
        return "page"

    tasks = []
    app.test_client().get("/").close()

    assert [task.result(WAIT) for task in tasks] == [0, 0]


def test_held_in_an_early_teardown(backend):
    """A teardown registered before the extension may hold a task too, of a request without response as well."""
    app = Flask("shop")
    tasks = []

    @app.teardown_request
    def tear_down(error):
        tasks.append(after_response(int))

    @app.get("/")
    def view():
        return "page"

    app.config.update(backend)
    FlaskAsok(app)
    app.test_client().get("/").close()
    with app.test_request_context():
        pass

    assert [task.result(WAIT) for task in tasks] == [0, 0]


def test_a_response_for_every_request(app):
    """A response that the app makes once, and gives to every request, gathers nothing where no task is held."""
    kept = Response("fine")
    app.add_url_rule("/", "health", lambda: kept)

    for _ in range(3):
        app.test_client().get("/")

    assert kept._on_close == []


def test_in_the_request_of_another_app(make_app, backend):
    """An app whose context is entered in the request of another one has no request: its task starts now."""
    shop, blog = Flask("shop"), make_app("blog", **backend)

    @shop.get("/")
    def view():
        with blog.app_context():
            return str(after_response(int).result(WAIT))

    assert shop.test_client().get("/").text == "0"


def test_closing_abandons_what_is_held(make_app, caplog):
    """A task whose response has not come when its app is closed is abandoned by name; other apps keep theirs."""
    shop, blog = make_app("shop"), make_app("blog")

    with shop.test_request_context(), blog.test_request_context():
        of_blog = after_response(int)
        cancelled = after_response(int)
        cancelled.cancel()
        with shop.test_request_context():
            of_shop = background.using(when="response", name="letter")(int)
            FlaskAsok().close(shop)
            state = of_shop.state

    assert (state, of_shop.state, cancelled.state) == ("abandoned", "abandoned", "cancelled")
    assert caplog.messages == [
        f"Background task letter ({of_shop.id}) abandoned while waiting: the application shuts down."
    ]
    assert of_blog.result(WAIT) == 0


def test_not_when_the_view_failed(app):
    """When the view fails, the task it held is cancelled and never runs."""
    ran = []

    @app.get("/")
    def view():
        tasks.append(after_response(ran.append, 1))
        raise ValueError("no stock")

    tasks = []
    response = app.test_client().get("/")
    response.close()

    assert response.status_code == 500
    assert tasks[0].state == "cancelled"
    assert ran == []


@pytest.mark.parametrize("testing", [False, True])
def test_not_when_the_view_failed_past_the_handlers(app, testing):
    """Nor when the error is raised to the server, or the test."""
    app.config["PROPAGATE_EXCEPTIONS"] = True
    app.config["TESTING"] = testing

    @app.get("/")
    def view():
        tasks.append(after_response(int))
        raise ValueError("no stock")

    tasks = []
    with pytest.raises(ValueError, match="no stock"):
        app.test_client().get("/")

    assert tasks[0].state == "cancelled"


def test_not_when_the_context_ends_with_an_error(app):
    """A request context that ends with an error cancels what it held."""
    tasks = []

    def interrupted():
        with app.test_request_context():
            tasks.append(after_response(int))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()

    assert tasks[0].state == "cancelled"


def test_not_when_the_finished_response_is_dropped(app):
    """An error after the response was made, in a receiver of `request_finished`, cancels the task too."""

    def fail(sender, response):
        if response.status_code == 200:
            raise ValueError("no stock")

    @app.get("/")
    def view():
        tasks.append(after_response(int))
        return "page"

    tasks = []
    with request_finished.connected_to(fail, app):
        response = app.test_client().get("/")
        response.close()

    assert response.status_code == 500
    assert tasks[0].state == "cancelled"


def test_when_the_error_was_meant(app):
    """An error that became a response, as `abort(404)` does, is one to start the task after."""

    @app.get("/")
    def view():
        tasks.append(after_response(int))
        abort(404)

    @app.get("/handled")
    def handled():
        tasks.append(after_response(int))
        raise LookupError

    app.register_error_handler(LookupError, lambda error: ("gone", 410))
    tasks = []
    responses = [app.test_client().get(path) for path in ("/", "/handled")]
    for response in responses:
        response.close()

    assert [response.status_code for response in responses] == [404, 410]
    assert [task.result(WAIT) for task in tasks] == [0, 0]


def test_held_by_the_error_page(app):
    """A task that the page of a failed view holds starts after that page."""
    tasks = []

    @app.errorhandler(500)
    def failed(error):
        tasks.append(after_response(int))
        return "sorry", 500

    @app.get("/")
    def view():
        tasks.append(after_response(int))
        raise ValueError

    app.test_client().get("/").close()

    assert tasks[0].state == "cancelled"
    assert tasks[1].result(WAIT) == 0


def test_request_without_response(app):
    """A request context that made no response, as in a shell, starts the task when it ends."""
    with app.test_request_context():
        held = after_response(int)
        before = held.state

    assert before == "waiting"
    assert held.result(WAIT) == 0


def test_no_request(app):
    """Without a request there is nothing to wait for: the task starts now."""
    with app.app_context():
        started = after_response(int)

        assert started.result(WAIT) == 0


def test_cancel_before_the_response(app):
    """A held task that is cancelled is not started by the response."""
    with app.test_request_context():
        held = after_response(int)
        cancelled = held.cancel()

    assert cancelled
    assert held.state == "cancelled"


def test_delay_counts_from_the_response(threads_app):
    """A delay of a held task begins when it is released."""
    with threads_app.test_request_context():
        held = background.using(when="response", delay=3600)(int)
    waiting = held.state

    assert waiting == "waiting"
    assert held.cancel()


@pytest.mark.parametrize("when", ["response", "commit"])
def test_cancelled_by_a_receiver(make_app, when):
    """A receiver of `task_queued` may cancel a task before it is held: it stays cancelled."""
    app = make_app(SQLALCHEMY_DATABASE_URI="sqlite://")
    db = SQLAlchemy(app)

    def cancel(sender, task):
        task.cancel()

    with app.test_request_context(), task_queued.connected_to(cancel, app):
        db.session.begin()
        cancelled = background.using(when=when)(int)
        db.session.commit()

    assert cancelled.state == "cancelled"


def test_full_queue_at_the_release(make_app, occupy):
    """Where the queue is full when the response was sent, the server's thread waits for the task: nothing is lost."""
    app = make_app(ASOK_QUEUES={"default": 1}, ASOK_MAX_QUEUED=1)

    with app.test_request_context():
        occupy()
        background(int)
        held = after_response(threading.current_thread)

    assert held.result(0).name == "asok-default"


def test_an_exit_at_the_release(make_app):
    """A task that leaves by SystemExit, where the server's thread runs it, keeps none of the others from starting."""
    app = make_app()

    def leave():
        raise SystemExit

    context = app.test_request_context()
    context.push()
    leaving, other = after_response(leave), after_response(int)
    # From now on the caller runs each task itself.
    app.extensions["asok"].backend.close()
    with pytest.raises(BaseException) as raised:  # noqa: PT011 - Flask 3.2 puts it into a group
        context.pop()

    assert raised.type is SystemExit or raised.group_contains(SystemExit)
    assert isinstance(leaving.exception(0), SystemExit)
    assert other.result(0) == 0


def test_a_release_that_fails(make_app, monkeypatch, caplog):
    """When a held task cannot be started, the log says so and it is cancelled: nobody is left to raise to."""
    app = make_app()
    state = app.extensions["asok"]

    def start(task, *, bounded=True):
        raise ConnectionError("no broker")

    monkeypatch.setattr(state.backend, "start", start)
    with app.test_request_context():
        held = after_response(int)

    with pytest.raises(TaskCancelled):
        held.result(0)
    assert caplog.messages == [f"Background task int ({held.id}) could not be started: ConnectionError('no broker')"]
