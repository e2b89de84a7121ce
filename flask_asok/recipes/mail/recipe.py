"""Send email, now or in the background: START HERE."""

from __future__ import annotations

import functools
import inspect
import random
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from ...attempt import running_task
from ...dispatch import background, in_background, task
from ...options import FunctionValues
from ...tasks import Task
from ...validate import single_values
from .errors import MailUnavailable
from .receipt import Receipt

if TYPE_CHECKING:
    from flask_mail import Message

    from .batch import Later
    from .outgoing import Composed, OutgoingMail

    Address = str | tuple[str, str]
    """`"user@example.com"`, `"Name <user@example.com>"`, or `("Name", "user@example.com")`."""

BACKOFF = (2.0, 30.0, 360.0)
"""
Seconds before attempts 2 to 4. The first is for a broken connection; the last exceeds the 300 s for which greylisting
servers put off an unknown sender.
"""
DURABLE_BACKOFF = (*BACKOFF, 1_800.0, 3_600.0, 10_800.0)
"""The same for attempts 2 to 7 of a task that survives its process: about five hours in all."""


def backoff(attempt: int) -> float:
    """Return the seconds before `attempt`, up to a fifth more so that tasks which failed together do not return so."""
    return _wait(BACKOFF, attempt)


def durable_backoff(attempt: int) -> float:
    """Return the same for a durable task. Messages name this function."""
    return _wait(DURABLE_BACKOFF, attempt)


def _wait(schedule: tuple[float, ...], attempt: int) -> float:
    return schedule[min(attempt - 2, len(schedule) - 1)] * (1 + 0.2 * random.random())


OPTIONS: Final[FunctionValues] = {
    "queue": "mail",
    "retries": len(BACKOFF),
    "retry_on": MailUnavailable,
    "backoff": backoff,
    "if_durable": {"retries": len(DURABLE_BACKOFF), "backoff": durable_backoff},
}


def compose(*args: Any, **kwargs: Any) -> Composed:
    """Return what the arguments of `send_mail` describe; raise for a mistake of the caller."""
    from flask_mail import Message

    from .draft import composed, draft_of, draft_of_message

    bound = _signature().bind(*args, **kwargs)
    message = bound.arguments["to"]
    if isinstance(message, Message):
        if any(value for name, value in bound.arguments.items() if name != "to"):
            raise TypeError("A Message says all of an email: pass nothing else.")
        return composed(draft_of_message(message))
    bound.apply_defaults()
    return composed(draft_of(**bound.arguments))


@functools.cache
def _signature() -> inspect.Signature:
    """Return that of `send_mail`, the one place that lists the parameters and their defaults."""
    return inspect.signature(send_mail)


def compose_all(mails: Iterable[Message | Mapping[str, Any]]) -> list[Composed]:
    """Do the same for each of several."""
    return list(map(_compose_one, mails))


def _compose_one(mail: Any) -> Composed:
    if isinstance(mail, Mapping):
        single_values("The arguments of an email", mail, takes_lists=False)
        return compose(**mail)
    if isinstance(mail, (str, tuple)):
        raise TypeError("Several emails are a list, each a Message or a dict of the arguments of send_mail().")
    return compose(mail)


def deliver_mail(mail: Composed) -> Receipt:
    """Send what `send_mail` has composed: the task of `background(send_mail, ...)`."""
    return _deliver([mail], later=_send_later)[0]


def deliver_mails(mails: Sequence[Composed]) -> list[Receipt]:
    """Send what `send_mails` has composed: the task of `background(send_mails, ...)`."""
    return _deliver(mails, later=_send_later)


def _deliver(mails: Sequence[Composed], later: Later | None = None) -> list[Receipt]:
    from .batch import deliver

    return deliver(mails, later)


def _send_later(mails: list[OutgoingMail]) -> None:
    # A task of its own, with retries of its own: the server has answered, so these attempts start again at one.
    attempt = running_task()
    durable = None if attempt is None else attempt.options.durable
    background.using(delay=backoff(2), name="send_mails", durable=durable)(deliver_mails, mails)


@task(**OPTIONS, prepare=compose, run=deliver_mail)
def send_mail(
    to: Address | Iterable[Address] | Message,
    subject: Any = "",
    body: Any = None,
    *,
    html: Any = None,
    cc: Address | Iterable[Address] | None = None,
    bcc: Address | Iterable[Address] | None = None,
    sender: Address | None = None,
    reply_to: Address | None = None,
    attachments: Iterable[Any] = (),
    headers: Mapping[str, Any] | None = None,
    template: str | None = None,
    context: Mapping[str, Any] | None = None,
) -> Receipt:
    """
    Send one email, now; `background(send_mail, to=..., ...)`, which `Mail.send` is, sends it in the background.

    - `to`, `cc`, `bcc`: `"user@example.com"`, `"Name <user@example.com>"`, `("Name", "user@example.com")`, or any
      other iterable of these: a tuple of two texts is always a name and an address. `to` may also be a whole
      Flask-Mail Message, which allows no further argument.
    - `subject`, `body`, `html`: text, or an object that `str()` turns into text, such as a lazy translation.
    - `template` instead of `body` and `html`: "welcome" renders welcome.txt and welcome.html, or the one that exists,
      with the values of `context`.
    - `sender`: by default `MAIL_DEFAULT_SENDER`. `reply_to`: one address.
    - `attachments`: paths; `(filename, data)` or `(filename, data, content_type)` with str, bytes or an open file;
      open files that have a name; uploads, which may have been saved already; Flask-Mail Attachments.
    - `headers`: further headers. A Message-ID among them is used.

    `background` renders, reads and checks all of this in the caller's thread. It raises ValueError for no recipient, no
    sender or a line break in `headers`; TypeError for an argument of another type; OSError for a file that cannot be
    read; TemplateNotFound. Text that a visitor may have typed never raises there: an invalid address, a line break in
    an address, the subject or a file name, or a text that cannot be encoded, makes the task fail with MailRefused.

    Returns a Receipt. Raises MailUnavailable (no connection, connection lost, SMTP 4xx: the task is tried again 3
    times, with the same Message-ID, after about 2 s, 30 s and 6 minutes; a durable one 6 times
    within about five hours) or MailRefused (SMTP 5xx, TLS that cannot be
    verified, login refused, an invalid address). If the server accepts an email for some recipients only, it is sent:
    the Receipt names the others.
    """
    # All of its arguments: nothing stands before this line.
    return _deliver([compose(**locals())])[0]


@task(**OPTIONS, prepare=compose_all, run=deliver_mails)
def send_mails(mails: Iterable[Message | Mapping[str, Any]]) -> list[Receipt]:
    """
    Send several emails over one connection, now; `background(send_mails, [...])`, which `Mail.send_many` is, later.

    Each is a Flask-Mail Message or a dict of the arguments of `send_mail`; all are checked before the first is sent.
    One that the server refuses, or that has an invalid address, delays none of the others. A further task sends those
    that the server put off, so no email that it accepted is sent twice.

    Returns their receipts in the same order. Raises MailRefused, with all the receipts, after all were tried, when some
    were refused; MailUnavailable when none could be sent.
    """
    return _deliver(compose_all(mails))


class Mail:
    """
    Email in one word. There is nothing to create: `Mail.send(...)` works wherever `background()` does.

    Flask-Mail sends, by its `MAIL_*` keys; an app that has a `flask_mail.Mail(app)` keeps it, others need none.
    Options go through `background`: `background.using(when="commit")(send_mail, to=..., subject=..., body=...)`.
    """

    send: Final = staticmethod(in_background(send_mail))

    @staticmethod
    def send_message(message: Message) -> Task[Receipt]:
        """Send a Flask-Mail Message, as it is now, in the background; later changes to it change nothing."""
        return background(send_mail, message)

    send_many: Final = staticmethod(in_background(send_mails))


def check_address(text: str) -> str:
    """
    Return the bare email address in `text`, its domain in ASCII, or raise ValueError with a reason.

    For a page that tells its visitor about a mistyped address, which would make the task of an email fail. Takes
    `"user@example.com"` and `"Name <user@example.com>"`; does not find out whether the address exists.
    """
    from .addresses import one_address, some_addresses
    from .safe_text import shown

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
