"""What a durable task sees: the same on its first run and when another process goes on with it, row by row."""

import re
import sys
from pathlib import Path

import durable_jobs as jobs
import pytest
from flask import g
from opentelemetry import propagate, trace
from opentelemetry.sdk.trace import TracerProvider

from flask_asok import FlaskAsok, background
from flask_asok.sharing import open_store

WAIT = 10

PAGE = (Path(__file__).parents[2] / "docs" / "context.md").read_text(encoding="utf-8")

asok = FlaskAsok()

durable = background.using(durable=True)

NAME = "shop"

# The trace that the request is part of, in an application that uses OpenTelemetry.
assert propagate
jobs.expected_trace = 0x4BF92F3577B34DA6A3CE929D0E0E4736
SPAN = trace.set_span_in_context(
    trace.NonRecordingSpan(trace.SpanContext(jobs.expected_trace, 0xF067AA0BA902B7, True, trace.TraceFlags(1)))
)

ROWS = {
    "arguments": (jobs.see_arguments, "[['a'], {'b': (1, 2)}]"),
    "`current_app`": (jobs.see_application, f"{NAME} True"),
    "`g`": (jobs.see_g, "{'flag': True, 'nothing': None, 'number': 7, 'part': 0.5, 'user': 'ann'}"),
    "`request`, `session`": (jobs.see_request, "RuntimeError RuntimeError"),
    "`url_for`": (jobs.see_link, "https://shop.example/en/page"),
    "context variables": (jobs.see_variables, "True"),
}
"""Each row of the page: what looks, and what it sees."""


@pytest.fixture
def call(app):
    """Make a durable call in a request that has one of everything."""
    app.add_url_rule("/page", "page", lambda: "")

    def call(fn, **options):
        with app.test_request_context(base_url="https://shop.example/en"):
            jobs.mine.set("the caller's")
            g.user, g.number, g.part, g.flag, g.nothing = "ann", 7, 0.5, True, None
            g.settings, g.connection = {"theme": "dark"}, open_store(app)
            items, more = ["a"], {"b": (1, 2)}
            with TracerProvider().get_tracer("tests").start_as_current_span("page", context=SPAN):
                task = durable.using(**options)(fn, items, more)
            items.append("changed")
        return task

    return call


def test_rows():
    """There is a test of each row of the page."""
    table = PAGE.partition("| In a durable task | |")[2].partition("\n\n")[0]

    assert re.findall(r"^\| (.+?) \|", table, re.MULTILINE)[1:] == list(ROWS)


@pytest.mark.parametrize("row", ROWS)
def test_first_run_and_resumed_run(app, next_app, sweep, call, rows, row):
    """The first attempt, a second one, and one in another process see the same."""
    fn, expected = ROWS[row]
    next_app.add_url_rule("/page", "page", lambda: "")
    call(fn, retries=1, backoff=0).join(WAIT)
    call(fn, delay=60)
    asok.close(app, 5)
    open_store(next_app).now = lambda: jobs.time.time() + 61

    sweep()

    assert jobs.noted(rows) == [expected] * 3


def test_trace_of_ones_own_spans(app, next_app, sweep, call, rows, monkeypatch):
    """An application that makes its spans itself, without any instrumentation, keeps its trace in the next process."""
    monkeypatch.delitem(sys.modules, "opentelemetry.propagate")
    call(jobs.see_variables, delay=60)
    asok.close(app, 5)
    monkeypatch.delitem(sys.modules, "opentelemetry.propagate", raising=False)
    open_store(next_app).now = lambda: jobs.time.time() + 61

    sweep()

    assert jobs.noted(rows) == ["True"]


def test_variables_of_the_first_run(app, call, rows):
    """In the process of its caller a task has the caller's context variables; in the next one it has none of them."""
    call(jobs.see_variable).join(WAIT)

    assert jobs.noted(rows) == ["the caller's"]


def test_variables_of_the_next_run(app, next_app, sweep, call, rows):
    """Telemetry alone is to be built on them."""
    call(jobs.see_variable, delay=60)
    asok.close(app, 5)
    open_store(next_app).now = lambda: jobs.time.time() + 61

    sweep()

    assert jobs.noted(rows) == ["nothing"]
