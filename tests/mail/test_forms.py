"""A form in place of a dict: a key may have several values, and none of them is dropped unseen."""

from __future__ import annotations

import flask_mail
import pytest
from urllib3 import HTTPHeaderDict
from werkzeug.datastructures import CombinedMultiDict, Headers, ImmutableMultiDict, MultiDict

from flask_asok import Mail, send_mail
from flask_asok.recipes.mail import send_mails

TIMEOUT = 10
PAIRS = [("to", "a@example.com"), ("to", "b@example.com"), ("body", "Hi")]

FORMS = [MultiDict(PAIRS), ImmutableMultiDict(PAIRS), CombinedMultiDict([MultiDict(PAIRS)])]


@pytest.fixture(params=FORMS, ids=lambda form: type(form).__name__)
def form(request):
    return request.param


def test_arguments(app, handler, form):
    """A batch takes dicts of arguments, not forms, and says so at the call; the dict of a form is taken."""
    for send in (Mail.send_many, send_mails):
        with pytest.raises(TypeError, match=rf"cannot hold an? {type(form).__name__}, .*pass its to_dict\(\)"):
            send([{"to": "user@example.com", "body": "Hi"}, form])

    assert Mail.send_many([form.to_dict()]).result(TIMEOUT)[0].accepted == ["a@example.com"]
    assert handler.received.qsize() == 1


@pytest.mark.parametrize("name", ["headers", "context"])
def test_argument(app, form, name):
    """Headers and the values of a template are no form either, however the email is sent."""
    given = {name: form, **({"template": "plain"} if name == "context" else {})}

    for send in (Mail.send, send_mail):
        with pytest.raises(
            TypeError, match=rf"{name} of an email cannot hold an? {type(form).__name__}, .*pass its to_dict\(\)"
        ):
            send("user@example.com", "Hello", **given)


def test_of_a_message(app, form):
    """The headers, the parts and the attachments of a Message take no form."""
    attachment = flask_mail.Attachment("a.txt", "text/plain", "Hi")
    attachment.headers = form

    for changed in ({"extra_headers": form}, {"alts": form}, {"attachments": [attachment]}):
        message = flask_mail.Message("Hello", ["user@example.com"], "Hi")
        vars(message).update(changed)

        with pytest.raises(TypeError, match=r"pass its to_dict\(\)"):
            Mail.send_message(message)


def test_without_to_dict(app):
    """Where there is no `to_dict`, the text says what a dict must be like."""
    with pytest.raises(
        TypeError, match=r"headers of an email cannot hold an? HTTPHeaderDict, .*a dict with one value for each key"
    ):
        Mail.send("user@example.com", "Hello", "Hi", headers=HTTPHeaderDict({"X-A": "1"}))


def test_headers_are_headers(app, handler):
    """Werkzeug's Headers are taken: each value in them counts, so a header that is there twice is noticed."""
    Mail.send("user@example.com", "Hello", "Hi", headers=Headers({"X-A": "1"})).result(TIMEOUT)

    assert handler.take().message["X-A"] == "1"
    with pytest.raises(ValueError, match="there twice"):
        Mail.send("user@example.com", "Hello", "Hi", headers=Headers([("X-A", "1"), ("X-A", "2")]))
