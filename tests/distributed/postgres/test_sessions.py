"""Sessions that are in no ordinary transaction, and writes that are no flush."""

import jobs
import pytest
from jobs import Purchase, database
from sqlalchemy import event
from sqlalchemy.exc import DBAPIError

from flask_asok import background


def buy(text="a book"):
    """Write a row, which is not committed yet."""
    purchase = Purchase(text=text)
    database.session.add(purchase)
    database.session.flush()
    return purchase


@pytest.mark.parametrize(
    "write",
    [
        lambda: database.session.bulk_save_objects([Purchase(text="saved")]),
        lambda: database.session.bulk_insert_mappings(Purchase, [{"text": "inserted"}]),
        lambda: database.session.bulk_update_mappings(Purchase, [{"id": buy().id, "text": "changed"}]),
    ],
    ids=["save", "insert", "update"],
)
def test_bulk_methods(shop, rows, write):
    """What the session's bulk methods write counts as written: the task goes with it."""
    with shop.app_context():
        write()
        lost = background(jobs.add, 1)
        database.session.rollback()
        write()
        kept = background(jobs.add, 1)
        before = rows(shop)
        database.session.commit()

        assert (lost.state, kept.state, before, rows(shop)) == ("cancelled", "queued", [], ["queued"])


def test_savepoint_that_is_undone(shop, rows):
    """What was written in a savepoint that is rolled back does not count: a task need not wait for a commit."""
    with shop.app_context():
        savepoint = database.session.begin_nested()
        buy()
        savepoint.rollback()

        background(jobs.add, 1)

        assert rows(shop) == ["queued"]


@pytest.mark.parametrize("write", [buy, lambda: database.session.execute(database.delete(Purchase))])
def test_savepoint_that_is_released(shop, rows, write):
    """What was written in one that is released, or is still open, counts."""
    with shop.app_context():
        with database.session.begin_nested():
            write()
            background(jobs.add, 1)
        background(jobs.add, 2)

        assert rows(shop) == []
        database.session.rollback()
        assert rows(shop) == []


def fail():
    """Let a flush fail: SQLAlchemy rolls the transaction back, and waits to be told so."""
    database.session.add_all([Purchase(id=1, text="x"), Purchase(id=1, text="y")])
    with pytest.raises(DBAPIError), database.session.no_autoflush:
        database.session.flush()


@pytest.mark.parametrize("has_written", [False, True], ids=["nothing", "written"])
def test_after_a_failed_flush(shop, rows, has_written):
    """A call after a flush that failed, as of an error handler, has no transaction to go with: it starts at once."""
    with shop.app_context():
        if has_written:
            buy()
        fail()

        task = background(jobs.add, 1)

        assert (task.state, rows(shop)) == ("queued", ["queued"])
        database.session.rollback()
        assert task.state == "queued"


@pytest.mark.parametrize("when", [None, "commit"])
def test_in_a_listener_of_the_commit(shop, rows, when):
    """A call of a listener of the commit starts at once: what it belongs to is there."""
    with shop.app_context():
        tasks = []
        event.listen(
            database.session(), "after_commit", lambda _: tasks.append(background.using(when=when)(jobs.add, 1))
        )
        buy()
        database.session.commit()

        assert [task.state for task in tasks] == ["queued"]
        assert rows(shop) == ["queued"]


def test_cancel_in_a_savepoint(shop, rows):
    """A task that is cancelled in a savepoint stays so, and never runs, also where that is undone."""
    with shop.app_context():
        buy()
        task = background(jobs.add, 1)
        kept = background(jobs.add, 2)
        outer = database.session.begin_nested()
        with database.session.begin_nested():
            is_cancelled = task.cancel()
        outer.rollback()
        database.session.commit()

        assert (is_cancelled, task.state, kept.state) == (True, "cancelled", "queued")
        assert sorted(rows(shop)) == ["cancelled", "queued"]


@pytest.mark.parametrize("unique", [None, "key"])
@pytest.mark.parametrize("when", [None, "commit"])
def test_autocommit(make_shop, rows, when, unique):
    """In the isolation level AUTOCOMMIT nobody sees the task before the commit of the session, or after a rollback."""
    shop = make_shop(SQLALCHEMY_ENGINE_OPTIONS={"isolation_level": "AUTOCOMMIT"})
    call = background.using(when=when, unique=unique)
    with shop.app_context():
        buy()
        lost = call(jobs.add, 1)
        database.session.rollback()
        buy()
        kept = call(jobs.add, 1)
        before = (kept.state, rows(shop))
        database.session.commit()

        assert before == ("waiting", [])
        assert (lost.state, kept.state, rows(shop)) == ("cancelled", "queued", ["queued"])


@pytest.mark.parametrize("level", ["READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"])
def test_key_of_a_task_that_has_ended(make_shop, rows, level):
    """A call gets no task with its key that has ended, also in a transaction that began before that and sees it."""
    shop = make_shop(SQLALCHEMY_ENGINE_OPTIONS={"isolation_level": level})
    with shop.app_context():
        first = background.using(unique="export")(jobs.add, 1)
    with shop.app_context():
        database.session.execute(database.select(Purchase).limit(1)).all()
        assert first.cancel()
        buy()
        second = background.using(unique="export")(jobs.add, 2)
        database.session.commit()

        assert (second.id != first.id, second.state) == (True, "queued")
        assert sorted(rows(shop)) == ["cancelled", "queued"]


def test_other_driver(make_shop, monkeypatch, free_port):
    """A driver that cannot be used is told before anything is asked of it."""
    shop = make_shop(SQLALCHEMY_DATABASE_URI=f"postgresql+psycopg://127.0.0.1:{free_port}/none")
    with shop.app_context():
        monkeypatch.setattr(database.engine.dialect, "driver", "asyncpg")
        database.session.add(Purchase(text="x"))

        with pytest.raises(ValueError, match="not of asyncpg: set the driver"):
            background(jobs.add, 1)


def test_two_phases(shop, rows):
    """In a session that commits in two phases, of which the engine's part can be none, the task is sent after that."""
    with shop.app_context():
        database.session().twophase = True
        buy()
        task = background(jobs.add, 1)

        assert (rows(shop), task.state) == ([], "waiting")
        database.session.commit()
        assert rows(shop) == ["queued"]


def test_probe_of_the_key(shop, postgres, shop_database):
    """An application whose calls are all part of a transaction tells other processes too by which key it signs."""
    with shop.app_context():
        buy()
        background(jobs.add, 1)
        database.session.commit()

    found = "SELECT name FROM asok_about WHERE app = %s"
    assert postgres.execute(found, [shop.name], shop_database) == [("probe",)]
