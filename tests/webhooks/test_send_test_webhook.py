"""flask asok send-test-webhook."""

from __future__ import annotations

from typing import Any

import pytest
from flask import Flask
from standardwebhooks.webhooks import Webhook

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


@pytest.fixture
def run(make_app: Any) -> Any:
    """Run a command of an app that knows one secret."""
    app: Flask = make_app(ASOK_WEBHOOK_SECRETS={"billing": SECRET})

    def run(*args: str, **kwargs: Any) -> Any:
        return app.test_cli_runner().invoke(args=["asok", "send-test-webhook", *args], **kwargs)

    return run


def test_unsigned(run: Any, receiver: Any) -> None:
    """It shows the status, the time it took, and the answer; not the path."""
    result = run(receiver.url + "/T0KEN")

    assert result.exit_code == 0, result.output
    assert f"http://localhost:{receiver.port} answered 200 in " in result.output
    assert "Answer: ok" in result.output
    assert "Unsigned" in result.output
    assert "T0KEN" not in result.output


@pytest.mark.parametrize("how", [{"secret": "billing"}, {"secret": SECRET}, {"secret": "-", "input": SECRET + "\n"}])
def test_signed(run: Any, receiver: Any, how: dict[str, str]) -> None:
    """It shows the very headers that the receiver was given, and which verify."""
    result = run(receiver.url, "--secret", how.pop("secret"), **how)

    request = receiver.next()
    assert result.exit_code == 0, result.output
    for name in ("webhook-id", "webhook-timestamp", "webhook-signature"):
        assert f"{name}: {request.headers[name]}" in result.output
    assert Webhook(SECRET).verify(request.body, request.headers)["type"] == "test"
    assert "verifies" in result.output
    assert SECRET not in result.output


def test_refused(run: Any, receiver: Any) -> None:
    """A webhook that is not accepted exits with 1 and says why."""
    receiver.answers = [b"HTTP/1.1 404 Not Found\r\nContent-Length: 7\r\n\r\nno_team"]

    result = run(receiver.url)

    assert result.exit_code == 1
    assert "answered 404" in result.output
    assert "Answer: no_team" in result.output


def test_unreachable(run: Any, receiver: Any) -> None:
    """So does one that does not arrive at all."""
    receiver.close()

    result = run(receiver.url)

    assert result.exit_code == 1
    assert "Connection refused" in result.output


@pytest.mark.parametrize("args", [["ftp://x"], ["http://localhost/", "--secret", "unknown"]])
def test_mistake(run: Any, args: list[str]) -> None:
    """A URL or a secret that is no good exits with 2, like any wrong use."""
    assert run(*args).exit_code == 2
