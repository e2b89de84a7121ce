"""What travels with a call: options of the function and of the call, retries, backoff, delay and timeout."""

import functools
import logging
import threading
from datetime import timedelta

import pytest
from flask import current_app

from flask_asok import FlaskAsok, Retry, WebhookUnavailable, background, current_task, task
from flask_asok.backends.threads import ThreadsBackend
from flask_asok.options import Options
from flask_asok.retries import NotYet, next_wait, wait_before
from flask_asok.signals import task_retried
from flask_asok.state import state_of

WAIT = 10


class Time:
    """A time for the schedulers of the current app, which passes only when the test says so."""

    def __init__(self):
        self.now = 1000.0

    def pass_by(self, seconds):
        self.now += seconds
        for scheduler in self._schedulers():
            scheduler.wake()

    def let_the_schedulers_look(self):
        """Wait until all is done that is due: a scheduler does one thing after the other, and this one last."""
        last = background(int)
        looked = [threading.Event() for _ in self._schedulers()]
        for scheduler, event in zip(self._schedulers(), looked, strict=True):
            scheduler.at(0.01, lambda task, attempt, event=event: event.set(), last)
        self.pass_by(0.01)
        assert all(event.wait(WAIT) for event in looked)

    def _schedulers(self):
        backend = state_of(current_app).backend
        return backend.scheduler, backend.timeouts


@pytest.fixture
def time(monkeypatch):
    time = Time()
    monkeypatch.setattr(ThreadsBackend, "now", staticmethod(lambda: time.now))
    return time


def fail():
    raise ValueError("no stock")


def attempts():
    return current_task().attempts


def options_of(fn, **options):
    """The options that a call of `fn` ends up with."""
    started = background.using(**options)(fn) if options else background(fn)
    started.join(WAIT)
    return started.options


# Where options come from


def test_task_returns_the_same_function(app):
    """`@task()` returns the same plain function: called directly it does its work now and raises."""

    def send():
        raise ValueError("refused")

    decorated = task(retries=3, queue="mail")(send)

    assert decorated is send
    with pytest.raises(ValueError, match="refused"):
        decorated()


def test_options_of_the_function(app):
    """What `@task()` sets holds for every call of the function."""

    @task(retries=3, queue="mail", name="letter", timeout=5)
    def send():
        pass

    with app.app_context():
        started = background(send)

    assert (started.queue, started.name) == ("mail", "letter")
    assert (started.options.retries, started.options.timeout) == (3, 5.0)
    started.join(WAIT)


def test_options_of_the_call(app):
    """What `using()` sets holds for that call, and for no other."""
    with app.app_context():
        with_options = background.using(queue="mail", name="letter")(attempts)
        without = background(attempts)

    assert (with_options.queue, with_options.name) == ("mail", "letter")
    assert (without.queue, without.name) == ("default", "attempts")


def test_call_beats_function(app):
    """Options of the call beat those of the function; the others of the function stay."""

    @task(retries=3, queue="mail")
    def send():
        pass

    with app.app_context():
        options = options_of(send, queue="cache")

    assert (options.queue, options.retries) == ("cache", 3)


def test_using_may_be_kept(app):
    """What `using()` returns may be kept and called any number of times."""
    later = background.using(queue="mail")

    with app.app_context():
        queues = [later(attempts).queue for _ in range(3)]

    assert queues == ["mail"] * 3


def test_options_of_a_method(app):
    """A method may carry options, which hold for the bound method too."""

    class Shop:
        @task(queue="mail")
        def ship(self):
            return "shipped"

    with app.app_context():
        started = background(Shop().ship)

    assert (started.queue, started.result(WAIT)) == ("mail", "shipped")


@task(retries=1, queue="mail")
def mail(number):
    return number


class Mailer:
    @task(retries=1, queue="mail")
    def __call__(self, number):
        return number

    @task(retries=1, queue="mail")
    def send(self, number):
        return number

    send_one = functools.partialmethod(send, 1)

    @task(retries=1, queue="mail")
    @staticmethod
    def outside(number):
        return number


@pytest.mark.parametrize(
    "fn",
    [
        functools.partial(mail, 1),
        functools.partial(functools.partial(mail), number=1),
        functools.partial(Mailer(), 1),
        functools.partial(Mailer().send, 1),
        Mailer().send_one,
        functools.partial(Mailer.outside, 1),
    ],
    ids=["partial", "partial of a partial", "object", "method", "partialmethod", "staticmethod"],
)
def test_options_of_what_is_called(app, fn):
    """The options of a function hold as well where a partial or an object leads to it, and above a staticmethod."""
    with app.app_context():
        options = background(fn).options

    assert (options.retries, options.queue) == (1, "mail")


def test_partial_of_a_prepared_function(app):
    """`prepare` gets what a partial adds to the arguments, and may refuse it."""

    def compose(amount, *, currency):
        if currency == "XXX":
            raise ValueError("No such currency.")
        return (amount * 100,), {"currency": currency}

    @task(prepare=compose)
    def pay(amount, *, currency):
        return amount, currency

    with app.app_context():
        assert background(functools.partial(pay, currency="CHF"), 5).result(10) == (500, "CHF")
        with pytest.raises(ValueError, match="No such currency"):
            background(functools.partial(pay, currency="XXX"), 5)


def deliver(made):
    return made


def test_run_of_one_function_only():
    """A function that is the `run` of another one, or has options, is no `run`; its own options stay."""

    def order():
        @task(prepare=int, run=deliver, retries=2)
        def order(made): ...

    order()
    order()

    with pytest.raises(TypeError, match="run=deliver has a @task"):
        task(prepare=int, run=deliver)(lambda made: None)
    with pytest.raises(TypeError, match="run=mail has a @task"):
        task(prepare=int, run=mail)(lambda made: None)
    assert deliver.__asok_options__.retries == 2
    assert mail.__asok_options__.retries == 1


@pytest.mark.parametrize("run", [print, "text".join])
def test_run_is_a_function(run):
    """What options cannot be set on is no `run`, and the error says what to do."""
    with pytest.raises(TypeError, match=r"run= must be a function of yours, not <built-in .*>: wrap it in one\."):
        task(prepare=int, run=run)(lambda made: None)


def test_async_prepare():
    """An async `prepare`, which would check nothing, is refused where it is written."""

    async def compose(): ...

    with pytest.raises(TypeError, match="prepare must be a plain function, not an async one"):
        task(prepare=compose, run=int)


def test_task_decorates_functions_only():
    """`@task()` on something that cannot be called is refused."""
    with pytest.raises(TypeError, match=r"@task\(\) decorates a function, not int\."):
        task()(1)


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"retries": 1.5}, TypeError, "retries must be a whole number, not float."),
        ({"retries": True}, TypeError, "retries must be a whole number, not bool."),
        ({"retries": -1}, ValueError, "retries must not be negative, not -1."),
        ({"retry_on": "ValueError"}, TypeError, "retry_on must be an exception type or a tuple of them, not"),
        ({"retry_on": (ValueError, int)}, TypeError, "retry_on must be an exception type or a tuple of them, not"),
        ({"backoff": "soon"}, TypeError, "backoff must be seconds or a timedelta, not str."),
        ({"backoff": []}, ValueError, "backoff must hold at least one number of seconds."),
        ({"backoff": [1, -1]}, ValueError, "backoff must be finite and not negative, not -1."),
        ({"delay": None}, TypeError, "delay must be seconds or a timedelta, not NoneType."),
        ({"delay": True}, TypeError, "delay must be seconds or a timedelta, not bool."),
        ({"delay": -1}, ValueError, "delay must be finite and not negative, not -1."),
        ({"delay": timedelta(seconds=-1)}, ValueError, "delay must be finite and not negative, not -1.0."),
        ({"delay": float("nan")}, ValueError, "delay must be finite and not negative, not nan."),
        ({"delay": float("inf")}, ValueError, "delay must be finite and not negative, not inf."),
        ({"queue": 1}, TypeError, "queue must be a str, not int."),
        ({"name": 1}, TypeError, "name must be a str, not int."),
        ({"name": ""}, ValueError, "name must not be empty: leave it out, or pass None, for the name of the function."),
        ({"timeout": "1"}, TypeError, "timeout must be seconds or a timedelta, not str."),
        ({"timeout": 0}, ValueError, "timeout must be more than 0, not 0: leave it out, or pass None, for no limit."),
        ({"timeout": timedelta()}, ValueError, "timeout must be more than 0, not datetime.timedelta(0): leave it out,"),
        ({"when": "later"}, ValueError, 'when must be "now", "response" or "commit", not \'later\'.'),
    ],
)
def test_bad_values(options, error, text):
    """An option that is no good is refused where it is written, by name."""
    with pytest.raises(error) as of_call:
        background.using(**options)
    with pytest.raises(error) as of_function:
        task(**options)

    assert str(of_call.value).startswith(text)
    assert str(of_function.value).startswith(text)


@pytest.mark.parametrize("option", ["delay", "timeout", "backoff"])
def test_seconds_beyond_all_numbers(option):
    """A number that no clock can hold is refused by the name of its option."""
    with pytest.raises(ValueError, match=f"{option} must be finite"):
        background.using(**{option: 10**400})


def test_bad_prepare():
    """`prepare` must be callable."""
    with pytest.raises(TypeError, match=r"prepare must be callable, not int\."):
        task(prepare=1)


def test_run_needs_prepare():
    """`run` gets what `prepare` makes, so it cannot be without."""
    with pytest.raises(TypeError, match="run= needs prepare="):
        task(run=print)


@pytest.mark.parametrize("option", ["prepare", "run", "at_most_once", "if_durable"])
def test_options_of_functions_only(option):
    """What belongs to the function is refused in `using()`, with the place to set it."""
    with pytest.raises(TypeError, match=rf"'{option}' belongs to the function: set it with @task\({option}=\.\.\.\)"):
        background.using(**{option: None})


@pytest.mark.parametrize(
    ("value", "error", "text"),
    [
        (3, TypeError, "if_durable must be a dict of options, not int"),
        ({"delay": 3}, TypeError, "if_durable takes backoff, retries, retry_on, not 'delay'"),
        ({"retries": -1}, ValueError, "retries must not be negative"),
    ],
)
def test_if_durable_is_checked(value, error, text):
    """What holds for durable tasks are options too."""
    with pytest.raises(error, match=text):
        task(if_durable=value)


def test_at_most_once(app):
    """`at_most_once` is yes or no, and travels with the function."""
    with pytest.raises(TypeError, match="at_most_once must be True or False, not int"):
        task(at_most_once=1)

    @task(at_most_once=True)
    def pay():
        return "paid"

    with app.app_context():
        started = background(pay)

    assert started.options.at_most_once is True
    assert started.result(WAIT) == "paid"


def test_none_is_the_default():
    """None, for the options that may be None, is the default."""
    options = Options().replace(name=None, timeout=None, backoff=None, prepare=None)

    assert options == Options()


# Retries


def test_no_retry_by_default(app):
    """Without options a task has one attempt."""
    with app.app_context():
        failed = background(fail)

    assert isinstance(failed.exception(WAIT), ValueError)
    assert failed.attempts == 1


def test_retries(app, caplog):
    """A failing task is tried `retries` more times; each logs a warning, only the last one an error."""
    with app.app_context():
        failed = background.using(retries=2, backoff=0.001)(fail)

    assert isinstance(failed.exception(WAIT), ValueError)
    assert failed.attempts == 3
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        ("WARNING", "Background task fail failed (attempt 1 of 3, next in 0.001 s): ValueError('no stock')"),
        ("WARNING", "Background task fail failed (attempt 2 of 3, next in 0.001 s): ValueError('no stock')"),
        ("ERROR", "Background task fail failed: ValueError('no stock')"),
    ]
    assert [record.exc_info and record.exc_info[1].args for record in caplog.records] == [None, None, ("no stock",)]


def test_retry_until_it_works(app):
    """A task whose second attempt works has succeeded, and its id is the same in each attempt."""
    ids = []

    def flaky():
        ids.append(current_task().id)
        if attempts() == 1:
            raise ValueError
        return "done"

    with app.app_context():
        started = background.using(retries=5, backoff=0)(flaky)

    assert started.result(WAIT) == "done"
    assert (started.state, started.attempts, started.exception()) == ("succeeded", 2, None)
    assert ids == [started.id] * 2


def test_retry_on(app):
    """Only the named errors are worth another attempt."""
    with app.app_context():
        other = background.using(retries=3, backoff=0, retry_on=KeyError)(fail)
        named = background.using(retries=3, backoff=0, retry_on=(KeyError, ValueError))(fail)

    other.join(WAIT)
    named.join(WAIT)
    assert (other.attempts, named.attempts) == (1, 4)


def test_no_retry_of_exits(app):
    """SystemExit is no Exception: by default it is not tried again."""

    def leave():
        raise SystemExit(3)

    with app.app_context():
        failed = background.using(retries=3, backoff=0)(leave)

    assert isinstance(failed.exception(WAIT), SystemExit)
    assert failed.attempts == 1


def test_many_retries(app, caplog):
    """A task may be tried any number of times."""
    caplog.set_level(logging.CRITICAL, "asok.background")

    with app.app_context():
        failed = background.using(retries=1000, backoff=0)(fail)
        failed.join(WAIT)

    assert (failed.state, failed.attempts) == ("failed", 1001)


def test_a_fresh_context_for_each_attempt(app):
    """What one attempt leaves in `g` the next one does not see."""
    from flask import g

    seen = []

    def flaky():
        seen.append("mark" in g)
        g.mark = True
        raise ValueError

    with app.app_context():
        background.using(retries=1, backoff=0)(flaky).join(WAIT)

    assert seen == [False, False]


def test_waiting_for_a_retry(threads_app):
    """Between two attempts the task is waiting, tells when the next one comes, and may be cancelled."""
    waits = []
    told = threading.Event()

    def retried(sender, task, error, wait):
        waits.append((wait, repr(error)))
        told.set()

    with threads_app.app_context(), task_retried.connected_to(retried, threads_app):
        failing = background.using(retries=1, backoff=3600)(fail)
        told.wait(WAIT)
        with pytest.raises(TimeoutError, match="is waiting after"):
            failing.result(0.01)

    assert waits == [(3600.0, "ValueError('no stock')")]
    assert failing.state == "waiting"
    assert failing.summary.error == "ValueError('no stock')"
    assert failing.cancel()


def test_cancelled_by_a_receiver_of_the_retry(app):
    """What is said to be tried again can be cancelled there and then."""
    ran, answers, told = [], [], threading.Event()

    def work():
        ran.append(attempts())
        raise ValueError

    def cancel(sender, task, **_):
        answers.append((task.state, task.cancel(), task.state))
        told.set()

    with app.app_context(), task_retried.connected_to(cancel, app):
        cancelled = background.using(retries=1, backoff=0)(work)
        cancelled.join(WAIT)
        # The task is cancelled before its receiver goes on.
        assert told.wait(WAIT)

    assert answers == [("waiting", True, "cancelled")]
    assert cancelled.state == "cancelled"
    assert ran == [1]


@pytest.mark.parametrize("tracked", [False, True])
def test_cancelled_by_its_id_by_a_receiver_of_the_retry(app, tracked):
    """So can it by its id, under which it is waiting too."""
    asok = FlaskAsok()
    answers, told = [], threading.Event()

    def work():
        raise ValueError

    def cancel(sender, task, **_):
        with app.app_context():
            answers.append((asok.get(task.id).state, asok.cancel(task.id), asok.get(task.id).state))
        told.set()

    with app.app_context(), task_retried.connected_to(cancel, app):
        cancelled = background.using(retries=1, backoff=3600, tracked=tracked)(work)
        cancelled.join(WAIT)
        # The task is cancelled before its receiver goes on.
        assert told.wait(WAIT)

    assert answers == [("waiting", True, "cancelled")]
    assert (cancelled.state, cancelled.attempts) == ("cancelled", 1)


# Retry


def test_retry_of_the_tasks_own(app):
    """A task may raise Retry; it spends one of its retries."""

    def flaky():
        if attempts() < 3:
            raise Retry(after=0.001)
        return attempts()

    with app.app_context():
        started = background.using(retries=2, retry_on=())(flaky)

    assert started.result(WAIT) == 3


def test_retry_says_when(threads_app):
    """`Retry(after=...)` beats the backoff, in seconds or as a timedelta; without it the backoff holds."""
    waits, told = [], threading.Semaphore(0)

    def retried(sender, task, error, wait):
        waits.append(wait)
        told.release()

    def ask(after):
        raise Retry(after)

    with threads_app.app_context(), task_retried.connected_to(retried, threads_app):
        for after in (30, timedelta(minutes=2), None):
            asking = background.using(retries=1, backoff=7)(ask, after)
            told.acquire(timeout=WAIT)
            asking.cancel()

    assert waits == [30.0, 120.0, 7.0]


def test_no_retry_left_fails_with_the_cause(app, caplog):
    """A task that raises Retry is told by its cause in the log, and with no retry left fails with it."""

    def ask():
        try:
            fail()
        except ValueError as error:
            raise Retry(after=0) from error

    with app.app_context():
        failed = background.using(retries=1)(ask)

    assert repr(failed.exception(WAIT)) == "ValueError('no stock')"
    assert failed.summary.error == "ValueError('no stock')"
    assert caplog.messages == [
        "Background task ask failed (attempt 1 of 2, next in 0 s): ValueError('no stock')",
        "Background task ask failed: ValueError('no stock')",
    ]


@pytest.mark.parametrize(("cause", "told"), [("handled", "ValueError('no stock')"), (None, "Retry('retry after 0 s')")])
def test_cause_that_is_not_named(app, caplog, cause, told):
    """A Retry that is raised while an error is handled was caused by that one; `from None` says that it was not."""

    def ask():
        try:
            fail()
        except ValueError:
            if cause is None:
                raise Retry(after=0) from None
            raise Retry(after=0)  # noqa: B904 - as many write it

    with app.app_context():
        failed = background.using(retries=1)(ask)

    assert repr(failed.exception(WAIT)) == told
    assert caplog.messages == [
        f"Background task ask failed (attempt 1 of 2, next in 0 s): {told}",
        f"Background task ask failed: {told}",
    ]


def test_no_retry_left_and_no_cause(app):
    """Without a cause it fails with the Retry itself."""

    def ask():
        raise Retry

    with app.app_context():
        failed = background(ask)

    assert isinstance(failed.exception(WAIT), Retry)
    assert str(failed.exception()) == "retry"


@pytest.mark.parametrize(("after", "error"), [(-1, ValueError), ("1", TypeError), (float("inf"), ValueError)])
def test_retry_after_nonsense(after, error):
    """`Retry(after=...)` must be seconds to come."""
    with pytest.raises(error, match="after must be"):
        Retry(after)


def test_not_yet_is_no_attempt(threads_app, caplog):
    """A recipe that can do nothing yet waits without that counting as an attempt, a retry or a failure."""
    seen = []

    def busy_at_first():
        seen.append(attempts())
        if len(seen) == 1:
            raise NotYet(after=0.001)

    with threads_app.app_context():
        started = background(busy_at_first)
        started.join(WAIT)

    assert (started.state, started.attempts, seen) == ("succeeded", 1, [1, 1])
    assert caplog.records == []


# Backoff


def test_default_backoff():
    """By default the waits double from 2 seconds to 600, which chance shortens by up to a fifth."""
    options = Options()

    longest = [wait_before(options, attempt, chance=lambda: 0) for attempt in range(2, 14)]
    shortest = [wait_before(options, attempt, chance=lambda: 1) for attempt in (2, 3, 4, 1000)]

    assert longest == [2, 4, 8, 16, 32, 64, 128, 256, 512, 600, 600, 600]
    assert shortest == pytest.approx([1.6, 3.2, 6.4, 480])
    assert 1.6 < wait_before(options, 2) <= 2


@pytest.mark.parametrize(
    ("backoff", "waits"),
    [
        (5, [5, 5, 5, 5]),
        (timedelta(seconds=5), [5, 5, 5, 5]),
        ([1, 5, 30], [1, 5, 30, 30]),
        ((1, timedelta(minutes=1)), [1, 60, 60, 60]),
        (lambda attempt: attempt * 10, [20, 30, 40, 50]),
        (lambda attempt: timedelta(minutes=attempt), [120, 180, 240, 300]),
    ],
    ids=["number", "timedelta", "list", "tuple", "callable", "callable of timedelta"],
)
def test_backoff(backoff, waits):
    """A backoff may be a number, a sequence, whose last one is repeated, or a callable of the attempt to come."""
    options = Options().replace(backoff=backoff)

    assert [wait_before(options, attempt) for attempt in (2, 3, 4, 5)] == waits


def test_backoff_of_a_call(threads_app):
    """The task waits as its backoff says before each attempt."""
    asked = []

    def backoff(attempt):
        asked.append(attempt)
        return 0.001

    with threads_app.app_context():
        background.using(retries=3, backoff=backoff)(fail).join(WAIT)

    assert asked == [2, 3, 4]


def test_backoff_that_is_no_good(app, caplog):
    """A callable that returns no seconds ends the retries with a line in the log."""
    with app.app_context():
        failed = background.using(retries=3, backoff=lambda attempt: None)(fail)
        failed.join(WAIT)

    assert (failed.state, failed.attempts) == ("failed", 1)
    assert caplog.messages[0] == (
        "Backoff of background task fail failed: TypeError('backoff must be seconds or a timedelta, not NoneType.')"
    )


# Delay


@pytest.mark.parametrize("delay", [3600, timedelta(hours=1)])
def test_delay(time, threads_app, delay):
    """A delayed task waits for as long as its delay says, and not longer."""
    with threads_app.app_context():
        delayed = background.using(delay=delay)(int)
        time.pass_by(3599)
        time.let_the_schedulers_look()
        before = delayed.state
        time.pass_by(1)

    assert before == "waiting"
    assert delayed.result(WAIT) == 0


def test_backoff_passes(time, make_app):
    """A retried task waits for as long as its backoff says, and not longer."""
    app = make_app(ASOK_QUEUES={"default": 1})
    told = threading.Semaphore(0)

    def flaky():
        if attempts() < 3:
            raise ValueError
        return "done"

    def retried(sender, task, error, wait):
        waits.append(wait)
        told.release()

    waits = []
    with app.app_context(), task_retried.connected_to(retried, app):
        flaking = background.using(retries=2, backoff=[10, 100])(flaky)
        for seconds in (9, 99):
            told.acquire(timeout=WAIT)
            # The only thread takes this one when it is through with that attempt.
            background(int).join(WAIT)
            time.pass_by(seconds)
            time.let_the_schedulers_look()
            assert flaking.state == "waiting"
            time.pass_by(1)

        assert flaking.result(WAIT) == "done"
    assert waits == [10, 100]


def test_delay_passes(app):
    """A delayed task runs when its time has come."""
    with app.app_context():
        delayed = background.using(delay=0.001)(int)

    assert delayed.result(WAIT) == 0


def test_earlier_delay_first(time, make_app):
    """Of two delayed tasks the one that is due earlier runs first, whichever was started first."""
    app = make_app(ASOK_QUEUES={"default": 1})
    order = []

    with app.app_context():
        later = background.using(delay=20)(order.append, "later")
        sooner = background.using(delay=10)(order.append, "sooner")
        time.pass_by(30)
    later.join(WAIT)
    sooner.join(WAIT)

    assert order == ["sooner", "later"]


# Timeout


def test_timeout(time, threads_app, gate, caplog):
    """A task past its timeout is logged once, with its id and the line it is at; it runs on."""
    started = threading.Event()

    def hold():
        # In here, for the stack to be the same wherever between the two the thread is when it is looked at.
        started.set()
        gate.wait(WAIT)

    def stuck_in_here():
        hold()
        return "done"

    with threads_app.app_context():
        late = background.using(timeout=timedelta(minutes=1))(stuck_in_here)
        started.wait(WAIT)
        time.pass_by(59)
        time.let_the_schedulers_look()
        before = list(caplog.records)
        time.pass_by(1)
        time.let_the_schedulers_look()
    gate.set()

    assert late.result(WAIT) == "done"
    assert before == []
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert record.getMessage().startswith(
        f"Background task stuck_in_here ({late.id}) has run past its timeout of 60 s, and still is at:\n"
    )
    assert ", in stuck_in_here\n    hold()" in record.getMessage()
    assert record.task_id == late.id


def test_in_time(time, threads_app, caplog):
    """A task that ends within its timeout is not spoken of, nor is its next attempt blamed for the first."""

    def flaky():
        if attempts() == 1:
            time.pass_by(1)
            raise Retry(after=0)
        time.pass_by(59.5)
        time.let_the_schedulers_look()

    with threads_app.app_context():
        background.using(timeout=60)(int).join(WAIT)
        retried = background.using(timeout=60, retries=1, retry_on=())(flaky)

        assert retried.exception(WAIT) is None
    assert "timeout" not in caplog.text


# Options upon options


def test_using_chains(app):
    """A further `using()` adds to the options of the one before, and beats them; neither changes the other."""
    mailing = background.using(queue="mail", name="letter")
    urgent = mailing.using(name="telegram", retries=2)

    with app.app_context():
        tasks = [urgent(int), mailing(int), background(int)]
        for each in tasks:
            each.join(WAIT)

    assert [(each.queue, each.name) for each in tasks] == [("mail", "telegram"), ("mail", "letter"), ("default", "int")]
    assert [each.options.retries for each in tasks] == [2, 0, 0]


def test_options_are_checked_once():
    """An invalid option raises where it is set, also upon others."""
    with pytest.raises(ValueError, match="retries must not be negative"):
        background.using(queue="mail").using(retries=-1)


# The one decision when to try again


@pytest.mark.parametrize(
    ("attempts", "error", "wait"),
    [
        (1, OSError(), 5.0),
        (2, OSError(), 5.0),
        (3, OSError(), None),
        (1, LookupError(), None),
        (1, Retry(), 5.0),
        (1, Retry(after=1), 1.0),
        (3, Retry(after=1), None),
        (1, WebhookUnavailable("busy", retry_after=60), 60.0),
        (1, WebhookUnavailable("busy", retry_after=1), 5.0),
        (1, WebhookUnavailable("busy"), 5.0),
        (3, WebhookUnavailable("busy", retry_after=60), None),
    ],
)
def test_next_wait(attempts, error, wait):
    """A retry comes after the backoff, or when the task or the other machine says; none past `retries`."""
    options = Options(retries=2, backoff=5, retry_on=(OSError, WebhookUnavailable))

    assert next_wait(options, attempts, error) == wait


def test_a_backoff_that_raises():
    """What a backoff raises comes out of the decision; the task logs it, and fails with its own error."""
    with pytest.raises(TypeError, match="backoff must be seconds or a timedelta"):
        next_wait(Options(retries=1, backoff=lambda attempt: None), 1, OSError())
