"""What a receiver answered, for people to read: an excerpt for the application, a few words for the log."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterable

from .markup import without_markup
from .mask import Mask
from .url import Url
from .webhook import DEFAULT_HEADERS, Webhook

LONGEST_EXCERPT = 1000
LONGEST_WORDS = 120
_LOOKED_AT = 16 * 1024

_SCHEMES = frozenset({"basic", "bearer", "digest", "token"})
_CREDENTIALS = re.compile(
    r"(whsec_[A-Za-z0-9+/=_-]+|(?<=\bbearer )[^\s\"'<>,]+|(?<=\bbasic )[^\s\"'<>,]+)", re.IGNORECASE
)
_URL_PATH = re.compile(r"(?<=://)[^\s/\"'<>]+/([^\s\"'<>]+)")


def excerpt(body: bytes) -> str:
    """Return the first characters of an answer, without those that control a terminal."""
    text = body[: 4 * LONGEST_EXCERPT].decode(errors="replace")[:LONGEST_EXCERPT]
    return "".join(character for character in text if character.isprintable() or character in "\n\t")


def first_words(webhook: Webhook, url: Url, body: bytes) -> str:
    """
    Return the beginning of an answer on one line, without markup.

    A receiver may echo what it was sent, in whatever way of writing. So path, headers and payload of `webhook` are
    masked, and so are the paths of other URLs and their credentials.
    """
    mask = Mask(body[:_LOOKED_AT].decode(errors="replace"))
    payload = webhook.body.decode(errors="replace")
    mask.hide([*_credentials(webhook, url), payload[:_LOOKED_AT]])
    mask.hide_runs("\0".join(_texts(payload)))
    mask.hide_matches(_CREDENTIALS)
    mask.hide_matches(_URL_PATH)
    text = html.unescape(without_markup(str(mask)))
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


def _texts(payload: str) -> Iterable[str]:
    """Return the texts and numbers of a payload in JSON, its keys included; any other payload as it is."""
    try:
        # Numbers as they are written, and all values of a key that is there twice.
        left = [json.loads(payload, object_pairs_hook=list, parse_int=str, parse_float=str)]
    except (ValueError, RecursionError):
        return [payload]
    texts: list[str] = []
    while left:
        value = left.pop()
        if isinstance(value, str):
            texts.append(value)
        elif isinstance(value, (list, tuple)):
            left += value
    return texts
