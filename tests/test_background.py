"""The door: what `background()` runs, and what it refuses at the call."""

import collections
import dataclasses
import enum
import functools
import gc
import inspect
import itertools
import pydoc
import threading
import warnings
import weakref
from datetime import timedelta
from io import BytesIO
from unittest import mock

import flask
import pytest
from flask import Flask, current_app, g, request, session
from werkzeug.datastructures import FileStorage
from werkzeug.local import LocalProxy

from flask_asok import (
    AsokError,
    FlaskAsok,
    NotConfigured,
    Task,
    background,
    callables,
    current_task,
    resize_image,
    task,
)

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


def test_options_in_its_repr():
    """What `background.using()` returns shows its options, but no key, which may hold what is of one user."""
    later = background.using(retries=3, delay=60).using(unique="ann@example.com")

    assert repr(later) == "<flask_asok.background.using(retries=3, delay=60.0, unique=...)>"


def test_help():
    """`help(background)` begins with what to write."""
    text = pydoc.render_doc(background, renderer=pydoc.plaintext)

    assert text.index("background(send, user_id)") < text.index("Methods defined here")


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
        r"at_most_once, backoff, delay, durable, if_durable, name, prepare, queue, retries, retry_on, run, timeout, "
        r"tracked, unique, unique_until, when\."
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


def test_prepare_makes_what_is_run(app):
    """`run` gets the one value that `prepare` made, under the name and with the options of the decorated function."""
    ran = []

    def deliver(record):
        ran.append((record, current_task().name, current_task().queue))
        return "sent"

    @task(queue="mail", prepare=lambda to, subject="": f"{subject} to {to}", run=deliver)
    def send(to, subject=""):
        raise AssertionError("not called")

    with app.app_context():
        first = background(send, "ann", subject="Hello").result(WAIT)
        background.using(queue="default", name="news")(send, "bob").result(WAIT)

    assert first == "sent"
    assert ran == [("Hello to ann", "send", "mail"), (" to bob", "news", "default")]


def test_prepare_that_passes_on(app):
    """With `run` the arguments must fit the decorated function, though `prepare` takes any and passes them on."""

    def deliver(record):
        raise AssertionError("not called")

    @task(prepare=lambda *args, **kwargs: args, run=deliver)
    def send(to, subject=""):
        raise AssertionError("not called")

    with app.app_context():
        with pytest.raises(TypeError, match=r"send\(to, subject=...\) cannot be called .*'subjct'"):
            background(send, "ann", subjct="Hello")
        with pytest.raises(TypeError, match=r"background\.using\(retries=3\)\(send, \.\.\.\)"):
            background(send, "ann", retries=3)
        with pytest.raises(TypeError, match="missing a required argument: 'to'"):
            background(send)


def test_prepare_keeps_its_dict(app):
    """What `prepare` returned is not changed, though a proxy in it is unwrapped for the task."""
    kept = {"app": current_app}

    @task(prepare=lambda: ((), kept))
    def look(app):
        return app.name

    with app.app_context():
        assert background(look).result(WAIT) == "shop"
        assert kept["app"] is current_app


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


@pytest.mark.parametrize("habit", ["delay", "apply_async", "enqueue", "submit"])
def test_habits(app, habit):
    """What other libraries put on a task says what to write here; the function stays the plain one, and what it has."""

    @task(retries=1)
    def ship(order):
        return order

    def own():
        return "own"

    own.delay = own.apply_async = own.enqueue = own.submit = lambda: "its own"
    decorated = task(retries=1)(own)

    with app.app_context(), pytest.raises(TypeError, match=rf"ship is a plain function, without \.{habit}\(\): write "):
        getattr(ship, habit)(1, order=2)

    assert getattr(decorated, habit)() == "its own"
    assert (type(ship), ship(1), decorated) == (type(own), 1, own)


@pytest.mark.parametrize("habit", ["task", "submit", "delay"])
def test_habits_of_an_extension(habit):
    """So does what other extensions have on their object."""
    assert not hasattr(FlaskAsok(), habit)
    with pytest.raises(AttributeError, match=rf"FlaskAsok has no \.{habit}\. Import `background` .+, and `task` "):
        getattr(FlaskAsok(), habit)


@pytest.mark.parametrize("habit", ["delay", "submit", "enqueue", "usign"])
def test_habits_at_the_door(habit):
    """Nor is there such a method on `background`, whose error says how to call it."""
    assert not hasattr(background, habit)

    with pytest.raises(AttributeError, match=rf"`background` has no \.{habit}\(\): write background\(send, \.\.\.\)"):
        getattr(background, habit)


def test_task_without_parentheses():
    """`@task` without options says how to write it."""
    with pytest.raises(TypeError, match=r"@task takes options: write @task\(retries=3\)"):
        task(len)


def test_positional_options():
    """A function in the place of the options, or an option without its name, is an error that says what to write."""
    with pytest.raises(TypeError, match=r"write background\.using\(retries=3\)\(send, user\)"):
        background.using(len, "abc")
    with pytest.raises(TypeError, match=r"@task takes options: write @task\(retries=3\)"):
        task(len, 3)


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


# What fits the function


def send(user_id, subject="Hello", *, copy=None):
    return user_id, subject, copy


def by_position(first, second=2, /, **rest):
    return first, second, rest


def names_only(*, key):
    return key


class Letter:
    def __init__(self, to, subject=""):
        self.to = to


class Stamp:
    def __new__(cls, value):
        return value


class Empty:
    pass


class Sender:
    def __call__(self, to):
        return to

    def send(self, to, *, copy=False):
        return to, copy

    @classmethod
    def of_class(cls, to):
        return to

    @staticmethod
    def of_none(to):
        return to

    urgent = functools.partialmethod(send, copy=True)


class StaticSender:
    @staticmethod
    def __call__(to):
        return to


class Unit(enum.Enum):
    GRAM = 1


Point = collections.namedtuple("Point", "x y")


@dataclasses.dataclass
class Parcel:
    weight: int
    note: str = ""


def with_user(fn):
    """Pass one more argument, as decorators do that load the user."""

    @functools.wraps(fn)
    def wrapper(*args, **kwargs):
        return fn("the user", *args, **kwargs)

    return wrapper


def with_signature(fn):
    fn.__signature__ = inspect.signature(int.to_bytes)
    return fn


class Proxy:
    """A stub of something remote, which answers to every attribute."""

    def __getattr__(self, name):
        return Proxy()

    def __call__(self, *args, **kwargs):
        return args


FITS = {
    "all given": (send, (1, "Hi"), {"copy": 2}),
    "defaults": (send, (1,), {}),
    "by name": (send, (), {"user_id": 1, "copy": 2}),
    "positional only": (by_position, (1,), {}),
    "a keyword with the name of a positional only": (by_position, (1,), {"first": 2}),
    "anything": (all_of, (1, 2), {"retries": 3, "delay": 4}),
    "keyword only": (names_only, (), {"key": 1}),
    "lambda": (lambda a, b=1: (a, b), (1,), {}),
    "coroutine function": (add_slowly, (1,), {"right": 2}),
    "partial": (functools.partial(send, 1, copy=2), (), {"copy": 3}),
    "partial of partial": (functools.partial(functools.partial(send, 1), "Hi"), (), {}),
    "method": (Sender().send, (1,), {"copy": True}),
    "class method": (Sender.of_class, (1,), {}),
    "static method": (Sender.of_none, (1,), {}),
    "static method object": (vars(Sender)["of_none"], (1,), {}),
    "partial method": (Sender().urgent, (1,), {}),
    "unbound method": (Sender.send, (Sender(), 1), {}),
    "object": (Sender(), (1,), {}),
    "object with a static call": (StaticSender(), (1,), {}),
    "class": (Letter, (1,), {}),
    "class with __new__": (Stamp, (1,), {}),
    "class without a constructor": (Empty, (), {}),
    "named tuple": (Point, (1,), {"y": 2}),
    "dataclass": (Parcel, (1,), {"note": "glass"}),
    "enum": (Unit, (1,), {}),
    "exception": (ValueError, (1, 2, 3), {}),
    "builtin": (sorted, ([2, 1],), {"reverse": True}),
    "builtin without a signature": (max, (1, 2, 3), {}),
    "builtin class": (int, ("7",), {"base": 8}),
    "builtin method": ([].append, (1,), {}),
    "method of a builtin class": (str.upper, ("a",), {}),
    "decorator that passes one more": (with_user(all_of), (), {}),
    "decorator with fewer parameters": (with_user(lambda user: user), (), {}),
    "false __signature__": (with_signature(lambda: None), (), {}),
    "singledispatch": (functools.singledispatch(send), (1,), {"copy": 2}),
    "lru_cache": (functools.lru_cache(send), (1,), {}),
    "mock": (mock.Mock(), (1, 2), {"retries": 3}),
    "magic mock": (mock.MagicMock(), (1,), {}),
    "mock with a spec": (mock.create_autospec(Sender()), (1,), {}),
    "stub": (Proxy(), (1,), {"retries": 3}),
    "stub of a stub": (Proxy().shop.send, (1,), {}),
}


@pytest.mark.parametrize(("fn", "args", "kwargs"), FITS.values(), ids=FITS)
def test_what_fits_runs(threads_app, fn, args, kwargs):
    """What Python could call runs, whatever a wrapper says of what it wraps."""
    with threads_app.app_context():
        started = background(fn, *args, **kwargs)

    assert started.exception(WAIT) is None


def patched_is_called():
    with mock.patch(f"{__name__}.send") as fake:
        started = background(send, 1, 2, 3, 4)
        started.join(WAIT)
    return started.state, fake.mock_calls


def test_patched_function(threads_app):
    """A function that a test has patched takes whatever it is called with."""
    with threads_app.app_context():
        assert patched_is_called() == ("succeeded", [mock.call(1, 2, 3, 4)])


DOES_NOT_FIT = {
    "missing": (send, (), {}, r"send\(user_id, subject=\.\.\., \*, copy=\.\.\.\) .*missing a required argument"),
    "too many": (send, (1, 2, 3), {}, "too many positional arguments"),
    "twice": (send, (1,), {"user_id": 2}, "multiple values for argument 'user_id'"),
    "unknown": (send, (1,), {"bcc": 3}, "got an unexpected keyword argument 'bcc'"),
    "positional only by name": (lambda a, /: a, (), {"a": 1}, "'a'"),
    "positional only missing": (by_position, (), {"first": 1}, "'first'"),
    "keyword only missing": (names_only, (), {}, "missing a required .*'key'"),
    "keyword only by position": (names_only, (1,), {}, "too many positional arguments"),
    "twice, though it takes any": (lambda a, **rest: a, (1,), {"a": 2}, "multiple values for argument 'a'"),
    "coroutine function": (add_slowly, (1,), {}, r"add_slowly\(left, right\)"),
    "partial": (functools.partial(send, 1), ("Hi", 2), {}, r"send\(.*too many"),
    "partial of partial": (functools.partial(functools.partial(send, bcc=1), 1), (), {}, "'bcc'"),
    "method": (Sender().send, (), {}, r"send\(.*'to'"),
    "class method": (Sender.of_class, (1, 2), {}, r"of_class\(.*too many"),
    "static method": (Sender.of_none, (), {}, r"of_none\(to\).*'to'"),
    "static method object": (vars(Sender)["of_none"], (), {}, r"of_none\(to\).*'to'"),
    "partial method": (Sender().urgent, ("a", "b"), {}, "too many"),
    "object": (Sender(), (1, 2), {}, r"Sender\(.*too many"),
    "object with a static call": (StaticSender(), (), {}, r"StaticSender\(to\).*'to'"),
    "class": (Letter, (), {}, r"Letter\(.*'to'"),
    "class with __new__": (Stamp, (), {}, r"Stamp\(.*'value'"),
    "class without a constructor": (Empty, (1,), {}, r"Empty\(\).*too many"),
    "named tuple": (Point, (1,), {}, r"Point\(.*'y'"),
    "dataclass": (Parcel, (), {}, r"Parcel\(.*'weight'"),
    "builtin": (len, (), {}, r"len\(obj, /\).*'obj'"),
    "builtin method": ([].append, (1, 2), {}, r"append\(object, /\).*too many"),
    "decorated, the wrapper": (functools.wraps(all_of)(lambda: None), (1,), {}, "too many"),
}


@pytest.mark.parametrize(("fn", "args", "kwargs", "text"), DOES_NOT_FIT.values(), ids=DOES_NOT_FIT)
def test_what_does_not_fit_is_refused(app, fn, args, kwargs, text):
    """Arguments that the function cannot be called with are refused at the call, not in the log."""
    with app.app_context():
        with pytest.raises(TypeError, match=text):
            background(fn, *args, **kwargs)

        assert FlaskAsok().tasks() == []


@pytest.mark.parametrize(("fn", "args", "kwargs"), [case[:3] for case in DOES_NOT_FIT.values()], ids=DOES_NOT_FIT)
def test_python_refuses_it_too(fn, args, kwargs):
    """Nothing is refused that Python would call."""
    with pytest.raises(TypeError):
        fn(*args, **kwargs)


@pytest.mark.parametrize(
    ("fn", "kwargs", "hint"),
    [
        (send, {"retries": 3}, r"retries is an option: background\.using\(retries=3\)\(send, \.\.\.\)\."),
        (send, {"delay": timedelta(1)}, r"delay is an option: background\.using\(delay=\.\.\.\)\(send, \.\.\.\)\."),
        (send, {"name": "s3cr3t"}, r"name is an option: background\.using\(name=\.\.\.\)\(send, \.\.\.\)\."),
        (functools.partial(send, 1), {"queue": "mail"}, r"background\.using\(queue=\.\.\.\)\(send, \.\.\.\)\."),
        (Sender(), {"retries": 3}, r"background\.using\(retries=3\)\(Sender, \.\.\.\)\."),
        (len, {"retries": 3}, r"background\.using\(retries=3\)\(len, \.\.\.\)\."),
        (send, {"at_most_once": True}, r"at_most_once is an option: @task\(at_most_once=True\) on send\."),
        (functools.partial(send, retries=3), {}, r"background\.using\(retries=3\)\(send, \.\.\.\)\."),
        (send, {"countdown": 9}, r"countdown is an option: background\.using\(delay=9\)\(send, \.\.\.\)\."),
        (send, {"max_retries": 3}, r"max_retries is an option: background\.using\(retries=3\)\(send, \.\.\.\)\."),
        (send, {"_queue": "s3cr3t"}, r"_queue is an option: background\.using\(queue=\.\.\.\)\(send, \.\.\.\)\."),
    ],
    ids=[
        "function",
        "timedelta",
        "text",
        "partial",
        "object",
        "builtin",
        "of the function",
        "in a partial",
        "of Celery",
        "of Celery's function",
        "of Asok",
    ],
)
def test_an_option_among_the_arguments(app, fn, kwargs, hint):
    """An option that stands among the arguments is refused with where to write it."""
    with app.app_context():
        for door in (background, background.using(timeout=5)):
            with pytest.raises(TypeError, match=hint) as caught:
                door(fn, 1, **kwargs)

    assert "s3cr3t" not in str(caught.value)


def test_an_option_among_the_arguments_of_a_recipe(threads_app):
    """So it is with a ready-made job, by the job's own name."""
    with threads_app.app_context():
        for call in (background, lambda _, *args, **kwargs: FlaskAsok().resize_image(*args, **kwargs)):
            with pytest.raises(TypeError, match=r"background\.using\(retries=3\)\(resize_image, \.\.\.\)"):
                call(resize_image, "a.jpg", retries=3)


def test_prepare_is_checked(app):
    """The caller's arguments must fit `prepare`, and what that makes of them the function."""

    @task(prepare=lambda amount: ((amount, "EUR", "CHF"), {}))
    def pay(amount, currency):
        return amount, currency

    with app.app_context():
        with pytest.raises(TypeError, match=r"pay\(amount\) cannot .* background\.using\(retries=3\)\(pay, \.\.\.\)"):
            background(pay, 1, retries=3)
        with pytest.raises(TypeError, match=r"pay\(amount, currency\) cannot be called .*too many"):
            background(pay, 1)


def test_a_check_keeps_nothing_alive(threads_app):
    """What was checked goes with its last holder, functions, partials and objects; none need be hashable."""

    class Unhashable(Sender):
        __hash__ = None

    kept = []
    with threads_app.app_context():
        for make in (lambda: lambda a=1: a, lambda: functools.partial(send), Unhashable, lambda: type("Own", (), {})):
            fn = make()
            background(fn, *([] if isinstance(fn, type) or fn.__class__ is type(make) else [1])).join(WAIT)
            kept.append(weakref.ref(fn))
            del fn
    FlaskAsok().close(threads_app)
    gc.collect()

    assert [reference() for reference in kept] == [None] * 4


def test_signatures_in_c_are_bounded(threads_app, monkeypatch):
    """However many builtin functions are run, what is kept for the check does not grow without end."""
    monkeypatch.setattr(callables, "_MOST_SIGNATURES", 2)

    with threads_app.app_context():
        for fn in (len, repr, abs, bin, hash, sorted, sum, callable):
            background(fn, "1").join(WAIT)

    assert len(callables._signatures) <= 2


# Callables that answer to every attribute


class Raising:
    """A proxy to something that is not there now."""

    def __getattr__(self, name):
        raise RuntimeError("not connected")

    def __call__(self):
        return 7


@pytest.mark.parametrize(
    ("fn", "name"),
    [
        (mock.Mock(), "Mock"),
        (mock.MagicMock(), "MagicMock"),
        (mock.Mock(name="send"), "Mock"),
        (functools.partial(mock.Mock()), "Mock"),
        (Proxy(), "Proxy"),
        (Raising(), "Raising"),
        (mock.Mock(__name__="send"), "send"),
    ],
    ids=["mock", "magic mock", "named mock", "partial", "stub", "raising", "mock with a name"],
)
def test_answers_to_everything(app, fn, name):
    """A Mock, a stub or a proxy that has something under every name, or raises, runs under a sensible one."""
    with app.app_context():
        started = background(fn)
        with_options = background.using(retries=1)(fn)

    assert (started.name, started.exception(WAIT)) == (name, None)
    assert (with_options.name, with_options.exception(WAIT)) == (name, None)
    assert started.queue == "default"


def test_partial_of_itself():
    """Even one that leads back to itself has a name, and its look-through an end; calling it is Python's affair."""
    loop = functools.partial(send)
    loop.__setstate__((loop, (), {}, None))

    callables.check_fits(loop, (), {}, of=loop)

    assert callables.name_of(loop) == "partial"
    loop.__setstate__((send, (), {}, None))


# Generators


async def items_later():
    yield 1


class Exporter:
    def export(self, rows):
        yield from rows

    def __call__(self, rows):
        yield from rows

    async def later(self):
        return self.export([1])


@pytest.mark.parametrize(
    ("fn", "args"),
    [
        (functools.partial(Exporter().export, [1]), ()),
        (functools.partial(functools.partial(Exporter().export), [1]), ()),
        (functools.partial(items_later), ()),
        (Exporter(), ([1],)),
        (Exporter().later, ()),
        (lambda: Exporter().export([1]), ()),
        (lambda: items_later(), ()),
        (functools.wraps(len)(lambda rows: (row for row in rows)), ([1],)),
        (functools.lru_cache(Exporter().export), ((1,),)),
    ],
    ids=[
        "partial",
        "of partial",
        "async",
        "object",
        "of a coroutine",
        "lambda",
        "async lambda",
        "wrapper",
        "lru_cache",
    ],
)
def test_a_generator_that_comes_back(app, fn, args):
    """A generator that a call returns has done nothing: the task fails, and says what to do."""
    with app.app_context():
        started = background(fn, *args)

    error = started.exception(WAIT)
    assert isinstance(error, TypeError)
    assert "returned a generator, of which nothing has run. Loop over it in a task." in str(error)


@pytest.mark.parametrize(
    "lazy",
    [map, filter, itertools.starmap, itertools.filterfalse, itertools.takewhile, itertools.dropwhile],
    ids=lambda lazy: lazy.__name__,
)
def test_a_call_for_each(app, lazy):
    """Nor has a `map` called anything yet, and a task of one fails with that; so it is with its relatives."""
    called = []

    with app.app_context():
        started = background(lazy, called.append, [(1,), (2,)])

    assert f"returned a {lazy.__name__}, of which nothing has run" in str(started.exception(WAIT))
    assert called == []


def test_a_method_that_is_a_generator_function(app):
    """Of a method it is seen at the call."""
    with app.app_context(), pytest.raises(TypeError, match="export is a generator function"):
        background(Exporter().export, [1])


class Query:
    def __await__(self):
        yield from ()


def test_awaitable_that_nobody_awaits(app):
    """A function that returns an awaitable, of which nothing has run, has failed, and its error says what to do."""
    with app.app_context():
        error = background(Query).exception(WAIT)

    assert str(error) == "Query returned an awaitable, of which nothing has run. Await it in the task."


def test_task_as_a_result(app):
    """A function may return the Task that it has started."""
    with app.app_context():
        assert background(background, int).result(WAIT).result(WAIT) == 0
