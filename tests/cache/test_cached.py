"""@cached functions, warm_all and the commands."""

import enum
import re
import threading
import types
import uuid
from datetime import date

import pytest

from flask_asok import Cache, background, cached
from flask_asok.recipes.cache import LRUStore, decorator, warm_all


@pytest.fixture(autouse=True)
def registry(monkeypatch):
    """Each test has the cached functions that it defines, and no others."""
    monkeypatch.setattr(decorator, "_registered", {})


@pytest.fixture
def loads():
    return []


def test_reads_through(app, loads):
    """A cached function loads with its first call, and returns the stored value with the others."""

    @cached("recent_posts", ttl=300, stale=3600)
    def recent_posts():
        """Return the posts."""
        loads.append(1)
        return ["One"]

    with app.app_context():
        assert [recent_posts(), recent_posts()] == [["One"], ["One"]]
        assert Cache().get("recent_posts") == ["One"]
    assert len(loads) == 1
    assert recent_posts.__name__ == "recent_posts"
    assert recent_posts.__doc__ == "Return the posts."


def test_warm(app, loads):
    """warm loads now, whatever is stored, and returns the value."""

    @cached("count")
    def count():
        loads.append(1)
        return len(loads)

    with app.app_context():
        assert count() == 1
        assert count.warm() == 2
        assert count() == 2


def test_warm_in_background(app, loads):
    """warm is a function like any other for background."""

    @cached("count")
    def count():
        loads.append(1)
        return len(loads)

    with app.app_context():
        assert background(count.warm).result(10) == 1
        assert count() == 1


def test_delete(app, loads):
    """delete forgets the value and says whether there was one."""

    @cached("count")
    def count():
        loads.append(1)
        return len(loads)

    with app.app_context():
        count()

        assert count.delete() is True
        assert count.delete() is False
        assert count() == 2


def test_load(memory_app):
    """load is the function itself, without the cache."""

    @cached("a")
    def one():
        return 1

    assert one.load() == 1


def test_ttl(memory_app, clock, loads):
    """ttl and stale are the decorator's."""

    @cached("count", ttl=10, stale=5)
    def count():
        loads.append(1)
        return len(loads)

    with memory_app.app_context():
        count()
        clock.advance(16)

        assert count() == 2


def test_arguments(app, loads):
    """Each call's arguments make a key, however they are passed."""

    @cached("sum:{a}:{b}")
    def add(a, b=1):
        loads.append((a, b))
        return a + b

    with app.app_context():
        assert [add(1), add(1, 1), add(b=1, a=1), add(2), add.warm(3)] == [2, 2, 2, 3, 4]
        assert Cache().get("sum:3:1") == 4
        assert add.delete(3) is True
    assert loads == [(1, 1), (2, 1), (3, 1)]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (("a:b", "c"), ("a", "b:c")),
        ((None, "a"), ("None", "a")),
        ((True, "a"), ("True", "a")),
        (("%3A", ""), (":", "")),
    ],
)
def test_keys_differ(one, other):
    """Different texts never make the same key."""

    @cached("{a}:{b}")
    def join(a, b): ...

    assert join.key(*one) != join.key(*other)


class Colour(enum.Enum):
    RED = 1


@pytest.mark.parametrize(
    ("argument", "key"),
    [
        (7, "of:7"),
        (-1.5, "of:-1.5"),
        ("Zoë & Co", "of:Zo%C3%AB%20%26%20Co"),
        (date(2026, 4, 4), "of:2026-04-04"),
        (uuid.UUID(int=1), "of:00000000-0000-0000-0000-000000000001"),
        (Colour.RED, "of:RED"),
    ],
)
def test_key_of(argument, key):
    """A key is the template with the arguments' texts."""

    @cached("of:{thing}")
    def of(thing): ...

    assert of.key(argument) == key


@pytest.mark.parametrize("argument", [object(), [1], {"a": 1}, b"bytes"])
def test_key_of_object(argument):
    """An argument without a lasting text is a TypeError."""

    @cached("of:{thing}")
    def of(thing): ...

    with pytest.raises(TypeError, match="cannot be part of a cache key"):
        of.key(argument)


def test_method(memory_app, loads):
    """A method's key may name attributes of its object."""

    class Feed:
        def __init__(self, id):
            self.id = id

        @cached("feed:{self.id}:{page}")
        def posts(self, page):
            loads.append((self.id, page))
            return f"{self.id}/{page}"

    with memory_app.app_context():
        assert [Feed(1).posts(1), Feed(1).posts(1), Feed(2).posts(1)] == ["1/1", "1/1", "2/1"]
        assert Feed(1).posts.key(3) == "feed:1:3"
        assert Feed(1).posts.warm(3) == "1/3"
        assert Feed(1).posts.delete(3) is True
        assert Feed(1).posts.template == "feed:{self.id}:{page}"
    assert loads == [(1, 1), (2, 1), (1, 3)]


def test_key_leaves_out_an_argument():
    """A key that leaves out an argument is a TypeError where the function is defined."""
    with pytest.raises(TypeError, match="'page' would share a value"):

        @cached("posts")
        def posts(page): ...


def test_key_names_an_unknown_argument():
    """A key that names an argument which the function has not is a TypeError."""
    with pytest.raises(TypeError, match="no argument 'page'"):

        @cached("posts:{page}")
        def posts(): ...


def test_key_without_names():
    """A key must name its arguments."""
    with pytest.raises(TypeError, match="name the arguments"):

        @cached("posts:{}")
        def posts(page): ...


def test_no_key():
    """The decorator without a key says what it takes."""
    with pytest.raises(TypeError, match="takes the key"):

        @cached
        def posts(): ...


def test_async():
    """An async function is a TypeError: a coroutine cannot be kept."""
    with pytest.raises(TypeError, match="async"):

        @cached("posts")
        async def posts(): ...


@pytest.mark.parametrize("options", [{"ttl": 0}, {"stale": -1}])
def test_bad_lifetime(options):
    """A bad ttl or stale window is a ValueError where the function is defined."""
    with pytest.raises(ValueError, match="must"):
        cached("posts", **options)


def test_same_key_twice():
    """Two functions with one key are a ValueError."""

    @cached("posts")
    def one(): ...

    with pytest.raises(ValueError, match=r"is the key of .*one already"):

        @cached("posts")
        def two(): ...


def test_defined_again():
    """The same function may be defined again, as in a factory."""

    def make():
        @cached("posts")
        def posts(): ...

        return posts

    make()

    assert make().template == "posts"


def test_own_cache(loads):
    """A cached function may have a cache of its own, and then needs no app."""

    @cached("count", cache=Cache(LRUStore()))
    def count():
        loads.append(1)
        return len(loads)

    assert [count(), count()] == [1, 1]
    assert repr(count) == "<cached 'count'>"


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


@pytest.fixture
def feeds():
    """A class with every kind of cached method, its two subclasses, and an object of neither."""

    class Feed:
        id = 1
        kind = "any"

        @cached("feed:{self.id}")
        def feed(self):
            return type(self).__name__

        @property
        @cached("name:{self.id}")
        def name(self):
            return type(self).__name__

        @classmethod
        @cached("count:{cls.kind}")
        def count(cls):
            return cls.__name__

        @staticmethod
        @cached("owner:{owner.id}")
        def owner(owner):
            return type(owner).__name__

    class User(Feed):
        def feed(self):
            return super().feed()

    class Team(Feed):
        pass

    return types.SimpleNamespace(Feed=Feed, User=User, Team=Team, Other=type("Other", (), {"id": 1}))


INHERITED = [
    lambda kind: kind().feed(),
    lambda kind: kind().name,
    lambda kind: kind.count(),
    lambda kind: kind().feed.warm() if kind.__name__ == "Team" else kind().feed(),
]


@pytest.mark.parametrize("call", INHERITED)
def test_inherited(app, feeds, call):
    """A method that a subclass inherits serves no class's value to another: its key has to name the class."""
    with app.app_context():
        assert call(feeds.Feed) == "Feed"
        for kind in (feeds.User, feeds.Team):
            with pytest.raises(TypeError, match=r"Name the class in the key: .*__name__\}"):
                call(kind)


@pytest.mark.parametrize("call", INHERITED)
def test_the_advice_for_the_inherited_works(app, feeds, call):
    """With the key of the error's advice each class has its own value."""
    told = []
    with app.app_context():
        for kind in (feeds.User, feeds.Team):
            with pytest.raises(TypeError) as raised:
                call(kind)
            told.append(re.search(r"@cached\(\"(.*)\"\)", str(raised.value))[1])
    assert told[0] == told[1]

    class Base:
        id = 1
        kind = "any"

        if "cls" in told[0]:

            @classmethod
            @cached(told[0])
            def count(cls):
                return cls.__name__
        else:

            @cached(told[0])
            def feed(self):
                return type(self).__name__

    kinds = [type(name, (Base,), {}) for name in ("User", "Team")]
    with app.app_context():
        values = [kind.count() if "cls" in told[0] else kind().feed() for kind in kinds for _ in range(2)]
    assert values == ["User", "User", "Team", "Team"]


def test_not_inherited(app, feeds):
    """The key of a method that is called on its own class, and of a static one, is as written."""
    with app.app_context():
        assert feeds.Feed().feed() == "Feed" and Cache().get("feed:1") == "Feed"
        assert feeds.Feed.owner(feeds.Other()) == "Other" and Cache().delete("owner:1")


@pytest.mark.parametrize("kind", [classmethod, staticmethod, property])
def test_next_to_the_function(kind):
    """@cached above @classmethod and its like says where it belongs."""
    with pytest.raises(TypeError, match=f"below @{kind.__name__}"):
        cached("feed")(kind(lambda: 1))
