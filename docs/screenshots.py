"""Make the pictures of the example and of the dashboard in `pictures/`: `nox -s screenshots`. Needs Chromium."""

import contextlib
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
SCHEMES = "light", "dark"


def by_path(name, path, **options):
    """Import what is not installed."""
    spec = importlib.util.spec_from_file_location(name, path, **options)
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


chromium = by_path("chromium", ROOT / "tests" / "chromium.py")
example_app = by_path(
    "example_app", ROOT / "example_app" / "__init__.py", submodule_search_locations=[str(ROOT / "example_app")]
)


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
    failed = background.using(retries=2, backoff=(0.4, 0.9))(charge_card, 4711)
    failed.join(10)
    background.using(queue="images")(import_rows, reported, gate)
    reported.wait(10)
    for _ in range(7):
        background.using(queue="images")(gate.wait, 60)
    background.using(queue="mail", delay=120, name="remind")(int)
    return failed.id


@contextlib.contextmanager
def serving(app):
    """Serve an application, and give its address."""
    server = make_server("127.0.0.1", 0, app, threaded=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.port}"
    finally:
        server.shutdown()


def take(browser, name):
    """Write what the browser shows, in both colour schemes."""
    for scheme in SCHEMES:
        # What fades would be taken half-way.
        browser.show(*browser.size, prefers_color_scheme=scheme, prefers_reduced_motion="reduce")
        path = PICTURES / f"{name}-{scheme}.png"
        browser.screenshot(path)
        # A fifth of the bytes, and no eye sees it.
        Image.open(path).convert("RGB").quantize(64).save(path, optimize=True)


def take_dashboard(browser):
    """Take the pages of an application that has had an hour of traffic."""
    app, asok, gate = Flask("shop"), FlaskAsok(), threading.Event()
    app.config.from_mapping(SECRET_KEY="for pictures", ASOK_STORE="memory", ASOK_TRACKED=True)
    asok.init_app(app)
    app.register_blueprint(asok.dashboard(access=lambda: "write"), url_prefix="/tasks")
    ids = {}
    app.add_url_rule("/", "checkout", lambda: ids.setdefault("failed", fill(app, gate)))
    app.test_client().get("/")
    browser.size = 1000, 820
    with serving(app) as address:
        for name, page in {"overview": "", "tasks": "tasks", "task": f"tasks/{ids['failed']}"}.items():
            browser.go(f"{address}/tasks/{page}")
            take(browser, f"dashboard-{name}")
    gate.set()
    asok.close(app, 5)


def take_example(browser, folder):
    """Take the top of the example's page, once two of its cards have been tried both ways."""
    app = example_app.create_app({"EXAMPLE_FOLDER": folder, "ASOK_PERIODIC": "off"})
    browser.size = 1240, 1120
    browser.show(*browser.size, prefers_color_scheme="light")
    with serving(app) as address:
        browser.go(address)
        for card in ("order", "sign-up"):
            browser.ask(f"document.querySelector('#{card} [data-both]').click()")
            browser.wait(f"document.querySelector('#{card} .saved') != null")
        browser.wait("document.querySelector('#sign-up iframe') != null && !document.querySelector('[data-busy]')")
        browser.go(f"{address}/?look=1")
        take(browser, "example")
    example_app.close(app)


def main():
    """Write the pictures."""
    logging.disable(logging.ERROR)
    PICTURES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        browser = chromium.Browser(chromium.find_chromium(), f"{folder}/profile")
        browser.call("Emulation.setScrollbarsHidden", hidden=True)
        take_dashboard(browser)
        take_example(browser, f"{folder}/example")
        browser.close()


if __name__ == "__main__":
    main()
