"""An application whose periodic task writes down, in a file that its processes share, which tick it ran and where."""

import contextlib
import os
import signal
import time

from flask import Flask

from flask_asok import FlaskAsok, current_task
from flask_asok.periodic import Clock
from flask_asok.state import state_of

asok = FlaskAsok()


@asok.periodic(every=1, name="tick")
def tick():
    line = f"{current_task().scheduled_at.timestamp():.0f} {os.getpid()} {time.time()}\n"
    with open(os.environ["TICKS"], "ab", buffering=0) as file:
        # One write of a line is not broken up by another process.
        file.write(line.encode())
    # Well before the next tick, which this process may have taken by then: it would be lost with it.
    if time.time() - current_task().scheduled_at.timestamp() < 0.5:
        with contextlib.suppress(FileNotFoundError):
            os.remove(os.environ["TICKS"] + ".kill")
            os.kill(os.getpid(), signal.SIGKILL)


def create_app():
    app = Flask(__name__, instance_path=os.environ.get("INSTANCE"))
    app.config["SECRET_KEY"] = "a secret of the tests"
    app.config.from_prefixed_env()
    asok.init_app(app)

    @app.get("/")
    def index():
        return {"pid": os.getpid(), "clock": state_of(app).kept(Clock).is_running}

    @app.cli.command("ask")
    def ask():
        print("threads", app.test_client().get("/").json)

    return app


def post_worker_init(worker):
    """Start the clock without a request: a hook of gunicorn."""
    asok.start_periodic(app)


app = create_app()
