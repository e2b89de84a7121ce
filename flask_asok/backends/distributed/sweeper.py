"""The thread of a worker that looks, again and again, for tasks that are to be sent."""

from __future__ import annotations

import logging
import time
from abc import ABC, abstractmethod
from collections.abc import Callable

from ...errors import AsokError
from ...helper_thread import PausingThread
from ...logs import log, log_exception
from ...store.away import WARN_SECONDS
from .hub import Hub

LOOK_SECONDS = 0.5
"""How often a sweeper looks."""

RARELY_SECONDS = 10.0
"""How often it looks for old records, and for processes that have ended."""


UNKNOWN_SECONDS = 600.0
"""How often it looks for tasks in queues that the application has no more."""


class WorkerSweeper(ABC):
    """Looks, in a thread of a worker's process, for tasks that are to be sent; one of all sweepers sends each."""

    now: Callable[[], float] = staticmethod(time.monotonic)

    def __init__(self, hub: Hub) -> None:
        self.hub = hub
        self._warned_at = self._unknown_at = float("-inf")
        self._thread = PausingThread("asok-sweeper", self._turn, lambda: True, pause=LOOK_SECONDS)

    def start(self) -> None:
        """Look from now on; harmless where it does already."""
        self._thread.need()

    def close(self) -> None:
        """Look no more, and wait for the look that is under way."""
        self._thread.close(5)

    @abstractmethod
    def look(self) -> None:
        """Send what is to be sent now."""

    def missed(self) -> None:  # noqa: B027 - nothing to do by default
        """Note that a look has failed: the store or the engine is away."""

    def tell_unknown(self) -> None:
        """Tell, now and then, of tasks whose queue was renamed or removed: no worker takes them."""
        if self.now() - self._unknown_at < UNKNOWN_SECONDS:
            return
        self._unknown_at = self.now()
        for queue in self.hub.need_store().queues():
            if queue.name not in self.hub.config["ASOK_QUEUES"]:
                log(
                    logging.ERROR,
                    "Background tasks are left in the queue %r, which is not in ASOK_QUEUES, and no worker runs them: "
                    "%s. Add the queue, or cancel them.",
                    queue.name, queue.queued + queue.waiting, app=self.hub.app,
                )  # fmt: skip

    def _turn(self) -> float:
        try:
            self.look()
        except AsokError as error:
            self.missed()
            if self.now() - self._warned_at >= WARN_SECONDS:
                self._warned_at = self.now()
                log(logging.WARNING, "Background tasks that wait are not sent: %s", error, app=self.hub.app)
        except Exception as error:
            log_exception("Sweeping background tasks failed: %r", error, app=self.hub.app)
        return LOOK_SECONDS
