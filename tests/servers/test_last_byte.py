"""A task for after the response starts after its last byte, on every server and for every kind of answer."""

import sys

import pytest

SERVERS = {
    "flask": ["flask", "--app=served:app", "run", "--port=0"],
    "gunicorn": ["gunicorn", "--bind=127.0.0.1:0", "served:app"],
    "gunicorn-gthread": [
        "gunicorn", "--bind=127.0.0.1:0", "--worker-class=gthread", "--threads=4", "served:app",
    ],
    "gunicorn-gevent": ["gunicorn", "--bind=127.0.0.1:0", "--worker-class=gevent", "served:app"],
    "waitress": ["waitress", "--listen=127.0.0.1:0", "served:app"],
    "uwsgi": [
        "--master", "--processes=1", "--http-socket=127.0.0.1:0", "--module=served:app", "--need-app",
        "--enable-threads", f"--home={sys.prefix}", "--hook-master-start=unix_signal:15 gracefully_kill_them_all",
    ],
    "asgiref": ["uvicorn", "--port=0", "bridged:by_asgiref"],
    "a2wsgi": ["uvicorn", "--port=0", "bridged:by_a2wsgi"],
}  # fmt: skip

ANSWERS = ["large", "streamed", "file", "range", "bare", "copied"]

TAKEN = {"waitress": {"large", "streamed", "range", "bare", "copied"}, "a2wsgi": set(ANSWERS)}
"""Answers that a server closes when it has taken the last byte, and not when it has sent that."""

SENT_BY_SYSTEM = ["gunicorn", "gunicorn-gthread", "gunicorn-gevent"]


@pytest.fixture(params=SERVERS)
def server(request, serve, python_module, uwsgi_binary):
    """One server after the other."""
    if request.param == "gunicorn-gevent":
        python_module("gevent")
    if request.param == "uwsgi":
        command = [uwsgi_binary, *SERVERS["uwsgi"]]
    else:
        module, *options = SERVERS[request.param]
        command = [*python_module(module), *options]
    # As in the tests of gunicorn.
    server = serve(command, TELL_SENDFILE=1, GUNICORN_CMD_ARGS="--no-control-socket")
    server.kind = request.param
    return server


def test_after_the_last_byte(server, control):
    """It starts when all has been sent, and not before: of text, a stream, a file, a part of one, a bare body."""
    too_early, sent = [], {}
    for answer in ANSWERS:
        server.get(f"/start/probe/probe-{answer}?queue=mail")
        with server.open(f"/{answer}/after-{answer}") as client:
            # The view has returned long ago, but most of the answer is still to be sent. Were the task queued by now,
            # the probe would be behind it: there is one thread for both.
            control.let_go(f"probe-{answer} began")
            control.wait_for(f"probe-{answer} ran")
            if control.told(f"after-{answer} "):
                too_early.append(answer)
            sent[answer] = server.read_all(client)
        control.wait_for(f"after-{answer} ran")

    assert set(too_early) <= TAKEN.get(server.kind, set()), server.log
    assert min(sent.values()) > 15_900_000
    # What this extension puts around a body keeps no server from sending a file by the system's means.
    assert bool(control.told("sendfile")) == (server.kind in SENT_BY_SYSTEM)
    if server.kind == "uwsgi":
        server.wait_for_line(r"via sendfile\(\)")
    else:
        assert "via sendfile()" not in server.log


def test_after_a_client_that_leaves(server, control):
    """When the visitor leaves in the middle of the answer the task starts all the same."""
    for answer in ANSWERS:
        server.open(f"/{answer}/after-{answer}").close()
        control.wait_for(f"after-{answer} ran")
