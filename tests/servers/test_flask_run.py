"""The development server: `flask run`, its reloader, and Ctrl-C."""

import re
import shutil
import signal
import time
from pathlib import Path

import pytest

APPLICATION = Path(__file__).parent / "apps" / "served.py"


@pytest.fixture
def flask_run(serve, tmp_path, python_module):
    """Start `flask run` on a copy of the application, which a test may edit."""

    def flask_run(*options, **env):
        shutil.copy(APPLICATION, tmp_path)
        command = [*python_module("flask"), "--app=served:app", "run", "--port=0", *options]
        return serve(command, cwd=tmp_path, **env)

    return flask_run


def test_reloader_does_not_wait_for_a_long_task(flask_run, control, tmp_path):
    """
    With `--debug`, an edit restarts the server at once, though a task runs on; the log names it.

    It takes about 3 s: the reloader looks every second, and tasks get one more to finish.
    """
    server = flask_run("--debug")
    before = server.get("/start/held/long")
    control.wait_for("long began")

    edited = time.monotonic()
    with (tmp_path / "served.py").open("a") as file:
        file.write("\n# edited\n")
    server.wait_for_line("Restarting with", count=2)
    after = server.get("/start/work/next")
    seconds = time.monotonic() - edited

    assert after["pid"] != before["pid"]
    # Three times what it takes on a machine that has nothing else to do.
    assert seconds < 9
    assert re.findall(r"ERROR asok.background: (.*)", server.log) == [
        f"Background task held ({before['id']}) abandoned while running: not finished 1 s after the shutdown began."
    ]


def test_ctrl_c_waits_for_tasks(flask_run, control):
    """Ctrl-C: tasks that run and that are queued are finished."""
    server = flask_run(FLASK_ASOK_SHUTDOWN_TIMEOUT=20)
    pid = server.get("/start/held/running")["pid"]
    server.get("/start/work/queued")
    control.wait_for("running began")

    server.send(signal.SIGINT)
    control.wait_for(f"{pid} exits")
    control.let_go("running began")
    server.wait()

    assert control.told("queued ran")
    assert "abandoned" not in server.log


def test_ctrl_c_twice_leaves_at_once(flask_run, control):
    """Ctrl-C, and again: the server leaves, however long it was to wait, and names what was not finished."""
    server = flask_run(FLASK_ASOK_SHUTDOWN_TIMEOUT=1000)
    running = server.get("/start/held/running")["id"]
    control.wait_for("running began")
    queued = server.get("/start/work/queued")["id"]
    waiting = server.get("/start/work/waiting?delay=1000")["id"]

    server.send(signal.SIGINT)
    # The first thing that is said when the wait for tasks begins.
    server.wait_for_line(waiting)
    server.send(signal.SIGINT)
    server.wait()

    assert re.findall(r"ERROR asok.background: (.*)", server.log) == [
        f"Background task work ({waiting}) abandoned while waiting: the application shuts down.",
        f"Background task work ({queued}) abandoned while queued: the shutdown was interrupted.",
        f"Background task held ({running}) abandoned while running: the shutdown was interrupted.",
    ]
    assert "Traceback" not in server.log
