"""`@cached` functions and their keys."""

import enum
import re
import types
import uuid
from datetime import date

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flask_asok import Cache, background, cached
from flask_asok.recipes.cache import LRUStore

TEXTS = st.text(alphabet=":/,[]|é-_.~%a1 ", max_size=4)
"""What may stand beside an argument, and what may not."""


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


@pytest.mark.parametrize(
    ("key", "better"),
    [
        ("price-{a}-{b}", "price:{a}:{b}"),
        ("f_{a}_{b}", "f:{a}:{b}"),
        ("n:{a}{b}", "n:{a}:{b}"),
        ("{a}1{b}", "{a}:1:{b}"),
        ("post-{a}/{b}", "post:{a}/{b}"),
        ("post:{a}:{b}-drafts", "post:{a}:{b}:drafts"),
        ("{{x}}{a!r}~{b:>5}.json", "{{x}}{a!r}:{b:>5}:json"),
        ("%{a}%{b}", "%:{a}:%:{b}"),
    ],
)
def test_text_that_passes_for_the_key(key, better):
    """Where the text of one argument could be a part of the key, or of another argument, the definition is refused."""

    def load(a, b):
        return a, b

    with pytest.raises(TypeError, match=re.escape(f"such as a colon: @cached({better!r}).")):
        cached(key)(load)
    assert cached(better)(load).template == better


@settings(max_examples=50)
@given(st.tuples(TEXTS, TEXTS), st.tuples(TEXTS, TEXTS))
@pytest.mark.parametrize("key", ["{a}:{b}", "x/{a}, {b}", "[{a}]é{b}|"])
def test_one_key_for_one_call(key, one, other):
    """Whatever the texts are, two calls have one key only if they are the same."""
    function = cached(key)(lambda a, b: (a, b))

    assert (function.key(*one) == function.key(*other)) == (one == other)


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


def test_positional_ttl():
    """So does a second argument without its name."""
    with pytest.raises(TypeError, match=r'the rest by name: @cached\("recent_posts", ttl=300\)'):
        cached("posts", 300)


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
