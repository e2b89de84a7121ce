"""The application whose tasks are tracked: whichever process answers, it knows all of them."""

import os
import socket
import threading

from flask import Flask, request

from flask_asok import FlaskAsok, background, track

STEP_SECONDS = 0.3
"""What a row takes: all but the last longer than a second, since progress is written down once a second."""

asok = FlaskAsok()


def take_rows(count):
    for row in track(range(count)):
        if row == count - 1:
            hold("the last row")
        threading.Event().wait(STEP_SECONDS)
    return count


def hold(name):
    """Tell the test that this runs, and wait until it lets go."""
    with socket.create_connection(("127.0.0.1", int(os.environ["CONTROL_PORT"])), timeout=60) as connection:
        connection.sendall(f"wait {name} runs in {os.getpid()}\n".encode())
        connection.recv(1)


def create_app():
    app = Flask(__name__)
    app.config["SECRET_KEY"] = "a secret of the tests"
    app.config.from_prefixed_env()
    asok.init_app(app)

    def answer(**fields):
        return {"pid": os.getpid(), **fields}

    @app.get("/import/<int:count>")
    def start_import(count):
        return answer(id=background.using(tracked=True)(take_rows, count).id)

    @app.get("/click/<name>")
    def click(name):
        return answer(id=background.using(unique=name, tracked=True)(hold, name).id)

    @app.get("/state/<id>")
    def state(id):
        task = asok.get(id)
        return answer(found=task is not None, **({} if task is None else {"task": task.as_dict()}))

    @app.get("/result/<id>")
    def result(id):
        return answer(result=asok.get(id).result(20))

    @app.get("/stop/<id>")
    def stop(id):
        # Not in the process that runs the task.
        is_own = request.args.get("owner") == str(os.getpid())
        return answer(asked=not is_own and asok.cancel(id, running=True))

    return app


app = create_app()
