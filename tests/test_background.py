"""The door: what `background()` runs, and what it refuses at the call."""

import functools
import threading
import warnings
from io import BytesIO

import flask
import pytest
from flask import Flask, current_app, g, request, session
from werkzeug.datastructures import FileStorage
from werkzeug.local import LocalProxy

from flask_asok import AsokError, FlaskAsok, NotConfigured, Task, background, current_task, task

WAIT = 10


def add(left, right=1):
    return left + right


def fail():
    raise ValueError("no stock")


def all_of(*args, **kwargs):
    return args, kwargs


def app_name():
    return current_app.import_name


async def add_slowly(left, right):
    return left + right + len(current_app.import_name)


async def fail_slowly():
    raise ValueError("no stock")


async def own_task():
    return current_task()


class Greeter:
    def __init__(self, word):
        self.word = word

    def __call__(self, name):
        return f"{self.word} {name}"

    def greet(self, name):
        return self(name)


def test_result(app):
    """The task answers with what the function returned."""
    with app.app_context():
        started = background(add, 2, right=3)

    assert isinstance(started, Task)
    assert started.result(WAIT) == 5


def test_error(app):
    """An error in the function is kept by the task, and never raised at the caller."""
    with app.app_context():
        started = background(fail)

    with pytest.raises(ValueError, match="no stock"):
        started.result(WAIT)


def test_keywords_are_the_functions(app):
    """No keyword is reserved: whatever its name, the function gets it."""
    names = {"fn": 1, "self": 2, "queue": 3, "retries": 4, "delay": 5, "name": 6, "timeout": 7, "task": 8, "app": 9}

    with app.app_context():
        plain = background(all_of, "a", **names)
        with_options = background.using(name="all")(all_of, "a", **names)

    assert plain.result(WAIT) == (("a",), names)
    assert with_options.result(WAIT) == (("a",), names)


def test_another_thread(app):
    """The function runs in another thread than the caller's."""
    with app.app_context():
        started = background(threading.get_ident)

    assert started.result(WAIT) == started.ident
    assert started.ident != threading.get_ident()


def test_one_door(app):
    """The extension's `background` is the module's."""
    assert FlaskAsok().background is background
    assert repr(background) == "<flask_asok.background>"


def test_current_task(app):
    """Inside a task `current_task()` is that task, and outside of one there is none."""
    with app.app_context():
        started = background(current_task)

    assert started.result(WAIT) is started
    assert current_task() is None


@pytest.mark.parametrize(
    ("fn", "name", "result"),
    [
        (functools.partial(add, 1), "add", 2),
        (functools.partial(functools.partial(Greeter("Hello")), "Asok"), "Greeter", "Hello Asok"),
        (functools.partial(Greeter("Hello").greet, "Asok"), "greet", "Hello Asok"),
        (lambda: 3, "<lambda>", 3),
        (dict, "dict", {}),
    ],
    ids=["partial", "object", "method", "lambda", "class"],
)
def test_any_callable(app, fn, name, result):
    """Whatever can be called can be run, and the task is named after it."""
    with app.app_context():
        started = background(fn)

    assert (started.name, started.result(WAIT)) == (name, result)


def test_coroutine_function(app):
    """An `async def` function runs too, in the task's context."""
    with app.app_context():
        started = background(add_slowly, 1, 2)

    assert started.result(WAIT) == 3 + len("shop")


def test_coroutine_function_without_the_extra(app, monkeypatch):
    """Without Flask's "async" extra the task of an `async def` function fails with Flask's own text."""

    def ensure_sync(fn):
        raise RuntimeError("Install Flask with the 'async' extra in order to use async views.")

    monkeypatch.setattr(app, "ensure_sync", ensure_sync)

    with app.app_context():
        started = background(add_slowly, 1, 2)

    with pytest.raises(RuntimeError, match="Install Flask with the 'async' extra"):
        started.result(WAIT)


def test_coroutine_function_in_place_of_another(make_app):
    """One that another one waits for, on a queue that it fills, is run in its place."""
    app = make_app(ASOK_QUEUES={"default": 1})

    async def outer():
        failed = background(fail_slowly)
        with pytest.raises(ValueError, match="no stock"):
            failed.result(WAIT)
        same = background(own_task)
        return same.result(WAIT) is same

    with app.app_context():
        assert background(outer).result(WAIT)


def test_coroutine_function_in_its_caller(make_app):
    """One that an `async def` view must run itself, since the app is closed, runs beside the view's own event loop."""
    app = make_app()
    FlaskAsok().close(app)

    @app.get("/")
    async def view():
        return str(background(add_slowly, 1, 2).result(WAIT))

    assert app.test_client().get("/").text == str(3 + len("shop"))


def test_current_app_is_unwrapped(app):
    """`current_app` may be passed: the task gets the application itself."""
    with app.app_context():
        by_position = background(all_of, 1, current_app)
        by_name = background(all_of, owner=current_app)

    assert by_position.result(WAIT)[0][1] is app
    assert by_name.result(WAIT)[1]["owner"] is app


def test_a_proxy_to_nothing_is_passed_on(app):
    """A proxy that points to nothing now is given to the task as it is."""

    def nothing():
        raise RuntimeError("nothing here")

    proxy = LocalProxy(nothing)

    with app.app_context():
        started = background(all_of, proxy)

    assert started.result(WAIT)[0][0] is proxy


# The caller's mistakes


def test_no_context():
    """Without an application context the error says what to write around the call."""
    with pytest.raises(NotConfigured, match=r"Use `with app\.app_context\(\):` around the call\.") as caught:
        background(add, 1)

    assert isinstance(caught.value, (AsokError, RuntimeError))
    assert caught.value.__suppress_context__


def test_no_extension():
    """On an app without the extension the error says what to call first."""
    with (
        Flask("bare").app_context(),
        pytest.raises(NotConfigured, match=r"not set up on the app 'bare'\. Call FlaskAsok\(app\) or init_app\(app\)"),
    ):
        background(add, 1)


def test_not_callable(app):
    """The result of a call, passed in place of the function, is refused with the right way to write it."""
    text = r"takes a function and its arguments, not int\. Write background\(send, user\), without calling send\(\)"

    with app.app_context():
        with pytest.raises(TypeError, match=text):
            background(add(1))
        with pytest.raises(TypeError, match=text):
            background.using(retries=1)(add(1))


def unwrapped(proxy):
    return proxy._get_current_object()


@pytest.mark.parametrize("by_name", [False, True], ids=["positional", "keyword"])
@pytest.mark.parametrize(
    ("value", "text"),
    [
        (lambda: request, r"`request` ends with the response: pass the values .* request\.form"),
        (lambda: session, r"`session` ends with the response: pass the values .* session\[\"user_id\"\]"),
        (lambda: g, r"`g` ends with the response: pass the values .* g\.user_id"),
        (lambda: unwrapped(request), "`request` ends with the response"),
        (lambda: unwrapped(session), "`session` ends with the response"),
        (lambda: unwrapped(g), "`g` ends with the response"),
        (lambda: LocalProxy(lambda: unwrapped(request)), "`request` ends with the response"),
        (lambda: request.files["photo"], r"closes with the response\. Save it first, and pass its path: path = "),
        (lambda: request.files, r"closes with the response\. Save it first"),
        (lambda: FileStorage(BytesIO(b"x")), r"closes with the response\. Save it first"),
    ],
    ids=["request", "session", "g", "its request", "its session", "its g", "own proxy", "file", "files", "made file"],
)
def test_what_ends_with_the_request(app, value, text, by_name):
    """What ends with the request is refused at the call, and the text says what to pass instead."""
    with app.test_request_context(method="POST", data={"photo": (BytesIO(b"x"), "a.jpg")}):
        arguments = {"value": value()} if by_name else {}
        with pytest.raises(TypeError, match=text):
            background(all_of, *(() if by_name else (value(),)), **arguments)
        for file in (*request.files.values(), *arguments.values()):
            if isinstance(file, FileStorage):
                file.close()


def test_forms_and_arguments_may_be_passed(app):
    """What a form or a query holds is plain data and goes to the task."""
    with app.test_request_context("/?page=2", method="POST", data={"name": "Asok"}):
        started = background(all_of, request.form, request.args)

    form, query = started.result(WAIT)[0]
    assert form["name"] == "Asok"
    assert query["page"] == "2"


def test_unknown_queue(app):
    """An unknown queue is refused with the list of the known ones and where to name it."""
    text = r"Unknown queue 'mails'\. Queues are: cache, default, images, mail, webhooks\. .* in ASOK_QUEUES\."

    with app.app_context(), pytest.raises(ValueError, match=text):
        background.using(queue="mails")(add, 1)


def test_unknown_option():
    """An unknown option is refused with the list of the known ones, where it is written."""
    text = (
        r"Unknown option 'retry'\. Options are: "
        r"at_most_once, backoff, delay, name, prepare, queue, retries, retry_on, timeout, when\."
    )

    with pytest.raises(TypeError, match=text):
        background.using(retry=3)
    with pytest.raises(TypeError, match=text):
        task(retry=3)


def test_refused_is_not_remembered(app):
    """A call that was refused left no task."""
    with app.app_context():
        with pytest.raises(TypeError):
            background(add, flask.request)
        with pytest.raises(ValueError, match="Unknown queue"):
            background.using(queue="mails")(add, 1)

        assert FlaskAsok().tasks() == []


def test_prepare_checks_in_the_callers_thread(app):
    """`prepare` sees the arguments in the caller's thread; what it returns is what the task gets."""
    threads = []

    def prepare(amount, *, currency="EUR"):
        threads.append(threading.get_ident())
        return (amount * 100,), {"currency": currency}

    pay = task(prepare=prepare)(all_of)

    with app.app_context():
        started = background(pay, 5, currency="CHF")
    del all_of.__asok_options__

    assert started.result(WAIT) == ((500,), {"currency": "CHF"})
    assert threads == [threading.get_ident()]


def test_prepare_refuses_at_the_call(app):
    """What `prepare` raises, `background()` raises; nothing is queued."""

    def prepare(amount):
        raise ValueError(f"{amount} is not an amount")

    @task(prepare=prepare)
    def pay(amount):
        return amount

    with app.app_context():
        with pytest.raises(ValueError, match="-1 is not an amount"):
            background(pay, -1)

        assert FlaskAsok().tasks() == []
    assert pay(-1) == -1


def test_what_prepare_returns_is_checked(app):
    """A request that comes out of `prepare` is refused as one that is passed is."""

    @task(prepare=lambda: ((request,), {}))
    def pay(paid):
        return paid

    with app.test_request_context(), pytest.raises(TypeError, match="`request` ends with the response"):
        background(pay)


def test_plain_arguments_raise_no_warning(app):
    """Ordinary arguments are passed without a word."""
    with app.app_context(), warnings.catch_warnings():
        warnings.simplefilter("error")
        started = background(all_of, 1, "a", None, [1], {"b": 2}, (3,), object)

    assert started.result(WAIT)[0][:3] == (1, "a", None)


def test_uploads_in_a_list(app):
    """A list, tuple or dict of uploads is refused as one upload is; lists of data are not looked through in full."""
    upload = FileStorage(BytesIO(b"picture"))

    with app.app_context():
        for arg in ([1, upload], (upload,), {"photo": upload}):
            with pytest.raises(TypeError, match="An uploaded file closes with the response"):
                background(len, arg)
        assert background(len, list(range(100))).result(10) == 100


def test_generator_functions(app):
    """A generator function, which would do nothing when called, is refused."""

    def count():
        yield 1

    async def count_later():
        yield 1

    with app.app_context():
        for fn in (count, count_later):
            with pytest.raises(TypeError, match=r"is a generator function: called, it would do nothing"):
                background(fn)


def test_task_without_parentheses():
    """`@task` without options says how to write it."""
    with pytest.raises(TypeError, match=r"@task takes options: write @task\(retries=3\)"):
        task(len)


def test_task_on_a_builtin():
    """Options that cannot be kept by a function are refused, with what to do."""
    with pytest.raises(TypeError, match=r"Options cannot be set on <built-in function len>: wrap it"):
        task(retries=1)(len)


def test_prepare_that_returns_nothing(app):
    """A `prepare` that forgets its return says so at the call."""

    @task(prepare=lambda: None)
    def work():
        pass

    with app.app_context(), pytest.raises(TypeError, match=r"prepare must return \(args, kwargs\).*not None"):
        background(work)
