"""Database connections: each task has its own, and gives it back."""

import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest
from flask import current_app, g
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy.orm import Mapped, mapped_column
from sqlalchemy.pool import QueuePool

from flask_asok import background

WAIT = 10
REQUESTS = 200
CLIENTS = 3

db = SQLAlchemy()


class Order(db.Model):
    id: Mapped[int] = mapped_column(primary_key=True)
    shipped: Mapped[bool] = mapped_column(default=False)


def ship(order_id):
    order = db.session.get(Order, order_id)
    order.shipped = True
    db.session.commit()
    # A read after the commit: the session holds a connection when the task ends.
    return db.session.get(Order, order_id).shipped


def fail_to_ship(order_id):
    db.session.get(Order, order_id)
    raise ValueError("no stock")


@pytest.fixture
def shop(make_app, backend, tmp_path):
    """A shop whose database allows seven connections at once."""
    app = make_app(
        SQLALCHEMY_DATABASE_URI=f"sqlite:///{tmp_path}/shop.db?timeout=30",
        SQLALCHEMY_ENGINE_OPTIONS={
            "poolclass": QueuePool,
            "pool_size": 5,
            "max_overflow": 2,
            "pool_timeout": WAIT,
        },
        **backend,
    )
    db.init_app(app)
    with app.app_context():
        db.create_all()
        db.session.add(Order(id=1))
        db.session.commit()
        db.session.remove()
        yield app
        db.session.remove()
        db.engine.dispose()


@pytest.mark.parametrize("when", ["now", "response"])
@pytest.mark.parametrize("work", [ship, fail_to_ship])
def test_every_connection_comes_back(shop, caplog, work, when):
    """Of 200 requests that each start a task which queries, none waits in vain for one of seven connections."""
    tasks = []

    @shop.get("/")
    def view():
        order = db.session.get(Order, 1)
        tasks.append(background.using(when=when)(work, order.id))
        return "page"

    def visit(_):
        response = shop.test_client().get("/")
        response.close()
        return response.status_code

    with ThreadPoolExecutor(CLIENTS) as clients:
        statuses = list(clients.map(visit, range(REQUESTS)))
    errors = [repr(task.exception(WAIT)) for task in tasks]
    for task in tasks:
        task.join(WAIT)

    assert statuses == [200] * REQUESTS
    assert errors == [("None" if work is ship else "ValueError('no stock')")] * REQUESTS
    assert db.engine.pool.checkedout() == 0
    assert "QueuePool limit" not in caplog.text


def test_session_of_its_own(shop):
    """A task has a session of its own: what the request has not committed it does not see, nor does it end it."""
    order = db.session.get(Order, 1)
    own = db.session()

    def look():
        return db.session() is own, db.session.get(Order, 1) is order

    seen = background(look).result(WAIT)

    assert seen == (False, False)
    assert order in db.session
    assert own.in_transaction()


@pytest.mark.parametrize(
    ("make", "left"),
    [
        (lambda order: order, None),
        (lambda order: {"loaded_user": order, "id": 1}, {"id": 1}),
        (lambda order: [1, order], [1]),
        (lambda order: {1, order}, {1}),
        (lambda order: SimpleNamespace(user=order, id=1), SimpleNamespace(id=1)),
        (lambda order: (1, order), None),
        (lambda order: db.session.execute(db.select(Order.id, Order)).one(), None),
    ],
    ids=["itself", "dict", "list", "set", "namespace", "tuple", "row"],
)
def test_instances_in_g_stay(shop, make, left):
    """An instance that is bound to the request's session stays there, in a container in `g` too."""
    g.jwt = make(db.session.get(Order, 1))

    assert background(lambda: g.get("jwt")).result(WAIT) == left


def test_instances_of_no_session_in_g(shop):
    """One that no session holds goes along."""
    order = db.session.get(Order, 1)
    db.session.expunge(order)
    g.jwt = {"order": order}

    assert background(lambda: g.jwt["order"].shipped).result(WAIT) is False


# As in Flask's tutorial


def get_db():
    if "db" not in g:
        # sqlite3 itself raises where a connection is used by another thread than the one that made it.
        g.db = sqlite3.connect(current_app.config["DATABASE"], check_same_thread=True)
    return g.db


def close_db(error=None):
    connection = g.pop("db", None)
    if connection is not None:
        connection.close()
        current_app.config["CLOSED"].append((connection, threading.get_ident()))


@pytest.fixture
def tutorial(app, tmp_path):
    """An application that keeps its connection in `g`, as Flask's tutorial does."""
    app.config.update(DATABASE=tmp_path / "flaskr.db", CLOSED=[])
    app.teardown_appcontext(close_db)
    with app.app_context():
        get_db().execute("CREATE TABLE post (title TEXT)")
    app.config["CLOSED"].clear()
    return app


def write(title):
    connection = get_db()
    connection.execute("INSERT INTO post VALUES (?)", (title,))
    connection.commit()
    return connection, threading.get_ident()


def write_and_fail(title):
    raise ValueError(write(title))


def test_get_db(tutorial):
    """With the tutorial's `get_db` each task opens a connection, in its own thread, and closes it when it ends."""
    made = []

    @tutorial.get("/")
    def view():
        connection, thread = write("by the request")
        tasks = [background(write, "by a task") for _ in range(5)]
        made.extend(task.result(WAIT) for task in tasks)
        # Still the request's, and still open.
        (count,) = get_db().execute("SELECT count(*) FROM post").fetchone()
        assert get_db() is connection
        made.append((connection, thread))
        return str(count)

    response = tutorial.test_client().get("/")

    assert response.text == "6"
    assert len({id(connection) for connection, _ in made}) == 6
    assert sorted(map(hash, tutorial.config["CLOSED"])) == sorted(map(hash, made))


def test_get_db_of_a_failed_task(tutorial):
    """A task that fails closes its connection too, in its own thread."""
    with tutorial.app_context():
        get_db()
        error = background(write_and_fail, "by a task").exception(WAIT)

        assert tutorial.config["CLOSED"] == [error.args[0]]


def test_get_db_of_a_task_in_a_task(tutorial):
    """So does a task that another one starts and waits for."""

    def outer():
        own = write("by the outer one")
        return own, background(write, "by the inner one").result(WAIT)

    with tutorial.app_context():
        own, inner = background(outer).result(WAIT)

    assert own[0] is not inner[0]
    assert tutorial.config["CLOSED"] == [inner, own]
