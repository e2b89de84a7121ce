"""The URL of a webhook, and that of a proxy: checked, and split into what goes on the wire."""

from __future__ import annotations

import base64
import contextlib
import re
from dataclasses import dataclass, field
from ipaddress import IPv6Address
from urllib.parse import SplitResult, quote, unquote, urlsplit

LONGEST_URL = 8192
_LONGEST_HOST = 254
"""Characters of a name in DNS, with a dot at its end."""

_FORBIDDEN = re.compile(r"[\x00-\x20\x7f-\x9f\\]")
_HOST = re.compile(r"[a-z0-9_](?:[a-z0-9_.\-]*[a-z0-9_.])?")
_TWO_DOMAINS = re.compile("[\u00df\u1e9e\u03c2\u200c\u200d]")
_AS_THEY_ARE = "/%:;=@!$&'()*+,~?-._[]"


@dataclass(frozen=True, slots=True)
class Url:
    """A checked URL. Its path and query are often a credential: `str()` and `repr()` show only the rest."""

    scheme: str
    host: str
    """In lower case and ASCII; an IPv6 address without its brackets."""
    port: int
    target: str = field(repr=False)
    """Path and query, as they go on the wire."""

    @property
    def authority(self) -> str:
        """Host and port as in the `Host` header."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == DEFAULT_PORTS[self.scheme] else f"{host}:{self.port}"

    def __str__(self) -> str:
        return f"{self.scheme}://{self.authority}"


DEFAULT_PORTS = {"http": 80, "https": 443}


def parse_url(url: str) -> Url:
    """
    Return the checked `url`; TypeError or ValueError, which quote no part of it, if it is invalid.

    Accepts only http and https, with a host, without user name and password. Refuses control characters, spaces and
    backslashes before it parses anything: parsers disagree about them.
    """
    if not isinstance(url, str):
        raise TypeError(f"The URL of a webhook must be a str, not {type(url).__name__}.")
    if len(url) > LONGEST_URL:
        raise ValueError(f"The URL of the webhook has more than {LONGEST_URL} characters.")
    if _FORBIDDEN.search(url):
        raise ValueError("The URL of the webhook holds a space, a backslash or a control character.")
    parts, port = _split(url)
    if parts.scheme not in DEFAULT_PORTS:
        raise ValueError("The URL of the webhook must begin with http:// or https://.")
    if "@" in parts.netloc:
        raise ValueError(
            "The URL of the webhook holds a user name or password. Pass headers={'Authorization': ...} instead."
        )
    if port == 0:
        raise ValueError("The URL of the webhook has port 0.")
    target = quote(parts.path or "/", _AS_THEY_ARE) + ("?" + quote(parts.query, _AS_THEY_ARE) if parts.query else "")
    return Url(parts.scheme, _host(parts), port or DEFAULT_PORTS[parts.scheme], target)


def _split(url: str) -> tuple[SplitResult, int | None]:
    with contextlib.suppress(ValueError):
        # A lone surrogate could not be quoted.
        url.encode()
        parts = urlsplit(url)
        return parts, parts.port
    # Outside the block, so that it does not carry the error of urllib, which quotes the URL.
    raise ValueError("The URL of the webhook is malformed.")


def _host(parts: SplitResult) -> str:
    host = parts.hostname or ""
    # Some versions of Python take [v1.x] for a name, and [::1]x for an address.
    if "[" in parts.netloc:
        name = _address(host) if re.fullmatch(r"\[[^]]*](:[0-9]*)?", parts.netloc) else ""
    else:
        name = ascii_name(host)
    if not name:
        raise ValueError(
            "The URL of the webhook has no host, or one that is malformed. A name with ß or ς needs its xn-- form."
        )
    return name


def _address(host: str) -> str:
    try:
        address = IPv6Address(host)
    except ValueError:
        return ""
    return str(address) if address.scope_id is None else ""


def ascii_name(host: str) -> str:
    """Return the name of a host in lower case and ASCII, as it is resolved; "" if it is invalid."""
    # Python's codec takes a tenth of a second for 8 kB that a receiver may redirect to.
    if len(host) > _LONGEST_HOST:
        return ""
    # IDNA 2003 and 2008 make two different domains of it, which may have different owners.
    if _TWO_DOMAINS.search(host):
        return ""
    try:
        # Python's codec, as getaddrinfo uses it: it folds full-width letters, and ① into 1.
        name = host.encode("idna").decode().lower()
    except UnicodeError:
        return ""
    return name if _HOST.fullmatch(name) else ""


@dataclass(frozen=True, slots=True)
class Proxy:
    """Where `ASOK_WEBHOOK_PROXY` points to, and the headers that log in there."""

    url: Url
    headers: dict[str, str] = field(repr=False)


def parse_proxy(text: str) -> Proxy:
    """Read `http://user:password@host:port`; ValueError, which does not quote it, for anything else."""
    scheme, _, rest = text.partition("://")
    credentials, at, host = rest.rpartition("@")
    if scheme != "http":
        raise ValueError("ASOK_WEBHOOK_PROXY must be http://host:port or http://user:password@host:port.")
    try:
        url = parse_url(f"http://{host}")
    except ValueError as error:
        raise ValueError(f"ASOK_WEBHOOK_PROXY: {error}") from None
    basic = base64.b64encode(unquote(credentials).encode()).decode()
    return Proxy(url, {"Proxy-Authorization": f"Basic {basic}"} if at else {})
