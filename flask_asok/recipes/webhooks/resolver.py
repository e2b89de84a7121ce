"""Name resolution that ends in time: `getaddrinfo` itself has no timeout."""

from __future__ import annotations

import socket
import threading
from contextvars import Context
from queue import Empty, SimpleQueue

from .deadline import Deadline

SIZE = 32
"""Threads at most, each with another name: a name may hang on when nobody waits for it any more."""
MOST_NAMES = 256
"""Names that are being resolved, or wait for it."""
IDLE_SECONDS = 10.0

Found = list[tuple[socket.AddressFamily, tuple[str, int] | tuple[str, int, int, int]]]
Name = tuple[str, int]
Waiter = tuple[Deadline, "SimpleQueue[Found | OSError]"]


class Resolver:
    """
    A few daemon threads that call `getaddrinfo`, there only while there is something to resolve.

    A caller whose deadline passes leaves; the thread it waited for stays in the C library until that gives up. All who
    ask for one name meanwhile wait for that same thread: a domain whose servers are dead holds one, and not all.
    """

    def __init__(self, size: int = SIZE) -> None:
        self._size = size
        self._jobs: SimpleQueue[Name | None] = SimpleQueue()
        self._lock = threading.Lock()  # guards the three below
        self._waiters: dict[Name, list[Waiter]] = {}
        self._threads: set[threading.Thread] = set()
        self._busy = 0
        self._closed = False

    def resolve(self, host: str, port: int, deadline: Deadline) -> Found:
        """Return all addresses of `host`; OSError when there are none, TimeoutError (one too) past the deadline."""
        try:
            # An address in figures needs no thread. 0x7f.1 counts as one here, as it does when it is connected to.
            return _lookup(host, port, socket.AI_NUMERICHOST)
        except OSError:
            pass
        answer: SimpleQueue[Found | OSError] = SimpleQueue()
        with self._lock:
            is_first = (host, port) not in self._waiters
            if is_first and len(self._waiters) >= MOST_NAMES:
                raise OSError("too many names are being resolved")
            self._waiters.setdefault((host, port), []).append((deadline, answer))
        if is_first:
            self._jobs.put((host, port))
        self._hire()
        try:
            found = answer.get(timeout=deadline.left())
        except Empty:
            raise TimeoutError(f"name not resolved within {deadline.seconds:g} s") from None
        if isinstance(found, OSError):
            # One of its own: several threads raise it.
            raise type(found)(*found.args)
        return found

    def close(self) -> None:
        """Have the idle threads leave, and the others after their name, which is not waited for."""
        self._closed = True
        with self._lock:
            threads, busy = list(self._threads), self._busy
        for _ in threads:
            self._jobs.put(None)
        if not busy:
            for thread in threads:
                thread.join(1)

    def _hire(self) -> None:
        with self._lock:
            if len(self._threads) == self._size or len(self._threads) - self._busy >= self._jobs.qsize():
                return
            thread = threading.Thread(target=self._work, name="asok-webhooks-dns", daemon=True)
            self._threads.add(thread)
        try:
            Context().run(thread.start)
        except RuntimeError as error:
            with self._lock:
                self._threads.discard(thread)
            raise OSError("no thread can be started to resolve the name") from error

    def _work(self) -> None:
        while True:
            try:
                job = self._jobs.get(timeout=IDLE_SECONDS)
            except Empty:
                job = None
            with self._lock:
                if job is None:
                    # Under the lock, so that a job put meanwhile either is seen here or hires anew.
                    if self._closed or self._jobs.empty():
                        self._threads.discard(threading.current_thread())
                        return
                    continue
                self._busy += 1
            self._answer(job)
            with self._lock:
                self._busy -= 1

    def _answer(self, name: Name) -> None:
        found: Found | OSError
        with self._lock:
            # Nobody waits any more.
            if all(deadline.passed for deadline, _ in self._waiters[name]):
                del self._waiters[name]
                return
        try:
            found = _lookup(*name, 0)
        except Exception as error:
            # Whatever it is: those who wait must not wait for ever.
            found = error if isinstance(error, OSError) else OSError(f"the resolver failed: {type(error).__name__}")
        with self._lock:
            waiters = self._waiters.pop(name)
        for _, answer in waiters:
            answer.put(found)


def _lookup(host: str, port: int, flags: int) -> Found:
    try:
        records = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=flags)
    except UnicodeError:
        raise OSError("malformed name") from None
    return [(record[0], record[4]) for record in records]  # type: ignore[misc]
