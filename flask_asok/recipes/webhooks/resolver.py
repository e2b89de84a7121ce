"""Name resolution that ends in time: `getaddrinfo` itself has no timeout."""

from __future__ import annotations

import socket
import threading
from contextvars import Context
from queue import Empty, SimpleQueue

from .deadline import Deadline

SIZE = 8
"""Threads at most: twice what one slow domain can hold with the default of deliveries per host."""
MAX_QUEUED = 256
IDLE_SECONDS = 10.0

Found = list[tuple[socket.AddressFamily, tuple[str, int] | tuple[str, int, int, int]]]
Job = tuple[str, int, Deadline, "SimpleQueue[Found | OSError]"]


class Resolver:
    """
    A few daemon threads that call `getaddrinfo`, there only while there is something to resolve.

    A caller whose deadline passes leaves; the thread it waited for stays in the C library until that gives up.
    """

    def __init__(self, size: int = SIZE) -> None:
        self._size = size
        self._jobs: SimpleQueue[Job | None] = SimpleQueue()
        self._lock = threading.Lock()  # guards the two below
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
        if self._jobs.qsize() >= MAX_QUEUED:
            raise OSError("too many names are being resolved")
        answer: SimpleQueue[Found | OSError] = SimpleQueue()
        self._jobs.put((host, port, deadline, answer))
        self._hire()
        try:
            found = answer.get(timeout=deadline.left())
        except Empty:
            raise TimeoutError(f"name not resolved within {deadline.seconds:g} s") from None
        if isinstance(found, OSError):
            raise found
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
            self._answer(*job)
            with self._lock:
                self._busy -= 1

    def _answer(self, host: str, port: int, deadline: Deadline, answer: SimpleQueue[Found | OSError]) -> None:
        if deadline.passed:
            return
        try:
            answer.put(_lookup(host, port, 0))
        except OSError as error:
            answer.put(error)


def _lookup(host: str, port: int, flags: int) -> Found:
    try:
        records = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=flags)
    except UnicodeError:
        raise OSError("malformed name") from None
    return [(record[0], record[4]) for record in records]  # type: ignore[misc]
