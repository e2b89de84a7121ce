"""A thread that comes with work and leaves when there is none: for waits that must hold up no worker."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextvars import Context

from . import process
from .baton import Baton


class HelperThread:
    """
    Call `turn()` over and over in a daemon thread, from `need()` until `turn` returns False, or `stop()` was called.

    `turn` waits for work, a while at most, and does it; False means that none came. `has_work` is asked once the thread
    has left, since a caller that brought work meanwhile may have counted on it. With `most` each `need()` starts one
    more thread, up to that number. A forked child starts without any.
    """

    def __init__(self, name: str, turn: Callable[[], bool], has_work: Callable[[], bool], *, most: int = 1) -> None:
        self.name = name
        self.is_stopped: bool = False
        self._turn = turn
        self._has_work = has_work
        self._most = most
        self._begin_anew()
        process.after_fork(self._begin_anew)

    def __len__(self) -> int:
        """Return the number of threads."""
        return len(self._threads)

    def need(self) -> None:
        """Start a thread, unless as many as there may be are there. RuntimeError if the system gives none."""
        if not self._may_start or self.is_stopped or not self._may_start.take():
            return
        thread = threading.Thread(target=self._run, name=self.name, daemon=True)
        self._threads.add(thread)
        try:
            # In an empty context: a thread that inherits its starter's (free-threaded Python) would keep that alive.
            Context().run(thread.start)
        except RuntimeError:
            self._leave(thread)
            raise

    def stop(self) -> None:
        """Let each thread leave after its turn, and start none any more. Whatever a turn waits for, the caller ends."""
        self.is_stopped = True

    def join(self, seconds: float) -> None:
        """Wait for the threads to leave, for `seconds` each at most."""
        for thread in list(self._threads):
            # One that is not alive is over, or just being started: then it will find this stopped.
            if thread.is_alive() and thread is not threading.current_thread():
                thread.join(seconds)

    def _begin_anew(self) -> None:
        self._may_start = Baton(self._most)
        self._threads: set[threading.Thread] = set()

    def _run(self) -> None:
        try:
            while not self.is_stopped and self._turn():
                pass
        finally:
            # First leave, then look, as the workers do.
            self._leave(threading.current_thread())
            if not self.is_stopped and self._has_work():
                self.need()

    def _leave(self, thread: threading.Thread) -> None:
        self._threads.discard(thread)
        self._may_start.put_back()


class PausingThread(HelperThread):
    """
    A helper thread that pauses before each turn.

    `turn` returns how many seconds the next pause takes, or None to let the thread leave. `close` ends a pause.
    """

    def __init__(
        self, name: str, turn: Callable[[], float | None], has_work: Callable[[], bool], *, pause: float = 0.0
    ) -> None:
        super().__init__(name, self._paused_turn, has_work)
        self._next_turn = turn
        self._pause = pause
        self._gate = threading.Event()

    def close(self, seconds: float) -> None:
        """Take no turn any more, and wait up to `seconds` for the one that is under way."""
        self.stop()
        self._gate.set()
        self.join(seconds)

    def _paused_turn(self) -> bool:
        self._gate.wait(self._pause)
        pause = None if self.is_stopped else self._next_turn()
        if pause is None:
            return False
        self._pause = pause
        return True
