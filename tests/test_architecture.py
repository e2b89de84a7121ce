"""`docs/architecture.md` is true: its files exist, and a real call goes through them in the order that it tells."""

import re
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest
from flask import Flask

import flask_asok
from flask_asok import FlaskAsok, Retry, background
from flask_asok.durable.sweeper import sweeper_of
from flask_asok.sharing import open_store

PACKAGE = Path(flask_asok.__file__).parent
PAGE = (Path(__file__).parent.parent / "docs" / "architecture.md").read_text()
TIMEOUT = 10

THREADS = "One call on threads"
DURABLE = "One durable call, and another process"
CELERY = "One call on Celery"


def files_of(title):
    """Return the files and folders that a section names, in its order."""
    section = PAGE.partition(f"## {title}\n")[2].partition("\n## ")[0]
    return re.findall(r"`([\w/]+(?:\.py|/))`", section)


def not_in_order(names, entered):
    """Return the names that are not found in `entered`, each after the one before."""
    rest = iter(entered)
    return [name for name in names if not any(file.startswith(name) for file in rest)]


@pytest.fixture
def entered():
    """The files of the package that are entered from now on, in any thread that is started."""
    files = []

    def note(frame, event, argument):
        if event == "call" and frame.f_code.co_filename.startswith(f"{PACKAGE}/"):
            files.append(Path(frame.f_code.co_filename).relative_to(PACKAGE).as_posix())

    threading.setprofile(note)
    sys.setprofile(note)
    yield files
    sys.setprofile(None)
    threading.setprofile(None)


@pytest.mark.parametrize("title", [THREADS, DURABLE, CELERY])
def test_files_are_there(title):
    """Each file and folder that a walk names is there."""
    names = files_of(title)

    assert len(names) >= 8
    assert [name for name in names if not (PACKAGE / name).exists()] == []


def test_tree():
    """Each file and folder of the tree is there."""
    tree = PAGE.partition("```text\nflask_asok/\n")[2].partition("```")[0]
    named = [re.findall(r"(?<=^  )\w+/|\w+\.py", line) for line in tree.splitlines()]
    names = [name for names in named for name in names]

    assert len(names) > 30
    missing = {name for name in names if not any(PACKAGE.rglob(name.rstrip("/")))}
    assert missing == set()


def test_call_on_threads(entered):
    """A call that is deferred, delayed and retried enters the files in the order in which the page names them."""
    app = Flask("shop")
    asok = FlaskAsok(app)
    tasks, attempts = [], []

    def work(note):
        attempts.append(note)
        if len(attempts) == 1:
            raise Retry(after=0.001)

    @app.get("/")
    def view():
        tasks.append(background.using(when="response", delay=0.001, retries=1)(work, note={"text": "Hello"}))
        return ""

    with app.test_client().get("/"):
        pass
    tasks[0].join(TIMEOUT)
    asok.close(app)

    assert tasks[0].state == "succeeded"
    assert not_in_order(files_of(THREADS), entered) == []


def test_durable_call(entered, tmp_path):
    """A durable call whose process ends is taken over by the next one, through the files that the page names."""
    asok = FlaskAsok()

    def process():
        app = Flask("shop")
        app.config.update(SECRET_KEY="a secret", ASOK_STORE=str(tmp_path / "store"), ASOK_TASK_MODULES=["textwrap"])
        asok.init_app(app)
        return app

    first, second = process(), process()
    with first.app_context():
        left = background.using(durable=True, delay=30)(textwrap.dedent, " text")
    asok.close(first, TIMEOUT)
    with second.app_context():
        open_store(second).now = lambda: time.time() + 60
        sweeper_of(second).look()
        asok.get(left.id).join(TIMEOUT)
    asok.close(second, TIMEOUT)

    assert left.goes_on
    assert not_in_order(files_of(DURABLE), entered) == []


def test_order_is_checked():
    """The test finds a file that is entered too early, or never."""
    assert not_in_order(["tasks.py", "context.py"], ["context.py", "tasks.py"]) == ["context.py"]
    assert not_in_order(["triggers/"], ["tasks.py"]) == ["triggers/"]
