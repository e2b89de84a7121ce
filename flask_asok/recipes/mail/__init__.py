"""Send mail in the background: `Mail.send(to="user@example.com", subject="Hello", body="World")`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from flask import Flask, current_app

from ...dispatch import background, task
from ...errors import MailUnavailable
from ...tasks import Task
from ..room import Recipe
from .cli import send_test_mail
from .receipt import Receipt, Refusal
from .settings import SETTINGS, set_up

if TYPE_CHECKING:
    from flask_mail import Message

    from .letter import Letter, Unsendable

__all__ = ["Mail", "Receipt", "Refusal", "check_address", "recorded", "send_mail", "send_mails"]

RECIPE = Recipe(
    name="mail",
    settings=SETTINGS,
    queues={"mail": 2},
    commands=(send_test_mail,),
    late_imports=("delivery",),
    set_up=set_up,
)

RETRIES = 3


def _backoff(attempt: int) -> float:
    from .delivery import backoff

    return backoff(attempt)


def _prepare_mail(*args: Any, **kwargs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    return (_letter(*args, **kwargs),), {}


def _prepare_mails(mails: Iterable[Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    return (_letters(mails),), {}


@task(queue="mail", retries=RETRIES, retry_on=MailUnavailable, backoff=_backoff, prepare=_prepare_mail)
def send_mail(
    to: Any,
    subject: Any = "",
    body: Any = None,
    *,
    html: Any = None,
    cc: Any = None,
    bcc: Any = None,
    sender: Any = None,
    reply_to: Any = None,
    attachments: Iterable[Any] = (),
    headers: Mapping[str, Any] | None = None,
    template: str | None = None,
    context: Mapping[str, Any] | None = None,
) -> Receipt:
    """
    Send one mail, now; `background(send_mail, to=..., ...)`, which `Mail.send` is, sends it in the background.

    - `to`, `cc`, `bcc`: `"user@example.com"`, `"Name <user@example.com>"`, `("Name", "user@example.com")`, or any
      other iterable of these: a tuple of two texts is always a name and an address. `to` may also be a whole
      Flask-Mail Message, and then nothing else be given.
    - `subject`, `body`, `html`: text, or what `str()` makes text of, such as a lazy translation.
    - `template` instead of `body` and `html`: "welcome" renders welcome.txt and welcome.html, or the one that exists,
      with the values of `context`.
    - `sender`: by default `MAIL_DEFAULT_SENDER`. `reply_to`: one address.
    - `attachments`: paths; `(filename, data)` or `(filename, data, content_type)` with str, bytes or an open file;
      open files that have a name, such as uploads; Flask-Mail Attachments.
    - `headers`: further ones. A Message-ID among them is used.

    All of this is rendered, read and checked in the caller's thread, when it calls `background`: ValueError for no
    recipient, no sender or a line break in `headers`; TypeError for what is not of these types; OSError for a file that
    cannot be read; TemplateNotFound. Text that a visitor may have typed never raises there: an invalid address, or a
    line break in an address, the subject or a file name, makes the task fail with MailRefused.

    Returns a Receipt. Raises MailUnavailable (no connection, connection lost, SMTP 4xx: the task is tried again 3
    times, with the same Message-ID, after about 2 s, 30 s and 6 minutes) or MailRefused (SMTP 5xx, TLS that cannot be
    verified, login refused, an invalid address). A mail that the server takes for some recipients only is
    sent: the Receipt names the others.
    """
    from .delivery import deliver

    letter = _letter(
        to, subject, body, html=html, cc=cc, bcc=bcc, sender=sender, reply_to=reply_to, attachments=attachments,
        headers=headers, template=template, context=context,
    )  # fmt: skip
    return deliver([letter], later=_send_later if to is letter else None)[0]


@task(queue="mail", retries=RETRIES, retry_on=MailUnavailable, backoff=_backoff, prepare=_prepare_mails)
def send_mails(mails: Iterable[Message | Letter | Mapping[str, Any]]) -> list[Receipt]:
    """
    Send several mails over one connection, now; `background(send_mails, [...])`, which `Mail.send_many` is, later.

    Each is a Flask-Mail Message or a dict of the arguments of `send_mail`; all are checked before any is sent. One that
    the server refuses, or that has an invalid address, holds up none of the others. Those that the server puts off go
    on in a further task, so that none that it accepted is sent twice.

    Returns their receipts in the same order. Raises MailRefused, with all the receipts, after all were tried, when some
    were refused; MailUnavailable when none could be sent.
    """
    from .delivery import deliver

    letters = _letters(mails)
    was_queued = isinstance(mails, list) and all(one is other for one, other in zip(mails, letters, strict=True))
    return deliver(letters, later=_send_later if was_queued else None)


class Mail:
    """
    The door for mail. Nothing to create: `Mail.send(...)` works wherever `background()` does.

    Flask-Mail sends, by its `MAIL_*` keys; an app that has a `flask_mail.Mail(app)` keeps it, others need none.
    Options go through `background`: `background.using(when="commit")(send_mail, to=..., subject=..., body=...)`.
    """

    @staticmethod
    def send(
        to: Any,
        subject: Any = "",
        body: Any = None,
        *,
        html: Any = None,
        cc: Any = None,
        bcc: Any = None,
        sender: Any = None,
        reply_to: Any = None,
        attachments: Iterable[Any] = (),
        headers: Mapping[str, Any] | None = None,
        template: str | None = None,
        context: Mapping[str, Any] | None = None,
    ) -> Task[Receipt]:
        """Send a mail in the background and return its Task. Arguments and errors are those of `send_mail`."""
        return background(
            send_mail, to, subject, body, html=html, cc=cc, bcc=bcc, sender=sender, reply_to=reply_to,
            attachments=attachments, headers=headers, template=template, context=context,
        )  # fmt: skip

    @staticmethod
    def send_message(message: Message) -> Task[Receipt]:
        """Send a Flask-Mail Message, as it is now, in the background; later changes to it change nothing."""
        return background(send_mail, message)

    @staticmethod
    def send_many(mails: Iterable[Message | Mapping[str, Any]]) -> Task[list[Receipt]]:
        """Send several mails in one task, over one connection. Arguments and errors are those of `send_mails`."""
        return background(send_mails, mails)


@contextmanager
def recorded(app: Flask) -> Iterator[list[Message]]:
    """
    Collect the mails that `app` sends meanwhile, from any thread, as Flask-Mail Messages.

    What Flask-Mail's `record_messages()` does, for one app and without a `flask_mail.Mail`. It does not wait: join the
    tasks before you leave.
    """
    from flask_mail import email_dispatched

    messages: list[Message] = []

    def record(sender: Flask, message: Message) -> None:
        messages.append(message)

    with email_dispatched.connected_to(record, sender=app):
        yield messages


def check_address(text: str) -> str:
    """
    Return the bare mail address in `text`, its domain in ASCII, or raise ValueError with a reason.

    For a page that wants to tell its visitor about a mistyped address, which would make the task of a mail fail. Takes
    `"user@example.com"` and `"Name <user@example.com>"`; does not find out whether the address exists.
    """
    from .addresses import one_address, some_addresses
    from .checks import shown

    if not isinstance(text, str):
        raise TypeError(f"check_address() takes a str, not {type(text).__name__}.")
    problems: list[str] = []
    try:
        found = one_address("address", text)
        some_addresses("address", text, problems)
    except ValueError as error:
        raise ValueError(str(error).removeprefix("address: ")) from None
    if problems:
        raise ValueError(f'{shown(text)} may be several addresses. Quote a name: "Doe, John" <...>.')
    return found.spec


def _letter(to: Any, *args: Any, **kwargs: Any) -> Letter | Unsendable:
    """Return the arguments of `send_mail` as a Letter; one that is a Letter already as it is."""
    from flask_mail import Message

    from .letter import Letter, Unsendable, letter_of, letter_of_message

    if isinstance(to, (Letter, Unsendable)):
        return to
    if isinstance(to, Message):
        if any(args) or any(kwargs.values()):
            raise TypeError("A Message says all of a mail: pass nothing else.")
        return letter_of_message(to)
    app: Flask = current_app._get_current_object()  # type: ignore[attr-defined]
    return letter_of(to, *args, **kwargs, default_sender=app.extensions["mail"].default_sender)


def _letters(mails: Iterable[Any]) -> list[Letter | Unsendable]:
    return [_letter(**mail) if isinstance(mail, Mapping) else _letter_in_batch(mail) for mail in mails]


def _letter_in_batch(mail: Any) -> Letter | Unsendable:
    if isinstance(mail, (str, tuple)):
        raise TypeError("Several mails are a list, each a Message or a dict of the arguments of send_mail().")
    return _letter(mail)


def _send_later(letters: list[Letter]) -> None:
    # A task of its own, with retries of its own: something was accepted, so this is not the end of the line.
    background.using(delay=_backoff(2))(send_mails, letters)
