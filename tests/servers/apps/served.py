"""The application that the servers serve: its routes start tasks, its tasks tell the test what they do."""

import atexit
import os
import signal
import socket
import sys

from flask import Flask, request

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


def fail(name):
    raise ValueError(name)


FUNCTIONS = {"work": work, "held": held, "probe": probe, "fail": fail}


def create_app():
    app = Flask(__name__)
    app.config["ASOK_QUEUES"] = {"default": 1}
    app.config.from_prefixed_env()
    FlaskAsok(app)
    # Called before what Flask-Asok does at exit, since it is registered after that.
    atexit.register(lambda: tell(f"{os.getpid()} exits"))

    @app.get("/start/<fn>/<name>")
    def start(fn, name):
        options = request.args.to_dict()
        if "delay" in options:
            options["delay"] = float(options["delay"])
        task = background.using(**options)(FUNCTIONS[fn], name)
        return {"id": task.id, "pid": os.getpid()}

    @app.get("/large/<name>")
    def large(name):
        background.using(when="response")(work, name)
        return MEGABYTE * MEGABYTES

    @app.get("/streamed/<name>")
    def streamed(name):
        background.using(when="response")(work, name)
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

app = create_app()
