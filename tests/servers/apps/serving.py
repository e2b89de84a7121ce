"""An application that tells when a process of it begins to serve."""

import os
import sys

from flask import Flask

from flask_asok import FlaskAsok
from flask_asok.state import state_of


def say(line):
    # In one piece: print() would write its end apart, and another process something before that.
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def create_app():
    app = Flask(__name__)
    app.config.from_prefixed_env()
    FlaskAsok(app)
    state_of(app).serving.on_first_request(lambda app: say(f"SERVES {os.getpid()}"))

    @app.get("/")
    def index():
        return {"pid": os.getpid(), "serving": state_of(app).serving.is_serving}

    @app.cli.command("ask")
    def ask():
        print(app.test_client().get("/").json["serving"])

    return app


app = create_app()
say(f"IMPORTED {os.getpid()}")
