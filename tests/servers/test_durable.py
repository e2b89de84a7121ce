"""Durable tasks, with real processes that are killed, stopped, reloaded and replaced: the next one goes on."""

import os
import re
import shutil
import signal
import sys
import time
from pathlib import Path

import pytest

import flask_asok

DEADLINE = 60
APPLICATION = Path(__file__).parent / "apps" / "lasting.py"
APPS = os.pathsep.join([str(APPLICATION.parent), str(Path(flask_asok.__file__).parent.parent)])

BACK = 20.0
"""Ten times the 2 s within which a sibling goes on, for a machine that is busy."""

GUNICORN = {
    "sync": ["--worker-class=sync", "--workers=2"],
    "gthread": ["--worker-class=gthread", "--threads=2", "--workers=2"],
    "gevent": ["--worker-class=gevent", "--workers=2"],
    "preload": ["--worker-class=sync", "--workers=2", "--preload"],
}


@pytest.fixture
def env(tmp_path):
    """What all processes of a test share: one store, and one folder of marks."""
    (tmp_path / "marks").mkdir()
    return {"FLASK_ASOK_STORE": tmp_path / "store" / "asok.sqlite3", "MARKS": tmp_path / "marks"}


@pytest.fixture
def gunicorn(serve, python_module, env):
    """Start gunicorn, whose workers sweep from the start."""

    def gunicorn(*options, **more):
        python_module("gevent")
        command = [
            *python_module("gunicorn"), "--bind=127.0.0.1:0", "--no-control-socket", "--config=python:lasting",
            *options, "lasting:app",
        ]  # fmt: skip
        return serve(command, **env, **more)

    return gunicorn


@pytest.fixture
def flask_run(serve, python_module, env):
    """Start `flask run`."""

    def flask_run(*options, **more):
        return serve([*python_module("flask"), "--app=lasting:app", "run", "--port=0", *options], **{**env, **more})

    return flask_run


@pytest.fixture
def flask(run, python_module, env):
    """Run a command of the application."""

    def flask(*arguments, **more):
        return run([*python_module("flask"), "--app=lasting:app", *arguments], **{**env, **more})

    return flask


def pid_of(event):
    return int(re.search(r" in (\d+)", event)[1])


def wait_for_state(server, id, state):
    deadline = time.monotonic() + DEADLINE
    while (found := server.get(f"/state/{id}"))["state"] != state:
        assert time.monotonic() < deadline, f"{found}\n{server.log}"
        time.sleep(0.02)
    return found


@pytest.mark.parametrize("name", GUNICORN)
def test_killed_worker(gunicorn, control, name):
    """kill -9 of a worker: another process goes on with what it ran, and what it had queued, under the same ids."""
    server = gunicorn(*GUNICORN[name])
    running = server.get("/start/held/a")
    pid = pid_of(control.wait_for("a began"))
    waits = server.get("/start/note/b?delay=0.2")

    killed = time.monotonic()
    os.kill(pid, signal.SIGKILL)
    again = control.wait_for("a again")
    seconds = time.monotonic() - killed

    assert pid_of(again) != pid
    assert again.split()[4:] == [running["id"], "1"]
    assert control.wait_for("b attempt 1").split()[3] == waits["id"]
    assert seconds < BACK
    assert wait_for_state(server, running["id"], "succeeded")["attempts"] == 1


def test_max_requests(gunicorn, control):
    """A worker that ends by itself after some requests leaves nothing behind that is not done."""
    server = gunicorn("--worker-class=sync", "--workers=2", "--max-requests=3")

    ids = {f"t{number}.": server.get(f"/start/note/t{number}.?delay=0.3")["id"] for number in range(12)}

    for name, id in ids.items():
        assert control.wait_for(f"{name} attempt").split()[3] == id
        assert len(control.told(f"{name} attempt")) == 1


def test_everything_killed(gunicorn, flask_run, control):
    """kill -9 of everything: the next start goes on, on another server too."""
    server = gunicorn("--workers=2")
    running = server.get("/start/held/a")
    control.wait_for("a began")
    waits = server.get("/start/note/later?delay=1")

    server.kill()
    flask_run().get("/")

    assert control.wait_for("a again").split()[4] == running["id"]
    told = control.wait_for("later attempt 1").split()
    assert told[3] == waits["id"]
    assert float(told[4]) >= waits["at"] + 1


def test_sigterm_hands_over(gunicorn, control):
    """A deploy: what runs is waited for, what waits is handed over with one line, at the right time, attempts kept."""
    server = gunicorn("--workers=1", FLASK_ASOK_SHUTDOWN_TIMEOUT=20)
    server.get("/start/held/short")
    control.wait_for("short began")
    # Long enough for this server to be gone by then.
    waits = server.get("/start/note/later?delay=8")
    retried = server.get("/start/fail_once/retried?retries=2&backoff=8")
    first = float(control.wait_for("retried attempt 1").split()[4])
    wait_for_state(server, retried["id"], "waiting")

    server.terminate()
    server.wait_for_line("Waiting up to 20 s for 1 task")
    control.let_go(control.told("short began")[0])
    server.wait()
    gunicorn("--workers=1")

    assert server.log.count("2 durable tasks are left to the next process.") == 1
    assert "abandoned" not in server.log
    late = control.wait_for("later attempt 1").split()
    again = control.wait_for("retried attempt 2").split()
    assert (late[3], again[3]) == (waits["id"], retried["id"])
    assert waits["at"] + 8 <= float(late[4]) < waits["at"] + 8 + BACK
    assert first + 7.5 <= float(again[4]) < first + 9.5 + BACK
    assert control.told("short again") == []
    assert len(control.told("short ended")) == 1


def test_drain_limit(gunicorn, control):
    """What the shutdown does not wait for runs again in the next process; no death is counted."""
    server = gunicorn("--workers=1", FLASK_ASOK_SHUTDOWN_TIMEOUT=0.1)
    long = server.get("/start/held/long")
    control.wait_for("long began")

    server.terminate()
    server.wait()
    gunicorn("--workers=1")

    assert control.wait_for("long again").split()[4:] == [long["id"], "1"]
    assert server.log.count("1 durable task is left to the next process.") == 1


def test_a_task_that_kills_its_process(gunicorn, control):
    """It is abandoned after three; the others go on."""
    server = gunicorn("--worker-class=gthread", "--threads=2", "--workers=2")
    others = [server.get(f"/start/note/other{number}.?delay=2") for number in range(20)]
    # The last one: it must not end the process that is to answer for another one.
    deadly = server.get("/start/die/deadly?delay=0.5")

    found = wait_for_state_over_deaths(server, deadly["id"])

    assert len(control.told("deadly attempt")) == 3
    server.wait_for_line("3 processes ended while they ran it")
    assert found["state"] == "abandoned"
    for number, other in enumerate(others):
        assert control.wait_for(f"other{number}. attempt 1").split()[3] == other["id"]


def wait_for_state_over_deaths(server, id):
    """Ask again where the worker that was to answer has just died."""
    deadline = time.monotonic() + DEADLINE
    while time.monotonic() < deadline:
        try:
            found = server.get(f"/state/{id}")
        except AssertionError:
            continue
        if found["state"] == "abandoned":
            return found
        time.sleep(0.05)
    raise AssertionError(server.log)


def test_stopped_process(gunicorn, flask_run, control):
    """A process that is stopped (SIGSTOP) lives: nothing is taken from it."""
    stopped = flask_run()
    stopped.get("/start/held/a")
    control.wait_for("a began")
    # Not before it is stopped.
    stopped.get("/start/note/late?delay=1&retries=0")
    stopped.send(signal.SIGSTOP)

    other = gunicorn("--workers=1")
    other.get("/start/note/looks?delay=2")
    control.wait_for("looks attempt")
    meanwhile = control.told("a again")
    stopped.send(signal.SIGCONT)
    control.wait_for("late attempt")
    control.let_go(control.told("a began")[0])
    control.wait_for("a ended")

    assert meanwhile == []
    assert len(control.told("late attempt")) == 1


def test_reload(flask_run, control, tmp_path):
    """`flask run --debug`: an edit restarts the server, and the new code goes on."""
    shutil.copy(APPLICATION, tmp_path)
    server = flask_run("--debug", cwd=tmp_path)
    before = server.get("/start/held/long")
    control.wait_for("long began")

    with (tmp_path / "lasting.py").open("a") as file:
        file.write("\n# edited\n")
    server.wait_for_line("Restarting with", count=2)
    after = server.get("/")

    again = control.wait_for("long again")
    assert again.split()[4] == before["id"]
    assert pid_of(again) == after["pid"] != before["pid"]


def test_uwsgi(serve, uwsgi_binary, env, control):
    """uWSGI, which forks without telling Python."""
    command = [
        uwsgi_binary, "--master", "--processes=2", "--http-socket=127.0.0.1:0", "--module=lasting:app", "--need-app",
        "--enable-threads", f"--home={sys.prefix}",
    ]  # fmt: skip
    server = serve(command, **env)
    running = server.get("/start/held/a")
    pid = pid_of(control.wait_for("a began"))

    os.kill(pid, signal.SIGKILL)
    server.wait_for_line("Respawned uWSGI worker")
    server.get("/")

    again = control.wait_for("a again")
    assert again.split()[4] == running["id"]
    assert pid_of(again) != pid


def test_waitress(serve, python_module, env, control):
    """waitress, killed and started again."""
    command = [*python_module("waitress"), "--listen=127.0.0.1:0", "lasting:app"]
    server = serve(command, **env)
    running = server.get("/start/held/a")
    control.wait_for("a began")

    server.kill()
    serve(command, **env).get("/")

    assert control.wait_for("a again").split()[4] == running["id"]


def test_commands_take_nothing_over(flask, flask_run, control):
    """A command may leave a task; another one lets it lie; a process that serves runs it."""
    left = flask("leave")
    assert left.wait() == 0, left.log
    assert "1 durable task is left to the next process." in left.log
    look = flask("look")
    assert look.wait() == 0, look.log

    assert control.told("left attempt") == []
    assert len(control.told("own attempt")) == 1
    flask_run().get("/")
    control.wait_for("left attempt 1")


def test_worker(flask, flask_run, control):
    """`flask asok worker` takes over what is left, in the queues that it was given, and ends like a server."""
    assert flask("leave").wait() == 0
    idle = flask("asok", "worker", "-q", "mail")
    idle.wait_for_line("The worker .* runs the durable tasks that others have left, in: mail")
    idle.wait_for_line(r"Running the durable tasks that others have left, in: mail\. Ctrl-C to quit\.")
    worker = flask("asok", "worker", FLASK_ASOK_SHUTDOWN_TIMEOUT=20)
    assert pid_of(control.wait_for("left attempt 1")) != idle._popen.pid
    server = flask_run()
    server.get("/start/held/a")
    control.wait_for("a began")
    server.kill()
    control.wait_for("a again")

    idle.terminate()
    worker.send(signal.SIGINT)

    assert (idle.wait(), worker.wait()) == (0, 0)
    assert "Traceback" not in idle.log + worker.log


def test_worker_that_is_interrupted_twice(flask, flask_run, control):
    """A second Ctrl-C ends it at once; what it ran goes on in the next process, without a death."""
    server = flask_run()
    left = server.get("/start/held/a?delay=2")
    server.kill()
    worker = flask("asok", "worker", FLASK_ASOK_SHUTDOWN_TIMEOUT=60)
    control.wait_for("a began")

    worker.send(signal.SIGINT)
    worker.wait_for_line("finishes what it runs, for up to 60 s; a second signal ends it at once")
    worker.send(signal.SIGINT)
    worker.wait()
    flask("asok", "worker")

    assert control.wait_for("a again").split()[4:] == [left["id"], "1"]
    assert "1 durable task is left to the next process." in worker.log


def test_worker_that_cannot_be(flask, redis_port):
    """A worker without a store that processes share, or for an unknown queue, exits with 2 and says why."""
    told = {
        "Unknown queue 'nothing'": flask("asok", "worker", "-q", "nothing"),
        "set ASOK_STORE to a path": flask("asok", "worker", FLASK_ASOK_STORE="memory"),
        "Set ASOK_STORE to a path": flask("asok", "worker", FLASK_ASOK_STORE=f"redis://127.0.0.1:{redis_port}"),
        "set ASOK_STORE to a path.": flask("asok", "worker", FLASK_TESTING="true", FLASK_ASOK_STORE="null"),
    }

    for text, worker in told.items():
        assert worker.wait() == 2
        assert text in worker.log


def test_old_and_new_code(gunicorn, control, env):
    """Blue and green on one file: what only the new one has runs there; the old one says so once."""
    new = gunicorn("--workers=1", NEW_CODE=1)
    left = new.get("/start/only_new/fresh?delay=2")
    new.kill()
    old = gunicorn("--workers=1")
    old.wait_for_line("is left to others for 10 min")
    old.get("/start/note/looks?delay=1.2")
    control.wait_for("looks attempt")

    gunicorn("--workers=1", NEW_CODE=1)

    assert control.wait_for("fresh attempt 1").split()[3] == left["id"]
    assert old.log.count("is left to others for 10 min") == 1


FULL_DISK = """
import resource, signal, sys
from lasting import app, asok, durable, note
from flask_asok import BackendUnavailable
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
with app.app_context():
    accepted = durable.using(delay=3600)(note, "first").id
    most = 400_000
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, resource.RLIM_INFINITY))
    ids = [accepted]
    try:
        while True:
            ids.append(durable.using(delay=3600)(note, "x" * 10_000).id)
    except BackendUnavailable as error:
        print("FULL", error)
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    assert [asok.get(id).state for id in ids] == ["waiting"] * len(ids)
    after = durable(note, "after")
    after.result(20)
    print("KEPT", len(ids))
"""


def test_full_disk(script, control, env):
    """A full disk: an error at the call; what was accepted stays, and it goes on when there is room again."""
    program = script(FULL_DISK, PYTHONPATH=APPS, **env)

    assert program.wait() == 0, program.log
    program.wait_for_line("FULL The store .* cannot be used")
    assert int(program.wait_for_line(r"KEPT (\d+)")[1]) > 5
    assert control.told("after attempt 1")


FORKS = """
import multiprocessing, os, subprocess, sys
from lasting import app, asok, durable, note
from flask_asok.sharing import open_store

def child():
    with app.app_context():
        durable(note, "child").result(20)
        durable.using(delay=3600)(note, "left")
        asok.close(app, 5)

if __name__ == "__main__":
    with app.app_context():
        durable(note, "before").result(20)
        waits = durable.using(delay=2)(note, "waits")
        one = multiprocessing.get_context("fork").Process(target=child)
        one.start()
        one.join(30)
        subprocess.run([sys.executable, "-c", ""], check=True)
        waits.result(20)
        durable(note, "end").result(20)
        print("EXIT", one.exitcode, [record.state for record in open_store(app).newest(10)])
"""


def test_forks(script, control, env):
    """A fork and an exec in the middle: each process runs its own, once."""
    program = script(FORKS, PYTHONPATH=APPS, **env)

    assert program.wait() == 0, program.log
    assert "EXIT 0 ['succeeded', 'succeeded', 'succeeded', 'waiting', 'succeeded']" in program.log
    for name in ("before", "child", "waits", "end"):
        assert len(control.told(f"{name} attempt")) == 1
