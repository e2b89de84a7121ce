"""What the tasks of the promises do: functions that a worker in another process finds by their names."""

from __future__ import annotations

import os
import threading
import time
from typing import Any

from flask import g, has_request_context, url_for

from ...dispatch import background
from ...retries import Retry
from ...tasks import Task, current_task

WAIT = 30.0
"""Seconds that anything here is waited for."""


def add(a: int, b: int = 0) -> int:
    return a + b


def echo(*args: Any, **kwargs: Any) -> list[Any]:
    return [*args, kwargs]


def fail(text: str) -> None:
    raise ZeroDivisionError(text)


def note(path: str, text: str = "ran") -> None:
    """Append a line to a file, which a test in another process can read."""
    with open(path, "a", encoding="utf-8") as file:
        file.write(f"{text}\n")


def note_attempt(path: str, succeed_at: int) -> int:
    attempt = this_task().attempts
    note(path, str(attempt))
    if attempt < succeed_at:
        raise ConnectionError(f"attempt {attempt}")
    return attempt


def ask_for_retry(path: str) -> str:
    attempt = this_task().attempts
    note(path, str(attempt))
    if attempt == 1:
        raise Retry(after=0.05)
    return "done"


def add_all(depth: int) -> int:
    """Wait for two tasks of one's own, which do the same."""
    return 1 if not depth else sum(background(add_all, depth - 1).result(WAIT) for _ in range(2))


def wait_for_file(path: str) -> bool:
    """Hold a worker until the file is there."""
    deadline = time.monotonic() + WAIT
    gate = threading.Event()
    while not os.path.exists(path):
        if time.monotonic() > deadline:
            return False
        gate.wait(0.01)
    return True


def see() -> dict[str, Any]:
    return {
        "user": g.get("user"),
        "link": url_for("page"),
        "id": this_task().id,
        "queue": this_task().queue,
        "request": has_request_context(),
    }


def this_task() -> Task[Any]:
    task = current_task()
    assert task is not None
    return task
