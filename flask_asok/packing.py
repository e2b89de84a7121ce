"""A call as a signed message, and the other way round: what another process needs to make it."""

from __future__ import annotations

import dataclasses
import operator
from collections.abc import Callable, Mapping
from typing import Any

from flask import Flask
from werkzeug.routing import MapAdapter

from .callables import options_of
from .calls import Call, Parts
from .context import Captured
from .errors import MessageRefused
from .messages.message import VERSION, Message, check_size, fields_as_text, size_of
from .messages.names import Names
from .messages.serializer import Serializer, is_plain
from .messages.signer import Signer
from .messages.tracing import trace_headers, trace_variables
from .options import Options
from .settings import Setting
from .summaries import TaskSummary
from .validate import or_none, whole, wrong_type

PLAIN = (str, int, float, bool, type(None))
"""The values of `g` that are sent."""


_sent_of: Callable[[Options], tuple[Any, ...]] = operator.attrgetter("retries", "timeout", "retry_on", "backoff")


def _url_of(adapter: MapAdapter | None) -> list[Any] | None:
    """Return what a message keeps of the caller's URL adapter."""
    if adapter is None:
        return None
    return [adapter.server_name, adapter.script_name, adapter.subdomain, adapter.url_scheme]


def _modules(name: str, value: Any) -> Any:
    if not isinstance(value, (list, tuple, set, frozenset)):
        raise wrong_type(name, value, "a list of names of modules, or None")
    return value


SETTINGS = (
    Setting(
        "ASOK_TASK_MODULES", None, or_none(_modules),
        "Modules whose functions another process may run, with everything below them. None is the application's own "
        "package. The recipes are always allowed.",
    ),
    Setting(
        "ASOK_MESSAGE_MAX_BYTES", 8 * 1024 * 1024, whole(1),
        "The largest message of a call; a larger one is a ValueError at the call.",
    ),
)  # fmt: skip


class Packer:
    """
    Writes the calls of one application as signed messages, and reads those.

    Of functions and classes it knows those of the modules that the application allows.
    """

    def __init__(self, app: Flask, config: Mapping[str, Any]) -> None:
        self.app: Flask = app
        root = app.import_name.partition(".")[0]
        modules = config["ASOK_TASK_MODULES"]
        self.names: Names = Names({"flask_asok", *([root] if modules is None else modules)})
        self.serializer: Serializer = Serializer(self.names)
        self._signer: Signer | None = None
        self.most_bytes: int = config["ASOK_MESSAGE_MAX_BYTES"]
        """The size limit of a message, and of an outcome."""

    @property
    def signer(self) -> Signer:
        """That of the keys which the application has now: they can be rotated. NotConfigured without a SECRET_KEY."""
        if self._signer is None or not self._signer.is_current(self.app):
            self._signer = Signer(self.app)
        return self._signer

    def message_of(self, call: Call, options: Options, summary: TaskSummary) -> Message:
        """Return the message of a call, whose size is still to be checked; TypeError or ValueError if it cannot be."""
        _, values, _, adapter = call.captured
        encode, name = self.serializer.encode, summary.name
        return Message(
            id=summary.id,
            fn=self.names.of(call.fn),
            args=[encode(arg, f"Argument {n} of {name}") for n, arg in enumerate(call.args, 1)] if call.args else [],
            kwargs={key: encode(arg, f"Argument {key!r} of {name}") for key, arg in call.kwargs.items()}
            if call.kwargs
            else {},
            g={key: encode(value, key) for key, value in values.items() if type(value) in PLAIN} if values else {},
            url=_url_of(adapter),
            trace=trace_headers(),
            name=name,
            queue=summary.queue,
            options=self._own_options(call.fn, options),
            once=options.at_most_once,
            timeout=options.timeout,
            enqueued=summary.enqueued,
            scheduled=summary.scheduled,
        )

    def plain_text_of(self, call: Call, options: Options, summary: TaskSummary) -> str | None:
        """
        Return the message of a call as `text_of` does, without making one; None where the call needs a Message.

        It needs none where all its arguments are JSON already and it has no options of its own, as most calls.
        """
        fn, args, kwargs, (_, values, _, adapter) = call
        if (
            values
            or options.at_most_once
            or options.timeout is not None
            or options.unique_until != "end"
            or summary.scheduled
            or not all(map(is_plain, args))
            or not all(map(is_plain, kwargs.values()))
            or _sent_of(options) != _sent_of(options_of(fn))
            or trace_headers()
        ):
            return None
        text = fields_as_text(
            VERSION, self.names.of(fn), summary.name, summary.queue, _url_of(adapter) or (),
            summary.id, args, kwargs, summary.enqueued,
        )  # fmt: skip
        return f"{{{text}}}" if len(text) < self.most_bytes - 1 else None

    def unpack(self, message: Message) -> tuple[Parts, Options, TaskSummary]:
        """
        Return the call of a message, its options, and its summary.

        Raises MessageRefused, or what the code of the application raises, where this process cannot make the call.
        """
        url = message.url
        adapter = None if url is None else self.app.url_map.bind(url[0], url[1], url[2], url[3])
        captured = (self.app, self.serializer.decode(message.g), trace_variables(message.trace), adapter)
        call = self.call_of(message, captured)
        options = options_of(call[0]).replace(**self._decoded_options(message.options))
        options = dataclasses.replace(options, name=message.name, queue=message.queue)
        summary = TaskSummary(message.name, message.queue, message.id)
        summary.enqueued, summary.scheduled = message.enqueued, message.scheduled
        summary.due = message.due or message.enqueued
        summary.attempts = message.attempt - 1
        return call, options, summary

    def call_of(self, message: Message, captured: Captured) -> Parts:
        """Return the call of a message, in a context that was captured; raises as `unpack` does."""
        decode = self.serializer.decode
        fn = self.names.find(message.fn)
        return fn, tuple(map(decode, message.args)), {key: decode(arg) for key, arg in message.kwargs.items()}, captured

    def sign(self, message: Message) -> str:
        """Return a message as it is sent."""
        return self.signer.sign(message.as_payload(), "call")

    def check(self, message: Message) -> None:
        """Raise ValueError, which names the largest argument, for a message that is too large to be sent."""
        check_size(message, size_of(message.as_payload()), self.most_bytes)

    def text_of(self, message: Message) -> str:
        """Return a message as a record keeps it, to be signed; ValueError, as of `check`, where it is too large."""
        text = message.as_text()
        check_size(message, len(text), self.most_bytes)
        return text

    def sign_text(self, text: str) -> str:
        """Return what `text_of` has returned, signed."""
        return self.signer.sign_text(text, "call")

    def read(self, signed: object) -> Message:
        """Return the message that `sign` was given; MessageRefused for anything else."""
        return Message.from_payload(self.signer.verify(signed, "call"))

    def read_for(self, id: str, signed: object) -> Message:
        """Return the message that the record of the task `id` keeps; MessageRefused for that of another task."""
        message = self.read(signed)
        if message.id != id:
            raise MessageRefused("The record holds the message of another task.")
        if message.v > VERSION:
            raise MessageRefused("The message is of a later release of Flask-Asok.")
        return message

    def _own_options(self, fn: Callable[..., Any], options: Options) -> dict[str, Any]:
        """Return the options that the worker does not find on the function."""
        known = options_of(fn)
        own: dict[str, Any] = {}
        if _sent_of(options) == _sent_of(known):
            return own
        for name in ("retries", "timeout"):
            if getattr(options, name) != getattr(known, name):
                own[name] = getattr(options, name)
        if options.retry_on != known.retry_on:
            own["retry_on"] = [self.names.of_error(kind) for kind in options.retry_on]
        if options.backoff != known.backoff:
            own["backoff"] = self.serializer.encode(options.backoff, "The backoff")
        return own

    def _decoded_options(self, encoded: Mapping[str, Any]) -> dict[str, Any]:
        options = dict(encoded)
        if "retry_on" in options:
            options["retry_on"] = tuple(map(self.names.find_error, options["retry_on"]))
        if "backoff" in options:
            options["backoff"] = self.serializer.decode(options["backoff"])
        return options
