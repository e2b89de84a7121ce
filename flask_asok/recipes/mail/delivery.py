"""Deliver letters over one connection, and sort what the server answers."""

from __future__ import annotations

import dataclasses
import logging
import random
import smtplib
import ssl
from collections.abc import Callable, Sequence

from flask import Flask, current_app

from ... import signals
from ...errors import AsokError, MailError, MailRefused, MailUnavailable
from .connection import Connection, mail_state, readable
from .letter import Letter
from .receipt import Receipt, Refusal

logger: logging.Logger = logging.getLogger("asok.mail")

Later = Callable[[list[Letter]], object]
"""Takes the letters that are to be tried again; returns when they are queued."""


def deliver(letters: Sequence[Letter], later: Later | None = None) -> list[Receipt]:
    """
    Send `letters` over one connection, each once, and return their receipts in the same order.

    What the server put off goes to `later` as soon as anything else was settled, so that what was accepted is never
    sent twice; without `later` it counts as refused. Raises, after all were tried, MailRefused when the server accepted
    some letter for nobody; MailUnavailable when it only put letters off, with `later` only when nothing was settled.
    """
    if not letters:
        return []
    app: Flask = current_app._get_current_object()  # type: ignore[attr-defined]
    receipts, lost = _attempt(app, letters)
    put_off = _put_off(letters, receipts)
    is_settled = any(receipt and _is_settled(receipt) for receipt in receipts)
    if put_off and not is_settled:
        raise lost or _unavailable(receipts)
    if put_off and later is not None:
        receipts = _handed_on(later, put_off, receipts, letters)
    known = [receipt or _lost(letter, lost) for receipt, letter in zip(receipts, letters, strict=True)]
    for receipt in known:
        _report(app, receipt)
    if nobody := [receipt for receipt in known if not receipt.accepted and not receipt.later]:
        is_final = later is not None or any(not each.is_temporary for receipt in nobody for each in receipt.refused)
        kind = MailRefused if is_final else MailUnavailable
        raise kind(_summary(nobody, known), code=nobody[0].refused[0].code, receipts=known)
    return known


def _attempt(app: Flask, letters: Sequence[Letter]) -> tuple[list[Receipt | None], MailUnavailable | None]:
    """Return a receipt for each letter that got an answer, and the error that ended the attempt before the last one."""
    receipts: list[Receipt | None] = [None] * len(letters)
    connection = Connection(app)
    try:
        with connection:
            for index, letter in enumerate(letters):
                receipts[index] = _transmit(connection, letter)
    except (smtplib.SMTPException, OSError) as error:
        failure = _failure(app, error)
        if isinstance(failure, MailRefused) and not any(receipts):
            raise failure from error
        lost = failure if isinstance(failure, MailUnavailable) else MailUnavailable(str(failure), code=failure.code)
        lost.__cause__ = error
        return receipts, lost
    return receipts, None


def _transmit(connection: Connection, letter: Letter) -> Receipt | None:
    """Send one letter; None when the connection was lost and the server may have it. Raises when none is to be had."""
    while True:
        is_fresh = connection.num_emails == 0
        try:
            return _receipt(letter, connection.send_letter(letter))
        except (smtplib.SMTPException, OSError):
            # A server that ends a connection after some mails is no failure: go on with a new one.
            if is_fresh:
                raise
        was_unsure = connection.is_unsure
        connection.reconnect()
        if was_unsure:
            return None


def _receipt(letter: Letter, refused: list[Refusal]) -> Receipt:
    addresses = {refusal.address for refusal in refused}
    accepted = [address for address in letter.envelope_to if address not in addresses]
    return Receipt(letter.message_id, accepted, refused)


def _refused_all(letter: Letter, code: int, text: bytes | str) -> list[Refusal]:
    return [Refusal(address, code, readable(text)) for address in letter.envelope_to]


def _is_settled(receipt: Receipt) -> bool:
    return bool(receipt.accepted) or any(not refusal.is_temporary for refusal in receipt.refused)


def _put_off(letters: Sequence[Letter], receipts: Sequence[Receipt | None]) -> list[Letter]:
    """Return the letters to try again, each for the recipients that are left."""
    put_off = []
    for letter, receipt in zip(letters, receipts, strict=True):
        left = letter.envelope_to
        if receipt is not None:
            left = [refusal.address for refusal in receipt.refused if refusal.is_temporary]
        if left:
            put_off.append(dataclasses.replace(letter, envelope_to=left))
    return put_off


def _handed_on(
    later: Later, put_off: list[Letter], receipts: list[Receipt | None], letters: Sequence[Letter]
) -> list[Receipt | None]:
    try:
        later(put_off)
    except AsokError:
        # Raising would send again what was accepted.
        logger.exception("%d mails that the server put off cannot be queued again", len(put_off))
        return receipts
    handed_on: list[Receipt | None] = []
    for letter, receipt in zip(letters, receipts, strict=True):
        if receipt is None:
            handed_on.append(Receipt(letter.message_id, [], later=letter.envelope_to))
            continue
        refused = [refusal for refusal in receipt.refused if not refusal.is_temporary]
        left = [refusal.address for refusal in receipt.refused if refusal.is_temporary]
        handed_on.append(dataclasses.replace(receipt, refused=refused, later=left))
    return handed_on


def _lost(letter: Letter, lost: MailUnavailable | None) -> Receipt:
    text = str(lost) if lost else "the connection was lost before the answer"
    code = (lost.code if lost else None) or 421
    return Receipt(letter.message_id, [], _refused_all(letter, code, text))


def _unavailable(receipts: Sequence[Receipt | None]) -> MailUnavailable:
    known = [receipt for receipt in receipts if receipt]
    return MailUnavailable(_summary(known, known), code=known[0].refused[0].code, receipts=known)


def _summary(failed: Sequence[Receipt], of: Sequence[Receipt]) -> str:
    first = failed[0]
    text = f"Mail {first.message_id} was refused: " + "; ".join(map(str, first.refused[:5]))
    if len(first.refused) > 5:
        text += f" and {len(first.refused) - 5} more recipients"
    return text if len(of) == 1 else f"{len(failed)} of {len(of)} mails were refused. {text}"


def _report(app: Flask, receipt: Receipt) -> None:
    refused = [refusal for refusal in receipt.refused if not refusal.is_temporary]
    if refused:
        signals.emit(signals.mail_refused, app, message_id=receipt.message_id, refused=refused)
    if receipt.refused and (receipt.accepted or receipt.later):
        logger.warning(
            "Mail %s was refused for %d recipients: %s",
            receipt.message_id,
            len(receipt.refused),
            "; ".join(map(str, receipt.refused)),
        )


def _failure(app: Flask, error: smtplib.SMTPException | OSError) -> MailError:
    """Return the error of ours for what ended a connection or kept it from being made."""
    mail = mail_state(app)
    server = f"{mail.server}:{mail.port}"
    if isinstance(error, smtplib.SMTPResponseException):
        kind = MailUnavailable if 400 <= error.smtp_code < 500 else MailRefused
        return kind(f"{server}: {error.smtp_code} {readable(error.smtp_error)}", code=error.smtp_code)
    if isinstance(error, ssl.SSLCertVerificationError):
        return MailRefused(
            f"{server}: its certificate cannot be verified ({error.verify_message}). "
            "Name the authority that signed it in ASOK_MAIL_CA_FILE, and the server as in its certificate."
        )
    if isinstance(error, ssl.SSLError) and error.reason == "WRONG_VERSION_NUMBER":
        return MailRefused(f"{server}: no TLS there. MAIL_USE_SSL is for port 465, MAIL_USE_TLS (STARTTLS) for 587.")
    if isinstance(error, (smtplib.SMTPServerDisconnected, OSError)) and not _is_final(error):
        return MailUnavailable(f"{server}: {readable(str(error)) or type(error).__name__}")
    return MailRefused(f"{server}: {readable(str(error))}")


def _is_final(error: Exception) -> bool:
    # SMTPException is an OSError itself, so this one would pass for a lost connection.
    return isinstance(error, smtplib.SMTPException) and not isinstance(error, smtplib.SMTPServerDisconnected)


def backoff(attempt: int) -> float:
    """
    Return the seconds to wait before attempt 2, 3 and 4: about 2, 30 and 360, up to a fifth more.

    The first is for a connection that broke, the last is past the 300 s for which greylisting servers put off a sender
    they do not know.
    """
    seconds = (2.0, 30.0, 360.0)[min(attempt, 4) - 2]
    return seconds * (1 + 0.2 * random.random())
