"""What the package promises of every backend, and of every store, on PostgreSQL, with a worker in another process."""

import jobs
import pytest

from flask_asok.store.postgres.store import COLUMNS
from flask_asok.testing.promises import BackendPromises, StorePromises


class TestBackend(BackendPromises):
    @pytest.fixture
    def make_app(self, postgres_config, start_shared):
        start_shared(postgres_config)

        return lambda **more: jobs.create_app(**postgres_config, **more)


class TestStore(StorePromises):
    """The store of the backend; what a record keeps as its message is read by itself."""

    @pytest.fixture
    def store(self, postgres, postgres_config, clock):
        app = jobs.create_app("store", **postgres_config)
        store = app.extensions["asok"].backend.hub.enter()
        for table in ("asok_tasks", "asok_ticks", "asok_about"):
            store.change(f"DELETE FROM {table} WHERE app = %(app)s")
        store.now = clock
        store.shown = ", ".join(COLUMNS)
        yield store
        app.extensions["asok"].close(5)
