"""Make the pictures of the dashboard in `pictures/`: `nox -s screenshots`. Needs Chromium."""

import importlib.util
import logging
import sys
import tempfile
import threading
import time
from pathlib import Path

from flask import Flask
from PIL import Image
from werkzeug.serving import make_server

from flask_asok import FlaskAsok, background, report_progress
from flask_asok.sharing import open_store
from flask_asok.store.record import Record

ROOT = Path(__file__).parents[1]
PICTURES = Path(__file__).parent / "pictures"
SIZE = 1000, 820

spec = importlib.util.spec_from_file_location("chromium", ROOT / "tests" / "chromium.py")
chromium = sys.modules["chromium"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(chromium)


def charge_card(order_id):
    raise ConnectionError("bank.example refused the connection")


def import_rows(reported, gate):
    report_progress(640, 1_000, "Row 640 of prices.csv")
    reported.set()
    gate.wait(60)


def fill(app, gate):
    """Let an hour have passed, and some tasks be there; return the one that failed."""
    store, now = open_store(app), time.time()
    for n in range(400):
        ended = now - (n * 7_919 % 3_500) - (n % 7) * 13
        state = "failed" if n % 67 == 1 else "succeeded"
        name = ("send_mail", "send_webhook", "resize_image")[n % 3]
        queue = ("mail", "webhooks", "images")[n % 3]
        error = "Refused('451 try again later')" if state == "failed" else ""
        store.add(
            Record(
                id=f"{n:032x}", name=name, queue=queue, state=state, attempts=1, enqueued=ended - 2, due=ended - 2,
                started=ended - 1 - n % 3 / 9, finished=ended, owner=store.me, error=error,
            )
        )  # fmt: skip
    reported = threading.Event()
    failed = background(charge_card, 4711)
    failed.join(10)
    background.using(queue="images")(import_rows, reported, gate)
    reported.wait(10)
    for _ in range(7):
        background.using(queue="images")(gate.wait, 60)
    background.using(queue="mail", delay=120, name="remind")(int)
    return failed.id


def main():
    """Write the pictures."""
    logging.disable(logging.ERROR)
    app, asok, gate = Flask("shop"), FlaskAsok(), threading.Event()
    app.config.from_mapping(SECRET_KEY="for pictures", ASOK_STORE="memory", ASOK_TRACKED=True)
    asok.init_app(app)
    app.register_blueprint(asok.dashboard(access=lambda: "write"), url_prefix="/tasks")
    ids = {}
    app.add_url_rule("/", "checkout", lambda: ids.setdefault("failed", fill(app, gate)))
    server = make_server("127.0.0.1", 0, app, threaded=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    app.test_client().get("/")
    PICTURES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        browser = chromium.Browser(chromium.find_chromium(), f"{folder}/profile")
        for scheme in ("light", "dark"):
            browser.show(*SIZE, prefers_color_scheme=scheme)
            for name, page in {"overview": "", "tasks": "tasks", "task": f"tasks/{ids['failed']}"}.items():
                browser.go(f"http://127.0.0.1:{server.port}/tasks/{page}")
                path = PICTURES / f"dashboard-{name}-{scheme}.png"
                browser.screenshot(path)
                # A fifth of the bytes, and no eye sees it.
                Image.open(path).convert("RGB").quantize(64).save(path, optimize=True)
        browser.close()
    gate.set()
    server.shutdown()
    asok.close(app, 5)


if __name__ == "__main__":
    main()
