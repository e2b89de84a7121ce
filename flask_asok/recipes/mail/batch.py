"""Deliver emails over one connection, and sort the answers of the server."""

from __future__ import annotations

import dataclasses
import logging
import smtplib
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

from flask import Flask, current_app

from ...errors import AsokError
from ...logs import log, log_exception
from ...signals import emit
from .errors import MailRefused, MailUnavailable
from .outgoing import Composed, OutgoingMail, Unsendable
from .receipt import Receipt, Refusal
from .signals import mail_refused
from .smtp import Connection, readable
from .smtp_errors import failure_of

LOGGER = "asok.mail"

Later = Callable[[list[OutgoingMail]], object]
"""Takes the emails to try again; returns when they are queued."""


def deliver(mails: Sequence[Composed], later: Later | None = None) -> list[Receipt]:
    """
    Send emails over one connection, each once, and return their receipts in the same order.

    Emails that the server put off go to `later` once any other was settled, so an accepted email is never sent twice;
    without `later` they count as refused. After all were tried, raises MailRefused if the server accepted some email
    for no recipient, or one is Unsendable; MailUnavailable if the server only put emails off, with `later` only if
    nothing was settled.
    """
    if not mails:
        return []
    app: Flask = current_app._get_current_object()  # type: ignore[attr-defined]
    why = {mail.message_id: mail.why for mail in mails if isinstance(mail, Unsendable)}
    receipts, lost = _attempt(app, mails)
    put_off = _put_off(mails, receipts)
    is_settled = bool(why) or any(receipt and _is_settled(receipt) for receipt in receipts)
    if put_off and not is_settled:
        raise lost or _unavailable(receipts)
    if put_off and later is not None:
        receipts = _handed_on(later, put_off, receipts, mails)
    known = [receipt or _lost(mail, lost) for receipt, mail in zip(receipts, mails, strict=True)]
    for receipt in known:
        _report(app, receipt)
    if nobody := [receipt for receipt in known if not receipt.accepted and not receipt.later]:
        refused = [refusal for receipt in nobody for refusal in receipt.refused]
        is_final = bool(why) or later is not None or any(not refusal.is_temporary for refusal in refused)
        kind = MailRefused if is_final else MailUnavailable
        code = nobody[0].refused[0].code if nobody[0].refused else None
        raise kind(_summary(nobody, known, why), code=code, receipts=known)
    return known


def _attempt(app: Flask, mails: Sequence[Composed]) -> tuple[list[Receipt | None], MailUnavailable | None]:
    """Return a receipt for each email that got an answer, and the error that ended the attempt early."""
    # The receipt of an Unsendable names no recipient.
    unsent = [Receipt(mail.message_id, []) if isinstance(mail, Unsendable) else None for mail in mails]
    sendable = {index: mail for index, mail in enumerate(mails) if isinstance(mail, OutgoingMail)}
    if not sendable:
        return list(unsent), None
    receipts: list[Receipt | None] = [*unsent]
    connection = Connection(app)
    try:
        with connection:
            for index, mail in sendable.items():
                receipts[index] = _transmit(connection, mail)
    except (smtplib.SMTPException, OSError) as error:
        failure = failure_of(error, str(connection.server))
        if isinstance(failure, MailRefused) and receipts == unsent:
            raise failure from error
        lost = failure if isinstance(failure, MailUnavailable) else MailUnavailable(str(failure), code=failure.code)
        lost.__cause__ = error
        return receipts, lost
    return receipts, None


def _transmit(connection: Connection, mail: OutgoingMail) -> Receipt | None:
    """Send one email; None if the connection was lost and the server may have it. Raises if it cannot reconnect."""
    while True:
        is_fresh = connection.num_emails == 0
        try:
            return _receipt(mail, connection.transmit(mail))
        except (smtplib.SMTPException, OSError):
            # Servers may close a connection after a number of emails: continue on a new one.
            if is_fresh:
                raise
        was_unsure = connection.is_unsure
        connection.reconnect()
        if was_unsure:
            return None


def _receipt(mail: OutgoingMail, refused: list[Refusal]) -> Receipt:
    addresses = {refusal.address for refusal in refused}
    accepted = [address for address in mail.envelope_to if address not in addresses]
    return Receipt(mail.message_id, accepted, refused)


def _is_settled(receipt: Receipt) -> bool:
    return bool(receipt.accepted) or any(not refusal.is_temporary for refusal in receipt.refused)


def _put_off(mails: Sequence[Composed], receipts: Sequence[Receipt | None]) -> list[OutgoingMail]:
    """Return the emails to try again, each for its remaining recipients."""
    put_off = []
    for mail, receipt in zip(mails, receipts, strict=True):
        if isinstance(mail, Unsendable):
            continue
        left = mail.envelope_to
        if receipt is not None:
            left = [refusal.address for refusal in receipt.refused if refusal.is_temporary]
        if left:
            put_off.append(dataclasses.replace(mail, envelope_to=left))
    return put_off


def _handed_on(
    later: Later, put_off: list[OutgoingMail], receipts: list[Receipt | None], mails: Sequence[Composed]
) -> list[Receipt | None]:
    try:
        later(put_off)
    except AsokError:
        # Raising would send the accepted emails again.
        log_exception("%d mails that the server put off cannot be queued again", len(put_off), logger=LOGGER)
        return receipts
    handed_on: list[Receipt | None] = []
    for mail, receipt in zip(mails, receipts, strict=True):
        if receipt is None:
            handed_on.append(Receipt(mail.message_id, [], later=_recipients(mail)))
            continue
        refused = [refusal for refusal in receipt.refused if not refusal.is_temporary]
        left = [refusal.address for refusal in receipt.refused if refusal.is_temporary]
        handed_on.append(dataclasses.replace(receipt, refused=refused, later=left))
    return handed_on


def _recipients(mail: Composed) -> list[str]:
    return mail.envelope_to if isinstance(mail, OutgoingMail) else []


def _lost(mail: Composed, lost: MailUnavailable | None) -> Receipt:
    text = str(lost) if lost else "the connection was lost before the answer"
    code = (lost.code if lost else None) or 421
    refused = [Refusal(address, code, readable(text)) for address in _recipients(mail)]
    return Receipt(mail.message_id, [], refused)


def _unavailable(receipts: Sequence[Receipt | None]) -> MailUnavailable:
    known = [receipt for receipt in receipts if receipt]
    return MailUnavailable(_summary(known, known), code=known[0].refused[0].code, receipts=known)


def _summary(failed: Sequence[Receipt], of: Sequence[Receipt], why: Mapping[str, str] = MappingProxyType({})) -> str:
    first = failed[0]
    if first.message_id in why:
        text = f"Mail {first.message_id} cannot be sent: {why[first.message_id]}"
    else:
        text = f"Mail {first.message_id} was refused: " + "; ".join(map(str, first.refused[:5]))
    if len(first.refused) > 5:
        text += f" and {len(first.refused) - 5} more recipients"
    return text if len(of) == 1 else f"{len(failed)} of {len(of)} mails were refused. {text}"


def _report(app: Flask, receipt: Receipt) -> None:
    refused = [refusal for refusal in receipt.refused if not refusal.is_temporary]
    if refused:
        emit(mail_refused, app, message_id=receipt.message_id, refused=refused)
    if receipt.refused and (receipt.accepted or receipt.later):
        log(
            logging.WARNING,
            "Mail %s was refused for %d recipients: %s",
            receipt.message_id,
            len(receipt.refused),
            "; ".join(map(str, receipt.refused)),
            app=app,
            logger=LOGGER,
        )
