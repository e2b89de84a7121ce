"""send_webhook run by background(): its queue, its retries, its signals."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
from flask import Flask
from standardwebhooks.webhooks import Webhook

from flask_asok import (
    Delivery,
    WebhookError,
    WebhookGone,
    WebhookRejected,
    WebhookUnavailable,
    background,
    send_webhook,
    signals,
)
from flask_asok.recipes.webhooks.recipe import (
    BACKOFF,
    DURABLE_BACKOFF,
    backoff,
    deliver,
    deliver_queued_before,
    durable_backoff,
    prepare,
)
from flask_asok.recipes.webhooks.webhook import compose
from flask_asok.testing.doubles import distribute

TIMEOUT = 10

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"

at_once = background.using(backoff=0)


def answer(status: int, *headers: str) -> bytes:
    return "\r\n".join([f"HTTP/1.1 {status} Whatever", *headers, "Content-Length: 0", "", ""]).encode()


def test_one_line(app: Flask, receiver: Any) -> None:
    """One line delivers in the background, on a queue of its own, and its result is the Delivery."""
    task = background(send_webhook, receiver.url, {"text": "New signup!"})

    assert isinstance(task.result(TIMEOUT), Delivery)
    assert task.queue == "webhooks"
    assert receiver.next().body == b'{"text":"New signup!"}'


def test_retried(app: Flask, receiver: Any) -> None:
    """A webhook that fails twice arrives at the third attempt, with the same id, signed anew each time."""
    receiver.answers = [answer(503), answer(500)]

    delivery = at_once(send_webhook, receiver.url, {"n": 1}, secret=SECRET).result(TIMEOUT)

    assert (delivery.status, delivery.attempts) == (200, 3)
    requests = [receiver.next() for _ in range(3)]
    assert {request.headers["webhook-id"] for request in requests} == {delivery.id}
    for request in requests:
        assert Webhook(SECRET).verify(request.body, request.headers) == {"n": 1}


def test_new_timestamp(app: Flask, receiver: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each attempt has a timestamp of its own: a retry after ten minutes is not refused as a replay."""
    moments = [1_000, 1_600]
    monkeypatch.setattr("flask_asok.recipes.webhooks.sender.time", lambda: moments[min(receiver.received.qsize(), 1)])
    receiver.answers = [answer(503)]

    at_once(send_webhook, receiver.url, {}, secret=SECRET).result(TIMEOUT)

    first, second = receiver.next(), receiver.next()
    assert (first.headers["webhook-timestamp"], second.headers["webhook-timestamp"]) == ("1000", "1600")
    assert first.headers["webhook-signature"] != second.headers["webhook-signature"]


def test_given_up(app: Flask, receiver: Any, hear: Any) -> None:
    """After five attempts it is given up, and one signal has what it takes to store and replay it."""
    heard = hear(app)
    receiver.answers = [answer(503)] * 5

    task = at_once(send_webhook, receiver.url, {"n": 1}, id="msg_1", reference="endpoint 7")
    error = task.exception(TIMEOUT)

    assert isinstance(error, WebhookUnavailable)
    assert receiver.received.qsize() == 5
    (said,) = heard.failed
    assert said["error"] is error
    delivery = said["delivery"]
    assert (delivery.id, delivery.reference, delivery.body) == ("msg_1", "endpoint 7", b'{"n":1}')
    assert (delivery.attempts, delivery.status) == (5, 503)
    assert not heard.gone

    replayed = send_webhook(receiver.url, delivery.body, id=delivery.id)
    assert replayed.body == delivery.body


def test_not_retried(app: Flask, receiver: Any, hear: Any) -> None:
    """An answer that would be the same again fails the task at once."""
    heard = hear(app)
    receiver.answers = [answer(404)]

    error = at_once(send_webhook, receiver.url, {}).exception(TIMEOUT)

    assert isinstance(error, WebhookRejected)
    assert receiver.received.qsize() == 1
    assert len(heard.failed) == 1


def test_gone(app: Flask, receiver: Any, hear: Any) -> None:
    """A 410 fails the task at once and sends a signal of its own, so that the endpoint can be disabled."""
    heard = hear(app)
    receiver.answers = [answer(410)]

    error = at_once(send_webhook, receiver.url, {}, reference="endpoint 7").exception(TIMEOUT)

    assert isinstance(error, WebhookGone)
    assert [said["delivery"].reference for said in heard.gone] == ["endpoint 7"]
    assert len(heard.failed) == 1


def test_retry_after(app: Flask, receiver: Any) -> None:
    """The receiver's Retry-After is waited for where it is longer than our own wait."""
    waits: list[float] = []

    def on_retry(app: Flask, wait: float, **kwargs: Any) -> None:
        waits.append(wait)

    signals.task_retried.connect(on_retry, app)
    receiver.answers = [answer(429, "Retry-After: 0"), answer(429, "Retry-After: 60")]

    task = background.using(backoff=0.01)(send_webhook, receiver.url, {})
    for _ in range(2):
        receiver.next()
    while len(waits) < 2:
        task.join(0.01)

    assert waits == [0.01, 60]
    assert task.state == "waiting"
    assert task.cancel()


def test_retry_after_of_the_last_attempt(app: Flask, receiver: Any, hear: Any) -> None:
    """With no attempt left the task fails with the error itself, and the signal is sent."""
    heard = hear(app)
    receiver.answers = [answer(429, "Retry-After: 1")]

    error = background.using(retries=0)(send_webhook, receiver.url, {}).exception(TIMEOUT)

    assert isinstance(error, WebhookUnavailable)
    assert error.retry_after == 1
    assert len(heard.failed) == 1


def test_direct_call_in_a_task(app: Flask, receiver: Any) -> None:
    """Called inside of another task it delivers once and raises its own errors, for that task to handle."""
    receiver.answers = [answer(429, "Retry-After: 1")]

    def notify() -> str:
        try:
            send_webhook(receiver.url, {})
        except WebhookError as error:
            return type(error).__name__
        return "delivered"

    assert background.using(retries=3)(notify).result(TIMEOUT) == "WebhookUnavailable"
    assert receiver.received.qsize() == 1


@pytest.mark.parametrize(
    ("wait", "schedule", "attempts", "least", "most"),
    [(backoff, BACKOFF, 5, 300, 600), (durable_backoff, DURABLE_BACKOFF, 9, 20 * 3600, 24 * 3600)],
)
def test_schedule(wait: Any, schedule: tuple[float, ...], attempts: int, least: float, most: float) -> None:
    """Five attempts within about eight minutes, nine within a day where they survive the process; jitter only adds."""
    for attempt, seconds in enumerate(schedule, start=2):
        waits = [wait(attempt) for _ in range(100)]
        assert seconds <= min(waits)
        assert max(waits) <= seconds * 1.2
        assert len(set(waits)) > 1
    assert wait(99) >= schedule[-1]
    assert len(schedule) == attempts - 1
    assert least < sum(schedule) < most


def test_immediate(make_app: Any, receiver: Any) -> None:
    """With the immediate backend the webhook is delivered, retries included, when background() returns."""
    receiver.answers = [answer(503)]

    with make_app(ASOK_BACKEND="immediate").app_context():
        task = background(send_webhook, receiver.url, {})

    assert task.state == "succeeded"
    assert task.attempts == 2


def test_secret_stays_here(app: Flask) -> None:
    """Where tasks run in other processes a secret is refused at the call, its name is not."""
    distribute(app)

    for secret in (SECRET, ["billing", SECRET]):
        with pytest.raises(TypeError, match="ASOK_WEBHOOK_SECRETS"):
            background(send_webhook, "http://localhost/", {}, secret=secret)


def test_names_of_others(app: Flask) -> None:
    """Where tasks run in other processes, a name may be known only there."""
    distribute(app)

    webhook = prepare("http://localhost/", {}, secret="theirs")

    assert webhook.secrets == ("theirs",)


def test_name_unknown_to_the_worker(make_app: Any, receiver: Any, hear: Any) -> None:
    """A worker that does not know the name sends nothing, and says so with what it takes to replay the webhook."""
    webhook = compose(receiver.url, {}, secret="theirs", id="msg_1", timeout=1, know_names=False)
    app = make_app()
    heard = hear(app)

    with app.app_context(), pytest.raises(WebhookUnavailable, match="ASOK_WEBHOOK_SECRETS"):
        deliver(webhook)

    assert receiver.connections == 0
    assert [said["delivery"].id for said in heard.failed] == ["msg_1"]


def test_queued_by_the_release_before(app: Flask, receiver: Any) -> None:
    """What the release before has queued is delivered, and tried again, as what this one queues."""
    receiver.answers = [answer(503)]
    webhook = prepare(receiver.url, {"n": 1}, id="msg_1")

    task = background.using(backoff=0, name="send_webhook")(deliver_queued_before, webhook, None)

    assert (task.result(TIMEOUT).id, task.attempts, task.queue) == ("msg_1", 2, "webhooks")


def test_one_signature() -> None:
    """What `send_webhook` takes is what its check takes, with the same defaults."""
    checked = list(inspect.signature(compose).parameters.values())

    assert list(inspect.signature(send_webhook).parameters.values()) == checked[:-1]


def test_name_travels(make_app: Any, receiver: Any) -> None:
    """The name of a secret is looked up where the webhook is sent."""
    app = make_app(ASOK_WEBHOOK_SECRETS={"billing": SECRET})

    with app.app_context():
        background(send_webhook, receiver.url, {}, secret="billing").result(TIMEOUT)

    request = receiver.next()
    assert Webhook(SECRET).verify(request.body, request.headers) == {}
