"""An application with the status view, and a real browser that looks at it over a real server."""

import threading

import pytest
from flask import render_template_string

from flask_asok import FlaskAsok, background, report_progress

asok = FlaskAsok()

DEADLINE = 30
"""Seconds after which whatever is waited for will not come."""


@pytest.fixture
def make_status(make_app):
    """Make an application with the status view: `make_status(access=..., cancel=True)`."""

    def make(access=None, cancel=False, url_prefix="/status", **config):
        app = make_app(**config)
        app.register_blueprint(asok.status(access=access, cancel=cancel), url_prefix=url_prefix)
        return app

    return make


@pytest.fixture
def status_app(make_status):
    """An application with the status view and its cancel button."""
    return make_status(cancel=True)


@pytest.fixture
def bar():
    """Render `{{ asok_progress(...) }}` in a request of an application."""

    def render(app, task, arguments="", **context):
        with app.test_request_context():
            return render_template_string("{{ asok_progress(task" + arguments + ") }}", task=task, **context)

    return render


@pytest.fixture
def at(gate):
    """Make a function that reports a progress, then waits until the gate opens or it is asked to stop."""

    def make(*progress):
        reported = threading.Event()

        def work():
            if progress:
                report_progress(*progress)
            reported.set()
            gate.wait(DEADLINE)
            if progress:
                report_progress(*progress)

        work.reported = reported
        return work

    return make


@pytest.fixture
def start(at):
    """Start a task of an application that has reported a progress and goes on until the gate opens."""

    def start(app, *progress, **options):
        work = at(*progress)
        with app.app_context():
            task = background.using(**options)(work)
        assert work.reported.wait(DEADLINE)
        return task

    return start
