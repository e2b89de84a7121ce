"""The SMTP server that the `MAIL_*` settings name."""

from __future__ import annotations

import contextlib
import ipaddress
from dataclasses import dataclass, field
from typing import Any

from flask import Flask

from .domains import ascii_domain
from .errors import MailRefused

_ON = frozenset({"1", "true", "t", "yes", "y", "on"})
_OFF = frozenset({"0", "false", "f", "no", "n", "off", "none", ""})


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """Where and how email is sent."""

    host: str
    port: int
    use_ssl: bool
    use_tls: bool
    username: str
    password: str = field(repr=False)
    max_emails: int
    debug: int

    @classmethod
    def of(cls, app: Flask) -> Server:
        """Read the settings of `app`. Raises MailRefused, which names the key, for an invalid one."""
        mail = app.extensions["mail"]
        use_ssl, use_tls = is_on("MAIL_USE_SSL", mail.use_ssl), is_on("MAIL_USE_TLS", mail.use_tls)
        if use_ssl and use_tls:
            raise MailRefused(
                "MAIL_USE_SSL and MAIL_USE_TLS are both set. Set MAIL_USE_SSL for TLS from the start (port 465) or "
                "MAIL_USE_TLS for STARTTLS (port 587)."
            )
        port = _number("MAIL_PORT", mail.port) or (465 if use_ssl else 25)
        if port > 65535:
            raise MailRefused(f"MAIL_PORT is {port}. Ports end at 65535.")
        return cls(
            host=_host(mail.server),
            port=port,
            use_ssl=use_ssl,
            use_tls=use_tls,
            username=str(mail.username or ""),
            password=str(mail.password or ""),
            max_emails=_number("MAIL_MAX_EMAILS", mail.max_emails),
            # Flask-Mail's own value is on in debug mode: a worker that reads FLASK_DEBUG would log every email.
            debug=_debug_level(app.config.get("MAIL_DEBUG")),
        )

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


def is_on(key: str, value: Any) -> bool:
    """Return a switch, which may be text from the environment. Raises MailRefused for other text."""
    if not isinstance(value, str):
        return bool(value)
    word = value.strip().lower()
    if word not in _ON | _OFF:
        raise MailRefused(f"{key} is {value!r}. Set it to True or False.")
    return word in _ON


def _host(value: Any) -> str:
    host = value.strip() if isinstance(value, str) else ""
    with contextlib.suppress(ValueError):
        ipaddress.ip_address(host)
        return host
    # A full stop at the end keeps the domains that the resolver knows from being tried.
    name = ascii_domain(host.removesuffix("."))
    if not name and not host.isascii():
        raise MailRefused(f"MAIL_SERVER is {value!r}. Write the name in its xn-- form.")
    if not name or name.startswith("["):
        raise MailRefused(
            f"MAIL_SERVER is {value!r}. Set it to the name of your mail server, such as smtp.example.com, or to its "
            "address, without brackets; the port is MAIL_PORT."
        )
    return name + "." if host.endswith(".") else name


def _number(key: str, value: Any) -> int:
    """Return a number, which may be text from the environment; 0 if it is not set."""
    text = "" if value is None else str(value).strip()
    if text and not (text.isascii() and text.isdigit()):
        raise MailRefused(f"{key} is {value!r}. Set it to a whole number.")
    return int(text or 0)


def _debug_level(value: Any) -> int:
    text = str(value).strip()
    # Level 2 adds the time to each line.
    return int(text) if text.isascii() and text.isdigit() else int(is_on("MAIL_DEBUG", value))
