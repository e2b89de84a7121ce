"""The thread that comes with work and leaves when there is none."""

import os
import queue
import threading

import pytest

from flask_asok.helper_thread import HelperThread, PausingThread

WAIT = 10


class Jobs:
    """Work for a helper: functions, each called in one turn; a helper idles when it is told to."""

    def __init__(self, **options):
        self.jobs = queue.SimpleQueue()
        self.helper = HelperThread("asok-helper", self.turn, lambda: not self.jobs.empty(), **options)

    def turn(self):
        job = self.jobs.get(timeout=WAIT)
        return job is not None and (job() or True)

    def put(self, job):
        self.jobs.put(job)
        self.helper.need()

    def close(self):
        self.helper.stop()
        for _ in range(len(self.helper)):
            self.jobs.put(None)
        self.helper.join(WAIT)


@pytest.fixture
def make_jobs():
    made = []

    def make(**options):
        made.append(Jobs(**options))
        return made[-1]

    yield make
    for each in made:
        each.close()


def call(jobs, function):
    """Return what `function` returns in a turn of the helper."""
    outcome = queue.SimpleQueue()
    jobs.put(lambda: outcome.put(function()))
    return outcome.get(timeout=WAIT)


def test_comes_and_goes(make_jobs):
    """There is no thread before the first work, one for all of it, none after idling, and then a new one."""
    jobs = make_jobs()
    before = len(jobs.helper)

    first, second = call(jobs, threading.current_thread), call(jobs, threading.current_thread)
    jobs.put(None)
    first.join(WAIT)
    idle = len(jobs.helper)
    third = call(jobs, threading.current_thread)

    assert (before, idle) == (0, 0)
    assert first is second is not third
    assert (first.name, first.daemon) == ("asok-helper", True)


def test_work_that_comes_as_it_leaves(make_jobs):
    """Work that is brought while the thread is about to leave gets a thread too."""
    jobs = make_jobs()
    done = threading.Event()

    def bring_after_the_end():
        jobs.jobs.put(None)
        jobs.put(done.set)

    jobs.put(bring_after_the_end)

    assert done.wait(WAIT)


def test_most(make_jobs):
    """With `most` there are as many threads as were needed, and no more than that."""
    jobs = make_jobs(most=2)
    gate, began = threading.Event(), threading.Semaphore(0)

    def job():
        began.release()
        gate.wait(WAIT)

    for _ in range(3):
        jobs.put(job)
    both = began.acquire(timeout=WAIT) and began.acquire(timeout=WAIT)
    count = len(jobs.helper)
    gate.set()

    assert both
    assert count == 2
    assert began.acquire(timeout=WAIT)


def test_no_thread_to_be_had(make_jobs, monkeypatch):
    """If the system gives no thread, the caller hears of it, and may try again."""
    jobs = make_jobs()

    real = threading.Thread.start

    def start(self):
        if self.name != "asok-helper":
            return real(self)
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", start)
        with pytest.raises(RuntimeError, match="can't start"):
            jobs.helper.need()
    left = len(jobs.helper)

    assert left == 0
    assert call(jobs, lambda: "done") == "done"


def test_a_turn_that_raises(make_jobs, monkeypatch):
    """A turn that raises ends its thread; the next work gets a new one."""
    jobs = make_jobs()
    raised = threading.Event()
    monkeypatch.setattr(threading, "excepthook", lambda args: raised.set())

    def job():
        raise ValueError

    jobs.put(job)
    raised.wait(WAIT)

    assert call(jobs, lambda: "done") == "done"


def test_stop_in_a_turn(make_jobs):
    """A turn may stop its own helper and join it, and no thread comes any more."""
    jobs = make_jobs()

    call(jobs, lambda: (jobs.helper.stop(), jobs.helper.join(WAIT)))
    jobs.helper.join(WAIT)
    jobs.helper.need()

    assert len(jobs.helper) == 0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_fork(make_jobs):
    """A forked child starts without the thread, and gets its own; the parent's goes on."""
    jobs = make_jobs()
    parents = call(jobs, threading.current_thread)

    child = os.fork()
    if child == 0:
        status = 1
        try:
            assert len(jobs.helper) == 0
            assert call(jobs, os.getpid) == os.getpid()
            status = 0
        finally:
            os._exit(status)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

    assert status == 0
    assert call(jobs, threading.current_thread) is parents


def test_pauses_between_turns():
    """Each turn says how long the next pause takes; after None the thread leaves, and comes again when it is needed."""
    turns, pauses = [], iter([0.0, 0.0, None, None])
    helper = PausingThread("asok-helper", lambda: turns.append(1) or next(pauses), lambda: False)

    helper.need()
    helper.join(WAIT)
    first = len(turns)
    helper.need()
    helper.join(WAIT)

    assert (first, len(turns), len(helper)) == (3, 4, 0)


def test_close_ends_the_pause():
    """However long the pause, `close` ends it, and no turn is taken after that."""
    turns, began = [], threading.Event()
    helper = PausingThread("asok-helper", lambda: turns.append(1) or began.set() or 3600.0, lambda: True)
    helper.need()
    assert began.wait(WAIT)

    helper.close(WAIT)

    assert (len(turns), len(helper)) == (1, 0)
