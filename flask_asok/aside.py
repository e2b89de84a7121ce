"""A thread of its own for what its caller waits for: what a thread holds, a database session for one, stays apart."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from typing import Any, TypeVar

R = TypeVar("R")


def start_aside(work: Callable[[], R], name: str) -> Callable[[], R]:
    """
    Start `work` in a thread of its own; return what waits for it and then returns, or raises, what `work` does.

    RuntimeError if there is no thread to be had. Whatever interrupts the wait, the work goes on.
    """
    if sys.is_finalizing():
        # Such a thread would never run, and its start never return.
        raise RuntimeError("The interpreter ends.")
    outcomes: list[tuple[Any, BaseException | None]] = []

    def run() -> None:
        try:
            outcomes.append((work(), None))
        except BaseException as error:
            outcomes.append((None, error))

    thread = threading.Thread(target=run, name=name, daemon=True)

    def outcome() -> R:
        thread.join()
        value, error = outcomes.pop()
        if error is None:
            return value  # type: ignore[no-any-return]
        try:
            raise error
        finally:
            # As in `result`: a cycle otherwise.
            del error

    thread.start()
    return outcome
