"""The recipes of the cookbook: each is saved as a program, and does what its text says."""

import base64
import http.server
import importlib
import io
import json
import os
import re
import sqlite3
import subprocess
import sys
import threading
import time
from email import message_from_bytes
from pathlib import Path
from typing import ClassVar

import pytest

from flask_asok import FlaskAsok, Retry
from flask_asok.recipes.webhooks import signing
from flask_asok.rooms import SETTINGS

PAGE = Path(__file__).parents[2] / "docs/cookbook.md"
TIMEOUT = 40


@pytest.fixture
def recipe(blocks, monkeypatch, tmp_path, page):
    """Save the program of a section as its reader does, and return it as a module."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    names = iter(range(100))
    made = []

    def recipe(section):
        (block,) = (block for block in blocks(PAGE) if (block.language, block.section) == ("python", section))
        name = f"recipe_{os.getpid()}_{next(names)}"
        (tmp_path / f"{name}.py").write_text(block.text)
        # Flask looks for the application's folder here, and finds that of the test.
        made.append(importlib.import_module(name))
        return made[-1]

    opened = page("docs/cookbook.md")
    recipe.outcomes = opened.outcomes
    yield recipe
    for module in made:
        FlaskAsok().close(module.app, TIMEOUT)
        if "sqlalchemy" in module.app.extensions:
            with module.app.app_context():
                module.db.engine.dispose()
        del sys.modules[module.__name__]


def test_csv_import(recipe):
    """The rows of an uploaded file are in the database, and its page has shown how far it was."""
    shop = recipe("CSV import with progress")
    client = shop.app.test_client()
    rows = "code,name\r\n" + "".join(f"{number},Mug {number}\r\n" for number in range(1100))

    answer = client.post("/", data={"csv": (io.BytesIO(rows.encode("utf-8-sig")), "products.csv")})
    outcomes = recipe.outcomes()
    page = client.get(answer.location).text

    assert outcomes == [("import_products", "succeeded")]
    assert "<asok-progress" in page and "1100 products" in page
    with sqlite3.connect("products.db") as db:
        assert db.execute("SELECT count(*), max(name) FROM product").fetchone() == (1100, "Mug 999")
    db.close()
    assert os.listdir("uploads") == []


def test_export(recipe):
    """The file can be had by the visitor who asked for it, and by no other."""
    openpyxl = pytest.importorskip("openpyxl") if not os.environ.get("CI") else importlib.import_module("openpyxl")
    shop = recipe("Export with a download link")
    client, stranger = shop.app.test_client(), shop.app.test_client()

    form = client.get("/").text
    shown = client.post(re.search(r'action="(.+?)"', form)[1]).location
    outcomes = recipe.outcomes()
    page = client.get(shown).text
    address = re.search(r'href="(/exports/\w+/file)"', page)[1]
    with client.get(address) as answer:
        file = answer.get_data()
    with shop.app.app_context():
        shop.delete_old_exports()

    book = openpyxl.load_workbook(io.BytesIO(file), read_only=True)
    assert outcomes == [("write_export", "succeeded")]
    assert sum(1 for _ in book["Orders"].rows) == 10_001
    assert stranger.get(address).status_code == 404
    assert len(os.listdir("exports")) == 1


class Model(http.server.BaseHTTPRequestHandler):
    """Answer 429 once, then with a summary."""

    asked: ClassVar = []
    retry_after = "0.1"

    def do_POST(self):
        self.asked.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(429 if len(self.asked) == 1 else 200)
        self.send_header("Retry-After", self.retry_after)
        self.end_headers()
        self.wfile.write(json.dumps({"output": [{"content": [{"text": "Short."}]}]}).encode())

    def log_message(self, *args):
        """Say nothing."""


@pytest.fixture
def model(monkeypatch):
    """Serve the model, and let the recipe find it."""
    monkeypatch.setattr(Model, "asked", [])
    server = http.server.HTTPServer(("127.0.0.1", 0), Model)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    monkeypatch.setenv("MODEL_URL", f"http://127.0.0.1:{server.server_port}/")
    yield Model
    server.shutdown()
    thread.join(TIMEOUT)
    server.server_close()


def test_slow_api(recipe, model):
    """A service that is asked too often is asked again when it says, and its answer can be fetched by an id."""
    shop = recipe("Call a slow API")
    client = shop.app.test_client()

    id = client.post("/summaries", data={"text": "A long text"}).json["id"]
    recipe.outcomes()
    summary = client.get(f"/summaries/{id}").json
    shop.http.clear()

    assert summary == {"state": "succeeded", "summary": "Short."}
    assert [asked["input"] for asked in model.asked] == ["Summarize: A long text"] * 2


def test_slow_api_that_names_a_date(recipe, model, monkeypatch):
    """A service that says by a date when to come back is asked again as the backoff says."""
    monkeypatch.setattr(model, "retry_after", "Fri, 27 Nov 2026 09:00:00 GMT")
    shop = recipe("Call a slow API")

    with pytest.raises(Retry) as raised:
        shop.summarize("A long text")
    shop.http.clear()

    assert raised.value.after is None


def test_polling(recipe):
    """The plain page reloads itself until the task is settled, and htmx is told when to stop."""
    client = recipe("A page that polls, plain and with htmx").app.test_client()

    form = client.get("/").text
    plain = client.post("/").location
    fragment = client.post(re.search(r'formaction="(.+?)"', form)[1]).location
    recipe.outcomes()
    page = client.get(fragment).text
    styles = client.get(re.search(r'href="(.+?)"', page)[1])
    styles.close()
    bar = client.get(re.search(r'hx-get="(.+?)"', page)[1], headers={"HX-Request": "true"})

    assert "refresh" not in client.get(plain).text and "succeeded" in client.get(plain).text
    assert (styles.status_code, bar.status_code) == (200, 286)


def test_bulk_email(recipe, mailbox):
    """Every reader who wants news gets them, and nobody else."""
    with sqlite3.connect("readers.db") as db:
        db.execute("CREATE TABLE reader (email, wants_news)")
        db.executemany("INSERT INTO reader VALUES (?, ?)", [(f"r{n}@example.com", n != 3) for n in range(5)])
    db.close()
    app = recipe("Bulk email").app

    app.test_client().post("/newsletters")
    outcomes = recipe.outcomes()
    received = [mailbox.received.get(timeout=TIMEOUT) for _ in range(4)]

    assert sorted(envelope.rcpt_tos[0][1] for envelope in received) == ["0", "1", "2", "4"]
    assert {message_from_bytes(envelope.content)["Subject"] for envelope in received} == {"News"}
    assert [state for _, state in outcomes] == ["succeeded"] * 2


def test_receive_webhook(recipe, monkeypatch):
    """A webhook is answered and then processed, once though it comes twice; one of a stranger is refused."""
    secret = "whsec_" + base64.b64encode(bytes(32)).decode()
    monkeypatch.setenv("BILLING_WEBHOOK_SECRET", secret)
    shop = recipe("Receive a webhook and process it")
    client = shop.app.test_client()
    body = json.dumps({"data": {"total": 12}}).encode()
    now = int(time.time())
    headers = {
        "webhook-id": "evt_1",
        "webhook-timestamp": str(now),
        "webhook-signature": signing.sign(signing.keys([secret]), "evt_1", now, body),
    }

    answers = [client.post("/hooks/billing", data=body, headers=headers).status_code for _ in range(2)]
    forged = client.post("/hooks/billing", data=b"{}", headers=headers).status_code
    recipe.outcomes()

    assert (answers, forged) == ([204, 204], 401)
    assert shop.paid == {"evt_1": 12}


def test_search_index(recipe):
    """What was published can be found."""
    shop = recipe("Keep a search index up to date")
    client = shop.app.test_client()

    for title in ("Spring is here", "Summer is not"):
        client.post("/posts", data={"title": title})
    recipe.outcomes()

    assert client.get("/search?q=spring").json == ["Spring is here"]


# Sentry changes the whole process for good: it has one of its own, and sends nothing.
WITH_SENTRY = """
import json
import sentry_sdk
from sentry_sdk.transport import Transport

kinds = []

class Kept(Transport):
    def capture_envelope(self, envelope):
        events = [item.payload.json for item in envelope.items if item.type == "event"]
        kinds.extend(event["exception"]["values"][-1]["type"] for event in events)

init = sentry_sdk.init
sentry_sdk.init = lambda **options: init(**options, transport=Kept)

import reports
from flask_asok import FlaskAsok, Retry

reports.app.test_client().post("/reports")
FlaskAsok().close(reports.app, 40)
print(json.dumps(kinds))
"""


def test_sentry(blocks, tmp_path):
    """The task that failed is one event."""
    pytest.importorskip("sentry_sdk")
    (block,) = (block for block in blocks(PAGE) if (block.language, block.section) == ("python", "Sentry"))
    (tmp_path / "reports.py").write_text(block.text)
    env = {**os.environ, "SENTRY_DSN": "https://key@sentry.example/1", "PYTHONPATH": str(tmp_path)}

    done = subprocess.run([sys.executable, "-c", WITH_SENTRY], env=env, capture_output=True, text=True, timeout=TIMEOUT)

    assert done.stdout.strip() == '["ZeroDivisionError"]', done.stderr


def test_settings_of_containers():
    """The variables of the files for Docker, systemd and Kubernetes are settings that there are."""
    told = set(re.findall(r"FLASK_(ASOK_\w+)", PAGE.read_text()))

    assert told
    assert told <= {setting.name for setting in SETTINGS}
