"""Which requests the dashboard lets in, and which of them may act."""

from __future__ import annotations

import ipaddress
import logging
from collections.abc import Callable, Mapping
from typing import Any, Literal, cast
from urllib.parse import urlsplit

from flask import Flask, current_app, request
from flask.blueprints import BlueprintSetupState
from werkzeug.exceptions import HTTPException

from ..logs import log
from ..tokens import need_secret_key

Access = Callable[[], object]

Level = Literal["", "read", "write"]
"""What a visitor may do; "" is nothing."""

WHAT = "The dashboard, whose visitor may write,"

FORWARDED = ("HTTP_FORWARDED", "HTTP_X_REAL_IP", "HTTP_VIA")
"""What proxies and tunnels add, beside `X-Forwarded-...`."""

CLOSED = (
    "asok.dashboard() needs access=, a function that returns False, 'read' or 'write' for the current request. "
    "Without it the dashboard is for debug mode: start the app with `flask run --debug`, or set FLASK_DEBUG=1; "
    "app.run(debug=True) comes too late."
)


class Gate:
    """Lets a request in by what `access` says; without that only one of this very machine, in debug mode."""

    def __init__(self, access: Access | None) -> None:
        if access is not None and not callable(access):
            raise TypeError(f"access must be a function, not {type(access).__name__}.")
        self._access = access

    def check_setup(self, setup: BlueprintSetupState) -> None:
        """Raise ValueError where nobody says who may come in, NotConfigured where its forms cannot be signed."""
        app = cast(Flask, setup.app)
        if self._access is None:
            if not app.debug:
                raise ValueError(CLOSED)
            need_secret_key(app, WHAT)

    def level(self) -> Level:
        """Return what the visitor of this request may do."""
        level: Level = self._asked() if self._access is not None else _of_this_machine()
        if level == "write":
            need_secret_key(current_app, WHAT)
        return level

    def _asked(self) -> Level:
        try:
            said = current_app.ensure_sync(cast(Access, self._access))()
        except HTTPException:
            # `abort(403)` would tell that there is something to see.
            return ""
        if said is True or said == "write":
            return "write"
        if said == "read":
            return "read"
        if said is not False and said is not None:
            log(
                logging.WARNING,
                'access of the dashboard returned %s, which lets nobody in: return False, "read", "write" or True.',
                type(said).__name__,
            )
        return ""


def is_same_origin() -> bool:
    """Return True if a page of this very site has sent the request: a browser says so."""
    site = request.headers.get("Sec-Fetch-Site")
    if site is not None:
        return site == "same-origin"
    # Over plain http a browser says where from, and nothing else. Without any of it, it is no browser with our page.
    origin = urlsplit(request.headers.get("Origin", ""))
    return origin.scheme in ("http", "https") and origin.netloc.lower() == request.host.lower()


def _of_this_machine() -> Level:
    return "write" if current_app.debug and _is_local(request.environ) else ""


def _is_local(environ: Mapping[str, Any]) -> bool:
    """Return True if the request has come from a program of this machine, under a name of it, and through no proxy."""
    if any(name.startswith("HTTP_X_FORWARDED") or name in FORWARDED for name in environ):
        return False
    if environ.get("SERVER_PROTOCOL") == "HTTP/1.0":
        # No browser of today: a proxy that adds no header, as older nginx by default.
        return False
    if not all(_is_own_name(_host_of(environ[name])) for name in ("HTTP_ORIGIN", "HTTP_REFERER") if name in environ):
        return False
    # What ProxyFix has overwritten: anybody can claim to be forwarded from here.
    found = {**environ, **environ.get("werkzeug.proxy_fix.orig", {})}
    # Under another name it may be a page of another site, whose name leads here.
    return _is_loopback(found.get("REMOTE_ADDR")) and _is_own_name(found.get("HTTP_HOST"))


def _host_of(address: str) -> str:
    try:
        return urlsplit(address).netloc
    except ValueError:
        return ""


def _is_own_name(host: str | None) -> bool:
    try:
        name = urlsplit(f"//{host or ''}").hostname or ""
    except ValueError:
        return False
    return name == "localhost" or name.endswith(".localhost") or _is_loopback(name)


def _is_loopback(address: str | None) -> bool:
    try:
        found = ipaddress.ip_address(address or "")
    except ValueError:
        return False
    mapped = getattr(found, "ipv4_mapped", None)
    return bool((mapped or found).is_loopback)
