"""The application whose tasks survive their process; its tasks tell the test what they do."""

import logging
import os
import signal
import socket
import time

from flask import Flask, request

from flask_asok import FlaskAsok, background, current_task

# The log tells what is handed over at INFO.
logging.basicConfig(level=logging.INFO)

asok = FlaskAsok()
durable = background.using(durable=True)


def tell(event, kind="tell"):
    with socket.create_connection(("127.0.0.1", int(os.environ["CONTROL_PORT"])), timeout=60) as connection:
        connection.sendall(f"{kind} {event}\n".encode())
        connection.recv(1)


def held(name):
    """Tell the test that this runs, and wait until it lets go; when it runs again, say so and return."""
    try:
        open(os.path.join(os.environ["MARKS"], name), "x").close()
    except FileExistsError:
        tell(f"{name} again in {os.getpid()} {current_task().id} {current_task().attempts}")
        return
    tell(f"{name} began in {os.getpid()}", "wait")
    tell(f"{name} ended in {os.getpid()}")


def note(name):
    task = current_task()
    tell(f"{name} attempt {task.attempts} {task.id} {time.time()} in {os.getpid()}")


def fail_once(name):
    note(name)
    if current_task().attempts == 1:
        raise ConnectionError(name)


def die(name):
    note(name)
    os.kill(os.getpid(), signal.SIGKILL)


FUNCTIONS = {function.__name__: function for function in (held, note, fail_once, die)}

if "NEW_CODE" in os.environ:

    def only_new(name):
        note(name)

    FUNCTIONS["only_new"] = only_new


def create_app():
    app = Flask(__name__)
    app.config["SECRET_KEY"] = "a secret of the tests"
    app.config.from_prefixed_env()
    asok.init_app(app)

    @app.get("/start/<fn>/<name>")
    def start(fn, name):
        numbers = {key: float(value) for key, value in request.args.items()}
        if "retries" in numbers:
            numbers["retries"] = int(numbers["retries"])
        task = durable.using(**numbers)(FUNCTIONS[fn], name)
        return {"id": task.id, "pid": os.getpid(), "at": time.time()}

    @app.get("/state/<id>")
    def state(id):
        task = asok.get(id)
        return {"pid": os.getpid(), "state": task.state, "attempts": task.attempts, "error": task.error}

    @app.get("/")
    def index():
        return {"pid": os.getpid()}

    @app.cli.command("leave")
    def leave():
        """Start a task that this process does not live to see."""
        durable.using(delay=2)(note, "left")

    @app.cli.command("look")
    def look():
        """Be a command for longer than a process that serves would need to take a task over."""
        background(note, "looked").join()
        durable.using(delay=3)(note, "own").join()

    return app


def post_worker_init(worker):
    """Of gunicorn: docs/deployment.md has it."""
    asok.start_worker(worker.wsgi)


app = create_app()
