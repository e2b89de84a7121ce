"""An application that tells when a process of it begins to serve."""

import os

from flask import Flask

from flask_asok import FlaskAsok
from flask_asok.state import state_of


def create_app():
    app = Flask(__name__)
    app.config.from_prefixed_env()
    FlaskAsok(app)
    state_of(app).serving.on_first_request(lambda app: print(f"SERVES {os.getpid()}", flush=True))

    @app.get("/")
    def index():
        return {"pid": os.getpid(), "serving": state_of(app).serving.is_serving}

    @app.cli.command("ask")
    def ask():
        print(app.test_client().get("/").json["serving"])

    return app


app = create_app()
print(f"IMPORTED {os.getpid()}", flush=True)
