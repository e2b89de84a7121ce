"""The development server: `flask run`, its reloader, and Ctrl-C."""

import http.client
import os
import re
import shutil
import signal
import sys
import time
from pathlib import Path

import pytest

DEADLINE = 60
DEPLOYMENT = Path(__file__).parents[2] / "docs" / "deployment.md"
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
    # Ten times what it takes on a machine that has nothing else to do.
    assert seconds < 30
    assert re.findall(r"ERROR asok.background: (.*)", server.log) == [
        f"Background task held ({before['id']}) abandoned while running: "
        "not finished 1 s after the shutdown began (ASOK_SHUTDOWN_TIMEOUT)."
    ]


def test_ctrl_c_waits_for_tasks(flask_run, control):
    """Ctrl-C: tasks that run and that are queued are finished."""
    server = flask_run(FLASK_ASOK_SHUTDOWN_TIMEOUT=20)
    pid = server.get("/start/held/running")["pid"]
    server.get("/start/work/queued")
    control.wait_for("running began")

    server.send(signal.SIGINT)
    control.wait_for(f"{pid} exits")
    server.wait_for_line(
        r"WARNING asok.background: Waiting up to 20 s for 2 tasks \(held, work\); Ctrl-C again to quit\."
    )
    control.let_go("running began")
    server.wait()

    assert control.told("queued ran")
    assert "abandoned" not in server.log


def test_ctrl_c_with_nothing_to_wait_for(flask_run, control):
    """Ctrl-C, with no task left: the server leaves without a word."""
    server = flask_run()
    server.get("/start/work/done")
    control.wait_for("done ran")
    server.get("/start/work/next")
    control.wait_for("next ran")
    # It has told so in the middle of the task.
    deadline = time.monotonic() + DEADLINE
    while (states := server.get("/states")) != ["succeeded"] * 2:
        assert time.monotonic() < deadline, states

    server.send(signal.SIGINT)
    server.wait()

    assert "asok.background" not in server.log


def test_ctrl_c_under_the_reloader(flask_run, control):
    """Ctrl-C with `--debug`, where the reloader kills the server a moment later: what is lost is named before it is."""
    server = flask_run("--debug")
    pid = server.get("/start/held/running")["pid"]
    control.wait_for("running began")
    server.get("/start/work/queued")

    # A terminal sends it to both; here the reloader gets it when the server has, for the machine may be slow.
    os.kill(pid, signal.SIGINT)
    told = server.wait_for_line(r"WARNING asok.background: (Waiting .*)")[1]
    server.send(signal.SIGINT)
    server.wait()

    assert told == (
        "Waiting up to 1 s for 2 tasks (held, work); "
        "after Ctrl-C the reloader does not wait, and what has not finished by then is lost."
    )


def test_ctrl_c_twice_leaves_at_once(flask_run, control):
    """Ctrl-C, and again: the server leaves, however long it was to wait, and names what was not finished."""
    server = flask_run(FLASK_ASOK_SHUTDOWN_TIMEOUT=1000)
    running = server.get("/start/held/running")["id"]
    control.wait_for("running began")
    queued = server.get("/start/work/queued")["id"]
    waiting = server.get("/start/work/waiting?delay=1000")["id"]

    server.send(signal.SIGINT)
    # The first thing that is said when the wait for tasks begins.
    server.wait_for_line(r"Waiting up to 1000 s for 2 tasks \(held, work\); Ctrl-C again to quit\.")
    server.send(signal.SIGINT)
    server.wait()

    # Ctrl-C may come in the middle of the first line, which is then written again rather than lost.
    assert list(dict.fromkeys(re.findall(r"ERROR asok.background: (.*)", server.log))) == [
        f"Background task work ({waiting}) abandoned while waiting: the application shuts down.",
        f"Background task work ({queued}) abandoned while queued: the shutdown was interrupted.",
        f"Background task held ({running}) abandoned while running: the shutdown was interrupted.",
    ]
    assert "Traceback" not in server.log


@pytest.fixture
def documented(tmp_path):
    """Write a file that the page on deployment shows; return its path."""

    def documented(name, *replacements):
        text = re.search(rf"```python\n(# {name}\n.*?)```", DEPLOYMENT.read_text(), re.DOTALL)[1]
        for old, new in replacements:
            assert old in text
            text = text.replace(old, new)
        path = tmp_path / name
        path.write_text(text)
        return path

    return documented


def count_of_open(server):
    """Return how often the task was run, when the process that serves has answered: the other one came before it."""
    server.wait_for_line("open")
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=DEADLINE)
    connection.request("GET", "/")
    connection.getresponse().read()
    connection.close()
    # Not by lines: what another thread writes may stand on the same one.
    return server.log.count("open")


DEBUG = ["--debug"]
GUARD = ("not app.debug or is_running_from_reloader()", "True")


@pytest.mark.parametrize(
    ("options", "replacements", "count"),
    [([], [], 1), (DEBUG, [], 1), (DEBUG, [GUARD], 2)],
    ids=["plain", "debug", "debug without the guard"],
)
def test_a_task_at_import(documented, serve, python_module, tmp_path, options, replacements, count):
    """A task that is started at import runs once with the guard that the docs show, and else once per process."""
    documented("desk.py", *replacements)

    server = serve([*python_module("flask"), "--app=desk", "run", "--port=0", *options], cwd=tmp_path)

    server.wait_for_line("open", count=count)
    assert count_of_open(server) == count


def test_a_task_beside_app_run(documented, serve, tmp_path):
    """So it does with the guard that is shown for `app.run(debug=True)`."""
    path = documented("kiosk.py", ("port=5000", "port=0"))

    server = serve([sys.executable, str(path)], cwd=tmp_path)

    assert count_of_open(server) == 1
