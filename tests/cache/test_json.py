"""What a store that keeps JSON refuses: JSON would silently keep only a part of it."""

import dataclasses

import pytest
from werkzeug.datastructures import CombinedMultiDict, ImmutableMultiDict, MultiDict, TypeConversionDict

from flask_asok import Cache

cache = Cache()

PAIRS = [("tag", "one"), ("tag", "two")]


@dataclasses.dataclass
class Search:
    form: object


class Form(MultiDict):
    """A form of the application's own."""


FORMS = [
    MultiDict(PAIRS),
    ImmutableMultiDict(PAIRS),
    CombinedMultiDict([MultiDict(PAIRS[:1]), MultiDict(PAIRS[1:])]),
    Form(PAIRS),
]

WRAPS = [
    lambda form: form,
    lambda form: [form],
    lambda form: (1, {"form": form}),
    lambda form: {"a": [{"b": (form,)}]},
    lambda form: Search(form),
    lambda form: [Search([form])],
]


@pytest.fixture(params=["redis", "files"])
def app(request, make_app, tmp_path):
    """An application on each kind of store that keeps JSON."""
    if request.param == "redis":
        return make_app(CACHE_REDIS_URL=request.getfixturevalue("redis").url)
    return make_app(CACHE_TYPE="FileSystemCache", CACHE_DIR=str(tmp_path))


@pytest.mark.parametrize("wrap", WRAPS, ids=range(len(WRAPS)))
@pytest.mark.parametrize("form", FORMS, ids=lambda form: type(form).__name__)
def test_form(app, form, wrap):
    """A form, whose keys may have several values, is a TypeError that says what to cache, at whatever level."""
    with app.app_context():
        with pytest.raises(
            TypeError, match=rf"'asok-cache:a' cannot be cached: .*{type(form).__name__}.*to_dict\(flat=False\)"
        ):
            cache.set("a", wrap(form))
        assert not cache.has("a")

        assert cache.set("a", wrap(form.to_dict(flat=False)))
        assert cache.has("a")


@pytest.mark.parametrize("store", [
    lambda form: cache.set_many({"a": form}),
    lambda form: cache.remember("a", lambda: form),
    lambda form: cache.warm("a", lambda: form),
], ids=["set_many", "remember", "warm"])  # fmt: skip
def test_form_every_way(app, store):
    """It is so however the value comes into the cache."""
    with app.app_context():
        with pytest.raises(TypeError, match=r"'asok-cache:a' .*to_dict\(flat=False\)"):
            store({"form": MultiDict(PAIRS)})

        assert not cache.has("a")


@pytest.mark.parametrize("name", ["form", "args", "values"])
def test_request(app, name):
    """What a view has of its request is refused as well."""
    from flask import request

    with (
        app.test_request_context("/?tag=one&tag=two", method="POST", data={"tag": ["three", "four"]}),
        pytest.raises(TypeError, match=r"to_dict\(flat=False\)"),
    ):
        cache.set("a", getattr(request, name))


@pytest.mark.parametrize("value", [{1: "a", "1": "b"}, [{None: 1, "null": 2}], Search({True: 1, "true": 2})])
def test_keys_that_meet(app, value):
    """A dict of which two keys would become one is a TypeError."""
    with app.app_context():
        with pytest.raises(TypeError, match=r"'asok-cache:a' cannot be cached: .*two would become one"):
            cache.set("a", value)

        assert not cache.has("a")


def test_kept(app):
    """Other kinds of dict and list, also one that is in a value twice, come back whole."""
    twice = [1, {"b": None}]
    value = {"numbers": {1: "a", 2: "b"}, "other": TypeConversionDict(a="1"), "twice": [twice, twice]}
    with app.app_context():
        cache.set("a", value)

        assert cache.get("a") == {"numbers": {"1": "a", "2": "b"}, "other": {"a": "1"}, "twice": [twice, twice]}


def test_circle(app):
    """A value that holds itself is a TypeError too, and no endless look."""
    circle = []
    circle.append(circle)
    with app.app_context(), pytest.raises(TypeError, match="'asok-cache:a' cannot be cached"):
        cache.set("a", circle)


def test_unwritable_key(app):
    """A key that JSON cannot write is a TypeError that names where the value was to be kept."""
    with app.app_context(), pytest.raises(TypeError, match="'asok-cache:a' cannot be cached"):
        cache.set("a", {(1, 2): 3})


@pytest.mark.parametrize("config", [{}, {"CACHE_SERIALIZER": "pickle"}], ids=["memory", "pickle"])
def test_objects(make_app, redis, config):
    """Stores that keep objects give a form back whole."""
    app = make_app(**({"CACHE_REDIS_URL": redis.url} | config if config else config))
    with app.app_context():
        cache.set("a", MultiDict(PAIRS))

        assert cache.get("a").getlist("tag") == ["one", "two"]
