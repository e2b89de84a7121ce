"""The tokens of forms."""

import pytest
from flask import Flask

from flask_asok import NotConfigured
from flask_asok.tokens import KEEP_SECONDS, is_valid_token, make_token


def app_with(key, *fallbacks, name="shop"):
    app = Flask(name)
    app.config.update(SECRET_KEY=key, SECRET_KEY_FALLBACKS=list(fallbacks))
    return app


def test_token():
    """A token is good for its purpose and its id."""
    app = app_with("a")

    assert is_valid_token(app, make_token(app, "cancel", "1"), "cancel", "1")


@pytest.mark.parametrize(("purpose", "id"), [("retry", "1"), ("cancel", "2"), ("", "1"), ("cancel", "")])
def test_other_step(purpose, id):
    """A token is good for no other purpose and no other id."""
    app = app_with("a")

    assert not is_valid_token(app, make_token(app, "cancel", "1"), purpose, id)


@pytest.mark.parametrize("other", [app_with("b"), app_with("a", name="blog")], ids=["key", "app"])
def test_other_app(other):
    """A token of another key, or of another app with the same key, is not good."""
    assert not is_valid_token(app_with("a"), make_token(other, "cancel", "1"), "cancel", "1")


@pytest.mark.parametrize("text", ["", ".", "..", "a.b.c", "\ud800", "\N{SNOWMAN}", "x" * 10_000, "Cg.Cg.Cg"])
def test_nonsense(text):
    """Any other text is not good, and raises nothing."""
    assert not is_valid_token(app_with("a"), text, "cancel", "1")


def test_old_token(monkeypatch):
    """A token is good for a day."""
    app = app_with("a")
    token = make_token(app, "cancel", "1")
    now = __import__("time").time()

    monkeypatch.setattr("itsdangerous.timed.time.time", lambda: now + KEEP_SECONDS + 2)

    assert not is_valid_token(app, token, "cancel", "1")


def test_rotated_key():
    """While a key is a fallback the tokens that it has signed are good."""
    token = make_token(app_with("old"), "cancel", "1")

    assert is_valid_token(app_with("new", "older", "old"), token, "cancel", "1")
    assert not is_valid_token(app_with("new", "older"), token, "cancel", "1")


@pytest.mark.parametrize("key", [None, ""])
def test_no_key(key):
    """Without a SECRET_KEY there are no tokens."""
    with pytest.raises(NotConfigured, match="SECRET_KEY"):
        make_token(app_with(key), "cancel", "1")
