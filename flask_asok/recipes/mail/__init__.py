"""Send email in the background: `Mail.send(to="user@example.com", subject="Hello", body="World")`."""

from ..room import Recipe
from .cli import send_test_mail
from .errors import MailError, MailRefused, MailUnavailable
from .outbox import recorded
from .receipt import Receipt, Refusal
from .recipe import Mail, check_address, send_mail, send_mails
from .settings import SETTINGS, set_up
from .signals import mail_refused

__all__ = [
    "Mail",
    "MailError",
    "MailRefused",
    "MailUnavailable",
    "Receipt",
    "Refusal",
    "check_address",
    "mail_refused",
    "recorded",
    "send_mail",
    "send_mails",
]

RECIPE = Recipe(
    name="mail",
    settings=SETTINGS,
    queues={"mail": 2},
    commands=(send_test_mail,),
    late_imports=("batch", "draft", "templates"),
    set_up=set_up,
)
