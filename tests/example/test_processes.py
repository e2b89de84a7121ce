"""The application under gunicorn with two workers: whichever answers, the page is the same."""

import contextlib
import html
import importlib.util
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import urllib3

ROOT = Path(__file__).parents[2]
DEADLINE = 60

pytestmark = pytest.mark.skipif(
    sys.platform == "win32" or importlib.util.find_spec("gunicorn") is None, reason="needs gunicorn"
)

CONFIG = '''
"""Tell in each answer which process gave it, and let the imports wait while there is a file called hold."""

import itertools
import time
from pathlib import Path

def post_worker_init(worker):
    from example_app import catalogue

    app = worker.app.callable
    save, numbers = catalogue.save, itertools.count(1)

    def save_unless_held(*row):
        if next(numbers) > 120:
            while Path("hold").exists():
                time.sleep(0.02)
        save(*row)

    catalogue.save = save_unless_held

    @app.after_request
    def name(response):
        response.headers["X-Pid"] = str(worker.pid)
        return response
'''


class Site:
    """A visitor of the server, each of whose requests has a connection of its own: any worker may take it."""

    def __init__(self, url, hold):
        self.url = url
        self.let_go = hold.unlink
        self.pool = urllib3.PoolManager(timeout=30, retries=False)
        self.cookie = ""
        self.cookie = self.ask("GET", "/").headers["Set-Cookie"].split(";")[0]

    def ask(self, method, path, **fields):
        """Send a request, and return the answer."""
        headers = {
            "Connection": "close",
            "Accept": "text/html",
            **({"Cookie": self.cookie} if hasattr(self, "cookie") else {}),
        }
        return self.pool.request(method, self.url + path, fields=fields or None, headers=headers, redirect=False)

    def page(self):
        """Return the process that answered, and the page."""
        answer = self.ask("GET", "/")
        assert answer.status == 200
        return answer.headers["X-Pid"], answer.data.decode()


def bar_of(page):
    """Return what the bar says, its percentage, and the cancel form."""
    bar = page.partition("<asok-progress")[2].partition("</asok-progress>")[0]
    assert bar, "There is no bar."
    percent = re.search(r'data-asok="percent">(\d*)', bar)[1]
    state = re.search(r'data-asok-state="(\w+)"', bar)[1]
    form = re.search(r'action="([^"]+)">\s*<input type="hidden" name="token" value="([^"]+)"', bar)
    return state, int(percent or 0), form and [html.unescape(text) for text in form.groups()]


@pytest.fixture(params=["folder", "preload"])
def site(request, tmp_path):
    """Two workers of which each makes the application, for a common folder; or a master that makes it for both."""
    shutil.copytree(ROOT / "example_app", tmp_path / "example_app")
    (tmp_path / "tmp").mkdir()
    (tmp_path / "conf.py").write_text(CONFIG)
    hold = tmp_path / "hold"
    hold.touch()
    environ = {**os.environ, "TMPDIR": str(tmp_path / "tmp"), "FLASK_EXAMPLE_VISITS": "1000"}
    options = ["--preload"]
    if request.param == "folder":
        environ["FLASK_EXAMPLE_FOLDER"] = str(tmp_path / "data")
        options = []
    log = tmp_path / "gunicorn.log"
    with (
        open(log, "wb") as file,
        subprocess.Popen(
            [sys.executable, "-m", "gunicorn", "--workers", "2", "--bind", "127.0.0.1:0", "--config", "conf.py",
             *options, "example_app:create_app()"],
            cwd=tmp_path, env=environ, stdout=file, stderr=subprocess.STDOUT, start_new_session=True,
        ) as process,
    ):  # fmt: skip
        try:
            deadline = time.monotonic() + DEADLINE
            while not (at := re.search(r"http://127\.0\.0\.1:\d+(?=\s)", log.read_text())):
                assert time.monotonic() < deadline, log.read_text()
                time.sleep(0.05)
            yield Site(at[0], hold)
            process.terminate()
            process.wait(DEADLINE)
            assert "Traceback" not in log.read_text()
            assert list((tmp_path / "tmp").glob("flask-asok-example-*")) == []
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def watch(site, until):
    """Reload the page until its bar says so; return the percentages, and the cancel form."""
    seen, pids, deadline = [], set(), time.monotonic() + DEADLINE
    while True:
        pid, page = site.page()
        pids.add(pid)
        now, percent, form = bar_of(page)
        seen.append(percent)
        if until(now, percent, pids):
            return seen, form
        # Queued until a thread has begun with it.
        assert now == "running" or (now, percent) == ("queued", 0), now
        assert time.monotonic() < deadline, (now, percent, pids)
        time.sleep(0.02)


def test_import(site):
    """Both processes show the bar of the one import, which never goes back, and its end, however often one reloads."""
    site.ask("POST", "/import", mode="background")
    site.ask("POST", "/import", mode="background")

    begun, _ = watch(site, lambda _, percent, pids: percent > 5 and len(pids) == 2)
    site.let_go()
    ended, _ = watch(site, lambda state, _, __: state == "succeeded")
    pages = [site.page() for _ in range(20)]

    seen = begun + ended
    assert seen == sorted(seen) and begun[-1] < 100
    assert all(bar_of(page)[:2] == ("succeeded", 100) for _, page in pages)
    assert all("240 products in the catalogue" in page for _, page in pages)
    assert all(page.count(">import_products</a>") == 1 for _, page in pages)
    assert "each with a folder of its own" not in pages[0][1]


def test_cancel(site):
    """The button works on the page of either process, and both show what became of the import."""
    site.ask("POST", "/import", mode="background")
    _, (action, token) = watch(site, lambda _, percent, pids: percent > 5 and len(pids) == 2)

    answer = site.ask("POST", action, token=token)
    site.let_go()
    watch(site, lambda state, _, __: state == "cancelled")
    pages = [site.page() for _ in range(10)]

    assert answer.status == 303
    assert {bar_of(page)[0] for _, page in pages} == {"cancelled"}
    counts = {int(re.search(r"(\d+) products? in the catalogue", page)[1]) for _, page in pages}
    assert len(counts) == 1 and 0 < counts.pop() < 240
