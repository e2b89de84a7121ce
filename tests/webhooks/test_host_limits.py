"""One dead or slow receiver does not hold up the others."""

from __future__ import annotations

import socket
import sys
import threading
from typing import Any

import pytest

from flask_asok import QueueFull, WebhookUnavailable, background, send_webhook
from flask_asok.recipes.webhooks.host_limits import LONGEST_LINE, MOST_HOSTS, HostLimits, Pool

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


def test_slots_come_free() -> None:
    """A slot given back goes to whoever waits for it."""
    limits = HostLimits(1)
    assert limits.enter("a", 0) is None
    entered = threading.Event()

    def wait() -> None:
        if limits.enter("a", TIMEOUT) is None:
            entered.set()

    thread = threading.Thread(target=wait)
    thread.start()
    limits.leave("a", 0, True)

    assert entered.wait(TIMEOUT)
    thread.join(TIMEOUT)


def test_hosts_are_apart() -> None:
    """The slots of one host are no other's."""
    limits = HostLimits(1)

    assert limits.enter("a", 0) is None
    assert limits.enter("b", 0) is None
    assert limits.enter("a", 0) is not None


class Clock:
    """A time that goes on when it is told to; nobody waits for it."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The time of the slots, in which a wait for one fails the test."""
    clock = Clock()
    monkeypatch.setattr("flask_asok.recipes.webhooks.host_limits.time", clock)
    monkeypatch.setattr(threading.Condition, "wait", lambda self, timeout: pytest.fail(f"waits {timeout} s"))
    return clock


def answered(limits: HostLimits, *hosts: str, seconds: float = 1.0) -> HostLimits:
    """Let each of `hosts` have answered once."""
    for host in hosts:
        assert limits.enter(host, 0) is None
        limits.leave(host, seconds, True)
    return limits


def taken(limits: HostLimits, host: str, pool: Pool | None = None, most: int = 99) -> int:
    """Take as many slots as there are for `host`, up to `most`, and return their number."""
    return next((count for count in range(most) if limits.enter(host, 0, pool) is not None), most)


def test_unknown_host(clock: Clock) -> None:
    """A host that has answered nothing yet gets one delivery at a time, one that has gets `ASOK_WEBHOOK_PER_HOST`."""
    limits = answered(HostLimits(4), "good")

    assert taken(limits, "good") == 4
    assert taken(limits, "new") == 1


@pytest.mark.parametrize("ended", [False, None], ids=["no answer", "not sent"])
def test_host_that_begins_to_hang(clock: Clock, ended: bool | None) -> None:
    """After the first delivery without an answer a host is back at one; one that was not sent changes nothing."""
    limits = answered(HostLimits(4), "a")
    assert taken(limits, "a") == 4

    for _ in range(4):
        limits.leave("a", 15, ended)

    assert taken(limits, "a") == (1 if ended is False else 4)
    limits.leave("a", 1, True)
    assert taken(limits, "a") == (4 if ended is False else 1)


@pytest.mark.parametrize(("size", "most"), [(16, 12), (8, 6), (4, 3), (3, 2), (2, 1), (1, 1)])
def test_a_quarter_stays_free(clock: Clock, size: int, most: int) -> None:
    """Further slots leave a quarter of the queue's threads to other hosts, and hosts that hang leave it as well."""
    pool = Pool("webhooks", size)
    good = answered(HostLimits(99), "good")
    bad = HostLimits(4)
    for number in range(20):
        bad.enter(str(number), 0)
        bad.leave(str(number), 15, False)

    assert taken(good, "good", pool) == most
    assert sum(taken(bad, str(number), pool) for number in range(20)) == most


def test_hosts_that_answer_come_first(clock: Clock) -> None:
    """However many new hosts hang, those that answered last find a thread; in a small queue no thread is kept."""
    limits = answered(HostLimits(4), "a", "b")
    pool, small = Pool("webhooks", 16), Pool("small", 7)

    assert sum(taken(limits, f"new {number}", pool) for number in range(99)) == 14
    assert sum(taken(limits, f"newer {number}", small) for number in range(99)) == 7
    assert [taken(limits, host, pool) for host in "ab"] == [1, 1]


def test_ten_hosts_begin_to_hang(clock: Clock) -> None:
    """Ten hosts that were answered, then hang with all the slots they get, leave a thread for any other."""
    hosts = [f"host {number}" for number in range(10)]
    limits = answered(HostLimits(4), *hosts)
    pool = Pool("webhooks", 16)

    held = sum(taken(limits, host, pool, most=1) for _ in range(40) for host in hosts)

    assert held == 12
    assert taken(limits, "another", pool) == 1


def test_queues_are_apart(clock: Clock) -> None:
    """The threads of one queue are no other's, and a direct call holds none of them."""
    limits = answered(HostLimits(9), "a", "b")

    assert taken(limits, "a", Pool("one", 4)) == 3
    assert taken(limits, "a", Pool("two", 4)) == 3
    assert taken(limits, "a") == 3
    assert taken(limits, "b", Pool("two", 4), most=1) == 1


def test_hosts_are_forgotten(clock: Clock) -> None:
    """A thousand hosts are remembered; those that something is on its way to are never forgotten."""
    limits = answered(HostLimits(2), "old", "kept", "busy")
    assert taken(limits, "busy") == 2

    answered(limits, *(str(number) for number in range(MOST_HOSTS - 2)))
    answered(limits, "kept", "one more")

    assert [taken(limits, host) for host in ("kept", "old", "busy")] == [2, 1, 0]
    assert len(limits._hosts) == MOST_HOSTS
    limits.leave("busy", 1, True)


@pytest.mark.parametrize("seconds", [0.006, 0.2, 15])
def test_no_thread_waits(clock: Clock, seconds: float) -> None:
    """However often a slow host's slots come free, no worker stays to wait for one: other hosts would lack it."""
    limits = answered(HostLimits(2), "slow", seconds=seconds)
    for _ in range(2):
        assert limits.enter("slow", None) is None

    assert limits.enter("slow", None) is not None


def test_turns(clock: Clock) -> None:
    """They come back one after the other, somewhat faster than slots come free."""
    limits = answered(HostLimits(2), "slow", seconds=0.04)
    for _ in range(2):
        assert limits.enter("slow", None) is None
    clock.now += 0.01

    waits = [limits.enter("slow", None) for _ in range(3)]

    assert waits == pytest.approx([0.01, 0.02, 0.03])


def test_line_of_a_dead_host(clock: Clock) -> None:
    """The line for a host that is dead grows slowly, then no more; once slots are free again nobody waits."""
    limits = HostLimits(2)
    assert limits.enter("dead", None) is None
    clock.now += 5

    waits = [limits.enter("dead", None) for _ in range(4000)]

    assert waits[:3] == pytest.approx([0.02, 0.04, 0.06])
    assert LONGEST_LINE < waits[-1] == pytest.approx(LONGEST_LINE, abs=0.03)
    limits.leave("dead", 5, False)
    assert limits.enter("dead", None) is None


def test_many_lines(clock: Clock) -> None:
    """With many hosts that hang, those that wait for them come back no more often in all."""
    limits = HostLimits(2)
    hosts = [str(number) for number in range(100)]
    for host in hosts:
        assert limits.enter(host, None) is None
    clock.now += 5
    for host in hosts * 10:
        assert limits.enter(host, None) is not None
    clock.now += 0.1

    waits = [limits.enter(host, None) for host in hosts]

    assert waits == pytest.approx([0.1 + 0.2] * 100)


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
