"""waitress: one process, threads of its own."""

import signal

import pytest


@pytest.fixture
def waitress(serve, python_module):
    command = [*python_module("waitress"), "--listen=127.0.0.1:0", "--threads=2", "served:app"]
    return lambda **env: serve(command, **env)


def test_tasks_run(waitress, control):
    """Tasks run, and hold up no answer; those for after the response run after the view has returned."""
    server = waitress()

    pid = server.get("/start/held/a")["pid"]
    control.wait_for("a began")
    server.get("/start/work/after?when=response&queue=mail")
    control.wait_for("after ran")
    control.let_go("a began")
    control.wait_for("a ended")

    assert control.events == ["a began", f"after ran in {pid}", "a ended"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_end_waits_for_tasks(waitress, control, number):
    """Ctrl-C, and SIGTERM where it is told to exit by it: tasks that run and that are queued are finished."""
    server = waitress(FLASK_ASOK_SHUTDOWN_TIMEOUT=20, EXIT_ON_SIGTERM=1)
    pid = server.get("/start/held/running")["pid"]
    server.get("/start/work/queued")
    control.wait_for("running began")

    server.send(number)
    control.wait_for(f"{pid} exits")
    control.let_go("running began")
    code = server.wait()

    assert code == 0
    assert control.told("queued ran")
    assert "abandoned" not in server.log
