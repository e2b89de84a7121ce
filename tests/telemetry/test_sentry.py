"""Sentry: each task's error once, with its own user, tags, trace and breadcrumbs; and nothing of it elsewhere."""

import gc
import logging
import random
import subprocess
import sys
import threading
import weakref

import pytest
import sentry_sdk
from flask import Flask
from sentry_sdk.integrations.dedupe import DedupeIntegration

from flask_asok import FlaskAsok, background, current_task
from flask_asok.logs import log
from flask_asok.periodic import Clock
from flask_asok.signals import task_queued
from flask_asok.state import state_of

WAIT = 20


def fail(text="no stock"):
    raise ValueError(text)


def crumbs(event):
    return [crumb["message"] for crumb in event.get("breadcrumbs", {}).get("values", [])]


def trace_of(event):
    return event["contexts"]["trace"]["trace_id"]


def add_view(app, fn, **options):
    """A view that sets a user and a tag, and starts a task."""
    tasks = []

    @app.post("/go/<user>")
    def go(user):
        sentry_sdk.set_user({"id": user})
        sentry_sdk.set_tag("asked_by", user)
        tasks.append(background.using(**options)(fn))
        tasks[-1].join(WAIT)
        return sentry_sdk.get_isolation_scope().get_trace_context()["trace_id"]

    return tasks


def test_error_of_a_request(app, sentry):
    """An error is sent once, as nobody has handled it, with the caller's user, URL, tags and trace, and the task."""
    sent = sentry()
    tasks = add_view(app, fail)
    client = app.test_client()

    traces = [client.post(f"/go/{user}").text for user in ("alice", "bob")]

    assert len(sent.events) == 2
    for event, user, trace, task in zip(sent.events, ("alice", "bob"), traces, tasks, strict=True):
        assert event["user"]["id"] == user
        assert event["tags"]["asked_by"] == user
        assert event["request"]["url"] == f"http://localhost/go/{user}"
        assert trace_of(event) == trace
        assert crumbs(event) == []
        assert event["transaction"] == f"{__name__}.fail"
        assert event["exception"]["values"][-1]["mechanism"] == {"type": "asok", "handled": False}
        assert event["contexts"]["asok"]["id"] == task.id
        assert event["contexts"]["asok"]["attempt"] == 1


def test_many_requests(threads_app, sentry):
    """100 tasks of 20 requests in random order: each event has its own user, tags, trace and breadcrumbs."""
    sent = sentry()
    gate, chance = threading.Event(), random.Random(20)
    tasks, traces, tags = [], {}, {}

    def work(user, number):
        gate.wait(WAIT)
        sentry_sdk.set_tag("number", str(number))
        sentry_sdk.add_breadcrumb(message=f"{user} {number}")
        raise ValueError(f"{user} {number}")

    @threads_app.post("/go/<user>")
    def go(user):
        sentry_sdk.set_user({"id": user})
        sentry_sdk.add_breadcrumb(message=f"view of {user}")
        for number in range(5):
            delay = chance.random() / 20
            tasks.append(background.using(delay=delay)(work, user, number))
        traces[user] = sentry_sdk.get_isolation_scope().get_trace_context()["trace_id"]
        tags[user] = sentry_sdk.get_isolation_scope()
        return ""

    users = [f"user{number}" for number in range(20)]
    for user in users:
        threads_app.test_client().post(f"/go/{user}")
    gate.set()
    for task in tasks:
        task.join(WAIT)

    assert len(sent.events) == 100
    found = set()
    for event in sent.events:
        user, number = event["exception"]["values"][-1]["value"].split()
        found.add((user, number))
        assert (event["user"]["id"], event["tags"]["number"]) == (user, number)
        assert trace_of(event) == traces[user]
        assert crumbs(event) == [f"view of {user}", f"{user} {number}"]
    assert len(found) == 100
    # The scopes of the requests have nothing of their tasks.
    seen = []
    for scope in tags.values():
        event = {}
        scope.apply_to_event(event, {})
        seen.append((event.get("tags"), crumbs(event)))
    assert seen == [(None, [f"view of {user}"]) for user in users]


def test_tags_of_a_task_stay_there(app, sentry):
    """What a task sets does not reach its caller, nor the tasks that follow, outside of a request either."""
    sent = sentry()

    with app.app_context():
        sentry_sdk.set_tag("mine", "cli")
        background(sentry_sdk.set_tag, "leak", "1").join(WAIT)
        background(fail).join(WAIT)
        sentry_sdk.capture_message("of the command")

    assert [event["tags"] for event in sent.events] == [{"mine": "cli"}] * 2


@pytest.mark.filterwarnings("ignore:.*Hub.* is deprecated")
def test_hub_of_old(app, sentry):
    """What a task sets by the hub of older versions of Sentry stays in the task as well."""
    sent = sentry()

    def work():
        with sentry_sdk.Hub.current:
            sentry_sdk.set_tag("leak", "1")

    with app.app_context():
        assert sentry_sdk.Hub.current.scope is sentry_sdk.get_isolation_scope()
        background(work).join(WAIT)
        with sentry_sdk.Hub.current:
            sentry_sdk.capture_message("of the command")

    assert "leak" not in sent.events[0].get("tags", {})


def test_the_call_is_what_counts(threads_app, sentry, gate):
    """A task has the user of its call, though the caller goes on to the next one before the task begins."""
    sent = sentry()

    def work():
        gate.wait(WAIT)
        fail()

    with threads_app.app_context():
        tasks = []
        for user in ("alice", "bob"):
            sentry_sdk.set_user({"id": user})
            tasks.append(background(work))
        sentry_sdk.set_user({"id": "carol"})
        gate.set()
        for task in tasks:
            task.join(WAIT)

    assert sorted(event["user"]["id"] for event in sent.events) == ["alice", "bob"]


def test_retries(app, sentry):
    """Only the last attempt is an event; each begins with the scope of the call."""
    sent = sentry()

    def work():
        sentry_sdk.add_breadcrumb(message=f"attempt {current_task().attempts}")
        sentry_sdk.set_tag(f"attempt{current_task().attempts}", "yes")
        fail()

    with app.app_context():
        background.using(retries=2, backoff=0)(work).join(WAIT)

    (event,) = sent.events
    assert crumbs(event) == ["attempt 3"]
    assert event["tags"] == {"attempt3": "yes"}
    assert event["contexts"]["asok"]["attempt"] == 3


def test_without_the_events_of_the_log(app, sentry):
    """The error is sent where Sentry makes no events of log records, and where its own deduplication is off."""
    sent = sentry(logging={"event_level": None}, disabled_integrations=[DedupeIntegration])

    with app.app_context():
        background(fail).join(WAIT)

    assert [event["exception"]["values"][-1]["value"] for event in sent.events] == ["no stock"]


def test_log_of_a_task_that_is_not_its_failure(app, sentry):
    """Other errors that are logged in a task are events, and warnings are breadcrumbs, also those of a recipe."""
    sent = sentry()

    def work():
        log(logging.WARNING, "slow", logger="asok.mail")
        log(logging.ERROR, "odd %s", "answer")
        fail()

    with app.app_context():
        background(work).join(WAIT)

    odd, failed = sent.events
    assert odd["logentry"]["formatted"] == "odd answer"
    assert crumbs(odd) == ["slow"]
    assert crumbs(failed) == ["slow", "odd answer"]


def test_abandoned(threads_app, sentry, gate):
    """A task that a shutdown leaves behind is an event, with the user of its caller."""
    sent = sentry()
    began = threading.Event()

    def work():
        began.set()
        gate.wait(WAIT)

    with threads_app.app_context():
        sentry_sdk.set_user({"id": "alice"})
        background(work)
        assert began.wait(WAIT)
        FlaskAsok().close(threads_app, 0)

    (event,) = sent.events
    assert event["user"]["id"] == "alice"
    assert "abandoned while running" in event["logentry"]["formatted"]


def test_run_in_place(threads_app, sentry):
    """A task that another one runs in its place has scopes of its own, and gives the other's back."""
    sent = sentry(traces_sample_rate=1.0)
    threads_app.extensions["asok"].backend.queues["default"] = 1

    def inner():
        sentry_sdk.set_tag("inner", "yes")

    def outer():
        sentry_sdk.set_tag("outer", "yes")
        background(inner).join(WAIT)
        fail()

    with threads_app.app_context():
        background(outer).join(WAIT)

    (event,) = sent.events
    assert event["tags"] == {"outer": "yes"}
    inner_one, outer_one = sent.transactions
    assert (inner_one["transaction"].rpartition(".")[2], outer_one["transaction"].rpartition(".")[2]) == (
        "inner",
        "outer",
    )
    assert inner_one["tags"] == {"outer": "yes", "inner": "yes"}
    assert trace_of(inner_one) == trace_of(outer_one)


# Where Sentry traces


def test_spans(app, sentry):
    """The call is a span of the request's transaction, and the attempt a transaction of its own in the same trace."""
    sent = sentry(traces_sample_rate=1.0)

    def work():
        with sentry_sdk.start_span(op="shop", name="count"):
            pass

    tasks = add_view(app, work)
    app.test_client().post("/go/alice")
    (task,) = tasks

    of_task, of_request = sorted(sent.transactions, key=lambda one: one["contexts"]["trace"]["op"] == "http.server")
    label = f"{__name__}.test_spans.<locals>.work"
    assert of_task["transaction"] == label
    assert of_task["transaction_info"]["source"] == "task"
    assert of_task["contexts"]["trace"]["op"] == "queue.task.asok"
    assert of_task["contexts"]["trace"]["status"] == "ok"
    assert trace_of(of_task) == trace_of(of_request)
    (publish,) = [span for span in of_request["spans"] if span["op"] == "queue.publish"]
    assert of_task["contexts"]["trace"]["parent_span_id"] == publish["span_id"]
    assert publish["data"]["messaging.message.id"] == task.id
    assert publish["data"]["messaging.destination.name"] == "default"
    process, own = of_task["spans"]
    assert (process["op"], process["description"]) == ("queue.process", label)
    assert process["data"]["messaging.message.id"] == task.id
    assert process["data"]["messaging.message.retry.count"] == 0
    assert process["data"]["messaging.message.receive.latency"] >= 0
    assert (own["op"], own["parent_span_id"]) == ("shop", process["span_id"])


def test_spans_after_the_response(threads_app, sentry, gate):
    """A task that goes on after the response loses none of its spans."""
    sent = sentry(traces_sample_rate=1.0)
    tasks = []

    def work():
        gate.wait(WAIT)
        with sentry_sdk.start_span(op="shop", name="late"):
            pass

    @threads_app.get("/")
    def view():
        tasks.append(background(work))
        return ""

    threads_app.test_client().get("/")
    gate.set()
    tasks[0].join(WAIT)

    of_request, of_task = sent.transactions
    assert [span["op"] for span in of_task["spans"]] == ["queue.process", "shop"]
    assert trace_of(of_task) == trace_of(of_request)


def test_status_of_a_failure(app, sentry):
    """An attempt that raises is marked, one that is retried too; the error belongs to the transaction."""
    sent = sentry(traces_sample_rate=1.0)

    with app.app_context():
        background.using(retries=1, backoff=0)(fail).join(WAIT)

    assert [one["contexts"]["trace"]["status"] for one in sent.transactions] == ["internal_error"] * 2
    retries = [one["spans"][0]["data"]["messaging.message.retry.count"] for one in sent.transactions]
    assert retries == [0, 1]
    (event,) = sent.events
    assert trace_of(event) == trace_of(sent.transactions[-1])


def test_caller_that_was_not_sampled(app, sentry):
    """Of a request that Sentry does not sample its tasks are not sampled either."""
    sent = sentry(traces_sampler=lambda about: 0.0 if "wsgi_environ" in about else about["parent_sampled"])
    add_view(app, int)

    app.test_client().post("/go/alice")

    assert sent.transactions == []


def test_no_spans_if_not_wanted(make_app, backend, sentry):
    """`ASOK_SENTRY_SPANS = False`: no spans; the errors are as ever, and the request keeps its name."""
    sent = sentry(traces_sample_rate=1.0)
    app = make_app(ASOK_SENTRY_SPANS=False, **backend)
    add_view(app, fail)

    app.test_client().post("/go/alice")

    (of_request,) = sent.transactions
    assert (of_request["transaction"], of_request["spans"]) == ("go", [])
    (event,) = sent.events
    assert (event["transaction"], trace_of(event)) == (f"{__name__}.fail", trace_of(of_request))


def test_no_spans_where_they_are_streamed(app, sentry):
    """Where Sentry streams spans there are none of ours, and the scopes are as ever."""
    sent = sentry(traces_sample_rate=1.0, _experiments={"trace_lifecycle": "stream"})
    add_view(app, fail)

    app.test_client().post("/go/alice")

    (event,) = sent.events
    assert (event["user"]["id"], event["tags"]["asked_by"]) == ("alice", "alice")


# What it must not do


def test_a_tool_that_raises(app, sentry, monkeypatch, caplog):
    """A tool that raises is logged, and the task runs, retries and fails as without it."""
    sentry(traces_sample_rate=1.0)
    monkeypatch.setattr(sentry_sdk, "start_transaction", lambda *args, **kwargs: 1 / 0)

    with app.app_context():
        assert background(int).result(WAIT) == 0

    assert caplog.messages == ["Tracing of background task int failed: ZeroDivisionError('division by zero')"]
    assert caplog.records[0].task_name == "int"


def test_keeps_nothing_alive(threads_app, sentry):
    """When a failed task is settled, nothing of its caller's scope is kept, without the garbage collector."""
    sentry(traces_sample_rate=1.0)

    class Environ:
        pass

    kept = []
    gc.collect()
    gc.disable()
    try:
        with threads_app.app_context(), sentry_sdk.isolation_scope() as scope:
            environ = Environ()
            kept.append(weakref.ref(environ))
            scope.add_event_processor(lambda event, hint, environ=environ: event)
            task = background.using(retries=1, backoff=0)(fail)
            task.join(WAIT)
            scope.clear()
            del environ, scope
        threads_app.extensions["asok"].close(WAIT)
        assert task.state == "failed"
        assert kept[0]() is None
    finally:
        gc.enable()


def test_with_all_integrations():
    """With everything that Sentry turns on by itself an error is sent once, with the user of its request."""
    script = """
        import sentry_sdk
        from flask import Flask
        from flask_asok import FlaskAsok, background
        from sentry_sdk.transport import Transport

        class Print(Transport):
            def capture_envelope(self, envelope):
                for item in envelope.items:
                    if item.type == "event":
                        event = item.payload.json
                        print(event["user"]["id"], event["exception"]["values"][0]["value"])

        sentry_sdk.init("https://key@sentry.example/1", transport=Print)
        app = Flask("shop")
        FlaskAsok(app)

        def fail(text):
            raise ValueError(text)

        @app.get("/<user>")
        def view(user):
            sentry_sdk.set_user({"id": user})
            background(fail, f"of {user}").join(20)
            return ""

        for user in ("alice", "bob"):
            app.test_client().get(f"/{user}")
    """
    script = "\n".join(line[8:] for line in script.splitlines())

    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)

    assert ended.stdout == "alice of alice\nbob of bob\n", ended.stderr


def test_not_begun(app):
    """An SDK that is there and was not begun changes nothing."""
    assert not sentry_sdk.get_client().is_active()

    with app.app_context():
        task = background(fail)
        assert isinstance(task.exception(WAIT), ValueError)

    assert task.tracing is None


@pytest.mark.parametrize("text", ["no stock", "x" * 100_000])
def test_error_of_any_length(app, sentry, text):
    """The text of the error may have any length."""
    sent = sentry()

    with app.app_context():
        background(fail, text).join(WAIT)

    assert len(sent.events) == 1


def test_periodic_run(sentry, tmp_path):
    """A run that the clock starts is a transaction of its own, without a request, and its error has none either."""
    sent = sentry(traces_sample_rate=1.0)
    app, asok, tasks = Flask("shop"), FlaskAsok(), []
    app.config.from_mapping(SECRET_KEY="a secret of the tests", ASOK_STORE=str(tmp_path / "asok.sqlite3"))
    asok.periodic(every=60, name="nightly")(fail)
    asok.init_app(app)
    clock = state_of(app).kept(Clock)

    def keep(app, task):
        tasks.append(task)

    with task_queued.connected_to(keep, app):
        for now in (1_000_000_000.0, 1_000_000_090.0):
            clock.now = lambda now=now: now
            clock.look(app)
    (task,) = tasks
    task.join(WAIT)
    asok.close(app, WAIT)

    (event,) = sent.events
    assert "request" not in event
    assert event["transaction"] == f"{__name__}.fail"
    assert [one["transaction"] for one in sent.transactions] == [event["transaction"]]
    assert all("request" not in one for one in sent.transactions)
