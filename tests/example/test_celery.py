"""The application on Celery as its README starts it: a Redis, a worker and a web server, each a process of its own."""

import contextlib
import html
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import urllib3

ROOT = Path(__file__).parents[2]


def wait_until(condition, seconds=60.0, what="it"):
    """Look at another process until `condition()` is true; what it returned then."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found = condition()
        if found:
            return found
        time.sleep(0.05)
    raise AssertionError(f"{what} did not happen within {seconds} s")


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return probe.getsockname()[1]


def answers(port):
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 0.2):
        return True
    return False


class Site:
    """Somebody with a browser at the web server."""

    def __init__(self, url):
        self.url = url
        self.pool = urllib3.PoolManager(timeout=30, retries=False)
        self.cookie = self.pool.request("GET", url).headers["Set-Cookie"].split(";")[0]

    def press(self, path, **fields):
        """Press a button in the mode Background."""
        form = {"mode": "background", **fields}
        answer = self.pool.request(
            "POST", self.url + path, fields=form, headers={"Cookie": self.cookie}, redirect=False
        )
        assert answer.status == 303

    def read(self, card):
        """Return the text of a card."""
        page = self.pool.request("GET", self.url, headers={"Cookie": self.cookie}).data.decode()
        rest = page.partition(f'id="{card}"')[2]
        text = re.sub(r"<[^>]*>", " ", "<" + re.split(r"</article>|</section>", rest)[0])
        return " ".join(html.unescape(text).replace("\N{MULTIPLICATION SIGN}", "x").split())

    def wait(self, card, pattern):
        """Reload the page until a card says this."""
        return wait_until(lambda: re.search(pattern, self.read(card)), what=f"{pattern} on the card {card}")


@contextlib.contextmanager
def running(command, log, **options):
    with (
        open(log, "wb") as file,
        subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, start_new_session=True, **options) as process,
    ):
        try:
            yield process
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """All three processes, told of nothing but the broker."""
    pytest.importorskip("celery")
    redis_server = shutil.which("redis-server")
    if redis_server is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)("redis-server is not installed")
    folder = tmp_path_factory.mktemp("celery")
    shutil.copytree(ROOT / "example_app", folder / "example_app")
    (folder / "tmp").mkdir()
    redis_port, web_port = free_port(), free_port()
    redis = f"redis://127.0.0.1:{redis_port}"
    environ = {
        **os.environ,
        "FLASK_ASOK_BACKEND": "celery",
        "FLASK_ASOK_CELERY": f'{{"broker_url": "{redis}/0", "result_backend": "{redis}/1"}}',
        # For the test alone: quick, and beside others on the same computer.
        "TMPDIR": str(folder / "tmp"),
        "FLASK_MAIL_PORT": str(free_port()),
        "FLASK_EXAMPLE_PAUSE": "0.05",
        "FLASK_EXAMPLE_BACKOFF": "[0.1, 0.1]",
    }
    flask = [sys.executable, "-m", "flask", "--app", "example_app"]
    worker_log = folder / "worker.log"
    with contextlib.ExitStack() as stack:
        command = [redis_server, "--port", str(redis_port), "--bind", "127.0.0.1", "--dir", str(folder), "--save", ""]
        stack.enter_context(running(command, folder / "redis.log"))
        wait_until(lambda: answers(redis_port), what="the start of redis-server")
        stack.enter_context(
            running([*flask, "asok", "worker", "--loglevel", "INFO"], worker_log, cwd=folder, env=environ)
        )
        stack.enter_context(
            running([*flask, "run", "--port", str(web_port)], folder / "web.log", cwd=folder, env=environ)
        )
        wait_until(lambda: answers(web_port), what="the start of the web server")
        wait_until(lambda: " ready." in worker_log.read_text(errors="replace"), what="the start of the worker")
        yield Site(f"http://127.0.0.1:{web_port}")


pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Celery has no worker for Windows")


def test_order(site):
    """The order is fulfilled in the worker, step by step on the page."""
    site.press("/order", product="Notebook", quantity="2")

    assert site.wait("order", "Invoice written after .* Warehouse told after .* Stock updated after")
    assert site.wait("tasks", "fulfil_order default succeeded 1 ")


def test_sign_up(site):
    """Webhook and mail come from the worker; the other site fails twice and is asked again."""
    site.press("/sign-up", name="Ada", email="ada@example.com", fail="2")

    assert site.wait("sign-up", "attempt 1 503, .* attempt 2 503, .* attempt 3 204, signature verified")
    assert site.wait("sign-up", "Email received ada@example.com .*Hello Ada, welcome to the Corner Shop")


def test_import(site):
    """The worker imports the file, and the bar comes to its end; a second press follows the first."""
    site.press("/import")
    site.press("/import")

    assert site.wait("import", "Done .*240 products in the catalogue")
    assert site.wait("tasks", "import_products default succeeded")
    assert len(re.findall("import_products", site.read("tasks"))) == 1


def test_photo(site):
    """The worker finds the upload in the folder of both, and the page what it made of it."""
    site.press("/photo", bundled="lake.jpg")

    assert site.wait("photo", r"After 600 x 800 .* Removed: GPS, EXIF.* thumb 120 x 160 jpeg")


def test_blog(site):
    """The worker warms the cache that the web reads from."""
    site.press("/blog/write", title="Hello from afar")
    assert site.wait("blog-outcome", "Hello from afar was counted in: the list is warm")
    site.press("/blog/read")

    assert re.search(r"(warm|stale) [\d.,]+ ms .*Hello from afar 0 readers", site.read("blog-outcome"))


def test_failure(site):
    """The error is in the worker's log, which the page shows; the page is fine."""
    site.press("/report")

    assert site.wait("report", "The page is fine. The error is in the log: .*ZeroDivisionError: division by zero$")
    assert site.wait("tasks", "monthly_report default failed")
