"""The documentation: whoever types its code in gets what the page says."""

import ast
import builtins
import contextlib
import functools
import gc
import json
import logging
import re
import socket
import sqlite3
import string
import subprocess
import sys
import textwrap
import threading
import time
import tomllib
import urllib.request
import warnings
from datetime import UTC, datetime
from email import message_from_bytes
from http.client import HTTPException
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace

import flask_login
import flask_mail
import psycopg
import pytest
from flask import (
    Blueprint,
    Flask,
    g,
    render_template_string,
    request,
    session,
    url_for,
)
from flask_sqlalchemy import SQLAlchemy
from jinja2 import DictLoader
from PIL import Image
from ports import free_port
from werkzeug.datastructures import FileStorage

import flask_asok
from flask_asok import Cache, FlaskAsok, Mail, background, current_task, send_mail, send_webhook, task
from flask_asok.backends.postgres.process_worker import warn_of_pool
from flask_asok.durable.sweeper import sweeper_of
from flask_asok.durable.worker import run_worker
from flask_asok.periodic import Clock
from flask_asok.rooms import SETTINGS
from flask_asok.sharing import open_store
from flask_asok.state import state_of
from flask_asok.store import away as store_away
from flask_asok.store import file as store_file
from flask_asok.store.postgres.connections import reached
from flask_asok.testing import AsokTasks

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
TIMEOUT = 40


def names(path):
    return path.name


def dispose(app, db):
    """Close the connections of a database, in a context whose session has none."""
    with app.app_context():
        db.engine.dispose()


# Every page


@pytest.mark.parametrize("path", PAGES, ids=names)
def test_code_is_python(path, blocks):
    """Every block of Python on every page can at least be compiled, fragments (```py) too."""
    for block in blocks(path):
        if block.language in ("python", "py"):
            block.compiled()


BUILTINS = {*dir(builtins), "__name__"}


def names_in(tree):
    """Return the names that a block gives, and those that it asks for."""
    given, asked = set(), set()
    for node in ast.walk(tree):
        match node:
            case ast.Name(id=name, ctx=ast.Load()):
                asked.add(name)
            case ast.Name(id=name) | ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                given.add(name)
            case ast.ClassDef(name=name) | ast.arg(arg=name) | ast.ExceptHandler(name=str(name)):
                given.add(name)
            case ast.alias(name=name, asname=asname):
                given.add((asname or name).partition(".")[0])
    return given, asked


@pytest.mark.parametrize("path", PAGES, ids=names)
def test_names_are_defined_above(path, blocks):
    """Every name in a block of Python is defined in it, or in one above it on the page."""
    known, missing = set(BUILTINS), set()
    for block in blocks(path):
        if block.language in ("python", "py"):
            given, asked = names_in(ast.parse(textwrap.dedent(block.text)))
            known |= given
            if block.language == "python":
                missing |= asked - known

    assert missing == set()


@pytest.mark.parametrize("path", PAGES, ids=names)
def test_links_lead_somewhere(path):
    """Every relative link leads to a file that is there."""
    for target in re.findall(r"\]\(([^)#:]+?)(?:#[^)]*)?\)", path.read_text(encoding="utf-8")):
        assert (path.parent / target).exists(), target


def test_links_to_the_documentation():
    """The README is read elsewhere too: its links lead to the one address of the documentation, and to pages there."""
    urls = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["urls"]
    targets = re.findall(r"\]\(([^)]+)\)", (ROOT / "README.md").read_text(encoding="utf-8"))

    pages = [
        target.removeprefix(urls["Documentation"]) for target in targets if target.startswith(urls["Documentation"])
    ]
    files = [
        re.sub(r"^/(blob|raw)/main/", "", target.removeprefix(urls["Source"]))
        for target in targets
        if target.startswith(urls["Source"])
    ]

    assert len(pages) + len(files) == len(targets)
    assert len(pages) > 10
    for page in pages:
        assert (ROOT / "docs" / page).with_suffix(".md").exists(), page
    for file in files:
        assert (ROOT / file).exists(), file


def test_configuration_is_complete():
    """The configuration page lists every key that the code reads, since it is made from what the code declares."""
    read = {
        key
        for path in Path(flask_asok.__file__).parent.rglob("*.py")
        for key in re.findall(r'\["(ASOK_\w+)"\]', path.read_text())
    }

    assert "{settings}" in (ROOT / "docs/configuration.md").read_text()
    assert read <= {setting.name for setting in SETTINGS}
    assert all(setting.meaning.endswith((".", ")")) for setting in SETTINGS)


def test_commands():
    """A reader who copies the first commands of a page gets an environment, and the package from its repository."""
    source = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["urls"]["Source"]
    install = f"""\
$ python3 -m venv .venv && . .venv/bin/activate
$ python -m pip install "flask-asok @ git+{source}"""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")

    for name in ("README.md", "docs/installation.md", "docs/quickstart.md", "docs/tutorial.md"):
        assert install in (ROOT / name).read_text(encoding="utf-8"), name
    for check in ("example", "tests"):
        assert f"$ python -m pip install nox && python -m nox -s {check}\n" in readme


# Beginning


@pytest.mark.parametrize("name", ["README.md", "docs/index.md"])
def test_first_example(page, caplog, name):
    """The first example answers at once, and its task works with what the request brought."""
    opened = page(name)
    app = opened.run()["app"]

    response = app.test_client().post("/reports", data={"title": "Spring"})

    assert (response.status_code, response.text) == (202, "We are on it.")
    assert opened.outcomes() == [("heavy_task", "succeeded")]
    assert "Working for user 42 on Spring" in caplog.messages


def test_quickstart(page, capsys):
    """The quickstart: a task from a view, one from elsewhere, a failure in the log, a result."""
    opened = page("docs/quickstart.md")

    app = opened.run()["app"]
    answer = app.test_client().post("/reports", data={"title": "Spring"}).text

    assert answer == "We are on it."
    assert dict(opened.outcomes()) == {"write_report": "succeeded", "break_down": "failed", "count": "succeeded"}
    written = {path.name: path.read_text() for path in Path.cwd().glob("report-*.txt")}
    assert written == {"report-42.txt": "SPRING", "report-43.txt": "SUMMER", "report-44.txt": "AUTUMN"}
    assert capsys.readouterr().out == "5\n"


def test_quickstart_log_line(tmp_path):
    """Where no logging is configured, a failure is on stderr as the quickstart shows it."""
    text = (ROOT / "docs/quickstart.md").read_text(encoding="utf-8")
    source = "".join(re.findall(r"```python\n(.*?)```", text, re.DOTALL))

    output = subprocess.run([sys.executable, "-c", source], cwd=tmp_path, capture_output=True, text=True, timeout=60)

    shown = re.search(r"```text\n(.*?)\n(Traceback.*?)\n", text, re.DOTALL)
    line = re.escape(shown[1]).replace(re.escape("2026-04-04 14:32:01"), r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d")
    assert re.search(f"^{line}\n{re.escape(shown[2])}\n", output.stderr, re.MULTILINE), output.stderr


def test_when_not(page):
    """An order that was written down is shipped by its task, and by the command when no task did."""
    opened = page("docs/when-not.md")
    names = opened.run()
    app, db, order = names["app"], names["db"], names["Order"]
    with app.app_context():
        db.create_all()
        db.session.add(order())
        db.session.commit()

    response = app.test_client().post("/orders")
    outcomes = opened.outcomes()
    with app.app_context():
        shipped = list(db.session.scalars(db.select(order.shipped)))
    result = app.test_cli_runner().invoke(args=["ship-what-is-left"])
    with app.app_context():
        left = db.session.scalars(db.select(order).where(~order.shipped)).all()
    dispose(app, db)

    assert response.text == "Thank you!"
    assert outcomes == [("ship", "succeeded")]
    assert shipped == [False, True]
    assert result.exit_code == 0
    assert left == []


# Ready-made jobs


@pytest.fixture
def shop(page):
    """An application as the pages about jobs take it for granted: with a database, templates and a secret."""
    made = []

    def shop(**config):
        app = Flask("shop")
        app.config.from_mapping(SQLALCHEMY_DATABASE_URI="sqlite://", SECRET_KEY="a secret", **config)
        app.jinja_loader = DictLoader(TEMPLATES)
        FlaskAsok(app)
        db = SQLAlchemy(app)

        class Post(db.Model):
            id = db.Column(db.Integer, primary_key=True)
            title = db.Column(db.String)
            created = db.Column(db.Integer, default=0)

            def to_dict(self):
                return {"title": self.title}

        class User(db.Model):
            id = db.Column(db.Integer, primary_key=True)
            email = db.Column(db.String)

            def to_dict(self):
                return {"email": self.email}

        made.append((app, db))
        with app.app_context():
            db.create_all()
            db.session.add(User(id=7, email="ann@example.com"))
            db.session.commit()
        return {"app": app, "asok": FlaskAsok(), "db": db, "Post": Post, "User": User}

    yield shop
    for app, db in made:
        dispose(app, db)


TEMPLATES = {
    "index.html": "{% for post in posts %}{{ post.title }} {% endfor %}",
    "invoice.txt": "Invoice for {{ order }}",
    "welcome.txt": "Welcome!",
    "news.txt": "News for {{ user.email }}",
}


def test_cache(page, shop):
    """The page shows the posts from the cache, and a new post as soon as it is published."""
    names = shop()
    db, post = names["db"], names["Post"]

    def load_recent_posts():
        return [found.to_dict() for found in db.session.scalars(db.select(post))]

    opened = page("docs/cache.md")
    opened.run(**names, load_recent_posts=load_recent_posts)
    client = names["app"].test_client()

    before = client.get("/").text
    client.post("/posts", data={"title": "Spring"})
    outcomes = opened.outcomes()
    after = client.get("/").text
    with names["app"].app_context():
        again = opened.names["recent_posts"]()
        first = opened.names["post"](1)
        warmed = opened.names["asok"].warm_all()

    assert (before, after) == ("", "Spring ")
    assert outcomes == [("warm_cache", "succeeded")]
    assert again == [{"title": "Spring"}]
    assert first == {"title": "Spring"}
    assert warmed["recent_posts"] == [{"title": "Spring"}]


def test_webhooks(page, shop, internet, monkeypatch, capsys):
    """Every webhook of the page arrives, those with a secret signed, and the receiver on the page accepts them."""
    secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
    monkeypatch.setenv("BILLING_WEBHOOK_SECRET", secret)
    names = shop(ASOK_WEBHOOK_SECRETS={"billing": secret})
    url = "https://example.com/hooks/billing"
    opened = page("docs/webhooks.md")

    opened.run(**names)
    with names["app"].app_context():
        endpoint, invoice = SimpleNamespace(id=1, url=url), SimpleNamespace(id=42, total=12)
        opened.names["tell_of_payment"](endpoint, invoice, "t0ken")
    outcomes = opened.outcomes()

    assert outcomes == [("send_webhook", "succeeded")] * len(outcomes)
    assert len(outcomes) == 4
    assert {"disable", "keep", "replay"} <= opened.names.keys()


def test_images(page, shop):
    """The pictures are shrunk in place and elsewhere, and an upload is published in its sizes."""
    names = shop()
    Path("private").mkdir()
    Path("public").mkdir()
    Image.new("RGB", (2000, 1000), "teal").save("photo.jpg")
    opened = page("docs/images.md")

    opened.run(**names, private_folder="private", public_folder="public")
    opened.outcomes()
    upload = BytesIO()
    Image.new("RGB", (1600, 1200), "coral").save(upload, "JPEG")
    upload.seek(0)
    response = names["app"].test_client().post("/photos", data={"photo": (upload, "holiday.jpg")})
    refused = names["app"].test_client().post("/photos", data={"photo": (BytesIO(b"no picture"), "a.jpg")})

    assert (response.status_code, refused.status_code) == (202, 400)
    assert {state for _, state in opened.outcomes()} == {"succeeded"}
    with Image.open("photo.jpg") as picture:
        assert picture.width <= 800
    assert len(list(Path("private").iterdir())) == 1
    assert len([path for path in Path("public").iterdir() if path.name.endswith("-card.jpg")]) >= 2


def test_mail(page, shop, mailbox, monkeypatch):
    """Every mail of the page arrives as it says."""
    monkeypatch.setenv("SMTP_PASSWORD", "secret")
    names = shop()
    Path("invoice.pdf").write_bytes(b"%PDF-1.7")
    Path("map.png").write_bytes(b"PNG")
    user = SimpleNamespace(email="ann@example.com")
    opened = page("docs/mail.md")

    opened.run(**names, replace={"/srv/invoices/42.pdf": "invoice.pdf"})
    with names["app"].test_request_context():
        opened.names["welcome"](user)
        opened.names["send_news"]([user, user])

    outcomes = opened.outcomes()
    received = [mailbox.received.get(timeout=TIMEOUT) for _ in range(6)]
    assert {state for _, state in outcomes} == {"succeeded"}
    subjects = sorted(message_from_bytes(envelope.content)["Subject"] for envelope in received)
    assert subjects == ["Hello", "News", "News", "Party", "Welcome", "Your invoice"]


# How to


def test_options(page, capsys):
    """Every option does what its example says."""
    opened = page("docs/options.md")
    names = opened.run()
    states = [state for _, state in opened.outcomes()]
    dispose(names["app"], names["db"])

    assert capsys.readouterr().out.splitlines() == [
        (
            "write_report(year) cannot be called with these arguments: got an unexpected keyword argument 'retries'."
            " retries is an option: background.using(retries=3)(write_report, ...)."
        ),
        "429 Too Many Requests", "3", "waiting", "1", "No reports for 1492.", "fetched",
    ]  # fmt: skip
    assert states.count("failed") == 1
    assert set(states) == {"succeeded", "failed"}


def test_option_list(blocks):
    """The page names every option, and only these."""
    text = (ROOT / "docs/options.md").read_text(encoding="utf-8")
    listed = set(re.findall(r"^`(\w+)`\n: ", text, re.MULTILINE)) | {"prepare", "run"}

    with pytest.raises(TypeError) as raised:
        background.using(nonsense=1)

    assert listed == set(str(raised.value).partition("Options are: ")[2].rstrip(".").split(", "))


def test_tasks(page, capsys):
    """The Task and the list of recent ones are as shown."""
    page("docs/tasks.md").run()

    lines = capsys.readouterr().out.splitlines()
    comments = re.findall(r"  # (.+)", (ROOT / "docs/tasks.md").read_text(encoding="utf-8"))
    assert [line for line in lines if line in comments] == comments
    assert lines[-1] == "fail failed with LookupError('no such thing')"


def test_status(page, blocks):
    """The bar of the page is there, its task comes to an end, and the JSON is as the page says."""
    opened = page("docs/status.md")
    names = opened.run()
    client = names["app"].test_client()

    html = client.post("/import").text
    id = client.post("/exports").json["id"]
    answer = client.post("/reports")
    outcomes = opened.outcomes()
    made = client.get(answer.location).text
    told = client.get(f"/exports/{id}").json
    with names["app"].app_context():
        report = names["background"](names["make_report"], "March")
        report.result(TIMEOUT)

    assert "<asok-progress" in html and 'href="/rows"' in html
    assert outcomes == [("import_rows", "succeeded"), ("export", "succeeded"), ("make_report", "succeeded")]
    assert "Writing the file (succeeded)" in made and "refresh" not in made
    assert client.get("/reports/unknown").status_code == 404
    assert told == client.get(f"/status/{id}").json
    assert told["progress"]["fraction"] == 1.0 and report.progress.text == "Writing the file"
    (shape,) = (block for block in blocks(ROOT / "docs/status.md") if block.language == "json")
    assert json.loads(shape.text).keys() == told.keys()
    assert json.loads(shape.text)["progress"].keys() == told["progress"].keys()
    assert names["app"].test_client().get("/exports/unknown").status_code == 404


def test_dashboard(page):
    """The dashboard of the page is there for an administrator, and for no other visitor."""
    app = page("docs/dashboard.md").run()["app"]
    client = app.test_client()
    before = client.get("/tasks/").status_code
    with client.session_transaction() as visitor:
        visitor["role"] = "admin"

    assert (before, client.get("/tasks/").status_code) == (404, 200)


def test_testing(page):
    """The tests on the page about tests pass, in a folder with nothing but them."""
    page("docs/testing.md").run()
    # A reader's folder has no settings of ours, even where the temporary folder is below this project's.
    Path("pytest.ini").write_text("[pytest]\n")

    result = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "error"],
        capture_output=True, text=True, timeout=100,
    )  # fmt: skip

    assert result.returncode == 0, result.stdout
    written = "".join(path.read_text() for path in Path.cwd().glob("test_*.py"))
    assert f"{written.count('def test_')} passed" in result.stdout


SHOP = """
import threading
from flask import Flask
import flask_asok
from flask_asok import FlaskAsok, background

app = Flask(__name__)
FlaskAsok(app)

def work():
    print("began", flush=True)
    threading.Event().wait(0.5)
    print("ended", flush=True)

@app.get("/")
def index():
    background(work)
    return "Thank you!"
"""


@pytest.mark.parametrize(("file", "needed"), [("serve.py", "waitress"), ("serve_asgi.py", "uvicorn")])
def test_deployment(page, file, needed):
    """The settings of the deployment page are accepted, and its servers finish their tasks on SIGTERM."""
    pytest.importorskip(needed)
    asok_logger = logging.getLogger("asok")
    port = free_port()
    Path("shop.py").write_text(SHOP)

    try:
        page("docs/deployment.md").run(replace={"8080": str(port)})
        level = asok_logger.level
    finally:
        asok_logger.handlers.clear()
        asok_logger.setLevel(logging.NOTSET)
    server = subprocess.Popen([sys.executable, file], stdout=subprocess.PIPE, text=True)
    try:
        get_when_up(f"http://127.0.0.1:{port}/")
        while (line := server.stdout.readline()) and line != "began\n":
            pass
        server.terminate()
        output, _ = server.communicate(timeout=TIMEOUT)
    finally:
        server.kill()
        server.communicate()

    assert level == logging.INFO
    assert server.returncode == 0
    assert "ended" in output


def test_loggers():
    """The page names every logger that there is, and no other."""
    (told,) = re.findall(r"^Flask-Asok logs to (.+)\.$", (ROOT / "docs/deployment.md").read_text(), re.MULTILINE)
    code = "\n".join(path.read_text() for path in Path(flask_asok.__file__).parent.rglob("*.py"))

    assert set(re.findall(r"`(.+?)`", told)) == set(re.findall(r'(?i)\b(?:logger|name) ?= ?"(asok\.[a-z]+)"', code))


def get_when_up(url):
    """Ask a server that is just being started until it answers."""
    deadline = time.monotonic() + TIMEOUT
    while True:
        try:
            return urllib.request.urlopen(url, timeout=TIMEOUT).close()
        except (OSError, HTTPException):
            assert time.monotonic() < deadline
            time.sleep(0.05)


SHOP_WITH_A_CACHE = """
from flask import Flask
from flask_asok import FlaskAsok, cached

app = Flask(__name__)
app.config.update(SECRET_KEY="a secret", ASOK_STORE="memory")
asok = FlaskAsok(app)


@cached("recent_posts", ttl=300)
def recent_posts():
    print("loaded", flush=True)
"""

HOOKED = [path for path in PAGES if "def post_worker_init" in path.read_text(encoding="utf-8")]


@pytest.mark.parametrize("path", HOOKED, ids=names)
def test_hooks_of_gunicorn(path, blocks, monkeypatch, tmp_path):
    """A worker of gunicorn starts with the file that the page shows, and its hook warms the cache where it says so."""
    monkeypatch.chdir(tmp_path)
    (block,) = (block for block in blocks(path) if block.text.startswith("# gunicorn.conf.py\n"))
    Path("gunicorn.conf.py").write_text(block.text)
    Path("shop.py").write_text(SHOP_WITH_A_CACHE)
    script = "import runpy; runpy.run_path('gunicorn.conf.py')['post_worker_init'](None)"

    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=TIMEOUT)

    assert ended.returncode == 0, ended.stderr
    assert ended.stdout == ("loaded\n" if path.name == "cache.md" else "")


TROUBLESHOOTING = (ROOT / "docs/troubleshooting.md").read_text(encoding="utf-8")
HEADINGS = re.findall(r"^### `+ ?(.+?) ?`+$", TROUBLESHOOTING, re.MULTILINE)


def pattern(heading):
    """Return what matches the text that a heading quotes: `…` stands for an id, and any number for another one."""
    return re.sub(r"\d+", r"[\\d.]+", re.escape(heading)).replace("…", "[0-9a-f]{32}")


@contextlib.contextmanager
def mail_of(app, **config):
    """Let the mail of `app` go by other settings meanwhile."""
    before, app.extensions["mail"] = app.extensions["mail"], flask_mail.Mail().init_mail({**app.config, **config})
    yield
    app.extensions["mail"] = before


def say(listener, text, *, is_asked=False):
    """Answer one connection with a text, once it has said something itself where it `is_asked`."""
    listener.settimeout(TIMEOUT)
    sock, _ = listener.accept()
    # The other side may leave before it has heard all.
    with contextlib.suppress(ConnectionError), sock:
        if is_asked:
            sock.recv(65536)
        sock.sendall(text)


@pytest.fixture(scope="module")
def trouble(tmp_path_factory):
    """Make every mistake of the page; return what was raised, warned of or logged about it."""
    said = []
    handler = logging.Handler()
    handler.emit = lambda record: said.append(f"{record.getMessage()} {record.exc_info}")
    logger = logging.getLogger("asok.background")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    app, db = trouble_app("shop", MAIL_SERVER="127.0.0.1", MAIL_PORT=1)
    full, _ = trouble_app("full", ASOK_MAX_QUEUED=1, ASOK_MAX_WAITING=1, ASOK_QUEUES={"default": 1})
    gate = threading.Event()

    def work(*args):
        return args

    def hold(started):
        started.set()
        gate.wait(TIMEOUT)

    def occupy(name):
        started = threading.Event()
        task = background.using(name=name)(hold, started)
        assert started.wait(TIMEOUT)
        return task

    def said_by(fn, *args, **kwargs):
        try:
            fn(*args, **kwargs)
        except Exception as error:
            said.append(str(error))

    said_by(background, work)
    said_by(FlaskAsok, app)
    other = Flask("other")
    other.config["ASOK_BACKEND"] = "rq"
    said_by(FlaskAsok, other)
    misspelt = Flask("misspelt")
    misspelt.config["ASOK_QUEUS"] = {}
    said_by(FlaskAsok, misspelt)
    said_by(FlaskAsok, Blueprint("orders", "shop"))
    with Flask("shop").app_context():
        said_by(background, work)
    with app.test_request_context():
        said_by(background, work())
        said_by(background, None)
        for proxy in (request, session, g):
            said_by(background, work, proxy)
        said_by(background, work, FileStorage(BytesIO(b"..."), "photo.jpg"))
        said_by(background.using(queue="reports"), work)
        said_by(background, send, 1, retries=3)
        said_by(background, export, [1])
        background(functools.partial(export, [1])).join(TIMEOUT)
        said_by(lambda: send.delay(1))
        said_by(lambda: FlaskAsok().task)
        login = flask_login.LoginManager(app)
        login.user_loader(lambda user_id: None)
        background(lambda: flask_login.current_user.email).join(TIMEOUT)
        closed = BytesIO()
        closed.close()
        background(closed.read).join(TIMEOUT)
        connection = sqlite3.connect(":memory:")
        background(connection.execute, "SELECT 1").join(TIMEOUT)
        connection.close()
        said_by(lambda: background.using(retry=3))
        said_by(Mail.send, to="user@example.com", subject="Hello", body="World")
        held = background.using(when="response")(work)
        said_by(held.join)
        said_by(background.using(delay=60, name="work")(work).result, 0)
        tasks = AsokTasks(app)
        tasks.capture()
        said_by(background(work).join)
        tasks.close()
        said_by(background(work).__await__)
        background(lambda: request.path).join(TIMEOUT)
        background.using(name="work")(lambda: current_task().join()).join(TIMEOUT)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            user = db.User()
            db.session.add(user)
            background(work, user).join(TIMEOUT)
            Cache().set("user", user)
            background(work, flask_login.current_user).join(TIMEOUT)
            login.request_loader(lambda request: flask_login.UserMixin())
            g.pop("_login_user")
            background(work, flask_login.current_user).join(TIMEOUT)
        said.extend(str(warning.message) for warning in caught)
    said_by(break_off, app, work)
    far, _ = trouble_app(
        "far", ASOK_BACKEND="celery", ASOK_CELERY={"broker_url": "redis://127.0.0.1:1"}, ASOK_TASK_MODULES=["textwrap"]
    )
    with far.app_context():
        for argument in (object(), "x" * 9_000_000, "a"):
            said_by(background.using(name="work"), textwrap.dedent, argument)
        said_by(background, lambda: None)
        said_by(background, string.capwords, "a")
    far.extensions["asok"].close(1)
    with app.app_context():
        for end in (db.session.rollback, forget_session(db)):
            db.session.begin()
            held = background.using(when="commit")(work)
            end()
            held.join(TIMEOUT)
        background(lambda: url_for("static", filename="a")).join(TIMEOUT)
        with pytest.MonkeyPatch.context() as patch:
            patch.setitem(sys.modules, "asgiref.sync", None)
            background(asynchronous).join(TIMEOUT)
        said_by(send_webhook, "http://127.0.0.1:1/", {})
        said_by(send_mail, to="user@example.com", sender="shop@example.com")
        said_by(send_mail, to="abc", sender="shop@example.com")
        said_by(send_mail, to="user@faß.example", sender="shop@example.com")
        with socket.create_server(("127.0.0.1", 0)) as listener, mail_of(app, MAIL_PORT=listener.getsockname()[1]):
            talker = threading.Thread(target=say, args=(listener, b"SSH-2.0-OpenSSH_9.6\r\n"))
            talker.start()
            said_by(send_mail, to="user@example.com", sender="shop@example.com")
            talker.join(TIMEOUT)
        with mail_of(app, MAIL_SERVER=None):
            said_by(send_mail, to="user@example.com", sender="shop@example.com")
        background.using(name="work", timeout=0.01)(late, said).join(TIMEOUT)
        waiting = background.using(delay=60)(work)
        running = occupy("work")
    full.extensions.pop("sqlalchemy")
    with full.app_context():
        said_by(background.using(when="commit"), work)
        background.using(delay=60)(work)
        said_by(background.using(delay=60), work)
        occupy("hold")
        for _ in range(3):
            background(work)
    webhook_trouble(said_by)
    cache_trouble(said_by)
    store_trouble(said_by, tmp_path_factory.mktemp("stores"))
    result_trouble(said_by, tmp_path_factory.mktemp("results"))
    durable_trouble(said_by, tmp_path_factory.mktemp("durable"))
    periodic_trouble(said_by, tmp_path_factory.mktemp("periodic"))
    postgres_trouble(said_by)
    FlaskAsok().close(app, 0.01)
    said_by(waiting.result)
    said_by(running.result)
    gate.set()
    FlaskAsok().close(full, TIMEOUT)
    dispose(app, db)
    logger.removeHandler(handler)
    logger.setLevel(logging.NOTSET)
    return said


def webhook_trouble(said_by):
    """Deliver to receivers of this machine that are none, or are busy."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        at = f"127.0.0.1:{listener.getsockname()[1]}"
        direct, proxied = Flask("direct"), Flask("proxied")
        direct.config.update(ASOK_WEBHOOK_ALLOW=["127.0.0.1"])
        proxied.config.update(ASOK_WEBHOOK_PROXY=f"http://me:secret@{at}")
        for app, url, answer in (
            (direct, f"http://{at}/", b"HTTP/1.1 502 Bad Gateway\r\n\r\n"),
            (direct, f"https://{at}/", b"HTTP/1.1 400 Bad Request\r\n\r\n"),
            (proxied, "https://hooks.example/", b"HTTP/1.1 407 No\r\n\r\n"),
        ):
            if "asok" not in app.extensions:
                FlaskAsok(app)
            talker = threading.Thread(target=say, args=(listener, answer), kwargs={"is_asked": True})
            talker.start()
            with app.app_context():
                said_by(send_webhook, url, {})
            talker.join(TIMEOUT)
        with direct.app_context():
            held = background.using(retries=0)(send_webhook, f"http://{at}/", {})
            sock, _ = listener.accept()
            said_by(send_webhook, f"http://{at}/", {}, timeout=0.01)
            sock.close()
            held.join(TIMEOUT)
        for app in (direct, proxied):
            FlaskAsok().close(app, TIMEOUT)


def cache_trouble(said_by):
    """Cache a form, and delete a value while Redis is down."""
    app = Flask("cached")
    app.config["CACHE_REDIS_URL"] = "redis://127.0.0.1:1"
    FlaskAsok(app)
    with app.test_request_context("/", method="POST", data={"word": "spring"}):
        said_by(Cache().set, "search", request.form)
        said_by(Cache().delete, "posts")
    FlaskAsok().close(app, TIMEOUT)


def tracking_app(path, name="shop", **config):
    app = Flask(name)
    app.config.update(ASOK_STORE=str(path), **config)
    FlaskAsok(app)
    return app


def store_trouble(said_by, folder):
    """Track tasks in stores that cannot be made, are not ours, are damaged, or are away."""
    work = background.using(tracked=True, unique="work", name="work")
    apps = []

    def call(path, name="shop"):
        apps.append(tracking_app(path, name))
        with apps[-1].app_context():
            said_by(work, send, 1)
        return apps[-1]

    (folder / "file").touch()
    call(folder / "file" / "shop" / "asok.sqlite3")
    said_by(write_read_only, folder / "own.sqlite3")
    (folder / "link.sqlite3").symlink_to(folder / "file")
    call(folder / "link.sqlite3")
    for path, kind in ((folder / "far", "nfs"), (folder / "near", "overlay")):
        (folder / "mountinfo").write_text(f"1 1 0:1 / {path} rw - {kind} none rw\n")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(store_file, "MOUNTS", folder / "mountinfo")
            call(path / "asok.sqlite3")
    call(folder / "one.sqlite3", "one")
    call(folder / "one.sqlite3", "two")
    change(folder / "other.sqlite3", "CREATE TABLE users (id)")
    call(folder / "other.sqlite3")
    FlaskAsok().close(call(folder / "later.sqlite3"), TIMEOUT)
    change(folder / "later.sqlite3", "UPDATE about SET value = '99' WHERE name = 'readable'")
    call(folder / "later.sqlite3")
    damaged = folder / "damaged.sqlite3"
    damaged.write_bytes(b"no database at all" * 500)
    hold = "import sys; from flask_asok.store import lifeline; lifeline.begin(sys.argv[1]); print(); sys.stdin.read()"
    other = subprocess.Popen([sys.executable, "-c", hold, str(damaged)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    other.stdout.readline()
    call(damaged)
    other.communicate(timeout=TIMEOUT)
    away = call("redis://127.0.0.1:1")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "redis", None)
        call("redis://127.0.0.1:1")
    with away.app_context():
        background.using(tracked=True, name="work")(send, 1).join(TIMEOUT)
    began, gate = threading.Event(), threading.Event()

    def hold():
        began.set()
        gate.wait(TIMEOUT)

    emptied = tracking_app(folder / "emptied.sqlite3")
    with emptied.app_context():
        held = background.using(tracked=True, name="work")(hold)
        assert began.wait(TIMEOUT)
        change(folder / "emptied.sqlite3", "DROP TABLE task")
        said_by(FlaskAsok().get, held.id)
        with pytest.MonkeyPatch.context() as patch:
            # Another test may have had the warning of this minute.
            patch.setattr(store_away, "WARN_SECONDS", 0.0)
            gate.set()
            held.join(TIMEOUT)
    for app in (*apps, emptied):
        FlaskAsok().close(app, TIMEOUT)


def write_read_only(path):
    """Write to a file that SQLite may only read; root, as whom tests may run, has no such files."""
    path.touch()
    with contextlib.closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as database:
        try:
            database.execute("CREATE TABLE task (id)")
        except sqlite3.Error as error:
            raise store_file.unavailable(str(path), error) from None


def change(path, statement):
    with contextlib.closing(sqlite3.connect(path, timeout=TIMEOUT)) as database, database:
        database.execute(statement)


def result_trouble(said_by, folder):
    """Ask for results that were not kept, and show a bar without its view."""
    bare, other = tracking_app(folder / "asok.sqlite3"), tracking_app(folder / "asok.sqlite3", SECRET_KEY="another")
    keyed = tracking_app(folder / "asok.sqlite3", SECRET_KEY="a secret")
    work = background.using(name="work")

    def ask(started_by, asked, **options):
        with started_by.app_context():
            task = work.using(**options)(send, 1)
            task.join(TIMEOUT)
            id = task.id
        del task
        gc.collect()
        with asked.app_context():
            said_by(lambda: FlaskAsok().get(id).result())

    ask(bare, bare)
    ask(bare, bare, tracked=True)
    ask(keyed, other, tracked=True)
    with bare.test_request_context():
        said_by(render_template_string, "{{ asok_progress('0' * 32) }}")
    said_by(bare.register_blueprint, FlaskAsok().status(cancel=True))
    for app in (bare, other, keyed):
        FlaskAsok().close(app, TIMEOUT)


def durable_trouble(said_by, folder):
    """Leave tasks that no process can or may run, and write down what cannot be written down."""
    path, now, shared_by_machines = folder / "asok.sqlite3", time.time(), object()
    keys = {"SECRET_KEY": "a secret", "ASOK_TASK_MODULES": ["textwrap"]}
    durable = background.using(durable=True, delay=600, name="work")
    first, second = tracking_app(path, **keys), tracking_app(path, **keys)
    with first.app_context():
        left = [durable(textwrap.dedent, " text").id for _ in range(3)]
        waits = durable(textwrap.dedent, " text")
        secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
        said_by(background.using(durable=True), send_webhook, "https://hooks.example/", {}, secret=secret)
    FlaskAsok().close(first, TIMEOUT)
    said_by(waits.result, TIMEOUT)
    change(path, f"UPDATE task SET state = 'running', deaths = 2 WHERE id = '{left[0]}'")
    change(path, f"UPDATE task SET message = 'forged' WHERE id = '{left[1]}'")
    with second.app_context():
        open_store(second).now = lambda: now + 601
        sweeper = sweeper_of(second)
        for seconds in (0.0, 601.0):
            sweeper.now = lambda seconds=seconds: seconds
            sweeper.look()
    others = [tracking_app(path, **{**keys, "SECRET_KEY": key}) for key in ("another", None, "a secret")]
    for app in others:
        with app.app_context(), pytest.MonkeyPatch.context() as patch:
            if app is others[2]:
                # A Redis would have to run here.
                patch.setattr("flask_asok.durable.home.open_store", lambda app: shared_by_machines)
            said_by(durable, textwrap.dedent, " text")
    said_by(run_worker, tracking_app("memory", **keys), (), ())
    released = tracking_app(folder / "released.sqlite3", **keys)
    at_the_end = background.using(durable=True, when="response", name="work")
    released.add_url_rule("/", view_func=lambda: at_the_end(textwrap.dedent, " text").id)
    response = released.test_client().get("/")
    change(folder / "released.sqlite3", "DROP TABLE task")
    response.close()
    with released.app_context():
        sweeper_of(released).start()
        deadline = time.monotonic() + TIMEOUT
        while sweeper_of(released)._warned_at < 0 and time.monotonic() < deadline:
            time.sleep(0.01)
    for app in (second, released, *others):
        FlaskAsok().close(app, TIMEOUT)


def periodic_trouble(said_by, folder):
    """Make mistakes in schedules, come late, and start what cannot be started."""
    began, gate = threading.Event(), threading.Event()

    def hold():
        began.set()
        gate.wait(TIMEOUT)

    asok = FlaskAsok()
    nightly = asok.periodic(every=3600, name="nightly")
    nightly(hold)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "cronsim", None)
        said_by(asok.periodic(cron="@daily"), asynchronous)
    said_by(nightly, asynchronous)
    said_by(asok.periodic(cron="@daily", tz="Europe/Berlim"), asynchronous)
    asok.periodic(every=3600, name="hourly")(task(prepare=list)(lambda: None))
    apps = []
    for path in (folder / "asok.sqlite3", folder):
        app = Flask("shop")
        app.config["ASOK_STORE"] = str(path)
        asok.init_app(app)
        clock = state_of(app).kept(Clock)
        for time_of_day in (1, 3600 + 601, 2 * 3600, 3 * 3600):
            clock.now = lambda time_of_day=time_of_day: 1_795_651_200.0 + time_of_day
            clock.look(app)
            if time_of_day == 2 * 3600 and path != folder:
                assert began.wait(TIMEOUT)
        apps.append(app)
    gate.set()
    for app in apps:
        FlaskAsok().close(app, TIMEOUT)


def postgres_trouble(said_by):
    """Choose PostgreSQL and name none, one that is away, one without tables, a store beside it, and a small pool."""
    apps = [Flask("shop") for _ in range(3)]
    for app, config in zip(
        apps, ({"ASOK_STORE": "memory"}, {}, {"ASOK_POSTGRES_URL": "postgresql://127.0.0.1:1/shop"}), strict=True
    ):
        app.config.update(SECRET_KEY="a secret", ASOK_BACKEND="postgres", ASOK_TASK_MODULES=["textwrap"], **config)
        said_by(FlaskAsok, app)
    for app in apps[1:]:
        with app.app_context():
            said_by(background, textwrap.dedent, "a")
        FlaskAsok().close(app, TIMEOUT)

    def ask_a_bare_database():
        # A server would have to run here; this is what it says.
        with reached():
            raise psycopg.errors.UndefinedTable

    said_by(ask_a_bare_database)
    app = Flask("shop")
    app.config.update(ASOK_BACKEND="postgres", SQLALCHEMY_DATABASE_URI="postgresql+psycopg://127.0.0.1:1/shop")
    SQLAlchemy(app)
    FlaskAsok(app)
    said_by(warn_of_pool, app.extensions["asok"].backend.hub, 20)


def trouble_app(name, **config):
    app = Flask(name)
    app.config.from_mapping(SQLALCHEMY_DATABASE_URI="sqlite://", SECRET_KEY="a secret", **config)
    FlaskAsok(app)
    db = SQLAlchemy(app)

    class User(db.Model):
        id = db.Column(db.Integer, primary_key=True)

    db.User = User
    return app, db


def break_off(app, work):
    """End a request with an error that nothing handles."""
    with app.test_request_context():
        background.using(when="response")(work)
        raise ValueError


def forget_session(db):
    """Return what lets go of the current session and does not close it."""

    def forget():
        db.session.registry.clear()
        gc.collect()

    return forget


async def asynchronous():
    """Do nothing."""


def send(user_id):
    """Do nothing."""


def export(rows):
    """Do nothing, and that late."""
    yield from rows


def late(said):
    """Go on until the log says that this takes too long."""
    deadline = time.monotonic() + TIMEOUT
    while not any("past its timeout" in text for text in said) and time.monotonic() < deadline:
        threading.Event().wait(0.001)


@pytest.mark.parametrize("heading", HEADINGS)
def test_troubleshooting(trouble, heading):
    """Each error is listed under the very text that whoever makes the mistake gets to see."""
    texts = re.split(r" ?`+, `+ ?", heading)

    # More than one where Flask, or Python, says it in other words from some version on.
    assert any(re.search(pattern(text), said) for text in texts for said in trouble), "\n".join(trouble)


def test_troubleshooting_groups():
    """The errors stand in groups, and each of them is tested."""
    groups = re.findall(r"^## (.+)$", TROUBLESHOOTING, re.MULTILINE)

    assert len(groups) > 10
    assert not [group for group in groups if "`" in group]


def test_troubleshooting_code(page):
    """The way out of the first error works."""
    opened = page("docs/troubleshooting.md")

    opened.run()

    assert opened.outcomes() == [("work", "succeeded")]


def test_periodic(page, capsys):
    """The periodic tasks of the page are made, listed and run, by hand and by the clock; a skipped tick is told."""
    opened = page("docs/periodic.md")
    names = opened.run()
    app = names["app"]
    clock = state_of(app).kept(Clock)
    # It was imported by the file beside it, as on the page.
    (nightly,) = (entry for entry in clock.entries if entry.name.endswith("nightly"))
    midnight = datetime(2026, 11, 26, tzinfo=UTC).timestamp()
    for hours in (0.5, 2.5, 26.001):
        clock.now = lambda hours=hours: midnight + hours * 3600
        clock.look(app)

    schedule = app.test_client().get("/schedule").json
    outcomes = opened.outcomes()

    found = [one["name"].rpartition(".")[2] for one in schedule]
    assert found == ["poll_inbox", "nightly", "stock of berlin", "stock of paris"]
    assert ("nightly", "succeeded") in outcomes
    assert f"{nightly.name} skipped 2026-11-26 02:00:00+00:00: late" in capsys.readouterr().out


def test_files_of_periodic(page):
    """The module that the factory imports brings its periodic task along, and gunicorn's hook starts the clock."""
    page("docs/periodic.md").run()
    script = (
        "import runpy, shop, threading; shop.app.config['ASOK_STORE'] = 'memory'\n"
        "runpy.run_path('gunicorn.conf.py')['post_worker_init'](None)\n"
        "with shop.app.app_context(): print([one.name for one in shop.asok.periodic_tasks()])\n"
        "print(any(thread.name == 'asok-clock' for thread in threading.enumerate()))"
    )

    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)

    assert ended.stdout.splitlines() == ["['reports.weigh_the_stock']", "True"], ended.stderr


# Coming from


def test_from_asok(page, internet, mailbox):
    """Every example of Asok's page works in its Flask form."""
    opened = page("docs/from-asok.md", data={"title": "A report"})
    Image.new("RGB", (2000, 1000), "teal").save("photo.jpg")

    names = opened.run()
    answer = names["app"].test_client().post("/reports", data={"title": "Spring"}).text
    outcomes = opened.outcomes()
    with names["app"].app_context():
        cached = names["cache"].get("recent_posts")

    assert set(outcomes) == {
        (name, "succeeded")
        for name in ("heavy_task", "send_webhook", "resize_image", "warm_cache", "my_own_warm_cache", "send_mail")
    }
    assert answer == "We are on it."
    for _ in range(2):
        line, host, body = internet.received.get(timeout=TIMEOUT)
        assert (line, host) == ("POST /... HTTP/1.1", "hooks.slack.com")
        assert json.loads(body) == {"text": "New signup!"}
    with Image.open("photo.jpg") as picture:
        assert picture.size == (800, 400)
    assert cached == [{"title": "Spring"}, {"title": "Summer"}]
    for _ in range(2):
        envelope = mailbox.received.get(timeout=TIMEOUT)
        message = message_from_bytes(envelope.content)
        assert (envelope.rcpt_tos, message["Subject"]) == (["user@example.com"], "Hello")


def test_from_apscheduler(page):
    """The jobs run as before, by their names."""
    app = page("docs/from-apscheduler.md").run()["app"]

    with app.app_context():
        found = {one.name: one.schedule for one in FlaskAsok.periodic_tasks(FlaskAsok())}
    answers = [app.test_cli_runner().invoke(args=["asok", "periodic", "run", name]).output for name in found]

    assert found == {"poll_inbox": "every 300 s", "nightly": "0 3 * * MON-FRI"}
    assert all(answer.endswith(" succeeded\n") for answer in answers)


def test_from_threads(page):
    """The view that started a thread works as before."""
    app = page("docs/from-threads.md").run()["app"]

    assert app.test_client().post("/reports").text == "docs_page reports to 42"


def test_from_flask_executor(page):
    """The view that used an executor works as before."""
    app = page("docs/from-flask-executor.md").run()["app"]

    assert app.test_client().get("/fib").text == "55"


# Understanding


def test_context(page):
    """A task sees what the page says, has its own connection, and builds links for its caller's host."""
    app = page("docs/context.md").run()["app"]
    app.secret_key = "a secret"
    client = app.test_client()

    welcome = client.post("/sign-up", data={"name": "Ann"}, base_url="https://shop.example").text

    assert welcome == "Hello Ann, docs_page wants you to confirm: https://shop.example/confirm/abc"
    assert [client.get("/visits").text for _ in range(2)] == ["1", "2"]
    assert client.post("/pay").text == "Receipt for user 42"
    prices = [client.get("/price", headers={"Accept-Language": language}).text for language in ("de", "en")]
    assert prices == ["1.234,5", "1,234.5"]


def test_configuration(page, monkeypatch):
    """Settings come from the configuration and from the environment."""
    monkeypatch.setenv("FLASK_ASOK_MAX_QUEUED", "77")

    app = page("docs/configuration.md").run()["app"]

    config = app.extensions["asok"].config
    assert (config["ASOK_MAX_QUEUED"], config["ASOK_SHUTDOWN_TIMEOUT"]) == (77, 20.0)
    assert config["ASOK_QUEUES"]["reports"] == 2
