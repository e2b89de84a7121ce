"""The configuration of the postgres backend: what is wrong is told when the app is set up."""

import jobs
import pytest
from sqlalchemy import NullPool

from flask_asok import FlaskAsok, NotConfigured, background


@pytest.mark.parametrize(
    ("config", "text"),
    [
        ({"ASOK_POSTGRES": {"pol": 1}}, r"ASOK_POSTGRES has no key 'pol'\. Its keys are: bind, dead_after"),
        ({"ASOK_POSTGRES": {"pool": 0}}, r"ASOK_POSTGRES\['pool'\] must be 1 or more"),
        ({"ASOK_POSTGRES": {"dead_after": 2}}, r"ASOK_POSTGRES\['dead_after'\] must be 3 seconds or more"),
        ({"ASOK_POSTGRES": {"schema": "a; b"}}, r"ASOK_POSTGRES\['schema'\] must be a name"),
        ({"ASOK_POSTGRES_URL": "mysql://user:secret@host/db"}, "must be a URL that begins with postgresql://"),
        ({"ASOK_STORE": "redis://127.0.0.1"}, "ASOK_STORE must be None on postgres"),
        ({"ASOK_WORKER": "always"}, 'ASOK_WORKER must be "command" or "web"'),
        ({"ASOK_WORKER_THREADS": 0}, "ASOK_WORKER_THREADS must be 1 or more"),
    ],
)
def test_invalid(config, text):
    """A value that is invalid is a ValueError that says what to do, and quotes no password."""
    with pytest.raises(ValueError, match=text) as raised:
        jobs.create_app(**{"ASOK_BACKEND": "postgres", **config})

    assert "secret" not in str(raised.value)


@pytest.mark.parametrize(
    ("config", "is_kept"),
    [
        ({}, False),
        ({"ASOK_WORKER": "web"}, True),
        ({"ASOK_WORKER": "web", "ASOK_POSTGRES": {"listen": False}}, False),
    ],
)
def test_plans(postgres_config, close, config, is_kept):
    """Connections that run tasks and hear of them, hence past any pooler, keep their plans, and no others."""
    app = jobs.create_app(**{**postgres_config, **config})
    store = app.extensions["asok"].backend.hub.store

    for _ in range(10):
        store.read("unknown")

    kept = store.rows("SELECT 1 FROM pg_prepared_statements WHERE statement LIKE '%%asok_tasks%%'")
    assert bool(kept) is is_kept
    assert (store.rows("SHOW enable_seqscan") == [("off",)]) is is_kept
    close(app)


@pytest.mark.parametrize("where", ["url", "environment"])
def test_settings_of_the_url(postgres_config, close, monkeypatch, where):
    """What the URL or PGOPTIONS sets holds for the connections of a worker too, which have settings of their own."""
    url = postgres_config["ASOK_POSTGRES_URL"]
    if where == "url":
        url += "?options=-csearch_path%3Dpublic,work"
    else:
        monkeypatch.setenv("PGOPTIONS", "-c search_path=public,work")
    app = jobs.create_app(**{**postgres_config, "ASOK_POSTGRES_URL": url, "ASOK_WORKER": "web"})
    store = app.extensions["asok"].backend.hub.store

    found = store.rows("SELECT current_setting('search_path'), current_setting('enable_seqscan')")

    assert found == [("public,work", "off")]
    close(app)


@pytest.mark.parametrize("backend", ["threads", "celery"])
def test_worker_in_web(backend):
    """Another backend has no worker in processes that serve."""
    with pytest.raises(ValueError, match="ASOK_WORKER"):
        jobs.create_app(ASOK_BACKEND=backend, ASOK_WORKER="web")


def test_no_database(close):
    """Without a database the call says which setting is missing."""
    app = jobs.create_app(ASOK_BACKEND="postgres")

    with app.app_context(), pytest.raises(NotConfigured, match=r"Flask-SQLAlchemy .* ASOK_POSTGRES_URL"):
        background(jobs.add, 1)

    close(app)


def test_password_is_not_shown(close):
    """No password is in the output of `flask asok status`."""
    app = jobs.create_app(ASOK_BACKEND="postgres", ASOK_POSTGRES_URL="postgresql://user:secret@127.0.0.1:1/none")

    done = app.test_cli_runner().invoke(args=["asok", "status"])

    assert done.exit_code == 2
    assert "secret" not in done.output
    close(app)


SMALL_POOL = "SQLAlchemy's pool has"


def with_own_pool(config, **options):
    url = config["ASOK_POSTGRES_URL"].replace("postgresql:", "postgresql+psycopg:")
    return {**config, "SQLALCHEMY_DATABASE_URI": url, "SQLALCHEMY_ENGINE_OPTIONS": options}


@pytest.mark.parametrize(
    ("options", "found"),
    [
        ({"pool_size": 2, "max_overflow": 1}, "up to 4 of your functions at once, and SQLAlchemy's pool has 3 conn"),
        ({"pool_size": 3, "max_overflow": 1}, ""),
        ({"pool_size": 0}, ""),
        ({"max_overflow": -1}, ""),
        ({"poolclass": NullPool}, ""),
    ],
)
def test_small_pool(postgres_config, caplog, close, options, found):
    """A worker whose functions could wait for each other's connections of SQLAlchemy says so, and what to set."""
    app = jobs.create_app(**with_own_pool(postgres_config, **options), ASOK_WORKER="web", ASOK_WORKER_THREADS=4)

    FlaskAsok().start_worker(app)
    close(app)

    assert found in caplog.text
    assert ('set "pool_size" in SQLALCHEMY_ENGINE_OPTIONS to 4' in caplog.text) is bool(found)


@pytest.mark.parametrize(("size", "is_warned"), [(5, True), (4, False)])
def test_small_pool_of_the_command(postgres_config, start_worker, size, is_warned):
    """The threads of the queues that the application has named count, and not those of the built-in jobs."""
    config = with_own_pool(postgres_config, pool_size=7, max_overflow=0)
    worker = start_worker({**config, "NAME": "small", "ASOK_QUEUES": {"own": size, "default": 3}}).ready()

    assert (SMALL_POOL in worker.log()) is is_warned
