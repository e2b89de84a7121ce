"""The end of a response, of whatever kind it is, and whether or not anybody closes it."""

import gc
import io
import logging
import threading
import weakref
from functools import partial
from wsgiref.util import FileWrapper

import pytest
from flask import Flask, Response, copy_current_request_context, request, send_file, stream_with_context
from flask_sqlalchemy import SQLAlchemy
from werkzeug.test import EnvironBuilder
from werkzeug.wrappers import Response as WerkzeugResponse

from flask_asok import background

WAIT = 10
TEXT = b"0123456789" * 5_000
after_response = background.using(when="response")


@pytest.fixture
def gc_off():
    """What is found here is found without the garbage collector."""
    gc.disable()
    yield
    gc.enable()


class Slotted:
    """A body that takes no attribute and knows no weak reference."""

    __slots__ = ("closed", "parts")

    def __init__(self):
        self.parts = iter([TEXT])

    def __iter__(self):
        return self.parts

    def close(self):
        closed.append(self)


class Unclosable:
    """A body without a `close`."""

    def __init__(self):
        self.parts = iter([TEXT])

    def __iter__(self):
        return self.parts


class OwnResponse(Response):
    """What an application may name as its `response_class`."""


closed = []

VIEWS = {
    "text": lambda path: TEXT,
    "generator": lambda path: iter([TEXT[:9], TEXT[9:]]),
    "with context": lambda path: stream_with_context(iter([TEXT[:9], TEXT[9:]])),
    "file": lambda path: send_file(path),
    "attachment": lambda path: send_file(path, as_attachment=True, conditional=False),
    "memory": lambda path: send_file(io.BytesIO(TEXT), mimetype="text/plain"),
    "bare generator": lambda path: Response((part for part in [TEXT]), direct_passthrough=True),
    "bare list": lambda path: Response([TEXT], direct_passthrough=True),
    "bare slots": lambda path: Response(Slotted(), direct_passthrough=True),
    "bare unclosable": lambda path: Response(Unclosable(), direct_passthrough=True),
    "bare file": lambda path: Response(path.open("rb"), direct_passthrough=True),
    "bare wrapper": lambda path: Response(FileWrapper(path.open("rb")), direct_passthrough=True),
    "own class": lambda path: OwnResponse(path.open("rb"), direct_passthrough=True),
    "other class": lambda path: WerkzeugResponse(path.open("rb"), direct_passthrough=True),
    "application": lambda path: lambda environ, start: WerkzeugResponse(TEXT)(environ, start),
}


@pytest.fixture
def site(app, tmp_path):
    """An application that answers `/<view>` with TEXT, and its tasks."""
    path = tmp_path / "text.txt"
    path.write_bytes(TEXT)
    app.static_folder = str(tmp_path)
    app.tasks = []

    @app.before_request
    def hold():
        app.tasks.append(after_response(int))

    @app.get("/<view>")
    def answer(view):
        return VIEWS[view](path)

    return app


def run(app, environ):
    """Call the application as a server does; return the iterable that it answers with."""
    return app(environ, lambda status, headers, exc_info=None: None)


def environ_of(path, **options):
    return EnvironBuilder(path, **options).get_environ()


CALLS = {
    **{view: (f"/{view}", {}, TEXT) for view in VIEWS},
    "static": ("/static/text.txt", {}, TEXT),
    "range": ("/file", {"headers": {"Range": "bytes=5-14"}}, TEXT[5:15]),
    "range of a static file": ("/static/text.txt", {"headers": {"Range": "bytes=-10"}}, TEXT[-10:]),
    "range of memory": ("/memory", {"headers": {"Range": "bytes=5-14"}}, TEXT[5:15]),
    "head": ("/file", {"method": "HEAD"}, b""),
    "not modified": ("/static/text.txt", {"headers": {"If-Modified-Since": "Fri, 01 Jan 2100 00:00:00 GMT"}}, b""),
    "not satisfiable": ("/file", {"headers": {"Range": "bytes=900000-"}}, None),
    "not found": ("/static/other.txt", {}, None),
}

IN_CYCLES = {"not satisfiable", "not found"}
"""A request that an HTTPException answers is kept by that one's traceback, until the garbage collector comes."""


def drop(kept):
    kept.clear()
    find_cycles()


def find_cycles(call="text"):
    """Do what the garbage collector does sooner or later, where a request is in a cycle."""
    if call in IN_CYCLES:
        gc.collect()


every_call = pytest.mark.parametrize("call", CALLS)
# Of the file that nobody closes, as without a task.
unclosed = pytest.mark.filterwarnings("ignore:(?s).*unclosed file", "ignore::pytest.PytestUnraisableExceptionWarning")


@every_call
def test_starts_when_closed(site, call):
    """Whatever the response is made of, the task starts when it is closed, and not before."""
    path, options, expected = CALLS[call]

    response = site.test_client().open(path, **options, buffered=False)
    before = site.tasks[0].state
    data = b"".join(response.response)
    after = site.tasks[0].state
    response.close()

    assert expected is None or data == expected
    assert (before, after) == ("waiting", "waiting")
    assert site.tasks[0].result(WAIT) == 0


@unclosed
@every_call
def test_starts_when_nobody_closes_it(site, call, gc_off):
    """A server that reads everything and closes nothing: the task starts when the server lets go of the request."""
    path, options, _ = CALLS[call]
    environ = environ_of(path, **options)

    body = run(site, environ)
    for _ in body:
        pass
    read = site.tasks[0].state
    del body, environ
    find_cycles(call)

    assert read == "waiting"
    assert site.tasks[0].result(WAIT) == 0


@unclosed
@every_call
def test_starts_when_the_client_leaves(site, call, gc_off):
    """So it does when the server drops the response in the middle of it."""
    path, options, _ = CALLS[call]

    environ = environ_of(path, **options)
    body = run(site, environ)
    next(iter(body), None)
    del body, environ
    find_cycles(call)

    assert site.tasks[0].result(WAIT) == 0


@unclosed
@pytest.mark.parametrize("is_kept", ["environ", "body"])
def test_waits_for_the_last(site, is_kept):
    """Where nobody closes the response, both the environ and the body have to be gone: one may be done before."""
    environ = environ_of("/file")
    body = run(site, environ)
    kept = {"environ": environ, "body": body}[is_kept]
    del environ, body

    state = site.tasks[0].state
    del kept
    find_cycles()

    assert state == "waiting"
    assert site.tasks[0].result(WAIT) == 0


@pytest.mark.parametrize("view", ["file", "bare file", "bare wrapper", "range"])
def test_the_server_gets_its_own_file(site, view):
    """A server gets the very object that it has made of a file, so it may send that without reading it."""
    path, options, _ = CALLS[view]
    made = []

    class Wrapper(FileWrapper):
        def __init__(self, file, size=8192):
            super().__init__(file, size)
            made.append(self)

        __iter__ = None if view == "file" else FileWrapper.__iter__

    environ = environ_of(path, environ_overrides={"wsgi.file_wrapper": Wrapper}, **options)
    body = run(site, environ)
    kind = type(body)
    body.close()

    assert kind in {Wrapper, io.BufferedReader, FileWrapper} or view == "range"
    assert made == [body] or view != "file"
    assert site.tasks[0].result(WAIT) == 0


def test_the_file_is_closed(site, tmp_path):
    """The file of a response is closed with it, before the task starts."""
    file = (tmp_path / "text.txt").open("rb")
    seen = []

    @site.get("/mine")
    def mine():
        site.tasks.append(after_response(lambda: seen.append(file.closed)))
        return Response(file, direct_passthrough=True)

    site.test_client().get("/mine").close()
    site.tasks[-1].join(WAIT)

    assert seen == [True]


def test_a_body_that_takes_no_attribute_is_closed(site):
    """Its own `close` is called all the same."""
    closed.clear()
    site.test_client().get("/bare slots").close()

    assert len(closed) == 1


def test_no_file_is_left_open(site, gc_off):
    """A file that a server drops without closing it is closed by that, as without a task."""
    environ = environ_of("/bare file")
    body = run(site, environ)
    reference = weakref.ref(body)
    kept = [environ, body]
    del environ, body
    with pytest.warns(ResourceWarning, match="unclosed file"):
        drop(kept)

    assert reference() is None
    assert site.tasks[0].result(WAIT) == 0


def test_length_of_a_bare_list(site):
    """A bare list keeps its Content-Length."""
    assert site.test_client().get("/bare list").content_length == len(TEXT)


def test_x_sendfile(site):
    """With USE_X_SENDFILE the web server sends the file; the task starts when the application has said so."""
    site.config["USE_X_SENDFILE"] = True

    response = site.test_client().get("/file")
    state = site.tasks[0].state
    response.close()

    assert response.headers["X-Sendfile"].endswith("text.txt")
    assert state == "waiting"
    assert site.tasks[0].result(WAIT) == 0


def test_an_error_while_streaming(site):
    """A body that breaks ends the response: the task starts, and may tidy up."""

    @site.get("/broken")
    def broken():
        def parts():
            yield b"one"
            raise ValueError("no more")

        return parts()

    body = run(site, environ_of("/broken"))
    next(body)
    with pytest.raises(ValueError, match="no more"):
        next(body)
    body.close()

    assert site.tasks[0].result(WAIT) == 0


@unclosed
@pytest.mark.parametrize("is_closed", [True, False])
def test_middleware(site, is_closed):
    """Middleware may pass the response on in parts of its own, and forget to close it."""
    inner = site.wsgi_app

    def outer(environ, start_response):
        body = inner(environ, start_response)
        for part in body:
            yield part.upper()
        if is_closed and hasattr(body, "close"):
            body.close()

    site.wsgi_app = outer
    response = site.test_client().get("/file", buffered=False)
    before = site.tasks[0].state
    data = b"".join(response.response)
    response.close()
    del response
    find_cycles()

    assert (before, data) == ("waiting", TEXT)
    assert site.tasks[0].result(WAIT) == 0


def test_held_in_a_teardown_of_a_file(site):
    """A task that is held when the server has the file already starts after that too."""

    @site.teardown_request
    def tear_down(error):
        site.tasks.append(after_response(int))

    site.before_request_funcs.clear()
    response = site.test_client().get("/file", buffered=False)
    before = site.tasks[0].state
    response.close()

    assert before == "waiting"
    assert site.tasks[0].result(WAIT) == 0


def test_order_when_nobody_closes_it(make_app):
    """The tasks of a response that nobody closes start in the order of their calls, and past the bound of a queue."""
    app = make_app(ASOK_QUEUES={"default": 1}, ASOK_MAX_QUEUED=1)
    order, tasks = [], []

    @app.get("/")
    def view():
        tasks.extend(after_response(order.append, number) for number in range(5))
        return "page"

    list(run(app, environ_of("/")))
    find_cycles()
    for task in tasks:
        task.join(WAIT)

    assert order == [0, 1, 2, 3, 4]


def test_a_context_that_is_never_popped(app, gc_off):
    """A request context that is left to the garbage collector starts its tasks too."""
    tasks = []

    def leave():
        app.test_request_context().push()
        tasks.append(after_response(int))

    thread = threading.Thread(target=leave)
    thread.start()
    thread.join(WAIT)
    del thread
    gc.collect()

    assert tasks[0].result(WAIT) == 0


def test_a_preserved_context(app):
    """A test client that preserves the context does not keep the task from starting when the response is closed."""
    tasks = []

    @app.get("/")
    def view():
        tasks.append(after_response(int))
        return "page"

    with app.test_client() as client:
        client.get("/").close()

        assert tasks[0].result(WAIT) == 0


# Other contexts of the same request


def in_a_thread(work):
    thread = threading.Thread(target=work)
    thread.start()
    thread.join(WAIT)


def in_a_copy():
    @copy_current_request_context
    def helper():
        request.path

    in_a_thread(helper)


def in_a_copy_that_fails():
    @copy_current_request_context
    def helper():
        raise LookupError

    def catch():
        with pytest.raises(LookupError):
            helper()

    in_a_thread(catch)


def in_a_copy_here():
    copy_current_request_context(lambda: request.path)()


def in_a_second_context():
    with background_app().request_context(request.environ):
        request.path


def in_a_second_context_that_fails():
    with pytest.raises(LookupError), background_app().request_context(request.environ):
        raise LookupError


def in_a_test_context():
    with background_app().test_request_context():
        request.path


def in_a_second_context_in_a_thread():
    app, environ = background_app(), request.environ

    def work():
        with app.request_context(environ):
            request.path

    in_a_thread(work)


def background_app():
    from flask import current_app

    return current_app._get_current_object()


OTHERS = [
    in_a_copy,
    in_a_copy_that_fails,
    in_a_copy_here,
    in_a_second_context,
    in_a_second_context_that_fails,
    in_a_test_context,
    in_a_second_context_in_a_thread,
]


@pytest.mark.parametrize("other", OTHERS)
def test_another_context_ends_nothing(app, other):
    """A copy of the request's context, or a second one of its environ, neither starts nor cancels what is held."""
    states = []

    @app.get("/")
    def view():
        tasks.append(after_response(int))
        other()
        tasks.append(after_response(int))
        states.extend(task.state for task in tasks)
        return "page"

    tasks = []
    response = app.test_client().get("/")
    states.extend(task.state for task in tasks)
    response.close()

    assert states == ["waiting"] * 4
    assert [task.result(WAIT) for task in tasks] == [0, 0]


@pytest.mark.parametrize("other", OTHERS)
def test_another_context_of_no_response(app, other):
    """Nor in a request context that is made by hand."""
    with app.test_request_context():
        other()
        tasks = [after_response(int)]
        other()
        tasks.append(after_response(int))
        states = [task.state for task in tasks]

    assert states == ["waiting", "waiting"]
    assert [task.result(WAIT) for task in tasks] == [0, 0]


def test_held_in_a_copy(app):
    """A task that a helper thread holds waits for the response too."""
    tasks = []

    @app.get("/")
    def view():
        in_a_thread(copy_current_request_context(lambda: tasks.append(after_response(int))))
        tasks.append(tasks[0].state)
        return "page"

    app.test_client().get("/").close()

    assert tasks[1] == "waiting"
    assert tasks[0].result(WAIT) == 0


def test_held_in_a_copy_after_the_response(app):
    """One that is held when the response has been sent starts all the same."""
    tasks = [None]
    sent = threading.Event()

    @app.get("/")
    def view():
        tasks[0] = after_response(int)

        @copy_current_request_context
        def helper():
            assert sent.wait(WAIT)
            tasks.append(after_response(int))

        app.helper = threading.Thread(target=helper)
        app.helper.start()
        return "page"

    app.test_client().get("/").close()
    sent.set()
    app.helper.join(WAIT)
    del app.helper
    find_cycles()

    assert [task.result(WAIT) for task in tasks] == [0, 0]


def test_an_app_called_from_a_view(app):
    """A view may call an application, its own too, with its environ: each response has its own tasks."""
    tasks, states = {}, []

    @app.get("/inner")
    def inner():
        tasks["inner"] = after_response(int)
        return "inner"

    @app.get("/")
    def view():
        tasks["before"] = after_response(int)
        environ = request.environ
        environ["PATH_INFO"] = "/inner"
        body = run(app, environ)
        text = b"".join(body)
        body.close()
        tasks["inner"].join(WAIT)
        tasks["after"] = after_response(int)
        states.extend(tasks[name].state for name in ("before", "inner", "after"))
        return text

    response = app.test_client().get("/")
    response.close()

    assert response.text == "inner"
    assert states == ["waiting", "succeeded", "waiting"]
    assert [tasks[name].result(WAIT) for name in ("before", "after")] == [0, 0]


def test_joining_what_an_outer_view_holds(app):
    """In a view that another one calls, waiting for a task of the outer response is an error too, not a hang."""

    @app.get("/inner")
    def inner():
        with pytest.raises(RuntimeError, match="starts after this response"):
            tasks[0].join(WAIT)
        return "inner"

    @app.get("/")
    def view():
        tasks.append(after_response(int))
        request.environ["PATH_INFO"] = "/inner"
        return b"".join(run(app, request.environ))

    tasks = []
    response = app.test_client().get("/")
    response.close()

    assert response.text == "inner"
    assert tasks[0].result(WAIT) == 0


# A cancelled task says why


def lines(caplog):
    return [record.getMessage() for record in caplog.records if record.name == "asok.background"]


def test_why_a_failed_view_cancelled(app, caplog):
    """An INFO line says that the view failed, and with what, but not with which words: they may be secret."""
    caplog.set_level(logging.INFO)

    @app.get("/")
    def view():
        tasks.append(background.using(when="response", name="letter")(int))
        raise ValueError("a secret")

    tasks = []
    app.test_client().get("/")

    assert lines(caplog) == [f"Background task letter ({tasks[0].id}) cancelled: its request failed with ValueError."]
    assert [record.levelname for record in caplog.records if record.name == "asok.background"] == ["INFO"]
    assert next(record for record in caplog.records if record.name == "asok.background").task_id == tasks[0].id


def test_why_a_context_that_failed_cancelled(app, caplog):
    """So does a request context that ends with an error past every handler."""
    caplog.set_level(logging.INFO)

    def interrupted():
        with app.test_request_context():
            tasks.append(after_response(int))
            raise KeyboardInterrupt

    tasks = []
    with pytest.raises(KeyboardInterrupt):
        interrupted()

    assert lines(caplog) == [
        f"Background task int ({tasks[0].id}) cancelled: its request failed with KeyboardInterrupt."
    ]


def test_why_a_caller_cancelled(app, caplog):
    """A task that was cancelled by hand says so."""
    caplog.set_level(logging.INFO)

    with app.test_request_context():
        held = after_response(int)
        held.cancel()
        held.cancel()

    assert lines(caplog) == [f"Background task int ({held.id}) cancelled: cancel() was called."]


@pytest.fixture
def shop(make_app, backend, tmp_path):
    """An application with a database."""
    app = make_app(SQLALCHEMY_DATABASE_URI="sqlite://", **backend)
    app.db = SQLAlchemy(app)
    with app.app_context():
        yield app
        app.db.session.remove()
        app.db.engine.dispose()


ROLLED_BACK = "its transaction was rolled back, or closed without a commit"


@pytest.mark.parametrize(
    ("end", "why"),
    [
        (lambda session: session.rollback(), ROLLED_BACK),
        (lambda session: session.close(), ROLLED_BACK),
        (lambda session: session.remove(), ROLLED_BACK),
    ],
    ids=["rollback", "close", "remove"],
)
def test_why_no_commit_cancelled(shop, caplog, end, why):
    """A task that waits for a commit which never comes says so."""
    caplog.set_level(logging.INFO)
    shop.db.session.begin()
    held = background.using(when="commit")(int)
    end(shop.db.session)

    assert lines(caplog) == [f"Background task int ({held.id}) cancelled: {why}."]
    assert held.state == "cancelled"


def test_why_a_savepoint_cancelled(shop, caplog):
    """One that waits for a savepoint names that."""
    caplog.set_level(logging.INFO)
    shop.db.session.begin()
    savepoint = shop.db.session.begin_nested()
    held = background.using(when="commit")(int)
    savepoint.rollback()

    assert lines(caplog) == [
        f"Background task int ({held.id}) cancelled: its savepoint was rolled back, or closed without a commit."
    ]


def test_a_session_that_is_dropped(shop, caplog):
    """A session that is neither committed nor closed, and kept by nobody, leaves a warning that names the task."""
    shop.db.session.begin()
    held = background.using(when="commit")(int)
    shop.db.session.registry.clear()
    gc.collect()
    held.join(WAIT)

    assert held.state == "cancelled"
    assert lines(caplog) == [
        f"Background task int ({held.id}) cancelled: its session was dropped, neither committed nor closed."
    ]


def test_a_task_that_is_dropped_with_its_response(caplog):
    """Nothing is started, or told, of a task that is over when its request is dropped."""
    from flask_asok import FlaskAsok

    app = Flask("shop")
    FlaskAsok(app)
    environ = environ_of("/")
    context = app.request_context(environ)
    context.push()
    held = after_response(int)
    FlaskAsok().close(app)
    messages = lines(caplog)
    context.pop()
    del context, environ
    gc.collect()

    assert held.state == "abandoned"
    assert lines(caplog) == messages


# A teardown that fails


@pytest.mark.parametrize("teardown", [Flask.teardown_request, Flask.teardown_appcontext], ids=["request", "context"])
def test_a_teardown_that_fails(app, gc_off, teardown):
    """When a teardown fails the answer is lost, and the task starts all the same, though the error is still held."""

    @partial(teardown, app)
    def fail(error):
        raise RuntimeError("teardown")

    @app.get("/")
    def view():
        tasks.append(after_response(int))
        return "lost"

    tasks = []
    with pytest.raises(Exception, match="teardown") as held:
        run(app, EnvironBuilder("/").get_environ())

    assert tasks[0].result(WAIT) == 0
    assert held.value.__traceback__ is not None


def test_a_teardown_that_fails_inside(app, gc_off):
    """So it is in an application that a view calls; what the outer response holds goes on waiting for that."""

    @app.teardown_request
    def fail(error):
        if request.path == "/inner":
            raise RuntimeError("teardown")

    @app.get("/inner")
    def inner():
        tasks.append(after_response(int))
        return "lost"

    @app.get("/")
    def view():
        tasks.append(after_response(int))
        request.environ["PATH_INFO"] = "/inner"
        with pytest.raises(Exception, match="teardown"):
            run(app, request.environ)
        tasks[1].join(WAIT)
        tasks.append(after_response(int))
        states.extend(task.state for task in tasks)
        request.environ["PATH_INFO"] = "/"
        return "sent"

    tasks, states = [], []
    body = run(app, EnvironBuilder("/").get_environ())
    body.close()

    assert states == ["waiting", "succeeded", "waiting"]
    assert [task.result(WAIT) for task in tasks] == [0, 0, 0]
