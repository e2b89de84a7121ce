"""The settings of email, and Flask-Mail's own for an app without a `flask_mail.Mail`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ...settings import Setting
from ...validate import certificates, or_none, positive_seconds, text
from .domains import ascii_domain

if TYPE_CHECKING:
    from flask import Flask


def _hello(name: str, value: object) -> str:
    """Return a name that is valid in SMTP's EHLO command."""
    hello = text(name, value)
    if not hello.isascii() or not ascii_domain(hello):
        raise ValueError(
            f"{name} must be the full name of this machine in ASCII, such as mail.example.com, or its address in "
            f"brackets, [192.0.2.1], not {hello!r}."
        )
    return hello


SETTINGS = (
    Setting(
        "ASOK_MAIL_TIMEOUT", 10.0, positive_seconds,
        "Seconds that the SMTP server has to connect and to answer a command.",
    ),
    Setting(
        "ASOK_MAIL_CA_FILE", None, or_none(certificates),
        "Path of certificates (PEM) to trust for mail, besides the system's.",
    ),
    Setting(
        "ASOK_MAIL_HELLO", None, or_none(_hello),
        "The name that mail servers are told. None is this machine's full name, looked up once, or its address.",
    ),
)  # fmt: skip


class FlaskMailState:
    """
    Stands in for Flask-Mail's state at `app.extensions["mail"]`, in an app without a `flask_mail.Mail(app)`.

    The first email, or the first Message, imports Flask-Mail and reads its `MAIL_*` keys.
    """

    _state: Any = None

    def __init__(self, app: Flask) -> None:
        self._app = app

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        if self._state is None:
            import flask_mail

            app = self._app
            # Flask-Mail would read MAIL_DEBUG="false" as a number, and turn it on in debug mode; Server reads that key.
            self._state = flask_mail.Mail().init_mail({**app.config, "MAIL_DEBUG": 0}, False, app.testing)
        return getattr(self._state, name)


def set_up(app: Flask) -> None:
    """Make Flask-Mail's Message work on `app` from the start; a `flask_mail.Mail(app)`, earlier or later, wins."""
    app.extensions.setdefault("mail", FlaskMailState(app))
