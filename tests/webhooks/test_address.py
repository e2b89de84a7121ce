"""Which URLs and addresses a webhook may go to."""

from __future__ import annotations

import socket
from ipaddress import ip_address
from typing import Any

import pytest
from flask import Flask
from hypothesis import given
from hypothesis import strategies as st

from flask_asok import WebhookBlocked, background, send_webhook
from flask_asok.recipes.webhooks.policy import Policy, is_public
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
    "http://" + "a" * 64 + ".com/", "http://example.com/" + "x" * 9000,
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


NOT_PUBLIC = """
0.0.0.0 0.1.2.3 10.0.0.1 100.64.0.1 100.127.255.255 127.0.0.1 127.255.255.255 169.254.1.1 169.254.169.254
172.16.0.1 172.31.255.255 192.0.0.1 192.0.0.192 192.0.2.1 192.31.196.1 192.52.193.1 192.88.99.1 192.168.0.1
192.175.48.1 198.18.0.1 198.19.255.255 198.51.100.1 203.0.113.1 224.0.0.1 239.255.255.255 240.0.0.1
255.255.255.255 100.100.100.200 168.63.129.16 :: ::1 ::127.0.0.1 ::ffff:127.0.0.1 ::ffff:10.0.0.1
::ffff:0:127.0.0.1 64:ff9b::127.0.0.1 64:ff9b::a9fe:a9fe 64:ff9b:1::1 100::1 2001::1 2001:2::1 2001:10::1
2001:20::1 2001:db8::1 2002:7f00:1:: 2620:4f:8000::1 3fff::1 5f00::1 fc00::1 fd00:ec2::254 fd12::1 fe80::1
fe80::1%1 fec0::1 ff02::1 ff0e::1 4000::1
""".split()  # noqa: SIM905 - one list of words is easier to read
PUBLIC = """
1.1.1.1 8.8.8.8 9.255.255.255 11.0.0.1 100.63.255.255 100.128.0.1 128.0.0.1 172.15.255.255 172.32.0.1
192.0.1.1 198.17.0.1 198.20.0.1 223.255.255.255 2606:4700::1111 2a00:1450:4001::1 2001:4860::8888
2600:a9fe:a9fe::1 2a00::a9fe:a9fe ::ffff:8.8.8.8 64:ff9b::8.8.8.8
""".split()  # noqa: SIM905 - one list of words is easier to read


def test_not_public() -> None:
    """Addresses that are special in any way are not public; with the defaults nothing is sent there."""
    assert [address for address in NOT_PUBLIC if is_public(ip_address(address))] == []
    assert [address for address in NOT_PUBLIC if Policy().refusal("host", [address]) is None] == []


def test_public() -> None:
    """Public addresses are not blocked by mistake."""
    assert [address for address in PUBLIC if Policy().refusal("host", [address]) is not None] == []


def test_every_address_must_pass() -> None:
    """One address among others that is not public blocks the name."""
    assert "10.0.0.1" in str(Policy().refusal("host", ["8.8.8.8", "10.0.0.1"]))


METADATA = """
169.254.169.254 168.63.129.16 100.100.100.200 fd00:ec2::254 fd00:42::42 fd00:a9fe:a9fe::1 fd20:ce::254
fd00:c1::a9fe:a9fe fd00:100::100:200 2001:0:4136:e378:8000:63bf:5601:5601 64:ff9b:1:a9fe:a9:fe00::
::ffff:169.254.169.254 64:ff9b::a9fe:a9fe
64:ff9b:1::a9fe:a9fe 2002:a9fe:a9fe:: ::169.254.169.254 ::ffff:0:169.254.169.254 fe80::a9fe:a9fe
""".split()  # noqa: SIM905 - one list of words is easier to read


@pytest.mark.parametrize("allow", [True, ["0.0.0.0/0", "::/0"], ["host"], ["169.254.169.254"]])
def test_metadata(allow: Any) -> None:
    """Where clouds keep credentials no setting leads, and the error says so."""
    policy = Policy.of(allow, "allow")

    assert [address for address in METADATA if "no setting" not in str(policy.refusal("host", [address]))] == []


@pytest.mark.parametrize(
    ("allow", "host", "address"),
    [
        (True, "host", "10.1.2.3"),
        (True, "host", "127.0.0.1"),
        (True, "host", "fd12::1"),
        (True, "host", "::1"),
        (["10.0.0.0/8"], "host", "10.1.2.3"),
        (["10.1.2.3"], "host", "10.1.2.3"),
        (["[::1]"], "host", "::1"),
        (["10.0.0.0/8"], "host", "::ffff:10.1.2.3"),
        (["hooks.local"], "hooks.local", "192.168.1.1"),
        (["Hooks.Local"], "hooks.local", "192.168.1.1"),
        ("hooks.local", "hooks.local", "192.168.1.1"),
        ("hooks.local", "hooks.local.", "192.168.1.1"),
        ("hooks.local.", "hooks.local", "192.168.1.1"),
        ("bücher.local", "xn--bcher-kva.local", "192.168.1.1"),
    ],
)
def test_allowed(allow: Any, host: str, address: str) -> None:
    """Hosts and networks that a setting names may be delivered to."""
    assert Policy.of(allow, "allow").refusal(host, [address]) is None


@pytest.mark.parametrize(
    ("allow", "address"),
    [
        (True, "0.0.0.0"),
        (True, "224.0.0.1"),
        (True, "2002:7f00:1::"),
        (["10.0.0.0/16"], "10.1.0.1"),
        (["other"], "10.0.0.1"),
        (False, "10.0.0.1"),
    ],
)
def test_still_blocked(allow: Any, address: str) -> None:
    """What no setting names stays blocked."""
    assert Policy.of(allow, "allow").refusal("host", [address])


@pytest.mark.parametrize(
    "allow",
    [
        ["10.0.0.1/8"],
        ["10.0.0/8"],
        ["*"],
        ["a b"],
        ["http://x"],
        ["1.2.3"],
        [""],
        ["."],
        ["straße.de"],
        ["hooks.local:80"],
    ],
)
def test_bad_setting(allow: list[str]) -> None:
    """An entry that is neither a host nor a network is refused, with the setting's name."""
    with pytest.raises(ValueError, match="ASOK_WEBHOOK_ALLOW"):
        Policy.of(allow, "ASOK_WEBHOOK_ALLOW")


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "localhost",
        "127.1",
        "2130706433",
        "0x7f.1",
        "0177.0.0.1",
        "0",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "①②⑦.⓪.⓪.①",
        "127。0。0。1",
    ],
)
def test_blocked_sends_nothing(make_app: Any, receiver: Any, host: str) -> None:
    """However this machine is spelled, no connection is made, and the error names the setting."""
    with make_app(ASOK_WEBHOOK_ALLOW=[]).app_context(), pytest.raises(WebhookBlocked, match="ASOK_WEBHOOK_ALLOW"):
        send_webhook(f"http://{host}:{receiver.port}/", {})

    assert receiver.connections == 0


def test_blocked_has_delivery(make_app: Any) -> None:
    """The error of a blocked webhook has its Delivery, without a status."""
    with make_app(ASOK_WEBHOOK_ALLOW=[]).app_context(), pytest.raises(WebhookBlocked) as raised:
        send_webhook("http://localhost/", {}, id="msg_1")

    assert raised.value.delivery is not None
    assert (raised.value.delivery.id, raised.value.delivery.status) == ("msg_1", None)


def test_allow_private_false(app: Flask, receiver: Any) -> None:
    """A call can be stricter than the setting, also where a connection from a laxer one is open."""
    send_webhook(receiver.url, {})

    with pytest.raises(WebhookBlocked):
        send_webhook(receiver.url, {}, allow_private=False)


def test_no_rebinding(make_app: Any, receiver: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The name is resolved once for a connection: a second answer of its server cannot lead elsewhere."""
    answers = [[("8.8.8.8", 1)], [("127.0.0.1", receiver.port)]]
    asked: list[str] = []
    real = socket.getaddrinfo

    def rebinding(host: str, port: int, **kwargs: Any) -> Any:
        if kwargs.get("flags"):
            return real(host, port, **kwargs)
        asked.append(host)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", address) for address in answers[len(asked) - 1]]

    monkeypatch.setattr(socket, "getaddrinfo", rebinding)
    connected: list[Any] = []

    class Recording(socket.socket):
        def connect(self, address: Any) -> None:
            connected.append(address)
            raise ConnectionRefusedError(111, "Connection refused")

    monkeypatch.setattr(socket, "socket", Recording)
    from flask_asok import WebhookUnavailable

    with make_app(ASOK_WEBHOOK_ALLOW=[]).app_context(), pytest.raises(WebhookUnavailable):
        send_webhook(f"http://rebind.example:{receiver.port}/", {})

    assert asked == ["rebind.example"]
    assert connected == [("8.8.8.8", 1)]
