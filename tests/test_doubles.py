"""The doubles that ship for tests."""

import threading

import pytest
from flask import g

from flask_asok import FlaskAsok, background, send_webhook
from flask_asok.testing.doubles import distribute
from flask_asok.testing.promises import jobs


@pytest.fixture
def app(make_app):
    app = make_app()
    distribute(app)
    with app.app_context():
        yield app


def test_runs(app):
    """A call that a worker could run is run, and arrives as it would there."""
    values = [1, "a", (1, 2), {"b": [b"x"]}]

    *returned, keywords = background(jobs.echo, *values, key={1}).result(10)

    assert returned == values
    assert keywords == {"key": {1}}
    assert returned[3] is not values[3]


@pytest.mark.parametrize("call", [(lambda: None,), (jobs.echo, threading.Lock()), (len, [])])
def test_what_cannot_be_sent(app, call):
    """What could not be sent to a worker is a TypeError at the call, and no task is left."""
    with pytest.raises(TypeError):
        background(*call)

    assert FlaskAsok().tasks() == []


def test_recipes_know(app):
    """Recipes see a distributed backend: the secret of a webhook stays here."""
    with pytest.raises(TypeError, match="ASOK_WEBHOOK_SECRETS"):
        background(send_webhook, "http://localhost/", {}, secret="whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")


def test_context(app):
    """The context is as on the immediate backend."""
    g.user = 7

    assert background(jobs.add, 1, b=2).result(10) == 3
