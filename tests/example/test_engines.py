"""The application on Celery and on PostgreSQL as its README starts it: each server is a process of its own."""

import contextlib
import html
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from ports import answers, free_port
from sites import Site, running
from waiting import wait_until

ROOT = Path(__file__).parents[2]

FLASK = [sys.executable, "-m", "flask", "--app", "example_app"]


@pytest.fixture(scope="module")
def on_celery(tmp_path_factory):
    """A Redis, a worker and a web server, told of nothing but the broker."""
    if sys.platform == "win32":
        pytest.skip("Celery has no worker for Windows")
    pytest.importorskip("celery")
    redis_server = shutil.which("redis-server")
    if redis_server is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)("redis-server is not installed")
    folder, redis_port = tmp_path_factory.mktemp("celery"), free_port()
    redis = f"redis://127.0.0.1:{redis_port}"
    settings = {
        "FLASK_ASOK_BACKEND": "celery",
        "FLASK_ASOK_CELERY": f'{{"broker_url": "{redis}/0", "result_backend": "{redis}/1"}}',
    }
    command = [redis_server, "--port", str(redis_port), "--bind", "127.0.0.1", "--dir", str(folder), "--save", ""]
    with contextlib.ExitStack() as stack:
        stack.enter_context(running(command, folder / "redis.log"))
        wait_until(lambda: answers(redis_port), 60, "the start of redis-server")
        where, log = surroundings(folder, settings), folder / "worker.log"
        stack.enter_context(running([*FLASK, "asok", "worker", "--loglevel", "INFO"], log, **where))
        site = stack.enter_context(served(folder, where))
        wait_until(lambda: " ready." in log.read_text(errors="replace"), 60, "the start of the worker")
        yield site


@pytest.fixture(scope="module")
def on_postgres(tmp_path_factory, postgres):
    """The tables are made, and one process is started, which runs the tasks too; it is told of the database alone."""
    folder = tmp_path_factory.mktemp("postgres")
    settings = {
        "FLASK_ASOK_BACKEND": "postgres",
        "FLASK_ASOK_WORKER": "web",
        "FLASK_ASOK_POSTGRES_URL": postgres.url(postgres.database("example")),
    }
    where = surroundings(folder, settings)
    subprocess.run([*FLASK, "asok", "db"], **where, check=True, timeout=60)
    with served(folder, where) as site:
        yield site


@pytest.fixture(params=["on_celery", "on_postgres"])
def site(request):
    return request.getfixturevalue(request.param)


def surroundings(folder, settings):
    """Return the folder and the environment in which the commands run."""
    shutil.copytree(ROOT / "example_app", folder / "example_app")
    (folder / "tmp").mkdir()
    environ = {
        **os.environ,
        **settings,
        # For the test alone: quick, and beside others on the same computer.
        "TMPDIR": str(folder / "tmp"),
        "FLASK_MAIL_PORT": str(free_port()),
        # An import takes twelve times that, in which its button is pressed again.
        "FLASK_EXAMPLE_PAUSE": "0.3",
        "FLASK_EXAMPLE_BACKOFF": "[0.1, 0.1]",
    }
    return {"cwd": folder, "env": environ}


@contextlib.contextmanager
def served(folder, where):
    """Start the web server, and open its page."""
    port = free_port()
    with running([*FLASK, "run", "--port", str(port)], folder / "web.log", **where):
        wait_until(lambda: answers(port), 60, "the start of the web server")
        yield Site(f"http://127.0.0.1:{port}")


def test_order(site):
    """The order is fulfilled elsewhere, step by step on the page."""
    site.press("/order", product="Notebook", quantity="2")

    assert site.wait("order", "Invoice written after .* Warehouse told after .* Stock updated after")
    assert site.wait("tasks", "fulfil_order succeeded ")


def test_sign_up(site):
    """Webhook and email go out; the other site fails twice and is asked again."""
    site.press("/sign-up", name="Ada", email="ada@example.com", fail="2")

    assert site.wait("sign-up", "attempt 1 503, .* attempt 2 503, .* attempt 3 204, signature verified")
    assert site.wait("sign-up", "Email received ada@example.com .*Hello Ada, welcome to the Corner Shop")


def test_import(site):
    """The import runs, and the bar comes to its end; a second press follows the first."""
    site.press("/import")
    site.press("/import")

    assert site.wait("import", "Done .*240 products in the catalogue")
    assert site.wait("tasks", "import_products succeeded")
    assert len(re.findall("import_products", site.read("tasks"))) == 1


def test_refused(on_postgres):
    """An order that is rolled back leaves no email: its task was part of the transaction."""
    on_postgres.press("/refused")

    assert "No order, and no email: the task was part of the transaction." in on_postgres.read("refused")


def test_photo(on_celery):
    """The worker finds the upload in the folder of both, and the page what it made of it."""
    on_celery.press("/photo", bundled="lake.jpg")

    assert on_celery.wait("photo", r"After 600 x 800 .* Removed: GPS, EXIF.* thumb 120 x 160 jpeg")


def test_blog(on_celery):
    """The worker warms the cache that the web reads from."""
    on_celery.press("/blog/write", title="Hello from afar")
    assert on_celery.wait("blog-outcome", "Hello from afar was counted in: the list is warm")
    on_celery.press("/blog/read")

    assert re.search(r"(warm|stale) [\d.,]+ ms .*Hello from afar 0 readers", on_celery.read("blog-outcome"))


def test_failure(on_celery):
    """The page is fine. The error is in the log; in the dashboard too, with traceback and origin."""
    on_celery.press("/report")

    assert on_celery.wait("report", "The page is fine. The error is in the log: .*ZeroDivisionError: division by zero$")
    assert on_celery.wait("tasks", "monthly_report failed")
    task = re.search(r'href="(/dashboard/tasks/\w+)">monthly_report', on_celery.open("/"))[1]
    shown = html.unescape(on_celery.open(task))
    assert "<code>POST example.report</code>" in shown
    assert re.search(r"Traceback .*in monthly_report\n.*ZeroDivisionError: division by zero", shown, re.DOTALL)
