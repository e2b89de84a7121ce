"""The Task: a thread to whoever holds it, plus a result, an error and a way to cancel."""

import asyncio
import contextlib
import gc
import itertools
import logging
import threading
import traceback
import weakref
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import pytest

from flask_asok import FlaskAsok, Task, TaskAbandoned, TaskCancelled, background, current_task, summaries
from flask_asok.attempt import RunnableTask
from flask_asok.signals import task_cancelled, task_failed, task_succeeded

WAIT = 10
ONE_THREAD = {"default": 1}


def fail():
    raise ValueError("no stock")


@pytest.fixture
def one_thread_app(make_app, backend):
    """An application whose default queue has one thread, which a task that waits for another fills."""
    return make_app(ASOK_QUEUES=ONE_THREAD, **backend)


@pytest.fixture
def running(threads_app, gate):
    """A task that runs until its gate is opened."""
    started = threading.Event()

    def wait():
        started.set()
        gate.wait(WAIT)
        return threading.get_native_id()

    with threads_app.app_context():
        task = background(wait)
    started.wait(WAIT)
    return task


# What every thread has


def test_is_a_thread(app):
    """A task is a `threading.Thread`, so whatever takes one takes it."""
    with app.app_context():
        task = background(int)

    assert isinstance(task, threading.Thread)
    assert isinstance(task, Task)


def test_alive_until_settled(running, gate):
    """`is_alive()` is true until the task is settled; `join(timeout)` returns none the wiser, like a thread's."""
    joined = running.join(0.01)
    before = running.is_alive(), running.state

    gate.set()
    running.join(WAIT)

    assert joined is None
    assert before == (True, "running")
    assert (running.is_alive(), running.state) == (False, "succeeded")


def test_ident(running, gate):
    """`ident` and `native_id` are those of the thread that runs the task."""
    thread = next(thread for thread in threading.enumerate() if thread.ident == running.ident)

    gate.set()

    assert thread.name == "asok-default-1"
    assert running.result(WAIT) == running.native_id == thread.native_id


def test_before_it_ran(threads_app):
    """A task that has not begun has no thread yet, nor times of one."""
    with threads_app.app_context():
        task = background.using(delay=3600)(int)

    assert (task.ident, task.native_id) == (None, None)
    assert (task.started_at, task.finished_at, task.summary.duration) == (None, None, None)
    assert (task.attempts, task.state) == (0, "waiting")
    task.cancel()


def test_name(app):
    """The name is the function's or the option's, and may be set like a thread's."""
    with app.app_context():
        plain = background(fail)
        named = background.using(name="order 42")(fail)
    set_later = plain.name
    plain.name = 7

    assert (set_later, plain.name, named.name) == ("fail", "7", "order 42")


def test_old_accessors(app):
    """The old spellings of a thread's accessors follow the new ones."""
    with app.app_context():
        task = background(int)

    with pytest.deprecated_call():
        task.setName("seven")
    with pytest.deprecated_call():
        assert task.getName() == "seven"
    with pytest.deprecated_call():
        assert task.isDaemon() is True
    with pytest.deprecated_call(), pytest.raises(RuntimeError, match="daemon status cannot be set"):
        task.setDaemon(False)


def test_daemon(app):
    """A task does not keep the interpreter from ending, which cannot be set."""
    with app.app_context():
        task = background(int)

    assert task.daemon is True
    with pytest.raises(RuntimeError, match="A task runs on its backend's threads; their daemon status cannot be set"):
        task.daemon = False


def test_started_once(app):
    """A task cannot be started or run a second time."""
    with app.app_context():
        task = background(int)

    with pytest.raises(RuntimeError, match=r"A task is started by background\(\), and once\."):
        task.start()
    with pytest.raises(RuntimeError, match="call the function itself to run it here"):
        task.run()


def test_not_among_the_threads(running):
    """`threading` does not list a task: only the thread that runs it."""
    assert running not in threading.enumerate()


def test_repr(app):
    """A task and its summary print their name, state and id."""
    with app.app_context():
        task = background(int)
    task.join(WAIT)

    assert repr(task) == f"<Task int succeeded {task.id}>"
    assert repr(task.summary) == f"<TaskSummary int succeeded {task.id}>"


# What a thread lacks


def test_id(app):
    """An id is 32 hexadecimal digits, another for each task, and stays the same."""
    with app.app_context():
        tasks = [background(int) for _ in range(50)]
    ids = {task.id for task in tasks}

    assert len(ids) == 50
    assert {len(each) for each in ids} == {32}
    assert all(int(each, 16) >= 0 for each in ids)
    assert {task.id for task in tasks} == ids


def test_one_id(monkeypatch):
    """All threads that ask for the id of a task at once are told the same."""
    both = threading.Barrier(2)
    taken = iter("12")

    def slow():
        digits = next(taken)
        with contextlib.suppress(threading.BrokenBarrierError):
            both.wait(0.2)
        return digits

    monkeypatch.setattr(summaries, "_random_digits", slow)
    summary = summaries.TaskSummary("work", "default")
    with ThreadPoolExecutor(2) as pool:
        told = set(pool.map(lambda _: summary.id, range(2)))

    assert told == {summary.id}


def test_ids_in_order(app):
    """Ids sort as the calls came, in whatever order they are asked for: so a list is one by them."""
    with app.app_context():
        tasks = [background(int) for _ in range(50)]

    ids = [task.id for task in reversed(tasks)]

    assert sorted(ids) == ids[::-1]


def test_times(app):
    """The times are aware, in UTC, and in order."""
    before = datetime.now(UTC)

    with app.app_context():
        task = background(int)
    task.join(WAIT)

    after = datetime.now(UTC)
    assert before <= task.enqueued_at <= task.started_at <= task.finished_at <= after
    assert task.enqueued_at.tzinfo is UTC
    assert task.summary.duration == pytest.approx((task.finished_at - task.started_at).total_seconds(), abs=1e-5)


def test_duration_of_a_running_task(running):
    """The duration of a running task is the time it has run until now."""
    first, second = running.summary.duration, running.summary.duration

    assert 0 <= first <= second


def test_queue(app):
    """A task names its queue."""
    with app.app_context():
        task = background.using(queue="mail")(int)

    assert task.queue == "mail"


def test_result_raises_the_error_itself(app):
    """`result()` raises the very error of the task, each time; `exception()` returns it."""
    with app.app_context():
        task = background(fail)

    errors = []
    for _ in range(2):
        with pytest.raises(ValueError, match="no stock") as caught:
            task.result(WAIT)
        errors.append(caught.value)

    assert errors == [task.exception(), task.exception()]
    assert errors[0] is errors[1]


def test_asking_again_adds_no_frames(app):
    """Whoever asks for the result again gets the error with a traceback that is no longer than the first time."""

    def frames():
        with pytest.raises(ValueError, match="no stock") as raised:
            task.result(WAIT)
        return [frame.f_code for frame, _ in traceback.walk_tb(raised.value.__traceback__)]

    with app.app_context():
        task = background(fail)
    first = frames()

    assert first[-1] is fail.__code__
    assert [frames(), frames()] == [first, first]


def test_traceback_leads_to_the_function(app):
    """The error's traceback begins in the function, without frames of the library."""
    with app.app_context():
        error = background(fail).exception(WAIT)

    assert error.__traceback__.tb_frame.f_code is fail.__code__


def test_no_error(app):
    """`exception()` of a task that went well is None."""
    with app.app_context():
        task = background(int)

    assert task.exception(WAIT) is None


def test_result_too_late(running):
    """`result(timeout)` and `exception(timeout)` raise TimeoutError when the task takes longer."""
    with pytest.raises(TimeoutError, match=r"Task wait is running after 0\.01 s\."):
        running.result(0.01)
    with pytest.raises(TimeoutError, match=r"Task wait is running after 0 s\."):
        running.exception(0)


def test_cancelled(threads_app):
    """The result of a cancelled task raises TaskCancelled, at once."""
    with threads_app.app_context():
        task = background.using(delay=3600)(int)

    cancelled = [task.cancel(), task.cancel()]

    assert cancelled == [True, True]
    assert (task.state, task.is_alive()) == ("cancelled", False)
    with pytest.raises(TaskCancelled, match="Task int was cancelled"):
        task.result()
    with pytest.raises(TaskCancelled):
        task.exception()


def test_cancel_is_too_late(running, gate):
    """A task that runs, or ran, cannot be cancelled."""
    while_running = running.cancel()
    gate.set()
    running.join(WAIT)

    assert (while_running, running.cancel()) == (False, False)
    assert running.state == "succeeded"


def test_cancel_lets_go_who_waits(threads_app):
    """Whoever waits for a task goes on when it is cancelled."""
    with threads_app.app_context():
        task = background.using(delay=3600)(int)
    errors = []
    waiting = threading.Barrier(5)

    def wait():
        waiting.wait(WAIT)
        with pytest.raises(TaskCancelled) as caught:
            task.result(WAIT)
        errors.append(caught.value)

    waiters = [threading.Thread(target=wait) for _ in range(4)]
    for waiter in waiters:
        waiter.start()
    waiting.wait(WAIT)
    task.cancel()
    for waiter in waiters:
        waiter.join(WAIT)

    assert len(errors) == 4


def test_many_wait(running, gate):
    """Any number of threads may wait for one task, by `join`, `result` or `exception`, with a timeout or without."""
    ways = [
        lambda: running.join(),
        lambda: running.join(WAIT),
        lambda: running.result(),
        lambda: running.result(WAIT),
        lambda: running.exception(WAIT),
    ]
    seen = []
    waiting = threading.Barrier(21)

    def wait(way):
        waiting.wait(WAIT)
        way()
        seen.append(running.is_alive())

    waiters = [threading.Thread(target=wait, args=(way,)) for way in itertools.islice(itertools.cycle(ways), 20)]
    for waiter in waiters:
        waiter.start()
    waiting.wait(WAIT)
    gate.set()
    for waiter in waiters:
        waiter.join(WAIT)

    assert seen == [False] * 20


def test_waking_those_who_wait_again(running):
    """Whoever is woken for nothing, and waits again at once, is not woken again: the timer has other work to do."""

    class Restless(list):
        def pop(self, index=-1):
            woken.append(super().pop(index))
            self.append(threading.Lock())
            self[-1].acquire()
            return woken[-1]

    woken = []
    running._waiters = Restless([threading.Lock(), threading.Lock()])
    for lock in running._waiters:
        lock.acquire()
    running.wake()

    assert len(woken) == 2
    assert not any(lock.locked() for lock in woken)
    running._waiters = []


def test_some_wait_in_vain(running, gate):
    """Those whose timeout passes go away; the others still get the result."""
    impatient = []

    def give_up():
        with pytest.raises(TimeoutError):
            running.result(0.01)
        impatient.append(True)

    leaving = [threading.Thread(target=give_up) for _ in range(5)]
    staying = threading.Thread(target=running.join, args=(WAIT,))
    for thread in (staying, *leaving):
        thread.start()
    for thread in leaving:
        thread.join(WAIT)
    gate.set()
    staying.join(WAIT)

    assert impatient == [True] * 5
    assert not staying.is_alive()
    assert running.result(WAIT)


def test_whoever_joins_finds_a_settled_world(app):
    """When `join` or `result` returns, the context is torn down and the receivers of signals are through."""
    happened = []
    main = threading.get_ident()

    @app.teardown_appcontext
    def tear_down(error):
        if threading.get_ident() != main:
            happened.append("torn down")

    def listen(sender, task):
        happened.append("told")

    with app.app_context(), task_succeeded.connected_to(listen, app):
        background(int).result(WAIT)
        seen = list(happened)

    assert seen == ["torn down", "told"]


def test_result_waits_for_the_receivers(threads_app, gate):
    """`result()` does not come back while a receiver is still being told."""
    entered = threading.Event()

    def listen(sender, task):
        entered.set()
        gate.wait(WAIT)

    def wait():
        task.result(WAIT)
        alive.append(task.is_alive())

    alive = []
    with task_succeeded.connected_to(listen, threads_app), threads_app.app_context():
        task = background(int)
        entered.wait(WAIT)
        waiter = threading.Thread(target=wait)
        waiter.start()
        waiter.join(0.01)
        still_waiting = waiter.is_alive()
        gate.set()
        waiter.join(WAIT)

    assert still_waiting
    assert alive == [False]


def test_receivers_may_ask_for_the_result(app):
    """A receiver may join the task and take its result, though it is not quite over."""
    seen = []

    def succeeded(sender, task):
        task.join(WAIT)
        seen.append(task.result(WAIT))

    def failed(sender, task, error):
        seen.append(task.exception(WAIT) is error)

    with app.app_context(), task_succeeded.connected_to(succeeded, app), task_failed.connected_to(failed, app):
        background(int).join(WAIT)
        background(fail).join(WAIT)

    assert seen == [0, True]


def test_receiver_of_a_cancellation_may_ask_too(threads_app):
    """A receiver of `task_cancelled` may ask, and learns that there is no result."""
    seen = []

    def cancelled(sender, task):
        task.join(WAIT)
        with pytest.raises(TaskCancelled):
            task.result(WAIT)
        seen.append(task.state)

    with threads_app.app_context(), task_cancelled.connected_to(cancelled, threads_app):
        background.using(delay=3600)(int).cancel()

    assert seen == ["cancelled"]


# Waiting inside a task


def nested(depth):
    return 0 if depth == 0 else background(nested, depth - 1).result(WAIT) + 1


@pytest.mark.parametrize("depth", [1, 2, 20])
def test_no_deadlock_at_any_depth(one_thread_app, depth):
    """A task that waits for tasks of its own full queue gets their results, however deep."""
    with one_thread_app.app_context():
        task = background(nested, depth)

    assert task.result(WAIT) == depth


def test_no_deadlock_in_breadth(make_app):
    """Several tasks that each fill the queue they wait for get their results."""
    app = make_app(ASOK_QUEUES={"default": 2})

    def spread(depth):
        if depth == 0:
            return 1
        return sum(task.result(WAIT) for task in [background(spread, depth - 1) for _ in range(3)])

    with app.app_context():
        tasks = [background(spread, 3) for _ in range(3)]

    assert [task.result(WAIT) for task in tasks] == [27, 27, 27]


def test_run_in_place_is_a_task_of_its_own(one_thread_app):
    """A task that is run by the one that waits for it is the current task meanwhile, and its error its own."""

    def outer():
        inner = background(fail)
        with pytest.raises(ValueError, match="no stock"):
            inner.result(WAIT)
        same = background(current_task)
        return same.result(WAIT) is same, current_task().name

    with one_thread_app.app_context():
        assert background(outer).result(WAIT) == (True, "outer")


@pytest.mark.parametrize("timeout", [0, -0.5])
def test_join_without_waiting_runs_nothing(make_app, timeout):
    """`join(0)` and `result(0)` inside a task only look, and so they do with what is left of a time that is over."""
    app = make_app(ASOK_QUEUES=ONE_THREAD)

    def look():
        inner = background(int)
        inner.join(timeout)
        state = inner.state
        with pytest.raises(TimeoutError):
            inner.result(timeout)
        return inner, state

    with app.app_context():
        inner, state = background(look).result(WAIT)

    assert state == "queued"
    assert inner.result(WAIT) == 0


def test_waiting_task_is_run_when_it_is_due(make_app):
    """A task that joins a delayed one of its own full queue runs it when it is due."""
    app = make_app(ASOK_QUEUES=ONE_THREAD)

    def outer():
        return background.using(delay=0.01)(threading.current_thread).result(WAIT)

    with app.app_context():
        assert background(outer).result(WAIT).name == "asok-default"


def test_retried_task_is_run_when_it_is_due(make_app):
    """A task that joins one of its own full queue, which has to be retried, gets the last outcome."""
    app = make_app(ASOK_QUEUES=ONE_THREAD)

    def flaky():
        if current_task().attempts < 3:
            raise ValueError
        return current_task().attempts

    def outer():
        return background.using(retries=2, backoff=0.001)(flaky).result(WAIT)

    with app.app_context():
        assert background(outer).result(WAIT) == 3


def test_run_in_place_keeps_the_backoff(make_app):
    """A task that was run in place and failed waits as its backoff says; its old place in the queue runs nothing."""
    app = make_app(ASOK_QUEUES=ONE_THREAD)

    def outer():
        inner = background.using(retries=1, backoff=3600)(fail)
        inner.join(0.01)
        return inner

    with app.app_context():
        inner = background(outer).result(WAIT)
        background(int).join(WAIT)

    assert (inner.state, inner.attempts) == ("waiting", 1)
    inner.cancel()


def test_join_of_a_running_task(make_app, gate):
    """A task waits for one that another thread runs, with a timeout and without."""
    app = make_app(ASOK_QUEUES={"default": 2})
    started = threading.Event()

    def slow():
        started.set()
        gate.wait(WAIT)
        return "done"

    def wait(task):
        with pytest.raises(TimeoutError):
            task.result(0.01)
        gate.set()
        return task.result()

    with app.app_context():
        task = background(slow)
        started.wait(WAIT)

        assert background(wait, task).result(WAIT) == "done"


def test_held_task_is_run_when_it_is_released(make_app):
    """A task that joins one held for a response, on a queue it fills itself, runs it once the response is sent."""
    app = make_app(ASOK_QUEUES=ONE_THREAD)
    waiting = threading.Event()

    def outer(held):
        waiting.set()
        return held.result(WAIT)

    @app.get("/")
    def view():
        held = background.using(when="response")(threading.current_thread)
        tasks.append(background(outer, held))
        waiting.wait(WAIT)
        return "page"

    tasks = []
    app.test_client().get("/").close()

    assert tasks[0].result(5).name == "asok-default"


def test_joining_oneself(app):
    """A task that joins itself gets an error, as a thread does."""

    def join_self():
        with pytest.raises(RuntimeError, match=r"Task join_self cannot join join_self, which waits for .* itself"):
            current_task().join(WAIT)
        return "went on"

    with app.app_context():
        assert background(join_self).result(WAIT) == "went on"


def test_joining_in_a_circle(make_app):
    """Of tasks that join each other in a circle one gets an error, and all go on."""
    app = make_app(ASOK_QUEUES={"default": 3})
    everyone = threading.Barrier(3)
    tasks, errors = {}, []

    def wait_for(name):
        everyone.wait(WAIT)
        try:
            tasks[name].join(WAIT)
        except RuntimeError as error:
            errors.append(str(error))

    with app.app_context():
        ready = threading.Barrier(2)

        def first():
            ready.wait(WAIT)
            wait_for("b")

        tasks["a"] = background.using(name="a")(first)
        tasks["b"] = background.using(name="b")(wait_for, "c")
        tasks["c"] = background.using(name="c")(wait_for, "a")
        ready.wait(WAIT)
    for task in tasks.values():
        task.join(WAIT)

    assert {task.state for task in tasks.values()} == {"succeeded"}
    assert errors
    assert all("cannot join" in error for error in errors)


def test_joining_the_task_that_runs_this_one(one_thread_app):
    """A task that is run in place cannot join the one that runs it: it would wait for itself."""

    def inner(outer):
        outer.join(WAIT)

    def outer():
        error = background(inner, current_task()).exception(WAIT)
        return str(error)

    with one_thread_app.app_context():
        text = background(outer).result(WAIT)

    assert text == "Task inner cannot join outer, which waits for inner itself."


@pytest.mark.parametrize("look", [Task.join, Task.result, Task.exception])
def test_joining_a_task_held_for_this_response(app, look):
    """Waiting in a view for a task that starts after its response is an error, not a hang."""
    text = "Task int starts after this response or commit: joining it here would never end"

    with app.test_request_context():
        held = background.using(when="response")(int)
        with pytest.raises(RuntimeError, match=text):
            look(held)

    assert held.result(WAIT) == 0


@pytest.fixture
def joins(monkeypatch):
    """An Event for each of a task and of a caller outside of tasks, set when that one waits for a task."""
    begun = {True: threading.Event(), False: threading.Event()}
    wait = RunnableTask._wait

    def tell(task, timeout, *, in_task):
        begun[in_task].set()
        wait(task, timeout, in_task=in_task)

    monkeypatch.setattr(RunnableTask, "_wait", tell)
    return {"task": begun[True], "view": begun[False]}


def join_when(event, task):
    assert event.wait(WAIT)
    task.join(WAIT)


def test_joining_a_task_that_joins_one_held_for_this_response(threads_app, joins):
    """A view cannot wait for a task that waits, itself, for one that starts after the response; they go on."""
    text = r"Task join_when waits for int, which starts after this response or commit: joining it here would never end"

    with threads_app.test_request_context():
        held = background.using(when="response")(int)
        go = threading.Event()
        go.set()
        task = background(join_when, go, held)
        assert joins["task"].wait(WAIT)
        with pytest.raises(RuntimeError, match=text):
            task.join()
        # With a limit the wait ends.
        task.join(0)

    assert held.result(WAIT) == 0
    task.result(WAIT)


def test_joining_one_held_for_the_response_of_a_view_that_waits(threads_app, joins):
    """A task cannot wait for one that starts after the response of a view that waits for the task; the view goes on."""
    with threads_app.test_request_context():
        held = background.using(when="response")(int)
        error = background(join_when, joins["view"], held).exception()

        assert str(error) == "Task join_when cannot join int, which waits for join_when itself."

    assert held.result(WAIT) == 0


def test_waiting_a_while_for_one_that_goes_on_after_the_response(threads_app, joins):
    """A view may wait a while for a task that joins one held for the response: after the response both go on."""
    with threads_app.test_request_context():
        held = background.using(when="response")(int)
        task = background(join_when, joins["view"], held)
        task.join(0.2)

    assert held.result(WAIT) == 0
    task.result(WAIT)


def test_joining_one_held_for_the_response_on_the_immediate_backend(make_app):
    """A task whose caller waits for it cannot wait for one that starts after the caller's response."""
    app = make_app(ASOK_BACKEND="immediate")

    with app.test_request_context():
        held = background.using(when="response")(int)
        error = background(held.join, WAIT).exception(WAIT)

        assert str(error) == "Task join cannot join int, which waits for join itself."

    assert held.result(WAIT) == 0


def test_joining_one_held_for_the_response_where_the_view_runs_the_task(make_app, gate, occupy):
    """A task that its caller runs, since the queue is full, cannot wait for one that starts after the response."""
    app = make_app(ASOK_QUEUES={"default": 1}, ASOK_MAX_QUEUED=1)

    with app.test_request_context():
        held = background.using(when="response")(int)
        occupy()
        background(int)
        error = background(held.join, WAIT).exception(0)
        gate.set()

        assert str(error) == "Task join cannot join int, which waits for join itself."

    assert held.result(WAIT) == 0


def test_abandoned_has_no_result(make_app, gate):
    """The result of a task that a shutdown left behind raises TaskAbandoned."""
    app = make_app()

    with app.app_context():
        task = background(gate.wait, WAIT)
        app.extensions["asok"].close(0)

    with pytest.raises(TaskAbandoned, match="Task wait was abandoned: its process ended or was forked"):
        task.result(WAIT)


# Memory


class OutOfStock(Exception):
    pass


def run_out():
    raise OutOfStock


class Report:
    pass


@pytest.fixture
def no_collector(monkeypatch):
    """Free only what nobody holds, and log nothing: pytest keeps every record, and with it the error."""
    monkeypatch.setattr(logging.getLogger("asok.background"), "disabled", True)
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.parametrize("ask", [Task.exception, Task.join], ids=["asked for", "not asked for"])
def test_errors_make_no_cycles(app, no_collector, ask):
    """A failed task and its error are freed as soon as nobody holds them, without the garbage collector."""
    with app.app_context():
        task = background(run_out)
        ask(task, WAIT)
        error = weakref.ref(task.exception(WAIT))
        FlaskAsok().close(app)
    freed = weakref.ref(task)
    del task

    assert freed() is None
    assert error() is None


def test_results_make_no_cycles(app, no_collector):
    """A task and its result are freed as soon as nobody holds them, without the garbage collector."""
    with app.app_context():
        task = background(Report)
        result = weakref.ref(task.result(WAIT))
        FlaskAsok().close(app)
    freed = weakref.ref(task)
    del task

    assert freed() is None
    assert result() is None


# Not to be awaited


@pytest.mark.parametrize("wrap", [lambda task: task, asyncio.gather], ids=["await", "gather"])
def test_await(app, wrap):
    """A Task is a thread: to await it is a TypeError that says how to wait in async code, and that works."""

    async def wait(task):
        with pytest.raises(TypeError, match=r"Write `await asyncio.to_thread\(task.result\)`\."):
            await wrap(task)
        return await asyncio.to_thread(task.result, WAIT)

    with app.app_context():
        assert asyncio.run(wait(background(int))) == 0
