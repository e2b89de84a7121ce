"""Emails that the release before has queued: workers reach them by the former names. The next release drops this."""

from __future__ import annotations

import dataclasses
from typing import Any

from ...callables import options_of
from ...dispatch import task
from .addresses import Address, one_address
from .outgoing import OutgoingMail
from .receipt import Receipt
from .recipe import deliver_mail, deliver_mails

_options = options_of(deliver_mail)
_as_before = task(
    queue=_options.queue, retries=_options.retries, retry_on=_options.retry_on, backoff=_options.backoff
)  # fmt: skip


@_as_before
def deliver_mail_before(mail: Any) -> Receipt:
    """Send an email whose addresses are text, or a name and an address."""
    return deliver_mail(_as_today(mail))


@_as_before
def deliver_mails_before(mails: list[Any]) -> list[Receipt]:
    """Send several of them."""
    return deliver_mails([_as_today(mail) for mail in mails])


def _as_today(mail: OutgoingMail) -> OutgoingMail:
    reply_to: Any = mail.reply_to
    return dataclasses.replace(
        mail,
        sender=_address("sender", mail.sender),
        to=[_address("to", one) for one in mail.to],
        cc=[_address("cc", one) for one in mail.cc],
        bcc=[_address("bcc", one) for one in mail.bcc],
        reply_to=None if reply_to is None else _address("reply_to", reply_to),
    )


def _address(name: str, value: Any) -> Address:
    return value if isinstance(value, Address) else one_address(name, value)
