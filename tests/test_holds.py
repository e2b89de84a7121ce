"""Tasks that wait for the response or the commit."""

import threading
import warnings

import pytest
from flask import Flask, Response, abort, request_finished, stream_with_context
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy import event
from sqlalchemy.orm import Mapped, mapped_column

from flask_asok import FlaskAsok, NotConfigured, TaskCancelled, background
from flask_asok.signals import task_queued

WAIT = 10
after_response = background.using(when="response")
after_commit = background.using(when="commit")

db = SQLAlchemy()


class Order(db.Model):
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column()


# The response


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
    db.init_app(app)

    def cancel(sender, task):
        task.cancel()

    with app.test_request_context(), task_queued.connected_to(cancel, app):
        db.session.begin()
        cancelled = background.using(when=when)(int)
        db.session.commit()

    assert cancelled.state == "cancelled"


def test_full_queue_at_the_release(make_app, occupy):
    """A queue that is full when the response was sent makes the server's thread run the task: nothing is lost."""
    app = make_app(ASOK_QUEUES={"default": 1}, ASOK_MAX_QUEUED=1)

    with app.test_request_context():
        occupy()
        background(int)
        held = after_response(threading.get_ident)

    assert held.result(0) == threading.get_ident()


def test_an_exit_at_the_release(make_app):
    """A task that leaves by SystemExit, where the server's thread runs it, keeps none of the others from starting."""
    app = make_app()

    def leave():
        raise SystemExit

    context = app.test_request_context()
    context.push()
    leaving, other = after_response(leave), after_response(int)
    # From now on the caller runs each task itself.
    app.extensions["asok"].close()
    with pytest.raises(SystemExit):
        context.pop()

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


# The commit


@pytest.fixture
def shop(make_app, backend, tmp_path):
    """An application with a database."""
    app = make_app(SQLALCHEMY_DATABASE_URI=f"sqlite:///{tmp_path}/shop.db", **backend)
    db.init_app(app)
    with app.app_context():
        db.create_all()
        yield app
        db.session.remove()
        db.engine.dispose()


def names():
    return sorted(db.session.scalars(db.select(Order.name)))


def add(name):
    db.session.add(Order(name=name))


def test_after_the_commit(shop):
    """A task held for the commit starts after it, and finds the row."""
    add("a")
    held = after_commit(names)
    before = held.state
    db.session.flush()
    after_flush = held.state
    db.session.commit()

    assert (before, after_flush) == ("waiting", "waiting")
    assert held.result(WAIT) == ["a"]


def test_not_after_a_rollback(shop):
    """A rollback cancels the task, and a later commit does not bring it back."""
    add("a")
    held = after_commit(names)
    db.session.rollback()
    add("b")
    db.session.commit()

    assert held.state == "cancelled"


def test_not_when_the_context_ends_without_commit(shop):
    """An application context that ends without a commit cancels the task."""
    with shop.app_context():
        add("a")
        held = after_commit(names)

    assert held.state == "cancelled"
    assert names() == []


@pytest.mark.parametrize("end", [lambda: db.session.close(), lambda: db.session.remove()], ids=["close", "remove"])
def test_not_when_the_session_closes(shop, end):
    """A session that is closed cancels the task."""
    add("a")
    held = after_commit(names)
    end()

    assert held.state == "cancelled"


def test_not_when_the_commit_fails(shop):
    """A commit that fails, and is rolled back, cancels the task."""
    db.session.add(Order(id=1, name="a"))
    db.session.commit()
    db.session.add(Order(name=None))
    held = after_commit(names)
    with pytest.raises(Exception, match="NOT NULL"):
        db.session.commit()
    db.session.rollback()

    assert held.state == "cancelled"


def test_each_transaction_for_itself(shop):
    """Tasks of one transaction do not wait for another one of the same session."""
    add("a")
    first = after_commit(names)
    db.session.commit()
    first.join(WAIT)
    add("b")
    second = after_commit(names)
    db.session.rollback()

    assert first.state == "succeeded"
    assert second.state == "cancelled"


def test_released_savepoint(shop):
    """A savepoint that is released is no commit: the task waits for the outermost one."""
    add("a")
    with db.session.begin_nested():
        add("b")
        held = after_commit(names)
    after_savepoint = held.state
    db.session.commit()

    assert after_savepoint == "waiting"
    assert held.result(WAIT) == ["a", "b"]


def test_savepoint_rolled_back(shop):
    """The rollback of its savepoint cancels a task; one of the transaction around it waits on, and starts."""
    add("a")
    of_root = after_commit(names)
    savepoint = db.session.begin_nested()
    add("b")
    of_savepoint = after_commit(names)
    savepoint.rollback()
    state = of_root.state
    db.session.commit()

    assert (of_savepoint.state, state) == ("cancelled", "waiting")
    assert of_root.result(WAIT) == ["a"]


@pytest.mark.parametrize(
    ("outer", "root", "expected"),
    [
        ("commit", "commit", ["a", "b", "c"]),
        ("commit", "rollback", None),
        ("rollback", "commit", None),
        ("rollback", "rollback", None),
    ],
)
def test_nested_savepoints(shop, outer, root, expected):
    """A task of a savepoint inside a savepoint needs both, and the root, to be committed."""
    add("a")
    around = db.session.begin_nested()
    add("b")
    with db.session.begin_nested():
        add("c")
        held = after_commit(names)
    getattr(around, outer)()
    getattr(db.session, root)()

    assert held.state == "cancelled" if expected is None else held.result(WAIT) == expected


def test_root_rolled_back_inside_a_savepoint(shop):
    """A rollback of everything, from within a savepoint, cancels everything."""
    add("a")
    of_root = after_commit(names)
    db.session.begin_nested()
    of_savepoint = after_commit(names)
    db.session.rollback()

    assert (of_root.state, of_savepoint.state) == ("cancelled", "cancelled")


def test_no_open_transaction(shop):
    """With no open transaction there is nothing to wait for: the task starts now."""
    db.session.remove()

    assert after_commit(int).result(WAIT) == 0


def test_a_read_opens_a_transaction(shop):
    """A read opens a transaction too, so the task waits for its end."""
    names()
    held = after_commit(int)
    before = held.state
    db.session.commit()

    assert before == "waiting"
    assert held.result(WAIT) == 0


@pytest.mark.parametrize("held_before", [False, True])
def test_in_a_listener_of_the_commit(shop, held_before):
    """In a listener of `after_commit` there is no commit to wait for any more: the task starts now."""

    def listen(session):
        tasks.append(after_commit(names))

    tasks = []
    add("a")
    event.listen(db.session(), "after_commit", listen)
    if held_before:
        tasks.append(after_commit(names))
    db.session.commit()

    assert [task.result(WAIT) for task in tasks] == [["a"]] * (1 + held_before)


def test_in_a_listener_of_a_savepoint(shop):
    """In one that hears of a savepoint's release the task waits for the transaction around it."""

    def listen(session):
        if session.in_nested_transaction():
            tasks.append(after_commit(names))

    add("a")
    tasks = [after_commit(names)]
    event.listen(db.session(), "after_commit", listen)
    with db.session.begin_nested():
        add("b")
    states = [task.state for task in tasks]
    db.session.commit()

    assert states == ["waiting", "waiting"]
    assert [task.result(WAIT) for task in tasks] == [["a", "b"]] * 2


def test_after_a_flush_that_failed(shop):
    """Where only a rollback is left, before it is made, the task is cancelled by that."""
    db.session.add(Order(name=None))
    with pytest.raises(Exception, match="NOT NULL"):
        db.session.commit()
    held = after_commit(names)
    db.session.rollback()

    assert held.state == "cancelled"


def test_cancel_before_the_commit(shop):
    """A held task that is cancelled is not started by the commit."""
    add("a")
    held = after_commit(int)
    held.cancel()
    db.session.commit()

    assert held.state == "cancelled"


def test_joining_before_the_commit(shop):
    """Waiting for a task that starts after one's own commit is an error, not a hang."""
    add("a")
    held = after_commit(int)

    with pytest.raises(RuntimeError, match="starts after this response or commit"):
        held.join(WAIT)
    db.session.commit()

    assert held.result(WAIT) == 0


def test_joining_another_ones_commit(make_app, tmp_path):
    """Another task may wait for a task that is held for a commit of the request's."""
    app = make_app(SQLALCHEMY_DATABASE_URI=f"sqlite:///{tmp_path}/shop.db", ASOK_QUEUES={"default": 1})
    db.init_app(app)
    waiting = threading.Event()

    def wait_for(held):
        waiting.set()
        return held.result(WAIT)

    with app.app_context():
        db.create_all()
        add("a")
        held = after_commit(names)
        other = background(wait_for, held)
        waiting.wait(WAIT)
        db.session.commit()

        assert other.result(WAIT) == ["a"]
        db.engine.dispose()


def test_waiting_in_a_task_without_its_session(shop, gate):
    """Another thread without an app context may wait for a held task."""
    add("a")
    held = after_commit(names)
    results = []
    waiter = threading.Thread(target=lambda: results.append(held.result(WAIT)))
    waiter.start()
    db.session.commit()
    waiter.join(WAIT)

    assert results == [["a"]]


def test_full_queue_at_the_commit(make_app, gate, occupy, tmp_path):
    """A full queue takes the task all the same: the thread that commits is in the middle of it."""
    app = make_app(
        SQLALCHEMY_DATABASE_URI=f"sqlite:///{tmp_path}/shop.db", ASOK_QUEUES={"default": 1}, ASOK_MAX_QUEUED=1
    )
    db.init_app(app)

    with app.app_context():
        db.create_all()
        occupy()
        background(int)
        add("a")
        held = after_commit(names)
        db.session.commit()
        after = held.state
        gate.set()

        assert after == "queued"
        assert held.result(WAIT) == ["a"]
        db.engine.dispose()


def test_no_flask_sqlalchemy(app):
    """Without Flask-SQLAlchemy `when="commit"` is an error at the call, which leaves no task."""
    with app.app_context():
        with pytest.raises(NotConfigured, match=r"not set up on this app\. Call background\(\) after your own commit"):
            after_commit(int)

        assert [summary.state for summary in FlaskAsok().tasks()] == ["cancelled"]


# Database objects as arguments


def test_an_instance_bound_to_a_session(shop):
    """A database object passed to a task warns, with the line of the call: its session ends with the request."""
    add("a")
    db.session.flush()
    order = db.session.scalars(db.select(Order)).one()

    with pytest.warns(UserWarning, match="A Order bound to a database session .* Pass its id") as caught:
        background(str, order).join(WAIT)

    assert caught[0].filename == __file__


def test_an_instance_of_no_session(shop):
    """One that no session holds any more is passed without a word, and stays in `g`."""
    from flask import g

    order = Order(name="a")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        g.order = order
        started = background(lambda passed: (passed is order, g.order is order), order)

    assert started.result(WAIT) == (True, True)


def test_an_instance_in_g(shop):
    """A database object in `g` that a session holds stays with the request; the task loads its own."""
    from flask import g

    add("a")
    db.session.commit()
    g.order = db.session.scalars(db.select(Order)).one()
    g.order_id = g.order.id

    assert background(lambda: sorted(g)).result(WAIT) == ["order_id"]
