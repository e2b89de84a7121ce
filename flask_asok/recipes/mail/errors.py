"""The errors of email."""

from __future__ import annotations

from ...errors import AsokError
from .receipt import Receipt


class MailError(AsokError):
    """
    Raised when an email, or all of a batch, could not be sent.

    `code` is the SMTP answer (int) or None where there was none. `receipts` holds the Receipt of each email of the call
    that was tried, in the order of the call: the accepted recipients, the refused ones and why. The receipt of an email
    that cannot be sent for a text in it names no recipient; the text of the error says why.
    """

    def __init__(self, text: str, code: int | None = None, receipts: list[Receipt] | None = None) -> None:
        # All of it in args, which is what comes back from another process.
        super().__init__(text, code, receipts or [])
        self.code = code
        self.receipts: list[Receipt] = receipts or []

    def __str__(self) -> str:
        return str(self.args[0])

    def __repr__(self) -> str:
        # For the log: the text names the refused recipients, and the receipts of a batch all others.
        return f"{type(self).__name__}({self.args[0]!r})"


class MailUnavailable(MailError):
    """Raised when trying again later may help: the task is retried. The server accepted nothing of the email."""


class MailRefused(MailError):
    """Raised when trying again would not help: the task has failed."""
