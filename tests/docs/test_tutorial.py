"""The tutorial: its programs, in the order in which its reader saves them."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from http.client import HTTPException
from pathlib import Path

import pytest
from ports import free_port

PAGE = Path(__file__).parents[2] / "docs/tutorial.md"
TIMEOUT = 40


@pytest.fixture
def programs(blocks):
    """The versions of app.py, whose slow query takes no time."""
    found = [block.text for block in blocks(PAGE) if block.text.startswith("# app.py\n")]
    return [text.replace("time.sleep(0.5)", "time.sleep(0)") for text in found]


def answer_of(program, folder):
    """
    Save a program, and return what it answers to the button, and what it logs.

    On a slow machine it also says at its end what it waits for.
    """
    (folder / "app.py").write_text(program)
    asked = 'from app import app\nprint(app.test_client().post("/reports", data={"year": "2026"}).text)'
    ended = subprocess.run([sys.executable, "-c", asked], cwd=folder, capture_output=True, text=True, timeout=TIMEOUT)
    return ended.stdout.strip(), re.sub(r".*Waiting up to.*\n", "", ended.stderr)


def test_first_steps(programs, tmp_path):
    """The first page shows the report, the second one promises it, and an error in it is in the terminal as shown."""
    shown = re.search(r"ERROR asok\.background: .+", PAGE.read_text())[0]
    broken = programs[1].replace("    lines = []\n", '    raise ValueError("no such year")\n')

    report, _ = answer_of(programs[0], tmp_path)
    promise, said = answer_of(programs[1], tmp_path)
    same, failure = answer_of(broken, tmp_path)

    assert report.startswith("<pre>2026-01: 100\n") and report.endswith("2026-12: 1200</pre>")
    assert (promise, said) == ("We are on it.", "")
    assert same == promise
    assert shown in failure and "Traceback" in failure


def test_tests(page, programs):
    """The tests of the tutorial pass."""
    page("docs/tutorial.md").run(replace={"time.sleep(0.5)": "time.sleep(0)"})
    Path("pytest.ini").write_text("[pytest]\n")

    ended = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "error"],
        capture_output=True, text=True, timeout=100,
    )  # fmt: skip

    assert ended.returncode == 0, ended.stdout
    assert "2 passed" in ended.stdout


@contextlib.contextmanager
def gunicorn(folder, port):
    """Run the tutorial's server in a group of processes of its own, and kill all of them at the end."""
    command = [sys.executable, "-m", "gunicorn", "--workers", "2", "--bind", f"127.0.0.1:{port}", "app:app"]
    server = subprocess.Popen(command, cwd=folder, stderr=subprocess.DEVNULL, start_new_session=True)
    try:
        yield
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait(TIMEOUT)


def page_with(url, text, data=None):
    """Ask for a page until it has the text; return its address, after redirects."""
    deadline = time.monotonic() + TIMEOUT
    while True:
        with contextlib.suppress(OSError, HTTPException), urllib.request.urlopen(url, data, timeout=TIMEOUT) as answer:
            if text in answer.read().decode():
                return answer.url
        assert time.monotonic() < deadline, text
        time.sleep(0.05)


def test_two_workers_are_killed(blocks, tmp_path):
    """A report whose servers were killed is finished by the next ones, on the page that its visitor has open."""
    program = [block.text for block in blocks(PAGE) if block.text.startswith("# app.py\n")][-1]
    # Slow in the first servers, so that they are killed in the middle of it.
    (tmp_path / "app.py").write_text(program.replace("time.sleep(0.5)", "time.sleep(float(os.environ['SECONDS']))"))
    port = free_port()

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SECONDS", "5")
        with gunicorn(tmp_path, port):
            page_with(f"http://127.0.0.1:{port}/", "Make the report")
            url = page_with(f"http://127.0.0.1:{port}/reports", "asok-progress", b"year=2026")
        patch.setenv("SECONDS", "0")
        with gunicorn(tmp_path, port):
            address = page_with(url, "2026-12: 1200")

    assert address == url
