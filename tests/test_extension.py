"""FlaskAsok: setting applications up, their configuration, recent tasks, backends of other packages."""

import os
import re
import textwrap
import threading

import pytest
from flask import Blueprint, Flask, current_app
from werkzeug.local import LocalProxy

from flask_asok import FlaskAsok, NotConfigured, Task, background
from flask_asok.state import AppState

WAIT = 10


def state_of(app):
    return app.extensions["asok"]


# Setting up


def test_direct():
    """`FlaskAsok(app)` sets the app up."""
    app = Flask("shop")
    FlaskAsok(app)

    with app.app_context():
        assert background(int).result(WAIT) == 0
    FlaskAsok().close(app)


def test_factory():
    """`init_app` sets up any number of apps, each with its own state; the extension itself keeps no app."""
    asok = FlaskAsok()
    apps = [Flask("shop"), Flask("blog")]
    for app in apps:
        asok.init_app(app)

    results = []
    for app in apps:
        with app.app_context():
            results.append(asok.background(int).result(WAIT))
            results.append(len(asok.tasks()))
        asok.close(app)

    assert results == [0, 1, 0, 1]
    assert list(vars(asok)) == ["_entries"]
    assert state_of(apps[0]) is not state_of(apps[1])


def test_twice():
    """Setting one app up twice is an error that says so."""
    app = Flask("shop")
    FlaskAsok(app)

    with pytest.raises(RuntimeError, match=r"set up on the app 'shop' already\. Call init_app\(app\) once\."):
        FlaskAsok().init_app(app)


def test_starts_nothing():
    """Setting an app up starts no thread."""
    before = set(threading.enumerate())

    FlaskAsok(Flask("shop"))

    # Those of other tests may end meanwhile.
    assert set(threading.enumerate()) <= before


@pytest.mark.parametrize("ask", [lambda asok: asok.tasks(), lambda asok: asok.get("1")])
def test_no_such_app(ask):
    """Asking for the tasks of an app that is not set up says what to call."""
    with Flask("bare").app_context(), pytest.raises(NotConfigured, match=r"Call FlaskAsok\(app\) or init_app\(app\)"):
        ask(FlaskAsok())


@pytest.mark.parametrize(("key", "value"), [("ASOK_SHUTDOWN_TIMEOUT", 10**400), ("ASOK_RECENT_TASKS", 10**30)])
def test_numbers_beyond_all_bounds(make_app, key, value):
    """A number that is too large for the machine is refused by the name of its key."""
    with pytest.raises(ValueError, match=f"{key} must be"):
        make_app(**{key: value})


def test_close_of_no_such_app():
    """So does closing it."""
    with pytest.raises(NotConfigured, match="not set up on the app 'bare'"):
        FlaskAsok().close(Flask("bare"))


# Configuration


def test_defaults():
    """The defaults are in the app's configuration, where an application can look them up."""
    app = Flask("shop")
    FlaskAsok(app)

    assert app.config["ASOK_BACKEND"] == "threads"
    assert app.config["ASOK_MAX_QUEUED"] == 10_000
    assert state_of(app).config["ASOK_QUEUES"] == {"default": 8, "webhooks": 16, "images": 2, "mail": 2, "cache": 4}
    assert state_of(app).config["ASOK_SHUTDOWN_TIMEOUT"] == 8.0


def test_shorter_shutdown_under_the_reloader(monkeypatch):
    """Under the development server's reloader a shutdown takes a second at most."""
    monkeypatch.setenv("WERKZEUG_RUN_MAIN", "true")
    app = Flask("shop")
    FlaskAsok(app)

    assert state_of(app).config["ASOK_SHUTDOWN_TIMEOUT"] == 1.0


def test_own_queues(make_app, backend):
    """`ASOK_QUEUES` adds queues and resizes the ones there are."""
    app = make_app(ASOK_QUEUES={"reports": 1, "mail": 5}, **backend)

    with app.app_context():
        report = background.using(queue="reports")(int)

    assert report.result(WAIT) == 0
    assert state_of(app).backend.queues == {
        "default": 8,
        "webhooks": 16,
        "images": 2,
        "mail": 5,
        "cache": 4,
        "reports": 1,
    }


def test_read_once(make_app):
    """The configuration is read in `init_app`; what changes later is not seen."""
    app = make_app()
    app.config["ASOK_QUEUES"] = {"reports": 1}

    with app.app_context(), pytest.raises(ValueError, match="Unknown queue 'reports'"):
        background.using(queue="reports")(int)


def test_set_too_late(caplog):
    """A key that is set after `init_app` is named in the log, by the first request and by each command."""
    app = Flask("shop")
    app.config["ASOK_QUEUES"] = {"mail": 1}
    FlaskAsok(app)
    app.config.update(ASOK_STORE="tasks.sqlite3", ASOK_BAKEND="celery", ASOK_QUEUES={"mail": 1}, ASOK_TRACKED=False)
    text = (
        "ASOK_STORE, ASOK_BAKEND were set after Flask-Asok had read the configuration, and changed nothing. "
        "Set keys before FlaskAsok(app), or init_app(app)."
    )

    for _ in range(2):
        app.test_client().get("/")
    assert caplog.messages == [text]
    assert app.test_cli_runner().invoke(args=["asok", "status"]).exit_code == 0
    assert caplog.messages == [text, text]


def test_changed_in_place(caplog):
    """So is one whose value is changed in place, at any depth; an application that is set up later has its own."""
    app, later = Flask("shop"), Flask("later")
    app.config["ASOK_CELERY"] = {"broker_transport_options": {"a": 1}}
    FlaskAsok(app)
    app.config["ASOK_QUEUES"]["reports"] = 3
    app.config["ASOK_CELERY"]["broker_transport_options"]["a"] = 2
    FlaskAsok(later)

    for each in (app, later):
        each.test_client().get("/")

    (told,) = caplog.messages
    assert set(re.findall("ASOK_[A-Z]+", told)) == {"ASOK_QUEUES", "ASOK_CELERY"}
    assert "reports" not in state_of(later).backend.queues


def test_set_in_time(make_app, caplog):
    """What `init_app` has read, and the defaults that it has set, are not told of."""
    app = make_app(TESTING=False, ASOK_QUEUES={"mail": 1}, ASOK_STORE="memory")

    app.test_client().get("/")
    app.test_cli_runner().invoke(args=["asok", "status"])

    assert "configuration" not in caplog.text


def test_environment(monkeypatch):
    """`FLASK_ASOK_...` variables work through Flask's own `from_prefixed_env()`."""
    monkeypatch.setenv("FLASK_ASOK_BACKEND", "immediate")
    monkeypatch.setenv("FLASK_ASOK_QUEUES", '{"reports": 3}')
    monkeypatch.setenv("FLASK_ASOK_SHUTDOWN_TIMEOUT", "2")
    app = Flask("shop")
    app.config.from_prefixed_env()
    FlaskAsok(app)

    state = state_of(app)
    assert state.backend.name == "immediate"
    assert state.backend.queues["reports"] == 3
    assert state.config["ASOK_SHUTDOWN_TIMEOUT"] == 2.0


@pytest.mark.parametrize(
    ("key", "value", "error", "text"),
    [
        (
            "ASOK_BACKEND",
            "thread",
            ValueError,
            r"'thread'; it must be one of \"threads\", \"immediate\"",
        ),
        ("ASOK_BACKEND", None, ValueError, "ASOK_BACKEND is None; it must be one of"),
        ("ASOK_QUEUES", ["mail"], TypeError, "ASOK_QUEUES must not be of type list"),
        ("ASOK_QUEUES", {"mail": 0}, ValueError, "numbers of threads, 1 or more; 'mail': 0 does not"),
        ("ASOK_QUEUES", {"mail": True}, ValueError, "numbers of threads, 1 or more; 'mail': True does not"),
        ("ASOK_QUEUES", {"mail": "2"}, ValueError, "numbers of threads, 1 or more; 'mail': '2' does not"),
        ("ASOK_QUEUES", {"": 2}, ValueError, "numbers of threads, 1 or more; '': 2 does not"),
        ("ASOK_QUEUES", {1: 2}, ValueError, "numbers of threads, 1 or more; 1: 2 does not"),
        ("ASOK_MAX_QUEUED", 0, ValueError, "ASOK_MAX_QUEUED must be 1 or more, not 0"),
        ("ASOK_MAX_QUEUED", "10", TypeError, "ASOK_MAX_QUEUED must not be of type str"),
        ("ASOK_MAX_QUEUED", True, TypeError, "ASOK_MAX_QUEUED must not be of type bool"),
        ("ASOK_MAX_WAITING", -1, ValueError, "ASOK_MAX_WAITING must be 1 or more, not -1"),
        ("ASOK_RECENT_TASKS", 0, ValueError, "ASOK_RECENT_TASKS must be 1 or more, not 0"),
        ("ASOK_RECENT_TASKS", None, TypeError, "ASOK_RECENT_TASKS must not be of type NoneType"),
        ("ASOK_QUEUE_FULL", "drop", ValueError, 'ASOK_QUEUE_FULL must be "run" or "raise", not \'drop\''),
        ("ASOK_SHUTDOWN_TIMEOUT", -1, ValueError, "ASOK_SHUTDOWN_TIMEOUT must be seconds, 0 or more, not -1"),
        (
            "ASOK_SHUTDOWN_TIMEOUT",
            float("nan"),
            ValueError,
            "ASOK_SHUTDOWN_TIMEOUT must be seconds, 0 or more, not nan",
        ),
        (
            "ASOK_SHUTDOWN_TIMEOUT",
            float("inf"),
            ValueError,
            "ASOK_SHUTDOWN_TIMEOUT must be seconds, 0 or more, not inf",
        ),
        ("ASOK_SHUTDOWN_TIMEOUT", "8", TypeError, "ASOK_SHUTDOWN_TIMEOUT must not be of type str"),
        ("ASOK_IMAGE_MAX_PIXELS", 0, ValueError, "ASOK_IMAGE_MAX_PIXELS must be 1 or more, not 0"),
        ("ASOK_MAIL_TIMEOUT", 0, ValueError, "ASOK_MAIL_TIMEOUT must be seconds, more than 0, not 0"),
        ("ASOK_CACHE_LOCK_TIMEOUT", "1", TypeError, "ASOK_CACHE_LOCK_TIMEOUT must not be of type str"),
        ("ASOK_CELERY", "redis://", TypeError, "ASOK_CELERY must not be of type str"),
        ("ASOK_TASK_MODULES", "shop.tasks", TypeError, "ASOK_TASK_MODULES must not be of type str"),
        ("ASOK_FALLBACK", "drop", ValueError, 'ASOK_FALLBACK must be "raise" or "threads", not \'drop\''),
    ],
)
def test_bad_configuration(key, value, error, text):
    """A value that is no good is refused by `init_app`, with the name of the key; the app is then not set up."""
    app = Flask("shop")
    app.config[key] = value

    with pytest.raises(error, match=text):
        FlaskAsok(app)

    assert "asok" not in app.extensions


def make_in_factory():
    return Flask("shop")


@pytest.mark.parametrize(
    ("given", "text"),
    [
        (
            Blueprint("orders", "shop"),
            r"not Blueprint\. .* A blueprint uses the extension of the app",
        ),
        ("shop", "not str"),
        (Flask, "not type"),
        (make_in_factory, "not function"),
        (LocalProxy(lambda: Blueprint("orders", "shop")), "not Blueprint"),
    ],
    ids=["blueprint", "name", "class", "factory", "proxy"],
)
def test_no_application(given, text):
    """What is no application is refused with what to write."""
    for set_up in (FlaskAsok, FlaskAsok().init_app):
        with pytest.raises(TypeError, match=text) as caught:
            set_up(given)

        assert "Write FlaskAsok(app), or asok.init_app(app) in the function that makes the app." in str(caught.value)


def test_current_app_is_set_up():
    """`current_app` may be given: the application itself is set up."""
    app = Flask("shop")
    with app.app_context():
        FlaskAsok(current_app)
        held = background.using(when="response")(int)

    assert held.result(WAIT) == 0
    FlaskAsok().close(app)


@pytest.mark.parametrize(
    ("key", "nearest"),
    [
        ("ASOK_QUEUS", "ASOK_QUEUES"),
        ("asok_queues", "ASOK_QUEUES"),
        ("Asok_Max_Queued", "ASOK_MAX_QUEUED"),
        ("ASOK_MAX_QUEUE", "ASOK_MAX_QUEUED"),
        ("ASOK_WEBHOOK_ALOW", "ASOK_WEBHOOK_ALLOW"),
    ],
)
def test_unknown_key(monkeypatch, key, nearest):
    """A misspelt key, which nobody would read, is refused with the nearest one, from the environment too."""
    text = rf"{key} is no configuration key of Flask-Asok\. The nearest one is {nearest}\."
    app, from_environment = Flask("shop"), Flask("shop")
    app.config[key] = None
    monkeypatch.setenv(f"FLASK_{key}", "{}")
    from_environment.config.from_prefixed_env()

    for each in (app, from_environment):
        with pytest.raises(ValueError, match=text):
            FlaskAsok(each)
        assert "asok" not in each.extensions


def test_key_like_no_other():
    """A key that is like none of ours is refused with all of them, and not with one that means something else."""
    app = Flask("shop")
    app.config["ASOK_BROKER_URL"] = "redis://localhost"

    with pytest.raises(ValueError, match=r"ASOK_BROKER_URL is no .+ They are ASOK_BACKEND, .+ASOK_CELERY, ") as caught:
        FlaskAsok(app)

    assert "nearest" not in str(caught.value)


def test_keys_of_others():
    """Keys of others are nobody's business, however like ours they are."""
    app = Flask("shop")
    app.config.update(ASOKA_QUEUES=1, MY_ASOK_QUEUES=2, QUEUES=3)

    FlaskAsok(app)

    assert "asok" in app.extensions


# Recent tasks


def test_recent_tasks(app):
    """`tasks()` gives the recent tasks, the oldest first, and `get(id)` the one with that id."""
    asok = FlaskAsok()

    with app.app_context():
        tasks = [background.using(name=name)(int) for name in ("a", "b")]
        for task in tasks:
            task.join(WAIT)
        summaries = asok.tasks()
        found = asok.get(tasks[1].id)
        unknown = asok.get("0" * 32)

    assert [(summary.name, summary.state, summary.queue) for summary in summaries] == [
        ("a", "succeeded", "default"),
        ("b", "succeeded", "default"),
    ]
    assert (found.name, found.id, found.attempts, found.error) == ("b", tasks[1].id, 1, None)
    assert unknown is None


@pytest.mark.parametrize("method", ["get", "cancel", "retry", "discard"])
def test_task_for_an_id(app, method):
    """A Task where an id belongs would be known nowhere, so it is a TypeError; no id at all is an unknown one."""
    ask = getattr(FlaskAsok(), method)
    with app.app_context():
        task = background(int)

        with pytest.raises(TypeError, match=r"give the id of a task, `task\.id`"):
            ask(task)
        assert not ask(None)
        task.join(WAIT)


@pytest.mark.parametrize(
    ("wrong", "error", "text"),
    [
        ({"state": "done"}, ValueError, 'state must be "queued", .* or "abandoned", not \'done\''),
        ({"limit": -1}, ValueError, "limit must be 0 or more"),
        ({"limit": "5"}, TypeError, "limit must not be of type str"),
    ],
)
def test_tasks_refuses_what_matches_nothing(app, wrong, error, text):
    """`tasks()` refuses what no task could match, so that a check for failed ones does not stay silent for a typo."""
    with app.app_context(), pytest.raises(error, match=text):
        FlaskAsok().tasks(**wrong)


# The recipes in one word


@pytest.mark.parametrize("recipe", ["send_webhook", "resize_image", "warm_cache", "send_mail"])
def test_recipes(make_app, backend, recipe):
    """`asok.send_webhook(...)` and its like are `background(send_webhook, ...)`, for routes."""
    app = make_app(**backend)
    asok = FlaskAsok()

    with app.app_context(), pytest.raises(TypeError):
        getattr(asok, recipe)(no_such_argument=1)
    assert getattr(asok, recipe).__doc__.startswith(f"Run `background({recipe}, ...)` and return its Task")


def test_recipe_returns_its_task(app):
    """They return the Task."""
    with app.app_context():
        started = FlaskAsok().warm_cache("posts", lambda: ["a", "b"], ttl=60)
        started.join(WAIT)

    assert isinstance(started, Task)
    assert (started.name, started.state) == ("warm_cache", "succeeded")


# What an app shares


class Pool:
    def __init__(self, closed, error=None):
        self.closed = closed
        self.error = error

    def close(self):
        self.closed.append(self)
        if self.error is not None:
            raise self.error


def test_shared_is_made_once(make_app):
    """However many threads ask at once, the shared object of an app is made once."""
    state = state_of(make_app())
    made, got = [], []
    start = threading.Barrier(8)

    def make():
        made.append(object())
        return made[-1]

    def ask():
        start.wait(WAIT)
        got.append(state.shared("pool", make))

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT)

    assert len(made) == 1
    assert got == made * 8


def test_shared_of_shared(make_app):
    """Making one shared object may ask for another."""
    state = state_of(make_app())

    made = state.shared("outer", lambda: [state.shared("inner", lambda: 1)])

    assert made == [1]


def test_shared_is_closed_with_the_app(make_app, caplog):
    """Closing the app closes each shared object that can be; one that fails is logged and the others are closed."""
    app = make_app()
    closed = []
    failing, other = Pool(closed, AttributeError("no socket")), Pool(closed)
    state_of(app).shared("plain", object)
    state_of(app).shared("other", lambda: other)
    state_of(app).shared("failing", lambda: failing)

    FlaskAsok().close(app)
    FlaskAsok().close(app)

    assert closed == [failing, other]
    assert caplog.messages == ["Closing failing failed: AttributeError('no socket')"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_shared_after_a_fork(make_app):
    """A forked child makes its own, and leaves the parent's open."""
    app = make_app()
    closed = []
    pool = state_of(app).shared("pool", lambda: Pool(closed))

    child = os.fork()
    if child == 0:  # pragma: no cover - in another process
        status = 1
        try:
            own = state_of(app).shared("pool", lambda: Pool(closed))
            state_of(app).close()
            status = 0 if own is not pool and closed == [own] else 2
        finally:
            os._exit(status)

    assert os.waitpid(child, 0)[1] == 0
    assert state_of(app).shared("pool", object) is pool


# Backends of other packages

MODULE = """
import threading

from flask_asok.backends.base import Backend
from flask_asok.settings import Setting
from flask_asok.validate import or_none, text, whole


class LaterBackend(Backend):
    \"\"\"Keeps tasks until it is told to run them.\"\"\"

    name = "later"
    settings = (
        Setting("ASOK_LATER_URL", None, or_none(text), "Where it runs."),
        Setting("ASOK_LATER_PATIENCE", 5, whole(1), "Seconds."),
    )

    def __init__(self, app, config):
        super().__init__(app, config)
        self.running = {}
        self.kept = []
        self.own = config["ASOK_LATER_URL"], config["ASOK_LATER_PATIENCE"]

    def runner(self, queue):
        self.queues[queue]
        return self

    def start(self, task, *, bounded=True):
        self.kept.append(task)

    def began(self, task):
        pass

    def wait(self, task, seconds):
        if task.requeue():
            self.kept.append(task)

    def run(self):
        while self.kept:
            self.kept.pop(0).perform(threading.current_thread())
"""


@pytest.fixture
def later(tmp_path, monkeypatch):
    """Another package that brings a backend, installed."""
    (tmp_path / "later_backend.py").write_text(textwrap.dedent(MODULE))
    info = tmp_path / "later_backend-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: later-backend\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[flask_asok.backends]\nlater = later_backend:LaterBackend\n")
    monkeypatch.syspath_prepend(tmp_path)


def test_backend_of_another_package(make_app, later):
    """A package that registers an entry point brings a backend of its own; the base class does the rest."""
    app = make_app(ASOK_BACKEND="later")
    backend = state_of(app).backend

    with app.app_context():
        task = background.using(retries=1)(int, "seven")
        before = task.state
        backend.run()
        recent = FlaskAsok().tasks()
        with pytest.raises(ValueError, match="Unknown queue"):
            background.using(queue="mails")(int)
        FlaskAsok().close(app)

    assert isinstance(task, Task)
    assert (before, task.state, task.attempts) == ("queued", "failed", 2)
    assert recent == [task.summary]
    assert backend.distributed is False


def test_keys_of_a_backend_of_another_package(make_app, later):
    """It declares keys of its own with their defaults; they may stay where it is not chosen, a misspelt one may not."""
    app = make_app(ASOK_BACKEND="later", ASOK_LATER_URL="later://")
    elsewhere = make_app(ASOK_BACKEND="immediate", ASOK_LATER_URL="later://")
    misspelt = Flask("shop")
    misspelt.config.update(ASOK_BACKEND="later", ASOK_LATER_ULR="later://")

    with pytest.raises(ValueError, match=r"ASOK_LATER_ULR is no configuration key .* nearest one is ASOK_LATER_URL"):
        FlaskAsok(misspelt)

    assert state_of(app).backend.own == ("later://", 5)
    assert app.config["ASOK_LATER_PATIENCE"] == 5
    assert "ASOK_LATER_PATIENCE" not in elsewhere.config


def test_unknown_backend_names_the_known(later):
    """The text about an unknown backend names those of other packages too."""
    app = Flask("shop")
    app.config["ASOK_BACKEND"] = "redis"

    with pytest.raises(ValueError, match=r'one of "threads", "immediate", .*"later"'):
        FlaskAsok(app)


def test_state_is_where_extensions_have_theirs(app):
    """The state of an app is at `app.extensions["asok"]`."""
    assert isinstance(state_of(app), AppState)
