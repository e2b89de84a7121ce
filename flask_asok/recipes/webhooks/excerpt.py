"""What a receiver answered, for people to read: an excerpt for the application, a few words for the log."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterable
from urllib.parse import unquote, unquote_plus

from .markup import without_markup
from .mask import MASK, Mask
from .url import Url
from .webhook import DEFAULT_HEADERS, Webhook

LONGEST_EXCERPT = 1000
LONGEST_WORDS = 120
SHORTEST_SECRET = 4
"""Characters of a text that is masked: shorter ones reveal nothing, and occur everywhere."""
SHORTEST_VALUE = 8
"""Characters of a text in the payload that is masked."""
_LOOKED_AT = 16 * 1024

_SCHEMES = frozenset({"basic", "bearer", "digest", "token"})
_CREDENTIALS = re.compile(
    r"whsec_[A-Za-z0-9+/=_-]+|(?<=\bbearer )[^\s\"'<>,]+|(?<=\bbasic )[^\s\"'<>,]+", re.IGNORECASE
)
_URL_PATH = re.compile(r"(?<=://)([^\s/\"'<>]+)/[^\s\"'<>]+")
_STRING_VALUE = re.compile(r'[:\[,]\s*"((?:[^"\\]|\\.)*)"')


def excerpt(body: bytes) -> str:
    """Return the first characters of an answer, without those that control a terminal."""
    text = body[: 4 * LONGEST_EXCERPT].decode(errors="replace")[:LONGEST_EXCERPT]
    return "".join(character for character in text if character.isprintable() or character in "\n\t")


def first_words(webhook: Webhook, url: Url, body: bytes) -> str:
    """
    Return the beginning of an answer on one line, without markup.

    A receiver may echo what it was sent. So path, headers and payload of `webhook` are masked, and so are the paths of
    other URLs and their credentials.
    """
    mask = Mask(body[:_LOOKED_AT].decode(errors="replace"))
    mask.hide(_written(_credentials(webhook, url)) | _texts(webhook))
    text = _URL_PATH.sub(rf"\1/{MASK}", _CREDENTIALS.sub(MASK, str(mask)))
    text = html.unescape(without_markup(text))
    text = "".join(character if character.isprintable() else " " for character in text)
    words = " ".join(text.split())
    return words if len(words) <= LONGEST_WORDS else words[:LONGEST_WORDS].rstrip() + " ..."


def _credentials(webhook: Webhook, url: Url) -> Iterable[str]:
    path, _, query = url.target.partition("?")
    yield from (url.target, path, query, *path.split("/"), *re.split("[&=;]", query))
    _, _, given = webhook.url.partition("://")
    yield from re.split("[/?#&=;]", given.partition("/")[2])
    for name, value in webhook.headers.items():
        if DEFAULT_HEADERS.get(name) != value:
            yield from (value, *(part for part in re.split("[ ,;=]", value) if part.lower() not in _SCHEMES))


def _texts(webhook: Webhook) -> set[str]:
    payload = webhook.body[:_LOOKED_AT].decode(errors="replace")
    return {text for text in (payload, *_STRING_VALUE.findall(payload)) if len(text) >= SHORTEST_VALUE}


def _written(secrets: Iterable[str]) -> set[str]:
    """Return the forms in which an answer may contain these secrets."""
    found: set[str] = set()
    for secret in secrets:
        for plain in {secret, unquote(secret), unquote_plus(secret)}:
            quoted = json.dumps(plain)[1:-1]
            found |= {plain, html.escape(plain), quoted, quoted.replace("/", "\\/")}
    return {text for text in found if len(text) >= SHORTEST_SECRET}
