"""gunicorn: every kind of worker keeps the promises, at work, at its end and when it is replaced."""

import re

import pytest

WORKERS = {
    "sync": ["--worker-class=sync"],
    "gthread": ["--worker-class=gthread", "--threads=4"],
    "preload": ["--worker-class=sync", "--preload"],
    "gevent": ["--worker-class=gevent"],
    "gevent-preload": ["--worker-class=gevent", "--preload"],
}


@pytest.fixture(params=WORKERS)
def gunicorn(request, serve, python_module):
    """Start gunicorn with one worker of each kind."""
    if request.param.startswith("gevent"):
        python_module("gevent")
    command = [*python_module("gunicorn"), *WORKERS[request.param], "--bind=127.0.0.1:0"]

    def gunicorn(*options, **env):
        # Some versions open a socket for commands at a place that all servers of a user share.
        return serve([*command, *options, "served:app"], GUNICORN_CMD_ARGS="--no-control-socket", **env)

    return gunicorn


UNPRELOADED = pytest.mark.parametrize("gunicorn", ["sync", "gthread", "gevent"], indirect=True)
"""For what does not depend on when the application was imported."""


def test_task_runs_while_requests_are_answered(gunicorn, control):
    """Tasks run in the process of their request, and hold up no answer while they run or wait for a delay."""
    server = gunicorn()

    first = server.get("/start/held/a")
    control.wait_for("a began")
    server.get("/start/work/later?queue=mail&delay=0.1")
    control.wait_for("later ran")
    server.get("/start/work/queued")
    control.let_go("a began")
    control.wait_for("queued ran")

    ran_in = f"ran in {first['pid']}"
    assert control.events == ["a began", f"later {ran_in}", "a ended", f"queued {ran_in}"]


@UNPRELOADED
@pytest.mark.parametrize("answer", ["large", "streamed"])
def test_after_the_last_byte(gunicorn, control, answer):
    """A task for after the response starts when the last byte was sent, of a streamed answer too, and not before."""
    server = gunicorn()
    server.get("/start/probe/probe?queue=mail")

    with server.open(f"/{answer}/after") as client:
        # The view has returned long ago, but most of the answer is still to be sent. Were the task queued by now, the
        # probe would be behind it: there is one thread for both.
        control.let_go("probe began")
        control.wait_for("probe ran")
        too_early = control.told("after")
        sent = server.read_all(client)
    control.wait_for("after ran")

    assert too_early == []
    assert sent > 15_900_000


def test_sigterm_waits_for_tasks(gunicorn, control):
    """SIGTERM: tasks that run and that are queued are finished, where that takes no longer than the limit."""
    server = gunicorn(FLASK_ASOK_SHUTDOWN_TIMEOUT=20)
    pid = server.get("/start/held/running")["pid"]
    server.get("/start/work/queued")
    control.wait_for("running began")

    server.terminate()
    control.wait_for(f"{pid} exits")
    control.let_go("running began")
    code = server.wait()

    assert code == 0
    assert control.told("running ended")
    assert control.told("queued ran")
    assert "abandoned" not in server.log


def test_sigterm_names_the_unfinished(gunicorn, control):
    """SIGTERM: a task that runs, is queued or waits past the limit is logged, each by its name and id."""
    server = gunicorn(FLASK_ASOK_SHUTDOWN_TIMEOUT=0.2)
    running = server.get("/start/held/running")["id"]
    control.wait_for("running began")
    queued = server.get("/start/work/queued")["id"]
    waiting = server.get("/start/work/waiting?queue=mail&delay=1000&name=later")["id"]

    server.terminate()
    code = server.wait()

    assert code == 0
    late = "not finished 0.2 s after the shutdown began (ASOK_SHUTDOWN_TIMEOUT)."
    assert re.findall(r"ERROR asok.background: (.*)", server.log) == [
        f"Background task later ({waiting}) abandoned while waiting: the application shuts down.",
        f"Background task work ({queued}) abandoned while queued: {late}",
        f"Background task held ({running}) abandoned while running: {late}",
    ]
    assert not control.told("queued ran")


@UNPRELOADED
def test_recycling_loses_nothing(gunicorn, control):
    """A worker that has had its `max_requests` finishes its tasks first, and then another one answers."""
    server = gunicorn("--max-requests=2", FLASK_ASOK_SHUTDOWN_TIMEOUT=20)

    old = server.get("/start/held/running")["pid"]
    control.wait_for("running began")
    assert server.get("/start/work/queued")["pid"] == old
    control.wait_for(f"{old} exits")
    control.let_go("running began")
    new = server.get("/start/work/next")["pid"]
    control.wait_for(f"next ran in {new}")

    assert new != old
    assert control.told("running ended")
    assert control.told("queued ran") == [f"queued ran in {old}"]
    assert "abandoned" not in server.log


def test_fork_leaves_tasks_to_the_parent(serve, python_module, control):
    """With `--preload`, a task started at import runs in the parent; in the worker it is abandoned, and others run."""
    command = [*python_module("gunicorn"), "--preload", "--bind=127.0.0.1:0", "served:app"]
    server = serve(command, GUNICORN_CMD_ARGS="--no-control-socket", START_AT_IMPORT=1)
    control.wait_for("early began")
    control.let_go("imported")

    early = server.get("/early")

    assert early["state"] == "abandoned"
    control.wait_for(f"late ran in {early['pid']}")
    control.let_go("early began")
    control.wait_for("early ended")
    server.terminate()
    assert server.wait() == 0
