"""What is logged, where it goes, and what is never in it."""

import logging
import logging.config
import re
import subprocess
import sys
import textwrap

import pytest

from flask_asok import background

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
        assert "4111" not in text
        assert "s3cr3t" not in text


def test_quiet_when_all_goes_well(app, caplog):
    """A task that goes well is not logged at all."""
    caplog.set_level(logging.DEBUG)

    with app.app_context():
        background(int).join(WAIT)

    assert caplog.records == []
