"""A durable call: written down before `background()` returns."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

from flask import Flask

from ..attempt import RunnableTask
from ..messages.message import Message
from ..record_writer import Draft, attach, key_of, record_of
from ..results import packer_of
from ..state import state_of
from .home import store_of_calls
from .journal import DurableJournal
from .sweeper import SWEEPER, begin_sweeping


def draft_call(task: RunnableTask[Any], app: Flask, fn: Callable[..., Any]) -> Draft:
    """
    Draft a record of `task`, which is not started yet, with its call, so that it outlives this process.

    Raises TypeError or ValueError for what cannot be written down, NotConfigured without a SECRET_KEY or a store that
    keeps durable tasks, and BackendUnavailable where the store cannot be reached.
    """
    state, options, packer = state_of(app), task.options, packer_of(app)
    call = task.call
    assert call is not None
    keep = state.is_tracked(options)
    message: Message | None = None
    text = None if keep else packer.plain_text_of(call, options, task.summary)
    if text is None:
        message = packer.message_of(call, options, task.summary)
        message.keep, message.unique_until = keep, options.unique_until
        text = packer.text_of(message)
    signed = packer.sign_text(text)
    store = store_of_calls(app)
    journal = DurableJournal(store, packer, message, key=key_of(fn, options.unique))
    record = record_of(task, app, fn, store.me)
    if not options.is_deferred:
        record.message = signed
    else:
        journal.release_later(signed)
    store.tidy()

    def attach_call() -> None:
        attach(task, journal)
        if message is not None:
            task.replace_call(journal.renewed(call))
        if state.serving.is_serving and not state.has(SWEEPER):
            # The store has come into being after the first request. The next one tries it again.
            with contextlib.suppress(RuntimeError):
                begin_sweeping(app)

    return Draft(store, record, attach_call)
