"""The settings of mail: their defaults, what they must look like, and Flask-Mail's own where the app has no Mail."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from .domains import ascii_domain

if TYPE_CHECKING:
    from flask import Flask

DEFAULTS: dict[str, Any] = {
    "ASOK_MAIL_TIMEOUT": 10.0,
    "ASOK_MAIL_CA_FILE": None,
    "ASOK_MAIL_HELLO": None,
}


def check(config: Mapping[str, Any]) -> None:
    """Raise TypeError or ValueError for a name that is invalid in SMTP's EHLO."""
    name = config["ASOK_MAIL_HELLO"]
    if name is None:
        return
    if not isinstance(name, str):
        raise TypeError(f"ASOK_MAIL_HELLO must be a str or None, not {type(name).__name__}.")
    if not name.isascii() or not ascii_domain(name) or len(name) > 255:
        raise ValueError(
            f"ASOK_MAIL_HELLO must be the full name of this machine in ASCII, such as mail.example.com, or its address "
            f"in brackets, [192.0.2.1], not {name!r}."
        )


class FlaskMailState:
    """
    What Flask-Mail keeps at `app.extensions["mail"]`, for an app that has no `flask_mail.Mail(app)`.

    The first mail, or the first Message, imports Flask-Mail and reads its `MAIL_*` keys.
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
            # It would take MAIL_DEBUG="false" for a number, and turn it on in debug mode; a Server reads it.
            self._state = flask_mail.Mail().init_mail({**app.config, "MAIL_DEBUG": 0}, False, app.testing)
        return getattr(self._state, name)


def set_up(app: Flask) -> None:
    """Let Flask-Mail's Message work on `app` from the start; a `flask_mail.Mail(app)`, before or later, counts."""
    app.extensions.setdefault("mail", FlaskMailState(app))
