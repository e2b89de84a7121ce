"""The task exists if and only if the commit does: what is enqueued in a transaction of the application."""

import contextlib
import logging
import socket
import threading

import jobs
import psycopg
import pytest
from jobs import Purchase, database

from flask_asok import FlaskAsok, NotConfigured, TaskCancelled, background

asok = FlaskAsok()


def buy(text="a book"):
    """Write a row, which is not committed yet."""
    purchase = Purchase(text=text)
    database.session.add(purchase)
    database.session.flush()
    return purchase


def test_committed(shop, rows):
    """A task of a transaction is there with the commit, and before that for nobody else."""
    with shop.app_context():
        buy()
        task = background(jobs.add, 1)
        before = (task.state, rows(shop))

        database.session.commit()

        assert before == ("waiting", [])
        assert (task.state, rows(shop)) == ("queued", ["queued"])


def test_rolled_back(shop, rows, jobs_of, caplog):
    """Of a thousand calls in a transaction that is rolled back nothing is left, and each task is cancelled."""
    caplog.set_level(logging.INFO, "asok.background")
    with shop.app_context():
        buy()
        tasks = [background(jobs.add, number) for number in range(1_000)]
        before = rows(shop)

        database.session.rollback()

        assert before == []
        assert rows(shop) == []
        assert jobs_of(shop) == 0
        assert {task.state for task in tasks} == {"cancelled"}
        assert {record.levelname for record in caplog.records} == {"INFO"}


def test_savepoint(shop, rows):
    """A savepoint that is rolled back takes its own tasks along, and no other."""
    with shop.app_context():
        buy()
        kept = background(jobs.add, 1)
        savepoint = database.session.begin_nested()
        lost = background(jobs.add, 2)
        savepoint.rollback()
        with database.session.begin_nested():
            also_kept = background(jobs.add, 3)

        database.session.commit()

        assert (kept.state, lost.state, also_kept.state) == ("queued", "cancelled", "queued")
        assert rows(shop) == ["queued", "queued"]


def test_view_that_only_reads(shop, rows):
    """A view that reads, and never commits, starts its task all the same."""

    @shop.get("/read")
    def read():
        database.session.execute(database.select(Purchase).limit(1)).all()
        background(jobs.add, 1)
        return "read"

    shop.test_client().get("/read")

    assert rows(shop) == ["queued"]


def test_view_that_forgets_the_commit(shop, rows, caplog):
    """A view that writes, and never commits, starts no task; a warning tells of it."""
    tasks = []

    @shop.get("/forget")
    def forget():
        buy()
        tasks.append(background(jobs.add, 1))
        return "forgotten"

    shop.test_client().get("/forget")

    assert rows(shop) == []
    assert tasks[0].state == "cancelled"
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "never committed" in caplog.text


def test_view_that_fails(shop, rows, caplog):
    """A view that fails after its call starts no task either, and the error is all that is logged as one."""

    @shop.get("/fail")
    def fail():
        buy()
        background(jobs.add, 1)
        raise ZeroDivisionError

    answer = shop.test_client().get("/fail")

    assert answer.status_code == 500
    assert rows(shop) == []
    assert "never committed" not in caplog.text


@pytest.mark.parametrize(
    "write",
    [
        lambda: database.session.add(Purchase(text="new")),
        lambda: database.session.execute(database.insert(Purchase).values(text="inserted")),
        lambda: database.session.execute(database.update(Purchase).values(text="changed").where(Purchase.id < 0)),
    ],
    ids=["add", "insert", "update"],
)
def test_what_counts_as_written(shop, rows, write):
    """What is added to the session and not flushed yet counts, and so does a statement that changes rows."""
    with shop.app_context():
        write()
        background(jobs.add, 1)

        database.session.rollback()

        assert rows(shop) == []


def test_transaction_before(shop, rows):
    """What an earlier transaction of the same session has written does not count for the next one."""
    with shop.app_context():
        buy()
        database.session.commit()
        database.session.execute(database.select(Purchase).limit(1)).all()

        background(jobs.add, 1)

        assert rows(shop) == ["queued"]


def test_now(shop, rows):
    """With when="now" the task is there at once, whatever the transaction has written."""
    with shop.app_context():
        buy()
        background.using(when="now")(jobs.add, 1)

        database.session.rollback()

        assert rows(shop) == ["queued"]


def test_commit_of_a_transaction_that_only_reads(shop, rows):
    """With when="commit" the task goes with the open transaction, whatever that has done."""
    with shop.app_context():
        database.session.execute(database.select(Purchase).limit(1)).all()
        lost = background.using(when="commit")(jobs.add, 1)
        database.session.rollback()
        database.session.execute(database.select(Purchase).limit(1)).all()
        kept = background.using(when="commit")(jobs.add, 2)

        database.session.commit()

        assert (lost.state, kept.state, rows(shop)) == ("cancelled", "queued", ["queued"])


def test_commit_without_a_transaction(shop, rows):
    """With when="commit" and no open transaction the task is there at once."""
    with shop.app_context():
        task = background.using(when="commit")(jobs.add, 1)

        assert (task.state, rows(shop)) == ("queued", ["queued"])


def test_delay(shop, rows, jobs_of):
    """A task with a delay waits after the commit, and the engine does not know it yet."""
    with shop.app_context():
        buy()
        task = background.using(delay=60)(jobs.add, 1)
        database.session.commit()

        assert (task.state, rows(shop), jobs_of(shop)) == ("waiting", ["waiting"], 0)


def test_cancel_before_the_commit(shop, rows):
    """A task that is cancelled before the commit never runs, and the transaction goes on."""
    with shop.app_context():
        purchase = buy()
        task = background(jobs.add, 1)

        cancelled = task.cancel()
        database.session.commit()

        assert cancelled
        assert rows(shop) == ["cancelled"]
        assert jobs.read_purchase(purchase.id) == "a book"
        with pytest.raises(TaskCancelled):
            task.result(1)


def test_result_before_the_commit(shop):
    """A view that waits for a task of its own transaction would wait for ever: it is told so."""
    with shop.app_context():
        buy()
        task = background(jobs.add, 1)

        with pytest.raises(RuntimeError, match="join"):
            task.result(5)

        database.session.rollback()


def test_known_before_the_commit(shop):
    """In its own process the task is known by its id from the call on."""
    with shop.app_context():
        buy()
        task = background(jobs.add, 1)

        found = asok.get(task.id)
        database.session.rollback()

        assert found is task


def test_two_transactions_with_one_key(shop, rows):
    """Two open transactions with one unique key neither wait for each other nor fail; one task runs."""
    first_has_called, second_has_committed = threading.Event(), threading.Event()
    states = []

    def first():
        with shop.app_context():
            buy()
            task = background.using(unique="export")(jobs.add, 1)
            first_has_called.set()
            states.append(second_has_committed.wait(10))
            database.session.commit()
            states.append(task.state)

    thread = threading.Thread(target=first)
    thread.start()
    assert first_has_called.wait(10)
    with shop.app_context():
        buy()
        background.using(unique="export")(jobs.add, 2)
        database.session.commit()
    second_has_committed.set()
    thread.join(20)

    assert states == [True, "queued"]
    store = shop.extensions["asok"].backend.hub.enter()
    ids = [record.id for record in store.newest(10)]
    claims = [store.begin(id, store.me, "")[0] for id in ids]
    assert claims[0] > 0 and claims[1] == 0
    assert sorted(rows(shop)) == ["cancelled", "running"]


def test_key_in_a_transaction(shop, rows):
    """A call whose key a task of the same transaction has, or one that is committed, gets that one."""
    with shop.app_context():
        buy()
        first = background.using(unique="export")(jobs.add, 1)
        second = background.using(unique="export")(jobs.add, 2)
        database.session.commit()
        third = background.using(unique="export")(jobs.add, 3)
        other = background.using(unique="import")(jobs.add, 4)

        assert first.id == second.id == third.id
        assert other.id != first.id
        assert rows(shop) == ["queued", "queued"]


class Counting(threading.Thread):
    """Stands between a client and the server, and counts connections and round trips."""

    def __init__(self, port):
        super().__init__(daemon=True)
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.server_port = port
        self.connections = self.trips = 0

    def run(self):
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            self.connections += 1
            server = socket.create_connection(("127.0.0.1", self.server_port))
            turn = {"client": False}
            for ends in ((client, server, True), (server, client, False)):
                threading.Thread(target=self.copy, args=(*ends, turn), daemon=True).start()

    def copy(self, source, target, is_client, turn):
        # The other end may have been closed meanwhile.
        with contextlib.suppress(OSError):
            while data := source.recv(65_536):
                if is_client and not turn["client"]:
                    self.trips += 1
                turn["client"] = is_client
                target.sendall(data)
        for end in (source, target):
            end.close()


def test_one_round_trip(postgres, shop_database, shop_config, make_shop):
    """
    A call in a transaction that has written costs exactly one round trip, and no connection.

    The first one of a process makes one, after its commit, to tell by which key it signs.
    """
    proxy = Counting(postgres.port)
    proxy.start()
    url = shop_config["SQLALCHEMY_DATABASE_URI"].replace(f":{postgres.port}/", f":{proxy.port}/")
    shop = make_shop(SQLALCHEMY_DATABASE_URI=url)

    def trips(call):
        before = proxy.trips
        buy()
        if call:
            background(jobs.add, 1)
        database.session.commit()
        return proxy.trips - before

    with shop.app_context():
        trips(True)
        first = proxy.connections
        counted = [trips(False), trips(True), trips(False), trips(True)]
        connections = proxy.connections
    proxy.listener.close()

    assert counted[1] - counted[0] == counted[3] - counted[2] == 1
    assert first == connections == 2


def test_tables_are_missing(postgres, make_shop, shop_config):
    """Without the tables a call says which command makes them, in a transaction and outside of one."""
    name = postgres.database("empty")
    driver = shop_config["SQLALCHEMY_DATABASE_URI"].partition(":")[0]
    shop = make_shop(SQLALCHEMY_DATABASE_URI=postgres.url(name, driver))
    with shop.app_context():
        with pytest.raises(NotConfigured, match="run `flask asok db`"):
            background(jobs.add, 1)
        database.session.execute(database.text("CREATE TABLE purchase (id serial, text text)"))
        with pytest.raises(NotConfigured, match="run `flask asok db`"):
            background.using(when="commit")(jobs.add, 1)
        database.session.rollback()


def test_other_databases(make_shop, tmp_path):
    """A task cannot go with the commit of another kind of database: that is an error, and no silence."""
    shop = make_shop(SQLALCHEMY_DATABASE_URI="sqlite://", ASOK_POSTGRES_URL="postgresql://127.0.0.1:1/none")
    with shop.app_context():
        database.session.execute(database.text("SELECT 1"))

        with pytest.raises(ValueError, match=r"is no PostgreSQL.*ASOK_POSTGRES\['bind'\]"):
            background.using(when="commit")(jobs.add, 1)


def test_session_goes_on_after_an_error(shop):
    """The statement is the session's: what is wrong in it is the session's own error."""
    with shop.app_context():
        with pytest.raises(Exception, match="division by zero"):
            database.session.execute(database.text("SELECT 1 / 0"))
        database.session.add(Purchase(text="x"))

        with pytest.raises(Exception, match="aborted"):
            background(jobs.add, 1)

        database.session.rollback()


def test_psycopg_is_there():
    """Both drivers are tested, the one of our own connections among them."""
    assert psycopg.pq.version() >= 150000


def test_other_bind(make_shop, postgres, shop_database, shop_config, rows):
    """The tables may be on another bind than the application's own: the task goes with the commit of its session."""
    url = shop_config["SQLALCHEMY_DATABASE_URI"]
    shop = make_shop(
        SQLALCHEMY_DATABASE_URI="sqlite://", SQLALCHEMY_BINDS={"tasks": url}, ASOK_POSTGRES={"bind": "tasks"}
    )
    with shop.app_context():
        database.create_all(bind_key=None)
        buy()
        lost = background(jobs.add, 1)
        database.session.rollback()
        buy()
        kept = background(jobs.add, 2)
        database.session.commit()

        assert (lost.state, kept.state, rows(shop)) == ("cancelled", "queued", ["queued"])


def test_long_backlog(shop):
    """A call takes no longer for a backlog that has grown since its connection made the first one."""
    scans = database.text(
        "SELECT sum(pg_stat_get_xact_numscans(c.oid)) FROM pg_class c WHERE c.relkind = 'r' "
        "AND c.relname IN ('asok_tasks', 'procrastinate_jobs', 'procrastinate_events')"
    )
    grow = database.text(
        "INSERT INTO procrastinate_jobs (queue_name, task_name, args) "
        f"SELECT 'asok:{shop.name}:default', 'none', '{{}}' FROM generate_series(1, 2000)"
    )

    def call(number):
        background(jobs.add, number)
        background.using(unique=f"{number}")(jobs.add, number)

    with shop.app_context():
        # Tables that never had a row.
        database.session.execute(database.text("TRUNCATE asok_tasks, procrastinate_jobs CASCADE"))
        buy()
        # The first ones are planned each time.
        for number in range(10):
            call(number)
        database.session.execute(grow)
        before = database.session.execute(scans).scalar()
        call(10)

        assert database.session.execute(scans).scalar() == before
        database.session.rollback()
