"""The clock of the threads backend, with a time that the test sets."""

import threading

import pytest

from flask_asok import background
from flask_asok.backends.clock import Clock

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
def clock(time):
    clock = Clock(now=time)
    yield clock
    clock.close()


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


def test_in_the_order_of_time(clock, time, actions, waiting):
    """Each action comes when its time has come, the earliest first, and those of the same time in order."""
    for seconds, name in ((30, "c"), (10, "a"), (10, "b"), (60, "d")):
        clock.at(seconds, actions.note, waiting(name))

    time.now += 9.9
    clock.wake()
    clock.at(0, actions.note, waiting("now"))
    actions.wait()
    before = list(actions.done)
    time.now += 20.1
    clock.wake()
    actions.wait(3)

    assert before == ["now"]
    assert actions.done == ["now", "a", "b", "c"]
    assert len(clock) == 1


def test_a_raising_action(clock, actions, waiting, caplog):
    """An action that raises, whatever it raises, is logged, and the next one comes."""
    clock.at(0, actions.fail, waiting("first"))
    clock.at(0, actions.note, waiting("second"))
    actions.wait(2)

    assert actions.done == ["second"]
    assert caplog.messages == ["Timer of background task first failed: SystemExit('boom')"]


def test_the_attempt_is_told(clock, waiting):
    """The action learns during which attempt it was asked for."""
    told = []
    called = threading.Event()

    def note(task, attempt):
        told.append(attempt)
        called.set()

    clock.at(0, note, waiting("first"))
    called.wait(WAIT)

    assert told == [0]


def test_no_thread_before_the_first_entry(clock, actions, waiting):
    """A clock has no thread until something waits."""
    before = len(clock), clock._thread
    clock.wake()

    clock.at(0, actions.note, waiting("first"))
    actions.wait()

    assert before == (0, None)
    assert actions.done == ["first"]


def test_drain(clock, time, actions, waiting):
    """A closed clock gives back the tasks that still wait, in the order of their time, and calls no action any more."""
    tasks = {name: waiting(name) for name in ("b", "a", "gone")}
    clock.at(60, actions.note, tasks["b"])
    clock.at(30, actions.note, tasks["a"])
    clock.at(90, actions.note, tasks["gone"])
    tasks["gone"].cancel()

    clock.close()
    time.now += 3600
    drained = [task.name for task in clock.drain()]

    assert drained == ["a", "b"]
    assert list(clock.drain()) == []
    assert actions.done == []
    assert len(clock) == 0


def test_closing_an_unused_clock():
    """A clock that was never used has nothing to close, and nothing waits in it."""
    clock = Clock()

    clock.close()

    assert list(clock.drain()) == []


def test_what_is_offered_to_a_closed_clock(clock, actions, waiting):
    """A closed clock keeps what it is offered for `drain`."""
    clock.close()

    clock.at(0, actions.note, waiting("late"))

    assert [task.name for task in clock.drain()] == ["late"]
    assert actions.done == []


def test_closing_in_an_action(clock, waiting):
    """An action may close the clock, whose thread does not wait for itself."""
    closed = threading.Event()

    def close(task, attempt):
        clock.close()
        closed.set()

    clock.at(0, close, waiting("last"))

    assert closed.wait(WAIT)
