"""The scheduler of the threads backend, with a time that the test sets."""

import threading
import weakref

import pytest

from flask_asok import FlaskAsok, background
from flask_asok.backends.scheduler import MOST_STALE, Scheduler

WAIT = 10


class Time:
    """A time that stands still until it is told to go on."""

    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


class Actions:
    """Notes which action was called for which task, and lets the test wait for it."""

    def __init__(self):
        self.done = []
        self._called = threading.Semaphore(0)

    def note(self, task, attempt):
        self.done.append(task.name)
        self._called.release()

    def fail(self, task, attempt):
        self._called.release()
        raise SystemExit("boom")

    def wait(self, count=1):
        for _ in range(count):
            assert self._called.acquire(timeout=WAIT)


@pytest.fixture
def time():
    return Time()


@pytest.fixture
def scheduler(time):
    scheduler = Scheduler(now=time)
    yield scheduler
    scheduler.close()


@pytest.fixture
def actions():
    return Actions()


@pytest.fixture
def waiting(threads_app):
    """Make tasks that wait."""

    def make(name):
        with threads_app.app_context():
            return background.using(delay=3600, name=name)(int)

    return make


def test_in_the_order_of_time(scheduler, time, actions, waiting):
    """Each action comes when its time has come, the earliest first, and those of the same time in order."""
    for seconds, name in ((30, "c"), (10, "a"), (10, "b"), (60, "d")):
        scheduler.at(seconds, actions.note, waiting(name))

    time.now += 9.9
    scheduler.wake()
    scheduler.at(0, actions.note, waiting("now"))
    actions.wait()
    before = list(actions.done)
    time.now += 20.1
    scheduler.wake()
    actions.wait(3)

    assert before == ["now"]
    assert actions.done == ["now", "a", "b", "c"]
    assert len(scheduler) == 1


def test_a_raising_action(scheduler, actions, waiting, caplog):
    """An action that raises, whatever it raises, is logged, and the next one comes."""
    scheduler.at(0, actions.fail, waiting("first"))
    scheduler.at(0, actions.note, waiting("second"))
    actions.wait(2)

    assert actions.done == ["second"]
    assert caplog.messages == ["Timer of background task first failed: SystemExit('boom')"]


def test_the_attempt_is_told(scheduler, waiting):
    """The action learns during which attempt it was asked for."""
    told = []
    called = threading.Event()

    def note(task, attempt):
        told.append(attempt)
        called.set()

    scheduler.at(0, note, waiting("first"))
    called.wait(WAIT)

    assert told == [0]


def test_no_thread_before_the_first_entry(scheduler, actions, waiting):
    """A scheduler has no thread until something waits."""
    before = len(scheduler), [thread.name for thread in threading.enumerate() if thread.name == "asok-scheduler"]
    scheduler.wake()

    scheduler.at(0, actions.note, waiting("first"))
    actions.wait()

    assert before == (0, [])
    assert actions.done == ["first"]


def test_drain(scheduler, time, actions, waiting):
    """A closed scheduler gives back the tasks that still wait, the next one first, and calls no action any more."""
    tasks = {name: waiting(name) for name in ("b", "a", "gone")}
    scheduler.at(60, actions.note, tasks["b"])
    scheduler.at(30, actions.note, tasks["a"])
    scheduler.at(90, actions.note, tasks["gone"])
    tasks["gone"].cancel()

    scheduler.close()
    time.now += 3600
    drained = [task.name for task in scheduler.drain()]

    assert drained == ["a", "b"]
    assert list(scheduler.drain()) == []
    assert actions.done == []
    assert len(scheduler) == 0


def test_closing_an_unused_scheduler():
    """A scheduler that was never used has nothing to close, and nothing waits in it."""
    scheduler = Scheduler()

    scheduler.close()

    assert list(scheduler.drain()) == []


def test_in_the_order_of_time_when_late(scheduler, time, actions, waiting, gate):
    """What has become due while the scheduler did something else comes in the order of time too."""
    begun = threading.Event()

    def hold(task, attempt):
        begun.set()
        gate.wait(WAIT)

    scheduler.at(0, hold, waiting("first"))
    assert begun.wait(WAIT)
    scheduler.at(20, actions.note, waiting("later"))
    scheduler.at(10, actions.note, waiting("sooner"))
    time.now += 30
    gate.set()
    actions.wait(2)

    assert actions.done == ["sooner", "later"]


def test_what_is_offered_to_a_closed_scheduler(scheduler, actions, waiting):
    """A closed scheduler keeps what it is offered for `drain`."""
    scheduler.close()

    scheduler.at(0, actions.note, waiting("late"))

    assert [task.name for task in scheduler.drain()] == ["late"]
    assert actions.done == []


def test_closing_in_an_action(scheduler, waiting):
    """An action may close the scheduler, whose thread does not wait for itself."""
    closed = threading.Event()

    def close(task, attempt):
        scheduler.close()
        closed.set()

    scheduler.at(0, close, waiting("last"))

    assert closed.wait(WAIT)


def test_nothing_is_kept_of_settled_tasks(scheduler, threads_app):
    """Of tasks that are gone before they are due little is kept, however many there are."""

    class Action:
        def __call__(self, task, attempt):
            pass

    kept = weakref.WeakSet()

    def watch(task):
        action = Action()
        kept.add(action)
        scheduler.at(3600, action, task, weak=True)

    with threads_app.app_context():
        for _ in range(4):
            tasks = [background(int) for _ in range(MOST_STALE)]
            for each in tasks:
                watch(each)
                each.join(WAIT)
        del tasks, each
    # A worker holds its last task a moment longer.
    FlaskAsok().close(threads_app, WAIT)
    scheduler.close()

    assert len(scheduler) == 0
    assert len(kept) < 2 * MOST_STALE
