"""What must not be passed to a task: what ends with the request, and what works by luck."""

import collections
import dataclasses
import functools
import io
import warnings
from types import SimpleNamespace
from unittest import mock

import attrs
import flask_login
import pytest
from flask import g, request, session
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy.orm import Mapped, mapped_column
from werkzeug.datastructures import FileStorage
from werkzeug.local import LocalProxy

from flask_asok import background

WAIT = 10

db = SQLAlchemy()


class User(db.Model):
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(default="Ann")

    is_authenticated = True

    def get_id(self):
        return str(self.id)

    def greet(self):
        return "Hello"


class Visitor(flask_login.UserMixin):
    """A user that no database holds."""

    id = "7"


@dataclasses.dataclass
class Order:
    user: object


@dataclasses.dataclass(slots=True)
class SlottedOrder:
    user: object


@attrs.define
class AttrsOrder:
    user: object


NamedOrder = collections.namedtuple("NamedOrder", "number user")

HOLDERS = {
    "itself": lambda value: value,
    "list": lambda value: [1, value],
    "tuple": lambda value: (1, value),
    "set": lambda value: {value},
    "frozenset": lambda value: frozenset([value]),
    "dict": lambda value: {"user": value},
    "dict of dict": lambda value: {"order": {"user": value}},
    "list of tuples": lambda value: [(1, value)],
    "deque": lambda value: collections.deque([value]),
    "defaultdict": lambda value: collections.defaultdict(list, user=value),
    "dataclass": Order,
    "dataclass with slots": SlottedOrder,
    "attrs": AttrsOrder,
    "named tuple": lambda value: NamedOrder(1, value),
    "namespace": lambda value: SimpleNamespace(user=value),
    "list of dataclasses": lambda value: [Order(value)],
}


def take(*args, **kwargs):
    return len(args)


@pytest.fixture
def shop(threads_app, tmp_path):
    """A shop with a user in its database."""
    threads_app.config["SQLALCHEMY_DATABASE_URI"] = f"sqlite:///{tmp_path}/shop.db"
    db.init_app(threads_app)
    with threads_app.app_context():
        db.create_all()
        db.session.add(User(id=1))
        db.session.commit()
        yield threads_app
        db.session.remove()
        db.engine.dispose()


# ORM instances


@pytest.mark.parametrize("holder", HOLDERS.values(), ids=HOLDERS)
def test_bound_instance(shop, caplog, holder):
    """An ORM instance that is bound to a session is warned of, wherever in an argument it is, on this very line."""
    text = "A User bound to a database session was passed to background(): .* Pass its id, and load it in the task"
    argument = holder(db.session.get(User, 1))

    for arguments in ({"args": (argument,)}, {"kwargs": {"order": argument}}):
        with pytest.warns(UserWarning, match=text.replace("()", r"\(\)")) as caught:
            background(take, *arguments.get("args", ()), **arguments.get("kwargs", {})).join(WAIT)
        assert [warning.filename for warning in caught] == [__file__]

    assert [(record.levelname, record.name) for record in caplog.records] == [("WARNING", "asok.background")] * 2
    assert caplog.messages[0].startswith("Background task take: A User bound to a database session")


@pytest.mark.parametrize("rows", ["rows", "mappings"])
def test_rows(shop, rows):
    """Rows of a query hold instances too."""
    result = db.session.execute(db.select(User.id, User))
    found = result.all() if rows == "rows" else result.mappings().all()

    with pytest.warns(UserWarning, match="A User bound"):
        background(take, found).join(WAIT)


LAZY = {
    "query": lambda: db.session.query(User),
    "Flask-SQLAlchemy's query": lambda: User.query,
    "result": lambda: db.session.execute(db.select(User)),
    "scalars": lambda: db.session.scalars(db.select(User)),
    "mappings": lambda: db.session.execute(db.select(User)).mappings(),
    "session": lambda: db.session(),
}


@pytest.mark.parametrize("make", LAZY.values(), ids=LAZY)
@pytest.mark.parametrize("holder", [lambda value: value, lambda value: [value], Order])
def test_what_asks_the_session_later(shop, make, holder):
    """A query and a result ask the session of the request as soon as they are looped over."""
    with pytest.warns(UserWarning, match="bound to a database session was passed"):
        background(take, holder(make())).join(WAIT)


def test_the_scoped_session(shop):
    """`db.session` itself is in a task the session of that task."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        background(take, db.session).join(WAIT)


def test_a_query_in_g(shop):
    """A query in `g` stays behind, as an instance does."""
    g.users, g.page = User.query, 3

    assert background(lambda: (g.get("users"), g.page)).result(WAIT) == (None, 3)


@pytest.mark.parametrize(
    "call",
    [
        lambda user: background(user.greet),
        lambda user: background(functools.partial(take, user)),
        lambda user: background(functools.partial(take, order=[user])),
    ],
    ids=["method", "partial", "in a partial"],
)
def test_instance_that_a_function_brings_along(shop, call):
    """A method of an instance, or a partial with one, brings it along as an argument would."""
    with pytest.warns(UserWarning, match="A User bound"):
        call(db.session.get(User, 1)).join(WAIT)


@pytest.mark.parametrize("holder", HOLDERS.values(), ids=HOLDERS)
def test_unbound_instance(shop, holder):
    """One that no session holds, new or detached, is passed without a word, and nothing of it is loaded."""
    new, detached = User(id=2), db.session.get(User, 1)
    db.session.expire(detached)
    db.session.expunge(detached)

    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        for user in (new, detached):
            background(take, holder(user)).join(WAIT)


def test_the_log_does_not_tell_values(shop, caplog):
    """The line names the type, and nothing of what is in it."""
    user = db.session.get(User, 1)
    user.name = "s3cr3t"

    with pytest.warns(UserWarning, match="A User bound"):
        background(take, user, "s3cr3t too").join(WAIT)

    assert "s3cr3t" not in caplog.text


# What ends with the request, in containers and in what a function brings along


@pytest.mark.parametrize("holder", HOLDERS.values(), ids=HOLDERS)
def test_request_in_containers(app, holder):
    """`request`, `session`, `g` and uploads are refused inside of containers as well."""
    with app.test_request_context(method="POST", data={"photo": (io.BytesIO(b"x"), "a.jpg")}):
        for value, text in (
            (lambda: request._get_current_object(), "`request` ends"),
            (lambda: session._get_current_object(), "`session` ends"),
            (lambda: g._get_current_object(), "`g` ends"),
            (lambda: request.files["photo"], "An uploaded file closes"),
        ):
            made = value()
            if made.__hash__ is None and holder in (HOLDERS["set"], HOLDERS["frozenset"]):
                continue
            with pytest.raises(TypeError, match=text):
                background(take, holder(made))
        request.files["photo"].close()


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: background(request.files["photo"].save, "a.jpg"), "An uploaded file closes"),
        (lambda: background(request.files["photo"].stream.read), "An uploaded file closes"),
        (lambda: background(functools.partial(take, request.files["photo"])), "An uploaded file closes"),
        (lambda: background(functools.partial(take, photo=[request.files["photo"]])), "An uploaded file closes"),
        (lambda: background(request.get_json), "`request` ends"),
        (lambda: background(functools.partial(take, request)), "`request` ends"),
        (lambda: background(g.get, "user"), "`g` ends"),
    ],
    ids=["save", "read", "partial", "in a partial", "request's method", "partial of request", "g's method"],
)
def test_what_a_function_brings_along(app, call, text):
    """A method of an upload, of `request` or of `g`, or a partial with one of them, is refused as an argument is."""
    with app.test_request_context(method="POST", data={"photo": (io.BytesIO(b"x"), "a.jpg")}):
        with pytest.raises(TypeError, match=text):
            call()
        request.files["photo"].close()


@pytest.mark.parametrize(
    "stream",
    [
        lambda file: file.stream,
        lambda file: io.TextIOWrapper(file.stream),
        lambda file: [file.stream],
        lambda file: LocalProxy(lambda: file.stream),
    ],
    ids=["stream", "as text", "in a list", "proxy"],
)
def test_stream_of_an_upload(app, stream):
    """The stream of an uploaded file closes as the file does, and is refused like it."""
    with app.test_request_context(method="POST", data={"photo": (io.BytesIO(b"x"), "a.jpg")}):
        given = stream(request.files["photo"])
        with pytest.raises(TypeError, match="An uploaded file closes with the response"):
            background(take, given)
        request.files["photo"].close()


@pytest.mark.parametrize(
    "stream",
    [
        lambda: request.stream,
        lambda: request.environ["wsgi.input"],
        lambda: io.BufferedReader(request.stream),
        lambda: io.TextIOWrapper(io.BufferedReader(request.stream)),
    ],
    ids=["stream", "input", "buffered", "as text"],
)
def test_stream_of_the_request(app, stream):
    """`request.stream` ends with the request: the text says what to read instead."""
    with app.test_request_context(method="POST", data=b"text", content_type="text/plain"):
        given = stream()
        with pytest.raises(TypeError, match=r"`request\.stream` ends with the response: .*request\.get_data\(\)"):
            background(take, given)


def test_own_streams(app):
    """A file or a buffer of one's own is passed on, and the body of the request stays unread."""
    detached = io.TextIOWrapper(io.BytesIO())
    detached.detach()

    with app.test_request_context(method="POST", data=b"text"):
        for own in (io.BytesIO(b"own"), io.StringIO("own"), detached):
            assert background(take, own).result(WAIT) == 1
        assert request.get_data() == b"text"
    with app.app_context():
        assert background(take, io.BytesIO(b"own")).result(WAIT) == 1


def test_what_claims_to_be_of_a_class(app):
    """A Mock that stands for a dict or a file is passed on: it is asked for nothing."""
    with app.app_context():
        for claim in (mock.Mock(spec=dict), mock.Mock(spec=FileStorage), mock.MagicMock()):
            assert background(take, claim).result(WAIT) == 1


def test_a_container_that_holds_itself(app):
    """A container that holds itself is looked through once."""
    loop = [1]
    loop.append(loop)

    with app.app_context():
        assert background(take, loop).result(WAIT) == 1


# The user of Flask-Login


@pytest.fixture
def login(threads_app):
    """Flask-Login, with a user that is logged in by the query `?user=1`."""
    manager = flask_login.LoginManager(threads_app)
    manager.request_loader(lambda request: Visitor() if "user" in request.args else None)
    return threads_app


def test_current_user(login):
    """`current_user` is warned of, whatever it stands for; the task gets the user, not the proxy."""
    with (
        login.test_request_context("/?user=1"),
        pytest.warns(
            UserWarning, match=r"`current_user` .* Pass current_user\.get_id\(\), and load the user in the task"
        ),
    ):
        started = background(lambda user: user.id, flask_login.current_user)

    assert started.result(WAIT) == "7"


@pytest.mark.parametrize("unwrap", [False, True], ids=["proxy", "itself"])
def test_anonymous_user(login, caplog, unwrap):
    """With nobody logged in the warning says that there is nobody to load."""
    with login.test_request_context():
        user = flask_login.current_user._get_current_object() if unwrap else flask_login.current_user
        with pytest.warns(UserWarning, match=r"An anonymous user .*is_authenticated first"):
            background(take, user).join(WAIT)

    assert caplog.messages[0].startswith("Background task take: An anonymous user was passed to background()")


def test_current_user_of_the_database(shop):
    """A user of the database is warned of once, as any instance is."""
    flask_login.LoginManager(shop).request_loader(lambda request: db.session.get(User, 1))

    with shop.test_request_context():
        with pytest.warns(UserWarning, match="A User bound") as caught:
            background(take, flask_login.current_user).join(WAIT)
        db.session.remove()

    assert len(caught) == 1


def test_id_of_the_user(login):
    """The id, which is what to pass, is passed without a word."""
    with login.test_request_context("/?user=1"), warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        assert background(str, flask_login.current_user.get_id()).result(WAIT) == "7"


def test_warnings_as_errors(shop):
    """Where warnings are errors the call raises, and nothing is queued."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        with pytest.raises(UserWarning, match="A User bound"):
            background(take, db.session.get(User, 1))

    assert shop.extensions["asok"].backend.tasks() == []


class Changing(type):
    """The type of classes at whose sight a container is changed, as by another thread at that very moment."""

    def __hash__(cls):
        cls.change()
        return type.__hash__(cls)


@pytest.mark.parametrize(
    ("make", "change"),
    [
        (lambda item: {1: item}, lambda value, number: value.update({number: 0})),
        (lambda item: collections.OrderedDict({1: item}), lambda value, number: value.update({number: 0})),
        (lambda item: collections.deque([item]), lambda value, number: value.append(number)),
        (lambda item: {item}, lambda value, number: value.add(number)),
        (lambda item: SimpleNamespace(item=item), lambda value, number: setattr(value, f"n{number}", 0)),
    ],
    ids=["dict", "subclass", "deque", "set", "namespace"],
)
@pytest.mark.parametrize("where", ["argument", "g"])
def test_containers_that_another_thread_changes(app, make, change, where):
    """A container that another thread changes meanwhile may be passed, or be in `g`, as it may be used by the view."""
    changes = []

    class Item(metaclass=Changing):
        @staticmethod
        def change():
            if not changes:
                changes.append(True)
                change(shared, 1_000)

    shared = make(Item())
    with app.app_context():
        if where == "g":
            g.shared = shared
        background(take, shared if where == "argument" else None).result(WAIT)

    assert changes == [True]


def test_g_that_another_thread_changes(app):
    """So may `g` itself change."""

    class Item(metaclass=Changing):
        @staticmethod
        def change():
            g.another = True

    with app.app_context():
        g.tuple = (Item(),)
        background(take, None).result(WAIT)

        assert g.another
