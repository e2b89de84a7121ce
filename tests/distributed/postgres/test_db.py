"""`flask asok db`: makes what the database lacks, and nothing twice."""

import threading
from importlib.resources import files

import jobs
import psycopg
import pytest

from flask_asok import NotConfigured, background


@pytest.fixture
def make_app(postgres, close):
    """An application whose database is empty."""
    made = []

    def make(name, **config):
        app = jobs.create_app(ASOK_BACKEND="postgres", ASOK_POSTGRES_URL=postgres.url(name), **config)
        made.append(app)
        return app

    yield make
    for app in made:
        close(app)


@pytest.fixture
def run_db(make_app, postgres, request):
    """Run the command on an empty database of this test, again and again on the same one."""
    postgres.database("fresh")
    app = make_app("fresh")
    return lambda *options: app.test_cli_runner().invoke(args=["asok", "db", *options])


def test_twice(run_db):
    """The first time it makes the tables, and the second time nothing."""
    first, second = run_db(), run_db()

    assert (first.exit_code, second.exit_code) == (0, 0)
    assert first.output == "Made: The tables of Procrastinate.\nMade: The tables of Flask-Asok.\n"
    assert second.output == "Nothing is missing.\n"


def test_two_at_once(make_app, postgres):
    """Two that run at the same moment come one after the other, and both succeed."""
    postgres.database("fresh")
    backend = make_app("fresh").extensions["asok"].backend
    barrier, made = threading.Barrier(2), []

    def run():
        barrier.wait(10)
        # Not by the command: two runners of commands in one process take each other's output.
        made.append(backend.set_up_tables())

    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)

    assert sorted(made, key=len) == [[], ["The tables of Procrastinate", "The tables of Flask-Asok"]]


def test_sql(run_db, postgres):
    """With --sql it prints what it would run, for a migration of one's own, and runs nothing."""
    printed = run_db("--sql")
    postgres.execute(printed.output, database="fresh")

    assert run_db("--sql").output == "-- Nothing is missing.\n"
    assert run_db().output == "Nothing is missing.\n"


@pytest.mark.parametrize("latest", ["03.00.00_50", "03.02.00_50", "03.04.00_50"])
def test_upgrade(run_db, postgres, latest):
    """An earlier release of Procrastinate, whose tables the application has already, is upgraded."""
    folder = files("procrastinate.sql") / "migrations"
    for name in sorted(path.name for path in folder.iterdir() if path.name.endswith(".sql")):
        if name[: len(latest)] <= latest:
            postgres.execute((folder / name).read_text(), database="fresh")
    before = run_db("--sql").output

    done = run_db()

    assert done.exit_code == 0, done.output
    assert ("Procrastinate" in before) is (latest < "03.04")
    functions = postgres.execute("SELECT proname FROM pg_proc WHERE proname LIKE 'procrastinate%'", database="fresh")
    assert {("procrastinate_retry_job_v2",), ("procrastinate_defer_jobs_v1",)} <= set(functions)
    assert run_db().output == "Nothing is missing.\n"


@pytest.mark.parametrize(
    ("lost", "call"),
    [
        ("PROCEDURE asok_insert_v1", background),
        # In a transaction; outside of one its key is taken without it.
        ("FUNCTION asok_enqueue_v1", background.using(when="commit", unique="once")),
    ],
    ids=["plain", "unique"],
)
def test_without_function(run_db, make_app, postgres, lost, call):
    """Tables of an earlier release lack the function of a call, which says what to run; that makes it."""
    run_db()
    postgres.execute(f"DROP {lost}", database="fresh")
    app = make_app("fresh", SQLALCHEMY_DATABASE_URI=postgres.url("fresh", "postgresql+psycopg"))
    with app.app_context():
        jobs.database.session.execute(jobs.database.text("SELECT 1"))
        with pytest.raises(NotConfigured, match="run `flask asok db`"):
            call(jobs.add, 1)

    assert run_db().output == "Made: The tables of Flask-Asok.\n"
    with app.app_context():
        jobs.database.session.execute(jobs.database.text("SELECT 1"))
        assert call(jobs.add, 1).is_alive()
        jobs.database.session.rollback()
    with app.app_context():
        jobs.database.engine.dispose()


def test_worker_without_function(run_db, make_app, postgres):
    """So does a worker, before it takes a task."""
    run_db()
    postgres.execute("DROP FUNCTION asok_fetch_v1", database="fresh")

    ended = make_app("fresh").test_cli_runner().invoke(args=["asok", "worker"])

    assert ended.exit_code != 0
    assert "run `flask asok db`" in ended.output
    assert run_db().output == "Made: The tables of Flask-Asok.\n"


def test_too_old(run_db, postgres):
    """Tables of a Procrastinate before 3.0 are left to its own migrations."""
    postgres.execute("CREATE TABLE procrastinate_jobs (id bigint)", database="fresh")

    done = run_db()

    assert (done.exit_code, done.output.count("\n")) == (1, 1)
    assert "older than its release 3.0" in done.output


def test_refused(make_app, postgres):
    """Where the database is away, or refuses, one line says so."""
    postgres.database("guarded")
    postgres.execute("CREATE ROLE guest LOGIN; REVOKE CREATE ON SCHEMA public FROM PUBLIC", database="guarded")
    url = postgres.url("guarded").replace("postgres@", "guest@")
    refused = jobs.create_app(ASOK_BACKEND="postgres", ASOK_POSTGRES_URL=url)
    away = jobs.create_app(ASOK_BACKEND="postgres", ASOK_POSTGRES_URL="postgresql://user:secret@127.0.0.1:1/none")

    done = [app.test_cli_runner().invoke(args=["asok", "db"]) for app in (refused, away)]

    assert [(one.exit_code, one.output.count("\n")) for one in done] == [(1, 1), (1, 1)]
    assert "permission denied" in done[0].output
    assert "refused" in done[1].output and "secret" not in done[1].output


def test_schema(make_app, postgres, wait_until):
    """The tables may lie in a schema of their own, where the sessions of the application look too."""
    postgres.database("other")
    app = make_app("other", ASOK_POSTGRES={"schema": "work"})
    postgres.execute("CREATE SCHEMA work", database="other")

    done = app.test_cli_runner().invoke(args=["asok", "db"])
    with app.app_context():
        task = background(jobs.add, 1)

    found = postgres.execute("SELECT id FROM work.asok_tasks", database="other")
    assert done.exit_code == 0, done.output
    assert found == [(task.id,)]
    with pytest.raises(psycopg.errors.UndefinedTable):
        postgres.execute("SELECT 1 FROM public.asok_tasks", database="other")


def test_other_backends(close):
    """On a backend that keeps no tables the command says so."""
    app = jobs.create_app(ASOK_BACKEND="threads")

    done = app.test_cli_runner().invoke(args=["asok", "db"])

    assert done.exit_code == 1
    assert "keeps no tables" in done.output
    close(app)
