"""The signals of webhooks; their sender is the application."""

from __future__ import annotations

from blinker import NamedSignal

from ...signals import namespace

webhook_failed: NamedSignal = namespace.signal(
    "webhook-failed",
    doc="""
    A webhook was not delivered, and nothing will try again: `delivery` has what it takes to store and replay it,
    `error` says why.

    Sent in the thread and the app context of the attempt. It holds no secret: of the URL only scheme, host and port.
    """,
)
webhook_gone: NamedSignal = namespace.signal(
    "webhook-gone",
    doc="""
    The receiver answered 410: disable the endpoint. Sent before `webhook_failed`, with the same arguments.
    """,
)

delivered: NamedSignal = NamedSignal("webhook-delivered")
"""Sent after each webhook that was delivered or suppressed, with its `delivery`. For `recorded`."""
