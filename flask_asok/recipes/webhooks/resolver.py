"""Name resolution that ends in time: `getaddrinfo` itself has no timeout."""

from __future__ import annotations

import queue
import socket
import threading
from collections import deque

from ...helper_thread import HelperThread
from .deadline import Deadline

SIZE = 32
"""Threads at most, each with another name: the lookup of a name may hang on when no caller waits any more."""
MOST_NAMES = 256
"""New names that are being resolved, or wait for it."""
MOST_KNOWN = 1_000
"""Names that are remembered because they were resolved in time."""
IDLE_SECONDS = 10.0

Addresses = list[tuple[socket.AddressFamily, tuple[str, int] | tuple[str, int, int, int]]]
Name = tuple[str, int]
Job = tuple[Name, bool]
"""A name, and whether it is a new one."""
Waiter = tuple[Deadline, "queue.SimpleQueue[Addresses | OSError]"]


class Resolver:
    """
    A few daemon threads that call `getaddrinfo`, there only while there is something to resolve.

    A caller whose deadline passes leaves; the thread it waited for stays in the C library until that gives up. All
    callers that ask for one name meanwhile wait for that same thread: a domain whose servers are dead takes one thread,
    and not all. New names, and those that were not resolved in time before, leave a quarter of the threads to the
    others: a host that has answered is found however many names hang.
    """

    def __init__(self, size: int = SIZE) -> None:
        self._most_new = size - size // 4
        # By its module: gevent may replace it after this file was imported.
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        # All guarded by the lock.
        self._waiters: dict[Name, list[Waiter]] = {}
        self._known: dict[str, None] = {}
        """The hosts that were resolved in time, the latest last."""
        self._new = 0
        """How many new names have a thread, or are queued for one."""
        self._held_back: deque[Name] = deque()
        """New names that wait for the end of another new one."""
        self._threads = HelperThread("asok-webhooks-dns", self._turn, lambda: not self._jobs.empty(), most=size)

    def resolve(self, host: str, port: int, deadline: Deadline) -> Addresses:
        """Return all addresses of `host`; OSError if it has none, TimeoutError past the deadline."""
        try:
            # An address in figures needs no thread. 0x7f.1 is one here, as it is for `connect`.
            return _lookup(host, port, socket.AI_NUMERICHOST)
        except OSError:
            pass
        answer: queue.SimpleQueue[Addresses | OSError] = queue.SimpleQueue()
        with self._lock:
            if (host, port) in self._waiters:
                self._waiters[host, port].append((deadline, answer))
            else:
                self._add(host, port)
                self._waiters[host, port] = [(deadline, answer)]
        # One for each name: a thread without a name takes the next one.
        if len(self._threads) < len(self._waiters):
            self._add_thread()
        try:
            found = answer.get(timeout=deadline.left())
        except queue.Empty:
            raise TimeoutError(f"name not resolved within {deadline.seconds:g} s") from None
        if isinstance(found, OSError):
            # An error of its own: several threads raise it.
            raise type(found)(*found.args)
        return found

    def close(self) -> None:
        """Stop idle threads now, and busy ones after their current lookup; does not wait for those."""
        self._threads.stop()
        for _ in range(len(self._threads)):
            self._jobs.put(None)
        if not self._waiters:
            self._threads.join(1)

    def _add(self, host: str, port: int) -> None:
        is_new = host not in self._known
        if is_new and self._new + len(self._held_back) >= MOST_NAMES:
            raise OSError("too many names are being resolved")
        if is_new and self._new >= self._most_new:
            self._held_back.append((host, port))
            return
        self._new += is_new
        self._jobs.put(((host, port), is_new))

    def _add_thread(self) -> None:
        try:
            self._threads.need()
        except RuntimeError as error:
            raise OSError("no thread can be started to resolve the name") from error

    def _turn(self) -> bool:
        """Resolve the next name; False after idling."""
        try:
            job = self._jobs.get(timeout=IDLE_SECONDS)
        except queue.Empty:
            return False
        if job is None:
            return not self._jobs.empty()
        name, is_new = job
        self._answer(name)
        if is_new:
            with self._lock:
                if self._held_back:
                    self._jobs.put((self._held_back.popleft(), True))
                else:
                    self._new -= 1
        return True

    def _answer(self, name: Name) -> None:
        found: Addresses | OSError
        with self._lock:
            # No caller is waiting any more.
            if all(deadline.passed for deadline, _ in self._waiters[name]):
                del self._waiters[name]
                return
        try:
            found = _lookup(*name, 0)
        except Exception as error:
            # Whatever it is: the callers must not wait for ever.
            found = error if isinstance(error, OSError) else OSError(f"the resolver failed: {type(error).__name__}")
        with self._lock:
            waiters = self._waiters.pop(name)
            self._remember(name[0], not isinstance(found, OSError) and not waiters[0][0].passed)
        for _, answer in waiters:
            answer.put(found)

    def _remember(self, host: str, in_time: bool) -> None:
        self._known.pop(host, None)
        if in_time:
            self._known[host] = None
            if len(self._known) > MOST_KNOWN:
                del self._known[next(iter(self._known))]


def _lookup(host: str, port: int, flags: int) -> Addresses:
    try:
        records = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=flags)
    except UnicodeError:
        raise OSError("malformed name") from None
    return [(record[0], record[4]) for record in records]  # type: ignore[misc]
