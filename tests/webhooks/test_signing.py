"""Signatures, as Standard Webhooks has them."""

from __future__ import annotations

import base64
import contextlib
import datetime
import re
import time
from pathlib import Path
from typing import Any

import pytest
from flask import Flask, request
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks.webhooks import Webhook
from werkzeug.datastructures import Headers

from flask_asok import WebhookNotVerified, send_webhook, verify_webhook
from flask_asok.recipes.webhooks import signing

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
OLD_SECRET = "whsec_" + base64.b64encode(b"o" * 32).decode()

REFERENCE = {
    "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
    "webhook-timestamp": "1614265330",
    "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
}
REFERENCE_BODY = b'{"test": 2432232314}'


def verified(headers: Any, body: Any = REFERENCE_BODY, secret: Any = SECRET, **kwargs: Any) -> str:
    return verify_webhook(headers, body, secret, **{"now": 1614265330, **kwargs})


def test_reference_vector() -> None:
    """The example of the specification gets the signature printed there."""
    found = signing.sign(signing.keys([SECRET]), REFERENCE["webhook-id"], 1614265330, REFERENCE_BODY)

    assert found == REFERENCE["webhook-signature"]


def test_verify_reference_vector() -> None:
    """The example of the specification verifies, and its id is returned."""
    assert verified(REFERENCE) == REFERENCE["webhook-id"]


def test_official_package_verifies_ours(app: Flask, receiver: Any) -> None:
    """What we send is accepted by the official receiver."""
    send_webhook(receiver.url, {"text": "✓"}, secret=SECRET)

    request = receiver.next()
    assert Webhook(SECRET).verify(request.body, request.headers) == {"text": "✓"}


@given(st.text(st.characters(codec="utf-8")), st.binary(min_size=24, max_size=64), st.integers(0, 2**33))
def test_we_verify_the_official_package(body: str, key: bytes, seconds: int) -> None:
    """What the official sender signs is accepted by us, and the other way round."""
    secret = "whsec_" + base64.b64encode(key).decode()
    moment = datetime.datetime.fromtimestamp(seconds, datetime.UTC)

    signature = Webhook(secret).sign("msg_1", moment, body)

    headers = {"Webhook-Id": "msg_1", "Webhook-Timestamp": str(seconds), "Webhook-Signature": signature}
    assert verify_webhook(headers, body, secret, now=seconds) == "msg_1"
    assert signing.sign([key], "msg_1", seconds, body.encode()) == signature


def test_rotation(app: Flask, receiver: Any) -> None:
    """With two secrets a receiver that knows either one is content, the newest signature first."""
    send_webhook(receiver.url, {}, secret=[SECRET, OLD_SECRET])

    request = receiver.next()
    first, second = request.headers["webhook-signature"].split(" ")
    assert first != second
    for secret in (SECRET, OLD_SECRET):
        assert Webhook(secret).verify(request.body, request.headers) == {}
        assert verify_webhook(request.headers, request.body, secret) == request.headers["webhook-id"]


def test_receiver_rotates() -> None:
    """A receiver may know several secrets as well."""
    assert verified(REFERENCE, secret=[OLD_SECRET, SECRET])


def test_named_secret(make_app: Any, receiver: Any) -> None:
    """A secret can be the name of a setting's entry, on both sides."""
    app = make_app(ASOK_WEBHOOK_SECRETS={"billing": [SECRET, OLD_SECRET]})

    with app.app_context():
        send_webhook(receiver.url, {}, secret="billing")
        request = receiver.next()

        assert verify_webhook(request.headers, request.body, "billing")
    assert verify_webhook(request.headers, request.body, OLD_SECRET)


def test_name_without_the_extension() -> None:
    """A name can only be looked up in an app that has FlaskAsok."""
    with Flask("plain").app_context(), pytest.raises(ValueError, match="ASOK_WEBHOOK_SECRETS"):
        send_webhook("http://localhost/", {}, secret="billing")


def test_no_secret() -> None:
    """A receiver whose secret is missing does not accept everything, nor refuse all in silence: it raises."""
    with pytest.raises(ValueError, match="needs a secret"):
        verified(REFERENCE, secret=None)


def test_unsigned(app: Flask, receiver: Any) -> None:
    """Without a secret there is no signature, as Slack has it."""
    send_webhook(receiver.url, {})

    assert "webhook-signature" not in receiver.next().headers


def test_in_a_view(receiver: Any) -> None:
    """A Flask view verifies what came in, and refuses the rest."""
    app = Flask("receiver")

    @app.post("/hook")
    def hook() -> tuple[str, int]:
        try:
            verify_webhook(request.headers, request.get_data(), SECRET)
        except WebhookNotVerified:
            return "", 401
        return "", 204

    now = str(int(time.time()))
    signature = signing.sign(signing.keys([SECRET]), "msg_1", int(now), b"{}")
    headers = {"webhook-id": "msg_1", "webhook-timestamp": now, "webhook-signature": signature}

    assert app.test_client().post("/hook", data=b"{}", headers=headers).status_code == 204
    assert app.test_client().post("/hook", data=b"{ }", headers=headers).status_code == 401


def test_documented_receiver() -> None:
    """The receiver in the documentation runs, accepts what is signed and refuses what is not."""
    page = (Path(__file__).parents[2] / "docs" / "webhooks.md").read_text()
    (code,) = re.findall(r"```python\n(from flask import Flask, request\n.*?)```", page, re.DOTALL)
    names: dict[str, Any] = {"__name__": "receiver"}
    exec(code, names)
    client = names["app"].test_client()
    now = int(time.time())
    headers = {
        "webhook-id": "msg_1",
        "webhook-timestamp": str(now),
        "webhook-signature": signing.sign(signing.keys([names["SECRET"]]), "msg_1", now, b"{}"),
        "content-type": "application/json",
    }

    assert client.post("/hooks/billing", data=b"{}", headers=headers).status_code == 204
    assert client.post("/hooks/billing", data=b"[]", headers=headers).status_code == 401


@pytest.mark.parametrize("seconds", [-301, 301])
def test_tolerance(seconds: int) -> None:
    """A webhook more than five minutes old, or ahead, is refused: it may be a replay."""
    with pytest.raises(WebhookNotVerified, match="timestamp"):
        verified(REFERENCE, now=1614265330 + seconds)


@pytest.mark.parametrize("seconds", [-300, 300])
def test_within_tolerance(seconds: int) -> None:
    """Five minutes are still good."""
    assert verified(REFERENCE, now=1614265330 + seconds)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("webhook-id", "msg_other"),
        ("webhook-id", ""),
        ("webhook-id", "msg.1"),
        ("webhook-timestamp", "1614265331"),
        ("webhook-timestamp", "1_614_265_330"),
        ("webhook-timestamp", "\uff11\uff16\uff11\uff14\uff12\uff16\uff15\uff13\uff13\uff10"),
        ("webhook-timestamp", "-1"),
        ("webhook-timestamp", "9" * 13),
        ("webhook-signature", ""),
        ("webhook-signature", "v1,"),
        ("webhook-signature", "v1,AAAA"),
        ("webhook-signature", "v1,é"),
        ("webhook-signature", "v2," + REFERENCE["webhook-signature"][3:]),
        ("webhook-signature", REFERENCE["webhook-signature"][3:]),
    ],
)
def test_forged(name: str, value: str) -> None:
    """Any part that differs makes the webhook unverified, and nothing else than that."""
    with pytest.raises(WebhookNotVerified):
        verified({**REFERENCE, name: value})


@pytest.mark.parametrize("body", [b"", b"\xff", '{"test": 2432232315}', "\udc80"])
def test_other_body(body: Any) -> None:
    """A body that differs is refused."""
    with pytest.raises(WebhookNotVerified):
        verified(REFERENCE, body)


def test_other_borders() -> None:
    """The same signed content, cut in another place, is no other webhook."""
    body = b"1614265331.{}"
    signature = signing.sign(signing.keys([SECRET]), "msg", 1614265330, body)
    headers = {"webhook-id": "msg.1614265330", "webhook-timestamp": "1614265331", "webhook-signature": signature}

    with pytest.raises(WebhookNotVerified):
        verified(headers, b"{}")


def test_several_signatures() -> None:
    """One good signature among others is enough, whatever the others are."""
    signature = REFERENCE["webhook-signature"]

    assert verified({**REFERENCE, "webhook-signature": f"v1a,zzz  rubbish v1,!! {signature}"})


@pytest.mark.parametrize("name", list(REFERENCE))
@pytest.mark.parametrize("value", [None, 7, b"bytes", ["v1,"]], ids=repr)
def test_no_text(name: str, value: Any) -> None:
    """Headers of another framework that are no text are refused like any others."""
    for headers in ({**REFERENCE, name: value}, {**REFERENCE, name.encode(): value, 7: 7}):
        with contextlib.suppress(WebhookNotVerified):
            assert verified(headers) == REFERENCE["webhook-id"]
            assert headers[name] == REFERENCE[name]


@pytest.mark.parametrize("name", list(REFERENCE))
def test_twice(name: str) -> None:
    """A header that is there twice is refused, whichever of the two is good: an app may read the other one."""
    for values in ([REFERENCE[name], "x"], ["x", REFERENCE[name]]):
        headers = Headers([*REFERENCE.items()])
        headers.setlist(name, values)
        with pytest.raises(WebhookNotVerified, match="once"):
            verified(headers)


def test_many_signatures() -> None:
    """A header full of signatures is read, and costs little more than its length."""
    many = " ".join(["v1," + "A" * 44] * 10_000)

    assert verified({**REFERENCE, "webhook-signature": f"{many} {REFERENCE['webhook-signature']}"})
    with pytest.raises(WebhookNotVerified):
        verified({**REFERENCE, "webhook-signature": many})


def test_no_tolerance() -> None:
    """A tolerance that is no number lets nothing through."""
    with pytest.raises(WebhookNotVerified):
        verified(REFERENCE, tolerance=float("nan"))


@given(st.dictionaries(st.sampled_from(list(REFERENCE)), st.text()), st.binary())
def test_any_request(headers: dict[str, str], body: bytes) -> None:
    """Whatever a stranger sends is WebhookNotVerified, and no other error."""
    with pytest.raises(WebhookNotVerified):
        verify_webhook(headers, body, SECRET)


@pytest.mark.parametrize(
    "secret",
    [
        "",
        "whsec_",
        "whsec_" + base64.b64encode(b"x" * 23).decode(),
        "whsec_" + base64.b64encode(b"x" * 65).decode(),
        SECRET[:-1],
        SECRET[:-1] + "é",
        SECRET + "\n",
        SECRET + "!",
        "whsec_" + base64.b64encode(b"x" * 25).decode().replace("=", ""),
        "whsec_" + base64.b64encode(b"\xff" * 24).decode().replace("/", "_"),
        "whsec_" + base64.b64encode(b"x" * 25).decode().replace("A==", "B=="),
        "whsk_" + SECRET[6:],
        "a passphrase",
    ],
)
def test_bad_secret(app: Flask, secret: str) -> None:
    """A secret that is not 24 to 64 bytes in base64 is refused on both sides, and not quoted."""
    for call in (
        lambda: send_webhook("http://localhost/", {}, secret=secret),
        lambda: verified(REFERENCE, secret=secret),
    ):
        with pytest.raises(ValueError, match="secret") as raised:
            call()
        assert len(secret) < 10 or secret not in str(raised.value)


@given(st.text())
def test_any_secret(text: str) -> None:
    """Whatever follows whsec_ is either a good secret, or a ValueError."""
    try:
        (key,) = signing.keys(["whsec_" + text])
    except ValueError:
        return
    assert "whsec_" + base64.b64encode(key).decode() == "whsec_" + text
