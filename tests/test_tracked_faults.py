"""Whatever a result, an error or a callable does when it is looked at, a tracked task ends, for every process."""

import functools
import gc
import logging
import threading
import weakref

import pytest

from flask_asok import BackendUnavailable, FlaskAsok, background, report_progress
from flask_asok.sharing import open_store
from flask_asok.state import state_of

WAIT = 10

asok = FlaskAsok()

tracked = background.using(tracked=True)


@pytest.fixture
def app(make_app, tmp_path, backend):
    """An application with a file, in its context, on each backend in turn."""
    app = make_app(ASOK_STORE=str(tmp_path / "asok.sqlite3"), **backend)
    with app.app_context():
        yield app


class Unprintable(Exception):
    def __init__(self, error):
        self.error = error

    def __repr__(self):
        raise self.error("boom")

    __str__ = __repr__


class Raising:
    """A proxy to nothing: it raises whatever it is asked for."""

    def __getattr__(self, name):
        raise RuntimeError("not connected")

    def __reduce__(self):
        raise RuntimeError("not connected")

    @property
    def __class__(self):
        raise RuntimeError("not connected")

    def __call__(self):
        return 3


def add(a, b=0):
    return a + b


class Undecodable(Exception):
    """Its text has a name as `os.listdir()` gives it where that is not UTF-8."""

    def __str__(self):
        return "no space for photo\udce9.jpg"

    __repr__ = __str__


@pytest.mark.parametrize("retries", [0, 1])
def test_half_of_a_character(app, monkeypatch, retries):
    """Half of a character, which no store takes, in a name, a unique key and an error: a sign stands for it."""
    # pytest-xdist cannot send such a log either.
    monkeypatch.setattr(logging.getLogger("asok.background"), "disabled", True)

    def fail():
        raise Undecodable

    options = tracked.using(name="import photo\udce9.jpg", unique="photo\udce9.jpg", retries=retries, backoff=0)

    task = options(fail)
    task.join(WAIT)

    found = asok.get(task.id)
    assert (found.state, found.name, found.error) == ("failed", "import photo?.jpg", "no space for photo?.jpg")
    task.name = "photo\udce9.jpg"
    assert task.name == "photo?.jpg"


@pytest.mark.parametrize("odd", ["\ud800", "a\0b"])
def test_odd_questions(app, odd):
    """Asked for what no store can hold, or for more tasks than any has, it answers as for others."""
    with app.app_context():
        done = tracked(add, 1)
        done.join(WAIT)

        assert asok.get(odd) is None
        assert not any(ask(odd) for ask in (asok.cancel, asok.retry, asok.discard))
        assert asok.tasks(name=odd) == asok.tasks(queue=odd) == []
        assert [[one.id for one in asok.tasks(limit=limit)] for limit in (2**31, 2**63 - 1)] == [[done.id]] * 2


def test_keys_with_half_of_a_character(make_app, tmp_path):
    """Two unique keys that differ in nothing else are two."""
    with make_app(ASOK_STORE=str(tmp_path / "asok.sqlite3")).app_context():
        first, again, other = (
            background.using(unique=key, delay=3_600)(add, 1)
            for key in ("photo\udce9.jpg", "photo\udce9.jpg", "photo\udce8.jpg")
        )

    assert first.id == again.id != other.id


@pytest.mark.parametrize("error", [ValueError, SystemExit, KeyboardInterrupt])
def test_raising_repr(app, error):
    """An error whose text cannot be had ends its task all the same, and the next one runs."""

    def boom():
        raise Unprintable(error)

    failed, after = tracked(boom), tracked(add, 1)

    assert isinstance(failed.exception(WAIT), Unprintable)
    assert after.result(WAIT) == 1
    assert asok.get(failed.id).state == "failed"
    assert asok.get(failed.id).error == "<Unprintable whose repr() failed>"


def test_raising_result(app):
    """So does a result that raises when it is looked at."""
    task = tracked(Raising)
    task.join(WAIT)

    assert asok.get(task.id).state == "succeeded"


def test_ctrl_c(make_app, tmp_path, monkeypatch):
    """
    Ctrl-C in a caller that runs the task itself goes up, and the task has ended for the other processes too.

    It does so where there is no thread to be had for it.
    """

    def refuse(*args):
        raise RuntimeError("can't start new thread")

    app = make_app(ASOK_STORE=str(tmp_path / "asok.sqlite3"))
    asok.close(app)
    monkeypatch.setattr("flask_asok.waiting.start_aside", refuse)

    def boom():
        raise Unprintable(KeyboardInterrupt)

    with app.app_context():
        with pytest.raises(KeyboardInterrupt):
            tracked(boom)
        with pytest.raises(KeyboardInterrupt):
            tracked.using(retries=1)(boom)

        assert [task.state for task in asok.tasks()] == ["failed", "abandoned"]


def test_odd_callables(app):
    """Whatever can be called can be tracked."""
    tasks = [tracked(Raising()), tracked(functools.partial(add, 3)), tracked(len, "abc")]

    assert [task.result(WAIT) for task in tasks] == [3, 3, 3]


def test_keys_of_partials(make_app, tmp_path):
    """The key of a partial belongs to its function, and that of an object to its class."""
    app = make_app(ASOK_STORE=str(tmp_path / "asok.sqlite3"))
    gate = threading.Event()

    def wait(number=0):
        gate.wait(WAIT)

    unique = background.using(unique="export")
    with app.app_context():
        first = unique(functools.partial(wait, 1))
        other = unique(functools.partial(add, 1))
        same = [unique(wait), unique(functools.partial(functools.partial(wait, 2)))]
        objects = [unique(Raising()), unique(Raising())]
        gate.set()

        assert [task.id for task in same] == [first.id, first.id]
        assert other.id != first.id
        assert objects[0].id != first.id
        first.join(WAIT)


@pytest.mark.parametrize("is_failing", [False, True])
def test_no_cycles(app, is_failing):
    """A settled task goes when its holder lets go of it, and waits for no garbage collector."""

    def report():
        report_progress(1, 2)
        if is_failing:
            raise ValueError("no stock")

    task = tracked(report)
    task.join(WAIT)
    kept = weakref.ref(task)
    gc.collect()
    gc.disable()
    try:
        del task
        for thread in threading.enumerate():
            if thread.name.startswith("asok"):
                # The worker may still be on its way out of the task.
                asok.close(app, WAIT)

        assert kept() is None
    finally:
        gc.enable()


def test_shutdown_while_an_attempt_begins(make_app, tmp_path, monkeypatch):
    """A task whose beginning is being written down when the process shuts down is abandoned, here and elsewhere."""
    app = make_app(ASOK_STORE=str(tmp_path / "asok.sqlite3"))
    store, writing, closed = open_store(app), threading.Event(), threading.Event()
    claim = store.claim

    def slow_claim(*args):
        writing.set()
        assert closed.wait(WAIT)
        return claim(*args)

    monkeypatch.setattr(store, "claim", slow_claim)
    ran = []
    with app.app_context():
        task = tracked(ran.append, 1)
        assert writing.wait(WAIT)
        state_of(app).backend.close(0)
        told = task.state
        closed.set()
        for thread in threading.enumerate():
            if thread.name.startswith("asok"):
                thread.join(WAIT)

        assert (told, task.state, ran) == ("abandoned", "abandoned", [])
        assert store.read(task.id).state == "abandoned"


@pytest.mark.parametrize(
    "where",
    [
        "reddis://10.0.0.1/0",
        "redis:/10.0.0.1",
        "REDIS://h",
        "sqlite:///shop.db",
        "postgresql://h/shop",
        "http://h/",
        ":memory:",
        "~/asok.sqlite3",
    ],
)
def test_a_place_that_is_none(make_app, where):
    """What is neither a path nor the URL of a Redis is told of when the app is set up, and makes no file."""
    with pytest.raises(ValueError, match=r'ASOK_STORE must be a path, a Redis URL .* or "memory"') as caught:
        make_app(ASOK_STORE=where)

    assert where not in str(caught.value)


@pytest.mark.parametrize("where", ["", "  ", ".", "..", "/", "tasks/", "tasks/..", "/tmp/tasks/ ", "asok\0.sqlite3"])
def test_a_place_that_is_a_folder(make_app, tmp_path, where):
    """A place without the name of a file, an empty one for instance, does not turn a folder into a database."""
    with pytest.raises(ValueError, match=r"ASOK_STORE must name a file: .* leave it out"):
        make_app(ASOK_STORE=where)

    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("where", ["C:/asok.sqlite3", "deep/asok.sqlite3", "asok~.sqlite3"])
def test_a_place_with_odd_letters(make_app, where):
    """A path may have a colon or a tilde in it."""
    app = make_app(ASOK_STORE=where)

    assert app.config["ASOK_STORE"].endswith(where)


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("redis://:s3cr3t@127.0.0.1:1/0", "127.0.0.1:1: connection refused"),
        ("redis://:s3cr3t@nowhere.invalid/0", "nowhere.invalid:6379: the host's name is unknown"),
        ("unix:///nowhere/redis.sock", "/nowhere/redis.sock: no such file or directory"),
    ],
)
def test_a_redis_that_is_down(make_app, url, why):
    """The error names the Redis and the cause, and no password."""
    app = make_app(ASOK_STORE=url)

    with app.app_context(), pytest.raises(BackendUnavailable) as caught:
        background.using(unique="key")(add, 1)

    assert str(caught.value) == f"The Redis of the store cannot be used: {why}."
