"""`warm_all`, and the commands `flask asok warm` and `flask asok cache clear`."""

import threading

import pytest

from flask_asok import Cache, cached
from flask_asok.recipes.cache import warm_all


def define(loads):
    @cached("one")
    def one():
        loads.append("one")
        return 1

    @cached("broken")
    def broken():
        loads.append("broken")
        raise LookupError("no database")

    @cached("square:{n}", each=lambda: [2, (3,)])
    def square(n):
        loads.append(n)
        return n * n

    @cached("cube:{n}")
    def cube(n):
        loads.append("cube")

    return one, square


def test_warm_all(app, loads):
    """warm_all warms every function it can, and returns the value or the error for each key."""
    define(loads)
    with app.app_context():
        results = warm_all()

        assert {**results, "broken": None} == {"one": 1, "broken": None, "square:2": 4, "square:3": 9}
        assert isinstance(results["broken"], LookupError)
        assert Cache().get_many("one", "square:2", "square:3") == {"one": 1, "square:2": 4, "square:3": 9}
    assert sorted(map(str, loads)) == ["2", "3", "broken", "one"]


def test_warm_all_keys(memory_app, loads):
    """Only the given keys are warmed, by template or in full, each once."""
    define(loads)
    with memory_app.app_context():
        assert warm_all(["square:2", "one", "square:2"]) == {"square:2": 4, "one": 1}
        assert warm_all(["square:{n}"]) == {"square:2": 4, "square:3": 9}
        assert warm_all([]) == {}


def test_warm_all_unknown_key(memory_app, loads):
    """An unknown key is a ValueError that names the known ones."""
    define(loads)
    with memory_app.app_context(), pytest.raises(ValueError, match=r"Known keys are: one, broken, square:\{n\}"):
        warm_all(["two"])


def test_each_that_fails(memory_app, loads):
    """A function whose `each` raises stops none of the others, and is not asked where another one is meant."""

    @cached("user:{id}", each=lambda: asked.append(1) or 1 / 0)
    def user(id): ...

    @cached("feed:{id}", each=lambda: [object()])
    def feed(id): ...

    asked = []
    define(loads)
    with memory_app.app_context():
        assert warm_all(["one", "square:{n}"]) == {"one": 1, "square:2": 4, "square:3": 9}
        assert asked == []
        found = warm_all(only_missing=True)

    assert isinstance(found["user:{id}"], ZeroDivisionError)
    assert isinstance(found["feed:{id}"], TypeError)
    assert isinstance(found["broken"], LookupError)


def test_warm_all_missing(memory_app, loads):
    """With only_missing a fresh value is left as it is."""
    one, _ = define(loads)
    with memory_app.app_context():
        one()

        assert "one" not in warm_all(["one", "square:2"], only_missing=True)
    assert loads == ["one", 2]


def test_warm_all_jobs(memory_app):
    """So many keys as jobs says are loaded at a time, each in a context of its own."""
    together = threading.Barrier(3)

    @cached("n:{n}", each=lambda: range(3))
    def wait(n):
        return together.wait(10) >= 0

    with memory_app.app_context():
        assert warm_all(jobs=3) == {"n:0": True, "n:1": True, "n:2": True}


def test_warm_all_two_apps(make_app, loads):
    """warm_all warms the current app's cache and no other."""
    define(loads)
    one, two = make_app("one"), make_app("two")
    with one.app_context():
        warm_all(["one"])

    with two.app_context():
        assert not Cache().has("one")


def run(app, *args):
    return app.test_cli_runner().invoke(args=["asok", *args])


def test_command(redis_app, loads):
    """`flask asok warm KEY` loads, prints a line for each key, and exits with 0."""
    define(loads)

    result = run(redis_app, "warm", "one", "square:{n}")

    assert result.exit_code == 0, result.output
    lines = [line.split() for line in result.stdout.splitlines()]
    assert [(line[0], line[-1]) for line in lines] == [("one", "ok"), ("square:2", "ok"), ("square:3", "ok")]
    with redis_app.app_context():
        assert Cache().get("square:3") == 9


def test_command_all(redis_app, loads):
    """`flask asok warm --all` exits with 1 when a loader fails, and says which."""
    define(loads)

    result = run(redis_app, "warm", "--all", "--jobs", "2")

    assert result.exit_code == 1
    assert "failed: LookupError('no database')" in result.stdout
    assert len(loads) == 4


def test_command_missing(redis_app, loads):
    """`--missing` leaves out what is there."""
    define(loads)
    run(redis_app, "warm", "one")

    result = run(redis_app, "warm", "one", "--missing")

    assert result.exit_code == 0
    assert result.stdout == "Nothing to warm.\n"
    assert loads == ["one"]


def test_command_list(memory_app, loads):
    """`--list` shows the keys, and which cannot be warmed."""
    define(loads)

    result = run(memory_app, "warm", "--list")

    assert result.stdout.splitlines() == ["one", "broken", "square:{n}", "cube:{n}  (needs each=)"]


def test_command_list_of_nothing(memory_app):
    """Where nothing is cached `--list` says so, on stderr."""
    result = run(memory_app, "warm", "--list")

    assert result.exit_code == 0
    assert result.stdout == ""
    assert "no @cached function" in result.stderr


@pytest.mark.parametrize("args", [["warm", "--all"], ["cache", "clear"]])
def test_command_without_shared_store(memory_app, loads, args):
    """A command cannot reach the memory of the web process: it exits with 2 and says what to set."""
    define(loads)

    result = run(memory_app, *args)

    assert result.exit_code == 2
    assert "CACHE_REDIS_URL" in result.stderr
    assert loads == []


@pytest.mark.parametrize(("args", "text"), [([], "or --all"), (["two"], "'two'")])
def test_command_misused(redis_app, loads, args, text):
    """No key, or an unknown one, exits with 2 and says what there is."""
    define(loads)

    result = run(redis_app, "warm", *args)

    assert result.exit_code == 2
    assert text in result.stderr


def test_command_with_terminal(redis_app, loads, monkeypatch):
    """On a terminal there is a progress bar."""
    define(loads)
    monkeypatch.setattr("flask_asok.recipes.cache.cli._is_terminal", lambda: True)

    result = run(redis_app, "warm", "one")

    assert "Warming" in result.stderr
    assert "ok" in result.stdout


def test_command_store_down(make_app, own_redis, loads):
    """A value that was loaded but could not be stored counts as failed."""
    define(loads)
    app = make_app(CACHE_REDIS_URL=own_redis.url)
    own_redis.stop()

    warmed, cleared = run(app, "warm", "one"), run(app, "cache", "clear")

    assert warmed.exit_code == 1
    assert "not stored" in warmed.stdout
    assert cleared.exit_code == 1
    assert "not cleared" in cleared.stderr


def test_command_clear(redis_app):
    """`flask asok cache clear` deletes what is cached, and nothing else; --prefix says what."""
    with redis_app.app_context():
        Cache().set("a", 1)
        Cache(prefix="my:").set("a", 2)

    result = run(redis_app, "cache", "clear")

    assert result.exit_code == 0
    with redis_app.app_context():
        assert not Cache().has("a")
        assert Cache(prefix="my:").get("a") == 2
        run(redis_app, "cache", "clear", "--prefix", "my:")
        assert not Cache(prefix="my:").has("a")
