"""What tasks, worker and backend of a distributed backend have in common: the store, and how a message is sent."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from flask import Flask

from ...errors import BackendUnavailable
from ...messages.message import Message
from ...packing import Packer
from ...store.base import COMMAND
from .engine_store import EngineStore, ForeignRecord

T = TypeVar("T")

RETRY_PAUSES = (0.5, 1.0, 2.0, 4.0)
"""Seconds between a worker's tries to reach the store or the engine."""


class Hub(ABC):
    """
    What the rooms of one application's distributed backend share; each part is made when it is first used.

    Lives as long as the application, and is safe to use from several threads and in forked children.
    """

    def __init__(self, app: Flask, config: Mapping[str, Any]) -> None:
        self.app: Flask = app
        self.config: Mapping[str, Any] = config
        self.packer: Packer = Packer(app, config)

    @property
    @abstractmethod
    def store(self) -> EngineStore | None:
        """The store that keeps the messages; None where there is none."""

    @abstractmethod
    def need_store(self) -> EngineStore:
        """Return the store; NotConfigured if there is none."""

    @abstractmethod
    def publish(self, message: Message, signed: str = "", *, wait: float = 0.0, sent: str = "") -> None:
        """
        Hand a message to the engine; `signed` is what `packer.sign` has made of it, if it is at hand.

        Where no store keeps it, the engine delivers it in `wait` seconds.
        """

    def enter(self) -> EngineStore:
        """Return the store, which knows from now on that this process lives: it has tasks."""
        store = self.need_store()
        if not store.me:
            store.enter("web" if self.is_serving else COMMAND, self.config["ASOK_QUEUES"])
        return store

    @property
    def is_serving(self) -> bool:
        """Does this process answer requests?"""
        return bool(self.app.extensions["asok"].serving.is_serving)

    def shared(self, key: str, make: Callable[[], T]) -> T:
        """Return what this process has under `key`, made when first asked for: see `AppState.shared`."""
        return self.app.extensions["asok"].shared(key, make)  # type: ignore[no-any-return]

    # Outcomes

    def sign_outcome(self, id: str, outcome: Mapping[str, Any]) -> str:
        """Return an outcome for the record of this task, and of no other: `value` or `error`, encoded."""
        return self.packer.signer.sign(outcome, f"outcome:{id}")

    def read_outcome(self, id: str, signed: object) -> tuple[Any, BaseException | None]:
        """Return the value and the error that `sign_outcome` was given; MessageRefused for anything else."""
        outcome = self.packer.signer.verify(signed, f"outcome:{id}")
        if "error" in outcome:
            return None, self.packer.serializer.decode_error(outcome["error"])
        return self.packer.serializer.decode(outcome["value"]), None


def keep_trying(do: Callable[[], T]) -> T:
    """Call `do`, retrying for about 8 seconds while store or engine is unreachable: a worker has that time."""
    for pause in RETRY_PAUSES:
        try:
            return do()
        except ForeignRecord:
            raise
        except BackendUnavailable:
            time.sleep(pause)
    return do()


def insist(do: Callable[[], T], is_ending: Callable[[], bool]) -> T:
    """
    Call `do`, which claims an attempt or gives one back, however long the store is away.

    It may have written that down, and not been able to say so: while this process lives nobody else may run the task
    then. One that is ending gives up after a while, since its lease ends with it.
    """
    while True:
        try:
            return keep_trying(do)
        except ForeignRecord:
            raise
        except BackendUnavailable:
            if is_ending():
                raise
