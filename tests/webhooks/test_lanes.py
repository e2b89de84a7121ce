"""One dead or slow receiver does not hold up the others."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from flask_asok import WebhookUnavailable, background, send_webhook
from flask_asok.recipes.webhooks.lanes import LONGEST_LINE, Lanes

TIMEOUT = 10


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
    lanes.leave("a", 0)

    assert entered.wait(TIMEOUT)
    thread.join(TIMEOUT)
    lanes.leave("a", 0)
    assert not lanes._hosts


def test_hosts_are_apart() -> None:
    """The lanes of one host are no other's."""
    lanes = Lanes(1)

    assert lanes.enter("a", 0) is None
    assert lanes.enter("b", 0) is None
    assert lanes.enter("a", 0) is not None


class Clock:
    """A time that goes on when it is told to; nobody waits for it."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The time of the lanes, in which a wait for one fails the test."""
    clock = Clock()
    monkeypatch.setattr("flask_asok.recipes.webhooks.lanes.time", clock)
    monkeypatch.setattr(threading.Condition, "wait", lambda self, timeout: pytest.fail(f"waits {timeout} s"))
    return clock


@pytest.mark.parametrize("seconds", [0.006, 0.2, 15])
def test_no_thread_waits(clock: Clock, seconds: float) -> None:
    """However often a slow host's lanes come free, no worker stays to wait for one: other hosts would lack it."""
    lanes = Lanes(2)
    for _ in range(2):
        lanes.enter("slow", None)
    lanes.leave("slow", 4 * seconds)
    assert lanes.enter("slow", None) is None

    assert lanes.enter("slow", None) is not None


def test_turns(clock: Clock) -> None:
    """They come back one after the other, somewhat faster than lanes come free."""
    lanes = Lanes(2)
    for _ in range(2):
        assert lanes.enter("slow", None) is None
    lanes.leave("slow", 0.16)
    assert lanes.enter("slow", None) is None
    clock.now += 0.01

    waits = [lanes.enter("slow", None) for _ in range(3)]

    assert waits == pytest.approx([0.01, 0.02, 0.03])


def test_line_of_a_dead_host(clock: Clock) -> None:
    """The line for a host that is dead grows slowly, then no more; once lanes are free again nobody waits."""
    lanes = Lanes(2)
    for _ in range(2):
        lanes.enter("dead", None)
    clock.now += 5

    waits = [lanes.enter("dead", None) for _ in range(4000)]

    assert waits[:3] == pytest.approx([0.02, 0.04, 0.06])
    assert LONGEST_LINE < waits[-1] == pytest.approx(LONGEST_LINE, abs=0.03)
    lanes.leave("dead", 5)
    assert lanes.enter("dead", None) is None


def test_too_many_wait(make_app: Any, receiver: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the line is too long it counts as an attempt that failed, so that what waits for a dead host has an end."""
    monkeypatch.setattr("flask_asok.recipes.webhooks.delivery.LONGEST_LINE", 0)
    app = make_app(ASOK_QUEUES={"webhooks": 2}, ASOK_WEBHOOK_PER_HOST=1)
    receiver.answer_when.clear()

    with app.app_context():
        first = background(send_webhook, receiver.url, {})
        receiver.next()
        second = background.using(retries=1, backoff=0)(send_webhook, receiver.url, {})

        with pytest.raises(WebhookUnavailable, match="busy"):
            second.result(TIMEOUT)
        assert second.attempts == 2

        receiver.answer_when.set()
        assert first.result(TIMEOUT).status == 200
