"""Under TESTING, or ASOK_WEBHOOK_SUPPRESS, webhooks are checked and signed, and none leaves the process."""

from __future__ import annotations

import dataclasses
import logging
import subprocess
import sys
import traceback
from collections.abc import Iterator
from typing import Any

import pytest
from flask import Flask

from flask_asok import FlaskAsok, WebhookBlocked, WebhookUnavailable, background, send_webhook, verify_webhook
from flask_asok.recipes.webhooks import recorded
from flask_asok.signals import webhook_failed

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
SLACK = "https://hooks.slack.invalid/services/T0/B0/sesame"


@pytest.fixture
def app(make_app: Any) -> Iterator[Flask]:
    """An app in testing mode, whose context is pushed."""
    app = make_app(TESTING=True, ASOK_WEBHOOK_SECRETS={"billing": SECRET})
    with app.app_context():
        yield app


def test_nothing_is_sent(app: Flask, receiver: Any, caplog: pytest.LogCaptureFixture) -> None:
    """The receiver hears nothing, and the delivery has succeeded without a status; one line of INFO says so."""
    caplog.set_level(logging.INFO, "asok.background")

    delivery = background(send_webhook, receiver.url, {"n": 1}, reference="endpoint-7").result(10)

    assert receiver.connections == 0
    assert (delivery.status, delivery.attempts, delivery.reference) == (None, 1, "endpoint-7")
    assert delivery.url == f"http://localhost:{receiver.port}"
    (record,) = caplog.records
    assert record.levelname == "INFO"
    assert record.getMessage() == f"Webhook {delivery.id} for {delivery.url} was not sent: ASOK_WEBHOOK_SUPPRESS."


def test_no_network() -> None:
    """No name is looked up, no socket is opened and no certificate is read for it."""
    code = """
import sys
from flask import Flask
from flask_asok import FlaskAsok, background, send_webhook
app = Flask("shop")
app.testing = True
FlaskAsok(app)
heard = []
sys.addaudithook(lambda event, args: heard.append(event))
with app.app_context():
    for url in ("https://hooks.example.com/x", "http://1.1.1.1/x", "http://[2606:4700::1111]/x"):
        background(send_webhook, url, {}).result(10)
        send_webhook(url, {})
network = {event for event in heard if event.startswith("socket.")}
assert not network, network
"""
    outcome = subprocess.run([sys.executable, "-c", code], timeout=60, capture_output=True, text=True, check=False)

    assert outcome.returncode == 0, outcome.stderr


def test_what_would_have_been_sent(app: Flask) -> None:
    """The delivery has the whole URL, body and headers, signed so that they verify; its repr shows none of them."""
    delivery = send_webhook(
        SLACK, {"text": "sesame"}, secret="billing", headers={"Authorization": "Bearer sesame"}, id="evt_1"
    )

    assert (delivery.full_url, delivery.url) == (SLACK, "https://hooks.slack.invalid")
    assert (delivery.body, delivery.json) == (b'{"text":"sesame"}', {"text": "sesame"})
    assert delivery.headers["Authorization"] == "Bearer sesame"
    assert delivery.headers["Content-Type"] == "application/json"
    assert verify_webhook(delivery.headers, delivery.body, SECRET) == delivery.id == "evt_1"
    assert "sesame" not in repr(delivery)
    with pytest.raises(dataclasses.FrozenInstanceError):
        delivery.status = 200  # type: ignore[misc]


@pytest.mark.parametrize(
    ("url", "payload", "options", "error"),
    [
        ("ftp://x", {}, {}, ValueError),
        (SLACK, {"tags": {1}}, {}, TypeError),
        (SLACK, {}, {"secret": "unknown"}, ValueError),
        (SLACK, {}, {"headers": {"Host": "x"}}, ValueError),
        (SLACK, {}, {"timeout": 0}, ValueError),
    ],
)
def test_mistakes(app: Flask, url: str, payload: Any, options: dict[str, Any], error: type[Exception]) -> None:
    """What is wrong at the call raises there, as it does in production."""
    with pytest.raises(error):
        background(send_webhook, url, payload, **options)
    with pytest.raises(error):
        send_webhook(url, payload, **options)


@pytest.mark.parametrize("url", ["http://10.0.0.1/", "http://0x7f.1/", "http://[::1]:1/", "http://169.254.169.254/"])
def test_private_address(make_app: Any, url: str) -> None:
    """An address in figures that is not allowed is refused as ever, and webhook_failed tells of it."""
    app = make_app(TESTING=True, ASOK_WEBHOOK_ALLOW=["192.168.0.1"])
    told = []
    with webhook_failed.connected_to(lambda sender, delivery, error: told.append(error), app), app.app_context():
        task = background(send_webhook, url, {})
        assert isinstance(task.exception(10), WebhookBlocked)
        assert send_webhook("http://192.168.0.1/", {}).status is None

    assert [type(error) for error in told] == [WebhookBlocked]


@pytest.mark.parametrize("url", ["http://10.0.0.1/sesame", SLACK])
def test_nothing_is_shown(app: Flask, url: str) -> None:
    """The variables of the frames of an error, which some loggers print, hold no secret here either."""
    with app.test_request_context():
        task = background.using(retries=0, when="response")(
            send_webhook, url, {"key": "sesame"}, secret="billing", headers={"Authorization": "sesame"}
        )
        app.extensions["asok"].config["ASOK_WEBHOOK_SECRETS"] = {"other": SECRET}
    error = task.exception(10)

    assert error is not None
    shown = "".join(traceback.TracebackException.from_exception(error, capture_locals=True).format())
    assert "rehearse" in shown
    assert "sesame" not in shown
    assert SECRET[6:] not in shown


def test_proxy_decides(make_app: Any) -> None:
    """Behind a proxy, which decides what is allowed, an address is not refused here either."""
    app = make_app(ASOK_WEBHOOK_SUPPRESS=True, ASOK_WEBHOOK_ALLOW=(), ASOK_WEBHOOK_PROXY="http://127.0.0.1:1")
    with app.app_context():
        assert send_webhook("http://10.0.0.1/", {}).status is None


def test_secret_unknown_to_the_worker(app: Flask) -> None:
    """A secret that is gone by the time of the attempt fails it as ever."""
    with recorded(app) as deliveries:
        held = background.using(retries=0, when="response")
        with app.test_request_context():
            task = held(send_webhook, SLACK, {}, secret="billing")
            app.extensions["asok"].config["ASOK_WEBHOOK_SECRETS"].clear()
        error = task.exception(10)

    assert isinstance(error, WebhookUnavailable)
    assert deliveries == []


def test_looked_at_for_each_delivery(make_app: Any, receiver: Any) -> None:
    """TESTING counts at the time of the delivery, whenever it is set."""
    app = make_app()
    with app.app_context():
        app.testing = True
        assert send_webhook(receiver.url, {}).status is None
        app.testing = False
        assert send_webhook(receiver.url, {}).status == 200

    assert receiver.connections == 1


@pytest.mark.parametrize(("suppress", "testing", "status"), [(False, True, 200), (True, False, None)])
def test_said_outright(make_app: Any, receiver: Any, suppress: bool, testing: bool, status: int | None) -> None:
    """ASOK_WEBHOOK_SUPPRESS beats TESTING, both ways."""
    app = make_app(TESTING=testing, ASOK_WEBHOOK_SUPPRESS=suppress)
    with app.app_context():
        assert background(send_webhook, receiver.url, {}).result(10).status == status

    assert receiver.connections == (status == 200)


@pytest.mark.parametrize("value", [0, 1, "yes", "False", ()])
def test_bad_value(make_app: Any, value: Any) -> None:
    """Anything but True, False and None is refused when the app is set up."""
    with pytest.raises(TypeError, match=r"ASOK_WEBHOOK_SUPPRESS must not be .*: give True or False"):
        make_app(ASOK_WEBHOOK_SUPPRESS=value)


def test_app_without_the_extension() -> None:
    """A direct call in an app in testing mode sends nothing either, Flask-Asok set up on it or not."""
    app = Flask("bare")
    app.testing = True
    with app.app_context():
        assert send_webhook(SLACK, {}).status is None


def test_immediate(make_app: Any) -> None:
    """The immediate backend suppresses as well."""
    app = make_app(ASOK_BACKEND="immediate", TESTING=True)
    with app.app_context():
        assert background(send_webhook, SLACK, {}).result(0).status is None


def test_recorded(app: Flask, make_app: Any, receiver: Any) -> None:
    """`recorded` collects an app's own deliveries, those really made too, and no failed one."""
    real = make_app()
    with recorded(app) as suppressed, recorded(real) as sent:
        task = background(send_webhook, SLACK, {"n": 1})
        task.join(10)
        with real.app_context():
            done = send_webhook(receiver.url + "?token=sesame", {"n": 2}, secret=SECRET)
            receiver.answers = [b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"]
            background(send_webhook, receiver.url, {"n": 3}).join(10)

    assert suppressed == [task.result()]
    assert [(delivery.json, delivery.status) for delivery in sent] == [({"n": 2}, 200)]
    assert sent[0].full_url == receiver.url + "?token=sesame"
    request = receiver.next()
    assert {name.lower(): value for name, value in sent[0].headers.items()}.items() <= request.headers.items()
    assert (done.full_url, done.headers) == (None, {})


def test_recorded_is_of_one_app(make_app: Any, receiver: Any) -> None:
    """A direct call outside of every application is delivered, and is no application's."""
    with recorded(make_app()) as deliveries:
        assert send_webhook(receiver.url, {}, allow_private=True).status == 200

    assert deliveries == []


def test_command(make_app: Any, receiver: Any) -> None:
    """`flask asok send-test-webhook` is there to send one, and does."""
    app = make_app(TESTING=True, ASOK_WEBHOOK_SUPPRESS=True)

    result = app.test_cli_runner().invoke(args=["asok", "send-test-webhook", receiver.url])

    assert result.exit_code == 0, result.output
    assert receiver.next().body
    FlaskAsok().close(app)
