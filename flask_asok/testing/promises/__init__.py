"""
The promises of a backend and of a store, as tests: subclass them, give the fixtures they ask for, and run pytest.

    from flask_asok.testing.promises import BackendPromises


    class TestShelf(BackendPromises):
        @pytest.fixture
        def make_app(self):
            def make_app(**config):
                app = Flask("shop")
                app.config.update(SECRET_KEY="...", ASOK_BACKEND="shelf", **config)
                FlaskAsok(app)
                return app

            return make_app

A backend whose tasks run in other processes also needs a worker, which the fixture starts; the functions that these
tests run are of this package, so workers find them. `StorePromises` are those of the store that `ASOK_STORE` of that
application opens, `DurableStorePromises` the further ones of a store that keeps durable tasks. Nothing here patches
anything or looks at a private name.
"""

from .backend import BackendPromises
from .durable_store import DurableStorePromises
from .store import StorePromises

__all__ = ["BackendPromises", "DurableStorePromises", "StorePromises"]
