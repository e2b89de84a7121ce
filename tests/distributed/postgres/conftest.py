"""Applications whose own database is the one that their tasks lie in."""

import itertools

import jobs
import pytest

numbers = itertools.count()


@pytest.fixture(scope="session")
def shop_database(postgres):
    """A database with the tables of the shop, and those of its tasks."""
    name = postgres.database("shop")
    app = jobs.create_app(**settings_of(postgres, name))
    with app.app_context():
        app.extensions["asok"].backend.set_up_tables()
        jobs.database.create_all()
    dispose(app)
    return name


def settings_of(postgres, name, driver="psycopg"):
    return {
        "NAME": "shop",
        "ASOK_BACKEND": "postgres",
        "ASOK_POSTGRES": {"dead_after": 3},
        "SQLALCHEMY_DATABASE_URI": postgres.url(name, f"postgresql+{driver}"),
    }


def dispose(app):
    app.extensions["asok"].close(5)
    with app.app_context():
        for engine in jobs.database.engines.values():
            engine.dispose()


@pytest.fixture
def ctx(config, close):
    """The application of the file's own configuration, in its context."""
    app = jobs.create_app(**config)
    with app.app_context():
        yield app
    close(app)


@pytest.fixture(params=["psycopg", "psycopg2"])
def shop_config(request, postgres, shop_database):
    """The configuration of a shop, by each driver."""
    return settings_of(postgres, shop_database, request.param)


@pytest.fixture
def make_shop(shop_config, postgres, shop_database):
    """Make a shop of an application name of its own: nobody else runs its tasks."""
    made = []

    def make(**config):
        shop = jobs.create_app(**{**shop_config, "NAME": f"shop{next(numbers)}", **config})
        made.append(shop)
        return shop

    yield make
    for shop in made:
        dispose(shop)


@pytest.fixture
def shop(make_shop):
    return make_shop()


@pytest.fixture
def rows(postgres, shop_database):
    """Return the states of the tasks of a shop, as every other process sees them."""

    def rows(shop):
        found = postgres.execute(
            "SELECT state FROM asok_tasks WHERE app = %s ORDER BY enqueued", [shop.name], shop_database
        )
        return [state for (state,) in found]

    return rows


@pytest.fixture
def jobs_of(postgres, shop_database):
    """Return how many rows the engine has for a shop."""

    def count(shop):
        found = postgres.execute(
            "SELECT count(*) FROM procrastinate_jobs WHERE queue_name LIKE %s", [f"asok:{shop.name}:%"], shop_database
        )
        return found[0][0]

    return count
