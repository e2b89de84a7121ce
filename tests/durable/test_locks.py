"""A run of a durable periodic task and the first durable call of a process wait for each other in no circle."""

import threading

import durable_jobs as jobs
import pytest

from flask_asok import BackendUnavailable, FlaskAsok, background
from flask_asok.dispatch import start_if
from flask_asok.durable.home import store_of_calls
from flask_asok.options import Options
from flask_asok.sharing import open_store
from flask_asok.state import AppState

WAIT = 10

asok = FlaskAsok()


def test_first_call_while_a_tick_is_taken(app, rows):
    """A sweeper or a request that needs the store for the first time holds up no run that is just written down."""
    store, entered, is_over = open_store(app), threading.Event(), threading.Event()
    probe = store.probe
    sweeper = threading.Thread(target=store_of_calls, args=(app,))

    def slow_probe(*args, **kwargs):
        entered.set()
        if not is_over.wait(WAIT) and threading.current_thread() is sweeper:
            raise BackendUnavailable("The run waits for this thread, which waits for the run.")
        return probe(*args, **kwargs)

    def admit(task):
        # From now on the file is locked by this thread.
        store.probe = slow_probe
        sweeper.start()
        while not entered.wait(0.01) and sweeper.is_alive():
            pass
        return True

    with app.app_context():
        task = start_if(admit, jobs.note, ("x",), {}, Options(durable=True))
        was_early = not is_over.is_set() and (not entered.is_set() or sweeper.is_alive())
        is_over.set()
        sweeper.join(WAIT)
        task.join(WAIT)

    assert was_early
    assert jobs.noted(rows) == ["x"]


@pytest.mark.parametrize("options", [Options(durable=True), Options(durable=True, timeout=60), Options(tracked=True)])
def test_what_is_asked_in_a_transaction(app, monkeypatch, options):
    """While the file is locked a thread asks for nothing that the application shares, and that others may be making."""
    inside, asked = [], []
    shared = AppState.shared

    def note(state, key, make):
        if inside:
            asked.append(key)
        return shared(state, key, make)

    store = open_store(app)
    add = store.add

    def last(record):
        try:
            return add(record)
        finally:
            inside.clear()

    store.add = last
    monkeypatch.setattr(AppState, "shared", note)
    with app.app_context():
        task = start_if(lambda task: inside.append(True) or True, jobs.add, (1, 2), {}, options)
        task.join(WAIT)

    assert task.result(WAIT) == 3
    assert asked == []


def test_the_key_is_told_without_the_lock(app):
    """While a process compares its key with that in the store, other threads get what the application shares."""
    store, others = open_store(app), []
    probe = store.probe

    def slow_probe(*args, **kwargs):
        other = threading.Thread(target=app.extensions["asok"].shared, args=("something", object))
        other.start()
        other.join(WAIT)
        others.append(other.is_alive())
        return probe(*args, **kwargs)

    store.probe = slow_probe
    with app.app_context():
        background.using(durable=True)(jobs.add, 1, 2).join(WAIT)

    assert others == [False]


def test_the_key_is_told_later(app):
    """A store that is away at the first comparison is asked again by the next call."""
    store, told = open_store(app), []
    probe = store.probe

    def away(*args, **kwargs):
        told.append("away")
        store.probe = lambda *args, **kwargs: told.append("told") or probe(*args, **kwargs)
        raise BackendUnavailable("The store is away.")

    store.probe = away
    with app.app_context():
        with pytest.raises(BackendUnavailable):
            background.using(durable=True)(jobs.add, 1, 2)
        for _ in range(2):
            background.using(durable=True)(jobs.add, 1, 2).join(WAIT)

    assert told == ["away", "told"]
