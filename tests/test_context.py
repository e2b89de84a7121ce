"""What a task sees of its caller: `g`, context variables, the locale and where links point to."""

import asyncio
import collections
import contextlib
import contextvars
import dataclasses
import decimal
import gc
import io
import logging
import threading
import weakref
from types import SimpleNamespace

import flask
import flask_babel
import flask_login
import pytest
from asgiref.sync import ThreadSensitiveContext, sync_to_async
from asgiref.testing import ApplicationCommunicator
from asgiref.wsgi import WsgiToAsgi
from flask import current_app, g, has_request_context, request, session, url_for
from werkzeug.local import LocalProxy
from werkzeug.middleware.proxy_fix import ProxyFix

from flask_asok import FlaskAsok, background, current_task

WAIT = 10
user = flask_login.current_user
color = contextvars.ContextVar("color", default="none")


def names_in_g():
    return sorted(g)


def values_in_g():
    return {name: g.get(name) for name in g}


# The application


def test_current_app(app):
    """`current_app` is the caller's application."""
    with app.app_context():
        started = background(lambda: current_app._get_current_object())

    assert started.result(WAIT) is app


def test_own_context(app):
    """A task has an application context of its own, which is torn down with the error it ended with."""
    torn_down = []
    main = threading.get_ident()

    @app.teardown_appcontext
    def tear_down(error):
        if threading.get_ident() != main:
            torn_down.append(repr(error))

    def fail():
        raise ValueError("no stock")

    with app.app_context():
        background(int).join(WAIT)
        background(fail).join(WAIT)

    assert torn_down == ["None", "ValueError('no stock')"]


def test_in_a_cli_command(app):
    """`background()` works in a command."""

    @app.cli.command("ship")
    def ship():
        print("shipped by", background(lambda: current_app.name).result(WAIT))

    result = app.test_cli_runner().invoke(args=["ship"])

    assert result.output == "shipped by shop\n"


def test_inside_another_task(app):
    """`background()` works inside a task, whose `g` and context variables go along."""

    def outer():
        g.order = 42
        color.set("red")
        return background(lambda: (g.order, color.get(), current_task().name)).result(WAIT)

    with app.app_context():
        assert background(outer).result(WAIT) == (42, "red", "<lambda>")


def test_two_apps(make_app, backend):
    """One function runs on two apps at once: each task sees its own app, and each app its own tasks."""
    shop, blog = make_app("shop", **backend), make_app("blog", **backend)

    def who():
        return current_app.name, g.get("name")

    with shop.app_context():
        g.name = "of the shop"
        with blog.app_context():
            of_blog = background(who)
            blog_tasks = FlaskAsok().tasks()
        of_shop = background(who)
        shop_tasks = FlaskAsok().tasks()

    assert of_shop.result(WAIT) == ("shop", "of the shop")
    assert of_blog.result(WAIT) == ("blog", None)
    assert [summary.id for summary in shop_tasks] == [of_shop.id]
    assert [summary.id for summary in blog_tasks] == [of_blog.id]


# g


def test_g_arrives(app):
    """What the caller has in `g` the task has in its own."""
    with app.test_request_context():
        g.user_id = 42
        g.tags = ["new"]
        started = background(values_in_g)

    assert started.result(WAIT) == {"user_id": 42, "tags": ["new"]}


def test_rebinding_never_reaches_the_caller(app):
    """A name that the task sets, rebinds or deletes in `g` stays as it was with the caller."""

    def rebind():
        g.user_id = 43
        g.new = True
        del g.order

    with app.app_context():
        g.user_id, g.order = 42, 7
        background(rebind).join(WAIT)

        assert values_in_g() == {"user_id": 42, "order": 7}


@pytest.mark.parametrize(
    ("value", "change"),
    [
        ({"a": 1}, lambda value: value.update(b=2)),
        ([1], lambda value: value.append(2)),
        ({1}, lambda value: value.add(2)),
        (SimpleNamespace(a=1), lambda value: setattr(value, "b", 2)),
    ],
    ids=["dict", "list", "set", "namespace"],
)
def test_plain_containers_are_copied(app, value, change):
    """Of a plain container in `g` each task has a copy, as it was at the call, to change as it likes."""
    before = repr(value)

    def look_and_change():
        seen = repr(g.value)
        change(g.value)
        return seen

    with app.app_context():
        g.value = value
        seen = [background(look_and_change).result(WAIT) for _ in range(2)]

        assert (seen, repr(g.value)) == ([before, before], before)


def test_the_call_counts(threads_app, gate):
    """What the caller changes in `g` after the call the task does not see."""

    def look():
        gate.wait(WAIT)
        return values_in_g()

    with threads_app.app_context():
        g.tags = ["new"]
        started = background(look)
        g.tags.append("old")
        g.later = True
        gate.set()

    assert started.result(WAIT) == {"tags": ["new"]}


def test_objects_are_shared(app):
    """An object in `g` that is no plain container is shared, as a global would be."""

    class Basket:
        pass

    basket = Basket()

    with app.app_context():
        g.basket = basket
        started = background(lambda: g.basket)

    assert started.result(WAIT) is basket


def test_what_closes_stays(app):
    """A connection or file in `g` belongs to the request: the task does not get it, and it is not closed."""

    class Connection:
        def close(self):
            raise AssertionError

    with app.app_context():
        g.db, g.file, g.user_id = Connection(), io.StringIO("text"), 42
        started = background(names_in_g)
        names = started.result(WAIT)

        assert g.file.read() == "text"
    assert names == ["user_id"]


class Connection:
    def close(self):
        raise AssertionError


@dataclasses.dataclass
class Pair:
    first: object
    second: object


@pytest.mark.parametrize(
    ("make", "left"),
    [
        (lambda foreign: {"id": 42, "db": foreign}, {"id": 42}),
        (lambda foreign: [42, foreign, 43], [42, 43]),
        (lambda foreign: {42, foreign}, {42}),
        (lambda foreign: SimpleNamespace(id=42, db=foreign), SimpleNamespace(id=42)),
        (lambda foreign: (42, foreign), None),
        (lambda foreign: frozenset([42, foreign]), None),
        (lambda foreign: collections.deque([42, foreign]), None),
        (lambda foreign: collections.OrderedDict(id=42, db=foreign), None),
        (lambda foreign: Pair(42, foreign), None),
        (lambda foreign: collections.namedtuple("Two", "id db")(42, foreign), None),
    ],
    ids=["dict", "list", "set", "namespace", "tuple", "frozenset", "deque", "subclass", "dataclass", "named tuple"],
)
def test_what_closes_stays_in_a_container(app, make, left):
    """So does one that is in a container; of a tuple or a record, whose places mean something, nothing goes along."""
    with app.app_context():
        g.value = value = make(Connection())
        before = repr(value)
        started = background(lambda: g.get("value"))

        assert started.result(WAIT) == left
        assert (g.value is value, repr(value)) == (True, before)


def test_containers_with_nothing_of_the_request(app):
    """Containers and records with other things in them go along whole, types and classes among them."""
    values = {
        "tuple": (1, "a"),
        "record": Pair(1, Connection),
        "subclass": collections.OrderedDict(a=1),
        "classes": [io.StringIO, Connection],
    }

    with app.app_context():
        for name, value in values.items():
            setattr(g, name, value)
        started = background(values_in_g)

    assert started.result(WAIT) == values


def test_a_waiting_task_does_not_keep_the_request(threads_app):
    """While a task waits, nothing of the request that is over is kept: neither its context nor its connection."""

    class Connection:
        def close(self):
            raise AssertionError

    with threads_app.test_request_context() as context:
        g.db = connection = Connection()
        waiting = background.using(delay=3600)(int)
        over = [weakref.ref(connection), weakref.ref(context), weakref.ref(request._get_current_object())]
    del connection, context
    gc.collect()

    assert [reference() for reference in over] == [None, None, None]
    waiting.cancel()


def test_lazy_proxy_in_g(app):
    """A lazy proxy in `g` is passed on unasked, even one that points to nothing."""

    def nothing():
        raise RuntimeError("nothing here")

    proxy = LocalProxy(nothing)

    with app.app_context():
        g.lazy = proxy
        started = background(lambda: g.lazy)

    assert started.result(WAIT) is proxy


# The request


@pytest.mark.parametrize(
    "look",
    [lambda: request.path, lambda: session["user_id"], lambda: request.form],
    ids=["request", "session", "form"],
)
def test_no_request(app, look):
    """`request` and `session` raise in a task, though the caller has them."""
    with app.test_request_context("/orders"):
        started = background(look)

        error = started.exception(WAIT)

    assert isinstance(error, RuntimeError)
    assert "A task has no request" in error.__notes__[0]


def logged(caplog):
    """The whole text of the last record, as a handler writes it."""
    return logging.Formatter().format(caplog.records[-1])


@pytest.mark.parametrize(
    "look",
    [lambda: request.path, lambda: session["user_id"], lambda: [1 / 1, flask.flash("Shipped")]],
    ids=["request", "session", "flash"],
)
def test_the_log_says_what_to_pass(app, caplog, look):
    """In the log such an error says what to do in a task; its own text stays as it is."""
    with app.test_request_context("/orders"):
        error = background(look).exception(WAIT)

    assert "pass the values that it needs, for instance request.form" in logged(caplog)
    assert "pass the values" not in str(error)


def test_current_user_in_a_task(app, caplog):
    """So does that of `current_user`, which is None there; of any other None it does not."""
    flask_login.LoginManager(app)

    def other():
        return None.email

    with app.test_request_context("/orders"):
        texts = []
        for look in (lambda: flask_login.current_user.email, lambda: user.email, lambda: [current_app.name, other()]):
            background(look).join(WAIT)
            texts.append(logged(caplog))

    assert all("'NoneType' object has no attribute 'email'" in text for text in texts)
    assert ["pass current_user.get_id(), and load the user in the task" in text for text in texts] == [
        True,
        True,
        False,
    ]


def test_a_note_is_added_once(app):
    """An error that each attempt raises again has the note once."""
    kept = []

    def look():
        if not kept:
            try:
                request.path
            except RuntimeError as error:
                kept.append(error)
        raise kept[0]

    with app.app_context():
        error = background.using(retries=2, backoff=0)(look).exception(WAIT)

    assert len(error.__notes__) == 1


def test_no_request_context(app):
    """A task can ask whether there is a request: there is none."""
    with app.test_request_context("/orders"):
        started = background(has_request_context)

    assert started.result(WAIT) is False


# Context variables


def test_context_variables_arrive(app):
    """The caller's context variables arrive."""
    token = color.set("red")
    try:
        with app.app_context():
            started = background(color.get)
    finally:
        color.reset(token)

    assert started.result(WAIT) == "red"


class Look:
    """Async code of a library that calls sync code, as a database's does."""

    async def ask(self):
        return await sync_to_async(str)(42)

    def run(self):
        return asyncio.run(self.ask())


@pytest.mark.parametrize("look", [Look().ask, Look().run], ids=["async", "sync"])
@pytest.mark.parametrize("around", [contextlib.AsyncExitStack, ThreadSensitiveContext], ids=["alone", "in a context"])
def test_async_code_under_asgi(threads_app, look, around):
    """A task that an ASGI server's request has started uses threads of its own for sync code in async code."""
    gate = threading.Event()
    started = []

    def wait_and_look():
        assert gate.wait(WAIT)
        return threads_app.ensure_sync(look)()

    @threads_app.get("/")
    def view():
        started.append(background(wait_and_look))
        return ""

    async def ask():
        scope = {
            "type": "http", "method": "GET", "path": "/", "query_string": b"", "headers": [], "http_version": "1.1",
            "scheme": "http",
        }  # fmt: skip
        async with around():
            server = ApplicationCommunicator(WsgiToAsgi(threads_app), scope)
            await server.send_input({"type": "http.request"})
            assert (await server.receive_output(WAIT))["status"] == 200
            await server.wait(WAIT)

    asyncio.run(ask())
    gate.set()

    assert started[0].result(WAIT) == "42"


def test_context_variables_stay(app):
    """A context variable that a task sets is set for that task only, and not for the next one of its thread."""
    with app.app_context():
        background(color.set, "blue").join(WAIT)
        later = background(color.get)

    assert color.get() == "none"
    assert later.result(WAIT) == "none"


def test_context_of_each_attempt(app):
    """Each attempt begins with the variables of the call."""
    seen = []

    def paint():
        seen.append(color.get())
        color.set("blue")
        raise ValueError

    with app.app_context():
        background.using(retries=1, backoff=0)(paint).join(WAIT)

    assert seen == ["none", "none"]


def test_decimal_precision(app):
    """The caller's decimal precision holds in the task; one that is set in the task holds there only."""

    def divide():
        before = decimal.Decimal(1) / 3
        decimal.getcontext().prec = 9
        return str(before), str(decimal.Decimal(1) / 3)

    with decimal.localcontext() as own, app.app_context():
        own.prec = 3
        started = background(divide)
        results = started.result(WAIT)
        after = decimal.getcontext().prec

    assert results == ("0.333", "0.333333333")
    assert after == 3


# Flask-Babel


@pytest.fixture
def babel_app(app):
    flask_babel.Babel(app, locale_selector=lambda: request.args.get("lang") if request else None)
    return app


def locale():
    return str(flask_babel.get_locale())


def test_locale_arrives(babel_app):
    """The locale that Flask-Babel found for the request holds in its tasks, where there is no request to look at."""
    with babel_app.test_request_context("/?lang=de"):
        before = locale()
        started = background(locale)

        assert (before, started.result(WAIT)) == ("de", "de")


def test_forced_locale_stays_in_the_task(babel_app):
    """A locale that a task forces does not change the request's."""

    def force():
        with flask_babel.force_locale("fr"):
            forced.set()
            looked.wait(WAIT)
            return locale()

    forced, looked = threading.Event(), threading.Event()
    with babel_app.test_request_context("/?lang=de"):
        locale()
        if babel_app.config["ASOK_BACKEND"] == "immediate":
            looked.set()
        started = background(force)
        forced.wait(WAIT)
        meanwhile = locale()
        looked.set()
        inside = started.result(WAIT)
        after = locale()

    assert (meanwhile, inside, after) == ("de", "fr", "de")


# Links


@pytest.fixture
def site(app):
    """An application with a page to link to."""
    app.add_url_rule("/orders/<int:id>", "order", str)
    return app


def link():
    return url_for("order", id=42)


@pytest.mark.parametrize(
    ("base_url", "expected"),
    [
        ("http://shop.example", "http://shop.example/orders/42"),
        ("https://shop.example:8443", "https://shop.example:8443/orders/42"),
        ("https://example.org/shop/", "https://example.org/shop/orders/42"),
    ],
    ids=["host", "scheme and port", "prefix"],
)
def test_url_for(site, base_url, expected):
    """`url_for` gives external links with the caller's scheme, host and prefix."""
    with site.test_request_context("/anything", base_url=base_url):
        started = background(link)

    assert started.result(WAIT) == expected


def test_url_for_behind_a_proxy(site):
    """Behind a proxy, with ProxyFix, links have the host that the visitor sees."""
    links = []
    site.add_url_rule("/", "index", lambda: links.append(background(link).result(WAIT)) or "page")
    site.wsgi_app = ProxyFix(site.wsgi_app, x_host=1, x_proto=1, x_prefix=1)
    headers = {"X-Forwarded-Host": "shop.example", "X-Forwarded-Proto": "https", "X-Forwarded-Prefix": "/eu"}

    site.test_client().get("/", headers=headers)

    assert links == ["https://shop.example/eu/orders/42"]


def test_each_request_has_its_own_links(site):
    """Requests for several hosts do not mix, in whatever order and however many they are."""
    for number in [*range(200), *range(200)]:
        with site.test_request_context(base_url=f"http://shop{number}.example"):
            assert background(link).result(WAIT) == f"http://shop{number}.example/orders/42"


def test_links_of_a_task_in_a_task(site):
    """A task that a task starts makes the same links."""
    with site.test_request_context(base_url="https://shop.example"):
        started = background(lambda: background(link).result(WAIT))

    assert started.result(WAIT) == "https://shop.example/orders/42"


def test_url_for_without_host_header(site):
    """A request without a Host header, as HTTP/1.0 allows, has links with the server's name."""
    with site.test_request_context(
        environ_overrides={"SERVER_NAME": "shop.internal", "SERVER_PORT": "8080"}
    ) as context:
        context.request.environ.pop("HTTP_HOST")
        started = background(link)

    assert started.result(WAIT) == "http://shop.internal:8080/orders/42"


def test_url_for_in_the_request_of_another_app(make_app, site):
    """An app whose context is entered in the request of another one links to itself, not to where that one is."""
    shop = make_app("another shop")
    site.config["SERVER_NAME"] = "shop.example"

    with shop.test_request_context(base_url="http://other.example/eu"), site.app_context():
        started = background(link)

    assert started.result(WAIT) == "http://shop.example/orders/42"


def test_url_for_outside_of_a_request(site):
    """Outside of a request links need SERVER_NAME, as everywhere in Flask."""
    with site.app_context():
        without = background(link).exception(WAIT)
        site.config["SERVER_NAME"] = "shop.example"
    with site.app_context():
        with_name = background(link)

    assert isinstance(without, RuntimeError)
    assert "SERVER_NAME" in str(without)
    assert with_name.result(WAIT) == "http://shop.example/orders/42"


def test_request_path_does_not_stay(site):
    """Of the request nothing but scheme, host and prefix is in the links, with SERVER_NAME set too."""
    site.config["SERVER_NAME"] = "shop.example"

    with site.test_request_context("/orders/7?secret=1", base_url="https://shop.example"):
        started = background(link)

    assert started.result(WAIT) == "https://shop.example/orders/42"


def test_no_links_from_a_foreign_host(make_app, backend):
    """Where host matching knows no such host the task has no link builder of the request; it still runs."""
    app = make_app(**backend)

    with app.test_request_context():
        app.create_url_adapter = lambda request: None
        started = background(int)

    assert started.result(WAIT) == 0
