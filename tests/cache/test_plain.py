"""What a cache that keeps objects warns of, or refuses: what ends with the session, or can be read only once."""

import collections
import dataclasses
import types
import warnings

import pytest
from flask_caching import Cache as FlaskCaching
from flask_sqlalchemy import SQLAlchemy

from flask_asok import Cache, background, cached, warm_cache
from flask_asok.recipes.cache import warm_all

db = SQLAlchemy()

cache = Cache()

BOUND = r"A \w+ bound to a database session was put into the cache, .* Cache plain values: dicts, ids\."


class Post(db.Model):
    id = db.Column(db.Integer, primary_key=True)
    title = db.Column(db.String)


@dataclasses.dataclass(slots=True)
class Page:
    posts: object


class View:
    def __init__(self, post):
        self.post = post


Pair = collections.namedtuple("Pair", "post count")

ALL = db.select(Post)


def post():
    return db.session.get(Post, 1)


def posts():
    return db.session.scalars(ALL).all()


@pytest.fixture
def shop(make_app, tmp_path):
    """Make an application with two posts in its database."""

    def shop(**config):
        app = make_app(SQLALCHEMY_DATABASE_URI=f"sqlite:///{tmp_path}/shop.db", **config)
        db.init_app(app)
        with app.app_context():
            db.create_all()
            db.session.add_all([Post(title="one"), Post(title="two")])
            db.session.commit()
        return app

    return shop


@pytest.fixture
def app(shop):
    return shop()


@pytest.mark.parametrize(
    "load",
    [
        post,
        posts,
        lambda: {"post": post()},
        lambda: {post(): 1},
        lambda: {**{number: number for number in range(60)}, "post": post()},
        lambda: (1, (post(),)),
        lambda: {post()},
        lambda: {1: post()}.values(),
        lambda: collections.deque([post()]),
        lambda: {"page": {"posts": posts()}},
        lambda: Page(posts()),
        lambda: Pair(post(), 1),
        lambda: types.SimpleNamespace(post=post()),
        lambda: View(post()),
        lambda: db.paginate(ALL),
        lambda: db.session.execute(ALL).first(),
        lambda: db.session.execute(ALL).all(),
        lambda: db.session.execute(ALL).mappings().all(),
        lambda: Post.query,
        lambda: {"session": db.session},
    ],
)
@pytest.mark.parametrize("enter", ["set", "set_many", "remember", "warm", "cached", "warm_all"])
def test_bound_to_a_session(app, load, enter):
    """Whatever holds on to the database session of a request is warned of when it is first cached, however it comes."""
    ways = {
        "set": lambda: cache.set("posts", load()),
        "set_many": lambda: cache.set_many({"posts": load()}),
        "remember": lambda: cache.remember("posts", load),
        "warm": lambda: cache.warm("posts", load),
        "cached": lambda: cached("posts")(load)(),
        "warm_all": lambda: cached("posts")(load) and _raised(warm_all()["posts"]),
    }

    with (
        app.app_context(),
        pytest.warns(UserWarning, match=BOUND) if enter != "warm_all" else pytest.raises(UserWarning, match=BOUND),
    ):
        ways[enter]()


def _raised(result):
    """Raise what a loader in another thread has raised: warnings are errors there."""
    if isinstance(result, Exception):
        raise result


def test_bound_to_a_session_in_the_background(app):
    """The loader of warm_cache is looked at as well."""
    with app.app_context():
        task = background(warm_cache, "posts", posts)

        assert "Cache plain values" in str(task.exception(10))


def test_the_warning_names_the_line(app):
    """The warning is for the line of the application that calls the cache."""
    with app.app_context(), pytest.warns(UserWarning, match=BOUND) as told:
        cache.remember("posts", posts)

    assert [warning.filename for warning in told] == [__file__]


@pytest.mark.parametrize("kind", ["flask-caching", "pickled files", "pickle on Redis"])
def test_pickled(shop, tmp_path, kind, request):
    """A store that pickles gives instances back without their session: it warns as well."""
    config = {
        "flask-caching": {},
        "pickled files": {"CACHE_TYPE": "FileSystemCache", "CACHE_DIR": str(tmp_path / "cache")},
        "pickle on Redis": {},
    }[kind]
    if kind == "pickle on Redis":
        config = {"CACHE_TYPE": "RedisCache", "CACHE_REDIS_URL": request.getfixturevalue("redis").url}
    app = shop(**config, CACHE_SERIALIZER="pickle") if kind != "flask-caching" else shop()
    if kind == "flask-caching":
        FlaskCaching(app, config={"CACHE_TYPE": "SimpleCache"})

    with app.app_context(), pytest.warns(UserWarning, match=BOUND):
        cache.set("post", post())


def test_json(shop, redis):
    """Where values become JSON an instance is a TypeError that names the key."""
    app = shop(CACHE_TYPE="RedisCache", CACHE_REDIS_URL=redis.url)

    with app.app_context():
        for load in (post, posts, lambda: db.session.execute(ALL).all(), lambda: db.session.scalars(ALL)):
            with pytest.raises(TypeError, match="'asok-cache:posts' cannot be cached"):
                cache.remember("posts", load)


@pytest.mark.parametrize(
    "load",
    [
        lambda: db.session.scalars(ALL),
        lambda: db.session.execute(ALL),
        lambda: db.session.connection().connection.cursor().execute("SELECT 1"),
        lambda: (number for number in range(3)),
        lambda: {"posts": map(str, range(3))},
        lambda: [iter([1])],
        lambda: Page(number for number in range(3)),
    ],
)
def test_read_only_once(app, load):
    """What only the first reader could read is a TypeError that names the key, one level down too."""
    with app.app_context(), pytest.raises(TypeError, match=r"'asok-cache:posts' cannot be cached: .* only once"):
        cache.remember("posts", load)


@pytest.mark.parametrize(
    "load",
    [
        lambda: [{"id": found.id, "title": found.title} for found in posts()],
        lambda: db.session.execute(db.select(Post.id, Post.title)).all(),
        lambda: Post(title="new"),
        lambda: collections.Counter("abc"),
        lambda: list(range(100_000)),
        lambda: [[(1,)] * 100] * 100,
        lambda: Post,
    ],
)
def test_plain_values(app, load):
    """Plain values, rows of columns, and what no session holds are cached without a word."""
    with app.app_context(), warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        value = cache.remember("posts", load)

        assert cache.get("posts") is value


def test_a_value_that_holds_itself(app):
    """The look at a value ends, whatever it holds."""
    endless = []
    endless.append(endless)

    with app.app_context():
        assert cache.set("endless", endless)
