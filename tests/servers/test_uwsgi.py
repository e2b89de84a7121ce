"""uWSGI, which forks without telling Python, and ends Python in a way of its own."""

import re
import sys

import pytest

WORKERS = {"fork": [], "lazy-apps": ["--lazy-apps"], "threads": ["--threads=4"]}


@pytest.fixture(params=WORKERS)
def worker(request):
    return WORKERS[request.param]


@pytest.fixture
def uwsgi(serve, uwsgi_binary):
    """Start uWSGI with one worker."""
    command = [
        uwsgi_binary, "--master", "--processes=1", "--http-socket=127.0.0.1:0", "--module=served:app", "--need-app",
        # It embeds Python, and has to be told of a virtual environment.
        "--enable-threads", f"--home={sys.prefix}",
        # Else SIGTERM would reload it; and with --die-on-term, end a worker that is busy as kill -9 does.
        "--hook-master-start=unix_signal:15 gracefully_kill_them_all",
    ]  # fmt: skip

    def uwsgi(*options, **env):
        return serve([*command, *options], **env)

    return uwsgi


def test_task_runs_while_requests_are_answered(uwsgi, worker, control):
    """Tasks run in the process of their request, and hold up no answer while they run or wait for a delay."""
    server = uwsgi(*worker)

    first = server.get("/start/held/a")
    control.wait_for("a began")
    server.get("/start/work/later?queue=mail&delay=0.1")
    control.wait_for("later ran")
    server.get("/start/work/queued")
    control.let_go("a began")
    control.wait_for("queued ran")

    ran_in = f"ran in {first['pid']}"
    assert control.events == ["a began", f"later {ran_in}", "a ended", f"queued {ran_in}"]


@pytest.mark.parametrize("answer", ["large", "streamed"])
def test_after_the_last_byte(uwsgi, control, answer):
    """A task for after the response starts when the last byte was sent, of a streamed answer too, and not before."""
    server = uwsgi()
    server.get("/start/probe/probe?queue=mail")

    with server.open(f"/{answer}/after") as client:
        # As in the test of gunicorn: were the task queued by now, the probe would be behind it.
        control.let_go("probe began")
        control.wait_for("probe ran")
        too_early = control.told("after")
        sent = server.read_all(client)
    control.wait_for("after ran")

    assert too_early == []
    assert sent > 15_900_000


def test_sigterm_waits_for_tasks(uwsgi, worker, control):
    """SIGTERM: tasks that run and that are queued are finished, where that takes no longer than the limit."""
    server = uwsgi(*worker, FLASK_ASOK_SHUTDOWN_TIMEOUT=20)
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


def test_sigterm_names_the_unfinished(uwsgi, worker, control):
    """SIGTERM: a task that runs, is queued or waits past the limit is logged, each by its name and id."""
    server = uwsgi(*worker, FLASK_ASOK_SHUTDOWN_TIMEOUT=0.2)
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


@pytest.mark.parametrize("worker", ["fork", "lazy-apps"], indirect=True)
def test_recycling_loses_nothing(uwsgi, worker, control):
    """A worker that has had its `max-requests` finishes its tasks first, and then another one answers."""
    server = uwsgi(*worker, "--max-requests=2", "--min-worker-lifetime=0", FLASK_ASOK_SHUTDOWN_TIMEOUT=20)

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


def test_fork_leaves_tasks_to_the_parent(uwsgi, control):
    """A task that was started at import belongs to the parent: in the worker it is abandoned, and others run."""
    server = uwsgi(START_AT_IMPORT=1)
    control.wait_for("early began")
    control.let_go("imported")

    early = server.get("/early")

    assert early["state"] == "abandoned"
    control.wait_for(f"late ran in {early['pid']}")


def test_worker_waits_for_nothing_of_the_master(serve, uwsgi_binary, tmp_path):
    """
    What threads of the master were at when the workers were forked holds up no worker: neither the deferred tasks and
    those waited for, nor the lock of a file to be renamed, a load of a cache or the connection of a store.
    """
    command = [
        uwsgi_binary, "--master", "--processes=1", "--http-socket=127.0.0.1:0", "--module=forked:early", "--need-app",
        "--enable-threads", f"--home={sys.prefix}",
    ]  # fmt: skip
    server = serve(command, FOLDER=tmp_path)

    found = server.get("/")
    server.terminate()

    assert found == {
        "renewals": [1, 1],
        "deferred": "abandoned",
        "joined": 0,
        "renamed": True,
        "loaded": "loaded",
        "loaded into its own": "loaded",
        "inherited": 0,
        "stored": "queued",
        "of_master": "queued",
    }
