"""The application that the servers serve: its routes start tasks, its tasks tell the test what they do."""

import os
import signal
import socket
import sys
import tempfile
import threading

from flask import Flask, Response, copy_current_request_context, request, send_file

from flask_asok import FlaskAsok, background

MEGABYTE = b"x" * 1_000_000
MEGABYTES = 16
"""More than the system's socket buffers hold: the server is still sending while the client does not read."""


def tell(event, kind="tell"):
    """Tell the test what happens. It answers at once or, where `kind` is "wait", when it lets go."""
    with socket.create_connection(("127.0.0.1", int(os.environ["CONTROL_PORT"])), timeout=60) as connection:
        connection.sendall(f"{kind} {event}\n".encode())
        connection.recv(1)


def work(name):
    tell(f"{name} ran in {os.getpid()}")


def held(name):
    tell(f"{name} began", "wait")
    tell(f"{name} ended")


def probe(name):
    """When the test lets go, queue a task behind all that the default queue holds by then."""
    tell(f"{name} began", "wait")
    background(work, name)


def remove(path, name):
    os.remove(path)
    work(name)


def temporary_file():
    """Return the path of a large file that a task will remove."""
    with tempfile.NamedTemporaryFile(delete=False) as file:
        for _ in range(MEGABYTES):
            file.write(MEGABYTE)
    return file.name


def fail(name):
    raise ValueError(name)


FUNCTIONS = {"work": work, "held": held, "probe": probe, "fail": fail}


def create_app():
    app = Flask(__name__)
    app.config["ASOK_QUEUES"] = {"default": 1}
    app.config.from_prefixed_env()
    FlaskAsok(app)
    tells_exit = []

    @app.get("/start/<fn>/<name>")
    def start(fn, name):
        options = request.args.to_dict()
        if "delay" in options:
            options["delay"] = float(options["delay"])
        task = background.using(**options)(FUNCTIONS[fn], name)
        if not tells_exit:
            tells_exit.append(True)
            # Called before what Flask-Asok does at exit, since it is registered after that, which the first task does.
            threading._register_atexit(lambda: tell(f"{os.getpid()} exits"))
        return {"id": task.id, "pid": os.getpid()}

    @app.get("/states")
    def states():
        return [summary.state for summary in FlaskAsok().tasks()]

    @app.get("/large/<name>")
    def large(name):
        background.using(when="response")(work, name)
        return MEGABYTE * MEGABYTES

    @app.get("/streamed/<name>")
    def streamed(name):
        background.using(when="response")(work, name)
        return iter([MEGABYTE] * MEGABYTES)

    @app.get("/file/<name>")
    def file(name):
        path = temporary_file()
        background.using(when="response")(remove, path, name)
        return send_file(path)

    @app.get("/range/<name>")
    def range_of_file(name):
        path = temporary_file()
        background.using(when="response")(remove, path, name)
        request.environ["HTTP_RANGE"] = "bytes=1-"
        return send_file(path)

    @app.get("/bare/<name>")
    def bare(name):
        background.using(when="response")(work, name)
        return Response(iter([MEGABYTE] * MEGABYTES), direct_passthrough=True)

    @app.get("/copied/<name>")
    def copied(name):
        background.using(when="response")(work, name)
        helper = threading.Thread(target=copy_current_request_context(lambda: request.path))
        helper.start()
        helper.join()
        return iter([MEGABYTE] * MEGABYTES)

    if "START_AT_IMPORT" in os.environ:
        with app.app_context():
            early = background(held, "early")
        # Forked in the middle of its work, a thread leaves whatever it holds locked, the interpreter itself on uWSGI.
        tell("imported", "wait")

        @app.get("/early")
        def early_state():
            background(work, "late")
            return {"state": early.state, "pid": os.getpid()}

    return app


if "EXIT_ON_SIGTERM" in os.environ:
    # What docs/deployment.md has for servers that leave SIGTERM to the system.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))

if "TELL_SENDFILE" in os.environ:
    sendfile = socket.socket.sendfile

    def tell_and_send(self, *args, **kwargs):
        tell("sendfile")
        return sendfile(self, *args, **kwargs)

    socket.socket.sendfile = tell_and_send

app = create_app()
