"""Which addresses a webhook may go to."""

from __future__ import annotations

import socket
from ipaddress import ip_address
from typing import Any

import pytest
from flask import Flask

from flask_asok import WebhookBlocked, send_webhook
from flask_asok.recipes.webhooks.policy import Policy, is_public

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


@pytest.mark.parametrize(("entry", "network"), [("10.1.0.5/16", "10.1.0.0/16"), ("[fd12::1/48]", "fd12::/48")])
def test_part_of_a_network(entry: str, network: str) -> None:
    """A network that is written with the address of a host is refused, with the text that it should have."""
    with pytest.raises(ValueError, match=f"ASOK_WEBHOOK_ALLOW: .* Write '{network}'"):
        Policy.of([entry], "ASOK_WEBHOOK_ALLOW")


@pytest.mark.parametrize("allow", [None, 7])
def test_no_list(make_app: Any, app: Flask, allow: Any) -> None:
    """What lists nothing is refused in init_app and at the call, by its name and with what to write."""
    with pytest.raises(TypeError, match=r"ASOK_WEBHOOK_ALLOW must not be of type .*: give hosts and networks"):
        make_app(ASOK_WEBHOOK_ALLOW=allow)
    with pytest.raises(TypeError, match="allow_private must not be of type int: give hosts and networks"):
        send_webhook("http://localhost/", {}, allow_private=7)  # type: ignore[arg-type]


def test_iterator(make_app: Any, receiver: Any) -> None:
    """An iterator, which can be read once, allows what it gives."""
    with make_app(ASOK_WEBHOOK_ALLOW=(host for host in ["localhost"])).app_context():
        assert send_webhook(receiver.url, {}).status == 200


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
        if kwargs.get("flags") or host != "rebind.example":
            return real(host, port, **kwargs)
        asked.append(host)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", address) for address in answers[len(asked) - 1]]

    monkeypatch.setattr(socket, "getaddrinfo", rebinding)
    connected: list[Any] = []

    class Recording(socket.socket):
        def connect(self, address: Any) -> None:
            if [address] not in answers:
                super().connect(address)
                return
            connected.append(address)
            raise ConnectionRefusedError(111, "Connection refused")

    monkeypatch.setattr(socket, "socket", Recording)
    from flask_asok import WebhookUnavailable

    with make_app(ASOK_WEBHOOK_ALLOW=[]).app_context(), pytest.raises(WebhookUnavailable):
        send_webhook(f"http://rebind.example:{receiver.port}/", {})

    assert asked == ["rebind.example"]
    assert connected == [("8.8.8.8", 1)]
