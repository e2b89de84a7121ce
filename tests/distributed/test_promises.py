"""The same promises on every backend: threads, immediate, and workers in other processes by each engine."""

import json
import os
import threading
from collections import Counter, OrderedDict, defaultdict, deque, namedtuple
from datetime import UTC, date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from pathlib import Path, PosixPath, PurePosixPath, PureWindowsPath
from uuid import UUID
from zoneinfo import ZoneInfo

import jobs
import pytest
from jobs import lines
from markupsafe import Markup
from werkzeug.datastructures import CombinedMultiDict, ImmutableMultiDict, MultiDict

from flask_asok import FlaskAsok, TaskCancelled, TaskFailed, background, resize_image
from flask_asok.testing.promises import BackendPromises

asok = FlaskAsok()

PARIS = ZoneInfo("Europe/Paris")


BROKERS = ["redis", "rabbitmq"]

ENGINES = [*BROKERS, "postgres"]

elsewhere = pytest.mark.parametrize("config", ENGINES, indirect=True)
"""For what only tasks in other processes can do, or cannot; see `Backend.distributed` and the page about Celery."""

written_down = pytest.mark.parametrize("config", ["durable", *ENGINES], indirect=True)
"""For what holds of a call that is a message: it is sent to another process, or kept for one."""

with_delays = pytest.mark.parametrize("config", ["threads", "durable", *ENGINES], indirect=True)
"""For what needs time between the call and the attempt, which the immediate backend does not have."""


@pytest.fixture(scope="session", params=["threads", "durable", "immediate", *ENGINES])
def config(request, redis, tmp_path_factory):
    """What chooses each backend in turn; "durable" is threads that write each call down."""
    if request.param == "durable":
        store = str(tmp_path_factory.mktemp("store") / "asok.sqlite3")
        return {"ASOK_BACKEND": "threads", "ASOK_DURABLE": True, "ASOK_TRACKED": True, "ASOK_STORE": store}
    if request.param == "postgres":
        return request.getfixturevalue("postgres_config")
    if request.param in BROKERS:
        broker = redis if request.param == "redis" else request.getfixturevalue("rabbitmq")
        return {"ASOK_CELERY": {"broker_url": broker.url, "result_backend": redis.url}}
    return {"ASOK_BACKEND": request.param}


class TestCelery(BackendPromises):
    """What the package promises of every backend, with a worker in another process."""

    @pytest.fixture(params=BROKERS)
    def config(self, request, redis):
        broker = redis if request.param == "redis" else request.getfixturevalue("rabbitmq")
        return {"ASOK_CELERY": {"broker_url": broker.url, "result_backend": redis.url}}

    @pytest.fixture
    def make_app(self, config, start_shared):
        start_shared(config)

        return lambda **more: jobs.create_app(**config, **more)


def test_result(ctx):
    """The task answers with what the function returned."""
    task = background(jobs.add, 1, b=2)

    assert task.result(20) == 3
    assert (task.state, task.attempts, task.is_alive()) == ("succeeded", 1, False)
    assert task.enqueued_at <= task.started_at <= task.finished_at
    assert isinstance(task, threading.Thread)


def test_arguments_travel(ctx):
    """What Flask applications pass around arrives as it was, and comes back so."""
    values = [
        None, True, 1, 1.5, "text é 😀", [1, [2]], {"a": {"b": 1}}, {1: "one", (2, 3): "pair"}, (1, 2), {1, 2},
        frozenset({"a"}), b"\x00\xff", datetime(2026, 4, 4, 14, 32, 1, tzinfo=UTC), date(2026, 4, 4), time(14, 32),
        timedelta(days=1, microseconds=3), Decimal("1.10"), UUID(int=7), Path("/tmp/a"), jobs.Colour.RED,
        jobs.Order(7, jobs.Colour.RED), MultiDict([("a", "1"), ("a", "2")]), ImmutableMultiDict([("a", "1")]), jobs.add,
        {"__asok__": "not a tag"}, resize_image, 2**20_000, -(2**20_000), float("inf"), "\ud800", bytearray(b"\x00"),
        datetime(2026, 10, 25, 2, 30, fold=1, tzinfo=PARIS), time(2, tzinfo=PARIS),
        datetime(2026, 4, 4, tzinfo=timezone(timedelta(hours=5, minutes=45))), datetime(2026, 4, 4, 1, 2, 3, 4),
        jobs.Rights.READ | jobs.Rights.WRITE, jobs.Rights(0), jobs.Price(1.5, "EUR"), {"size": (800, 600)},
        {"a": {frozenset({1}), b"b"}},
        {(1, "a"), (2, "b")}, {date(2026, 4, 4): [frozenset({(1,)})]}, MultiDict([("a", Decimal(1)), ("a", (1,))]),
    ]  # fmt: skip

    *returned, kwargs = background(jobs.echo, *values, key=values[-4]).result(20)

    assert returned == values
    assert [type(value) for value in returned] == [type(value) for value in values]
    assert kwargs == {"key": values[-4]}


def test_times_keep_their_zone(ctx):
    """A time arrives in its time zone and not with an offset alone; what is not a number arrives as that."""
    summer = datetime(2026, 10, 25, 2, 30, tzinfo=PARIS)

    first, second, nan, _ = background(jobs.echo, summer, summer.replace(fold=1), float("nan")).result(20)

    assert (first.tzinfo, first.fold, second.fold) == (summer.tzinfo, 0, 1)
    assert second.utcoffset() == first.utcoffset() - timedelta(hours=1)
    assert nan != nan


def test_kinds_are_kept(ctx):
    """What Python and Flask have several kinds of arrives as the kind that it was."""
    winter = timezone(timedelta(hours=1), "CET")
    values = [
        PureWindowsPath("C:/a"), PurePosixPath("/a"), jobs.Size.LARGE, jobs.Level.HIGH, jobs.Access.READ,
        datetime(2026, 1, 1, tzinfo=winter), time(2, tzinfo=winter), datetime(2026, 1, 1, tzinfo=timezone.utc),  # noqa: UP017
        jobs.Outer.Inner.FIRST, CombinedMultiDict([MultiDict([("a", "1")]), MultiDict([("a", "2")])]), -0.0,
        {"z": 1, "a": {"y": 1, "b": 2}, "m": 3}, {2: "b", 1: "a", None: True, False: [()]}, [(1, [2, (3,)])],
        Decimal("-0"), Decimal("1E+3"), timedelta(-1, 5),
    ]  # fmt: skip

    *returned, _ = background(jobs.echo, *values).result(20)

    # No set is among them: the order of one that has come back may be another.
    assert [repr(value) for value in returned] == [repr(value) for value in values]
    assert [type(value) for value in returned] == [type(value) for value in values]
    assert [list(value) for value in returned[11:13]] == [list(value) for value in values[11:13]]
    assert returned[5].tzname() == "CET"


class Text(str):
    pass


class Folder(PosixPath):
    pass


class Form(MultiDict):
    pass


class Zone(tzinfo):
    def utcoffset(self, moment):
        return timedelta(hours=1)


class Extra(dict):
    pass


Point = namedtuple("Point", "x y")


def with_attribute():
    order = jobs.Order(7, jobs.Colour.RED)
    order.note = "not a field"
    return order


@written_down
@pytest.mark.parametrize(
    "value",
    [
        Text("a"), Markup("<b>"), Folder("/a"), Form([("a", "1")]), Extra(a=1), OrderedDict(a=1), Point(1, 2),
        defaultdict(list, a=[1]), Counter("aab"), memoryview(b"a"), deque([1]), range(3), 1j, with_attribute(),
        jobs.Shelf({"a": 1}), datetime(2026, 1, 1, tzinfo=Zone()), time(2, tzinfo=Zone()),
        type("Whole", (int,), {})(3), type("Half", (float,), {})(0.5), type("Raw", (bytes,), {})(b"a"),
    ],
    ids=lambda value: type(value).__name__,
)  # fmt: skip
@pytest.mark.parametrize("inside", [lambda value: value, lambda value: {"key": [value]}], ids=["alone", "inside"])
def test_no_kind_is_changed(ctx, value, inside):
    """What would arrive as another kind of value is refused at the call, alone and inside of another one."""
    with pytest.raises(TypeError, match=r"Argument 1 of echo (is a|cannot travel)"):
        background(jobs.echo, inside(value))


class Thing:
    def method(self):
        pass


@written_down
@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: background(lambda: None), "cannot be imported by that name: a lambda"),
        (lambda: background(Thing().method), "cannot be imported by that name: .* a bound method"),
        (
            lambda: background(os.getcwd),
            r"is of no module that ASOK_TASK_MODULES allows: .* Add 'posix' to ASOK_TASK_MODULES",
        ),
        (lambda: background(jobs.echo, 1, object()), "Argument 2 of echo is an object, which cannot travel"),
        (lambda: background(jobs.echo, user=[Thing()]), "Argument 'user' of echo is a Thing, .* Pass plain values"),
        (lambda: background(jobs.echo, user=jobs.endless()), "Argument 'user' of echo cannot travel .* holds itself"),
        (
            lambda: background(jobs.echo, key=lambda: None),
            "Argument 'key' of echo cannot travel to a worker: .* a lambda",
        ),
    ],
)
def test_what_cannot_travel(ctx, make, text):
    """It is refused at the call, by the argument's name, with what to do; nothing is sent."""
    before = [summary.id for summary in asok.tasks(limit=1)]

    with pytest.raises(TypeError, match=text):
        make()

    assert [summary.id for summary in asok.tasks(limit=1)] == before


def test_error(ctx):
    """The error of the function is raised here as what it was there."""
    task = background(jobs.close_shop, "at six")

    with pytest.raises(jobs.ShopClosed, match="at six"):
        task.result(20)
    assert task.state == "failed"
    assert asok.get(task.id).error == "ShopClosed('at six')"


@elsewhere
@pytest.mark.parametrize(
    ("fn", "text"),
    [
        (jobs.raise_unnamed, r"Unnamed\(only here\)"),
        (jobs.leave, r"SystemExit\(3\)"),
        (jobs.raise_mute, "Mute, whose text cannot be had"),
    ],
)
def test_error_without_a_name(ctx, fn, text):
    """An error that cannot be made again is told by its text; the worker goes on, even after SystemExit."""
    with pytest.raises(TaskFailed, match=text):
        background(fn).result(20)
    assert background(jobs.add, 1).result(20) == 1


@elsewhere
def test_result_that_cannot_travel(ctx):
    """A value that cannot come back says so when asked for."""
    with pytest.raises(TypeError, match="What not_json returned is an object"):
        background(jobs.not_json).result(20)
    with pytest.raises(TypeError, match=r"What endless returned cannot travel .* holds itself"):
        background(jobs.endless).result(20)
    assert background(jobs.factorial).result(20) == 2**20_000


def test_what_a_task_sees(app, worker):
    """Values of g, to another process plain ones; links to the caller's host; and no request."""
    with app.test_request_context("/", base_url="https://shop.example/prefix"):
        from flask import g

        g.user, g.thing = 7, Thing()
        task = background.using(queue="mail")(jobs.see)

        seen = task.result(20)

    distributed = app.extensions["asok"].backend.distributed
    assert (seen.pop("pid") != os.getpid()) is distributed
    assert seen.pop("kept") == (["user"] if distributed or app.config["ASOK_DURABLE"] else ["thing", "user"])
    assert seen == {
        "user": 7,
        "url": "https://shop.example/prefix/page",
        "id": task.id,
        "queue": "mail",
        "request": False,
    }


def test_trace(ctx):
    """A task goes on with the OpenTelemetry trace of its caller."""
    from opentelemetry.sdk.trace import TracerProvider

    with TracerProvider().get_tracer("test").start_as_current_span("page") as span:
        task = background(jobs.trace_id)

    assert task.result(20) == span.get_span_context().trace_id


def test_retries(ctx, tmp_path):
    """A task is tried again after its backoff, under the same id, as often as asked for."""
    task = background.using(retries=3, backoff=[0.1, 0.2], retry_on=ConnectionError)(
        jobs.flaky, tmp_path / "runs", succeed_at=3
    )

    assert task.result(20) == 3
    assert lines(tmp_path / "runs") == ["1", "2", "3"]
    assert task.attempts == 3


def test_retries_run_out(ctx, tmp_path):
    """With no retry left the task fails with its last error; other errors are not retried at all."""
    task = background.using(retries=1, backoff=0.1)(jobs.flaky, tmp_path / "runs", succeed_at=9)
    other = background.using(retries=5, retry_on=OSError)(jobs.close_shop, "now")

    assert isinstance(task.exception(20), ConnectionError)
    assert lines(tmp_path / "runs") == ["1", "2"]
    assert isinstance(other.exception(20), jobs.ShopClosed)
    assert other.attempts == 1


@with_delays
def test_attempts_of_a_task_that_waits(ctx, tmp_path, wait_until):
    """Between two attempts the task tells of the one that was made, from here and by its id."""
    task = background.using(retries=1, backoff=600)(jobs.flaky, tmp_path / "runs", succeed_at=2)

    # On threads the task itself waits a moment before its record says so.
    wait_until(lambda: task.state == asok.get(task.id).state == "waiting", what="the first attempt")

    assert (task.attempts, asok.get(task.id).attempts) == (1, 1)
    assert asok.get(task.id).error == "ConnectionError('not yet')"
    assert task.cancel()


def test_retry_asked_for(ctx, tmp_path):
    """A task that raises Retry is run again when it said."""
    task = background.using(retries=1)(jobs.ask_for_retry, tmp_path / "runs")

    assert task.result(20) == "done"
    assert lines(tmp_path / "runs") == ["1", "2"]


@with_delays
def test_cancel(ctx, tmp_path):
    """A task that waits can be cancelled, from here or by its id; it has not run, and is over."""
    task = background.using(delay=600)(jobs.flaky, tmp_path / "runs", succeed_at=1)
    other = background.using(delay=600)(jobs.flaky, tmp_path / "runs", succeed_at=1)
    assert task.state == "waiting"

    assert task.cancel()
    assert asok.cancel(other.id)

    with pytest.raises(TaskCancelled):
        task.result(20)
    assert other.state == "cancelled"
    assert lines(tmp_path / "runs") == []


def test_a_task_that_ran_cannot_be_cancelled(ctx):
    """cancel() is False once the task has begun."""
    task = background(jobs.add, 1)
    task.join(20)

    assert not task.cancel()
    assert task.state == "succeeded"


@written_down
def test_known_everywhere(ctx, config):
    """Any process that knows the id finds the task, and what became of it."""
    task = background.using(name="sum")(jobs.add, 1)
    task.join(20)
    elsewhere = jobs.create_app(**config)

    with elsewhere.app_context():
        summary = asok.get(task.id)
        unknown = asok.get("0" * 32)

    assert (summary.id, summary.name, summary.state, summary.attempts) == (task.id, "sum", "succeeded", 1)
    assert unknown is None
    elsewhere.extensions["asok"].close(1)


def test_waiting_in_a_task_cannot_deadlock(ctx):
    """Tasks that wait for tasks of their own full queue run those in place, at any depth."""
    assert background(jobs.add_all, 3).result(60) == 8


@elsewhere
def test_commands(ctx, config, wait_until):
    """status shows workers and queues; failed, retry and cancel work by id."""
    run = ctx.test_cli_runner().invoke
    task = background(jobs.close_shop, "early")
    task.join(20)

    def look():
        """Return the status once the worker is in it: a busy one may not answer within the second that it has."""
        status = json.loads(run(args=["asok", "status", "--json"]).output)
        return status["workers"] and status

    status = wait_until(look, what="the answer of the worker")
    failed = run(args=["asok", "failed"]).output
    retried = run(args=["asok", "retry", task.id])
    again = background(jobs.add, 1)
    again.join(20)
    late = background.using(delay=60)(jobs.add, 1)

    assert len(status["workers"]) == 1
    assert status["queued"] == dict.fromkeys(("default", "webhooks", "images", "mail", "cache"), 0)
    url = config.get("ASOK_POSTGRES_URL") or config["ASOK_CELERY"]["broker_url"]
    assert "ASOK_CELERY" in status["config"] and url not in json.dumps(status)
    assert failed.splitlines()[0].split()[0] == task.id and "ShopClosed('early')" in failed
    assert retried.exit_code == 0, retried.output
    assert run(args=["asok", "retry", again.id]).exit_code == 1
    assert run(args=["asok", "cancel", again.id]).exit_code == 1
    assert run(args=["asok", "cancel", late.id]).output == f"Cancelled {late.id}.\n"
    assert late.state == "cancelled"
    assert f"pong from {status['backend']}" in run(args=["asok", "ping"]).output


def test_recipes(ctx, tmp_path):
    """The recipes run in a worker as they do in a thread: here a picture, in a folder that both see."""
    from PIL import Image

    path = tmp_path / "photo.jpg"
    Image.new("RGB", (1600, 1200), "teal").save(path)

    picture = background(resize_image, path).result(30)

    assert (picture.width, picture.height) == (800, 600)
    with Image.open(path) as written:
        assert written.size == (800, 600)


@elsewhere
def test_picture_in_a_folder_of_the_web_server(ctx, tmp_path):
    """A picture that the worker cannot see is told as that: web and workers must share the folder."""
    from PIL import Image

    path = tmp_path / "photo.jpg"
    Image.new("RGB", (1600, 1200), "teal").save(path)
    with ctx.test_request_context():
        task = background.using(when="response")(resize_image, path)
        path.unlink()

    with pytest.raises(FileNotFoundError, match="Web and workers must share the folder"):
        task.result(30)


def test_recent_tasks_are_up_to_date(ctx, wait_until):
    """The list of recent tasks tells of each what it is by now, whoever holds its Task."""
    number = background(jobs.add, 1).id
    wait_until(lambda: asok.get(number).state == "succeeded", what="the task")

    assert {summary.id: summary.state for summary in asok.tasks()}[number] == "succeeded"
