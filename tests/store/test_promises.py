"""What every store promises: in memory, in a file, in Redis."""

import pytest
import redis

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
