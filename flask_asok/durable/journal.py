"""What a durable task writes down: the call itself, so that another process can make it."""

from __future__ import annotations

import logging
import time
from operator import is_
from typing import Any

from ..attempt import RunnableTask
from ..calls import Parts
from ..errors import AsokError
from ..journal import Journal
from ..messages.message import Message
from ..packing import Packer
from ..state import state_of
from ..store.away import warn_of_store
from ..store.durable import DurableStore
from ..task_log import log_of


class DurableJournal(Journal):
    """The record of a task that any process of the application can run: each attempt makes the call of its message."""

    __slots__ = ("_durable", "_message", "_packer", "_signed", "is_last")

    def __init__(
        self, store: DurableStore, packer: Packer, message: Message | None, *, key: str = "", claim: int = 0
    ) -> None:
        until_start, keeps = (False, False) if message is None else (message.unique_until == "start", message.keep)
        super().__init__(store, key, until_start, claim=claim, keeps=keeps)
        self._durable = store
        self._packer = packer
        self._message = message
        """None of a call whose text was written without it: it can be repeated, and no attempt changes it."""
        self._signed = ""
        self.is_last: bool = False
        """Is this process the last one? Then the task is not handed over."""

    def release_later(self, signed: str) -> None:
        """Write the call down not now, but when the task is released."""
        self._signed = signed

    def release(self, task: RunnableTask[Any]) -> bool:
        """Write the call down, at the response or the commit that the task has waited for."""
        try:
            due = time.time() + task.options.delay
            return self._store.release(task.id, due, self._key, self._signed) in ("", task.id)
        except AsokError as error:
            log_of(
                task, logging.ERROR,
                "Background task %s (%s) could not be written down, so it ends with this process: %s",
                task.name, task.id, error,
            )  # fmt: skip
            self.is_last = True
            return True

    def renewed(self, call: Parts) -> Parts:
        """Return the call as another process would make it, whatever an attempt has done to the arguments."""
        _, args, kwargs, (app, values, variables, adapter) = call
        message = self._message
        if message is None:
            return call
        if not values and all(map(is_, args, message.args)) and all(map(is_, kwargs.values(), message.kwargs.values())):
            # Numbers and texts, which nobody changes.
            return call
        try:
            values = self._packer.serializer.decode(message.g)
            return self._packer.call_of(message, (app, values, variables, adapter))
        except Exception:  # of the application's code, which may have changed under the reloader
            return call

    def hand_over(self, task: RunnableTask[Any]) -> bool:
        """Leave the task to the process that comes next; False if none may run it."""
        if self.is_last or self._is_unwritten(task) or (self._runs_once() and task.state == "running"):
            return False
        if task.state == "running":
            self._leave(task)
        elif not state_of(task.app).backend.is_closed:
            if not self._durable.is_shared:
                return False
            self._give_up(task)
        # Else it needs no word: this process is its owner for as long as it lives, which is not for long.
        return True

    def _give_up(self, task: RunnableTask[Any]) -> None:
        """Leave a task that this process cannot wait for to any process that looks, this one included."""
        claim = self._claim
        try:
            self._durable.give_up(task.id, claim)
        except AsokError as error:
            warn_of_store(task, error)
            self.owe(task, lambda: self._durable.give_up(task.id, claim))

    def _leave(self, task: RunnableTask[Any]) -> None:
        # Where the store is away it is as if this process were killed: the next one counts a death.
        with self._reached(task):
            self._durable.hand_over(task.id, self._claim)

    def _runs_once(self) -> bool:
        return self._message is not None and self._message.once

    def _is_unwritten(self, task: RunnableTask[Any]) -> bool:
        return bool(self._signed) and task.is_deferred()

    def leave(self, task: RunnableTask[Any]) -> None:
        """Leave the attempt, which has just begun, to the process that comes next."""
        if self.is_last:
            super().leave(task)
        else:
            self._leave(task)
