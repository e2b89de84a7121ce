"""Tasks that wait for the commit."""

import threading
import warnings

import pytest
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy import event
from sqlalchemy.orm import Mapped, mapped_column

from flask_asok import FlaskAsok, NotConfigured, background

WAIT = 10
after_response = background.using(when="response")
after_commit = background.using(when="commit")

db = SQLAlchemy()


class Order(db.Model):
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column()


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
