"""The signal of email; its sender is the application."""

from __future__ import annotations

from blinker import NamedSignal

from ...signals import namespace

mail_refused: NamedSignal = namespace.signal(
    "mail-refused",
    doc="""
    The SMTP server refused recipients for good: `message_id`, `refused` (a list of `Refusal`: address, code, text).

    Sent in the thread and the app context of the task, also when the server accepted other recipients of the same
    email.
    """,
)
