"""Neither a secret nor the path of a URL is ever shown: not in a log, a repr, an error or a signal."""

from __future__ import annotations

import base64
import json
import logging
import pickle
import socket
import traceback
from typing import Any

import pytest
from flask import Flask

from flask_asok import Delivery, WebhookError, WebhookGone, WebhookUnavailable, background, send_webhook, signals
from flask_asok.messages.names import Names
from flask_asok.messages.serializer import Serializer
from flask_asok.recipes.webhooks.recipe import deliver_queued_before, prepare
from flask_asok.recipes.webhooks.webhook import Webhook

TIMEOUT = 10
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
SESAME = "0PEN-5ESAME"
"""In every place where a caller may put a credential."""
HEADERS = {"Authorization": f"Bearer {SESAME}"}


def echo(sock: socket.socket, receiver: Any) -> None:
    """Answer with the request itself, as a debugging server does."""
    sock.sendall(sock.recv(65536))


def bad_header(sock: socket.socket, receiver: Any) -> None:
    sock.recv(65536)
    sock.sendall(b"HTTP/1.1 503 No\r\nno colon here\r\nContent-Length: 0\r\n\r\n")


def rubbish(sock: socket.socket, receiver: Any) -> None:
    """The request itself, as a status line."""
    sock.sendall(sock.recv(65536).replace(b"\r\n", b" ") + b"\r\n")


def silence(sock: socket.socket, receiver: Any) -> None:
    receiver.closed.wait(TIMEOUT)


def closes(sock: socket.socket, receiver: Any) -> None:
    sock.recv(65536)


def with_locals(error: BaseException) -> str:
    """Return what a logger shows that prints the variables of each frame."""
    return "".join(traceback.TracebackException.from_exception(error, capture_locals=True).format())


def chain(error: BaseException | None) -> str:
    """Return all texts of an error and of what it was raised from or in."""
    texts: list[str] = []
    while error is not None:
        texts += [str(error), repr(error), repr(error.args), repr(vars(error))]
        texts += traceback.format_exception(error)
        error = error.__cause__ or error.__context__
    return "\n".join(texts)


@pytest.mark.parametrize("behave", [None, echo, rubbish, bad_header, silence, closes, "blocked"])
def test_nothing_is_shown(app: Flask, receiver: Any, caplog: pytest.LogCaptureFixture, behave: Any) -> None:
    """Whatever the receiver does, log, error, signal and task tell only scheme, host and port."""
    caplog.set_level(logging.DEBUG)
    heard: list[Any] = []
    on_failed = lambda app, **kwargs: heard.append(kwargs)  # noqa: E731
    signals.webhook_failed.connect(on_failed, app)
    allow = None if behave != "blocked" else False
    receiver.behave = behave if behave != "blocked" else None
    receiver.answers = [b"HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n"] * 2
    url = f"http://localhost:{receiver.port}/services/{SESAME}?key={SESAME}"

    task = background.using(retries=1, backoff=0)(
        send_webhook, url, {}, secret=SECRET, headers=HEADERS, timeout=0.3, allow_private=allow
    )
    error = task.exception(TIMEOUT)

    assert isinstance(error, WebhookError)
    tasks = app.extensions["asok"].backend.tasks()
    for shown in (chain(error), with_locals(error), caplog.text, repr(heard), repr(task), str(tasks)):
        for secret in (SESAME, SECRET[6:], repr(base64.b64decode(SECRET[6:]))[2:-1]):
            assert secret not in shown
    (said,) = heard
    assert SESAME not in repr([getattr(said["delivery"], name) for name in Delivery.__slots__ if name != "excerpt"])
    assert said["delivery"].url == f"http://localhost:{receiver.port}"


def test_nothing_is_shown_of_a_direct_call(app: Flask, receiver: Any) -> None:
    """Nor do the variables of a direct call's frames, below the caller's own, hold any of it."""
    receiver.behave = closes
    url = f"http://localhost:{receiver.port}/services/{SESAME}"

    with pytest.raises(WebhookUnavailable) as raised:
        send_webhook(url, {"key": SESAME}, secret=SECRET, headers=HEADERS)

    ours = raised.value.__traceback__
    assert ours is not None
    shown = with_locals(raised.value.with_traceback(ours.tb_next))
    assert "_attempt" in shown
    assert SESAME not in shown
    assert SECRET not in shown


@pytest.mark.parametrize(
    "arguments",
    [
        {"url": f"ftp://h/{SESAME}"},
        {"url": f"http://u:{SESAME}@h/"},
        {"url": f"http://h /{SESAME}"},
        {"url": f"http://h:{SESAME}/"},
        {"url": f"http://[{SESAME}/"},
        {"url": f"http://h/{SESAME}\udc80"},
        {"secret": SESAME},
        {"secret": f"whsec_{SESAME}"},
        {"headers": {"X-A": f"{SESAME}\n"}},
        {"headers": {SESAME + "\n": "x"}},
        {"payload": {SESAME: float("nan")}},
        {"payload": SESAME + "\ud800"},
        {"payload": SESAME * 100_000},
    ],
)
def test_mistakes_quote_nothing(app: Flask, arguments: dict[str, Any]) -> None:
    """A mistake in an argument is named, and the argument is not quoted."""
    with pytest.raises((TypeError, ValueError)) as raised:
        send_webhook(**{"url": "http://localhost/", "payload": {}, **arguments})

    error: BaseException | None = raised.value
    while error is not None:
        assert SESAME not in repr((str(error), error.args, vars(error)))
        error = error.__cause__ or error.__context__


def test_what_is_queued(app: Flask) -> None:
    """What is queued shows none of it, and is plain data."""
    webhook = prepare(f"http://localhost/{SESAME}", {"a": SESAME}, secret=SECRET, headers=HEADERS)

    assert SESAME not in repr(webhook)
    assert SECRET not in repr(webhook)
    assert pickle.loads(pickle.dumps(webhook)) == webhook


def test_journey_to_a_worker(app: Flask, receiver: Any) -> None:
    """A webhook, and what became of it, can travel to another process and back."""
    serializer = Serializer(Names(["flask_asok.recipes"]))
    webhook = prepare(receiver.url, {"a": 1}, headers=HEADERS, allow_private=["localhost"])
    delivery = send_webhook(receiver.url, b"\xff")

    for value in (webhook, delivery):
        assert serializer.decode(json.loads(json.dumps(serializer.encode(value, "it")))) == value


def test_journey_of_an_error(app: Flask, receiver: Any) -> None:
    """So can the error of one that was not delivered, with its Delivery."""
    serializer = Serializer(Names(["flask_asok"]))
    receiver.answers = [b"HTTP/1.1 429 No\r\nRetry-After: 7\r\nContent-Length: 0\r\n\r\n"]
    with pytest.raises(WebhookUnavailable) as raised:
        send_webhook(receiver.url, {})

    error = serializer.decode_error(json.loads(json.dumps(serializer.encode_error(raised.value))))

    assert isinstance(error, WebhookUnavailable)
    assert (error.delivery, error.retry_after) == (raised.value.delivery, 7)
    assert (str(error), repr(error)) == (str(raised.value), repr(raised.value))


@pytest.mark.parametrize(
    ("old", "now"),
    [
        ("recipes.webhooks.delivery:send_webhook", deliver_queued_before),
        ("recipes.webhooks.message:Message", Webhook),
        ("recipes.webhooks.outcome:Delivery", Delivery),
        ("errors:WebhookUnavailable", WebhookUnavailable),
        ("errors:WebhookGone", WebhookGone),
    ],
)
def test_names_of_the_release_before(old: str, now: object) -> None:
    """What the release before has queued or recorded of webhooks can be read after an upgrade."""
    names = Names(["flask_asok"])

    found = (names.find_error if "errors" in old else names.find)(f"flask_asok.{old}")

    assert found is now


def test_settings_quote_nothing(make_app: Any) -> None:
    """A setting that is no good is named, its secret is not shown."""
    for config in (
        {"ASOK_WEBHOOK_SECRETS": {"billing": SESAME}},
        {"ASOK_WEBHOOK_SECRETS": {f"whsec_{SESAME}": SECRET}},
        {"ASOK_WEBHOOK_PROXY": f"socks5://me:{SESAME}@h"},
        {"ASOK_WEBHOOK_PROXY": f"http://me:{SESAME}@h h"},
    ):
        with pytest.raises((TypeError, ValueError), match="ASOK_WEBHOOK_") as raised:
            make_app(**config)
        assert SESAME not in str(raised.value)
