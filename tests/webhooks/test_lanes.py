"""One dead or slow receiver does not hold up the others."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest

from flask_asok import WebhookUnavailable, background, send_webhook
from flask_asok.recipes.webhooks.lanes import Lanes

TIMEOUT = 10


@pytest.fixture
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """A webhook that finds its receiver busy comes back soon."""
    monkeypatch.setattr("flask_asok.recipes.webhooks.lanes.SHORTEST_WAIT", 0.01)
    monkeypatch.setattr("flask_asok.recipes.webhooks.lanes.LONGEST_WAIT", 0.05)


@pytest.mark.usefixtures("short_waits")
def test_slow_receiver(make_app: Any, receiver: Any, make_receiver: Any) -> None:
    """While many webhooks wait for one receiver, those for another are delivered."""
    app = make_app(ASOK_QUEUES={"webhooks": 3}, ASOK_WEBHOOK_PER_HOST=2, ASOK_WEBHOOK_ALLOW=["127.0.0.0/8"])
    other = make_receiver()
    receiver.answer_when.clear()

    with app.app_context():
        slow = [background(send_webhook, receiver.url, {"n": n}) for n in range(8)]
        quick = background(send_webhook, f"http://127.0.0.1:{other.port}/", {})

        assert quick.result(TIMEOUT).status == 200
        assert receiver.received.qsize() <= 2
        assert not any(task.state == "succeeded" for task in slow)

        receiver.answer_when.set()
        deliveries = [task.result(30) for task in slow]

    assert all(delivery.attempts == 1 for delivery in deliveries)
    assert receiver.received.qsize() == 8


@pytest.mark.usefixtures("short_waits")
def test_waiting_spends_no_retry(make_app: Any, receiver: Any) -> None:
    """A webhook that finds its receiver busy has not made an attempt: with no retries at all it is delivered."""
    app = make_app(ASOK_QUEUES={"webhooks": 2}, ASOK_WEBHOOK_PER_HOST=1)
    receiver.answer_when.clear()

    with app.app_context():
        first = background(send_webhook, receiver.url, {})
        receiver.next()
        second = background.using(retries=0)(send_webhook, receiver.url, {})
        while second.state != "waiting":
            assert first.join(0.01) is None
        receiver.answer_when.set()

        assert first.result(TIMEOUT).status == 200
        assert second.result(TIMEOUT).attempts == 1


def test_many_for_a_quick_receiver(make_app: Any, receiver: Any) -> None:
    """Many webhooks for a receiver that answers at once are delivered without a pause."""
    app = make_app(ASOK_WEBHOOK_PER_HOST=1)

    with app.app_context():
        tasks = [background(send_webhook, receiver.url, {}) for _ in range(40)]
        deliveries = [task.result(TIMEOUT) for task in tasks]

    assert {delivery.attempts for delivery in deliveries} == {1}
    assert receiver.connections == 1


def test_direct_call_waits(make_app: Any, receiver: Any) -> None:
    """A direct call waits for its turn, up to its timeout."""
    app = make_app(ASOK_WEBHOOK_PER_HOST=1)
    receiver.answer_when.clear()

    with app.app_context():
        first = background(send_webhook, receiver.url, {})
        receiver.next()

        with pytest.raises(WebhookUnavailable, match="busy"):
            send_webhook(receiver.url, {}, timeout=0.1)

        receiver.answer_when.set()
        first.result(TIMEOUT)
        assert send_webhook(receiver.url, {}).status == 200


def test_lanes_come_free() -> None:
    """A lane given back goes to whoever waits for it."""
    lanes = Lanes(1)
    assert lanes.enter("a", 0) is None
    entered = threading.Event()

    def wait() -> None:
        if lanes.enter("a", TIMEOUT) is None:
            entered.set()

    thread = threading.Thread(target=wait)
    thread.start()
    lanes.leave("a")

    assert entered.wait(TIMEOUT)
    thread.join(TIMEOUT)
    lanes.leave("a")
    assert not lanes._hosts


def test_hosts_are_apart() -> None:
    """The lanes of one host are no other's."""
    lanes = Lanes(1)

    assert lanes.enter("a", 0) is None
    assert lanes.enter("b", 0) is None
    assert lanes.enter("a", 0) is not None


def test_no_patience_for_a_dead_host(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where lanes are held for long, a worker does not wait at all, and comes back the later the more wait already."""
    lanes = Lanes(2)
    for _ in range(2):
        lanes.enter("dead", 0)
    now = time.monotonic()
    monkeypatch.setattr("flask_asok.recipes.webhooks.lanes.time.monotonic", lambda: now + 5)

    waits = [lanes.enter("dead", None) for _ in range(300)]

    assert waits[:3] == [1.5, 2.0, 2.5]
    assert waits[-1] == 60
