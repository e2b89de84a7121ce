"""A call as a message, and the other way round."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from ...calls import Call, Parts
from ...messages.message import Message, check_size
from ...options import Options, options_of
from ...summaries import TaskSummary
from .hub import Hub
from .tracing import trace_headers, trace_variables

PLAIN = (str, int, float, bool, type(None))
"""The values of `g` that are sent."""


def pack(hub: Hub, call: Call, options: Options, summary: TaskSummary) -> Message:
    """Return the message of a call; TypeError or ValueError, which name the argument, where it cannot be sent."""
    _, values, _, adapter = call.captured
    encode, name = hub.serializer.encode, summary.name
    message = Message(
        id=summary.id,
        fn=hub.names.of(call.fn),
        args=[encode(arg, f"Argument {n} of {name}") for n, arg in enumerate(call.args, 1)],
        kwargs={key: encode(arg, f"Argument {key!r} of {name}") for key, arg in call.kwargs.items()},
        g={key: encode(value, key) for key, value in values.items() if type(value) in PLAIN},
        url=None
        if adapter is None
        else [adapter.server_name, adapter.script_name, adapter.subdomain, adapter.url_scheme],
        trace=trace_headers(),
        name=name,
        queue=summary.queue,
        options=_own_options(hub, call.fn, options),
        once=options.at_most_once,
        timeout=_checked_timeout(hub, options.timeout),
        enqueued=summary.enqueued,
    )
    check_size(message, hub.most_bytes)
    return message


def unpack(hub: Hub, message: Message) -> tuple[Parts, Options, TaskSummary]:
    """
    Return the call of a message, its options, and its summary.

    Raises MessageRefused, or what the code of the application raises, where this process cannot make the call.
    """
    fn = hub.names.find(message.fn)
    decode = hub.serializer.decode
    args = tuple(decode(arg) for arg in message.args)
    kwargs = {key: decode(arg) for key, arg in message.kwargs.items()}
    url = message.url
    adapter = None if url is None else hub.app.url_map.bind(url[0], url[1], url[2], url[3])
    captured = (hub.app, decode(message.g), trace_variables(message.trace), adapter)
    options = options_of(fn).replace(**_decoded_options(hub, message.options))
    options = dataclasses.replace(options, name=message.name, queue=message.queue)
    summary = TaskSummary(message.name, message.queue, message.id)
    summary.enqueued = message.enqueued
    summary.attempts = message.attempt - 1
    return (fn, args, kwargs, captured), options, summary


def _own_options(hub: Hub, fn: Callable[..., Any], options: Options) -> dict[str, Any]:
    """Return the options that the worker does not find on the function."""
    known = options_of(fn)
    own: dict[str, Any] = {}
    for name in ("retries", "timeout"):
        if getattr(options, name) != getattr(known, name):
            own[name] = getattr(options, name)
    if options.retry_on != known.retry_on:
        own["retry_on"] = [hub.names.of_error(kind) for kind in options.retry_on]
    if options.backoff != known.backoff:
        own["backoff"] = hub.serializer.encode(options.backoff, "The backoff")
    return own


def _decoded_options(hub: Hub, encoded: Mapping[str, Any]) -> dict[str, Any]:
    options = dict(encoded)
    if "retry_on" in options:
        options["retry_on"] = tuple(map(hub.names.find_error, options["retry_on"]))
    if "backoff" in options:
        options["backoff"] = hub.serializer.decode(options["backoff"])
    return options


def _checked_timeout(hub: Hub, timeout: float | None) -> float | None:
    if timeout is None:
        return None
    limit = hub.visibility_timeout
    if limit is not None and timeout >= limit:
        raise ValueError(
            f"timeout must be below {limit} s, the broker's visibility_timeout: past that Redis hands the task to "
            "a second worker while the first one still runs it. Raise "
            "ASOK_CELERY['broker_transport_options']['visibility_timeout']."
        )
    return timeout
