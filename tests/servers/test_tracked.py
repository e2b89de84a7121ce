"""Tracked tasks, with several processes that answer: each of them knows every task."""

import os
import signal
import sys
import threading
import time

import pytest

DEADLINE = 60

POLLS = 40
CLIENTS = 4
PAUSE = 0.05

# How each is started, and how many processes answer.
GUNICORN = {
    "sync": (2, ["--worker-class=sync", "--workers=2"]),
    "eight": (8, ["--worker-class=sync", "--workers=8"]),
    "gthread": (4, ["--worker-class=gthread", "--threads=2", "--workers=4"]),
    "gevent": (2, ["--worker-class=gevent", "--workers=2"]),
    "preload": (2, ["--worker-class=sync", "--workers=2", "--preload"]),
    "max-requests": (2, ["--worker-class=sync", "--workers=2", "--max-requests=40"]),
}


@pytest.fixture
def start(serve, python_module, uwsgi_binary, tmp_path):
    """Start a server of the application, by its name; return it and the number of its processes."""

    def start(name):
        processes = 1
        if name in GUNICORN:
            processes, options = GUNICORN[name]
            if name == "gevent":
                python_module("gevent")
            command = [*python_module("gunicorn"), *options, "--bind=127.0.0.1:0", "tracked:app"]
        elif name == "uwsgi":
            processes = 2
            command = [
                uwsgi_binary, "--master", "--processes=2", "--http-socket=127.0.0.1:0", "--module=tracked:app",
                "--need-app", "--enable-threads", f"--home={sys.prefix}",
            ]  # fmt: skip
        elif name == "waitress":
            command = [*python_module("waitress"), "--listen=127.0.0.1:0", "tracked:app"]
        else:
            command = [*python_module("flask"), "--app=tracked:app", "run", "--port=0"]
        store = tmp_path / "asok.sqlite3"
        return serve(command, FLASK_ASOK_STORE=store, GUNICORN_CMD_ARGS="--no-control-socket"), processes

    return start


def ask(server, path, is_enough):
    """
    Have several clients ask for `path` at once until `is_enough(answers)`; return the answers, those of each client.

    One request after another is mostly answered by one process; these are not.
    """
    answers = [[] for _ in range(CLIENTS)]
    errors = []
    deadline = time.monotonic() + DEADLINE
    enough = threading.Event()

    def poll(mine):
        try:
            while not enough.is_set() and time.monotonic() < deadline:
                mine.append(server.get(path))
                if is_enough([answer for client in answers for answer in client]):
                    enough.set()
                enough.wait(PAUSE)
        except BaseException as error:
            errors.append(error)
            enough.set()

    clients = [threading.Thread(target=poll, args=(mine,)) for mine in answers]
    for client in clients:
        client.start()
    for client in clients:
        client.join(2 * DEADLINE)
    assert not errors, errors
    assert enough.is_set(), f"{answers}\n{server.log}"
    return answers


def pids(answers):
    return {answer["pid"] for answer in answers}


def fraction_of(answer):
    return answer["task"]["progress"]["fraction"] if answer["found"] and answer["task"]["progress"] else 0.0


@pytest.mark.parametrize("name", [*GUNICORN, "uwsgi", "waitress", "flask run"])
def test_whichever_process_answers(start, control, name):
    """Each poll finds the task, progress never goes back, a double click starts one task, any process can stop it."""
    server, processes = start(name)
    several = min(processes, 2)

    # A progress bar.
    id = server.get("/import/8")["id"]
    # The last row waits until somebody saw the bar on its way.
    polled = ask(server, f"/state/{id}", lambda answers: any(0 < fraction_of(answer) < 1 for answer in answers))
    control.let_go(control.wait_for("the last row runs in"))
    later = ask(
        server,
        f"/state/{id}",
        lambda answers: (
            len(answers) >= POLLS and len(pids(answers)) >= several and answers[-1]["task"]["state"] == "succeeded"
        ),
    )
    polled = [before + after for before, after in zip(polled, later, strict=True)]
    everything = [answer for client in polled for answer in client]
    assert [answer for answer in everything if not answer["found"]] == []
    for client in polled:
        fractions = [fraction_of(answer) for answer in client]
        assert fractions == sorted(fractions)
    last = server.get(f"/state/{id}")["task"]
    assert (last["state"], last["progress"]["fraction"]) == ("succeeded", 1.0)
    assert server.get(f"/result/{id}")["result"] == 8

    # A double click.
    clicks = [
        answer
        for client in ask(server, "/click/export", lambda answers: len(pids(answers)) >= several and len(answers) > 1)
        for answer in client
    ]
    assert len({answer["id"] for answer in clicks}) == 1
    began = control.wait_for("export runs in")
    assert len(control.told("export runs in")) == 1
    control.let_go(began)

    # A button to stop.
    started = server.get("/import/1000")
    if several > 1:
        ask(
            server,
            f"/stop/{started['id']}?owner={started['pid']}",
            lambda answers: any(answer["asked"] for answer in answers),
        )
    else:
        assert server.get(f"/stop/{started['id']}")["asked"]
    ask(
        server,
        f"/state/{started['id']}",
        lambda answers: answers[-1]["task"]["state"] not in ("queued", "running"),
    )
    assert server.get(f"/state/{started['id']}")["task"]["state"] == "cancelled"


def test_killed_worker(start, control):
    """What a worker ran that was killed is abandoned for the others, and its key is free."""
    server, _ = start("sync")
    lost = server.get("/click/export")["id"]
    began = control.wait_for("export runs in")

    os.kill(int(began.split()[-1]), signal.SIGKILL)
    ask(server, f"/state/{lost}", lambda answers: answers[-1]["task"]["state"] == "abandoned")

    again = server.get("/click/export")["id"]
    assert again != lost
    assert server.get(f"/state/{again}")["task"]["state"] in ("queued", "running")
