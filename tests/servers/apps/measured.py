"""The application whose tasks are counted in every process, and that shows the sum."""

import os
import socket

from flask import Flask, Response
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

from flask_asok import FlaskAsok, background


def hold(name):
    """Tell the test that this runs, and wait until it lets go."""
    with socket.create_connection(("127.0.0.1", int(os.environ["CONTROL_PORT"])), timeout=60) as connection:
        connection.sendall(f"wait {name} runs in {os.getpid()}\n".encode())
        connection.recv(1)


def work():
    pass


def fail_late():
    raise ValueError


def create_app():
    app = Flask(__name__)
    app.config["ASOK_QUEUES"] = {"slow": 1}
    app.config["ASOK_METRICS"] = "prometheus"
    app.config.from_prefixed_env()
    FlaskAsok(app)
    if "START_AT_IMPORT" in os.environ:
        with app.app_context():
            background(work).join(20)

    @app.get("/work")
    def start_work():
        background(work)
        return {"pid": os.getpid()}

    @app.get("/later")
    def later():
        background.using(queue="mail", delay=3, retries=1, backoff=4)(fail_late)
        return {"pid": os.getpid()}

    @app.get("/stuck")
    def stuck():
        """Occupy the only thread of a queue, and put three more tasks into it."""
        for name in ("first", "second", "third", "fourth"):
            background.using(queue="slow")(hold, name)
        return {"pid": os.getpid()}

    @app.get("/metrics")
    def metrics():
        registry = CollectorRegistry()
        MultiProcessCollector(registry)
        return Response(generate_latest(registry), mimetype="text/plain")

    return app


app = create_app()
