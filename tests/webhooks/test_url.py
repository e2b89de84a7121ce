"""Which URLs are accepted."""

from __future__ import annotations

from typing import Any

import pytest
from flask import Flask
from hypothesis import given
from hypothesis import strategies as st

from flask_asok import background, send_webhook
from flask_asok.recipes.webhooks.url import parse_url

BAD_URLS = [
    "", "localhost", "//example.com/", "ftp://example.com/", "file:///etc/passwd", "javascript:1", "HTTP:/x", "http://",
    "http:///x", "https://user@example.com/", "https://user:pw@example.com/", "https://@example.com/",
    "http://127.0.0.1:80\\@example.com/", "http://exa mple.com/", "http://example.com/\n", "\thttp://example.com/",
    "http://exam\tple.com/", "http://example.com/\x00", "http://example.com:0/", "http://example.com:99999/",
    "http://example.com:x/", "http://[::1", "http://[1:2]/", "http://[::1]x/", "http://[fe80::1%25eth0]/", "http://[v1.x]/",
    "http://%31%32%37.0.0.1/",
    "http://a..b/", "http://-a/", "http://example.com/\x85", "http://exa\u2028mple.com/", "http://a\u2100b/",
    "http://example.com/\udc80", "http://stra\u00dfe.de/", "http://FA\u1e9e.de/",
    "http://\u03bb\u03cc\u03b3\u03bf\u03c2.gr/", "http://a\u200db.de/",
    "http://" + "a" * 64 + ".com/", "http://" + "a." * 127 + "a/", "http://example.com/" + "x" * 9000,
]  # fmt: skip


def test_bad_url(app: Flask) -> None:
    """A URL that parsers could read in two ways, or that is none, is refused at the call and not quoted."""
    for url in BAD_URLS:
        try:
            background(send_webhook, url, {})
        except ValueError as error:
            text = str(error)
        else:
            pytest.fail(f"{url!r} was accepted")

        assert "URL of the webhook" in text
        assert len(url) < 5 or url not in text
        assert "pw" not in text


@pytest.mark.parametrize("url", [None, b"http://example.com/", 7])
def test_no_str(app: Flask, url: Any) -> None:
    """A URL is a str."""
    with pytest.raises(TypeError, match="URL"):
        background(send_webhook, url, {})


@pytest.mark.parametrize(
    ("url", "shown", "target"),
    [
        ("https://hooks.slack.com/services/T/B/x", "https://hooks.slack.com", "/services/T/B/x"),
        ("HTTPS://Example.COM", "https://example.com", "/"),
        ("https://example.com:443/a?b=c#d", "https://example.com", "/a?b=c"),
        ("http://example.com:8080?x", "http://example.com:8080", "/?x"),
        ("http://[2001:DB8::1]:81/", "http://[2001:db8::1]:81", "/"),
        ("http://bücher.example/ü", "http://xn--bcher-kva.example", "/%C3%BC"),
        ("http://①②⑦.⓪.⓪.①/", "http://127.0.0.1", "/"),
        ("http://my_host/a%20b;c=d@e", "http://my_host", "/a%20b;c=d@e"),
        ("http://example.com./\"<>`{|}'", "http://example.com.", "/%22%3C%3E%60%7B%7C%7D'"),
    ],
)
def test_good_url(url: str, shown: str, target: str) -> None:
    """Of a URL only scheme, host and port are ever shown; path and query go on the wire."""
    parsed = parse_url(url)

    assert str(parsed) == shown
    assert parsed.target == target
    assert target == "/" or target not in repr(parsed)


@given(st.text() | st.from_regex(r"https?://[ -~]*", fullmatch=True))
def test_any_url(url: str) -> None:
    """Whatever passes names a host in plain letters, and a target in printable ASCII; the rest is a ValueError."""
    try:
        parsed = parse_url(url)
    except ValueError:
        return
    assert parsed.scheme in ("http", "https")
    assert parsed.host.isascii()
    assert not set(parsed.host) & set("@/\\? #%")
    assert all("!" <= character <= "~" for character in parsed.target)
    assert parsed.target.startswith("/")
