"""What every store promises: in memory, in a file, in Redis, in PostgreSQL."""

from importlib.resources import files

import pytest
import redis

from flask_asok.store.postgres.connections import Connections
from flask_asok.store.postgres.store import PostgresStore
from flask_asok.testing.promises import DurableStorePromises, StorePromises


class TestMemory(StorePromises, DurableStorePromises):
    @pytest.fixture
    def make_app(self, make_app):
        return lambda **config: make_app(ASOK_STORE="memory", **config)


class TestFile(StorePromises, DurableStorePromises):
    @pytest.fixture
    def make_app(self, make_app, tmp_path):
        return lambda **config: make_app(ASOK_STORE=str(tmp_path / "asok.sqlite3"), **config)


class TestRedis(StorePromises):
    @pytest.fixture
    def make_app(self, make_app, redis_port):
        with redis.Redis(port=redis_port) as client:
            client.flushall()
        return lambda **config: make_app(ASOK_STORE=f"redis://127.0.0.1:{redis_port}", **config)


@pytest.fixture(scope="session")
def tables(postgres):
    """A database with the tables, and nothing in them."""
    name = postgres.database("store")
    postgres.execute((files("flask_asok.store.postgres") / "schema.sql").read_text(), database=name)
    return name


class TestPostgreSQL(StorePromises):
    @pytest.fixture
    def store(self, postgres, tables, clock):
        postgres.execute("TRUNCATE asok_tasks, asok_processes, asok_ticks, asok_about", database=tables)
        store = PostgresStore(Connections(postgres.url(tables), 4), "shop")
        store.enter("command", [])
        store.now = clock
        yield store
        store.close()

    @pytest.mark.parametrize("value", ["1e300", "-1", "'inf'", "'nan'"])
    def test_forged(self, store, make, me, postgres, tables, value):
        """A row with times that are no dates, and values that are not ours, is read as far as it goes."""
        good, forged = make(), make()
        for record in (good, forged):
            store.settle(record.id, store.claim(record.id, me), "failed")
        times = f"enqueued = {value}, due = {value}, scheduled = {value}, started = {value}, finished = {value}"
        others = "attempts = -1, claim = -1, progress = 'x', history = '1e400 nan 7'"
        postgres.execute(f"UPDATE asok_tasks SET {times}, {others} WHERE id = '{forged.id}'", database=tables)
        store.enter("web", ["mail"])
        store.take_tick("job", 60.0, "")
        postgres.execute(f"UPDATE asok_processes SET queues = 'x', since = {value}", database=tables)
        postgres.execute(f"UPDATE asok_ticks SET at = {value}", database=tables)

        found = store.read(forged.id)

        assert (found.enqueued, found.due, found.started, found.finished, found.progress) == (0, 0, 0, 0, None)
        assert (found.attempts, found.claim, found.past_attempts) == (0, 0, [])
        assert {record.id for record in store.newest(10)} == {good.id, forged.id}
        assert len(store.ended(0, 10)) == 1
        assert [(one.since, one.queues) for one in store.processes()] == [(0.0, ())]
        assert store.tick("job") is None

    def test_forged_state(self, store, make, postgres, tables):
        """A state that there is not is counted in no queue."""
        make(queue="mail")
        postgres.execute("UPDATE asok_tasks SET state = 'lost'", database=tables)

        assert store.queues() == []
        assert [record.state for record in store.newest(10)] == ["lost"]

    def test_text_that_postgresql_refuses(self, store, make, me):
        """A text with a NUL, or half a character, is kept as near as can be: no task is lost for its error."""
        record = make(name="a\0b")

        store.settle(record.id, store.claim(record.id, me), "failed", error="half \ud83d", traceback="\0")

        found = store.read(record.id)
        assert (found.name, found.error, found.traceback) == ("a\\0b", "half \\ud83d", "\\0")
