"""The import under `flask run`, whose process is killed in the middle and started again."""

import contextlib
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest
import urllib3
from ports import free_port

ROOT = Path(__file__).parents[2]
DEADLINE = 60

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL")


@pytest.fixture
def port():
    return free_port()


@pytest.fixture
def start(tmp_path, port):
    """Start the example on one folder and one port; return its process."""
    shutil.copytree(ROOT / "example_app", tmp_path / "example_app")
    environ = {
        **os.environ,
        "FLASK_EXAMPLE_FOLDER": str(tmp_path / "data"),
        "FLASK_EXAMPLE_VISITS": "1000",
        "FLASK_EXAMPLE_PAUSE": "0.2",
    }
    started = []

    def start():
        command = [sys.executable, "-m", "flask", "--app", "example_app", "run", "--port", str(port)]
        with open(tmp_path / "log", "ab") as log:
            process = subprocess.Popen(command, cwd=tmp_path, env=environ, stdout=log, stderr=log)
        started.append(process)
        deadline = time.monotonic() + DEADLINE
        while True:
            with contextlib.suppress(urllib3.exceptions.HTTPError):
                urllib3.request("GET", f"http://127.0.0.1:{port}/static/icon.svg", retries=False, timeout=DEADLINE)
                return process
            assert process.poll() is None and time.monotonic() < deadline, (tmp_path / "log").read_text()
            time.sleep(0.05)

    yield start
    for process in started:
        process.send_signal(signal.SIGINT)
        process.wait(DEADLINE)


@pytest.mark.parametrize("keeps_cursor", [True, False], ids=["where it was", "from the start"])
def test_import_goes_on(start, tmp_path, port, keeps_cursor):
    """The import goes on in the next process, where that one had stopped or from the start; the card says which."""
    url = f"http://127.0.0.1:{port}"
    process = start()
    cookie = urllib3.request("GET", url, timeout=DEADLINE).headers["Set-Cookie"].split(";")[0]

    def ask(method, path, **fields):
        headers = {"Cookie": cookie, "Accept": "text/html"}
        answer = urllib3.request(
            method, url + path, fields=fields or None, headers=headers, redirect=False, timeout=DEADLINE
        )
        return answer.data.decode()

    def watch(until):
        deadline = time.monotonic() + DEADLINE
        while not until(page := ask("GET", "/")):
            assert time.monotonic() < deadline, page
            time.sleep(0.05)
        return page

    ask("POST", "/import", mode="background")
    page = watch(lambda page: (found := re.search(r"(\d+) products in the catalogue", page)) and int(found[1]) > 10)
    assert f"kill -9 {process.pid}" in page
    process.kill()
    process.wait(DEADLINE)
    if not keeps_cursor:
        change(tmp_path, "UPDATE cursors SET done = 0")
    start()
    # The page counts the products before it looks at the task.
    page = watch(lambda page: 'data-asok-state="succeeded"' in page and "240 products in the catalogue" in page)

    said = re.search(r"Its server was lost; another process went on ([^.]*)\.", page)[1]
    if keeps_cursor:
        assert int(re.fullmatch(r"at row (\d+), where that one had stopped", said)[1]) > 10
    else:
        assert said == "from the start"
    assert page.count(">import_products</a>") == 1


def change(tmp_path, statement):
    """Change what the application has written down."""
    database = sqlite3.connect(tmp_path / "data" / "example.sqlite", timeout=DEADLINE)
    with database:
        database.execute(statement)
    database.close()
