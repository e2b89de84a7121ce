"""The application as a visitor of the README starts it."""

import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import urllib3

ROOT = Path(__file__).parents[2]


@pytest.fixture
def server(tmp_path):
    """`flask --app example_app run`, with nothing else of the project beside it."""
    shutil.copytree(ROOT / "example_app", tmp_path / "example_app")
    (tmp_path / "tmp").mkdir()
    with subprocess.Popen(
        [sys.executable, "-u", "-m", "flask", "--app", "example_app", "run", "--port", "0"],
        cwd=tmp_path, env={**os.environ, "TMPDIR": str(tmp_path / "tmp"), "FLASK_EXAMPLE_PAUSE": "0.3"},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    ) as process:  # fmt: skip
        yield process
        process.kill()


def url_in(output):
    """Read until the server says where it runs."""
    read = ""
    for line in output:
        read += line
        if found := re.search(r"http://127\.0\.0\.1:\d+", line):
            return found[0]
    raise AssertionError(f"The server ended: {read}")


@pytest.mark.skipif(sys.platform == "win32", reason="Ctrl-C cannot be sent to a process on Windows")
@pytest.mark.parametrize(("how", "code"), [(signal.SIGINT, 0), (signal.SIGTERM, 143)], ids=["Ctrl-C", "SIGTERM"])
def test_flask_run(server, tmp_path, how, code):
    """It answers on its port, runs a task, finishes it at the end, logs what was pressed, and leaves no file behind."""
    url = url_in(server.stdout)
    form = {"mode": "background", "product": "Notebook", "quantity": "1"}
    with urllib3.PoolManager(timeout=20, retries=False) as pool:
        assert pool.request("GET", url).status == 200
        pool.request("GET", f"{url}/static/style.css")
        answer = pool.request("POST", f"{url}/order", fields=form, redirect=False)
        (folder,) = (tmp_path / "tmp").glob("flask-asok-example-*")

    server.send_signal(how)
    rest, _ = server.communicate(timeout=30)

    assert answer.status == 303
    assert "Traceback" not in rest
    assert "POST /order" in rest
    assert "style.css" not in rest
    assert "abandoned" not in rest
    assert server.returncode == code
    assert not folder.exists()
