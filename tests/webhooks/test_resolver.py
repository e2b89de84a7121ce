"""Names are resolved in time, or not at all."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from flask import Flask

from flask_asok import WebhookUnavailable, send_webhook
from flask_asok.recipes.webhooks import resolver as module
from flask_asok.recipes.webhooks.deadline import Deadline
from flask_asok.recipes.webhooks.resolver import Resolver

TIMEOUT = 10


class Stuck(threading.Event):
    """Until it is set, names that begin with "slow" are not resolved."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = threading.Semaphore(0)
        """Released whenever a thread has come to such a name."""


@pytest.fixture
def stuck(monkeypatch: pytest.MonkeyPatch) -> Iterator[Stuck]:
    """A name server that hangs."""
    stuck = Stuck()
    real = socket.getaddrinfo

    def getaddrinfo(host: str, port: int, **kwargs: Any) -> Any:
        if host.startswith("slow") and not kwargs.get("flags"):
            stuck.asked.release()
            stuck.wait(TIMEOUT)
            return real("127.0.0.1", port, **kwargs)
        return real(host, port, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    yield stuck
    stuck.set()


def ask(resolver: Resolver, name: str) -> threading.Thread:
    """Resolve `name` in another thread, which waits for it."""
    thread = threading.Thread(target=resolver.resolve, args=(name, 80, Deadline(TIMEOUT)), daemon=True)
    thread.start()
    return thread


def threads() -> int:
    return sum(thread.name == "asok-webhooks-dns" for thread in threading.enumerate())


def test_deadline(app: Flask, stuck: Stuck) -> None:
    """A name server that hangs ends at the delivery's timeout."""
    started = time.monotonic()

    with pytest.raises(WebhookUnavailable, match=r"within 0\.3 s"):
        send_webhook("http://slow.example/", {}, timeout=0.3)

    assert time.monotonic() - started < TIMEOUT / 2


def test_one_slow_name(stuck: Stuck) -> None:
    """While one name hangs, others are resolved."""
    resolver = Resolver(2)
    with pytest.raises(TimeoutError):
        resolver.resolve("slow.example", 80, Deadline(0.05))

    assert resolver.resolve("localhost", 80, Deadline(TIMEOUT))
    resolver.close()


def test_bounded(stuck: Stuck, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many names hang, no more threads are started than agreed, and what is too much is refused at once."""
    monkeypatch.setattr(module, "MOST_NAMES", 5)
    resolver = Resolver(2)
    before = threads()
    asking = [ask(resolver, f"slow{number}.example") for number in range(2)]
    for _ in asking:
        assert stuck.asked.acquire(timeout=TIMEOUT)

    for number in range(2, 5):
        with pytest.raises(TimeoutError):
            resolver.resolve(f"slow{number}.example", 80, Deadline(0.05))
        assert threads() - before <= 2

    with pytest.raises(OSError, match="too many"):
        resolver.resolve("slow.example", 80, Deadline(TIMEOUT))
    stuck.set()
    for thread in asking:
        thread.join(TIMEOUT)
    resolver.close()


def test_known_names_come_first(stuck: Stuck, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many new names hang, one that was resolved before is resolved at once; new ones wait for their turn."""
    monkeypatch.setattr(module, "MOST_NAMES", 6)
    resolver = Resolver(4)
    assert resolver.resolve("localhost", 80, Deadline(TIMEOUT))
    asking = [ask(resolver, f"slow{number}.example") for number in range(3)]
    for _ in asking:
        assert stuck.asked.acquire(timeout=TIMEOUT)
    for number in range(3, 6):
        with pytest.raises(TimeoutError):
            resolver.resolve(f"slow{number}.example", 80, Deadline(0.05))
    with pytest.raises(OSError, match="too many"):
        resolver.resolve("slow6.example", 80, Deadline(TIMEOUT))

    for port in range(80, 90):
        assert resolver.resolve("localhost", port, Deadline(TIMEOUT))

    stuck.set()
    for thread in asking:
        thread.join(TIMEOUT)
    assert resolver.resolve("slow.example", 80, Deadline(TIMEOUT))
    assert not resolver._waiters
    resolver.close()


def test_known_name_that_hangs(stuck: Stuck) -> None:
    """A name that was resolved before, and then not in time, comes after those that were."""
    resolver = Resolver(4)
    stuck.set()
    for name in ("localhost", "slow.example"):
        assert resolver.resolve(name, 80, Deadline(TIMEOUT))
    stuck.clear()
    with pytest.raises(TimeoutError):
        resolver.resolve("slow.example", 80, Deadline(0.05))
    late = ask(resolver, "slow.example")
    while len(resolver._waiters["slow.example", 80]) < 2:
        late.join(0.01)
    stuck.set()
    late.join(TIMEOUT)
    stuck.clear()

    asking = [ask(resolver, f"slow{number}.example") for number in range(3)]
    for _ in range(5):
        assert stuck.asked.acquire(timeout=TIMEOUT)
    with pytest.raises(TimeoutError):
        resolver.resolve("slow.example", 80, Deadline(0.05))

    assert resolver.resolve("localhost", 80, Deadline(TIMEOUT))
    assert not stuck.asked.acquire(blocking=False)
    stuck.set()
    for thread in asking:
        thread.join(TIMEOUT)
    resolver.close()


def test_names_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the names that were resolved the latest are remembered."""
    monkeypatch.setattr(module, "MOST_KNOWN", 2)
    monkeypatch.setattr(socket, "getaddrinfo", lambda host, port, **kwargs: _records(port, **kwargs))
    resolver = Resolver()

    for name in ("a", "b", "a", "c"):
        assert resolver.resolve(name, 80, Deadline(TIMEOUT))

    assert list(resolver._known) == ["a", "c"]
    resolver.close()


def _records(port: int, flags: int, type: int) -> Any:
    if flags:
        raise socket.gaierror(8, "not known")
    return [(socket.AF_INET, type, 6, "", ("127.0.0.1", port))]


def test_one_thread_for_a_name(stuck: Stuck) -> None:
    """However many wait for a name that hangs, it holds one thread; once resolved, all of them know it."""
    resolver = Resolver(2)
    before = threads()
    for _ in range(5):
        with pytest.raises(TimeoutError):
            resolver.resolve("slow.example", 80, Deadline(0.02))
    found: list[Any] = []
    waiting = [
        threading.Thread(target=lambda: found.append(resolver.resolve("slow.example", 80, Deadline(TIMEOUT))))
        for _ in range(2)
    ]
    for thread in waiting:
        thread.start()

    assert resolver.resolve("localhost", 80, Deadline(TIMEOUT))
    assert threads() - before <= 2

    stuck.set()
    for thread in waiting:
        thread.join(TIMEOUT)
    assert found == [[(socket.AF_INET, ("127.0.0.1", 80))]] * 2
    assert not resolver._waiters
    resolver.close()


def test_after_a_jam(stuck: Stuck) -> None:
    """Once the name server answers again, names are resolved; those nobody waits for any more are skipped."""
    resolver = Resolver(1)
    for number in range(3):
        with pytest.raises(TimeoutError):
            resolver.resolve(f"slow{number}.example", 80, Deadline(0.05))

    stuck.set()

    assert resolver.resolve("slow.example", 80, Deadline(TIMEOUT)) == [(socket.AF_INET, ("127.0.0.1", 80))]
    resolver.close()


def test_woken_for_nothing(stuck: Stuck) -> None:
    """A thread that is told to look whether it may leave stays while there is a name to resolve."""
    resolver = Resolver(1)
    assert resolver.resolve("localhost", 80, Deadline(TIMEOUT))
    asking = ask(resolver, "slow.example")
    assert stuck.asked.acquire(timeout=TIMEOUT)
    resolver._jobs.put(None)
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(resolver.resolve("localhost", 80, Deadline(TIMEOUT))))
    thread.start()
    while resolver._jobs.qsize() < 2:
        thread.join(0.01)

    stuck.set()
    thread.join(TIMEOUT)
    asking.join(TIMEOUT)

    assert found
    resolver.close()


def test_figures_need_no_thread() -> None:
    """An address is no name."""
    before = threads()
    resolver = Resolver()

    assert resolver.resolve("127.0.0.1", 80, Deadline(TIMEOUT)) == [(socket.AF_INET, ("127.0.0.1", 80))]
    assert threads() == before


def test_idle_threads_leave(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread with nothing to resolve leaves; the next name gets a new one."""
    monkeypatch.setattr(module, "IDLE_SECONDS", 0.02)
    resolver = Resolver()

    for _ in range(2):
        assert resolver.resolve("localhost", 80, Deadline(TIMEOUT))
        for thread in threading.enumerate():
            if thread.name == "asok-webhooks-dns":
                thread.join(TIMEOUT)
        assert not resolver._threads


def test_no_thread_to_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the system gives no thread, that is an ordinary error."""

    real = threading.Thread.start

    def start(self: threading.Thread) -> None:
        if self.name != "asok-webhooks-dns":
            real(self)
            return
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", start)

    with pytest.raises(OSError, match="no thread"):
        Resolver().resolve("localhost", 80, Deadline(TIMEOUT))


def test_resolver_that_breaks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever goes wrong in it is an ordinary error, and the name can be asked for again."""

    def getaddrinfo(*args: Any, **kwargs: Any) -> Any:
        raise socket.gaierror(8, "not known") if kwargs.get("flags") else MemoryError

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    resolver = Resolver()

    for _ in range(2):
        with pytest.raises(OSError, match="failed: MemoryError"):
            resolver.resolve("name.example", 80, Deadline(TIMEOUT))
    resolver.close()


@pytest.mark.parametrize("host", ["a..b", "x" * 64 + ".example"])
def test_malformed(host: str) -> None:
    """A name that cannot be one is an ordinary error."""
    resolver = Resolver()

    with pytest.raises(OSError, match=r"malformed"):
        resolver.resolve(host, 80, Deadline(TIMEOUT))
    resolver.close()
