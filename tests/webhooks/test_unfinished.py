"""What is told of deliveries that a shutdown, a bug or a direct call ends."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from flask import Flask

from flask_asok import (
    FlaskAsok,
    WebhookError,
    WebhookUnavailable,
    background,
    send_webhook,
    signals,
)

TIMEOUT = 10

at_once = background.using(backoff=0)


def answer(status: int, *headers: str) -> bytes:
    return "\r\n".join([f"HTTP/1.1 {status} Whatever", *headers, "Content-Length: 0", "", ""]).encode()


def test_shutdown_while_waiting(app: Flask, receiver: Any, hear: Any) -> None:
    """A retry that an orderly shutdown leaves behind is a failure too: the signal has what it takes to replay it."""
    heard = hear(app)
    receiver.answers = [answer(503)]
    task = background.using(backoff=600)(send_webhook, receiver.url, {"n": 1}, id="msg_1")
    background.using(delay=600)(print)
    receiver.next()
    while task.state != "waiting":
        task.join(0.01)

    FlaskAsok().close(app, 2)

    (said,) = heard.failed
    assert (said["delivery"].id, said["delivery"].body, said["delivery"].status) == ("msg_1", b'{"n":1}', 503)
    assert isinstance(said["error"], WebhookUnavailable)
    # What waits holds no frames.
    assert said["error"].__traceback__ is None


@pytest.mark.parametrize("status", [404, 503])
def test_shutdown_before_the_first_answer(make_app: Any, receiver: Any, status: int, hear: Any) -> None:
    """So are those that were never tried, waited for their turn, or had no answer yet; a cancelled one is not."""
    app = make_app(ASOK_WEBHOOK_PER_HOST=1, ASOK_QUEUES={"webhooks": 2, "default": 1})
    heard = hear(app)
    receiver.answer_when.clear()
    receiver.answers = [answer(status)]

    with app.app_context():
        running = background(send_webhook, receiver.url, {"n": 1}, id="running")
        receiver.next()
        turn = background(send_webhook, receiver.url, {"n": 2}, id="turn", reference="endpoint 7")
        background.using(delay=600)(send_webhook, receiver.url, {"n": 3}, id="delayed")
        background.using(delay=600)(print, WebhookError("an argument of somebody else"))
        background.using(delay=600)(send_webhook, receiver.url, {}, id="cancelled").cancel()
        while turn.state != "waiting":
            running.join(0.01)
    FlaskAsok().close(app, 0)

    told = {said["delivery"].id: said["delivery"] for said in heard.failed}
    assert sorted(told) == ["delayed", "running", "turn"]
    assert (told["turn"].body, told["turn"].reference, told["turn"].status) == (b'{"n":2}', "endpoint 7", None)
    assert [told[id].attempts for id in ("delayed", "running")] == [0, 1]
    assert {type(said["error"]) for said in heard.failed} == {WebhookUnavailable}
    receiver.answer_when.set()
    for thread in threading.enumerate():
        if thread.name.startswith("asok-webhooks-"):
            thread.join(TIMEOUT)
    assert len(heard.failed) == 3


@pytest.mark.parametrize("headers", [[], ["Retry-After: 1"]], ids=["backoff", "Retry-After"])
def test_backoff_that_raises(app: Flask, receiver: Any, headers: list[str], hear: Any) -> None:
    """Nor is one lost whose retry cannot be made, since the backoff that was given for it raises."""
    heard = hear(app)
    receiver.answers = [answer(503, *headers)]

    task = background.using(retries=1, backoff=lambda attempt: -1)(send_webhook, receiver.url, {}, id="msg_1")

    assert isinstance(task.exception(TIMEOUT), (WebhookUnavailable, ValueError))
    assert [said["delivery"].id for said in heard.failed] == ["msg_1"]
    assert not app.extensions["asok"].shared("unfinished webhooks", dict)._by_id


def test_unforeseen(app: Flask, receiver: Any, monkeypatch: pytest.MonkeyPatch, hear: Any) -> None:
    """Nor one that ends with an error of another kind."""
    heard = hear(app)

    def post(*args: Any) -> None:
        raise MemoryError

    monkeypatch.setattr("flask_asok.recipes.webhooks.transport.Transport.post", post)

    assert isinstance(background(send_webhook, receiver.url, {}, id="msg_1").exception(TIMEOUT), MemoryError)

    (said,) = heard.failed
    assert said["delivery"].id == "msg_1"
    assert "MemoryError" in str(said["error"])


def test_cancelled_while_waiting(app: Flask, receiver: Any, hear: Any) -> None:
    """A cancelled delivery is no failure, and nothing is kept of it."""
    heard = hear(app)
    receiver.answers = [answer(503)]
    task = background.using(backoff=600)(send_webhook, receiver.url, {})
    receiver.next()
    while task.state != "waiting":
        task.join(0.01)

    assert task.cancel()

    assert not heard.failed
    assert not app.extensions["asok"].shared("unfinished webhooks", dict)._by_id


def test_nothing_is_kept(app: Flask, receiver: Any) -> None:
    """Of a delivery that succeeded at last nothing is kept."""
    receiver.answers = [answer(503)]

    at_once(send_webhook, receiver.url, {}).result(TIMEOUT)

    assert not app.extensions["asok"].shared("unfinished webhooks", dict)._by_id


def test_signal_of_a_direct_call(app: Flask, receiver: Any, hear: Any) -> None:
    """A direct call that fails sends the signal too: nothing else will try again."""
    heard = hear(app)
    receiver.answers = [answer(503)]

    with pytest.raises(WebhookUnavailable):
        send_webhook(receiver.url, {})

    assert len(heard.failed) == 1


def test_signal_is_in_context(app: Flask, receiver: Any) -> None:
    """A receiver of the signal can use the database, since the app's context is there."""
    from flask import current_app

    names: list[str] = []
    done = threading.Event()

    def on_failed(app: Flask, **kwargs: Any) -> None:
        names.append(current_app.name)
        done.set()

    signals.webhook_failed.connect(on_failed, app)
    receiver.answers = [answer(404)]
    background(send_webhook, receiver.url, {})

    assert done.wait(TIMEOUT)
    assert names == ["shop"]
