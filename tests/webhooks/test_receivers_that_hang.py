"""Receivers that hang or are slow hold up nobody else."""

from __future__ import annotations

import socket
import sys
import threading
from typing import Any

import pytest

from flask_asok import QueueFull, WebhookUnavailable, background, send_webhook

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


def never_read(address: str) -> tuple[str, list[socket.socket]]:
    """Return the URL of a listener that takes no connection any more, as a firewall that drops packets, and it."""
    listener = socket.create_server((address, 0), backlog=0)
    full = []
    for _ in range(4):
        full.append(socket.socket())
        full[-1].setblocking(False)
        full[-1].connect_ex(listener.getsockname())
    return f"http://{address}:{listener.getsockname()[1]}/", [listener, *full]


def hang(sock: socket.socket, receiver: Any) -> None:
    sock.recv(65536)
    receiver.closed.wait(60)


def drip(sock: socket.socket, receiver: Any) -> None:
    sock.recv(65536)
    sock.sendall(b"HTTP/1.1 200 OK\r\nX: ")
    while not receiver.closed.wait(0.2):
        sock.sendall(b"x")


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has all of 127.0.0.0/8")
@pytest.mark.parametrize("how", ["silence", "drip", "TLS", "connect", "name", "ports"])
@pytest.mark.parametrize("count", [10, 12])
def test_receivers_that_hang(
    make_app: Any, make_receiver: Any, monkeypatch: pytest.MonkeyPatch, how: str, count: int
) -> None:
    """Beside many receivers that hang, each in whatever way and with many webhooks, another one gets its own."""
    app = make_app()
    healthy = make_receiver(address="127.0.2.1")
    socks: list[socket.socket] = []
    stuck = threading.Event()
    real = socket.getaddrinfo

    def getaddrinfo(host: str, *args: Any, **kwargs: Any) -> Any:
        if host.startswith("stuck") and not kwargs.get("flags"):
            stuck.wait(60)
            host = "127.0.0.1"
        return real(host, *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    urls = []
    for number in range(1, count + 1):
        if how == "name":
            urls.append(f"http://stuck{number}.example/")
            continue
        address = "127.0.1.1" if how == "ports" else f"127.0.1.{number}"
        if how == "connect":
            url, opened = never_read(address)
            urls.append(url)
            socks += opened
            continue
        receiver = make_receiver(address=address)
        receiver.behave = drip if how == "drip" else hang
        urls.append(f"{'https' if how == 'TLS' else 'http'}://{address}:{receiver.port}/")

    with app.app_context():
        hanging = [background.using(retries=0)(send_webhook, url, {}, timeout=60) for _ in range(30) for url in urls]
        tasks = [background(send_webhook, f"http://127.0.2.1:{healthy.port}/", {}) for _ in range(20)]

        assert [task.result(TIMEOUT).attempts for task in tasks] == [1] * 20
        assert not any(task.state in ("succeeded", "failed") for task in hanging)
        threads = [thread.name for thread in threading.enumerate()]
        assert sum(name.startswith("asok-webhooks-") and "dns" not in name for name in threads) <= 16

    for task in hanging:
        task.cancel()
    stuck.set()
    for sock in socks:
        sock.close()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has all of 127.0.0.0/8")
def test_more_hang_than_there_are_threads(make_app: Any, make_receiver: Any) -> None:
    """Once they have been found to hang, or where others have answered before, twenty hold up nobody else either."""
    app = make_app(ASOK_QUEUES={"webhooks": 8})
    healthy, new = make_receiver(address="127.0.2.1"), make_receiver(address="127.0.2.2")
    receivers = [make_receiver(address=f"127.0.1.{number}") for number in range(1, 21)]
    for receiver in receivers:
        receiver.behave = hang
    urls = [f"http://{receiver.address}:{receiver.port}/" for receiver in receivers]

    with app.app_context():
        background(send_webhook, f"http://127.0.2.1:{healthy.port}/", {}).result(TIMEOUT)
        first = [background.using(retries=0)(send_webhook, url, {}, timeout=0.2) for url in urls]
        # Answered before: it waits for none of them.
        assert background(send_webhook, f"http://127.0.2.1:{healthy.port}/", {}).result(TIMEOUT).status == 200
        for task in first:
            task.join(TIMEOUT)

        hanging = [background.using(retries=0)(send_webhook, url, {}, timeout=60) for _ in range(5) for url in urls]
        assert background(send_webhook, f"http://127.0.2.2:{new.port}/", {}).result(TIMEOUT).status == 200
        assert not any(task.state in ("succeeded", "failed") for task in hanging)

    for task in hanging:
        task.cancel()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has all of 127.0.0.0/8")
@pytest.mark.parametrize(("size", "hosts", "is_known"), [(2, 1, False), (3, 2, False), (4, 3, False), (4, 1, True)])
def test_small_queue(make_app: Any, make_receiver: Any, size: int, hosts: int, is_known: bool) -> None:
    """In a small queue of one's own all threads but one may hang, and one host that answered before takes no more."""
    app = make_app(ASOK_QUEUES={"hooks": size})
    healthy = make_receiver(address="127.0.2.1")
    receivers = [make_receiver(address=f"127.0.1.{number}") for number in range(1, hosts + 1)]
    urls = [f"http://{receiver.address}:{receiver.port}/" for receiver in receivers]
    using = background.using(queue="hooks", retries=0)

    with app.app_context():
        if is_known:
            for url in urls:
                using(send_webhook, url, {}).result(TIMEOUT)
        for receiver in receivers:
            receiver.answer_when.clear()
        hanging = [using(send_webhook, url, {}, timeout=60) for _ in range(16) for url in urls]

        assert using(send_webhook, f"http://127.0.2.1:{healthy.port}/", {}).result(TIMEOUT).status == 200
        assert not any(task.state == "failed" for task in hanging)

    for task in hanging:
        task.cancel()
    for receiver in receivers:
        receiver.answer_when.set()


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


def test_waiting_is_bounded(make_app: Any, receiver: Any) -> None:
    """What waits for its receiver is bounded like all that waits: past ASOK_MAX_WAITING the call raises QueueFull."""
    app = make_app(ASOK_MAX_WAITING=3)
    receiver.answer_when.clear()

    with app.app_context():
        first = background(send_webhook, receiver.url, {})
        receiver.next()
        waiting = [background(send_webhook, receiver.url, {}) for _ in range(2)]
        while any(task.state != "waiting" for task in waiting):
            first.join(0.01)

        with pytest.raises(QueueFull, match="ASOK_MAX_WAITING"):
            background(send_webhook, receiver.url, {})

        receiver.answer_when.set()
        assert [task.result(TIMEOUT).status for task in (first, *waiting)] == [200] * 3
        assert background(send_webhook, receiver.url, {}).result(TIMEOUT).status == 200


def test_too_many_wait(make_app: Any, receiver: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the line is too long it counts as an attempt that failed, so that what waits for a dead host has an end."""
    monkeypatch.setattr("flask_asok.recipes.webhooks.sender.LONGEST_LINE", 0)
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
