"""What is logged, where it goes, and what is never in it."""

import logging
import logging.config
import re
import subprocess
import sys
import textwrap
import threading

import pytest

from flask_asok import FlaskAsok, background, current_task
from flask_asok.logs import log
from flask_asok.signals import task_succeeded

WAIT = 10

SCRIPT = """
import logging, logging.config, sys
from flask import Flask
from flask_asok import FlaskAsok, background

def send_webhook():
    raise ConnectionError("refused")

def fail():
    with app.app_context():
        background(send_webhook).join(10)

app = Flask("shop")
FlaskAsok(app)
"""

LINE = r"\[\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\] ERROR asok\.background: "
FAILED = r"Background task send_webhook failed: ConnectionError\('refused'\)\n"


def run(script):
    """Run the script in a process of its own, where nothing has configured logging; return what it wrote."""
    whole = SCRIPT + textwrap.dedent(script)
    ended = subprocess.run([sys.executable, "-c", whole], capture_output=True, text=True, timeout=60, check=True)
    return ended.stdout, ended.stderr


def test_nothing_configured():
    """Where the application configured no logging, the documented line appears on stderr, then the traceback."""
    out, err = run("fail()")

    assert out == ""
    assert re.fullmatch(
        LINE + FAILED + r"Traceback \(most recent call last\):\n"
        # From Python 3.13 on the line itself is shown for a script given with -c too.
        r'  File "<string>", line \d+, in send_webhook\n(    raise ConnectionError\("refused"\)\n)?'
        r"ConnectionError: refused\n",
        err,
    )


def test_through_the_applications_handlers():
    """Where it configured logging, the record goes through its handlers, once and in its format."""
    out, err = run("""
        logging.basicConfig(stream=sys.stdout, format="%(levelname)s | %(name)s | %(message)s")
        fail()
    """)

    assert out.startswith("ERROR | asok.background | Background task send_webhook failed: ConnectionError('refused')\n")
    assert out.count("Background task") == 1
    assert err == ""


@pytest.mark.parametrize("name", ["asok.background", "asok"])
def test_through_the_handlers_of_its_own_logger(name):
    """Handlers of the library's own loggers do too."""
    out, err = run(f"""
        handler = logging.StreamHandler(sys.stdout)
        logging.getLogger({name!r}).addHandler(handler)
        fail()
    """)

    assert out.count("Background task send_webhook failed") == 1
    assert err == ""


def test_configured_later():
    """Where it configures logging after the first error, later ones go through its handlers, and to those only."""
    out, err = run("""
        fail()
        logging.basicConfig(stream=sys.stdout, format="%(message)s")
        fail()
    """)

    assert err.count("Background task send_webhook failed") == 1
    assert out.count("Background task send_webhook failed") == 1


def test_dict_config():
    """`dictConfig` before the first task, as Flask's documentation has it, works, though it disables loggers."""
    out, err = run("""
        logging.config.dictConfig({
            "version": 1,
            "formatters": {"short": {"format": "%(levelname)s %(message)s"}},
            "handlers": {"out": {"class": "logging.StreamHandler", "stream": "ext://sys.stdout", "formatter": "short"}},
            "root": {"level": "INFO", "handlers": ["out"]},
        })
        fail()
    """)

    assert out.startswith("ERROR Background task send_webhook failed: ConnectionError('refused')\n")
    assert err == ""


def test_not_propagated():
    """A logger that does not propagate has no handlers but its own: without any the line goes to stderr."""
    out, err = run("""
        logging.basicConfig(stream=sys.stdout)
        logging.getLogger("asok").propagate = False
        fail()
    """)

    assert out == ""
    assert re.match(LINE + FAILED, err)


# Handlers of the application's own logger


@pytest.mark.parametrize(
    "setting",
    [
        "",
        "app.logger",
        "app.logger.propagate = False",
        "logging.getLogger('asok').propagate = False",
        "app.logger.addHandler(handler)",
        "logging.getLogger('shop').addHandler(handler)",
        "app.logger.addHandler(logging.NullHandler())",
        "app.logger.removeHandler(flask.logging.default_handler)",
        "app.logger = logging.getLogger('other'); app.logger.addHandler(handler)",
    ],
)
def test_through_the_handlers_of_the_apps_logger(setting):
    """A handler on `app.logger`, as Flask's documentation has it, gets the record once; stderr has its line, once."""
    out, err = run(f"""
        import flask.logging
        handler = logging.StreamHandler(sys.stdout)
        handler.setLevel(logging.ERROR)
        app.logger.addHandler(handler)
        {setting}
        fail()
    """)

    assert out.startswith("Background task send_webhook failed: ConnectionError('refused')\nTraceback")
    assert out.count("Background task") == 1
    assert re.match(LINE + FAILED, err)
    assert err.count("Background task") == 1


@pytest.mark.parametrize(
    "setting",
    [
        "root.addHandler(handler)",
        "root.addHandler(handler); app.logger.propagate = False",
        "logging.getLogger('asok').addHandler(handler)",
        "logging.getLogger('asok.background').addHandler(handler)",
        "logging.getLogger('asok').addHandler(handler); root.addHandler(handler)",
        "app.logger = root; root.addHandler(handler)",
        "logging.basicConfig(stream=sys.stdout, format='%(message)s'); handler.setLevel(logging.CRITICAL)",
    ],
)
def test_a_handler_of_both_loggers(setting):
    """A handler that both loggers have, or that both come to, gets the record once."""
    out, err = run(f"""
        handler = logging.StreamHandler(sys.stdout)
        root = logging.getLogger()
        app.logger.addHandler(handler)
        {setting}
        fail()
    """)

    assert out.count("Background task") == 1
    assert err == ""


def test_root_and_app():
    """Where root and `app.logger` have handlers of their own, each gets the record once."""
    out, err = run("""
        logging.basicConfig(stream=sys.stdout, format="root %(message)s")
        handler = logging.StreamHandler(sys.stdout)
        handler.setFormatter(logging.Formatter("%(name)s %(message)s"))
        app.logger.addHandler(handler)
        fail()
    """)

    assert out.count("root Background task") == 1
    assert out.count("asok.background Background task") == 1
    assert err == ""


def test_app_that_writes_to_stderr_itself():
    """Where `app.logger` writes to stderr in a format of its own, that line is the only one there."""
    for stream in ("sys.stderr", "flask.logging.wsgi_errors_stream"):
        out, err = run(f"""
            import flask.logging
            handler = logging.StreamHandler({stream})
            handler.setFormatter(logging.Formatter("own %(message)s"))
            app.logger.addHandler(handler)
            fail()
        """)

        assert (out, err.count("Background task"), err.count("own Background task")) == ("", 1, 1)


def test_dict_config_of_the_app():
    """`dictConfig` may name the app's logger, with or without one for Flask-Asok."""
    for own in ("{}", "{'asok': {'handlers': ['out'], 'propagate': False}}"):
        out, err = run(f"""
            logging.config.dictConfig({{
                "version": 1,
                "handlers": {{"out": {{"class": "logging.StreamHandler", "stream": "ext://sys.stdout"}}}},
                "loggers": {{"shop": {{"handlers": ["out"], "propagate": False}}, **{own}}},
            }})
            fail()
        """)

        assert out.count("Background task") == 1
        assert err.count("Background task") == (1 if own == "{}" else 0)


def test_handlers_above_the_apps_logger():
    """Handlers of the loggers that the app's one propagates to get the record as well, as of a view."""
    out, _ = run("""
        app = Flask("shop.web")
        FlaskAsok(app)
        logging.getLogger("shop").addHandler(logging.StreamHandler(sys.stdout))
        fail()
    """)

    assert out.count("Background task") == 1


@pytest.mark.parametrize(
    "setting",
    [
        "app.logger.setLevel(logging.CRITICAL)",
        "app.logger.addFilter(lambda record: False)",
        "app.logger.disabled = True",
        "handler.setLevel(logging.CRITICAL)",
        "handler.addFilter(lambda record: False)",
    ],
)
def test_what_the_apps_logger_would_not_log(setting):
    """Level, filters and `disabled` of the app's logger and its handlers hold for tasks too; stderr has its line."""
    out, err = run(f"""
        handler = logging.StreamHandler(sys.stdout)
        app.logger.addHandler(handler)
        {setting}
        fail()
    """)

    assert out == ""
    assert err.count("Background task") == 1


def test_filter_that_changes_the_record():
    """A filter of the app's logger changes the record for the handlers there, and for those only."""
    out, err = run("""
        def add_shop(record):
            record.msg = "of the shop: " + record.msg
            return True

        app.logger.addHandler(logging.StreamHandler(sys.stdout))
        app.logger.addFilter(add_shop)
        fail()
    """)

    assert out.startswith("of the shop: Background task send_webhook failed")
    assert re.match(LINE + FAILED, err)


def test_two_apps():
    """Each app's handlers get the records of its own tasks."""
    out, _ = run("""
        apps = [app, Flask("blog")]
        FlaskAsok(apps[1])
        for each in apps:
            handler = logging.StreamHandler(sys.stdout)
            handler.setFormatter(logging.Formatter(each.name + " %(message)s"))
            each.logger.addHandler(handler)
        with apps[0].app_context():
            with apps[1].app_context():
                background.using(name="of_blog")(send_webhook).join(10)
            background.using(name="of_shop")(send_webhook).join(10)
    """)

    assert [line.partition(" failed")[0] for line in out.splitlines() if "Background" in line] == [
        "blog Background task of_blog",
        "shop Background task of_shop",
    ]


def test_the_apps_logger_is_not_made():
    """An app whose `logger` nobody has asked for has none for a task's sake, nor Flask's default handler."""
    out, err = run("""
        fail()
        print("logger" in vars(app), logging.getLogger("shop").handlers)
    """)

    assert out == "False []\n"
    assert err.count("Background task") == 1


def test_raising_handler_keeps_no_other():
    """A handler that raises keeps no other from the record, be it on the app's logger or on ours."""
    for first in ("'asok'", "'shop'"):
        out, _ = run(f"""
            class Handler(logging.Handler):
                def handle(self, record):
                    raise ValueError

            logging.getLogger({first}).addHandler(Handler())
            app.logger.addHandler(logging.StreamHandler(sys.stdout))
            fail()
        """)

        assert out.count("Background task") == 1


def test_raising_filter():
    """A filter of the app's logger that raises keeps the line from no other place."""
    out, err = run("""
        app.logger.addHandler(logging.StreamHandler(sys.stdout))
        app.logger.addFilter(lambda record: 1 / 0)
        fail()
    """)

    assert out == ""
    assert "Logging of a background task failed: ZeroDivisionError('division by zero')" in err
    assert re.search(LINE + FAILED, err)


def test_every_record_of_a_task(threads_app, caplog, gate):
    """A retry, a timeout, an abandonment, a receiver or a teardown that fails: the app's handlers get each, once."""
    heard = []
    handler = logging.Handler()
    handler.emit = lambda record: heard.append((record.name, record.getMessage().partition(":")[0]))
    threads_app.logger.addHandler(handler)
    late = threading.Event()

    def ship():
        raise ValueError

    def take_long():
        late.set()
        gate.wait(WAIT)

    def receive(app, task):
        raise LookupError

    @threads_app.teardown_appcontext
    def tear_down(error):
        if current_task():
            raise OSError

    with threads_app.app_context(), task_succeeded.connected_to(receive):
        background.using(retries=1, backoff=0)(ship).join(WAIT)
        background.using(retries=1, backoff=lambda attempt: 1 / 0)(ship).join(WAIT)
        background(int).join(WAIT)
        background.using(delay=3600)(int)
        background(take_long)
        assert late.wait(WAIT)
        # Its gate stays shut: the teardown after it fails as well, and is told of when it ends.
        FlaskAsok().close(threads_app, 0)
    threads_app.logger.removeHandler(handler)

    texts = [re.sub(r"[0-9a-f]{32}", "id", text) for name, text in heard if name == "asok.background"]
    assert len(texts) == len(heard)
    assert [record.getMessage().partition(":")[0] for record in caplog.records] == [text for _, text in heard]
    assert {
        "Background task ship failed (attempt 1 of 2, next in 0 s)",
        "Background task ship failed",
        "Backoff of background task ship failed",
        "Receiver of task-succeeded failed",
        "Teardown after background task ship failed",
        "Teardown after background task int failed",
        "Background task int (id) abandoned while waiting",
        "Background task take_long (id) abandoned while running",
    } == set(texts)


def test_records_of_the_recipes(threads_app):
    """So do they get what the ready-made jobs log."""
    heard = []
    handler = logging.Handler()
    handler.emit = lambda record: heard.append((record.name, record.getMessage()))
    threads_app.logger.addHandler(handler)

    with threads_app.app_context():
        background(log, logging.WARNING, "put off", logger="asok.mail").join(WAIT)
        log(logging.WARNING, "in the view", logger="asok.cache")
    log(logging.WARNING, "of no app", logger="asok.cache")
    threads_app.logger.removeHandler(handler)

    assert heard == [("asok.mail", "put off"), ("asok.cache", "in the view")]


def test_disabled():
    """A logger that is disabled, as `dictConfig` does unless told otherwise, logs nothing at all; the page says so."""
    out, err = run("""
        app.logger.addHandler(logging.StreamHandler(sys.stdout))
        fail()
        logging.config.dictConfig({"version": 1, "disable_existing_loggers": False})
        fail()
        logging.config.dictConfig({"version": 1})
        fail()
    """)

    assert (out.count("Background task"), err.count("Background task")) == (2, 2)


def test_stderr_of_the_moment():
    """The line goes to the `sys.stderr` of the moment, so that a test or a server may redirect it."""
    out, err = run("""
        fail()
        sys.stderr = sys.stdout
        fail()
    """)

    assert (out.count("Background task"), err.count("Background task")) == (1, 1)


def test_no_stderr():
    """A process without stderr, as a Windows service is, runs its tasks all the same."""
    out, err = run("""
        sys.stderr = None
        fail()
        with app.app_context():
            print(background(int).result(10))
    """)

    assert out == "0\n"
    assert err == ""


def test_raising_handler_without_stderr():
    """So it does when a handler of the application raises as well."""
    out, _ = run("""
        class Handler(logging.Handler):
            def emit(self, record):
                raise ValueError

        logging.getLogger("asok.background").addHandler(Handler())
        sys.stderr = None
        fail()
        print("went on")
    """)

    assert out == "went on\n"


def test_fields(app, caplog):
    """Each record of a task has its id, name, queue, attempt and durations, as fields."""

    def ship():
        raise ValueError

    with app.app_context():
        task = background.using(queue="mail", retries=1, backoff=0, name="order")(ship)
        task.join(WAIT)

    first, last = caplog.records
    assert (first.levelname, first.task_attempt) == ("WARNING", 1)
    assert (last.levelname, last.task_attempt) == ("ERROR", 2)
    for record in (first, last):
        assert (record.name, record.task_id) == ("asok.background", task.id)
        assert (record.task_name, record.task_queue) == ("order", "mail")
        assert 0 <= record.task_queued_ms < WAIT * 1000
        assert 0 <= record.task_duration_ms < WAIT * 1000


def test_fields_of_a_task_that_never_began(threads_app, caplog):
    """So has the record of a task that is abandoned before it began."""
    with threads_app.app_context():
        task = background.using(delay=3600)(int)
        threads_app.extensions["asok"].close(1)

    (record,) = caplog.records
    assert (record.task_id, record.task_attempt, record.task_duration_ms) == (task.id, 0, 0)
    assert record.task_queued_ms >= 0


def test_never_the_arguments(app, caplog):
    """Arguments, which may be secret, are in no record, whatever a task logs: warning, error or its abandonment."""
    caplog.set_level(logging.DEBUG)

    def pay(card, *, code):
        raise ValueError("declined")

    with app.app_context():
        background.using(retries=1, backoff=0)(pay, "4111-1111", code="s3cr3t").join(WAIT)
        background.using(delay=3600)(pay, "4111-1111", code="s3cr3t")
        app.extensions["asok"].close(1)

    assert caplog.records
    for record in caplog.records:
        text = logging.Formatter().format(record) + repr(record.__dict__)
        # Whole: four digits stand in some id or time, sooner or later.
        assert "4111-1111" not in text
        assert "s3cr3t" not in text


def test_quiet_when_all_goes_well(app, caplog):
    """A task that goes well is not logged at all."""
    caplog.set_level(logging.DEBUG)

    with app.app_context():
        background(int).join(WAIT)

    assert caplog.records == []


def test_tools_that_wrap_the_handing_out(app, caplog, monkeypatch):
    """A tool that wraps `Logger.callHandlers`, as Sentry and New Relic do, hears of each record once."""
    heard = []
    original = logging.Logger.callHandlers

    def wrapped(self, record):
        if self.name.startswith("asok"):
            heard.append((self.name, record.name, record.getMessage()))
        return original(self, record)

    def ship():
        raise ValueError("no stock")

    app.logger.addHandler(logging.NullHandler())
    monkeypatch.setattr(logging.Logger, "callHandlers", wrapped)
    with app.app_context():
        background(ship).join(WAIT)

    text = "Background task ship failed: ValueError('no stock')"
    assert heard == [("asok.background", "asok.background", text)]
    assert caplog.messages == [text]
