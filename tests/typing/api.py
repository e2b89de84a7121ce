"""What a type checker must find out about the public names. Checked, never run."""

from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterator
from datetime import timedelta
from pathlib import Path
from threading import Thread
from typing import Any, assert_type

from flask import Flask

from flask_asok import (
    FlaskAsok,
    Mail,
    Progress,
    Retry,
    Task,
    TaskSummary,
    background,
    current_task,
    report_progress,
    send_mail,
    task,
    track,
)
from flask_asok.signals import task_failed


def add(left: int, right: int = 1) -> int:
    return left + right


async def fetch(url: str) -> bytes:
    return url.encode()


@task(retries=3, retry_on=(ValueError, OSError), backoff=[1, 5, 30], queue="mail", name="ship", timeout=60)
def ship(order_id: int, *, express: bool = False) -> str:
    return f"{order_id} {express}"


def prepared(path: Path) -> tuple[tuple[str], dict[str, int]]:
    return (str(path),), {}


@task(prepare=prepared, backoff=lambda attempt: attempt * 2.0)
def shrink(path: Path) -> None: ...


def door() -> None:
    assert_type(background(add, 1, right=2), Task[int])
    assert_type(background(fetch, "https://example.org").result(), bytes)
    assert_type(background(ship, 42, express=True), Task[str])
    assert_type(background(lambda: 1), Task[int])
    assert_type(background.using(retries=3, delay=timedelta(minutes=1), when="response")(add, 1), Task[int])
    assert_type(background.using(delay=60.0, when="commit")(fetch, "https://example.org").result(timeout=5), bytes)

    # Each error is of the argument, and not that no overload fits.
    background(add, "one")  # type: ignore[arg-type]
    background(add, 1, wrong=2)  # type: ignore[call-arg]
    background(ship)  # type: ignore[call-arg]
    background(fetch, 3)  # type: ignore[arg-type]
    background.using(retry=3)  # type: ignore[call-arg]
    background.using(add)  # type: ignore[arg-type]
    background.using(when="later")  # type: ignore[arg-type]
    background.using(prepare=prepared)  # type: ignore[call-arg]


def decorated() -> None:
    assert_type(ship(42, express=True), str)
    plain: Callable[[Path], None] = shrink
    plain(Path("photo.jpg"))
    ship("42")  # type: ignore[arg-type]
    task(queue=1)  # type: ignore[arg-type]
    task(ship)  # type: ignore[arg-type]


def progress(rows: AsyncIterable[str]) -> None:
    assert_type(track([1, 2], text="Rows"), Iterator[int])
    assert_type(track(rows, total=3), AsyncIterator[str])
    assert_type(background(add, 1).progress, Progress | None)
    report_progress(1, 2.5, "half")
    report_progress("1")  # type: ignore[arg-type]


def handle() -> None:
    started = background(add, 1)
    thread: Thread = started
    thread.join(1.0)
    assert_type(started.result(timeout=5), int)
    assert_type(started.exception(), BaseException | None)
    assert_type(started.cancel(), bool)
    assert_type(started.id, str)
    assert_type(started.attempts, int)
    assert_type(started.name, str)
    assert_type(started.ident, int | None)
    anything: Task[object] = started
    anything.join()
    running = current_task()
    if running is not None:
        assert_type(running.queue, str)


def flaky() -> None:
    raise Retry(after=timedelta(seconds=30))


def extension(app: Flask) -> None:
    asok = FlaskAsok(app)
    asok.init_app(app)
    assert_type(asok.background(add, 1), Task[int])
    assert_type(asok.tasks(), list[TaskSummary])
    assert_type(asok.get("id"), Task[Any] | None)
    asok.close(app, timeout=2.5)


def mail() -> None:
    Mail.send(to="ann@example.com", subject="Hello", body="World")
    Mail.send(to=["ann@example.com", ("Doe, John", "john@example.com")], bcc=("Archive", "archive@example.com"))
    background.using(when="commit")(send_mail, to="ann@example.com", subject="Hello", template="welcome")
    Mail.send(to=3)  # type: ignore[arg-type]
    Mail.send(to="ann@example.com", sender=["shop@example.com"])  # type: ignore[arg-type]


def signals(app: Flask) -> None:
    def failed(sender: Flask, task: Task[object], error: BaseException) -> None: ...

    task_failed.connect(failed, app)
