"""A store to prove promises with, whose clock the test moves, and what it is asked."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable
from typing import Any, TypeVar

import pytest
from flask import Flask

from ...sharing import open_store
from ...store.base import Record, Store
from .app import WithApp

T = TypeVar("T")

Make = Callable[..., Record]


class Clock:
    """A clock that stands still."""

    def __init__(self) -> None:
        self.time: float = 1_000_000.0

    def __call__(self) -> float:
        return self.time


class WithStore(WithApp):
    """Fixtures: override `make_app`."""

    @pytest.fixture
    def clock(self) -> Clock:
        """The clock of the store."""
        return Clock()

    @pytest.fixture
    def store(self, app: Flask, clock: Clock) -> Store:
        """The store of the application, which has entered."""
        store = open_store(app)
        store.now = clock
        return store

    @pytest.fixture
    def me(self, store: Store) -> str:
        """The token of this process."""
        return store.me

    @pytest.fixture
    def make(self, store: Store, me: str, clock: Clock) -> Make:
        """Add a record, which this process owns, and return it."""

        def make(**fields: Any) -> Record:
            enqueued = fields.get("enqueued", clock.time)
            # As real ones are: the time of the call comes first.
            id = f"{int(enqueued * 1e6):013x}{secrets.token_hex(10)[1:]}"
            values = {"id": id, "name": "work", "queue": "default", "owner": me}
            record = Record(**{**values, "enqueued": enqueued, "due": clock.time, **fields})
            assert store.add(record) == record.id
            return record

        return make


def kept(store: Store, id: str) -> Record:
    """Return a record as it is stored."""
    record = store.read(id)
    assert record is not None
    return record


def seen(store: Store, id: str) -> Record:
    """Return a record as a caller gets it."""
    record = store.get(id)
    assert record is not None
    return record


def claimed(store: Store, id: str, owner: str) -> Record:
    """Begin an attempt."""
    claim = store.claim(id, owner)
    assert claim
    record = kept(store, id)
    assert record.claim == claim
    return record


def at_once(call: Callable[[int], T]) -> list[T]:
    """Call it from eight threads at the same moment, and return what they got."""
    barrier = threading.Barrier(8)
    got: list[T] = []

    def run(number: int) -> None:
        barrier.wait(10)
        got.append(call(number))

    threads = [threading.Thread(target=run, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    return got
