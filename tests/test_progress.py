"""What a task reports while it runs, and how it is asked to stop."""

import asyncio
import enum
import json
import logging
import threading
import time
from contextvars import copy_context
from datetime import datetime
from types import SimpleNamespace

import pytest
from markupsafe import Markup

from flask_asok import (
    FlaskAsok,
    Progress,
    Retry,
    TaskCancelled,
    background,
    current_task,
    report_progress,
    track,
)
from flask_asok.signals import task_cancelled

asok = FlaskAsok()


@pytest.fixture
def clock(monkeypatch):
    """The monotonic clock of the reports, which stands still until a test moves it."""
    now = [1_000.0]
    monkeypatch.setattr("flask_asok.reporting.time", SimpleNamespace(monotonic=lambda: now[0], time=time.time))
    return now


def reports_of(fn):
    """Run `fn` in a task of the current application, and return what it reported, as (done, total, text)."""
    reports = []

    def run():
        task = current_task()
        # Told of each: the limit of one a second is another promise.
        task.reporter = lambda progress: reports.append((progress.done, progress.total, progress.text))
        fn()

    background(run).result(10)
    return reports


# report_progress


def test_outside_a_task(app):
    """Code that reports its progress may be called outside of a task, and nothing happens."""
    with app.app_context():
        report_progress(1, 2, "half")

        assert list(track([1, 2])) == [1, 2]


def test_progress(app):
    """What a task reports is seen at the Task, at its summary and in the JSON of both, and kept when it is settled."""
    with app.app_context():
        task = background(report_progress, 1, 4, "a quarter")
        task.result(10)

        progress = task.progress
        assert isinstance(progress, Progress)
        assert (progress.done, progress.total, progress.text, progress.fraction) == (1, 4, "a quarter", 0.25)
        assert asok.get(task.id).progress == progress
        assert task.as_dict()["progress"] == progress.as_dict()
        assert json.loads(json.dumps(task.as_dict())) == asok.get(task.id).as_dict()


def test_no_progress(app):
    """A task that reports nothing has no progress."""
    with app.app_context():
        task = background(int)
        task.result(10)

        assert task.progress is None and task.as_dict()["progress"] is None


def test_progress_at_once(threads_app, gate):
    """Each step is seen at once, while the task runs."""
    seen = threading.Event()

    def steps():
        for done in range(3):
            report_progress(done, 3)
        seen.set()
        gate.wait(10)

    with threads_app.app_context():
        task = background(steps)
        assert seen.wait(10)

        assert task.progress.done == 2


def test_reset_by_an_attempt(app):
    """The progress of the first attempt is not shown while the second one begins; it is while that waits."""
    seen = []

    def work():
        seen.append(current_task().progress)
        report_progress(5, 10)
        if current_task().attempts == 1:
            raise Retry(after=0)

    with app.app_context():
        task = background.using(retries=1)(work)
        task.result(10)

    assert seen == [None, None]


def test_late_report(app, gate):
    """What a thread reports that outlives its task changes nothing any more."""
    threads = []

    def late():
        gate.wait(10)
        report_progress(9, 9)

    def work():
        report_progress(1, 9)
        threads.append(threading.Thread(target=copy_context().run, args=(late,)))
        threads[0].start()

    with app.app_context():
        task = background(work)
        task.result(10)
    gate.set()
    threads[0].join(10)

    assert task.progress.done == 1


def test_kept_by_a_failure(app):
    """A task that failed shows how far it had come."""

    def work():
        report_progress(5, 10)
        raise ValueError

    with app.app_context():
        task = background(work)
        task.exception(10)

        assert task.progress.done == 5


class Size(enum.IntEnum):
    SMALL = 3


@pytest.mark.parametrize(("done", "total"), [(0, 0), (0.5, None), (10**300, 1), (Size.SMALL, Size.SMALL), (7, 3)])
def test_numbers(done, total):
    """Whole numbers and fractions can be reported, beyond the total as well, and are plain numbers for JSON."""
    progress = Progress.of(done, total, None, 0.0)

    assert type(progress.done) in (int, float)
    assert json.loads(json.dumps(progress.as_dict(), allow_nan=False))["done"] == done


@pytest.mark.parametrize("wrong", ["1", None, True, 1j, []], ids=repr)
def test_wrong_type(wrong):
    """What is no number is a TypeError that says which argument."""
    with pytest.raises(TypeError, match="done must be a number"):
        Progress.of(wrong, 1, None, 0.0)
    if wrong is not None:
        with pytest.raises(TypeError, match="total must be a number"):
            Progress.of(1, wrong, None, 0.0)


@pytest.mark.parametrize(
    "wrong",
    [-1, -0.5, float("nan"), float("inf"), 10**400, -(10**5000)],
    ids=lambda value: str(value)[:6] if isinstance(value, float) else "int",
)
def test_wrong_number(wrong):
    """A number that is negative, not finite or beyond all bounds is a ValueError."""
    with pytest.raises(ValueError, match="finite and not negative"):
        Progress.of(wrong, None, None, 0.0)
    with pytest.raises(ValueError, match="finite and not negative"):
        Progress.of(1, wrong, None, 0.0)


@pytest.mark.parametrize(("done", "total"), [(1, 0), (1, 5e-324), (1e308, 1e-308), (1, None)])
def test_no_fraction(done, total):
    """Where a fraction makes no sense it is None, never an infinity that JSON cannot say."""
    assert Progress.of(done, total, None, 0.0).fraction is None


@pytest.mark.parametrize("wrong", [1, b"half", ["half"]], ids=repr)
def test_wrong_text(wrong):
    """A text that is no str is a TypeError."""
    with pytest.raises(TypeError, match="text must be a str or None"):
        Progress.of(1, None, wrong, 0.0)


def test_text_of_users():
    """A text is cut, is never taken for markup, and can be written to any page, file or database."""
    text = Progress.of(1, None, Markup("<b>\ud800\0" + "x" * 300), 0.0).text

    assert type(text) is str and len(text) == 200
    assert text.startswith("<b>?\N{REPLACEMENT CHARACTER}x")


def test_wrong_report_in_a_task(app):
    """In a task a report of the wrong type raises there, and the progress stays as it was."""

    def work():
        report_progress(1)
        report_progress("2")

    with app.app_context():
        task = background(work)

        assert isinstance(task.exception(10), TypeError)
        assert task.progress.done == 1


# as_dict


def test_as_dict(app):
    """The JSON of a task has times with their zone, and no text of its error."""

    def work():
        raise ValueError("secret")

    with app.app_context():
        task = background.using(name="import", queue="mail")(work)
        task.exception(10)

    found = task.as_dict()
    assert list(found) == [
        "id", "name", "queue", "state", "attempts",
        "enqueued_at", "started_at", "finished_at", "scheduled_at", "progress",
    ]  # fmt: skip
    assert (found["id"], found["name"], found["queue"], found["state"]) == (task.id, "import", "mail", "failed")
    assert datetime.fromisoformat(found["finished_at"]) == task.finished_at
    assert found["finished_at"].endswith("+00:00")
    assert found["scheduled_at"] is None and "secret" not in json.dumps(found)


def test_as_dict_of_what_waits(threads_app):
    """What has not happened yet is None."""
    with threads_app.app_context():
        found = background.using(delay=60)(int).as_dict()

    assert (found["state"], found["attempts"]) == ("waiting", 0)
    assert found["started_at"] is found["finished_at"] is found["progress"] is None


# track


def test_track(app, clock):
    """`track` yields the items; it reports at the first one and at the end, with the total that len() tells."""
    with app.app_context():
        items = []

        reports = reports_of(lambda: items.extend(track("abc", text="Letters")))

    assert items == ["a", "b", "c"]
    assert reports == [(0, 3, "Letters")]  # A reporter hears of one a second.


def test_track_reports_each_second(app, clock):
    """However many items there are, one report a second is written."""

    def work():
        for item in track(range(10_000)):
            if item in (3_000, 7_000):
                clock[0] += 1

    with app.app_context():
        reports = reports_of(work)

    assert reports == [(0, 10_000, None), (3_001, 10_000, None), (7_001, 10_000, None)]


@pytest.mark.parametrize(
    ("items", "total", "expected"),
    [
        (lambda: [1, 2], None, 2),
        (lambda: iter([1, 2]), None, None),
        (lambda: (item for item in [1, 2]), 5, 5),
        (lambda: {1: 1, 2: 2}, None, 2),
        (lambda: [1, 2], 7.5, 7.5),
    ],
    ids=["list", "iterator", "generator", "dict", "told"],
)
def test_track_total(app, items, total, expected):
    """The total is what the caller says, else what len() says, else unknown; at the end all items are done."""

    def work():
        assert list(track(items(), total)) == [1, 2]

    with app.app_context():
        task = background(work)
        task.result(10)

    assert (task.progress.done, task.progress.total) == (2, expected)


def test_track_without_a_length(app):
    """What is too long for len(), or only seems to have one, is gone through all the same."""

    class Proxy:
        def __len__(self):
            raise TypeError

        def __iter__(self):
            return iter([1])

    with app.app_context():
        assert list(track(Proxy())) == [1]
        assert next(track(range(10**30))) == 0


def test_track_nothing(app):
    """Of an empty list the end is reported as well."""
    with app.app_context():
        task = background(lambda: list(track([])))
        task.result(10)

    assert (task.progress.done, task.progress.total) == (0, 0)


def leave(items):
    for _ in items:
        break


def close(items):
    next(items)
    next(items)
    items.close()


def fail(items):
    def loop():
        for item in items:
            if item == 2:
                raise ValueError("stop")

    with pytest.raises(ValueError, match="stop"):
        loop()


@pytest.mark.parametrize("how", [leave, close, fail])
def test_track_left_early(app, how, clock):
    """A loop that is left early does not claim to have come to its end."""
    with app.app_context():
        task = background(lambda: how(track([1, 2, 3, 4])))
        task.result(10)

    assert task.progress.done < 4


def test_track_a_broken_source(app):
    """An iterable that raises has not come to its end either."""

    def source():
        yield 1
        raise ValueError("broken")

    with app.app_context():
        task = background(lambda: list(track(source(), total=2)))

        assert isinstance(task.exception(10), ValueError)
        assert task.progress.done == 0


def test_track_async(app):
    """`async for` goes through what `track` makes of an async iterable."""
    seen = []

    async def source():
        for item in (1, 2, 3):
            await asyncio.sleep(0)
            yield item

    async def work():
        async for item in track(source(), total=3):
            seen.append(item)

    with app.app_context():
        task = background(work)
        task.result(10)

    assert seen == [1, 2, 3]
    assert (task.progress.done, task.progress.fraction) == (3, 1.0)


def test_track_async_left_early(app):
    """An async loop that is left early does not claim to have come to its end."""

    async def source():
        yield 1
        yield 2

    async def work():
        async for _ in track(source(), total=2):
            break

    with app.app_context():
        task = background(work)
        task.result(10)

    assert task.progress.done == 0


@pytest.mark.parametrize("wrong", [None, 5])
def test_track_no_iterable(wrong):
    """What cannot be looped over raises at the call."""
    with pytest.raises(TypeError, match="not iterable"):
        track(wrong)


# To be asked to stop


def loop(gate, started):
    """A step, a moment in which the test may ask to stop, and further steps."""
    report_progress(1, 3)
    started.set()
    gate.wait(10)
    for done in (2, 3):
        report_progress(done, 3)


def test_stop(threads_app, gate, caplog):
    """A running task that was asked to stop is cancelled by its next report, with a line at INFO and the signal."""
    caplog.set_level(logging.INFO)
    started, told = threading.Event(), []
    with threads_app.app_context(), task_cancelled.connected_to(lambda sender, task: told.append(task)):
        task = background.using(retries=3)(loop, gate, started)
        assert started.wait(10)

        assert not asok.cancel(task.id)
        assert asok.cancel(task.id, running=True)
        gate.set()
        task.join(10)

        assert (task.state, task.progress.done, task.attempts) == ("cancelled", 2, 1)
        assert told == [task]
        with pytest.raises(TaskCancelled):
            task.result(0)
        assert not asok.cancel(task.id, running=True)
    assert "asked to stop" in caplog.text and "ERROR" not in caplog.text


def test_stop_in_track(threads_app, gate):
    """`track` stops at the next item, and does not wait for the next second."""
    started, seen = threading.Event(), []

    def work():
        for item in track(range(100)):
            seen.append(item)
            if item == 5:
                started.set()
                gate.wait(10)

    with threads_app.app_context():
        task = background(work)
        assert started.wait(10)
        asok.cancel(task.id, running=True)
        gate.set()
        task.join(10)

    assert task.state == "cancelled" and seen == [0, 1, 2, 3, 4, 5]


def test_stop_again(threads_app, gate):
    """A task that swallows the request to stop meets it again at each further step."""
    started, met = threading.Event(), []

    def work():
        started.set()
        gate.wait(10)
        for done in range(3):
            try:
                report_progress(done)
            except TaskCancelled:
                met.append(done)
        return "did it all"

    with threads_app.app_context():
        task = background(work)
        assert started.wait(10)
        asok.cancel(task.id, running=True)
        gate.set()

        assert task.result(10) == "did it all"
    assert met == [0, 1, 2]


def test_cancelled_task_inside(threads_app):
    """A task that waits for another one which was cancelled has failed: nobody asked it to stop."""

    def work():
        other = background.using(delay=60)(int)
        other.cancel()
        other.result(10)

    with threads_app.app_context():
        task = background(work)

        assert isinstance(task.exception(10), TaskCancelled)
        assert task.state == "failed"


def test_reporter(app, clock):
    """A backend hears of the progress once a second, and may stop the task with its answer."""
    heard = []

    def work():
        task = current_task()
        task.reporter = lambda progress: heard.append(progress.done) or len(heard) == 3
        for done in range(100):
            report_progress(done)
            clock[0] += 0.25

    with app.app_context():
        task = background(work)
        task.join(10)

    assert heard == [0, 4, 8]
    assert task.state == "cancelled"


# asok.cancel


def test_cancel_queued(threads_app, occupy, make_app):
    """A queued task is cancelled by its id, of its own application only."""
    app = make_app(ASOK_QUEUES={"default": 1})
    with app.app_context():
        occupy()
        task = background(int)
        with threads_app.app_context():
            assert not asok.cancel(task.id)

        assert asok.cancel(task.id)

        assert task.state == "cancelled"
        assert not asok.cancel(task.id)


def test_cancel_waiting(threads_app):
    """A task that waits for its delay, or for the response, is cancelled by its id."""
    with threads_app.test_request_context():
        waiting = [background.using(delay=60)(int), background.using(when="response")(int)]

        assert [asok.cancel(task.id) for task in waiting] == [True, True]
        assert [task.state for task in waiting] == ["cancelled", "cancelled"]


def test_cancel_unknown(app):
    """An id that nobody has cancels nothing."""
    with app.app_context():
        assert not asok.cancel("0" * 32, running=True)


def test_cancel_on_its_way(threads_app, monkeypatch):
    """A task is found at the moment, too, when a thread has taken it out of its queue and does not run it yet."""
    with threads_app.app_context():
        task = background.using(delay=60)(int)
        monkeypatch.setattr(threads_app.extensions["asok"].backend, "alive", list)

        assert asok.cancel(task.id)
        assert task.state == "cancelled"
