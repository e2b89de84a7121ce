"""The errors of webhooks, sent and received."""

from __future__ import annotations

from typing import Any, ClassVar

from ...errors import AsokError
from .delivery import Delivery


class WebhookError(AsokError):
    """
    Base of the errors of webhooks. No text, here or in its causes, holds a secret or more of a URL than its host.

    `delivery` is the Delivery that failed, or None. The error's `repr`, which the log shows, names the webhook's id and
    reference, the status and the first words of the answer: do not show it to the owner of the URL.
    """

    is_answer: ClassVar[bool] = True

    def __init__(self, text: str, delivery: Delivery | None = None) -> None:
        # All of it in args: another process makes the error again from them.
        super().__init__(text, delivery)
        self.delivery = delivery

    def __str__(self) -> str:
        return str(self.args[0])

    def __repr__(self) -> str:
        about = getattr(self.delivery, "__asok_about__", "")
        return f"{type(self).__name__}({self.args[0]!r}{', ' if about else ''}{about})"


class WebhookUnavailable(WebhookError):
    """
    Raised when trying again later may help. A task that raises it is retried.

    `retry_after` is how many seconds the receiver asked to wait, None if it did not.
    """

    def __init__(self, text: str, delivery: Delivery | None = None, retry_after: float | None = None) -> None:
        super().__init__(text, delivery)
        self.args: tuple[Any, ...] = (text, delivery, retry_after)
        self.retry_after = retry_after


class WebhookRejected(WebhookError):
    """Raised when the receiver's answer would be the same again. A task that raises it has failed."""


class WebhookGone(WebhookRejected):
    """Raised for a 410: disable the endpoint."""


class WebhookBlocked(WebhookError):
    """Raised when the URL leads to an address that is not allowed. No packet was sent there."""


class WebhookNotVerified(WebhookError):
    """Raised by `verify_webhook` for a request without a current signature by that secret."""
